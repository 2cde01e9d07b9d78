"""Names: making, linking, removing, renaming, listing."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

from casfs.errors import FsError
from casfs.fs.copy import copy
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.scheduler import run_inline
from casfs.fs.tree import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from casfs.types import ROOT_INO
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session


def fails(number: int, call: Callable[[], Any]) -> None:
    """The call ends with that errno."""
    with pytest.raises(FsError) as raised:
        call()
    assert raised.value.errno == number, errno.errorcode[raised.value.errno or 0]


def links(kernel: Kernel, *paths: str) -> list[int]:
    return [kernel.inode(path).nlink for path in paths]


# Making


@pytest.mark.parametrize(
    ("kind", "rdev"),
    [(stat.S_IFREG, 0), (stat.S_IFIFO, 0), (stat.S_IFSOCK, 0), (stat.S_IFBLK, 0x801), (stat.S_IFCHR, 0x103)],
)
def test_every_type_survives_a_remount(session: Session, kernel: Kernel, kind: int, rdev: int) -> None:
    made = kernel.make("node", kind | 0o4751, rdev)
    assert (made.mode, made.nlink, made.rdev) == (kind | 0o4751, 1, rdev)
    before = kernel.tree()
    assert session.reopen().tree() == before


def test_what_is_made_belongs_to_who_makes_it(kernel: Kernel) -> None:
    kernel.uid, kernel.gid = 7, 8
    kernel.mkdir("directory")
    assert (kernel.inode("directory").uid, kernel.inode("directory").gid) == (7, 8)


def test_a_setgid_directory_hands_its_group_down(kernel: Kernel) -> None:
    kernel.mkdir("shared")
    kernel.chown("shared", 1, 99)
    kernel.chmod("shared", 0o2775)
    kernel.gid = 8
    kernel.write_file("shared/file", b"")
    kernel.mkdir("shared/directory", 0o700)
    kernel.symlink("x", "shared/symlink")
    assert [inode.gid for _, _, inode in kernel.list("shared")] == [99, 99, 99]
    assert stat.S_IMODE(kernel.inode("shared/directory").mode) == 0o2700
    assert stat.S_IMODE(kernel.inode("shared/file").mode) == 0o644


def test_making_moves_the_times_of_the_directory(kernel: Kernel) -> None:
    for make in (
        lambda: kernel.mkdir("a"),
        lambda: kernel.symlink("x", "b"),
        lambda: kernel.write_file("c", b""),
        lambda: kernel.link("c", "d"),
        lambda: kernel.rename("d", "e"),
        lambda: kernel.unlink("e"),
        lambda: kernel.rmdir("a"),
    ):
        kernel.utime("", 5, 5)
        make()
        root = kernel.inode("")
        assert root.mtime == root.ctime > 5


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_what_is_no_name_is_refused(fs: FileSystem, name: bytes) -> None:
    fails(errno.EINVAL, lambda: run_inline(fs.tree.make(ROOT_INO, name, stat.S_IFREG, 0, 0)))
    fails(errno.EINVAL, lambda: run_inline(fs.tree.link(ROOT_INO, ROOT_INO, name)))


def test_errors_of_making(kernel: Kernel, fs: FileSystem) -> None:
    kernel.write_file("file", b"")
    file = kernel.inode("file").ino
    make = fs.tree.make
    fails(errno.EEXIST, lambda: run_inline(make(ROOT_INO, b"file", stat.S_IFREG, 0, 0)))
    fails(errno.ENOTDIR, lambda: run_inline(make(file, b"x", stat.S_IFREG, 0, 0)))
    fails(errno.ESTALE, lambda: run_inline(make(999, b"x", stat.S_IFREG, 0, 0)))
    fails(errno.ENAMETOOLONG, lambda: run_inline(make(ROOT_INO, b"x" * 256, stat.S_IFREG, 0, 0)))
    fails(errno.ENOENT, lambda: kernel.symlink(b"", "symlink"))
    fails(errno.ENAMETOOLONG, lambda: kernel.symlink(b"x" * 4096, "symlink"))
    kernel.symlink(b"x" * 4095, "symlink")
    assert kernel.readlink("symlink") == b"x" * 4095
    assert kernel.inode("symlink", follow=False).size == 4095


def test_a_name_that_was_taken_leaves_no_inode_behind(
    session: Session, kernel: Kernel, fs: FileSystem
) -> None:
    kernel.mkdir("directory")
    fails(errno.EEXIST, lambda: run_inline(fs.tree.make(ROOT_INO, b"directory", stat.S_IFDIR, 0, 0)))
    assert links(kernel, "") == [3]
    kernel.sync()
    assert session.store.namespace.inodes.count() == 2


def test_nothing_is_made_in_a_removed_directory(kernel: Kernel, fs: FileSystem) -> None:
    kernel.mkdir("directory")
    kernel.write_file("file", b"")
    ino = run_inline(fs.tree.rmdir(ROOT_INO, b"directory")).ino
    fails(errno.ENOENT, lambda: run_inline(fs.tree.make(ino, b"x", stat.S_IFREG, 0, 0)))
    fails(errno.ENOENT, lambda: run_inline(fs.tree.link(kernel.inode("file").ino, ino, b"x")))
    fails(errno.ENOENT, lambda: run_inline(fs.tree.rename(ROOT_INO, b"file", ino, b"x", 0)))
    run_inline(fs.tree.forget([ino]))


@pytest.mark.parametrize("table", ["dentries", "xattrs"])
def test_a_file_that_the_database_refuses_is_not_half_there(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    kernel.mkdir("directory")
    kernel.setxattr("directory", b"system.posix_acl_default", DEFAULT_ACL)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "refused")

    with monkeypatch.context() as patch:
        rows = getattr(session.store.namespace, table)
        patch.setattr(rows, "insert" if table == "dentries" else "set", refuse)
        with pytest.raises(OSError, match="refused"):
            kernel.mkdir("directory/new")
    assert kernel.names("directory") == []
    assert links(kernel, "directory") == [2]
    kernel.mkdir("directory/new")


DEFAULT_ACL = bytes.fromhex(
    "02000000 01000700ffffffff 0200070005000000 04000500ffffffff 10000700ffffffff 20000000ffffffff"
)


# Looking up


def test_lookup(kernel: Kernel, fs: FileSystem) -> None:
    kernel.mkdir("a")
    kernel.mkdir("a/b")
    a, b = kernel.inode("a").ino, kernel.inode("a/b").ino
    assert fs.tree.lookup(ROOT_INO, b"absent") is None
    for parent, name, expected in (
        (ROOT_INO, b"a", a),
        (a, b"b", b),
        (a, b".", a),
        (b, b"..", a),
        (a, b"..", ROOT_INO),
        (ROOT_INO, b"..", ROOT_INO),
    ):
        found = fs.tree.lookup(parent, name)
        assert found is not None
        assert found.ino == expected
    fails(errno.ENAMETOOLONG, lambda: fs.tree.lookup(ROOT_INO, b"x" * 256))


# Links


def test_hard_links(session: Session, kernel: Kernel) -> None:
    kernel.write_file("one", b"content")
    kernel.mkdir("directory")
    kernel.link("one", "directory/two")
    kernel.symlink("absent", "symlink")
    kernel.link("symlink", "symlink two")
    assert links(kernel, "one", "directory/two") == [2, 2]
    assert kernel.inode("one") is kernel.inode("directory/two")
    kernel.unlink("one")
    kernel = session.reopen()
    assert links(kernel, "directory/two") == [1]
    assert kernel.readlink("symlink two") == b"absent"


def test_errors_of_linking(kernel: Kernel, fs: FileSystem) -> None:
    kernel.write_file("file", b"")
    kernel.mkdir("directory")
    file, directory = kernel.inode("file"), kernel.inode("directory").ino
    link = fs.tree.link
    fails(errno.EEXIST, lambda: run_inline(link(file.ino, ROOT_INO, b"directory")))
    fails(errno.EPERM, lambda: run_inline(link(directory, ROOT_INO, b"x")))
    fails(errno.ENAMETOOLONG, lambda: run_inline(link(file.ino, ROOT_INO, b"x" * 256)))
    with kernel.open("file") as opened:
        kernel.unlink("file")
        fails(errno.ENOENT, lambda: run_inline(link(opened.ino, ROOT_INO, b"x")))


def test_too_many_links(kernel: Kernel, fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, LINK_LIMIT=3)
    kernel.write_file("file", b"")
    kernel.link("file", "two")
    kernel.link("file", "three")
    fails(errno.EMLINK, lambda: kernel.link("file", "four"))


# Removing


def test_errors_of_removing(kernel: Kernel) -> None:
    kernel.write_file("file", b"")
    kernel.mkdir("directory")
    kernel.mkdir("directory/inner")
    fails(errno.EISDIR, lambda: kernel.unlink("directory"))
    fails(errno.ENOTDIR, lambda: kernel.rmdir("file"))
    fails(errno.ENOTEMPTY, lambda: kernel.rmdir("directory"))
    fails(errno.ENOENT, lambda: kernel.unlink("absent"))
    fails(errno.ENOENT, lambda: kernel.rmdir("absent"))
    fails(errno.ENAMETOOLONG, lambda: kernel.unlink("x" * 256))
    assert links(kernel, "", "directory") == [3, 3]
    kernel.rmdir("directory/inner")
    kernel.rmdir("directory")
    assert links(kernel, "") == [2]


def test_what_is_removed_leaves_no_row(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    kernel.setxattr("file", b"user.x", b"value")
    kernel.sync()
    ino = kernel.inode("file").ino
    kernel.unlink("file")
    kernel.sync()
    assert session.store.namespace.inodes.get(ino) is None
    assert session.store.namespace.xattrs.of(ino) == {}
    fails(errno.ESTALE, lambda: session.fs.inodes.get(ino))


def test_a_lookup_count_keeps_the_inode(session: Session, kernel: Kernel, fs: FileSystem) -> None:
    kernel.write_file("file", b"content")
    inode = run_inline(fs.tree.unlink(ROOT_INO, b"file"))
    kernel.sync()
    assert fs.inodes.get(inode.ino).nlink == 0
    assert fs.activity().unlinked_open == 1
    run_inline(fs.tree.forget([inode.ino, 12345]))
    assert fs.activity().unlinked_open == 0


def test_an_inode_that_is_forgotten_before_its_release_goes_with_it(
    session: Session, kernel: Kernel, fs: FileSystem
) -> None:
    """Nobody waits for a RELEASE, so FORGET may come first."""
    kernel.write_file("file", b"content")
    handle = fs.files.open(kernel.inode("file"), True, 0)
    inode = run_inline(fs.tree.unlink(ROOT_INO, b"file"))
    run_inline(fs.tree.forget([inode.ino]))
    assert bytes(run_inline(fs.files.read(handle, 0, 100))) == b"content"
    run_inline(fs.files.release(handle))
    run_inline(fs.tree.released(inode))
    assert fs.activity().unlinked_open == 0
    fails(errno.ESTALE, lambda: fs.inodes.get(inode.ino))


# Renaming


def test_renaming_moves_no_bytes_and_keeps_the_inode(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("a")
    kernel.mkdir("a/b")
    kernel.write_file("a/b/file", b"content")
    before = kernel.inode("a/b/file").ino
    kernel.mkdir("c")
    kernel.rename("a/b", "c/moved")
    assert kernel.inode("c/moved/file").ino == before
    assert links(kernel, "", "a", "c", "c/moved") == [4, 2, 3, 2]
    assert session.reopen().names("c/moved") == [b"file"]


def test_errors_of_renaming(kernel: Kernel) -> None:
    kernel.write_file("file", b"")
    for path in ("a", "a/b", "a/b/c", "full", "full/x", "empty"):
        kernel.mkdir(path)
    rename = kernel.rename
    fails(errno.ENOENT, lambda: rename("absent", "x"))
    fails(errno.ENOENT, lambda: rename("file", "absent", RENAME_EXCHANGE))
    fails(errno.EEXIST, lambda: rename("file", "a", RENAME_NOREPLACE))
    fails(errno.EEXIST, lambda: rename("file", "file", RENAME_NOREPLACE))
    fails(errno.EISDIR, lambda: rename("file", "empty"))
    fails(errno.ENOTDIR, lambda: rename("a", "file"))
    fails(errno.ENOTEMPTY, lambda: rename("a", "full"))
    fails(errno.EINVAL, lambda: rename("a", "a/x"))
    fails(errno.EINVAL, lambda: rename("a", "a/b/c"))
    fails(errno.EINVAL, lambda: rename("a", "a/b/c", RENAME_EXCHANGE))
    fails(errno.EINVAL, lambda: rename("a/b/c", "a", RENAME_EXCHANGE))
    fails(errno.ENAMETOOLONG, lambda: rename("file", "x" * 256))
    fails(errno.EINVAL, lambda: rename("file", "x", RENAME_EXCHANGE | RENAME_NOREPLACE))
    fails(errno.EINVAL, lambda: rename("file", "x", 8))
    fails(errno.EINVAL, lambda: rename("file", "a", RENAME_EXCHANGE | RENAME_WHITEOUT))
    fails(errno.EEXIST, lambda: rename("file", "a", RENAME_NOREPLACE | RENAME_WHITEOUT))
    assert kernel.names() == [b"a", b"empty", b"file", b"full"]
    rename("a", "empty")
    assert kernel.names("empty") == [b"b"]


@pytest.mark.parametrize("replaces", [False, True])
def test_a_whiteout_takes_the_place_of_what_was_moved(
    session: Session, kernel: Kernel, replaces: bool
) -> None:
    for path in ("from", "to"):
        kernel.mkdir(path)
        kernel.chmod(path, 0o2755)
        kernel.chown(path, 7, 70 + len(path))
    kernel.write_file("from/file", b"content")
    moved = kernel.inode("from/file").ino
    if replaces:
        kernel.write_file("to/file", b"replaced")
    kernel.uid, kernel.gid = 5, 6
    kernel.rename("from/file", "to/file", RENAME_WHITEOUT)
    kernel = session.reopen()
    left = kernel.inode("from/file")
    assert (left.mode, left.rdev, left.nlink, left.gid) == (stat.S_IFCHR, 0, 1, 74)
    assert (kernel.inode("to/file").ino, kernel.read_file("to/file")) == (moved, b"content")
    assert links(kernel, "from", "to") == [2, 2]
    kernel.mkdir("from/folder")
    kernel.rename("from/folder", "to/folder", RENAME_WHITEOUT)
    assert links(kernel, "from", "to") == [2, 3]
    assert kernel.inode("from/folder").mode == stat.S_IFCHR


def test_a_file_without_a_name_gets_one(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("folder")
    before = kernel.inode("folder").mtime
    file = kernel.open_unnamed("folder")
    file.write(b"content")
    assert (file.stat().nlink, kernel.names("folder"), kernel.inode("folder").mtime) == (0, [], before)
    kernel.link_file(file, "folder/file")
    assert (file.stat().nlink, kernel.read_file("folder/file")) == (1, b"content")
    kernel.link_file(file, "other")
    file.write(b"more", 7)
    file.close()
    kernel = session.reopen()
    assert links(kernel, "folder/file", "other") == [2, 2]
    assert kernel.read_file("other") == b"contentmore"


@pytest.mark.parametrize("content", [b"", b"content", bytes(400_000)], ids=["empty", "small", "large"])
def test_a_file_that_never_had_a_name_leaves_nothing(
    session: Session, kernel: Kernel, content: bytes
) -> None:
    with kernel.open_unnamed() as file:
        file.write(content)
        file.fsync()
        ino = file.ino
    fails(errno.ESTALE, lambda: session.fs.inodes.get(ino))
    session.stop()
    assert not list((session.path / "blobs").glob("*/*"))
    assert not list((session.path / "staging").iterdir())


def test_only_a_file_that_never_had_a_name_gets_one(kernel: Kernel) -> None:
    with kernel.open_unnamed() as file:
        kernel.link_file(file, "file")
        kernel.unlink("file")
        fails(errno.ENOENT, lambda: kernel.link_file(file, "again"))


def test_a_refused_name_leaves_a_file_without_one_as_it_was(kernel: Kernel) -> None:
    kernel.write_file("taken", b"")
    root = kernel.inode(b"").ino
    with kernel.open_unnamed() as file:
        file.write(b"content")
        fails(errno.EEXIST, lambda: run_inline(kernel.fs.tree.link(file.ino, root, b"taken")))
        fails(errno.ENAMETOOLONG, lambda: run_inline(kernel.fs.tree.link(file.ino, root, b"x" * 256)))
        assert file.stat().nlink == 0
        kernel.link_file(file, "file")
    assert kernel.read_file("file") == b"content"


def test_renaming_one_link_to_another_does_nothing(kernel: Kernel) -> None:
    kernel.write_file("one", b"")
    kernel.link("one", "two")
    kernel.rename("one", "two")
    kernel.rename("one", "one")
    kernel.rename("one", "two", RENAME_EXCHANGE)
    assert kernel.names() == [b"one", b"two"]
    assert links(kernel, "one") == [2]


def test_exchanging(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("a")
    kernel.mkdir("a/directory")
    kernel.write_file("file", b"content")
    file, directory = kernel.inode("file").ino, kernel.inode("a/directory").ino
    kernel.rename("file", "a/directory", RENAME_EXCHANGE)
    assert (kernel.inode("a/directory").ino, kernel.inode("file").ino) == (file, directory)
    assert links(kernel, "", "a", "file", "a/directory") == [4, 2, 2, 1]
    kinds = {row[1]: row[3] for row in session.store.namespace.dentries.children(ROOT_INO, 0, 10)}
    assert kinds == {b"a": 4, b"file": 4}


def test_replacing_a_directory(session: Session, kernel: Kernel) -> None:
    for path in ("a", "a/new", "a/new/x", "b", "b/old"):
        kernel.mkdir(path)
    kernel.rename("a/new", "b/old")
    assert links(kernel, "", "a", "b", "b/old") == [4, 2, 3, 3]
    assert session.reopen().names("b/old") == [b"x"]


def cold(session: Session, *oldest_first: int) -> Kernel:
    """Reopen with these inodes, and no other, in memory."""
    kernel = session.reopen()
    session.fs.inodes._cache.clear()
    for ino in oldest_first:
        session.fs.inodes.get(ino)
    return kernel


def test_link_count_of_a_directory_evicted_while_it_is_renamed_in(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There were two objects of one inode, and the one written last won."""
    for path in ("p", "p/a", "p/b", "other"):
        kernel.mkdir(path)
    parent, a, other = (kernel.inode(path).ino for path in ("p", "p/a", "other"))
    kernel = cold(session, parent, ROOT_INO, other, a)
    set_limits(monkeypatch, CACHE_SIZE=4)
    kernel.rename("p/a", "p/b")
    assert links(kernel, "p") == [3]


def test_a_hard_link_evicted_while_it_is_renamed(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old name was removed, because both ends were taken for different files."""
    kernel.write_file("a", b"content")
    kernel.mkdir("p")
    kernel.link("a", "p/b")
    kernel.mkdir("other")
    a, parent, other = (kernel.inode(path).ino for path in ("a", "p", "other"))
    kernel = cold(session, a, ROOT_INO, other)
    set_limits(monkeypatch, CACHE_SIZE=3)
    run_inline(session.fs.tree.rename(ROOT_INO, b"a", parent, b"b", 0))
    assert links(kernel, "a", "p/b") == [2, 2]


# Listing


def test_dot_and_dot_dot_come_first(kernel: Kernel, fs: FileSystem) -> None:
    kernel.mkdir("a")
    kernel.mkdir("a/b")
    a = kernel.inode("a").ino
    found = [(cookie, name, inode.ino) for cookie, name, inode in fs.listing.list(a, 0)]
    assert found[:2] == [(1, b".", a), (2, b"..", ROOT_INO)]
    assert [name for _, name, _ in found] == [b".", b"..", b"b"]
    assert [name for _, name, _ in fs.listing.list(a, 1)] == [b"..", b"b"]
    assert [inode.ino for _, _, inode in fs.listing.list(ROOT_INO, 0)][:2] == [ROOT_INO, ROOT_INO]


def pages(kernel: Kernel, size: int, between: Callable[[list[bytes]], None]) -> list[bytes]:
    """All names of the root, read in pages as readdir(3) does, with something done between them."""
    found: list[bytes] = []
    after = 2
    while True:
        page = []
        for cookie, name, _ in kernel.list("", after):
            page.append(name)
            after = cookie
            if len(page) == size:
                break
        if not page:
            return found
        found += page
        between(page)


def test_every_entry_is_listed_once_while_others_go(kernel: Kernel) -> None:
    """What `rm -r` does: 20,000 entries removed page by page, and some before they are listed."""
    names = {b"%d" % number for number in range(20_000)}
    for name in sorted(names, key=int):
        kernel.make(name, stat.S_IFIFO)
    kernel.sync()
    removed: set[bytes] = set()
    unlisted: set[bytes] = set()

    def remove_some(page: list[bytes]) -> None:
        later = b"%d" % (int(page[-1]) + 50)
        if later in names:
            unlisted.add(later)
        for name in {*page[::2], later} & names:
            run_inline(kernel.fs.tree.unlink(ROOT_INO, name))
            removed.add(name)

    found = pages(kernel, 100, remove_some)
    assert len(found) == len(set(found))
    assert set(found) == names - unlisted
    assert len(unlisted) > 100
    run_inline(kernel.fs.tree.forget(list(kernel.fs.tree.unlinked)))
    assert set(kernel.names()) == names - removed


def test_every_entry_is_listed_once_while_others_come_and_are_renamed(kernel: Kernel) -> None:
    for number in range(300):
        kernel.mkdir(b"%03d" % number)

    def change(page: list[bytes]) -> None:
        kernel.rename(page[-1], b"renamed " + page[-1])
        kernel.mkdir(b"new " + page[-1])

    found = pages(kernel, 30, lambda page: change(page) if not page[-1].startswith(b"new") else None)
    assert len(found) == len(set(found))
    assert {b"%03d" % number for number in range(300)} <= set(found)


def test_listing_a_removed_directory_is_empty(kernel: Kernel, fs: FileSystem) -> None:
    kernel.mkdir("directory")
    inode = run_inline(fs.tree.rmdir(ROOT_INO, b"directory"))
    assert [name for _, name, _ in fs.listing.list(inode.ino, 0)] == [b".", b".."]
    run_inline(fs.tree.forget([inode.ino]))


# Input nobody expects


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"new\nline", b" ", b"-rf", b"x" * 255, "e\u0301".encode(), b"\x01"]
)
def test_names_are_bytes(session: Session, kernel: Kernel, name: bytes) -> None:
    kernel.mkdir(name)
    kernel.write_file(name + b"/" + name, b"content")
    kernel.symlink(name, b"s")
    kernel = session.reopen()
    assert kernel.names() == sorted([name, b"s"])
    assert kernel.read_file(name + b"/" + name) == b"content"
    assert kernel.readlink("s") == name
    kernel.rename(name + b"/" + name, name[:-1] + b"2")
    kernel.rmdir(name)
    assert kernel.read_file(name[:-1] + b"2") == b"content"


def test_a_deep_tree(session: Session, kernel: Kernel, fs: FileSystem) -> None:
    """2,000 directories, one in the other: no recursion anywhere."""
    parent = ROOT_INO
    for _ in range(2000):
        parent = run_inline(fs.tree.make(parent, b"d", stat.S_IFDIR | 0o755, 0, 0)).ino
    run_inline(fs.tree.make(parent, b"file", stat.S_IFREG | 0o644, 0, 0))
    kernel.mkdir("top")
    fails(errno.EINVAL, lambda: run_inline(fs.tree.rename(ROOT_INO, b"d", parent, b"loop", 0)))
    run_inline(fs.tree.rename(ROOT_INO, b"d", kernel.inode("top").ino, b"moved", 0))
    kernel = session.reopen()
    namespace = session.store.namespace
    file = namespace.dentries.find(parent, b"file")
    assert file is not None
    assert namespace.dentries.paths_of(file) == [b"top/moved/" + b"d/" * 1999 + b"file"]
    assert os.path.basename(namespace.dentries.paths_of(parent)[0]) == b"d"


def test_a_directory_of_many_subdirectories(session: Session, kernel: Kernel) -> None:
    for number in range(1000):
        kernel.mkdir(f"{number}")
    assert links(session.reopen(), "") == [1002]


def test_rows_and_names_of_a_listing_go_on_behind_any_cookie(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("d")
    for number in range(20):
        kernel.write_file(f"d/{number}", b"x" * number)
    kernel = session.reopen()
    listing, ino = kernel.fs.listing, kernel.inode("d").ino
    entries = [(cookie, name, inode) for cookie, name, inode in listing.list(ino, 0)]
    for after in (0, 1, *(cookie for cookie, _, _ in entries)):
        behind = [entry for entry in entries if entry[0] > after]
        dots = [(cookie, name, inode.ino, 4) for cookie, name, inode in behind if cookie <= 2]
        files = [(cookie, name, inode) for cookie, name, inode in behind if cookie > 2][:7]
        names = [(cookie, name, inode.ino, inode.mode >> 12) for cookie, name, inode in files]
        assert listing.names(ino, after, 7) == dots + names
        rows = [(cookie, name, *attributes(inode)) for cookie, name, inode in files]
        assert listing.rows(ino, after, 7) == dots + rows


def attributes(inode: Inode) -> tuple[int, ...]:
    owner = (inode.uid, inode.gid, inode.rdev, inode.size, inode.allocated)
    return (inode.ino, inode.mode, inode.nlink, *owner, inode.atime, inode.mtime, inode.ctime)


# Answering before the rows are written


NAMES = ("file", "other", "directory", "full", "full/child")

CHANGES: dict[str, Callable[[Kernel, tuple[int, bytes], tuple[int, bytes]], Any]] = {
    "make": lambda kernel, at, _: kernel.fs.tree.make(*at, stat.S_IFREG | 0o644, 0, 0),
    "mkdir": lambda kernel, at, _: kernel.fs.tree.make(*at, stat.S_IFDIR | 0o755, 0, 0),
    "unlink": lambda kernel, at, _: kernel.fs.tree.unlink(*at),
    "rmdir": lambda kernel, at, _: kernel.fs.tree.rmdir(*at),
    "link": lambda kernel, at, to: kernel.fs.tree.link(kernel.fs.tree.lookup(*at).ino, *to),
    "rename": lambda kernel, at, to: kernel.fs.tree.rename(*at, *to, 0),
    "noreplace": lambda kernel, at, to: kernel.fs.tree.rename(*at, *to, RENAME_NOREPLACE),
    "exchange": lambda kernel, at, to: kernel.fs.tree.rename(*at, *to, RENAME_EXCHANGE),
}


@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_only_what_succeeds_is_answered_and_once(kernel: Kernel, change: str, looked_up: bool) -> None:
    answers: list[object] = []
    pairs = itertools.product((*NAMES, "new"), (*NAMES, "new", "directory/new"))
    for number, (source, target) in enumerate(pairs):
        top = f"{number}/"
        kernel.mkdir(top)
        for name in NAMES[2:4]:
            kernel.mkdir(top + name)
        for name in ("file", "other", "full/child"):
            kernel.write_file(top + name, b"content")
        at, to = (kernel._walk(os.fsencode(top + name), follow=False) for name in (source, target))
        for place in (at, to) if looked_up else ():
            kernel.fs.tree.lookup(*place)
        kernel.answer_to(answers.append)
        try:
            run_inline(CHANGES[change](kernel, at, to))
        except (FsError, AttributeError):
            assert answers == [], (source, target)
        else:
            assert source == target or len(answers) == 1, (source, target)
        answers.clear()
        kernel.answer_to(id)


@pytest.mark.parametrize("given", ["make", "link", "rename", "attach"])
def test_a_name_that_was_looked_up_in_vain_and_given_since_is_not_answered_for(
    kernel: Kernel, given: str
) -> None:
    kernel.write_file("file", b"content")
    tree, answers = kernel.fs.tree, list[object]()
    assert tree.lookup(ROOT_INO, b"name") is None
    if given == "make":
        kernel.make("name", stat.S_IFREG)
    elif given == "link":
        kernel.link("file", "name")
    elif given == "rename":
        kernel.rename("file", "name")
    else:
        run_inline(copy(kernel.fs, b"file", b"name", recursive=False))
    kernel.answer_to(answers.append)
    fails(errno.EEXIST, lambda: run_inline(tree.make(ROOT_INO, b"name", stat.S_IFREG, 0, 0)))
    assert answers == []


def test_a_new_name_is_answered_before_its_row_is_written(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = kernel.fs.tree
    rows: list[object] = []

    def seen(_: object) -> None:
        rows.append(tree._dentries.find(ROOT_INO, b"name"))

    kernel.answer_to(seen)
    tree.lookup(ROOT_INO, b"name")
    run_inline(tree.make(ROOT_INO, b"name", stat.S_IFREG, 0, 0))
    run_inline(tree.unlink(ROOT_INO, b"name"))
    assert rows[0] is None
    assert rows[1] is not None


def test_a_directory_is_not_moved_deeper_than_can_be_told_in_time(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, MOVE_DEPTH=5)
    for depth in range(1, 7):
        kernel.mkdir("/".join("d" * depth))
    kernel.mkdir("x")
    kernel.write_file("file", b"content")
    fails(errno.ENAMETOOLONG, lambda: kernel.rename("x", "d/d/d/d/d/d/x"))
    kernel.rename("file", "d/d/d/d/d/d/file")
    kernel.rename("x", "d/d/d/d/x")
    fails(
        errno.EINVAL,
        lambda: run_inline(kernel.fs.tree.rename(ROOT_INO, b"d", kernel.inode("d/d/d").ino, b"y", 0)),
    )
