"""Inodes in memory, over their rows."""

from __future__ import annotations

import errno
import gc
import stat
from pathlib import Path

import pytest

from casfs.errors import FsError
from casfs.fs import inodes as module
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session


def test_an_inode_and_its_row_have_the_same_order() -> None:
    row = tuple(range(len(module.FIELDS)))
    inode = module.Inode(*row)  # type: ignore[arg-type]
    assert inode.row() == row


def test_an_inode_is_one_object(kernel: Kernel, fs: FileSystem) -> None:
    kernel.write_file("file", b"")
    inode = kernel.inode("file")
    assert fs.inodes.get(inode.ino) is inode
    with pytest.raises(FsError) as raised:
        fs.inodes.get(12345)
    assert raised.value.errno == errno.ESTALE


def test_the_cache_is_bounded(session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        kernel.make(f"{number}", stat.S_IFIFO)
    set_limits(monkeypatch, CACHE_SIZE=20)
    kernel = session.reopen()
    for number in range(200):
        kernel.inode(f"{number}")
        assert session.fs.inodes.cached <= 21
    assert session.fs.inodes.cached >= 10


def test_a_listing_drives_nobody_out_of_memory(session: Session, kernel: Kernel) -> None:
    for number in range(50):
        kernel.make(f"{number}", stat.S_IFIFO)
    kernel = session.reopen()
    known = kernel.inode("7")
    kernel.chmod("7", 0o601)
    before = session.fs.inodes.cached
    listed = {name: inode for _, name, inode in kernel.list()}
    assert len(listed) == 50
    assert listed[b"7"] is known
    assert session.fs.inodes.cached == before


def test_what_is_dirty_or_open_or_held_is_not_forgotten(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        kernel.write_file(f"{number}", b"")
    kernel = session.reopen()
    set_limits(monkeypatch, CACHE_SIZE=10)
    held, ino = kernel.inode("0"), kernel.inode("1").ino
    opened = kernel.open("2")
    kernel.chmod("3", 0o600)
    for number in range(4, 50):
        kernel.inode(f"{number}")
    gc.collect()
    assert session.fs.inodes.get(held.ino) is held
    assert session.fs.inodes.get(opened.ino) is opened.handle.inode
    assert kernel.inode("3").mode & 0o777 == 0o600
    assert session.fs.inodes.get(ino).ino == ino
    opened.close()


def test_a_thousand_files_write_their_directory_once(
    kernel: Kernel, fs: FileSystem, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = session.store.namespace.inodes.write

    def count(rows: list[tuple[object, ...]]) -> None:
        written.append(len(rows))
        write(rows)

    monkeypatch.setattr(session.store.namespace.inodes, "write", count)
    for number in range(300):
        kernel.make(f"{number}", stat.S_IFIFO)
    kernel.sync()
    assert sum(written) == 301


def test_what_is_made_and_removed_in_a_group_is_never_written(
    kernel: Kernel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.sync()
    kernel.write_file("file", b"content")
    kernel.setxattr("file", b"user.x", b"value")
    ino = kernel.inode("file").ino
    kernel.unlink("file")
    monkeypatch.setattr(
        session.store.namespace.inodes, "write", lambda rows: written.extend(row[0] for row in rows)
    )
    written: list[object] = []
    session.fs.inodes.flush()
    assert ino not in written
    monkeypatch.undo()
    session.fs.inodes.mark(session.fs.inodes.get(1))
    assert session.store.namespace.xattrs.of(ino) == {}


def test_many_dirty_inodes_are_written_before_the_commit(
    kernel: Kernel, fs: FileSystem, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, FLUSH_BATCH=10)
    for number in range(35):
        kernel.make(f"{number}", stat.S_IFIFO)
    assert fs.inodes.dirty <= 11
    assert session.store.namespace.inodes.count() >= 25


# I7: numbers are never used again


def test_numbers_go_on_after_a_clean_end(session: Session, kernel: Kernel) -> None:
    kernel.write_file("one", b"")
    one = kernel.inode("one").ino
    kernel.unlink("one")
    kernel = session.reopen()
    kernel.write_file("two", b"")
    assert kernel.inode("two").ino == one + 1


def test_numbers_of_what_a_crash_took_are_not_used_again(
    session: Session, kernel: Kernel, scratch: Path
) -> None:
    kernel.sync()
    kernel.write_file("lost", b"")
    lost = kernel.inode("lost").ino
    session.crash(scratch / "copy")
    session.kernel.write_file("new", b"")
    assert session.kernel.inode("new").ino > lost
    session.crash(scratch / "second copy")
    session.kernel.write_file("newer", b"")
    assert session.kernel.inode("newer").ino > lost + module.NUMBER_BLOCK


def test_a_block_of_numbers_is_reserved_in_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, NUMBER_BLOCK=8)
    kernel = session.kernel
    seen: set[int] = set()
    for number in range(50):
        kernel.make(f"{number}", stat.S_IFIFO)
        seen.add(kernel.inode(f"{number}").ino)
        assert session.store.namespace.meta("next_ino") > max(seen)
        assert session.store.namespace.meta("next_cookie") > max(cookie for cookie, _, _ in kernel.list())
    assert len(seen) == 50


# I4: reference counts


def test_counts_that_could_not_be_written_are_written_once(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry after half of them counted that half twice."""
    for number in range(4):
        kernel.write_file(f"{number}", b"content %d" % (number % 2))
    run_inline(session.fs.contents.settling.settle_due())
    add_refs = session.store.namespace.blobs.add_refs

    def fail_after_one(changes: dict[int, int], now_ns: int) -> None:
        add_refs(dict(list(changes.items())[:1]), now_ns)
        raise OSError(errno.EIO, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(session.store.namespace.blobs, "add_refs", fail_after_one)
        with pytest.raises(OSError, match="refused"):
            session.fs.inodes.flush()
    run_inline(session.fs.group.durable())
    assert [blob.refs for blob in session.store.namespace.blobs.all()] == [2, 2]


@pytest.mark.parametrize("ahead", [False, True])
def test_rows_of_a_write_that_failed_half_way_go_with_their_inodes(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """Their blob was counted one too low for each, and they were inodes without a name for ever."""
    kernel.write_file("kept", b"content")
    kernel.sync()
    rows = session.store.namespace.inodes
    write = rows.write

    def write_half(batch: list[tuple[object, ...]]) -> None:
        write(batch[: len(batch) // 2 + 1])
        raise OSError(errno.EIO, "half of it")

    for number in range(8):
        kernel.write_file(f"{number}", b"content")
    with monkeypatch.context() as patch:
        patch.setattr(rows, "write", write_half)
        if ahead:
            set_limits(patch, FLUSH_BATCH=2)
            kernel.chmod("kept", 0o600)
        else:
            with pytest.raises(OSError, match="half of it"):
                session.fs.inodes.flush_rows()
    for number in range(8):
        kernel.unlink(f"{number}")
    kernel.sync()
    session.stop()
    assert_clean(session.path)
