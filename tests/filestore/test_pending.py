"""The buffer of accepted blobs, and what the filestore makes of it."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from casfs.filestore import pending
from casfs.filestore.filestore import FileStore
from casfs.filestore.hashing import hash_bytes
from casfs.space import FILE_RESERVE, FILE_ROOM
from tests.faults import FaultyDurable
from tests.filestore.test_durable import file_size_limit
from tests.filestore.test_filestore import CONTENT, DIGEST, read, stage
from tests.filestore.test_filestore import blobs as written
from tests.test_space import Disk


def accept(filestore: FileStore, count: int) -> dict[bytes, bytes]:
    """So many pending blobs."""
    contents = [b"content %d" % number for number in range(count)]
    blobs = {bytes(hash_bytes(content)): content for content in contents}
    for digest, content in blobs.items():
        filestore.accept(digest, content)
    return blobs


def test_an_accepted_blob_is_there_before_its_file(filestore: FileStore, seam: FaultyDurable) -> None:
    filestore.accept(DIGEST, bytearray(CONTENT))
    assert filestore.has(DIGEST, len(CONTENT))
    assert not filestore.has(DIGEST, len(CONTENT) + 1)
    assert filestore.is_pending(DIGEST)
    assert seam.calls == []
    assert read(filestore, DIGEST) == CONTENT
    assert os.stat(filestore.blobs.path(DIGEST)).st_mode & 0o777 == 0o400
    assert not filestore.is_pending(DIGEST)
    assert filestore.has(DIGEST, len(CONTENT))
    filestore.write_pending([DIGEST])
    assert seam.calls == ["create", "write_whole"]


def test_pending_blobs_are_written_in_batches(
    filestore: FileStore, seam: FaultyDurable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is given back while the rest is written."""
    monkeypatch.setattr(pending, "WRITE_BATCH", 3)
    blobs = accept(filestore, 8)
    left: list[int] = []
    seam.before = lambda number, name: left.append(sum(map(filestore.is_pending, blobs)))
    filestore.write_pending(list(blobs))
    assert left[::2] == [8, 8, 8, 5, 5, 5, 2, 2]
    assert {digest: read(filestore, digest) for digest in blobs} == blobs


def test_a_pending_blob_replaces_the_torn_rest_of_a_power_loss(filestore: FileStore) -> None:
    Path(filestore.blobs.path(DIGEST)).write_bytes(bytes(len(CONTENT)))
    filestore.accept(DIGEST, CONTENT)
    filestore.write_pending([DIGEST])
    assert read(filestore, DIGEST) == CONTENT


@pytest.mark.parametrize("call", ["create", "write_whole"])
def test_what_could_not_be_written_is_pending_as_before(
    filestore: FileStore, seam: FaultyDurable, call: str
) -> None:
    blobs = accept(filestore, 5)

    def full(_: int, name: str) -> None:
        if name == call and seam.calls.count(call) == 4:
            raise OSError(errno.ENOSPC, "full")

    seam.before = full
    with pytest.raises(OSError, match="full"):
        filestore.write_pending(list(blobs))
    seam.before = lambda number, name: None
    assert len(written(filestore)) == 3
    filestore.write_pending(list(blobs))
    assert {digest: read(filestore, digest) for digest in blobs} == blobs
    assert not any(map(filestore.is_pending, blobs))


def test_a_copy_in_memory_is_whole_or_not_at_all(filestore: FileStore, seam: FaultyDurable) -> None:
    """Who reads a blob that has no file yet must not take a part of it for the whole."""

    def full(_: int, name: str) -> None:
        raise OSError(errno.ENOSPC, "full")

    filestore.accept(DIGEST, CONTENT)
    seam.before = full
    assert read(filestore, DIGEST) == CONTENT
    with file_size_limit(len(CONTENT) - 1), pytest.raises(OSError, match="too large"):
        filestore.open(DIGEST)


def test_a_forgotten_blob_is_not_written(filestore: FileStore) -> None:
    filestore.accept(DIGEST, CONTENT)
    filestore.forget(DIGEST)
    assert not filestore.has(DIGEST, len(CONTENT))
    filestore.write_pending([DIGEST])
    assert written(filestore) == set()


def test_a_staged_file_takes_the_place_of_a_pending_blob(filestore: FileStore, seam: FaultyDurable) -> None:
    filestore.accept(DIGEST, CONTENT)
    filestore.publish_staged(DIGEST, stage(filestore, CONTENT), keep_name=False)
    assert not filestore.is_pending(DIGEST)
    assert read(filestore, DIGEST) == CONTENT
    assert seam.calls == ["create", "rename"]


def test_a_reader_waits_for_the_thread_that_writes_the_blob(
    filestore: FileStore, seam: FaultyDurable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not replace a file that is half written, nor read one."""
    blobs = list(accept(filestore, 2))
    writing, waiting, go_on = threading.Event(), threading.Event(), threading.Event()
    wait = filestore._pending._written.wait

    def hold(_: int, name: str) -> None:
        if name == "write_whole" and not writing.is_set():
            writing.set()
            assert go_on.wait(30)

    def waits(timeout: float | None = None) -> bool:
        waiting.set()
        return wait(timeout)

    seam.before = hold
    monkeypatch.setattr(filestore._pending._written, "wait", waits)
    with ThreadPoolExecutor() as threads:
        writer = threads.submit(filestore.write_pending, blobs)
        assert writing.wait(30)
        reader = threads.submit(read, filestore, blobs[0])
        assert waiting.wait(30)
        filestore.accept(DIGEST, CONTENT)
        assert read(filestore, DIGEST) == CONTENT, "another blob has to wait"
        go_on.set()
        writer.result(30)
        assert reader.result(30) == b"content 0"
    assert seam.calls.count("create") == 3


def test_what_is_accepted_twice_takes_its_room_once(filestore: FileStore) -> None:
    for _ in range(2):
        filestore.accept(DIGEST, CONTENT)
    assert filestore._pending.room() == (len(CONTENT) + FILE_ROOM, 1)
    filestore.write_pending([DIGEST])
    assert filestore._pending.room() == (0, 0)


def test_blobs_are_many_by_their_number_or_their_bytes(
    filestore: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = list(accept(filestore, 4))
    assert not filestore.pending_are_many
    for limit, value in (("PENDING_COUNT", 4), ("PENDING_LIMIT", 4 * 4096)):
        with monkeypatch.context() as patch:
            patch.setattr(pending, limit, value)
            assert filestore.pending_are_many
    monkeypatch.setattr(pending, "PENDING_COUNT", 4)
    filestore.forget(blobs[0])
    assert not filestore.pending_are_many


# The room that they will take


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, filestore: FileStore) -> Disk:
    disk = Disk(100 << 30, 50 << 30)
    monkeypatch.setattr(filestore.space, "_statvfs", disk)
    return disk


def test_what_is_accepted_keeps_its_inode(filestore: FileStore, disk: Disk) -> None:
    disk.free_files = FILE_RESERVE + 1
    filestore.accept(DIGEST, CONTENT)
    with pytest.raises(OSError, match="no inodes left"):
        filestore.space.claim(4096, 1)
    filestore.space.claim(4096)


def test_blobs_that_wait_for_their_file_count_against_new_data(filestore: FileStore, disk: Disk) -> None:
    disk.free = 30 << 20
    filestore.accept(DIGEST, bytes(8 << 20))
    with pytest.raises(OSError, match="full"):
        filestore.space.claim(10 << 20)
    filestore.forget(DIGEST)
    filestore.space.claim(10 << 20)
