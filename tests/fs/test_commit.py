"""The open group and its commit, one request at a time; several at once in test_concurrency.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from casfs.errors import FsError
from casfs.fs.commit import GroupCommit
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from casfs.store import Store
from tests.faults import FaultyDurable
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session


@pytest.fixture
def seam(store_path: Path) -> FaultyDurable:
    return FaultyDurable()


@pytest.fixture
def session(store_path: Path, seam: FaultyDurable) -> Iterator[Session]:
    session = Session(store_path, seam)
    seam.calls.clear()
    yield session
    if session.running:
        session.stop()


@pytest.fixture
def group(fs: FileSystem) -> GroupCommit:
    return fs.group


def test_reading_begins_no_group(kernel: Kernel, group: GroupCommit) -> None:
    kernel.tree()
    kernel.listxattr("")
    assert not group.active


def test_a_group_lasts_until_it_is_committed(kernel: Kernel, group: GroupCommit, seam: FaultyDurable) -> None:
    woken = []
    group.wake = lambda: woken.append(group.active)
    kernel.mkdir("a")
    kernel.mkdir("b")
    assert group.active
    assert group.operations == 2
    assert woken == [True]
    kernel.sync()
    assert not group.active
    assert seam.calls == ["reserve_log", "commit", "sync_log"]
    kernel.mkdir("c")
    assert group.operations == 1
    assert woken == [True, True]


def test_nothing_to_commit_touches_nothing(kernel: Kernel, group: GroupCommit, seam: FaultyDurable) -> None:
    kernel.mkdir("a")
    kernel.sync()
    seam.calls.clear()
    kernel.sync()
    assert seam.calls == []


def test_a_long_group_asks_for_its_commit(
    kernel: Kernel, group: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, GROUP_LIMIT=5)
    woken = []
    group.wake = lambda: woken.append(group.operations)
    for number in range(8):
        kernel.mkdir(f"{number}")
    assert group.is_long
    assert woken == [0, 5]
    kernel.sync()
    assert not group.is_long or not group.active


def test_blobs_come_before_the_rows_and_the_rows_before_the_staged_files_go(
    kernel: Kernel, seam: FaultyDurable
) -> None:
    with kernel.open("file", os.O_RDWR | os.O_CREAT) as file:
        file.write(b"content")
        file.fsync()
    seam.calls.clear()
    kernel.sync()
    assert seam.calls == ["fsync_path", "fsync_path", "reserve_log", "commit", "sync_log", "unlink"]


def test_many_blobs_are_synced_at_once(
    kernel: Kernel, seam: FaultyDurable, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, FEW_BLOBS=5)
    for number in range(6):
        kernel.write_file(f"{number}", b"%d" % number)
    seam.calls.clear()
    kernel.sync()
    assert seam.calls == ["create", "write_whole"] * 6 + ["syncfs", "reserve_log", "commit", "sync_log"]


def test_no_room_in_the_log_keeps_the_group_open(
    kernel: Kernel, group: GroupCommit, seam: FaultyDurable, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: int, name: str) -> None:
        if name == "reserve_log":
            raise OSError(errno.ENOSPC, "no room")

    seam.before = full
    kernel.write_file("file", b"content")
    for attempt in range(3):
        with pytest.raises(OSError, match="no room") as raised:
            kernel.sync()
        assert raised.value.errno == errno.ENOSPC
        assert group.active
        assert group.errors == attempt + 1
    kernel.write_file("more", b"more content")
    kernel.unlink("file")
    assert len([record for record in caplog.records if "commit failed" in record.message]) == 1
    assert kernel.fs.activity().last_error != ""
    seam.before = lambda number, name: None
    kernel.sync()
    assert not group.active
    assert kernel.fs.activity().last_error == ""
    assert kernel.read_file("more") == b"more content"


@pytest.mark.parametrize("call", ["fsync_path", "commit", "sync_log", "fdatasync"])
def test_after_a_failed_sync_nothing_is_written(
    store_path: Path, scratch: Path, seam: FaultyDurable, call: str
) -> None:
    """The kernel may have dropped what could not be written: a second sync that succeeds proves nothing."""
    session = Session(store_path, seam)
    kernel = session.kernel
    kernel.write_file("committed", b"content", sync=True)
    kernel.write_file("file", b"more content")
    file = kernel.open("open", os.O_RDWR | os.O_CREAT)
    file.write(b"unsealed")

    def broken(_: int, name: str) -> None:
        if name == call:
            raise OSError(errno.EIO, "broken")

    seam.before = broken
    with pytest.raises(OSError, match="broken"):
        file.fsync()
    seam.before = lambda number, name: None
    assert kernel.fs.activity().failed == errno.EIO
    with pytest.raises(FsError) as raised:
        kernel.mkdir("directory")
    assert raised.value.errno == errno.EROFS
    for again in (file.fsync, kernel.sync):
        with pytest.raises(OSError, match=r"."):
            again()
    assert kernel.read_file("committed") == b"content"
    assert kernel.read_file("file") == b"more content"
    session.abandon()
    session = Session(store_path)
    assert session.kernel.read_file("committed") == b"content"
    session.kernel.write_file("file", b"more content")
    session.stop()


@pytest.mark.parametrize("table", ["dentries", "blobs", "inodes"])
def test_after_sqlite_has_rolled_back_nothing_is_written(
    store_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Some errors end the whole transaction (sqlite.org/lang_transaction.html, "Response To Errors").

    What came after ran without one: each row for itself, on top of rows that were gone.
    """
    session = Session(store_path)
    kernel = session.kernel
    kernel.write_file("committed", b"content", sync=True)
    kernel.sync()
    namespace = session.store.namespace
    before = kernel.tree()
    kernel.mkdir("lost")
    kernel.write_file("lost/file", b"lost content")

    def roll_back(*_: object) -> None:
        namespace.rollback()
        raise apsw.IOError("disk I/O error")

    method = {"dentries": "insert", "blobs": "insert", "inodes": "write"}[table]
    with monkeypatch.context() as patch:
        patch.setattr(getattr(namespace, table), method, roll_back)
        with pytest.raises((OSError, apsw.Error)):  # noqa: PT012
            kernel.write_file("file", b"other content")
            kernel.sync()
    for change in (lambda: kernel.mkdir("late"), lambda: kernel.unlink("committed"), kernel.sync):
        with pytest.raises(OSError, match=r"."):
            change()
    session.abandon()
    session = Session(store_path)
    assert session.kernel.tree() == before
    session.stop()
    for blob in store_path.glob("blobs/*/*"):
        if blob.stat().st_size != len(b"content"):
            blob.unlink()


def test_a_staged_file_that_cannot_be_removed_is_no_failed_commit(
    kernel: Kernel, group: GroupCommit, seam: FaultyDurable, session: Session
) -> None:
    with kernel.open("file", os.O_RDWR | os.O_CREAT) as file:
        file.write(b"content")
        file.fsync()

    def broken(_: int, name: str) -> None:
        if name == "unlink":
            raise OSError(errno.EIO, "broken")

    seam.before = broken
    kernel.sync()
    assert group.errors == 0
    seam.before = lambda number, name: None
    assert len(session.store.filestore.staging.names()) == 1
    session.reopen()
    assert session.store.filestore.staging.names() == []


def test_the_log_is_checkpointed_when_it_is_long(
    kernel: Kernel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, CHECKPOINT_PAGES=20)
    log = session.path / "casfs.db-wal"
    sizes = []
    for number in range(20):
        for each in range(20):
            kernel.setxattr("", b"user.%d" % each, b"%d" % number * 200)
        kernel.sync()
        sizes.append(log.stat().st_size)
    assert len(set(sizes[-10:])) == 1
    assert not session.store.namespace.log_is_long


def test_readonly_stores_have_no_groups(store_path: Path) -> None:
    from casfs.fs.scheduler import InlineScheduler

    store = Store(str(store_path), readonly=True)
    fs = FileSystem(store, InlineScheduler())
    kernel = Kernel(fs)
    assert kernel.tree() == {}
    with pytest.raises(FsError) as raised:
        kernel.mkdir("a")
    assert raised.value.errno == errno.EROFS
    run_inline(fs.group.durable())
    store.close()
