"""Creating, refusing and migrating databases."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from casfs.errors import FormatError, FormatTooNew
from casfs.namespace import schema
from casfs.namespace.connection import DatabaseError, connect
from casfs.namespace.inodes import InodeRow
from casfs.namespace.namespace import Namespace
from tests.session import descriptors


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask another SQLite library than the product's."""
    with closing(sqlite3.connect(path)) as other, other:
        return other.execute(sql).fetchall()


# Creating


def test_a_new_database_has_an_empty_root(database: Path) -> None:
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    namespace = Namespace(str(database))
    row = namespace.inodes.get(1)
    assert row is not None
    root = InodeRow(*row)
    assert root[:5] == (1, stat.S_IFDIR | 0o755, 2, 5, 6)
    assert root.atime_ns == root.mtime_ns == root.ctime_ns == root.btime_ns == 1234
    assert namespace.dentries.is_empty(1)
    assert namespace.meta("next_ino") == 2
    assert namespace.meta("next_cookie") == 3
    assert len(bytes.fromhex(namespace.meta("uuid"))) == 16
    namespace.close()


def test_two_databases_differ_in_their_uuid(scratch: Path) -> None:
    found = []
    for name in ("one", "two"):
        schema.create(str(scratch / name), 0, 0, 0)
        found += query(scratch / name, "SELECT value FROM meta WHERE key = 'uuid'")
    assert len(set(found)) == 2


def test_what_is_there_is_not_overwritten(database: Path) -> None:
    before = database.read_bytes()
    with pytest.raises(FileExistsError):
        schema.create(str(database), 0, 0, 0)
    assert database.read_bytes() == before


def test_the_schema_says_what_it_is(database: Path) -> None:
    assert query(database, "PRAGMA application_id") == [(0x63617366,)]
    assert query(database, "PRAGMA user_version") == [(schema.SCHEMA_VERSION,)]
    assert query(database, "PRAGMA journal_mode") == [("wal",)]
    for sql in (
        "INSERT INTO dentry VALUES (1, 3, 'text', 2, 8)",
        "INSERT INTO dentry VALUES (1, 3, NULL, 2, 8)",
        "INSERT INTO blob (blake3, size, refs, created_ns) VALUES (x'00', 'large', 1, 0)",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            query(database, sql)


# Refusing


@pytest.mark.parametrize("content", [b"garbage " * 1000, b"SQLite format 3\0" + bytes(4080)])
def test_what_is_no_database_is_refused(scratch: Path, content: bytes) -> None:
    path = scratch / "casfs.db"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=str(path)):
        Namespace(str(path))
    assert path.read_bytes() == content


def test_a_database_that_was_cut_off_is_refused(database: Path) -> None:
    os.truncate(database, 5000)
    with pytest.raises(FormatError, match=str(database)):
        Namespace(str(database))


@pytest.mark.parametrize("readonly", [False, True])
def test_an_absent_database_is_refused_and_not_made(scratch: Path, readonly: bool) -> None:
    with pytest.raises(FormatError, match=r"casfs\.db"):
        Namespace(str(scratch / "casfs.db"), readonly=readonly)
    assert os.listdir(scratch) == []


def test_another_programs_database_is_refused(scratch: Path) -> None:
    path = scratch / "casfs.db"
    query(path, "CREATE TABLE thing (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(FormatError, match="not a casfs database"):
        Namespace(str(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("readonly", [False, True])
def test_a_newer_database_is_refused_untouched(database: Path, readonly: bool) -> None:
    query(database, f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    before = database.read_bytes()
    with pytest.raises(FormatTooNew, match="newer casfs") as raised:
        Namespace(str(database), readonly=readonly)
    assert str(schema.SCHEMA_VERSION + 1) in str(raised.value)
    assert database.read_bytes() == before


def test_a_refused_database_is_closed(database: Path) -> None:
    query(database, f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    with pytest.raises(FormatTooNew):
        Namespace(str(database))
    assert str(database) not in descriptors().values()


FOREIGN = (
    ("CREATE TRIGGER evil AFTER UPDATE ON inode BEGIN DELETE FROM dentry; END", "a foreign trigger evil"),
    ("CREATE VIEW evil AS SELECT * FROM inode", "a foreign view evil"),
    ("CREATE TABLE evil (a)", "a foreign table evil"),
    ("CREATE INDEX evil ON inode (abs(size))", "a foreign index evil"),
    ("ALTER TABLE inode ADD COLUMN evil INTEGER AS (size * 2)", "another table inode"),
    ("DROP TABLE meta", "another table meta"),
    ("DROP TABLE meta; CREATE VIEW meta AS SELECT 'next_ino' AS key, 2 AS value", "another table meta"),
    ("DROP INDEX dentry_cookie", "another index dentry_cookie"),
    ("ANALYZE", "a foreign table sqlite_stat1"),
)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(("statement", "complaint"), FOREIGN)
def test_a_schema_that_is_not_ours_is_refused(
    database: Path, statement: str, complaint: str, readonly: bool
) -> None:
    """What is in a schema is run by whoever uses it: by root, when he mounts what somebody else wrote."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.executescript(statement)
    connection.close()
    with pytest.raises(FormatError, match=complaint):
        Namespace(str(database), readonly=readonly)
    assert str(database) not in descriptors().values()


LOOSE = (
    ("trash_rule", "days", "'text'"),
    ("trash_rule", "days", "9223372036854775807"),
    ("trash_rule", "exclude", "x'00'"),
)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(("table", "column", "value"), LOOSE)
def test_a_row_that_a_strict_table_cannot_have_is_refused(
    database: Path, table: str, column: str, value: str, readonly: bool
) -> None:
    for change, statement in (
        ("replace(sql, ', STRICT', '')", f"UPDATE {table} SET {column} = {value}"),
        ("sql || ', STRICT'", "SELECT 1"),
    ):
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"UPDATE sqlite_schema SET sql = {change} WHERE name = ?", (table,))
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute(statement)
        connection.close()
    with pytest.raises(FormatError, match=f"has a row in {table} that cannot be one"):
        Namespace(str(database), readonly=readonly)


def test_comments_in_a_schema_count_for_nothing(database: Path) -> None:
    """An older store, migrated, has those of its time."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' -- ', '\n -- then ')")
    connection.close()
    Namespace(str(database)).close()


def test_a_database_without_a_log_gets_one_again(database: Path) -> None:
    """As `sqlite3 .dump` and `.read` make it: there was no log to be found, and no mount."""
    query(database, "PRAGMA journal_mode = DELETE")
    namespace = Namespace(str(database))
    assert Path(f"{database}-wal").exists()
    namespace.close()


def test_a_database_that_a_link_leads_to_is_refused(database: Path) -> None:
    database.rename(database.with_name("elsewhere"))
    database.symlink_to("elsewhere")
    with pytest.raises((FormatError, DatabaseError)):
        Namespace(str(database))


# Migrating


@pytest.fixture
def old(scratch: Path) -> Path:
    """A database of format 1 as some release may have left it."""
    path = scratch / "old.db"
    with closing(sqlite3.connect(path)) as other, other:
        other.executescript(
            f"""PRAGMA application_id = {schema.APPLICATION_ID};
            PRAGMA user_version = 1;
            CREATE TABLE file (name TEXT);
            INSERT INTO file VALUES ('kept');"""
        )
    return path


@pytest.fixture
def steps(scratch: Path) -> Path:
    """Migrations to the formats 2 and 3 of a database like that."""
    steps = scratch / "migrations"
    steps.mkdir()
    (steps / "0002.sql").write_text("ALTER TABLE file ADD COLUMN size INTEGER NOT NULL DEFAULT 0;")
    (steps / "0003.sql").write_text(
        "-- Not once more.\nUPDATE file SET size = size + length(name);\nSELECT 1;"
    )
    return steps


def migrate(path: Path, steps: Path, target: int) -> None:
    with closing(connect(str(path))) as database:
        schema.migrate(database, str(path), migrations=str(steps), target=target)
        assert not database.in_transaction


def test_migrations_run_in_order_and_once(old: Path, steps: Path) -> None:
    for _ in range(2):
        migrate(old, steps, 3)
        assert query(old, "SELECT name, size FROM file") == [("kept", 4)]
        assert query(old, "PRAGMA user_version") == [(3,)]


def test_a_migration_that_fails_leaves_the_step_before(old: Path, steps: Path) -> None:
    last = steps / "0003.sql"
    works = last.read_text()
    last.write_text(f"{works}; INSERT INTO nothing VALUES (1);")
    with closing(connect(str(old))) as database:
        with pytest.raises(apsw.SQLError, match="nothing"):
            schema.migrate(database, str(old), migrations=str(steps), target=3)
        assert not database.in_transaction
    assert query(old, "SELECT name, size FROM file") == [("kept", 0)]
    assert query(old, "PRAGMA user_version") == [(2,)]
    last.write_text(works)
    migrate(old, steps, 3)
    assert query(old, "SELECT name, size FROM file") == [("kept", 4)]


def test_a_format_nobody_migrates_from_is_refused(old: Path, steps: Path) -> None:
    (steps / "0002.sql").unlink()
    with pytest.raises(FormatError, match=r"format 1\b.*cannot migrate"):
        migrate(old, steps, 3)


def test_every_format_up_to_this_one_has_a_migration() -> None:
    assert sorted(os.listdir(schema.MIGRATIONS)) == [
        f"{version:04}.sql" for version in range(2, schema.SCHEMA_VERSION + 1)
    ]
