"""Whatever programs and commands do to names, the rows that follow from them are those that somebody would
write who walks the whole tree and asks the layouts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from casfs.errors import FsError
from casfs.fs import copy as trees
from casfs.fs.scheduler import run_inline
from casfs.layouts.layout import Layout
from casfs.namespace.artifacts import ArtifactRow
from casfs.namespace.repositories import LayoutRow, RepositoryRow
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.store import create_store
from casfs.trash.undelete import change_rule, undelete
from casfs.types import ROOT_INO
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.session import Session

TOPS = ["r", "s", "plain"]
DIRECTORIES = st.sampled_from(["a", "b"])
FILES = st.sampled_from(["a-1.jar", "b-2.jar", "b-2-x.jar", "b-2.jar.sha1", "notes"])
NAMES = st.one_of(DIRECTORIES, FILES)
PATHS = st.builds(
    lambda top, middle, name: "/".join([top, *middle, name]),
    st.sampled_from(TOPS),
    st.lists(DIRECTORIES, max_size=3),
    NAMES,
)
LAYOUTS = st.sampled_from(["flat", "deep", "deep", "simple-default", None, "gone"])
PATTERNS = st.sampled_from(
    [
        "[org]/[module]-[baseRev](-[classifier]).[ext]",
        "[orgPath]/[module]-[baseRev].[ext]",
        "[orgPath]/[module]-[baseRev](-[classifier]).[ext]",
    ]
)
CONTENTS = st.sampled_from([b"", b"one", b"two"])


class Following(RuleBasedStateMachine):
    """A store with two repositories and a plain directory."""

    template: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.folder))
        copy_store(self.template, self.place / "store")
        self.session = Session(self.place / "store")
        self.crashes = 0
        for top in TOPS:
            self.session.kernel.mkdir(top)
        run_inline(change_rule(self.session.fs, b"", None, None, 0))  # what is removed at once is kept too
        self.set_layout("flat", "[org]/[module]-[baseRev].[ext]")
        self.set_layout("deep", "[orgPath]/[module]-[baseRev].[ext]")
        for path in ("r/a/a-1.jar", "r/a/b/b-2.jar", "s/a/b/b-2-x.jar", "s/b/a-1.jar", "plain/a/b/a-1.jar"):
            self.fill(path, path.encode())
        for top, layout in (("r", "flat"), ("s", "deep")):
            self.set_repository(self.session.kernel.inode(top).ino, layout)
        self.kernel.sync()

    # Machinery

    @property
    def kernel(self) -> Any:
        return self.session.kernel

    def verb(self, coroutine: Coroutine[Any, Any, object]) -> None:
        with suppress(FsError):
            run_inline(coroutine)

    def call(self, call: Callable[..., object], *args: Any) -> None:
        with suppress(FsError):
            call(*args)

    def tops(self) -> list[int]:
        return [row[2] for row in self.session.fs.listing.names(ROOT_INO, 2, 100)]

    def change(self, change: Callable[[], object], inos: list[int]) -> None:
        """Of the rows of repositories and layouts, as commands do it."""
        run_inline(self.session.fs.group.begin())
        change()
        self.session.fs.group.count()
        registry_of(self.session.fs).read()
        for ino in inos:
            follower_of(self.session.fs).follow(ino)

    def set_repository(self, ino: int, layout: str | None) -> None:
        row = RepositoryRow(ino, "local", layout, None, "{}")
        self.change(lambda: self.session.store.namespace.repositories.set(row), [ino])

    def set_layout(self, name: str, pattern: str) -> None:
        row = LayoutRow(name, f"[layout.{name}]\nartifact = '{pattern}'\n")
        rows = self.session.store.namespace.repositories
        users = [repository.ino for repository in rows.all() if repository.layout == name]
        self.change(lambda: rows.set_layout(row), users)

    def pick(self, data: st.DataObject, *, files: bool = True, directories: bool = True) -> str:
        """A path below the top-level directories of something that is there, if there is anything."""
        known = sorted(
            path
            for path, _, inode in self.walk()
            if "/" in path and ((directories and inode.is_directory) or (files and inode.is_regular))
        )
        return data.draw(st.sampled_from(known) if known else PATHS)

    def fill(self, path: str, content: bytes) -> None:
        """Write a file, and make the directories that lead to it."""
        parts = path.split("/")
        for end in range(2, len(parts)):
            self.call(self.kernel.mkdir, "/".join(parts[:end]))
        self.rewrite(path, content)

    def rewrite(self, path: str, content: bytes) -> None:
        with suppress(FsError):
            if not self.kernel.inode(path, follow=False).is_regular:
                return
        self.call(self.kernel.write_file, path, content)

    # What there should be, and what there is

    def walk(self) -> Iterator[tuple[str, int, Any]]:
        """(path, directory, inode) of everything below the root."""
        pending = [("", ROOT_INO)]
        while pending:
            prefix, directory = pending.pop()
            for _, name, inode in list(self.session.fs.listing.list(directory, 2)):
                path = prefix + os.fsdecode(name)
                yield path, directory, inode
                if inode.is_directory:
                    pending.append((f"{path}/", inode.ino))

    def expected(self) -> set[ArtifactRow]:
        registry = registry_of(self.session.fs)
        layouts: dict[str, tuple[int, Layout]] = {}
        for path, directory, inode in self.walk():
            if directory == ROOT_INO and inode.ino in registry.repositories:
                layout = registry.repositories[inode.ino].layout
                if layout is not None:
                    layouts[path] = inode.ino, layout
        rows = set()
        for path, directory, inode in self.walk():
            top, _, within = path.partition("/")
            if not inode.is_regular or not within or top not in layouts:
                continue
            ino, layout = layouts[top]
            found = layout.parse(within.encode())
            if found is None:
                continue
            rows.add(
                ArtifactRow(
                    parent=directory,
                    name=within.rpartition("/")[2].encode(),
                    repository=ino,
                    organisation=found.org,
                    module=found.module,
                    revision=found.revision,
                    base=found.base_revision,
                    integration=found.file_integration or found.folder_integration,
                    snapshot=found.integration,
                    classifier=found.classifier,
                    extension=found.extension,
                    type=found.type or found.extension,
                    companion=found.companion,
                    tokens=json.dumps(dict(found.further)),
                )
            )
        return rows

    def rows(self) -> set[ArtifactRow]:
        return {ArtifactRow(*row) for row in self.session.store.namespace.query("SELECT * FROM artifact")}

    @rule()
    def check(self) -> None:
        """When everything is followed."""
        run_inline(follower_of(self.session.fs).drain())
        rows, expected = self.rows(), self.expected()
        assert rows == expected, f"not there: {expected - rows}; not to be there: {rows - expected}"

    # Names

    @rule(path=PATHS, content=CONTENTS)
    def write(self, path: str, content: bytes) -> None:
        self.fill(path, content)

    @rule(data=st.data(), content=CONTENTS)
    def write_again(self, data: st.DataObject, content: bytes) -> None:
        self.rewrite(self.pick(data, directories=False), content)

    @rule(data=st.data(), name=DIRECTORIES)
    def mkdir(self, data: st.DataObject, name: str) -> None:
        self.call(self.kernel.mkdir, f"{self.pick(data, files=False)}/{name}")

    @rule(data=st.data(), name=FILES)
    def link(self, data: st.DataObject, name: str) -> None:
        source, directory = self.pick(data, directories=False), self.pick(data, files=False)
        self.call(self.kernel.link, source, f"{directory}/{name}")

    @rule(path=PATHS)
    def symlink(self, path: str) -> None:
        self.call(self.kernel.symlink, "anywhere", path)

    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        self.call(self.kernel.unlink, self.pick(data, directories=False))

    @rule(data=st.data())
    def rmdir(self, data: st.DataObject) -> None:
        self.call(self.kernel.rmdir, self.pick(data, files=False))

    @rule(data=st.data(), path=PATHS, flags=st.sampled_from([0, 0, 4]))
    def rename(self, data: st.DataObject, path: str, flags: int) -> None:
        self.call(self.kernel.rename, self.pick(data), path, flags)

    @rule(data=st.data(), path=st.sampled_from(["r/a", "s/b", "s/a/b", "plain/b", "r/b/a"]))
    def rename_a_directory(self, data: st.DataObject, path: str) -> None:
        self.call(self.kernel.rename, self.pick(data, files=False), path)

    @rule(data=st.data(), name=DIRECTORIES)
    def rename_in_its_directory(self, data: st.DataObject, name: str) -> None:
        path = self.pick(data, files=False)
        self.call(self.kernel.rename, path, f"{path.rpartition('/')[0]}/{name}")

    @rule(data=st.data(), flags=st.sampled_from([0, 2, 2]))
    def rename_over(self, data: st.DataObject, flags: int) -> None:
        """One of two things that are there, or both of them by RENAME_EXCHANGE."""
        self.call(self.kernel.rename, self.pick(data), self.pick(data), flags)

    @rule(old=st.sampled_from(TOPS), new=st.sampled_from([*TOPS, "other"]), flags=st.sampled_from([1, 2]))
    def rename_a_repository(self, old: str, new: str, flags: int) -> None:
        self.call(self.kernel.rename, old, new, flags)

    # Commands

    @rule(data=st.data(), path=PATHS)
    def cp(self, data: st.DataObject, path: str) -> None:
        self.verb(trees.copy(self.session.fs, self.pick(data).encode(), path.encode(), recursive=True))

    @rule(data=st.data())
    def cp_into(self, data: st.DataObject) -> None:
        source, target = self.pick(data), self.pick(data, files=False)
        self.verb(trees.copy(self.session.fs, source.encode(), target.encode(), recursive=True))

    @rule(data=st.data(), path=PATHS)
    def mv(self, data: st.DataObject, path: str) -> None:
        self.verb(trees.move(self.session.fs, self.pick(data).encode(), path.encode()))

    @rule(path=st.one_of(PATHS, st.sampled_from(TOPS)))
    def undelete(self, path: str) -> None:
        self.verb(undelete(self.session.fs, path.encode(), 0, 1 << 62))

    @rule(data=st.data(), layout=LAYOUTS, drained=st.booleans())
    def set_a_layout(self, data: st.DataObject, layout: str | None, drained: bool) -> None:
        ino = data.draw(st.sampled_from(self.tops()))
        if drained:  # or a fault of before would be mended by this
            self.check()
        if layout == "gone":  # it is a plain directory from now on
            self.change(lambda: self.session.store.namespace.repositories.remove(ino), [ino])
        else:
            self.set_repository(ino, layout)

    @rule(name=st.sampled_from(["flat", "deep"]), pattern=PATTERNS, drained=st.booleans())
    def change_a_layout(self, name: str, pattern: str, drained: bool) -> None:
        if drained:
            self.check()
        self.set_layout(name, pattern)

    # The store

    @rule(limit=st.integers(1, 3))
    def follow_a_little(self, limit: int) -> None:
        run_inline(self.session.fs.group.begin())
        follower_of(self.session.fs).flush(limit)
        follower_of(self.session.fs).follow_names(limit)
        follower_of(self.session.fs).step(limit)

    @rule()
    def commit(self) -> None:
        self.kernel.sync()

    @rule()
    def rest(self) -> None:
        self.session.rest()

    @rule()
    def check_again(self) -> None:
        self.check()

    @rule()
    def reopen(self) -> None:
        self.session.reopen()

    @rule(synced=st.booleans())
    def crash(self, synced: bool) -> None:
        if synced:
            self.kernel.sync()
        self.crashes += 1
        self.session.crash(self.place / f"after-{self.crashes}")

    def teardown(self) -> None:
        try:
            self.check()
            self.session.stop()
            assert_clean(self.session.path, strays=bool(self.crashes))
        finally:
            if self.session.running:
                self.session.abandon()
            shutil.rmtree(self.place)


EXAMPLES = int(os.environ.get("CASFS_EXAMPLES", "100"))


def test_rows_are_what_the_tree_says(scratch: Path) -> None:
    template = scratch / "template"
    create_store(str(template), fan_out=1)

    class Machine(Following):
        pass

    Machine.template, Machine.folder = template, scratch
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, suppress_health_check=list(HealthCheck)
        ),
    )
