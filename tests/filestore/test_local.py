"""Blobs in a local directory: as every provider, and what is their own."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from casfs.filestore.directory import StoreDirectory
from casfs.filestore.filestore import FileStore
from casfs.filestore.hashing import hash_bytes
from casfs.filestore.local import FAN_OUTS, LocalBlobs
from casfs.filestore.staging import StagedFile, Staging
from tests.faults import PowerLoss
from tests.filestore.conformance import Conformance, Place

CONTENT = b"content"
F_SETSIG = 10
DIGEST = hash_bytes(CONTENT)


class LocalPlace(Place):
    def __init__(self, path: Path, fan_out: int, resources: ExitStack) -> None:
        (path / "store").mkdir()
        self._path = path
        self._fan_out = fan_out
        self._resources = resources
        directory = self._opened("store")
        FileStore(directory, fan_out).create()
        self.seam = PowerLoss(path / "store")
        directory.durable = self.seam
        self.blobs = LocalBlobs(directory, fan_out)
        self._staging = Staging(directory)

    def _opened(self, name: str) -> StoreDirectory:
        return self._resources.enter_context(closing(StoreDirectory(str(self._path / name))))

    def stage(self, content: bytes) -> StagedFile:
        staged = self._staging.create()
        os.pwrite(staged.fd, content, 0)
        self._staging.sync([staged.name])
        self._staging.sync_names()
        return staged

    def file(self, path: str) -> bytes | None:
        file = self._path / "store" / path
        return file.read_bytes() if file.exists() else None

    def restarted(self) -> LocalBlobs:
        return LocalBlobs(self._opened("store"), self._fan_out)

    def after_power_loss(self) -> LocalBlobs:
        self.seam.image(self._path / "left", lose_files=True, lose_log=True)
        return LocalBlobs(self._opened("left"), self._fan_out)


class TestConformance(Conformance):
    @pytest.fixture(params=FAN_OUTS[:2])
    def place(self, scratch: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
        with ExitStack() as resources:
            yield LocalPlace(scratch, request.param, resources)


@pytest.fixture
def blobs(directory: StoreDirectory) -> LocalBlobs:
    blobs = LocalBlobs(directory, 1)
    blobs.create()
    return blobs


def test_blobs_are_private_files_in_the_folder_of_their_prefix(blobs: LocalBlobs, scratch: Path) -> None:
    blobs.publish_bytes({DIGEST: CONTENT})
    name = blobs.name(DIGEST)
    assert name == f"blobs/{DIGEST.hex()[0]}/{DIGEST.hex()}"
    assert blobs.path(DIGEST) == str(scratch / name)
    assert (scratch / name).read_bytes() == CONTENT
    assert stat.S_IMODE(blobs.status(DIGEST).st_mode) == 0o400
    assert all(stat.S_IMODE((scratch / folder).stat().st_mode) == 0o700 for folder in blobs.folders())


def test_what_lies_there_is_found_whatever_it_is(blobs: LocalBlobs, scratch: Path) -> None:
    blobs.publish_bytes({DIGEST: CONTENT})
    prefix = DIGEST.hex()[0]
    other = "0" if prefix != "0" else "1"
    (scratch / "blobs" / prefix / "stranger").write_bytes(b"?")
    os.mkfifo(scratch / "blobs" / prefix / "fifo")
    (scratch / "blobs" / other / DIGEST.hex()).write_bytes(b"misplaced")
    found = {each.name: (each.digest, each.is_in_place, each.status.st_size) for each in blobs.found(prefix)}
    assert found == {
        blobs.name(DIGEST): (DIGEST, True, len(CONTENT)),
        f"blobs/{prefix}/stranger": (None, False, 1),
        f"blobs/{prefix}/fifo": (None, False, 0),
    }
    (misplaced,) = blobs.found(other)
    assert misplaced[:3] == (f"blobs/{other}/{DIGEST.hex()}", DIGEST, False)
    assert list(blobs.enumerate(prefix)) == [DIGEST]
    assert list(blobs.enumerate(other)) == []


def test_foreign_entries_among_the_folders(blobs: LocalBlobs, scratch: Path) -> None:
    assert list(blobs.foreign_entries()) == []
    (scratch / "blobs" / "00").mkdir()
    (scratch / "blobs" / "f").rmdir()
    (scratch / "blobs" / "f").write_bytes(b"")
    assert set(blobs.foreign_entries()) == {"blobs/00", "blobs/f"}


def test_a_folder_that_is_missing_has_no_blobs(blobs: LocalBlobs, scratch: Path) -> None:
    (scratch / "blobs" / "0").rmdir()
    assert list(blobs.enumerate("0")) == []
    assert list(blobs.found("0")) == []
    assert blobs.size(bytes(32)) is None
    (scratch / "blobs" / "0").touch()
    assert list(blobs.found("0")) == []
    assert blobs.size(bytes(32)) is None


def test_what_is_no_file_is_neither_followed_nor_waited_for(blobs: LocalBlobs, scratch: Path) -> None:
    path = scratch / blobs.name(DIGEST)
    (scratch / "secret").write_bytes(CONTENT)
    path.symlink_to(scratch / "secret")
    with pytest.raises(OSError, match="symbolic") as raised:
        blobs.open(DIGEST)
    assert raised.value.errno == errno.ELOOP
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        blobs.open(DIGEST)
    assert blobs.size(DIGEST) is None


def test_who_is_asked_about_by_a_lease_is_waited_for(blobs: LocalBlobs) -> None:
    """A scrub ended with EAGAIN when the mount asked who else had that file (filestore/lease.py)."""
    blobs.publish_bytes({DIGEST: CONTENT})
    fd = blobs.open(DIGEST)
    fcntl.fcntl(fd, F_SETSIG, signal.SIGURG)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    with ThreadPoolExecutor() as threads:
        opened = threads.submit(blobs.open, DIGEST)
        with pytest.raises(TimeoutError):
            opened.result(0.1)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(opened.result(30))
    os.close(fd)


def test_the_store_may_be_moved_and_its_name_be_taken(blobs: LocalBlobs, scratch: Path) -> None:
    """Everything is reached from the descriptor, whatever the path means by then."""
    moved = scratch.with_name(scratch.name + "-moved")
    scratch.rename(moved)
    try:
        scratch.mkdir()
        blobs.publish_bytes({DIGEST: CONTENT})
        blobs.sync_names([DIGEST])
        assert list(blobs.enumerate(DIGEST.hex()[0])) == [DIGEST]
        assert list(scratch.iterdir()) == []
        scratch.rmdir()
    finally:
        moved.rename(scratch)


def test_a_directory_that_is_closed_leads_nowhere(blobs: LocalBlobs, directory: StoreDirectory) -> None:
    """And not to what has its number by then."""
    directory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        blobs.open(DIGEST)
    directory.close()
