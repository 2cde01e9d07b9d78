"""Locked trees: nothing changes them, by whatever way."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.control.messages import Operation, Remove, SetProperties
from casfs.control.unmounted import perform
from casfs.errors import CasfsError, FsError
from casfs.fs import copy
from casfs.fs.attributes import Changes
from casfs.fs.scheduler import run_inline
from casfs.repositories import locking, verbs
from casfs.repositories.filesystem import locks_of, policy_of
from casfs.repositories.rules import Rules
from casfs.store import create_store
from casfs.trash import undelete
from tests.kernel import Kernel
from tests.repositories.making import JAR, make_directories, make_repository
from tests.repositories.test_derived import files, make_tree
from tests.session import Session


def lock(session: Session, *paths: str, reason: str = "") -> None:
    run_inline(locking.lock(session.fs, [path.encode() for path in paths], reason))


def unlock(session: Session, *paths: str) -> None:
    run_inline(locking.unlock(session.fs, [path.encode() for path in paths]))


def refused(verb: Callable[..., Any], *args: Any, number: int = errno.EPERM) -> None:
    with pytest.raises(FsError) as raised:
        verb(*args)
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


def state(session: Session, *roots: str) -> dict[str, Any]:
    """All that is to stay of locked trees: what is not times of access."""
    found = {}
    todo = list(roots)
    kernel, dentries = session.kernel, session.store.namespace.dentries
    while todo:
        path = todo.pop()
        inode = kernel.inode(path, follow=False)
        row = list(inode.row())
        atime = row.index(inode.atime)
        content = kernel.read_file(path) if inode.is_regular else None
        kept = [value for number, value in enumerate(row) if number != atime]
        found[path] = kept, content, dict(session.fs.xattrs.all(inode)), dentries.names_of(inode.ino)
        if inode.is_directory:
            todo += [f"{path}/{name.decode()}" for name in kernel.names(path)]
    return found


@pytest.fixture
def tree(session: Session, kernel: Kernel) -> Session:
    """`top/locked` is locked, with a file that has a name in `out`, too."""
    make_directories(session, "top/locked/deep/er")
    make_directories(session, "top/free")
    make_directories(session, "out")
    kernel.write_file("top/locked/file", b"file")
    kernel.write_file("top/locked/deep/two", b"two")
    kernel.symlink("file", "top/locked/link")
    kernel.link("top/locked/file", "out/hard")
    kernel.write_file("out/other", b"other")
    kernel.setxattr("top/locked/file", b"user.a", b"b")
    run_inline(session.fs.group.durable())
    session.rest()
    lock(session, "top/locked", reason="as delivered")
    return session


def changes(kernel: Kernel) -> dict[str, Callable[[], object]]:
    """Whatever would change something of `top/locked`, by name."""
    return {
        "create": lambda: kernel.write_file("top/locked/new", b""),
        "create below": lambda: kernel.write_file("top/locked/deep/er/new", b""),
        "mkdir": lambda: kernel.mkdir("top/locked/new"),
        "mknod": lambda: kernel.make("top/locked/new", stat.S_IFIFO | 0o600),
        "symlink": lambda: kernel.symlink("x", "top/locked/new"),
        "link into": lambda: kernel.link("out/other", "top/locked/new"),
        "link of": lambda: kernel.link("top/locked/file", "out/new"),
        "link by the other name": lambda: kernel.link("out/hard", "out/new"),
        "unlink": lambda: kernel.unlink("top/locked/file"),
        "unlink the other name": lambda: kernel.unlink("out/hard"),
        "rmdir": lambda: kernel.rmdir("top/locked/deep/er"),
        "rename in": lambda: kernel.rename("out/other", "top/locked/new"),
        "rename over": lambda: kernel.rename("out/other", "top/locked/file"),
        "rename over the other name": lambda: kernel.rename("out/other", "out/hard"),
        "rename within": lambda: kernel.rename("top/locked/file", "top/locked/new"),
        "rename out": lambda: kernel.rename("top/locked/file", "out/new"),
        "rename the other name": lambda: kernel.rename("out/hard", "out/new"),
        "rename the tree": lambda: kernel.rename("top/locked", "top/new"),
        "rename what is above": lambda: kernel.rename("top", "new"),
        "rename a directory of it": lambda: kernel.rename("top/locked/deep", "out/deep"),
        "exchange": lambda: kernel.rename("out/other", "top/locked/file", 2),
        "exchange the other way": lambda: kernel.rename("top/locked/deep", "out/other", 2),
        "exchange what is above": lambda: kernel.rename("out", "top", 2),
        "leave a whiteout": lambda: kernel.rename("out/hard", "out/new", 4),
        "write": lambda: kernel.open("top/locked/file", os.O_WRONLY),
        "write by the other name": lambda: kernel.open("out/hard", os.O_RDWR),
        "append": lambda: kernel.open("top/locked/deep/two", os.O_WRONLY | os.O_APPEND),
        "truncate": lambda: kernel.truncate("top/locked/file", 1),
        "truncate by the other name": lambda: kernel.truncate("out/hard", 9),
        "cut at open": lambda: kernel.open("top/locked/file", os.O_RDONLY | os.O_TRUNC),
        "chmod": lambda: kernel.chmod("top/locked/file", 0o600),
        "chmod the tree": lambda: kernel.chmod("top/locked", 0o700),
        "chmod by the other name": lambda: kernel.chmod("out/hard", 0o600),
        "chown": lambda: kernel.chown("top/locked/deep", 5, 5),
        "chown a link": lambda: kernel.set(kernel.inode("top/locked/link", follow=False), Changes(uid=5)),
        "utime": lambda: kernel.utime("top/locked/file", 1, 1),
        "setxattr": lambda: kernel.setxattr("top/locked/file", b"user.c", b"d"),
        "setxattr of a directory": lambda: kernel.setxattr("top/locked/deep", b"user.c", b"d"),
        "access list": lambda: kernel.setxattr("top/locked", b"system.posix_acl_access", b"\2\0\0\0"),
        "removexattr": lambda: kernel.removexattr("top/locked/file", b"user.a"),
        "unnamed": lambda: kernel.link_file(kernel.open_unnamed("out"), "top/locked/new"),
    }


@pytest.mark.parametrize("what", changes(None))  # type: ignore[arg-type]
def test_it_is_refused(tree: Session, what: str) -> None:
    before = state(tree, "top/locked", "out/hard"), tree.kernel.names("out"), tree.kernel.names("")
    refused(changes(tree.kernel)[what])
    after = state(tree, "top/locked", "out/hard"), tree.kernel.names("out"), tree.kernel.names("")
    assert after == before


@pytest.mark.parametrize("what", sorted(set(changes(None)) - {"cut at open"}))  # type: ignore[arg-type]
def test_it_is_allowed_again_when_it_is_unlocked(tree: Session, what: str) -> None:
    unlock(tree, "top/locked")
    changes(tree.kernel)[what]()


@pytest.mark.parametrize("what", changes(None))  # type: ignore[arg-type]
def test_it_is_refused_after_a_remount_and_a_crash(tree: Session, what: str, scratch: Path) -> None:
    tree.reopen()
    refused(changes(tree.kernel)[what])
    tree.crash(scratch / "copy")
    refused(changes(tree.kernel)[what])


def test_beside_it_everything_goes_on(tree: Session) -> None:
    kernel = tree.kernel
    kernel.write_file("top/new", b"1")
    kernel.rename("top/free", "top/other")
    kernel.rename("out", "elsewhere")
    kernel.chmod("top", 0o700)
    kernel.unlink("elsewhere/other")
    run_inline(copy.copy(tree.fs, b"top/locked", b"copy", recursive=True))
    kernel.write_file("copy/file", b"the copy is another one")
    kernel.rename("copy/deep", "top/deep")
    assert kernel.read_file("top/locked/file") == kernel.read_file("elsewhere/hard") == b"file"


def test_commands_are_refused_as_programs_are(tree: Session) -> None:
    fs = tree.fs
    before = state(tree, "top/locked")
    for source, target in ((b"out/other", b"top/locked/new"), (b"out/other", b"top/locked/file")):
        refused(lambda pair=(source, target): run_inline(copy.copy(fs, *pair, recursive=False)))
        refused(lambda pair=(source, target): run_inline(copy.move(fs, *pair)))
    refused(lambda: run_inline(copy.copy(fs, b"top/free", b"top/locked", recursive=True)))
    refused(lambda: run_inline(copy.copy(fs, b"out/other", b"out/hard", recursive=False)))
    refused(lambda: run_inline(copy.move(fs, b"top/locked/deep", b"out")))
    refused(lambda: run_inline(copy.link(fs, "blake3", "0" * 64, b"top/locked/new", 0)), number=errno.ENOENT)
    assert state(tree, "top/locked") == before


def test_what_is_removed_with_much_else_keeps_all_of_it(tree: Session) -> None:
    before = state(tree, "top")
    tree.stop()
    removed = perform(str(tree.path), Remove(["/top"], recursive=True))
    assert (removed.files, removed.directories) == (0, 0)
    assert [path for path, _ in removed.failures] == ["/top"]
    assert "top/locked is locked (as delivered)" in removed.failures[0][1]
    tree.start()
    assert state(tree, "top") == before


def test_what_was_removed_before_does_not_come_back_into_it(session: Session, kernel: Kernel) -> None:
    make_directories(session, "a/b")
    kernel.write_file("a/b/c", b"removed")
    session.fs.policy.trash.minimal_age_ns = 0  # type: ignore[attr-defined]
    run_inline(session.fs.group.durable())
    kernel.unlink("a/b/c")
    run_inline(session.fs.group.durable())
    lock(session, "a")
    refused(lambda: run_inline(undelete.undelete(session.fs, b"a/b/c", 0, 1 << 62)))
    unlock(session, "a")
    assert run_inline(undelete.undelete(session.fs, b"a/b/c", 0, 1 << 62)).files == 1


def test_the_rules_of_what_is_locked_stay(session: Session, kernel: Kernel) -> None:
    make_repository(session, "libs", None, Rules(exclude=("*.exe",)))
    kernel.mkdir("plain")
    lock(session, "libs", "plain")
    fs = session.fs
    refused(lambda: run_inline(verbs.change(fs, b"libs", settings=verbs.Settings(rules={"exclude": []}))))
    refused(lambda: run_inline(verbs.create(fs, b"plain", verbs.RepositoryKind.LOCAL)))
    refused(lambda: run_inline(verbs.rename(fs, b"libs", b"other")))
    refused(lambda: run_inline(verbs.remove(fs, [b"libs"])))
    refused(lambda: run_inline(undelete.change_rule(fs, b"libs", 0, None)))
    run_inline(verbs.create(fs, b"others", verbs.RepositoryKind.LOCAL))
    unlock(session, "libs")
    run_inline(verbs.remove(fs, [b"libs"]))


def test_a_rule_and_a_lock_hold_together(session: Session, kernel: Kernel) -> None:
    make_repository(session, "libs", None, Rules(exclude=("*.exe",)))
    make_directories(session, "libs/a")
    lock(session, "libs/a")
    refused(kernel.write_file, "libs/a/new", b"")
    refused(kernel.write_file, "libs/new.exe", b"", number=errno.EACCES)
    make_repository(session, "others")
    refused(kernel.write_file, "libs/a/new", b"")
    unlock(session, "libs/a")
    kernel.write_file("libs/a/new", b"")
    refused(kernel.write_file, "libs/new.exe", b"", number=errno.EACCES)


def test_through_views_and_virtual_repositories_it_is_refused(session: Session, kernel: Kernel) -> None:
    make_repository(session, "libs")
    make_directories(session, f"libs/{os.path.dirname(JAR)}")
    kernel.write_file(f"libs/{JAR}", b"jar")
    make_tree(session, "all", "virtual", ["libs"], deploy="libs")
    make_tree(session, "ivy", "view", ["libs"], "ivy-default")
    [ivy] = files(kernel, "ivy")
    seen = [f"all/{JAR}", f"ivy/{ivy}"]
    lock(session, "libs")
    before = state(session, "libs")
    for path in seen:
        refused(kernel.unlink, path)
        refused(kernel.open, path, os.O_WRONLY)
        refused(kernel.chmod, path, 0o600)
        refused(kernel.rename, path, f"{path}.new")
        refused(kernel.write_file, f"{os.path.dirname(path)}/new", b"")
    refused(kernel.write_file, "all/org/acme/app/1.0/app-1.0-sources.jar", b"")
    refused(kernel.mkdir, "all/new")
    assert state(session, "libs") == before
    refused(lambda: lock(session, "all"), number=errno.EINVAL)


# Writers


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
@pytest.mark.parametrize("name", ["a/file", "b/hard"])
def test_what_is_being_written_is_not_locked(
    session: Session, kernel: Kernel, flags: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "WAIT_SECONDS", 0.0)
    make_directories(session, "a")
    make_directories(session, "b")
    kernel.write_file("a/file", b"1")
    kernel.link("a/file", "b/hard")
    with kernel.open(name, flags):
        refused(lambda: lock(session, "b", "a"), number=errno.EBUSY)
        refused(lambda: lock(session, "a/file"), number=errno.EBUSY)
        refused(lambda: lock(session, "/"), number=errno.EBUSY)
        assert not locks_of(session.fs)
    with kernel.open(name):
        lock(session, "a")
    refused(kernel.open, name, flags)


def test_content_that_was_just_written_is_kept(session: Session, kernel: Kernel, scratch: Path) -> None:
    make_directories(session, "a")
    kernel.write_file("a/file", b"1" * 300_000)
    kernel.write_file("a/file", b"2" * 300_000)
    lock(session, "a")
    session.crash(scratch / "copy")
    session.rest()
    assert session.kernel.read_file("a/file") == b"2" * 300_000


# Locking


def test_the_whole_store_is_locked_but_for_its_trash(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", b"file")
    kernel.write_file("gone", b"gone")
    session.fs.policy.trash.minimal_age_ns = 0  # type: ignore[attr-defined]
    run_inline(session.fs.group.durable())
    kernel.unlink("gone")
    run_inline(session.fs.group.durable())
    lock(session, "/")
    refused(kernel.unlink, "file")
    refused(kernel.mkdir, "new")
    refused(kernel.chmod, "", 0o700)
    refused(lambda: lock(session, "/.casfs"), number=errno.EINVAL)
    assert run_inline(undelete.expire(session.fs, 1 << 62, 0)).files == 1
    unlock(session, "/")
    kernel.mkdir("new")


def test_locks_are_removed_by_the_paths_that_have_them(tree: Session) -> None:
    lock(tree, "top/locked/deep", reason="inner")
    with pytest.raises(FsError, match="it is locked by the lock on top/locked"):
        unlock(tree, "top/locked/file")
    with pytest.raises(FsError, match="it is not locked"):
        unlock(tree, "out")
    with pytest.raises(FsError, match="No such file"):
        unlock(tree, "absent")
    unlock(tree, "top/locked")
    tree.kernel.unlink("top/locked/file")
    with pytest.raises(FsError, match=r"top/locked/deep is locked \(inner\)"):
        tree.kernel.unlink("top/locked/deep/two")


def test_of_several_paths_all_are_locked_or_none(tree: Session) -> None:
    with pytest.raises(FsError, match="absent"):
        lock(tree, "out", "absent")
    tree.kernel.unlink("out/other")


def test_a_store_without_locks_asks_nothing(session: Session, kernel: Kernel) -> None:
    policy = policy_of(session.fs)
    assert policy.check_write == policy.trash.check_write
    kernel.mkdir("a")
    lock(session, "a")
    assert policy.check_write != policy.trash.check_write
    unlock(session, "a")
    assert policy.check_write == policy.trash.check_write


def test_a_file_gets_no_more_names_than_can_be_looked_at(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casfs.repositories.locks.LINKS", 2)
    kernel.mkdir("a")
    lock(session, "a")
    kernel.write_file("file", b"")
    kernel.link("file", "second")
    refused(kernel.link, "file", "third", number=errno.EMLINK)


def test_properties_of_what_is_locked_stay(tree: Session) -> None:
    from casfs.control.messages import ActOn, Target

    tree.stop()
    for path in ("/top/locked/file", "/out/hard", "/top/locked"):
        operation: Operation[Any] = ActOn(SetProperties({"qa": ["passed"]}), [Target(path)])
        with pytest.raises((OSError, CasfsError), match="is locked"):
            perform(str(tree.path), operation)
    tree.start()


# All that programs may do, in any order

PATHS = [f"{place}{name}" for place in ("", "a/", "a/b/", "c/", "c/d/") for name in ("x", "y")]
FOLDERS = ["a", "a/b", "c", "c/d"]
EVERYTHING = [*PATHS, *FOLDERS]

STEP = st.one_of(
    st.tuples(st.just("write_file"), st.sampled_from(PATHS), st.just(b"new")),
    st.tuples(st.just("mkdir"), st.sampled_from(EVERYTHING)),
    st.tuples(st.sampled_from(["unlink", "rmdir"]), st.sampled_from(EVERYTHING)),
    st.tuples(
        st.just("rename"),
        st.sampled_from(EVERYTHING),
        st.sampled_from(EVERYTHING),
        st.sampled_from([0, 1, 2]),
    ),
    st.tuples(st.just("link"), st.sampled_from(PATHS), st.sampled_from(PATHS)),
    st.tuples(st.just("truncate"), st.sampled_from(PATHS), st.integers(0, 9)),
    st.tuples(st.just("chmod"), st.sampled_from(EVERYTHING), st.sampled_from([0o700, 0o755])),
    st.tuples(st.sampled_from(["lock", "unlock"]), st.sampled_from(EVERYTHING)),
    st.tuples(st.just("reopen")),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, min_size=5, max_size=40))
def test_whatever_is_done_what_is_locked_stays(steps: list[tuple[Any, ...]], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("locks") / "store"
    create_store(str(path))
    session = Session(path)
    for folder in FOLDERS:
        session.kernel.mkdir(folder)
    for name in PATHS[::2]:
        session.kernel.write_file(name, name.encode())
    locked: dict[str, dict[str, Any]] = {}
    for verb, *args in steps:
        with suppress(FsError):
            if verb == "reopen":
                run_inline(session.fs.group.durable())
                session.rest()
                locked = {root: state(session, root) for root in locked}
                session.reopen()
            elif verb == "lock":
                session.rest()
                lock(session, *args)
                locked[args[0]] = state(session, args[0])
            elif verb == "unlock":
                unlock(session, *args)
                del locked[args[0]]
            else:
                getattr(session.kernel, verb)(*args)
        for root, before in locked.items():
            assert state(session, root) == before, (verb, args)
    session.stop()
