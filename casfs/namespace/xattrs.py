"""The xattr table, and the properties that follow from it."""

from __future__ import annotations

import errno
from typing import Any

import apsw

from casfs import properties
from casfs.namespace.connection import DatabaseError, Savepoint
from casfs.namespace.table import Table

BEHIND_PREFIX = properties.PREFIX[:-1] + bytes([properties.PREFIX[-1] + 1])
"""The first name of an attribute behind those of properties."""


class Xattrs(Table):
    """Each method happens wholly or not at all, inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def of(self, ino: int) -> dict[bytes, bytes]:
        """All attributes of an inode. Raises DatabaseError EIO for what a STRICT table cannot have."""
        rows: Any = self._execute("SELECT name, value FROM xattr WHERE ino = ?", (ino,)).fetchall()
        for row in rows:
            if not all(part.__class__ is bytes for part in row):
                raise DatabaseError(errno.EIO, f"database: an attribute of inode {ino} is damaged")
        return dict(rows)

    def set(self, ino: int, name: bytes, value: bytes) -> None:
        if not name.startswith(properties.PREFIX):
            self._execute("INSERT OR REPLACE INTO xattr VALUES (?, ?, ?)", (ino, name, value))
            return
        with Savepoint(self._connection):
            self._execute("INSERT OR REPLACE INTO xattr VALUES (?, ?, ?)", (ino, name, value))
            self._remove_property(ino, name)
            self._add_property(ino, name, value)

    def _add_property(self, ino: int, name: bytes, value: bytes) -> None:
        rows = [(ino, *found) for found in properties.found_in(name, value)]
        self._cursor.executemany("INSERT OR IGNORE INTO property VALUES (?, ?, ?)", rows)

    def _remove_property(self, ino: int, name: bytes) -> None:
        for key, _ in properties.found_in(name, b""):
            self._execute("DELETE FROM property WHERE ino = ? AND key = ?", (ino, key))

    def remove(self, ino: int, name: bytes) -> None:
        if not name.startswith(properties.PREFIX):
            self._execute("DELETE FROM xattr WHERE ino = ? AND name = ?", (ino, name))
            return
        with Savepoint(self._connection):
            self._execute("DELETE FROM xattr WHERE ino = ? AND name = ?", (ino, name))
            self._remove_property(ino, name)

    def remove_all(self, ino: int) -> None:
        if self._execute("SELECT 1 FROM property WHERE ino = ? LIMIT 1", (ino,)).get is None:
            self._execute("DELETE FROM xattr WHERE ino = ?", (ino,))
            return
        with Savepoint(self._connection):
            self._execute("DELETE FROM xattr WHERE ino = ?", (ino,))
            self._execute("DELETE FROM property WHERE ino = ?", (ino,))

    def copy(self, source: int, target: int) -> None:
        with Savepoint(self._connection):
            for table, columns in (("xattr", "name, value"), ("property", "key, value")):
                self._execute(
                    f"INSERT INTO {table} SELECT ?, {columns} FROM {table} WHERE ino = ?", (target, source)
                )

    def write_properties(self, ino: int) -> None:
        """Let table property say of an inode what its attributes say."""
        with Savepoint(self._connection):
            self._execute("DELETE FROM property WHERE ino = ?", (ino,))
            rows: Any = self._execute(
                "SELECT name, value FROM xattr WHERE ino = ? AND name >= ? AND name < ?",
                (ino, properties.PREFIX, BEHIND_PREFIX),
            ).fetchall()
            for name, value in rows:
                self._add_property(ino, name, value)
