"""The open group and its commit, one request at a time; several at once in test_concurrency.py."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from casfs.errors import FsError
from casfs.fs.commit import GroupCommit
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from casfs.repositories.filesystem import file_system
from casfs.store import Store, create_store
from tests.faults import FaultyDurable
from tests.full_log import FullLog
from tests.images import copy_store
from tests.invariants import assert_clean
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


def test_who_holds_the_write_lock_for_a_moment_is_waited_for(kernel: Kernel, store_path: Path) -> None:
    """A process that only reads may, without a turn at the turnstile: to write was EBUSY at once."""
    other = apsw.Connection(str(store_path / "casfs.db"))
    other.execute("BEGIN IMMEDIATE")
    later = threading.Timer(0.05, other.execute, ["ROLLBACK"])
    later.start()
    kernel.mkdir("a")
    later.join()
    other.close()
    assert kernel.names("") == [b"a"]


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
    assert seam.calls == ["link", "fsync_path", "fsync_path", "reserve_log", "commit", "sync_log", "unlink"]


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
    fs = file_system(store, InlineScheduler())
    kernel = Kernel(fs)
    assert kernel.tree() == {}
    with pytest.raises(FsError) as raised:
        kernel.mkdir("a")
    assert raised.value.errno == errno.EROFS
    run_inline(fs.group.durable())
    store.close()


# What fails again and again, and what passes


def test_a_commit_that_always_fails_stops_the_acceptance_of_writes(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Writes went on being acknowledged, and none of them could be committed."""

    def bug() -> None:
        raise OverflowError("int too big to convert")

    monkeypatch.setattr(kernel.fs.inodes, "flush", bug)
    kernel.mkdir("a")
    for failed in (0, errno.EIO):
        with pytest.raises(OSError, match="too big") as raised:
            kernel.sync()
        assert raised.value.errno == errno.EIO
        assert kernel.fs.activity().failed == failed
    for change in (
        lambda: kernel.mkdir("b"),
        lambda: kernel.write_file("c", b"x"),
        lambda: kernel.unlink("a"),
    ):
        with pytest.raises(FsError) as refused:
            change()
        assert refused.value.errno == errno.EROFS
    assert caplog.text.count("reading only") == 1
    session.abandon()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EBUSY])
def test_a_commit_that_fails_for_what_passes_is_tried_again(
    kernel: Kernel, group: GroupCommit, seam: FaultyDurable, number: int
) -> None:
    def refuse(_: int, name: str) -> None:
        if name == "reserve_log":
            raise OSError(number, os.strerror(number))

    seam.before = refuse
    kernel.mkdir("a")
    for _ in range(5):
        with pytest.raises(OSError, match=os.strerror(number)):
            kernel.sync()
    seam.before = lambda number, name: None
    kernel.mkdir("b")
    kernel.sync()
    assert group.failed == 0


def test_a_full_disk_that_only_the_commit_meets_does_not_end_writing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite rolls back what it finds no room for, though room was allocated (ZFS, NFS, the log's index)."""
    set_limits(monkeypatch, UNCERTAIN_ROOM=1 << 62)
    create_store(str(scratch / "small"))
    full_log = FullLog()
    try:
        session = Session(scratch / "small")
        kernel, group = session.kernel, session.fs.group
        for number in range(3):
            kernel.write_file(f"old{number}", b"old %d" % number)
        kernel.sync()
        full_log.writes_left = 2
        kernel.write_file("new", b"new" * 50_000)
        kernel.rename("old0", "renamed")
        kernel.unlink("old1")
        for _ in range(3):
            with pytest.raises(OSError, match="full"):
                kernel.sync()
        kernel.mkdir("meanwhile")
        kernel.rename("renamed", "meanwhile/renamed")
        assert full_log.refused == 3
        full_log.writes_left = None
        kernel.sync()
        assert not group.failed
        crashed = scratch / "crashed"
        copy_store(session.path, crashed)
        for found in (Session(crashed), session):
            kernel = found.kernel if found is not session else found.reopen()
            assert set(kernel.names()) == {b"meanwhile", b"new", b"old2"}
            assert kernel.read_file("meanwhile/renamed") == b"old 0"
            assert kernel.read_file("new") == b"new" * 50_000
            found.stop()
    finally:
        full_log.unregister()
    assert_clean(scratch / "small")


def test_a_number_that_no_row_can_hold_does_not_keep_others_from_being_committed(
    session: Session, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """One `touch -d 2300-01-01` failed every commit of everybody from then on."""
    kernel.write_file("bad", b"content")
    kernel.write_file("good", b"other")
    for name, value in (("bad", 1 << 64), ("good", 5)):
        inode = kernel.inode(name)
        inode.mtime = value
        kernel.fs.inodes.mark(inode)
    kernel.sync()
    again = session.reopen()
    assert again.inode("good").mtime == 5
    assert again.inode("bad").mtime == (1 << 63) - 1
    assert "its mtime was 18446744073709551616" in caplog.text


def test_marking_an_inode_never_fails_a_verb(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    """Rows were written ahead in the middle of a verb, and another inode's row stopped it half way."""
    set_limits(monkeypatch, FLUSH_BATCH=2)
    with monkeypatch.context() as patch:

        def full(_: object) -> None:
            raise apsw.FullError("full")

        patch.setattr(session.store.namespace.inodes, "write", full)
        for number in range(20):
            kernel.write_file(f"{number}", b"%d" % number)
        with pytest.raises(OSError, match="full"):
            kernel.sync()
    kernel.sync()
    assert len(session.reopen().names()) == 20


@pytest.mark.parametrize("call", ["fsync_path", "syncfs"])
def test_a_want_of_descriptors_does_not_end_writing(
    kernel: Kernel, group: GroupCommit, seam: FaultyDurable, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """EMFILE for a moment, and 236 open files were lost."""
    set_limits(monkeypatch, FEW_BLOBS=100 if call == "fsync_path" else 0)

    def refuse(_: int, name: str) -> None:
        if name == call:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    file = kernel.open("synced", os.O_RDWR | os.O_CREAT)
    file.write(b"x")
    kernel.write_file("closed", b"content")
    seam.before = refuse
    for act in (kernel.sync, file.fsync):
        with pytest.raises(OSError, match="Too many open files"):
            act()
    seam.before = lambda number, name: None
    file.fsync()
    file.close()
    kernel.sync()
    assert group.failed == 0
    assert kernel.read_file("closed") == b"content"
