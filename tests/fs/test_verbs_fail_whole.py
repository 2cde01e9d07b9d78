"""Whatever a verb meets on its way, a full disk, a broken one, a bug: it has happened wholly or not at all.

Each mutating verb is run on a copy of one store with an error at its n-th call into the namespace or the
filestore, for each n until it comes through. Then everything that is in memory is committed, and the tree is
as before or as after the verb, with every count right.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from casfs.fs import acl, actions, copy
from casfs.fs.attributes import Changes
from casfs.fs.batch import Batch, Target
from casfs.fs.batch import Verb as Action
from casfs.fs.content.files import CAPABILITY
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from casfs.store import create_store
from casfs.trash import undelete
from casfs.types import ROOT_INO
from tests.invariants import assert_clean
from tests.kernel import Kernel, OpenFile
from tests.session import Session

LARGE = bytes(range(256)) * 2_000
"""More than stays in memory, MEMORY_LIMIT."""

ERRORS: dict[str, Callable[[], Exception]] = {
    "a full disk": lambda: OSError(errno.ENOSPC, "injected"),
    "a bug": lambda: AssertionError("injected"),
    "the database": lambda: apsw.IOError("injected"),
}

KINDS = list(ERRORS)

NO_ID = 0xFFFFFFFF

QA = b"user.casfs.prop.qa"

PARTS = ("inodes", "dentries", "blobs", "xattrs", "damage", "trash")
LEFT_OUT = {"rollback", "close", "commit", "query"}

Verb = Callable[[Kernel], object]


class Injector:
    """Fails the call of that number into the parts of a store; -1 for none."""

    def __init__(self, session: Session) -> None:
        self.at = -1
        self.calls = 0
        self.error: Callable[[], Exception] = AssertionError
        self.where = ""
        namespace, filestore = session.store.namespace, session.store.filestore
        for part in (namespace, *(getattr(namespace, name) for name in PARTS)):
            self._watch(part)
        for part in (filestore, filestore.staging, filestore.durable):
            self._watch(part)

    def _watch(self, part: Any) -> None:
        kind = type(part)
        for name in dir(kind):
            method = getattr(kind, name)
            if name.startswith("_") or name in LEFT_OUT or not callable(method) or isinstance(method, type):
                continue
            setattr(part, name, self._wrapped(f"{kind.__name__}.{name}", getattr(part, name)))

    def _wrapped(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "FileStore.promise" and args[0] < 0:  # room that is given back
                return method(*args, **kwargs)
            number = self.calls
            self.calls += 1
            if number == self.at:
                self.where = name
                raise self.error()
            return method(*args, **kwargs)

        return call


def build(path: Path) -> None:
    """A store with something of every kind."""
    create_store(str(path), fan_out=1)
    session = Session(path)
    kernel = session.kernel
    run_inline(undelete.change_rule(session.fs, b"", None, None, 0))
    for name in ("dir", "dir/sub", "empty", "other", "team"):
        kernel.mkdir(name)
    kernel.setxattr("team", acl.DEFAULT, acl_of(6))
    kernel.write_file("small", b"content")
    kernel.write_file("same", b"content")
    kernel.write_file("large", LARGE)
    kernel.write_file("dir/a", b"in a directory")
    kernel.write_file("dir/sub/b", LARGE[:300_000])
    kernel.write_file("victim", b"to be replaced")
    kernel.write_file("setuid", b"#!/bin/sh")
    kernel.write_file("removed", b"for the trash")
    kernel.mkdir("lost")
    kernel.write_file("lost/file", b"for the trash, too")
    kernel.link("small", "linked")
    kernel.link("dir/a", "dir/link")
    kernel.symlink("small", "symlink")
    kernel.setxattr("small", b"user.key", b"value")
    kernel.setxattr("setuid", b"security.capability", b"capable")
    kernel.chmod("setuid", 0o6755)
    kernel.write_file("proper", b"with a property")
    kernel.setxattr("proper", QA, b"passed\nold")
    kernel.setxattr("other", QA, b"of a directory")
    kernel.sync()
    for name in ("removed", "lost/file"):
        kernel.unlink(name)
    kernel.rmdir("lost")
    session.stop()


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casfs.fs.batch.STEP", 2)
    monkeypatch.setattr("casfs.fs.batch.FLUSH", 3)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("built", numbered=True)
    build(place / "store")
    yield place / "store"
    shutil.rmtree(place)


def ino(kernel: Kernel, path: str) -> int:
    return kernel.inode(path, follow=False).ino


def with_file(name: str, flags: int, use: Callable[[OpenFile], object]) -> Verb:
    """Use an open file, and close it whatever happens."""

    def verb(kernel: Kernel) -> None:
        file = kernel.open(name, flags)
        try:
            use(file)
        finally:
            file.close()

    return verb


def copy_range(source: str, target: str, offset: int = 0) -> Verb:
    def verb(kernel: Kernel) -> None:
        with kernel.open(source) as reader, kernel.open(target, os.O_WRONLY | os.O_CREAT) as writer:
            ranges, size = kernel.fs.contents.ranges, reader.stat().size
            run_inline(ranges.copy_range(reader.handle, offset, writer.handle, 0, size, 7))

    return verb


def batch(make: Callable[[FileSystem], Action], *paths: bytes) -> Verb:
    """One thing done to several files."""

    def verb(kernel: Kernel) -> None:
        one = Batch(kernel.fs, make(kernel.fs))
        run_inline(one.look([Target(path) for path in paths]))
        run_inline(one.run())

    return verb


def allocate(mode: int) -> Verb:
    def use(file: OpenFile) -> None:
        run_inline(file._kernel.fs.contents.ranges.allocate(file.handle, 4096, 8192, mode, 7))

    return with_file("large", os.O_RDWR, use)


VERBS: dict[str, Verb] = {
    "create": lambda kernel: kernel.make("new", stat.S_IFREG | 0o644),
    "create and look first": lambda kernel: (
        kernel.fs.tree.lookup(ROOT_INO, b"new"),
        kernel.make("new", stat.S_IFREG | 0o644),
    ),
    "create below a default list": lambda kernel: kernel.make("team/new", stat.S_IFREG | 0o664),
    "mkdir": lambda kernel: kernel.mkdir("new"),
    "mkdir below a default list": lambda kernel: kernel.mkdir("team/new", 0o770),
    "symlink": lambda kernel: kernel.symlink("target", "new"),
    "link": lambda kernel: kernel.link("small", "new"),
    "unlink": lambda kernel: kernel.unlink("victim"),
    "unlink one of two": lambda kernel: kernel.unlink("linked"),
    "rmdir": lambda kernel: kernel.rmdir("empty"),
    "rename": lambda kernel: kernel.rename("small", "new"),
    "rename over": lambda kernel: kernel.rename("large", "victim"),
    "rename a directory": lambda kernel: kernel.rename("dir/sub", "other/sub"),
    "rename over a directory": lambda kernel: kernel.rename("dir/sub", "empty"),
    "exchange": lambda kernel: kernel.rename("dir", "victim", 2),
    "chmod": lambda kernel: kernel.chmod("small", 0o600),
    "chmod below a list": lambda kernel: kernel.chmod("team", 0o700),
    "chmod of the root": lambda kernel: kernel.chmod("", 0o711),
    "chown of the root": lambda kernel: kernel.chown("", 7, 8),
    "set an access list of the root": lambda kernel: kernel.setxattr("", acl.ACCESS, acl_of(5)),
    "remove an access list of the root": lambda kernel: (
        kernel.setxattr("", acl.ACCESS, acl_of(5)),
        kernel.removexattr("", acl.ACCESS),
    ),
    "chown": lambda kernel: kernel.chown("setuid", 7, 8),
    "utime": lambda kernel: kernel.utime("small", 5, 6),
    "truncate": lambda kernel: kernel.truncate("setuid", 3),
    "truncate to nothing": lambda kernel: kernel.truncate("large", 0),
    "truncate a large one": lambda kernel: kernel.truncate("large", 400_000),
    "extend": lambda kernel: kernel.truncate("small", 300_000),
    "open truncating": lambda kernel: kernel.open("large", os.O_WRONLY | os.O_TRUNC).close(),
    "everything at once": lambda kernel: kernel.set(
        kernel.inode("setuid"), Changes(mode=0o100700, uid=7, gid=7, size=2, atime=1, mtime=2)
    ),
    "setxattr": lambda kernel: kernel.setxattr("small", b"user.new", b"value"),
    "setxattr over": lambda kernel: kernel.setxattr("small", b"user.key", b"other"),
    "removexattr": lambda kernel: kernel.removexattr("small", b"user.key"),
    "set a default list": lambda kernel: kernel.setxattr("dir", acl.DEFAULT, acl_of(7)),
    "set an access list": lambda kernel: kernel.setxattr("small", acl.ACCESS, acl_of(7)),
    "write a file": lambda kernel: kernel.write_file("new", b"some content"),
    "write a large file": lambda kernel: kernel.write_file("new", LARGE[5:]),
    "write a known content": lambda kernel: kernel.write_file("new", b"content"),
    "write over": lambda kernel: kernel.write_file("victim", b"new content"),
    "write into": with_file("large", os.O_WRONLY, lambda file: file.write(b"written", 1000)),
    "write into, to be synced": with_file(
        "small", os.O_WRONLY, lambda file: (file.write(b"written"), file.fsync())
    ),
    "write with privileges": with_file("setuid", os.O_WRONLY, lambda file: file.write(b"#!/bin/no")),
    "copy a range to a new file": copy_range("large", "new"),
    "copy a range over": copy_range("small", "victim"),
    "copy a part": copy_range("large", "small", 5),
    "allocate": allocate(0),
    "punch": allocate(3),
    "cp": lambda kernel: run_inline(copy.copy(kernel.fs, b"large", b"new", recursive=False)),
    "cp over": lambda kernel: run_inline(copy.copy(kernel.fs, b"small", b"victim", recursive=False)),
    "cp -r": lambda kernel: run_inline(copy.copy(kernel.fs, b"dir", b"new", recursive=True)),
    "mv": lambda kernel: run_inline(copy.move(kernel.fs, b"dir", b"new")),
    "mv over": lambda kernel: run_inline(copy.move(kernel.fs, b"large", b"victim")),
    "set properties": batch(
        lambda fs: actions.set_properties(fs, {"qa": ["passed", "again"], "key": ["1"]}, recursive=True),
        *(b"small", b"dir", b"large", b"dir/a"),
    ),
    "set properties anew": batch(
        lambda fs: actions.set_properties(fs, {"qa": ["new"]}), b"team", b"proper", b"victim"
    ),
    "set a property": lambda kernel: kernel.setxattr("proper", QA, b"new\nand more"),
    "remove a property": lambda kernel: kernel.removexattr("proper", QA),
    "remove properties": batch(
        lambda fs: actions.remove_properties(fs, ["qa", "none"]), b"proper", b"small", b"other"
    ),
    "rm of many": batch(
        lambda fs: actions.RemoveFiles(fs, 7),
        *(b"small", b"proper", b"linked", b"dir/a", b"large", b"symlink", b"dir/sub/b"),
    ),
    "cp of many": batch(
        lambda fs: actions.CopyInto(fs, b"empty"), b"small", b"proper", b"dir/a", b"large", b"symlink"
    ),
    "mv of many": batch(
        lambda fs: actions.MoveInto(fs, b"dir/sub"), b"small", b"proper", b"dir/a", b"large", b"symlink"
    ),
    "cp of many with their directories": batch(
        lambda fs: actions.CopyInto(fs, b"empty", b"dir"), b"dir/a", b"dir/sub/b"
    ),
    "mv of many with their directories": batch(
        lambda fs: actions.MoveInto(fs, b"empty", b"dir"), b"dir/a", b"dir/sub/b"
    ),
    "undelete": lambda kernel: run_inline(undelete.undelete(kernel.fs, b"removed", 0, 1 << 62)),
    "undelete with its directory": lambda kernel: run_inline(
        undelete.undelete(kernel.fs, b"lost/file", 0, 1 << 62)
    ),
    "empty the trash": lambda kernel: run_inline(undelete.expire(kernel.fs, 1 << 62, 0)),
    "a rule": lambda kernel: run_inline(undelete.change_rule(kernel.fs, b"dir", 3, ["*.o"])),
}

IN_STEPS = {
    "empty the trash",
    "undelete with its directory",
    "copy a range to a new file",
    "write a file",
    "write a large file",
    "write a known content",
    "write over",
    "copy a range over",
    "copy a part",
    "everything at once",
    "remove an access list of the root",
}
"""More than one request, or one that may be half done by its nature: counts and names have to be right."""


def acl_of(permissions: int) -> bytes:
    """A list with a user of its own: owner, that user, group, mask, others (linux/posix_acl.h)."""
    users = {0x01: NO_ID, 0x02: 7, 0x04: NO_ID, 0x10: NO_ID, 0x20: NO_ID}
    return acl.encode([acl.Entry(tag, permissions, user) for tag, user in users.items()])


State = dict[bytes, tuple[Any, ...]]


def state(kernel: Kernel) -> State:
    """The trash's own directories are not listed; their state is that of the root."""
    root = access(kernel, "")
    assert [access(kernel, path) for path in (".casfs", ".casfs/trash")] == [root] * 2
    return {b"/": (*root, {})} | {
        path: (entry.mode, entry.nlink, entry.owner, entry.size, entry.content, entry.xattrs)
        for path, entry in kernel.tree().items()
    }


def access(kernel: Kernel, path: str) -> tuple[Any, ...]:
    inode = kernel.inode(path)
    return inode.mode, inode.uid, inode.gid, dict(kernel.fs.xattrs.all(inode))


def unprivileged(state: State) -> State:
    return {
        path: (int(mode) & ~0o6000, *rest, {key: value for key, value in xattrs.items() if key != CAPABILITY})
        for path, (mode, *rest, xattrs) in state.items()
    }


def run(built: Path, place: Path, verb: Verb, at: int, error: Callable[[], Exception]) -> tuple[Any, ...]:
    """(where it failed, or "" for nowhere, the state before, at once after, and after a mount again)."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(built, place)
    session = Session(place)
    kernel = session.kernel
    before = state(kernel)
    injector = Injector(session)
    injector.at, injector.calls, injector.error = at, 0, error
    failed = False
    try:
        verb(kernel)
    except (OSError, AssertionError, apsw.Error):
        failed = True
    injector.at = -1
    if session.fs.group.failed:
        session.abandon()
        session.start()
        now = state(session.kernel)
    else:
        now = state(kernel)
        kernel._forget()
    session.stop()
    session = Session(place)
    again = state(session.kernel)
    session.stop()
    assert_clean(place)
    return injector.where, failed, before, now, again


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_happens_wholly_or_not_at_all(built: Path, scratch: Path, name: str) -> None:
    place = scratch / "store"
    where, failed, before, after, again = run(built, place, VERBS[name], -1, AssertionError)
    assert (where, failed) == ("", False)
    assert again == after
    for at in range(1000):
        kind = KINDS[(at + len(name)) % len(KINDS)]
        try:
            where, failed, _, now, again = run(built, place, VERBS[name], at, ERRORS[kind])
        except AssertionError as problem:
            problem.add_note(f"{kind} at call {at}")
            raise
        if not where:
            break
        shown = f"{kind} at call {at}, {where}"
        assert now == again, shown
        if name not in IN_STEPS:
            # Set-id bits and capabilities go before anything else, as on any file system.
            assert now in (before, after) or unprivileged(now) == unprivileged(before), shown
    else:
        pytest.fail("it never came through")
