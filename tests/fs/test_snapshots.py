"""What snapshots show: the tree as it was, whatever has become of it, and nothing of it can be changed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable

import pytest

from casfs.errors import FsError
from casfs.fs import copy
from casfs.fs.inodes import CACHE_SIZE
from casfs.fs.nodes import SNAPSHOTS
from casfs.fs.scheduler import run_inline
from casfs.fuse.verbs import Verbs
from casfs.maintenance.collect.mounted import collect_oldest
from casfs.namespace.collecting import Amount
from casfs.snapshots.folder import SnapshotFolder
from tests.kernel import Kernel
from tests.session import Session, no_room
from tests.snapshot_databases import change_database, take

CONTENT = b"content" * 1000
OLD = ".casfs/snapshots/old"
ODD = b"\xff odd\n\x01"


@pytest.fixture
def kernel(session: Session) -> Kernel:
    """Of a store with a snapshot."""
    kernel = session.kernel
    kernel.mkdir("dir", 0o750)
    kernel.write_file("dir/file", CONTENT)
    kernel.link("dir/file", "dir/other name")
    kernel.write_file(b"dir/" + ODD, b"odd")
    kernel.write_file("empty", b"")
    kernel.symlink("dir/file", "link")
    kernel.make("fifo", stat.S_IFIFO | 0o600)
    kernel.chown("dir/file", 1, 2)
    kernel.setxattr("dir/file", b"user.key", b"value")
    kernel.utime("dir/file", 10**18, 10**18 + 1)
    kernel.mkdir("empty dir")
    session.rest()
    take(session, "old")
    return kernel


def shown(kernel: Kernel, top: str = "") -> dict[bytes, tuple[object, ...]]:
    """Everything below a directory: attributes, content, extended attributes."""
    found: dict[bytes, tuple[object, ...]] = {}
    todo = [os.fsencode(top)]
    while todo:
        folder = todo.pop()
        for _, name, listed in kernel.list(folder):
            path = folder + b"/" + name
            inode = kernel.inode(path, follow=False)
            assert listed.ino == inode.ino
            fields = ("mode", "nlink", "uid", "gid", "rdev", "size", "allocated", "target")
            times = (inode.atime, inode.mtime, inode.ctime, inode.btime)
            content = kernel.read_file(path) if inode.is_regular else None
            attributes = dict(kernel.fs.xattrs.all(inode))
            key = path.removeprefix(os.fsencode(top)).lstrip(b"/")
            number = inode.ino & (1 << 40) - 1
            found[key] = (number, *(getattr(inode, each) for each in fields), times, content, attributes)
            if inode.is_directory:
                todo.append(path)
    return found


@pytest.mark.parametrize("here", [True, False])
def test_it_shows_everything_as_it_was(session: Session, kernel: Kernel, here: bool) -> None:
    if not here:
        take(session, "another", here=False)
    before = shown(kernel)
    kernel.write_file("dir/file", b"changed")
    kernel.chmod("dir", 0o700)
    kernel.unlink(b"dir/" + ODD)
    kernel.rename("empty", "renamed")
    kernel.removexattr("dir/file", b"user.key")
    kernel.mkdir("new")
    session.rest()
    top = OLD if here else ".casfs/snapshots/another"
    assert shown(kernel, top) == before
    kernel = session.reopen()
    assert shown(kernel, top) == before


def test_the_numbers_are_those_that_the_inodes_had(kernel: Kernel) -> None:
    one, other = kernel.inode(f"{OLD}/dir/file"), kernel.inode(f"{OLD}/dir/other name")
    assert one is other
    assert one.ino == SNAPSHOTS + (1 << 40) + kernel.inode("dir/file").ino
    assert one.ino < 1 << 63


def test_it_is_not_listed_and_what_is_reserved_is_not_in_it(session: Session, kernel: Kernel) -> None:
    session.store.namespace.trash.set_minimal_age(0)
    kernel = session.reopen()
    kernel.write_file("removed", b"content")
    session.rest()
    kernel.unlink("removed")
    session.rest()
    assert kernel.fs.nodes.base
    take(session, "later")
    assert b".casfs" not in kernel.names()
    assert kernel.names(".casfs/snapshots") == [b"later", b"old"]
    assert kernel.names(f"{OLD}") == [b"dir", b"empty", b"empty dir", b"fifo", b"link"]
    assert b".casfs" not in kernel.names(".casfs/snapshots/later")
    for path in (f"{OLD}/.casfs", ".casfs/snapshots/later/.casfs", ".casfs/snapshots/.serial"):
        with pytest.raises(FsError, match="No such file"):
            kernel.inode(path)


CHANGES: dict[str, Callable[[Kernel], object]] = {
    "write": lambda kernel: kernel.open(f"{OLD}/dir/file", os.O_WRONLY),
    "update": lambda kernel: kernel.open(f"{OLD}/dir/file", os.O_RDWR),
    "cut": lambda kernel: kernel.truncate(f"{OLD}/dir/file", 0),
    "cut at open": lambda kernel: kernel.open(f"{OLD}/dir/file", os.O_RDONLY | os.O_TRUNC),
    "mode": lambda kernel: kernel.chmod(f"{OLD}/dir/file", 0o666),
    "mode of a directory": lambda kernel: kernel.chmod(f"{OLD}/dir", 0o777),
    "owner": lambda kernel: kernel.chown(f"{OLD}/dir/file", 1, 1),
    "times": lambda kernel: kernel.utime(f"{OLD}/dir/file", 1, 1),
    "attribute": lambda kernel: kernel.setxattr(f"{OLD}/dir/file", b"user.key", b"other"),
    "no attribute": lambda kernel: kernel.removexattr(f"{OLD}/dir/file", b"user.key"),
    "file": lambda kernel: kernel.open(f"{OLD}/dir/new", os.O_WRONLY | os.O_CREAT),
    "unnamed": lambda kernel: kernel.open_unnamed(f"{OLD}/dir"),
    "directory": lambda kernel: kernel.mkdir(f"{OLD}/dir/new"),
    "snapshot": lambda kernel: kernel.mkdir(".casfs/snapshots/new"),
    "link": lambda kernel: kernel.symlink("x", f"{OLD}/new"),
    "name": lambda kernel: kernel.link("empty", f"{OLD}/new"),
    "no name": lambda kernel: kernel.unlink(f"{OLD}/dir/file"),
    "no directory": lambda kernel: kernel.rmdir(f"{OLD}/empty dir"),
    "no snapshot": lambda kernel: kernel.rmdir(OLD),
    "into": lambda kernel: kernel.rename("empty", f"{OLD}/new"),
    "over": lambda kernel: kernel.rename("empty", f"{OLD}/empty"),
    "out of": lambda kernel: kernel.rename(f"{OLD}/empty", "new"),
    "within": lambda kernel: kernel.rename(f"{OLD}/empty", f"{OLD}/new"),
    "exchange": lambda kernel: kernel.rename(f"{OLD}/empty", "empty", 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_of_it_can_be_changed(session: Session, kernel: Kernel, change: str) -> None:
    before, all_of_it = shown(kernel), shown(kernel, OLD)
    with pytest.raises(FsError) as refused:
        CHANGES[change](kernel)
    assert refused.value.errno == errno.EROFS
    session.rest()
    assert (shown(kernel), shown(kernel, OLD)) == (before, all_of_it)


def test_a_name_more_of_one_of_its_files_is_on_another_file_system(kernel: Kernel) -> None:
    with pytest.raises(FsError) as refused:
        kernel.link(f"{OLD}/empty", "new")
    assert refused.value.errno == errno.EXDEV


def test_the_dots_lead_up_to_the_root(kernel: Kernel) -> None:
    lookup = kernel.fs.tree.lookup
    inode = kernel.inode(f"{OLD}/dir")
    for path in (OLD, ".casfs/snapshots", ".casfs", ""):
        same = lookup(inode.ino, b".")
        assert same is not None
        assert same.ino == inode.ino
        above = lookup(inode.ino, b"..")
        assert above is not None
        assert above.ino == kernel.inode(path).ino
        listed = {name: each.ino for _, name, each in kernel.fs.listing.list(inode.ino, 0)}
        assert (listed[b"."], listed[b".."]) == (inode.ino, above.ino)
        inode = above


@pytest.mark.parametrize("size", [1, 127, 128, 129, 300])
def test_a_listing_goes_on_from_any_place(session: Session, size: int) -> None:
    kernel = session.kernel
    kernel.mkdir("many")
    for number in range(size):
        kernel.write_file(f"many/{number}", b"")
        kernel.write_file(f"{number}", b"")
    session.store.namespace.trash.set_minimal_age(0)
    kernel = session.reopen()
    kernel.write_file("removed", b"content")
    session.rest()
    kernel.unlink("removed")
    session.rest()
    take(session, "old")
    for folder, wanted in ((f"{OLD}/many", size), (OLD, size + 1)):
        found = list(kernel.list(folder))
        assert len({name for _, name, _ in found}) == wanted
        for place in (0, len(found) // 2, len(found) - 1):
            later = list(kernel.list(folder, found[place][0]))
            assert [row[:2] for row in later] == [row[:2] for row in found[place + 1 :]]
        ino = kernel.inode(folder).ino
        after, names = 2, []
        while rows := kernel.fs.listing.rows(ino, after, 10):
            assert len(rows) == 10 or rows[-1][0] == found[-1][0]
            names += [row[1] for row in rows]
            after = rows[-1][0]
        assert names == [name for _, name, _ in found]


def test_a_copy_is_one_row(session: Session, kernel: Kernel) -> None:
    fs = kernel.fs
    kernel.unlink("dir/file")
    kernel.unlink("dir/other name")
    session.rest()
    blobs = session.blobs
    with kernel.open(f"{OLD}/dir/file") as source, kernel.open("back", os.O_WRONLY | os.O_CREAT) as to:
        assert run_inline(fs.contents.ranges.copy_range(source.handle, 0, to.handle, 0, 1 << 40)) == 7000
    session.rest()
    assert kernel.read_file("back") == CONTENT
    assert session.blobs == blobs
    assert kernel.inode("back").blob == kernel.inode(f"{OLD}/dir/file").blob


@pytest.mark.parametrize("here", [True, False])
def test_a_tree_comes_out_of_it_with_everything(session: Session, kernel: Kernel, here: bool) -> None:
    take(session, "more", here=here)
    before = shown(kernel, ".casfs/snapshots/more/dir")
    blobs = session.blobs
    run_inline(copy.copy(kernel.fs, b".casfs/snapshots/more/dir", b"back", recursive=True))
    after = shown(kernel, "back")
    assert after.keys() == before.keys()
    for path, entry in after.items():
        was = before[path]
        assert entry[1:9] == was[1:9]  # mode to target
        assert entry[9][:2] == was[9][:2]  # type: ignore[index]
        assert entry[10:] == was[10:]
    assert kernel.inode("back/file").ino == kernel.inode("back/other name").ino
    run_inline(copy.copy(kernel.fs, b".casfs/snapshots/more", b"all", recursive=True))
    assert shown(kernel, "all").keys() == shown(kernel, ".casfs/snapshots/more").keys()
    session.rest()
    assert session.blobs == blobs


def test_snapshots_come_and_go_unasked(session: Session, kernel: Kernel) -> None:
    assert kernel.names(".casfs/snapshots") == [b"old"]
    assert kernel.read_file(f"{OLD}/dir/file") == CONTENT
    kernel.write_file("dir/file", b"new")
    session.rest()
    take(session, "later")
    assert kernel.names(".casfs/snapshots") == [b"later", b"old"]
    assert kernel.read_file(".casfs/snapshots/later/dir/file") == b"new"
    directory = kernel.inode(OLD).ino
    shutil.rmtree(session.path / "snapshots/old")
    with pytest.raises(FsError, match="No such file"):
        kernel.inode(OLD)
    assert kernel.names(".casfs/snapshots") == [b"later"]
    for ask in (kernel.fs.listing.rows, kernel.fs.listing.names):
        with pytest.raises(FsError) as refused:
            ask(directory, 2, 10)
        assert refused.value.errno == errno.ESTALE
    take(session, "old")  # of the same name, and another one
    assert kernel.read_file(f"{OLD}/dir/file") == b"new"
    assert kernel.inode(OLD).ino != directory


def test_who_has_a_file_open_reads_it_when_its_snapshot_is_dropped(session: Session, kernel: Kernel) -> None:
    kernel.unlink("dir/file")
    kernel.unlink("dir/other name")
    session.rest()
    file = kernel.open(f"{OLD}/dir/file")
    ino = file.ino
    shutil.rmtree(session.path / "snapshots/old")
    kernel.fs.snapshots.dropped("old")
    assert (SNAPSHOTS, b"old") in kernel.fs.remembered.names
    gone = run_inline(collect_oldest(session.fs, time.time_ns() + 10**9, wanted=lambda done: 1 - done.blobs))
    assert gone == Amount(1, len(CONTENT))
    assert file.read() == CONTENT
    verbs = Verbs(kernel.fs, durable_each=False, relieve=no_room)
    for again in (ino, kernel.fs.inodes.get(ino).ino):
        with pytest.raises(FsError) as refused:
            run_inline(verbs.open(again, os.O_RDONLY, 0))
        assert refused.value.errno == errno.ESTALE
    file.close()
    assert not kernel.fs.contents.table.handles


def test_handles_that_are_kept_open_are_given_back_when_it_is_dropped(
    session: Session, kernel: Kernel
) -> None:
    revoked: list[tuple[int, int]] = []
    kernel.fs.snapshots.revoke = lambda low, high: revoked.append((low, high))
    ino = kernel.inode(f"{OLD}/dir/file").ino
    kernel.fs.snapshots.dropped("another")
    assert not revoked
    kernel.fs.snapshots.dropped("old")
    ((low, high),) = revoked
    assert low < ino < high
    assert not [each for each in kernel.fs.inodes.in_memory if low <= each < high]


def test_a_content_that_the_store_lacks_is_an_error_of_that_file(
    session: Session, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """A snapshot of another store, whose blobs have not come."""
    verbs = Verbs(kernel.fs, durable_each=False, relieve=no_room)
    folder = take(session, "foreign", here=False)
    change_database(folder, "UPDATE blob SET blake3 = randomblob(32) WHERE size = 7000")
    inode = kernel.inode(".casfs/snapshots/foreign/dir/file")
    assert inode.size == len(CONTENT)
    with pytest.raises(FsError) as refused:
        run_inline(verbs.open(inode.ino, os.O_RDONLY, 0))
    assert refused.value.errno == errno.EIO
    assert "snapshot foreign: the store has not got the content of inode" in caplog.text
    with pytest.raises(FsError):
        run_inline(copy.copy(kernel.fs, b".casfs/snapshots/foreign/dir", b"back", recursive=True))
    odd = kernel.inode(b".casfs/snapshots/foreign/dir/" + ODD)
    handle = run_inline(verbs.open(odd.ino, os.O_RDONLY, 0))
    assert run_inline(kernel.fs.files.read(handle, 0, 10)) == b"odd"
    run_inline(kernel.fs.files.release(handle))
    SnapshotFolder(kernel.fs.store.directory).remove("foreign")  # fsck would name it


@pytest.mark.parametrize("damage", ["no database", "a database of others", "cut", "a view"])
def test_a_snapshot_that_is_none_keeps_nobody_from_the_others(
    session: Session, kernel: Kernel, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = take(session, "bad") / "casfs.db"
    if damage == "no database":
        database.unlink()
    elif damage == "cut":
        os.truncate(database, 5000)
    else:
        if damage != "a view":
            database.unlink()
        change_database(database.parent, "CREATE VIEW x AS SELECT 1")
    with pytest.raises(FsError) as refused:
        kernel.inode(".casfs/snapshots/bad/dir")
    assert refused.value.errno == errno.EIO
    assert "snapshot bad cannot be shown" in caplog.text
    assert b"old" in kernel.names(".casfs/snapshots")
    assert kernel.read_file(f"{OLD}/dir/file") == CONTENT
    SnapshotFolder(kernel.fs.store.directory).remove("bad")  # fsck would name it
    caplog.clear()


@pytest.mark.parametrize("number", [1 << 40, (1 << 62) + 5, (1 << 63) - 1, -5, 0])
def test_a_number_that_cannot_be_shown_is_an_error_of_that_name(
    session: Session, kernel: Kernel, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = take(session, "large")
    change_database(folder, "UPDATE dentry SET ino = ? WHERE name = CAST('empty' AS BLOB)", number)
    with pytest.raises(FsError) as refused:
        kernel.inode(".casfs/snapshots/large/empty")
    assert refused.value.errno == errno.EOVERFLOW
    assert kernel.read_file(".casfs/snapshots/large/dir/file") == CONTENT
    ino = kernel.inode(".casfs/snapshots/large").ino
    for rows in (kernel.fs.listing.rows(ino, 2, 10), kernel.fs.listing.names(ino, 2, 10)):
        found = {row[1]: row[2] for row in rows}
        assert found[b"dir"] == kernel.inode(".casfs/snapshots/large/dir").ino
        assert found[b"empty"] < ino  # the name alone
    assert b"dir" in kernel.names(".casfs/snapshots/large")


def test_more_snapshots_than_are_kept_open(session: Session, kernel: Kernel) -> None:
    for number in range(2, 40):
        take(session, f"s{number}")
    for _ in range(2):
        for number in range(2, 40):
            assert kernel.read_file(f".casfs/snapshots/s{number}/dir/file") == CONTENT
    assert len(kernel.fs.snapshots._opened) == 24


def test_two_with_numbers_that_cannot_be_told_apart(
    session: Session, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    take(session, "new", serial=1)
    assert kernel.read_file(f"{OLD}/dir/file") == CONTENT
    with pytest.raises(FsError) as refused:
        kernel.inode(".casfs/snapshots/new")
    assert refused.value.errno == errno.EOVERFLOW
    assert "snapshot new cannot be shown beside old" in caplog.text
    shutil.rmtree(session.path / "snapshots/old")
    assert kernel.read_file(".casfs/snapshots/new/dir/file") == CONTENT


def test_a_number_that_no_snapshot_has_is_stale(kernel: Kernel) -> None:
    kernel.inode(f"{OLD}/dir")
    for number in (SNAPSHOTS + 5, SNAPSHOTS + (7 << 40) + 1, SNAPSHOTS + (1 << 40), (1 << 63) - 1, 1 << 63):
        for ask in (kernel.fs.inodes.get, lambda ino: kernel.fs.tree.lookup(ino, b"x")):
            with pytest.raises(FsError) as refused:
                ask(number)
            assert refused.value.errno == errno.ESTALE


def test_a_file_is_found_by_its_number_after_a_remount(session: Session, kernel: Kernel) -> None:
    """As open_by_handle_at(2) does."""
    ino = kernel.inode(f"{OLD}/dir/file").ino
    session.reopen()
    assert session.fs.inodes.get(ino).size == len(CONTENT)


def test_inodes_of_snapshots_are_kept_in_memory_like_others(session: Session) -> None:
    kernel = session.kernel
    for number in range(60):
        kernel.write_file(f"{number}", b"")
    session.rest()
    for number in range(1, 24):
        take(session, f"s{number}")
    for number in range(1, 24):
        shown(kernel, f".casfs/snapshots/s{number}")
    one = kernel.inode(".casfs/snapshots/s1/5")
    assert kernel.inode(".casfs/snapshots/s1/5") is one
    assert kernel.fs.inodes.cached < CACHE_SIZE * 1.1


def test_attributes_that_are_computed(session: Session, kernel: Kernel) -> None:
    digest = kernel.getxattr("dir/file", b"user.casfs.blake3")
    assert kernel.getxattr(f"{OLD}/dir/file", b"user.casfs.blake3") == digest
    assert kernel.listxattr(f"{OLD}/dir/file") == [b"user.key"]
    verbs = Verbs(kernel.fs, durable_each=False, relieve=no_room)
    for path in (OLD, f"{OLD}/dir/file", ".casfs/snapshots"):
        assert verbs.statfs(kernel.inode(path).ino, 0) == verbs.statfs(None, 0)


def test_the_kernel_may_remember_what_never_changes(session: Session, kernel: Kernel) -> None:
    from casfs.fs.nodes import CASFS, seconds

    inodes = {path: kernel.inode(path).ino for path in (OLD, f"{OLD}/dir", f"{OLD}/dir/file")}
    assert seconds(inodes[OLD], 9.0) == (1.0, 9.0)
    assert seconds(inodes[f"{OLD}/dir"], 9.0) == seconds(inodes[f"{OLD}/dir/file"], 9.0) == (9.0, 9.0)
    assert seconds(SNAPSHOTS, 9.0) == seconds(CASFS, 9.0) == (1.0, 1.0)
    assert not kernel.fs.nodes.may_appear(inodes[OLD], b"x")
    assert kernel.fs.nodes.may_appear(SNAPSHOTS, b"x")
