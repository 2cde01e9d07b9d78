"""Rows of locked trees."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from casfs.errors import FormatError
from casfs.namespace.connection import DatabaseError
from casfs.namespace.locked import LockedRow, LockedRows
from casfs.namespace.namespace import Namespace


def test_rows_are_added_and_removed(writing: Namespace) -> None:
    locked = writing.locked
    assert locked.all() == []
    locked.add(LockedRow(9, 5, "later"))
    locked.add(LockedRow(1, 5, "released"))
    assert locked.all() == [LockedRow(1, 5, "released"), LockedRow(9, 5, "later")]
    assert list(locked.strays()) == [9]
    locked.remove([9, 10])
    assert locked.all() == [LockedRow(1, 5, "released")]


def test_what_no_row_can_be_is_refused() -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute("CREATE TABLE locked (ino, locked_ns, reason)")
        connection.execute("INSERT INTO locked VALUES (2, 3, x'00')")
        with pytest.raises(DatabaseError, match="a row that is none"):
            LockedRows(connection).all()


def test_a_database_with_such_a_row_is_not_opened(database: Path) -> None:
    with closing(apsw.Connection(str(database))) as connection:
        connection.execute("PRAGMA writable_schema = ON").fetchall()
        strict = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'locked'").get
        change = "UPDATE sqlite_schema SET sql = ? WHERE name = 'locked'"
        connection.execute(change, (strict.removesuffix(" STRICT"),))
        connection.execute("PRAGMA writable_schema = RESET").fetchall()
        connection.execute("INSERT INTO locked VALUES (2, 'never', '')")
        connection.execute("PRAGMA writable_schema = ON").fetchall()
        connection.execute(change, (strict,))
    with pytest.raises(FormatError, match="a row in locked that cannot be one"):
        Namespace(str(database))
