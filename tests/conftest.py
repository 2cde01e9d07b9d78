"""Fixtures for tests that have a store. Whoever uses one leaves it consistent, or the test fails."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from apsw import SQLITE_TXN_NONE
from hypothesis import Phase, settings

from casfs.fs.filesystem import FileSystem
from casfs.namespace.namespace import Namespace
from casfs.store import create_store
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.session import Session

# Here: tests/fuzz has some of them too, and comes first.
pytest.register_assert_rewrite(
    "tests.mounted.mounts", "tests.mounted.load", "tests.mounted.trees", "tests.mounted.sides"
)

MEMORY = "/dev/shm"

QUICK = [Phase.explicit, Phase.generate]
"""To shrink an example of a store takes minutes; HYPOTHESIS_PROFILE=shrink does it."""

settings.register_profile("ci", derandomize=True, deadline=None, database=None, phases=QUICK)
settings.register_profile("search", deadline=None, database=None, phases=QUICK)
settings.register_profile("shrink", derandomize=True, deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_left_half_read() -> Iterator[None]:
    """Who begins a transaction must not be reading still: when another process has written meanwhile, he
    never gets in (SQLITE_BUSY_SNAPSHOT), and alone in the database nobody would notice."""
    begin = Namespace.try_begin

    @functools.wraps(begin)
    def checked(namespace: Namespace, *, repeatable: bool = False) -> bool:
        connection = namespace._connection
        assert connection.in_transaction or connection.txn_state() == SQLITE_TXN_NONE, (
            "a statement is half read"
        )
        return begin(namespace, repeatable=repeatable)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Namespace, "try_begin", checked)
        yield


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in memory where the machine has such a place: no test waits for a disk.

    Tests about what a disk's file system does take `tmp_path`.
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="casfs-test-", dir=MEMORY) as name:
        yield Path(name)


@pytest.fixture
def store_path(scratch: Path) -> Iterator[Path]:
    """An empty store with 16 shards; after the test it has to be consistent."""
    path = scratch / "store"
    create_store(str(path), fan_out=1)
    yield path
    assert_clean(path)


@pytest.fixture
def seals_at_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions seal small files at their close(2), as with a commit interval of 0, not at the next commit."""
    monkeypatch.setattr(Session, "seals_at_close", True)


@pytest.fixture
def session(store_path: Path) -> Iterator[Session]:
    """The store in use; stopped after the test, if the test has not done so."""
    session = Session(store_path)
    yield session
    if session.running:
        session.stop()


@pytest.fixture
def fs(session: Session) -> FileSystem:
    return session.fs


@pytest.fixture
def kernel(session: Session) -> Kernel:
    """System calls on the store in use."""
    return session.kernel
