"""Whatever programs do, casfs answers as the machine's own file system does: same results, errnos, tree.

The model is a real directory. Stores are remounted, and lost to simulated crashes, in between.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from casfs.store import create_store
from tests.disk import Disk, DiskFile
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.kernel import OpenFile
from tests.limits import TIGHT, set_limits
from tests.session import Session

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"\xff\n"])
PATHS = st.one_of(NAMES, NAMES, st.lists(NAMES, min_size=2, max_size=3).map(b"/".join))
OFFSETS = st.one_of(st.integers(0, 200), st.sampled_from([255, 256, 4095, 4096, 262143, 262144, 300000]))
SIZES = st.one_of(st.just(0), st.integers(0, 200), st.sampled_from([1, 4096, 262144, 262145, 400000]))
SOME_SIZES = st.sampled_from([1, 100, 4096, 262144])
DATA = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 2), SOME_SIZES),
)
MODES = st.one_of(st.sampled_from([0o644, 0o755, 0o400]), st.integers(0, 0o7777))
TIMES = st.integers(0, 2**31 * 10**9)
ATTRIBUTES = st.sampled_from([b"user.x", b"user.longer name", b"user.\xff"])
FLAGS = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_WRONLY,
        os.O_RDWR,
        os.O_RDWR | os.O_CREAT,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        os.O_RDWR | os.O_TRUNC,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    ]
)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), DATA, OFFSETS),
        st.tuples(st.just("write"), DATA, st.just(0)),
        st.tuples(st.just("truncate"), SIZES),
        st.tuples(st.sampled_from(["fsync", "flush"])),
    ),
    min_size=1,
    max_size=8,
)
"""What a program does with a file between open and close."""


class Both(RuleBasedStateMachine):
    """The same call on a store and on a directory."""

    template: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.folder))
        copy_store(self.template, self.place / "store")
        (self.place / "model").mkdir()
        self.started = time.time_ns()
        self.disk = Disk(str(self.place / "model"))
        self.session = Session(self.place / "store")
        self.open: list[tuple[OpenFile, DiskFile]] = []
        self.used: set[int] = set()
        self.crashes = 0

    # Machinery

    @property
    def kernel(self) -> Any:
        return self.session.kernel

    def both(self, name: str, *args: Any) -> Any:
        """Make the same call on both sides, which must come to the same end."""
        return self.same(f"{name}{args}", lambda side: getattr(side, name)(*args), self.kernel, self.disk)

    def same(self, what: str, call: Callable[[Any], Any], ours: Any, theirs: Any) -> Any:
        expected, number = _outcome(call, theirs)
        found, got = _outcome(call, ours)
        assert got == number, f"{what}: {_name(got)}, the model says {_name(number)}"
        if isinstance(expected, DiskFile):
            return found, expected
        assert found == expected, f"{what}: {found!r}, the model says {expected!r}"
        return found

    def pick(self, data: st.DataObject, label: str) -> bytes:
        """A path: mostly one that is there."""
        known = sorted(self.disk.tree())
        paths = st.one_of(st.sampled_from(known), PATHS) if known else PATHS
        return data.draw(paths, label=label)

    def compare(self) -> None:
        """The whole trees."""
        ours, theirs = self.kernel.tree(), self.disk.tree()
        assert ours.keys() == theirs.keys()
        groups: dict[int, int] = {}
        for path, found in ours.items():
            model = theirs[path]
            for aspect in ("mode", "nlink", "content", "xattrs"):
                got, expected = getattr(found, aspect), getattr(model, aspect)
                assert got == expected, f"{aspect} of {path!r} is {got!r}, the model says {expected!r}"
            if not stat.S_ISDIR(found.mode):
                assert found.size == model.size, path
            if model.mtime < self.started:
                assert found.mtime == model.mtime, f"mtime of {path!r}"
            else:
                assert found.mtime >= self.started, f"mtime of {path!r} did not move"
            assert groups.setdefault(found.ino, model.ino) == model.ino, f"links of {path!r}"
        assert len(set(groups.values())) == len(groups)

    def close_all(self, data: st.DataObject | None = None) -> None:
        while self.open:
            ours, theirs = self.open.pop()
            ours.close()
            theirs.close()

    # Names

    @rule(path=PATHS, mode=MODES)
    def mkdir(self, path: bytes, mode: int) -> None:
        self.both("mkdir", path, mode)

    @rule(data=st.data(), content=PATHS)
    def symlink(self, data: st.DataObject, content: bytes) -> None:
        self.both("symlink", content, self.pick(data, "path"))

    @rule(data=st.data())
    def link(self, data: st.DataObject) -> None:
        self.both("link", self.pick(data, "source"), self.pick(data, "target"))

    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        self.both("unlink", self.pick(data, "path"))

    @rule(data=st.data())
    def rmdir(self, data: st.DataObject) -> None:
        self.both("rmdir", self.pick(data, "path"))

    @rule(data=st.data(), flags=st.sampled_from([0, 0, 1, 2]))
    def rename(self, data: st.DataObject, flags: int) -> None:
        self.both("rename", self.pick(data, "source"), self.pick(data, "target"), flags)

    @rule(data=st.data())
    def readlink(self, data: st.DataObject) -> None:
        self.both("readlink", self.pick(data, "path"))

    @rule(data=st.data())
    def names(self, data: st.DataObject) -> None:
        self.both("names", self.pick(data, "path"))

    # Attributes

    @rule(data=st.data(), mode=MODES)
    def chmod(self, data: st.DataObject, mode: int) -> None:
        self.both("chmod", self.pick(data, "path"), mode)

    @rule(data=st.data(), atime=TIMES, mtime=TIMES)
    def utime(self, data: st.DataObject, atime: int, mtime: int) -> None:
        self.both("utime", self.pick(data, "path"), atime, mtime)

    @rule(data=st.data(), size=SIZES)
    def truncate(self, data: st.DataObject, size: int) -> None:
        self.both("truncate", self.pick(data, "path"), size)

    @rule(data=st.data(), name=ATTRIBUTES, value=st.binary(max_size=20))
    def setxattr(self, data: st.DataObject, name: bytes, value: bytes) -> None:
        self.both("setxattr", self.pick(data, "path"), name, value)

    @rule(data=st.data(), name=ATTRIBUTES)
    def getxattr(self, data: st.DataObject, name: bytes) -> None:
        self.both("getxattr", self.pick(data, "path"), name)

    @rule(data=st.data(), name=ATTRIBUTES)
    def removexattr(self, data: st.DataObject, name: bytes) -> None:
        self.both("removexattr", self.pick(data, "path"), name)

    # Files

    @rule(data=st.data(), flags=FLAGS, mode=st.sampled_from([0o644, 0o600]))
    def open_file(self, data: st.DataObject, flags: int, mode: int) -> None:
        opened = self.both("open", self.pick(data, "path"), flags, mode)
        if opened is not None:
            self.open.append(opened)

    @rule(data=st.data(), flags=FLAGS, steps=STEPS)
    def use_another_file(self, data: st.DataObject, flags: int, steps: list[tuple[Any, ...]]) -> None:
        """Twice, because it is what programs do most."""
        self.use_file(data, flags, steps)

    @rule(data=st.data(), flags=FLAGS, steps=STEPS)
    def use_file(self, data: st.DataObject, flags: int, steps: list[tuple[Any, ...]]) -> None:
        flags |= os.O_CREAT
        path = data.draw(st.one_of(PATHS, PATHS, st.just(self.pick(data, "known"))), label="path")
        opened = self.both("open", path, flags, 0o644)
        if opened is None:
            return
        for name, *arguments in steps:
            self.same(name, lambda file, n=name, a=arguments: getattr(file, n)(*a), *opened)
        if opened[0].readable:
            self.same("read", lambda file: file.read(1 << 20, 0), *opened)
        self.same("close", lambda file: file.close(), *opened)

    def handle(self, data: st.DataObject) -> tuple[OpenFile, DiskFile]:
        return self.open[data.draw(st.integers(0, len(self.open) - 1), label="handle")]

    @precondition(lambda self: self.open)
    @rule(data=st.data(), offset=OFFSETS, content=DATA)
    def write(self, data: st.DataObject, offset: int, content: bytes) -> None:
        self.same("write", lambda file: file.write(content, offset), *self.handle(data))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), offset=OFFSETS, size=SIZES)
    def read(self, data: st.DataObject, offset: int, size: int) -> None:
        ours, theirs = self.handle(data)
        if ours.readable:
            self.same("read", lambda file: file.read(size, offset), ours, theirs)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), size=SIZES)
    def ftruncate(self, data: st.DataObject, size: int) -> None:
        self.same("ftruncate", lambda file: file.truncate(size), *self.handle(data))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fsync(self, data: st.DataObject) -> None:
        self.same("fsync", lambda file: file.fsync(), *self.handle(data))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        self.same("flush", lambda file: file.flush(), *self.handle(data))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        opened = self.handle(data)
        self.open.remove(opened)
        self.same("close", lambda file: file.close(), *opened)

    # The store

    @rule()
    def commit(self) -> None:
        self.kernel.sync()

    @rule()
    def rest(self) -> None:
        """Everything has been quiet for so long that it is sealed."""
        self.session.rest()
        self.compare()

    @rule(closed=st.booleans())
    def remount(self, closed: bool) -> None:
        """Nothing is lost, even when the mount ends below open files."""
        if closed:
            self.close_all()
        before = self.kernel.tree()
        self.used.update(entry.ino for entry in before.values())
        for _, theirs in self.open:
            theirs.close()
        self.open.clear()
        after = self.session.reopen().tree()
        assert after == before
        self.compare()

    @rule()
    def crash(self) -> None:
        """What was synced is there after the process has died without a word."""
        for ours, theirs in self.open:
            ours.fsync()
            theirs.close()
        self.open.clear()
        self.kernel.sync()
        before = self.kernel.tree()
        self.used.update(entry.ino for entry in before.values())
        self.crashes += 1
        self.session.crash(self.place / f"after-{self.crashes}")
        assert self.kernel.tree() == before
        self.compare()

    @rule(path=PATHS)
    def make_what_has_a_new_number(self, path: bytes) -> None:
        """I7: nothing gets an inode number that was another's before the last start."""
        there = path in self.disk.tree()
        self.both("mkdir", path, 0o755)
        if not there and path in self.disk.tree():
            assert self.kernel.inode(path, follow=False).ino not in self.used

    def teardown(self) -> None:
        try:
            self.compare()
            self.close_all()
            self.compare()
            self.session.stop()
            assert_clean(self.session.path, strays=bool(self.crashes))
        finally:
            if self.session.running:
                self.session.abandon()
            self.disk.end()
            shutil.rmtree(self.place)


def explore(place: Path, examples: int) -> None:
    template = place / "template"
    create_store(str(template), fan_out=1)

    class Machine(Both):
        pass

    Machine.template, Machine.folder = template, place
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, suppress_health_check=list(HealthCheck)
        ),
    )


EXAMPLES = int(os.environ.get("CASFS_EXAMPLES", "100"))


@pytest.mark.parametrize("limits", [{}, TIGHT], ids=["default", "tight"])
def test_casfs_behaves_as_a_file_system_in_memory(
    limits: dict[str, float], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, **limits)
    explore(scratch, EXAMPLES)


def test_casfs_behaves_as_the_disk(tmp_path: Path) -> None:
    explore(tmp_path, EXAMPLES // 8)


def _outcome(call: Callable[[Any], Any], side: Any) -> tuple[Any, int]:
    try:
        return call(side), 0
    except OSError as error:
        return None, error.errno or errno.EIO


def _name(number: int) -> str:
    return errno.errorcode.get(number, "success")
