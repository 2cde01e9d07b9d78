"""Whatever happens to names, what views and virtual repositories show is what is computed from scratch."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from casfs.fs.copy import copy
from casfs.fs.scheduler import run_inline
from casfs.store import create_store
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.repositories.making import make_directories, make_repository
from tests.repositories.reference import assert_trees
from tests.repositories.test_derived import make_tree
from tests.session import Session

TREES = ("ivy", "all", "gradle")
LOCALS = ("libs", "more", "plain")
DIRECTORIES = ("o", "o/m", "o/m/1", "o/m/1", "o/m/1/jars", "o/n/1")
NAMES = ("m-1.jar", "m-1.jar", "m-1-sources.jar", "m-1.pom", "ivy-1.xml", "1")

TOPS = st.sampled_from((*LOCALS, *TREES, *LOCALS))
PLACES = st.sampled_from(DIRECTORIES)
FILES = st.builds(lambda top, place, name: f"{top}/{place}/{name}", TOPS, PLACES, st.sampled_from(NAMES))
FOLDERS = st.builds(lambda top, place: f"{top}/{place}", TOPS, PLACES)
LOCAL_FOLDERS = st.builds(lambda top, place: f"{top}/{place}", st.sampled_from(LOCALS), PLACES)


class Trees(RuleBasedStateMachine):
    """Two Maven repositories and one without a layout; a view, a virtual repository, a view of that one."""

    template: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.folder))
        copy_store(self.template, self.place / "store")
        self.session = Session(self.place / "store")
        self.copies = 0

    @property
    def kernel(self) -> Any:
        return self.session.kernel

    def try_to(self, verb: Callable[..., object], *words: object) -> None:
        """Whether it may is not what this is about."""
        with contextlib.suppress(OSError):
            verb(*words)

    @rule(path=FILES, content=st.binary(max_size=3))
    def write(self, path: str, content: bytes) -> None:
        self.mkdir(path.rpartition("/")[0])
        self.try_to(self.kernel.write_file, path, content)

    @rule(path=FOLDERS)
    def mkdir(self, path: str) -> None:
        with contextlib.suppress(OSError):
            make_directories(self.session, path)

    @rule(path=FILES)
    def unlink(self, path: str) -> None:
        self.try_to(self.kernel.unlink, path)

    @rule(path=FOLDERS)
    def rmdir(self, path: str) -> None:
        self.try_to(self.kernel.rmdir, path)

    @rule(path=FILES, other=FILES)
    def rename(self, path: str, other: str) -> None:
        self.try_to(self.kernel.rename, path, other)

    @rule(path=FILES, other=FILES)
    def link(self, path: str, other: str) -> None:
        self.try_to(self.kernel.link, path, other)

    @rule(path=FOLDERS, other=FOLDERS)
    def rename_directory(self, path: str, other: str) -> None:
        self.try_to(self.kernel.rename, path, other)

    @rule(path=LOCAL_FOLDERS, other=LOCAL_FOLDERS)
    def copy_directory(self, path: str, other: str) -> None:
        with contextlib.suppress(OSError):
            run_inline(copy(self.session.fs, path.encode(), other.encode(), recursive=True))

    @rule(path=LOCAL_FOLDERS, mode=st.sampled_from([0o700, 0o755]))
    def chmod(self, path: str, mode: int) -> None:
        self.try_to(self.kernel.chmod, path, mode)

    @rule(tree=st.sampled_from(TREES), mode=st.sampled_from([0o700, 0o755]))
    def chmod_tree(self, tree: str, mode: int) -> None:
        self.kernel.chmod(tree, mode)

    @rule(layout=st.sampled_from([None, "maven-2-default", "gradle-default"]))
    def set_layout(self, layout: str | None) -> None:
        make_repository(self.session, "more", layout)

    @rule(members=st.permutations(LOCALS), count=st.integers(1, 3))
    def set_members(self, members: list[str], count: int) -> None:
        make_tree(self.session, "all", "virtual", members[:count], deploy=members[0])

    @rule(names=st.permutations(LOCALS))
    def swap_repositories(self, names: list[str]) -> None:
        """A repository is its directory, however that is called."""
        self.kernel.rename(names[0], names[1], 2)

    @rule()
    def commit(self) -> None:
        self.kernel.sync()

    @rule()
    def reopen(self) -> None:
        self.session.reopen()

    @rule()
    def crash(self) -> None:
        self.copies += 1
        self.session.crash(self.place / f"copy{self.copies}")

    @rule()
    def compare(self) -> None:
        assert_trees(self.session)

    def teardown(self) -> None:
        try:
            self.compare()
        finally:
            self.session.stop()
        assert_clean(self.session.path, strays=bool(self.copies))


@pytest.fixture
def template(scratch: Path) -> Path:
    create_store(str(scratch / "template"))
    session = Session(scratch / "template")
    for name in LOCALS:
        make_repository(session, name, None if name == "plain" else "maven-2-default")
    make_tree(session, "ivy", "view", ["libs"], "ivy-default")
    make_tree(session, "all", "virtual", ["more", "plain", "libs"], deploy="more")
    make_tree(session, "gradle", "view", ["all"], "gradle-default")
    session.stop()
    return scratch / "template"


def test_derived_trees_are_what_is_computed_from_scratch(template: Path, scratch: Path) -> None:
    Trees.template = template
    Trees.folder = scratch
    run_state_machine_as_test(
        Trees,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
