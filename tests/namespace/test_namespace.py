"""Transactions, the log, and single values."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from casfs.namespace import namespace as module
from casfs.namespace.collecting import Collecting
from casfs.namespace.connection import DatabaseError
from casfs.namespace.digests import DigestRow
from casfs.namespace.namespace import OPERATION_LOG_BYTES, PAGE, Namespace


@pytest.fixture
def other(database: Path) -> Iterator[Namespace]:
    """Another user of the database, as the collector's process is."""
    other = Namespace(str(database))
    yield other
    other.close()


def test_one_writes_at_a_time(namespace: Namespace, other: Namespace) -> None:
    assert namespace.try_begin()
    assert not other.try_begin()
    namespace.set_meta("next_ino", 50)
    assert other.meta("next_ino") == 2
    namespace.commit()
    assert not namespace.in_transaction
    assert other.try_begin()
    assert other.meta("next_ino") == 50
    other.rollback()
    assert not other.in_transaction


def test_a_name_that_was_asked_for_keeps_nobody_from_writing(namespace: Namespace, other: Namespace) -> None:
    """One row was fetched of a statement, which went on reading: once another process had written, the
    daemon of the mount could begin no group before it looked up the next name."""
    assert namespace.try_begin()
    assert namespace.dentries.insert(1, 3, b"a", 10, 8)
    namespace.digests.add([DigestRow(1, "md5", bytes(16))])
    namespace.commit()
    assert namespace.dentries.entry(1, b"b") is None
    assert namespace.dentries.entry(1, b"a") == (3, 10, 8)
    write(other)
    assert namespace.try_begin()
    namespace.commit()
    assert namespace.searches.has_digests("md5")
    write(other)
    assert namespace.try_begin()


def test_a_statement_that_is_half_read_is_told(
    namespace: Namespace, other: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting for the other process does not help, and the log has to say so."""
    statement = iter(namespace.query("SELECT * FROM meta"))
    next(statement)
    write(other)
    assert not Namespace.try_begin.__wrapped__(namespace)  # type: ignore[attr-defined]
    assert "half read" in caplog.text
    list(statement)
    assert namespace.try_begin()


def write(namespace: Namespace) -> None:
    assert namespace.try_begin()
    namespace.set_meta("next_cookie", random.randrange(100, 1000))
    namespace.commit()


def test_rollback_without_a_transaction_is_nothing(namespace: Namespace) -> None:
    namespace.rollback()
    assert namespace.meta("next_ino") == 2


def test_a_transaction_ends_with_the_namespace(database: Path, namespace: Namespace) -> None:
    other = Namespace(str(database))
    assert other.try_begin()
    other.set_meta("next_ino", 50)
    other.close()
    assert namespace.meta("next_ino") == 2
    assert namespace.try_begin()


def test_commit_without_a_transaction_is_an_error(namespace: Namespace) -> None:
    with pytest.raises(DatabaseError):
        namespace.commit()


def test_a_savepoint_is_all_or_nothing(writing: Namespace) -> None:
    writing.set_meta("next_ino", 10)

    def fail() -> None:
        with writing.savepoint():
            writing.set_meta("next_ino", 20)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert writing.meta("next_ino") == 10
    with writing.savepoint():
        writing.set_meta("next_ino", 30)
    assert writing.meta("next_ino") == 30
    assert writing.in_transaction


def test_readonly_sees_commits_and_writes_nothing(database: Path, writing: Namespace) -> None:
    writing.set_meta("next_ino", 99)
    reader = Namespace(str(database), readonly=True)
    assert reader.meta("next_ino") == 2
    writing.commit()
    assert reader.meta("next_ino") == 99
    with pytest.raises(DatabaseError, match="readonly"):
        reader.set_meta("next_ino", 100)
    reader.close()


def test_a_commit_is_in_the_log_at_once(database: Path, writing: Namespace) -> None:
    writing.set_meta("next_ino", 99)
    writing.commit()
    writing.sync_log()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as another_library:
        assert another_library.execute("SELECT value FROM meta WHERE key = 'next_ino'").fetchone() == (99,)


def fill(namespace: Namespace, first: int, count: int) -> None:
    """A transaction of so many rows."""
    assert namespace.try_begin()
    for number in range(first, first + count):
        namespace.xattrs.set(number, b"user.x", bytes(2000))
    namespace.reserve_log(count)


def test_reserved_room_is_enough_for_the_commit(database: Path, namespace: Namespace) -> None:
    log = Path(f"{database}-wal")
    for count in (1, 10, 500, 3000):
        fill(namespace, count * 10_000, count)
        reserved = log.stat().st_blocks * 512
        namespace.commit()
        assert log.stat().st_size <= reserved


def test_reserved_room_is_enough_for_removing_blobs(namespace: Namespace) -> None:
    assert namespace.try_begin()
    blobs = [namespace.blobs.insert(os.urandom(32), 5, 17) for _ in range(12_000)]
    namespace.blobs.add_refs(dict.fromkeys(blobs, -1), 17)
    namespace.commit()
    random.Random(1).shuffle(blobs)
    for count in (1, 10, 500, 3000):
        before = namespace.log_pages
        assert namespace.try_begin()
        Collecting(namespace).delete([blobs.pop() for _ in range(count)])
        namespace.commit()
        assert (namespace.log_pages - before) * (PAGE + 24) <= 64 * PAGE + OPERATION_LOG_BYTES * count


def test_no_room_for_the_log_leaves_the_transaction_open(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, mode: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(module, "fallocate", full)
        with pytest.raises(OSError, match="full"):
            fill(namespace, 0, 10)
    assert namespace.in_transaction
    namespace.reserve_log(10)
    namespace.commit()
    assert len(namespace.xattrs.of(5)) == 1


def test_a_file_system_without_fallocate_will_do(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(module, "fallocate", unsupported)
    fill(namespace, 0, 10)
    namespace.commit()


def test_the_log_starts_again_after_a_checkpoint(
    database: Path, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 50)
    log = Path(f"{database}-wal")
    fill(namespace, 0, 300)
    assert not namespace.log_is_long
    namespace.commit()
    assert namespace.log_is_long
    namespace.sync_log()
    namespace.checkpoint(restart=True)
    size, pages = log.stat().st_size, namespace.log_pages
    fill(namespace, 1000, 2)
    namespace.commit()
    namespace.sync_log()
    assert namespace.log_pages < pages
    assert not namespace.log_is_long
    assert log.stat().st_size == size
    assert len(namespace.xattrs.of(299)) == 1


def test_a_checkpoint_while_another_one_writes_can_be_put_off(
    namespace: Namespace, other: Namespace, database: Path
) -> None:
    fill(namespace, 0, 10)
    namespace.commit()
    assert other.try_begin()
    namespace.checkpoint(restart=True)
    other.set_meta("next_ino", 77)
    other.commit()
    assert namespace.meta("next_ino") == 77


def test_a_clean_end_leaves_a_short_log(database: Path) -> None:
    namespace = Namespace(str(database))
    fill(namespace, 0, 1000)
    namespace.commit()
    namespace.close()
    log = Path(f"{database}-wal")
    assert not log.exists() or log.stat().st_size == 0
    again = Namespace(str(database))
    assert len(again.xattrs.of(999)) == 1
    again.close()


def test_many_meta_values(writing: Namespace) -> None:
    for value in (0, 2**62, "text"):
        writing.set_meta("uuid", value)
        assert writing.meta("uuid") == value
    assert writing.meta("unknown") is None
    assert os.path.exists(f"{writing.path}-wal")
