"""Whatever programs and commands do, properties are what a walk through the attributes of all files finds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from casfs import properties
from casfs.errors import FsError
from casfs.fs import actions, copy
from casfs.fs.batch import Batch, Target, Verb
from casfs.fs.scheduler import run_inline
from casfs.store import create_store
from casfs.trash.undelete import change_rule, undelete
from casfs.types import ROOT_INO
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.session import Session

PATHS = st.builds("/".join, st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
KEYS = st.sampled_from(["qa", "stage"])
VALUES = st.lists(st.sampled_from(["", "x", "y", "ä"]), min_size=1, max_size=3)
CONTENTS = st.sampled_from([b"", b"one", b"two"])


class Properties(RuleBasedStateMachine):
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.folder))
        create_store(str(self.place / "store"), fan_out=1)
        self.session = Session(self.place / "store")
        self.crashes = 0
        run_inline(change_rule(self.session.fs, b"", None, None, 0))
        for path in ("a", "b", "a/b"):
            self.kernel.mkdir(path)
        for path in ("a/a", "a/b/c", "c"):
            self.kernel.write_file(path, b"one")

    @property
    def kernel(self) -> Kernel:
        return self.session.kernel

    def call(self, call: Callable[..., object], *args: Any) -> None:
        with suppress(FsError):
            call(*args)

    def verb(self, coroutine: Coroutine[Any, Any, object]) -> None:
        with suppress(FsError):
            run_inline(coroutine)

    def batch(self, make: Callable[[], Verb], paths: list[str]) -> None:
        async def run() -> None:
            one = Batch(self.session.fs, make())
            await one.look([Target(path.encode()) for path in paths])
            await one.run()

        self.verb(run())

    def walk(self, directory: int) -> Iterator[tuple[int, str, str]]:
        for _, _, inode in list(self.session.fs.listing.list(directory, 2)):
            for name, value in self.session.fs.xattrs.all(inode).items():
                yield from ((inode.ino, *found) for found in properties.found_in(name, value))
            if inode.is_directory:
                yield from self.walk(inode.ino)

    @rule()
    def check(self) -> None:
        run_inline(self.session.fs.tree.forget(list(self.session.fs.tree.unlinked)))
        self.kernel.sync()
        found = set(self.walk(ROOT_INO))
        if hidden := self.session.fs.nodes.hidden.get(ROOT_INO):
            found |= set(self.walk(hidden))
        sql = "SELECT ino, key, value FROM property"
        assert set(self.session.store.namespace.query(sql).fetchall()) == found

    # What programs do

    @rule(path=PATHS, key=KEYS, values=VALUES)
    def set(self, path: str, key: str, values: list[str]) -> None:
        name = properties.attribute_of(key)
        self.call(self.kernel.setxattr, path, name, "\n".join(values).encode())

    @rule(path=PATHS, key=KEYS)
    def remove(self, path: str, key: str) -> None:
        self.call(self.kernel.removexattr, path, properties.attribute_of(key))

    @rule(path=PATHS, content=CONTENTS)
    def write(self, path: str, content: bytes) -> None:
        self.call(self.kernel.write_file, path, content)

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.call(self.kernel.mkdir, path)

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.call(self.kernel.unlink, path)

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.call(self.kernel.rmdir, path)

    @rule(path=PATHS, to=PATHS)
    def link(self, path: str, to: str) -> None:
        self.call(self.kernel.link, path, to)

    @rule(path=PATHS, to=PATHS, flags=st.sampled_from([0, 0, 1, 2]))
    def rename(self, path: str, to: str, flags: int) -> None:
        self.call(self.kernel.rename, path, to, flags)

    # What commands do

    @rule(path=PATHS, to=PATHS)
    def cp(self, path: str, to: str) -> None:
        self.verb(copy.copy(self.session.fs, path.encode(), to.encode(), recursive=True))

    @rule(path=PATHS, to=PATHS)
    def mv(self, path: str, to: str) -> None:
        self.verb(copy.move(self.session.fs, path.encode(), to.encode()))

    @rule(path=PATHS)
    def undelete(self, path: str) -> None:
        self.verb(undelete(self.session.fs, path.encode(), 0, 1 << 62))

    @rule(paths=st.lists(PATHS, min_size=1, max_size=3), key=KEYS, values=VALUES, recursive=st.booleans())
    def set_many(self, paths: list[str], key: str, values: list[str], recursive: bool) -> None:
        fs = self.session.fs
        self.batch(lambda: actions.set_properties(fs, {key: values}, recursive=recursive), paths)

    @rule(paths=st.lists(PATHS, min_size=1, max_size=3), key=KEYS, recursive=st.booleans())
    def remove_many(self, paths: list[str], key: str, recursive: bool) -> None:
        self.batch(lambda: actions.remove_properties(self.session.fs, [key], recursive=recursive), paths)

    @rule(paths=st.lists(PATHS, min_size=1, max_size=3, unique=True))
    def rm_many(self, paths: list[str]) -> None:
        self.batch(lambda: actions.RemoveFiles(self.session.fs, 0), paths)

    @rule(paths=st.lists(PATHS, min_size=1, max_size=2, unique=True), to=PATHS)
    def cp_many(self, paths: list[str], to: str) -> None:
        self.batch(lambda: actions.CopyInto(self.session.fs, to.encode()), paths)

    @rule(paths=st.lists(PATHS, min_size=1, max_size=2, unique=True), to=PATHS)
    def mv_many(self, paths: list[str], to: str) -> None:
        self.batch(lambda: actions.MoveInto(self.session.fs, to.encode()), paths)

    # What happens to the mount

    @rule()
    def rest(self) -> None:
        self.session.rest()

    @rule()
    def remount(self) -> None:
        self.session.reopen()
        self.check()

    @rule()
    def crash(self) -> None:
        self.crashes += 1
        self.session.crash(self.place / f"crash{self.crashes}")
        self.check()

    def teardown(self) -> None:
        self.check()
        self.session.stop()
        assert_clean(self.session.path, strays=bool(self.crashes))
        shutil.rmtree(self.place)


def test_properties_are_what_the_attributes_say(scratch: Path) -> None:
    Properties.folder = scratch
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Properties, settings=settings(max_examples=60, stateful_step_count=40, suppress_health_check=checks)
    )
