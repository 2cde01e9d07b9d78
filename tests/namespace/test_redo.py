"""A COMMIT that SQLite rolls back leaves the transaction as it was."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from casfs.namespace.connection import DatabaseError
from casfs.namespace.namespace import Namespace
from tests.full_log import FullLog


@pytest.fixture
def full_log() -> Iterator[FullLog]:
    vfs = FullLog()
    yield vfs
    vfs.unregister()


@pytest.fixture
def filled(full_log: FullLog, database: Path) -> Iterator[Namespace]:
    """A namespace in a transaction that has done what verbs do, a part of it in vain."""
    namespace = Namespace(str(database))
    assert namespace.try_begin(repeatable=True)
    fill(namespace)
    yield namespace
    namespace.close()


def fill(namespace: Namespace) -> None:
    namespace.xattrs.set(1, b"user.kept", b"value")
    with suppress(ZeroDivisionError), namespace.savepoint():
        namespace.xattrs.set(1, b"user.undone", b"value")
        raise ZeroDivisionError
    with namespace.savepoint():
        namespace.xattrs.set(1, b"user.second", bytes(100_000))
    namespace.blobs.insert(bytes(32), 5, 17)
    with suppress(DatabaseError):
        namespace.blobs.insert(bytes(32), 6, 18)


def assert_filled(namespace: Namespace) -> None:
    assert set(namespace.xattrs.of(1)) == {b"user.kept", b"user.second"}
    assert [(row.size, row.refs) for row in namespace.blobs.all()] == [(5, 1)]


@pytest.mark.parametrize("writes", [0, 1, 7])
def test_a_full_disk_in_a_commit_does_not_cost_the_transaction(
    filled: Namespace, full_log: FullLog, database: Path, writes: int
) -> None:
    """The mount only read from then on, and what was acknowledged since the last commit was lost."""
    for _ in range(2):
        full_log.writes_left = writes
        with pytest.raises(OSError, match="full") as raised:
            filled.commit()
        assert raised.value.errno == errno.ENOSPC
        assert filled.in_transaction
        assert_filled(filled)
    assert full_log.refused == 2
    full_log.writes_left = None
    filled.xattrs.set(1, b"user.third", b"")
    filled.xattrs.remove(1, b"user.third")
    filled.commit()
    assert not filled.in_transaction
    reader = Namespace(str(database), readonly=True)
    assert_filled(reader)
    reader.close()
    assert filled.try_begin()


def test_what_another_process_has_committed_meanwhile_ends_it(
    filled: Namespace, full_log: FullLog, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows may contradict those of the transaction."""
    run_again = filled._redo.run_again

    def after_another() -> None:
        full_log.writes_left = None
        other = Namespace(str(database), shared=True)
        assert other.try_begin()
        other.xattrs.set(1, b"user.other", b"value")
        other.commit()
        other.close()
        run_again()

    monkeypatch.setattr(filled._redo, "run_again", after_another)
    full_log.writes_left = 0
    with pytest.raises(OSError, match="full"):
        filled.commit()
    assert not filled.in_transaction
    assert set(filled.xattrs.of(1)) == {b"user.other"}


def test_a_transaction_that_is_not_kept_is_rolled_back(full_log: FullLog, database: Path) -> None:
    namespace = Namespace(str(database))
    assert namespace.try_begin(repeatable=True)
    namespace.commit()
    assert namespace.try_begin()
    fill(namespace)
    full_log.writes_left = 0
    with pytest.raises(OSError, match="full"):
        namespace.commit()
    assert not namespace.in_transaction
    full_log.writes_left = None
    namespace.close()
