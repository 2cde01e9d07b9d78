"""Small blobs whose files are left to the commit: seen like any other before it, and lost by nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import FsError
from casfs.fs.commit import GroupCommit
from casfs.fs.filesystem import FileSystem
from tests.faults import FaultyDurable
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session

pytestmark = pytest.mark.usefixtures("seals_at_close")


@pytest.fixture
def seam(store_path: Path) -> FaultyDurable:
    return FaultyDurable()


@pytest.fixture
def session(store_path: Path, seam: FaultyDurable) -> Iterator[Session]:
    session = Session(store_path, seam)
    seam.calls.clear()
    yield session
    session.stop()


@pytest.fixture
def group(fs: FileSystem) -> GroupCommit:
    return fs.group


def test_a_small_blob_gets_its_file_from_the_commit(
    kernel: Kernel, session: Session, seam: FaultyDurable
) -> None:
    kernel.write_file("file", b"content")
    kernel.write_file("same", b"content")
    assert seam.calls == []
    kernel.sync()
    assert seam.calls == [
        *("create", "write_whole", "fsync_path", "fsync_path"),
        *("reserve_log", "commit", "sync_log"),
    ]
    assert kernel.read_file("same") == b"content"


def test_a_blob_is_read_before_its_commit(kernel: Kernel, session: Session, seam: FaultyDurable) -> None:
    kernel.write_file("file", b"content")
    digest = blake3(b"content")
    assert kernel.getxattr("file", b"user.casfs.blake3").decode() == digest.hexdigest()
    assert kernel.read_file("file") == b"content"
    assert seam.calls == []
    kernel.sync()
    assert seam.calls.count("create") == 1
    assert not session.store.filestore.is_pending(digest.digest())


@pytest.mark.parametrize("append", [b"!", bytes(300_000)], ids=["in memory", "to a staged file"])
def test_a_blob_is_copied_up_before_its_commit(kernel: Kernel, append: bytes) -> None:
    kernel.write_file("file", b"content")
    kernel.write_file("same", b"content")
    with kernel.open("file", os.O_RDWR) as file:
        file.write(append, 7)
    kernel.sync()
    assert kernel.read_file("file") == b"content" + append
    assert kernel.read_file("same") == b"content"


def test_what_was_made_and_removed_within_a_group_costs_no_file(
    kernel: Kernel, session: Session, seam: FaultyDurable
) -> None:
    for number in range(3):
        kernel.write_file(f"{number}", b"%d" % number)
    kernel.write_file("same", b"0")
    for number in range(2):
        kernel.unlink(f"{number}")
    kernel.sync()
    assert seam.calls.count("create") == session.blobs == 2
    assert session.store.namespace.blobs.totals() == (2, 2, 0, 0)
    kernel.write_file("again", b"1")
    kernel.sync()
    assert kernel.read_file("again") == b"1"
    assert session.store.namespace.blobs.totals() == (3, 3, 0, 0)


def test_a_file_that_is_removed_and_still_open_keeps_its_blob(kernel: Kernel, session: Session) -> None:
    kernel.write_file("file", b"content")
    file = kernel.open("file")
    kernel.unlink("file")
    kernel.sync()
    assert file.read() == b"content"
    file.close()
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (0, 0, 1, 7)


@pytest.mark.parametrize("call", ["create", "write_whole"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE], ids=os.strerror)
def test_a_file_without_room_is_tried_again_by_the_next_commit(
    kernel: Kernel, session: Session, seam: FaultyDurable, call: str, error: int
) -> None:
    for number in range(4):
        kernel.write_file(f"{number}", b"%d" % number)

    def full(_: int, name: str) -> None:
        if name == call and seam.calls.count(call) > 2:
            raise OSError(error, os.strerror(error))

    seam.before = full
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(error)):
            kernel.sync()
        assert session.fs.group.active
        assert not session.fs.group.failed
        assert [kernel.read_file(f"{number}") for number in range(4)] == [b"0", b"1", b"2", b"3"]
    kernel.unlink("0")
    kernel.unlink("3")
    kernel.write_file("later", b"later")
    seam.before = lambda number, name: None
    assert kernel.read_file("1") == b"1"
    kernel.sync()
    assert [kernel.read_file(name) for name in ("1", "2", "later")] == [b"1", b"2", b"later"]


@pytest.mark.parametrize("call", ["create", "write_whole"])
def test_a_disk_that_refuses_a_file_stops_writing(store_path: Path, seam: FaultyDurable, call: str) -> None:
    session = Session(store_path, seam)
    kernel = session.kernel
    kernel.write_file("committed", b"content", sync=True)
    kernel.sync()
    kernel.write_file("file", b"more content")

    def broken(_: int, name: str) -> None:
        if name == call:
            raise OSError(errno.EIO, "broken")

    seam.before = broken
    with pytest.raises(OSError, match="broken"):
        kernel.sync()
    assert session.fs.group.failed == errno.EIO
    assert kernel.read_file("file") == b"more content"
    with pytest.raises(FsError) as raised:
        kernel.mkdir("directory")
    assert raised.value.errno == errno.EROFS
    session.abandon()
    session = Session(store_path)
    assert session.kernel.names() == [b"committed"]
    session.stop()


@pytest.mark.parametrize(("limit", "value"), [("PENDING_COUNT", 2), ("PENDING_LIMIT", 10_000)])
def test_blobs_beyond_what_may_wait_in_memory_are_written_at_once(
    kernel: Kernel,
    group: GroupCommit,
    seam: FaultyDurable,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
) -> None:
    set_limits(monkeypatch, **{limit: value})
    woken: list[bool] = []
    kernel.write_file("a", b"a" * 1000)
    assert not group.is_long
    group.wake = lambda: woken.append(group.is_long)
    kernel.write_file("b", b"b" * 1000)
    assert woken == [True]
    assert seam.calls == []
    kernel.write_file("c", b"c" * 1000)
    assert seam.calls == ["create", "write_whole"]
    kernel.sync()
    assert not group.is_long
    kernel.write_file("d", b"d" * 1000)
    assert seam.calls.count("create") == 3
