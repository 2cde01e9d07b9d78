"""The trash can, in-process: what goes there, what it looks like, how it leaves."""

from __future__ import annotations

import errno
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casfs.errors import FsError
from casfs.fs import acl, commit, copy
from casfs.fs.scheduler import run_inline
from casfs.fs.tree import RENAME_EXCHANGE
from casfs.fuse.verbs import Verbs
from casfs.namespace.trash import RuleRow
from casfs.trash.filesystem import trash_of
from casfs.trash.policy import DAY_NS
from casfs.trash.undelete import change_rule, expire, undelete
from casfs.types import ROOT_INO
from tests.fs.test_acl import MINIMAL
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session, no_room


@pytest.fixture
def kernel(session: Session) -> Kernel:
    """A store in which nothing is too young for the trash."""
    trash_of(session.fs).minimal_age_ns = 0
    return session.kernel


def bin_path(path: str) -> str:
    """Where a file that was removed today lies."""
    return f".casfs/trash/{datetime.now(UTC):%Y-%m-%d}/{path}"


def put(kernel: Kernel, path: str, content: bytes) -> None:
    """A sealed file, committed."""
    kernel.write_file(path, content)
    kernel.sync()


def in_trash(kernel: Kernel) -> list[tuple[bytes, str]]:
    """(path it had, reason) of all there is, sorted."""
    kernel.sync()
    return sorted((row.path, row.reason) for row, _ in kernel.fs.store.namespace.trash.sized())


def fails(number: int, action: object, *args: object) -> None:
    with pytest.raises(FsError) as raised:
        action(*args)  # type: ignore[operator]
    assert raised.value.errno == number, os.strerror(raised.value.errno or 0)


def test_a_removed_file_is_in_the_trash_with_all_it_had(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("repo", 0o750)
    kernel.mkdir("repo/sub", 0o2705)
    put(kernel, "repo/sub/file", b"precious")
    kernel.chmod("repo/sub/file", 0o640)
    kernel.chown("repo/sub/file", 5, 6)
    kernel.setxattr("repo/sub/file", b"user.note", b"mine")
    kernel.utime("repo/sub/file", 11, 22)
    old = kernel.inode("repo/sub/file")
    kernel.uid = 7
    run_inline(kernel.fs.tree.unlink(kernel.inode("repo/sub").ino, b"file", 7))
    kernel._forget()
    kernel.sync()
    kernel = session.reopen()
    there = bin_path("repo/sub/file")
    assert kernel.read_file(there) == b"precious"
    inode = kernel.inode(there)
    assert inode.ino != old.ino
    assert (inode.mode, inode.uid, inode.gid, inode.nlink) == (0o100640, 5, 6, 1)
    assert (inode.atime, inode.mtime, inode.btime) == (11, 22, old.btime)
    assert kernel.inode(bin_path("repo")).mode == 0o40750
    assert kernel.inode(bin_path("repo/sub")).mode == 0o42705
    assert kernel.listxattr(there) == [b"user.note"]
    assert kernel.getxattr(there, b"user.casfs.trash.uid") == b"7"
    assert kernel.getxattr(there, b"user.casfs.trash.path") == b"repo/sub/file"
    assert kernel.getxattr(there, b"user.casfs.trash.reason") == b"removed"
    deleted = datetime.strptime(
        kernel.getxattr(there, b"user.casfs.trash.deleted").decode(), "%Y-%m-%dT%H:%M:%SZ"
    )
    assert abs(deleted.replace(tzinfo=UTC).timestamp() - time.time()) < 600
    fails(errno.ENODATA, kernel.getxattr, "repo", b"user.casfs.trash.uid")
    fails(errno.EPERM, kernel.setxattr, there, b"user.casfs.trash.uid", b"0")


def test_the_trash_is_not_listed_and_not_counted(session: Session, kernel: Kernel) -> None:
    for number in range(3):
        put(kernel, f"f{number}", b"%d" % number)
    before = kernel.inode("").nlink
    kernel.unlink("f0")
    kernel.sync()
    there = kernel.fs.listing
    assert kernel.names() == [b"f1", b"f2"]
    for limit in (1, 2, 3):
        for listing in (there.names, there.rows):
            found, after = [], 2
            while rows := listing(ROOT_INO, after, limit):
                found += [row[1] for row in rows]
                after = rows[-1][0]
            assert found == [b"f1", b"f2"]
    assert kernel.inode("").nlink == before
    assert kernel.names(".casfs") == [b"trash"]


def test_what_was_not_sealed_or_is_empty_or_young_does_not_go_there(session: Session, kernel: Kernel) -> None:
    kernel.write_file("unsealed", b"x")
    kernel.unlink("unsealed")
    put(kernel, "empty", b"")
    kernel.unlink("empty")
    kernel.symlink("x", "link")
    kernel.unlink("link")
    trash_of(session.fs).minimal_age_ns = 60 * 10**9
    put(kernel, "young", b"y")
    kernel.unlink("young")
    assert in_trash(kernel) == []
    assert not kernel.fs.nodes.base


def test_only_the_last_link_counts(kernel: Kernel) -> None:
    put(kernel, "a", b"content")
    kernel.link("a", "b")
    kernel.unlink("a")
    assert in_trash(kernel) == []
    kernel.unlink("b")
    assert in_trash(kernel) == [(b"b", "removed")]


def test_a_file_that_is_open_dies_and_is_in_the_trash(kernel: Kernel) -> None:
    put(kernel, "a", b"content")
    with kernel.open("a", os.O_RDWR) as file:
        kernel.unlink("a")
        assert file.stat().nlink == 0
        file.write(b"CHANGED")
        kernel.sync()
        assert kernel.read_file(bin_path("a")) == b"content"


def test_a_replaced_file_is_in_the_trash(kernel: Kernel) -> None:
    put(kernel, "a", b"old")
    put(kernel, "b", b"new")
    kernel.rename("b", "a")
    assert in_trash(kernel) == [(b"a", "replaced")]
    assert kernel.read_file(bin_path("a")) == b"old"


@pytest.mark.parametrize("how", ["open", "truncate"])
def test_a_truncated_file_is_in_the_trash(kernel: Kernel, how: str) -> None:
    put(kernel, "a", b"old")
    if how == "open":
        put(kernel, "a", b"new")
    else:
        kernel.truncate("a", 0)
    assert in_trash(kernel) == [(b"a", "truncated")]
    assert kernel.read_file(bin_path("a")) == b"old"
    kernel.truncate("a", 0)
    kernel.write_file("a", b"more")
    kernel.truncate("a", 2)
    assert [reason for _, reason in in_trash(kernel)] == ["truncated"] * (1 + (how == "open"))


def test_content_that_was_just_written_is_young_for_a_truncation(session: Session, kernel: Kernel) -> None:
    put(kernel, "log", b"one")
    trash_of(session.fs).minimal_age_ns = 60 * 10**9
    kernel.inode("log").btime -= 3600 * 10**9
    put(kernel, "log", b"two")
    assert in_trash(kernel) == []


def test_a_name_that_is_taken_gets_a_number(kernel: Kernel) -> None:
    for content in (b"1", b"2", b"3"):
        put(kernel, "a", content)
        kernel.unlink("a")
        kernel.sync()
    long = "n" * 255
    for content in (b"4", b"5"):
        put(kernel, long, content)
        kernel.unlink(long)
    kernel.sync()
    assert [kernel.read_file(bin_path(name)) for name in ("a", "a~2", "a~3")] == [b"1", b"2", b"3"]
    assert kernel.read_file(bin_path("n" * 253 + "~2")) == b"5"


def test_a_directory_that_was_opened_to_more_people_is_another_one_in_the_trash(kernel: Kernel) -> None:
    kernel.mkdir("d", 0o700)
    put(kernel, "d/secret", b"1")
    kernel.unlink("d/secret")
    kernel.sync()
    kernel.chmod("d", 0o755)
    put(kernel, "d/public", b"2")
    kernel.unlink("d/public")
    kernel.sync()
    assert kernel.names(bin_path("d")) == [b"secret"]
    assert kernel.inode(bin_path("d")).mode == 0o40700
    assert kernel.names(bin_path("d~2")) == [b"public"]


def test_the_path_is_that_of_the_moment(kernel: Kernel) -> None:
    kernel.mkdir("a")
    kernel.mkdir("a/b")
    for name in ("1", "2", "3"):
        put(kernel, f"a/b/{name}", name.encode())
    kernel.unlink("a/b/1")
    kernel.rename("a", "z")
    kernel.unlink("z/b/2")
    kernel.rename("z/b", "b")
    kernel.unlink("b/3")
    kernel.rmdir("b")
    kernel.mkdir("b")
    assert [path for path, _ in in_trash(kernel)] == [b"a/b/1", b"b/3", b"z/b/2"]


def test_programs_may_take_out_and_remove_and_nothing_else(kernel: Kernel) -> None:
    kernel.mkdir("d")
    for name in ("d/1", "d/2", "d/3", "e"):
        put(kernel, name, name.encode())
    for name in ("d/1", "d/2", "d/3"):
        kernel.unlink(name)
    kernel.sync()
    there = bin_path("d")
    fails(errno.EPERM, kernel.mkdir, f"{there}/new")
    fails(errno.EPERM, kernel.write_file, f"{there}/new", b"")
    fails(errno.EPERM, kernel.write_file, f"{there}/1", b"changed")
    fails(errno.EPERM, kernel.open, f"{there}/1", os.O_RDWR)
    fails(errno.EPERM, kernel.truncate, f"{there}/1", 0)
    fails(errno.EPERM, kernel.link, f"{there}/1", "linked")
    fails(errno.EPERM, kernel.link, "e", f"{there}/linked")
    fails(errno.EPERM, kernel.rename, "e", f"{there}/e")
    fails(errno.EPERM, kernel.rename, f"{there}/1", f"{there}/renamed")
    fails(errno.EPERM, kernel.rename, f"{there}/1", "e", RENAME_EXCHANGE)
    fails(errno.EPERM, kernel.rename, ".casfs/trash", "moved")
    fails(errno.EPERM, kernel.rename, ".casfs", "moved")
    fails(errno.ENOTEMPTY, kernel.rmdir, ".casfs/trash")
    for target in (f"/{there}/1", f"/{there}/new", f"/{there}"):
        with pytest.raises(FsError):
            run_inline(copy.copy(kernel.fs, b"/e", target.encode(), recursive=False))
    kernel.rename(f"{there}/1", "d/1")
    kernel.unlink(f"{there}/2")
    assert in_trash(kernel) == [(b"d/3", "removed")]
    assert kernel.read_file("d/1") == b"d/1"
    fails(errno.ENODATA, kernel.getxattr, "d/1", b"user.casfs.trash.path")
    kernel.write_file("d/1", b"writable again")
    kernel.unlink(f"{there}/3")
    kernel.rmdir(there)
    kernel.rmdir(os.path.dirname(there))
    fails(errno.EPERM, kernel.rmdir, ".casfs/trash")
    kernel.sync()
    assert kernel.fs.store.namespace.blobs.totals()[2] == 2


def test_its_own_directories_allow_what_the_root_allows(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("repo", 0o750)
    put(kernel, "repo/file", b"1")
    kernel.chmod("", 0o711)
    kernel.chown("", 5, 6)
    kernel.unlink("repo/file")
    kernel.sync()
    own = (".casfs", ".casfs/trash", bin_path(""))

    def allowed() -> set[tuple[int, int, int]]:
        inodes = [kernel.inode(path) for path in own]
        return {(inode.mode & 0o7777, inode.uid, inode.gid) for inode in inodes}

    assert allowed() == {(0o711, 5, 6)}
    kernel.chmod("", 0o1777)
    assert allowed() == {(0o1777, 5, 6)}
    kernel.chown("", 0, 0)
    no_id = 0xFFFFFFFF
    entries = [(0x01, 7, no_id), (0x02, 5, 1001), (0x04, 0, no_id), (0x10, 5, no_id), (0x20, 0, no_id)]
    kernel.setxattr("", acl.ACCESS, acl.encode([acl.Entry(*entry) for entry in entries]))
    mode = kernel.inode("").mode & 0o7777
    assert allowed() == {(mode, 0, 0)}
    lists = [kernel.getxattr(path, acl.ACCESS) for path in ("", *own)]
    assert lists == [lists[0]] * 4
    assert kernel.inode(bin_path("repo")).mode == 0o40750
    kernel = session.reopen()
    trash_of(session.fs).minimal_age_ns = 0
    assert allowed() == {(mode, 0, 0)}
    put(kernel, "more", b"2")
    kernel.unlink("more")
    assert in_trash(kernel) == [(b"more", "removed"), (b"repo/file", "removed")]
    assert len(kernel.names(".casfs/trash")) == 1


def test_a_directory_moved_out_of_the_trash_is_an_ordinary_one(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("d")
    kernel.mkdir("d/sub")
    for name in ("d/1", "d/sub/2"):
        put(kernel, name, name.encode())
        kernel.unlink(name)
    kernel.sync()
    kernel.tree()
    kernel.names(bin_path("d/sub"))
    kernel.rename(bin_path("d"), "back")
    assert in_trash(kernel) == []
    kernel.write_file("back/sub/2", b"changed")
    kernel.write_file("back/sub/new", b"new")
    assert session.reopen().names("back/sub") == [b"2", b"new"]


def test_who_makes_the_name_of_the_trash_first_is_refused(kernel: Kernel) -> None:
    fails(errno.EEXIST, kernel.mkdir, ".casfs")
    make = kernel.fs.tree.make(ROOT_INO, b".casfs", stat.S_IFDIR | 0o755, 0, 0)
    fails(errno.EPERM, run_inline, make)
    kernel.mkdir("d")
    kernel.mkdir("d/.casfs")


def test_rules_say_what_goes_there(kernel: Kernel) -> None:
    trash = trash_of(kernel.fs)
    for top in ("on", "off"):
        kernel.mkdir(top)
        for name in ("a", "b.o", "build"):
            if name == "build":
                kernel.mkdir(f"{top}/{name}")
                name = "build/x"
            put(kernel, f"{top}/{name}", f"{top}{name}".encode())
    put(kernel, "top", b"top")
    run_inline(kernel.fs.group.begin())
    trash.set_rule(RuleRow(b"off", 0, ()))
    trash.set_rule(RuleRow(b"on", 3, ("*.o", "*/build/*")))
    for top in ("on", "off"):
        for name in ("a", "b.o", "build/x"):
            kernel.unlink(f"{top}/{name}")
    kernel.unlink("top")
    assert in_trash(kernel) == [(b"on/a", "removed"), (b"top", "removed")]


def test_a_crash_leaves_the_file_where_it_was_or_in_the_trash(
    session: Session, kernel: Kernel, scratch: Path
) -> None:
    put(kernel, "a", b"one")
    put(kernel, "b", b"two")
    kernel.unlink("a")
    kernel.sync()
    kernel.unlink("b")
    session.crash(scratch / "copy")
    kernel = session.kernel
    assert kernel.read_file(bin_path("a")) == b"one"
    assert kernel.read_file("b") == b"two"
    assert in_trash(kernel) == [(b"a", "removed")]
    session.stop()


def test_a_name_of_before_keeps_the_trash_off(session: Session) -> None:
    trash_of(session.fs).off = "not yet"
    run_inline(session.fs.tree.make(ROOT_INO, b".casfs", stat.S_IFDIR | 0o755, 0, 0))
    kernel = session.reopen()
    assert "of its own" in trash_of(session.fs).off
    trash_of(session.fs).minimal_age_ns = 0
    put(kernel, "a", b"content")
    kernel.unlink("a")
    assert in_trash(kernel) == []
    assert kernel.names() == [b".casfs"]
    put(kernel, ".casfs/mine", b"x")
    kernel.unlink(".casfs/mine")
    kernel.rmdir(".casfs")
    kernel = session.reopen()
    assert trash_of(session.fs).off == ""


def test_many_removals_in_one_group(kernel: Kernel) -> None:
    kernel.mkdir("d")
    for number in range(400):
        kernel.write_file(f"d/{number}", b"%d" % number)
    kernel.sync()
    for number in range(400):
        kernel.unlink(f"d/{number}")
    kernel.rmdir("d")
    kernel.sync()
    assert len(kernel.names(bin_path("d"))) == 400
    assert kernel.fs.policy.pending == 0
    assert kernel.read_file(bin_path("d/399")) == b"399"


def test_what_lies_too_deep_is_not_kept(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, DEEPEST=3, LONGEST=300, ACCESS_LIMIT=100)
    long = "1/" + "l" * 200
    for path in ("1", "1/2", "1/2/3", "1/2/3/4", long, f"{long}/{'m' * 100}", "list"):
        kernel.mkdir(path)
    users = [acl.Entry(2, 7, uid) for uid in range(20)]
    kernel.setxattr("list", acl.ACCESS, acl.encode([*MINIMAL, *users, acl.Entry(16, 7, 0)]))
    for directory in ("1/2/3/4", "1/2/3", f"{long}/{'m' * 100}", "list"):
        put(kernel, f"{directory}/file", directory.encode())
        kernel.unlink(f"{directory}/file")
    assert in_trash(kernel) == [(b"1/2/3/file", "removed")]


def test_the_directories_of_many_places_are_made_in_steps_and_place_by_place(kernel: Kernel) -> None:
    policy = trash_of(kernel.fs)
    for top in range(20):
        path = f"{top}"
        kernel.mkdir(path)
        for _ in range(20):
            path += "/d"
            kernel.mkdir(path)
        for name in "abc":
            kernel.write_file(f"{path}/{name}", b"%d" % top + name.encode())
    kernel.sync()
    for name in "abc":
        for top in range(20):
            kernel.unlink(f"{top}" + "/d" * 20 + f"/{name}")
    assert policy.pending == 60 * 22
    run_inline(kernel.fs.group.begin())
    policy.flush(100)
    assert policy.pending == 45 * 22, "five places with all their files"
    assert len(in_trash(kernel)) == 60
    assert policy.pending == 0


def test_undelete_brings_the_newest_version_back_with_its_directories(
    session: Session, kernel: Kernel
) -> None:
    kernel.mkdir("d", 0o710)
    kernel.mkdir("d/sub", 0o700)
    kernel.chown("d/sub", 3, 4)
    for content in (b"old", b"new"):
        put(kernel, "d/sub/file", content)
        kernel.unlink("d/sub/file")
        kernel.sync()
    kernel.rmdir("d/sub")
    kernel.rmdir("d")
    changed = run_inline(undelete(kernel.fs, b"/d/sub/file", 0, 1 << 62))
    assert (changed.files, changed.skipped) == (1, 0)
    assert kernel.read_file("d/sub/file") == b"new"
    assert kernel.inode("d").mode == 0o40710
    sub = kernel.inode("d/sub")
    assert (sub.mode, sub.uid, sub.gid) == (0o40700, 3, 4)
    fails(errno.EEXIST, run_inline, undelete(kernel.fs, b"d/sub/file", 0, 1 << 62))
    kernel.unlink("d/sub/file")
    kernel.sync()
    rows = sorted(kernel.fs.store.namespace.trash.sized(), key=lambda row: row[0].deleted_ns)
    run_inline(undelete(kernel.fs, b"d/sub/file", 0, rows[0][0].deleted_ns + 1))
    assert kernel.read_file("d/sub/file") == b"old"
    fails(errno.ENOENT, run_inline, undelete(kernel.fs, b"d/other", 0, 1 << 62))
    session.reopen()


def test_undelete_of_a_directory_brings_all_back_and_overwrites_nothing(kernel: Kernel) -> None:
    kernel.mkdir("d")
    kernel.mkdir("d/sub")
    for name in ("d/a", "d/b", "d/sub/c", "dx"):
        put(kernel, name, name.encode())
        kernel.unlink(name)
    put(kernel, "d/a", b"another")
    changed = run_inline(undelete(kernel.fs, b"d/", 0, 1 << 62))
    assert (changed.files, changed.skipped) == (2, 1)
    assert kernel.read_file("d/a") == b"another"
    assert kernel.read_file("d/sub/c") == b"d/sub/c"
    assert in_trash(kernel) == [(b"d/a", "removed"), (b"dx", "removed")]


def test_what_is_old_leaves_the_trash_and_its_empty_directories_go(session: Session, kernel: Kernel) -> None:
    now = time.time_ns()
    for top in ("long", "short", "off"):
        kernel.mkdir(top)
        kernel.mkdir(f"{top}/sub")
        put(kernel, f"{top}/sub/file", top.encode())
        kernel.unlink(f"{top}/sub/file")
    for directory, days in ((b"long", 30), (b"short", 2), (b"off", 0)):
        rule = change_rule(kernel.fs, directory, days, None)
        run_inline(rule)
    kernel.tree()
    kernel.names(bin_path("short"))
    kernel.names(bin_path("short/sub"))
    assert run_inline(expire(kernel.fs, now + 1 * DAY_NS)).files == 0
    with kernel.fs.changes.unseen(trash_of(kernel.fs).holds) as unseen:
        changed = run_inline(expire(kernel.fs, now + 3 * DAY_NS))
    assert (changed.files, changed.size) == (1, 5)
    assert [name for _, name in unseen.names] == [b"file", b"sub", b"short"]
    assert all(unseen.names.values())
    kernel._forget()
    assert [path for path, _ in in_trash(kernel)] == [b"long/sub/file", b"off/sub/file"]
    assert run_inline(expire(kernel.fs, now + 15 * DAY_NS)).files == 1
    assert run_inline(expire(kernel.fs, time.time_ns() + DAY_NS, 0)).files == 1
    kernel = session.reopen()
    assert kernel.names(".casfs/trash") == []
    assert kernel.fs.store.namespace.blobs.totals()[:2] == (0, 0)


def test_a_copy_over_a_file_replaces_it(kernel: Kernel) -> None:
    put(kernel, "a", b"old")
    put(kernel, "b", b"new")
    run_inline(copy.copy(kernel.fs, b"/b", b"/a", recursive=False))
    assert in_trash(kernel) == [(b"a", "replaced")]


def test_what_is_removed_while_the_commit_closes_is_in_the_trash_with_it(
    session: Session, kernel: Kernel, scratch: Path
) -> None:
    put(kernel, "a", b"content")
    kernel.write_file("b", b"opens a group")
    flush = kernel.fs.before_rows

    def last_moment() -> None:
        if kernel.fs.tree.lookup(ROOT_INO, b"a") is not None:
            kernel.unlink("a")
        flush()

    kernel.fs.before_rows = last_moment
    kernel.sync()
    session.crash(scratch / "copy")
    assert session.kernel.names() == [b"b"]
    assert session.kernel.read_file(bin_path("a")) == b"content"
    session.stop()


def test_rows_that_could_not_be_written_are_written_once_by_the_next_commit(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.mkdir("d")
    for name in ("d/a", "d/b"):
        put(kernel, name, name.encode())
        kernel.setxattr(name, b"user.note", b"mine")
    failures = []

    def failing(group: object, method: str, *, halfway: bool) -> None:
        original = getattr(group, method)
        failures.append(method)

        def once(*args: object) -> object:
            if method not in failures:
                return original(*args)
            failures.remove(method)
            if halfway:
                original(*args)
            raise OSError(errno.ENOSPC, "as if the disk were full")

        monkeypatch.setattr(group, method, once)

    trash = trash_of(kernel.fs)
    failing(trash._dentries, "insert", halfway=False)
    failing(trash._rows, "set_directory", halfway=False)
    failing(trash._dentries, "insert_new", halfway=True)
    failing(trash._inode_rows, "write", halfway=True)
    failing(trash._rows, "add", halfway=True)
    failing(trash._xattrs, "set", halfway=False)
    for name in ("d/a", "d/b"):
        kernel.unlink(name)
    while failures:
        with pytest.raises(OSError, match="as if"):
            kernel.sync()
    monkeypatch.undo()
    kernel.sync()
    kernel = session.reopen()
    assert kernel.names(bin_path("d")) == [b"a", b"b"]
    assert kernel.read_file(bin_path("d/b")) == b"d/b"
    assert kernel.names(".casfs/trash") == [os.path.basename(os.path.dirname(bin_path("d"))).encode()]


@pytest.mark.parametrize("how", ["mode", "owner", "list"])
def test_a_directory_opened_to_more_people_right_after_shows_no_more_in_the_trash(
    kernel: Kernel, how: str
) -> None:
    kernel.mkdir("d")
    kernel.mkdir("d/sub", 0o700)
    for name in ("d/sub/secret", "d/sub/other"):
        put(kernel, name, name.encode())
    old = kernel.inode("d/sub")
    was = old.mode, old.uid, old.gid
    kernel.unlink("d/sub/secret")
    if how == "mode":
        kernel.chmod("d/sub", 0o755)
    elif how == "owner":
        kernel.chown("d/sub", 5, 6)
    else:
        entries = [(1, 7, 0), (2, 7, 9), (4, 0, 0), (16, 7, 0), (32, 0, 0)]
        kernel.setxattr("d/sub", acl.ACCESS, acl.encode([acl.Entry(*entry) for entry in entries]))
    kernel.unlink("d/sub/other")
    kernel.sync()
    there = kernel.inode(bin_path("d/sub"))
    assert (there.mode, there.uid, there.gid) == was
    assert kernel.listxattr(bin_path("d/sub")) == []
    assert kernel.names(bin_path("d/sub")) == [b"secret"]
    assert kernel.names(bin_path("d/sub~2")) == [b"other"]


def test_open_for_reading_with_truncation_is_writing(kernel: Kernel) -> None:
    put(kernel, "a", b"content")
    kernel.unlink("a")
    kernel.sync()
    verbs = Verbs(kernel.fs, durable_each=False, relieve=no_room)
    fails(errno.EPERM, run_inline, verbs.open(kernel.inode(bin_path("a")).ino, os.O_RDONLY | os.O_TRUNC, 0))
    assert kernel.read_file(bin_path("a")) == b"content"


@pytest.mark.parametrize("pattern", ["a\rb", "a\x0bb", "a\u2028b"])
def test_a_pattern_may_have_any_character_but_a_line_break(
    session: Session, kernel: Kernel, pattern: str
) -> None:
    run_inline(change_rule(kernel.fs, b"", None, [pattern]))
    kernel = session.reopen()
    assert [rule.exclude for rule in trash_of(kernel.fs).rules] == [(pattern,)]


def test_a_file_where_a_directory_was_keeps_only_what_was_below_it(kernel: Kernel) -> None:
    kernel.mkdir("d")
    kernel.mkdir("d/sub")
    for name in ("d/a", "d/sub/b", "d/z"):
        put(kernel, name, name.encode())
        kernel.unlink(name)
    kernel.rmdir("d/sub")
    kernel.write_file("d/sub", b"in the way")
    changed = run_inline(undelete(kernel.fs, b"d", 0, 1 << 62))
    assert (changed.files, changed.skipped) == (2, 1)
    assert kernel.names("d") == [b"a", b"sub", b"z"]
    fails(errno.ENOTDIR, run_inline, undelete(kernel.fs, b"d/sub/b", 0, 1 << 62))


def test_a_directory_that_is_restored_has_no_more_of_a_list_than_it_had(kernel: Kernel) -> None:
    kernel.mkdir("d")
    kernel.mkdir("d/sub", 0o750)
    put(kernel, "d/sub/a", b"content")
    kernel.unlink("d/sub/a")
    kernel.rmdir("d/sub")
    entries = [(1, 7, 0), (2, 7, 9), (4, 7, 0), (16, 7, 0), (32, 0, 0)]
    kernel.setxattr("d", acl.DEFAULT, acl.encode([acl.Entry(*entry) for entry in entries]))
    run_inline(undelete(kernel.fs, b"d/sub/a", 0, 1 << 62))
    assert kernel.inode("d/sub").mode == 0o40750
    assert acl.ACCESS not in kernel.listxattr("d/sub")


def test_directories_that_programs_have_left_empty_go_by_age(session: Session, kernel: Kernel) -> None:
    kernel.mkdir("d")
    kernel.mkdir("d/sub")
    for name in ("d/1", "d/sub/2"):
        put(kernel, name, name.encode())
        kernel.unlink(name)
    kernel.sync()
    kernel.unlink(bin_path("d/1"))
    kernel.rename(bin_path("d/sub/2"), "back")
    run_inline(expire(kernel.fs, time.time_ns()))
    assert kernel.names(bin_path("d")) == [b"sub"]
    run_inline(expire(kernel.fs, time.time_ns() + 16 * DAY_NS))
    kernel._forget()
    assert session.reopen().names(".casfs/trash") == []


def test_much_is_restored_in_groups_of_their_own(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "GROUP_LIMIT", 100)
    for number in range(300):
        kernel.write_file(f"f{number}", b"%d" % number)
    kernel.mkdir("d")
    for number in range(300):
        kernel.rename(f"f{number}", f"d/{number}")
    kernel.sync()
    for number in range(300):
        kernel.unlink(f"d/{number}")
    kernel.sync()
    group = kernel.fs.group
    most, rename = 0, kernel.fs.tree.rename

    def watched(*args: object) -> object:
        nonlocal most
        most = max(most, group.operations)
        return rename(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(kernel.fs.tree, "rename", watched)
    assert run_inline(undelete(kernel.fs, b"d", 0, 1 << 62)).files == 300
    assert most < 200


def test_what_came_back_before_an_error_is_told(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.mkdir("d")
    for name in ("d/a", "d/b"):
        put(kernel, name, name.encode())
        kernel.unlink(name)
    rename = kernel.fs.tree.rename

    def full(parent: int, name: bytes, *args: object) -> object:
        if name == b"b":
            raise FsError(errno.ENOSPC)
        return rename(parent, name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(kernel.fs.tree, "rename", full)
    with kernel.fs.changes.unseen() as unseen:
        fails(errno.ENOSPC, run_inline, undelete(kernel.fs, b"d", 0, 1 << 62))
    assert (kernel.inode("d").ino, b"a") in unseen.names


@pytest.mark.parametrize("how", ["unlink", "rename"])
@pytest.mark.parametrize("length", [1, 100])
def test_what_rests_before_it_is_sealed_is_in_the_trash_when_it_is_removed(
    session: Session, kernel: Kernel, how: str, length: int
) -> None:
    put(kernel, "a", b"of last year")
    put(kernel, "b", b"another")
    with kernel.open("a", os.O_RDWR) as file:
        file.write(b"x" * length)
    if how == "unlink":
        kernel.unlink("a")
    else:
        kernel.rename("b", "a")
    assert len(in_trash(kernel)) == 1
    kept = b"x" * length + b"of last year"[length:]
    assert session.reopen().read_file(bin_path("a")) == kept


def test_what_was_truncated_and_written_again_is_kept_once_before_it_is_sealed(kernel: Kernel) -> None:
    put(kernel, "a", b"of last year")
    for _ in range(3):
        kernel.write_file("a", b"new")
    assert in_trash(kernel) == [(b"a", "truncated")]
