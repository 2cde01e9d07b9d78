"""The xattr table, and the properties that follow from it."""

from __future__ import annotations

import errno
from typing import Any

import apsw

from casfs import properties
from casfs.namespace.connection import DatabaseError
from casfs.namespace.table import Table


class Xattrs(Table):
    def __init__(self, connection: apsw.Connection) -> None:
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
        self._execute("INSERT OR REPLACE INTO xattr VALUES (?, ?, ?)", (ino, name, value))
        key = properties.key_of(name)
        if key is not None:
            self._execute("DELETE FROM property WHERE ino = ? AND key = ?", (ino, key))
            rows = [(ino, key, each) for each in properties.values_of(value)]
            self._cursor.executemany("INSERT INTO property VALUES (?, ?, ?)", rows)

    def remove(self, ino: int, name: bytes) -> None:
        self._execute("DELETE FROM xattr WHERE ino = ? AND name = ?", (ino, name))
        key = properties.key_of(name)
        if key is not None:
            self._execute("DELETE FROM property WHERE ino = ? AND key = ?", (ino, key))

    def remove_all(self, ino: int) -> None:
        self._execute("DELETE FROM xattr WHERE ino = ?", (ino,))
        self._execute("DELETE FROM property WHERE ino = ?", (ino,))

    def copy(self, source: int, target: int) -> None:
        for table, columns in (("xattr", "name, value"), ("property", "key, value")):
            self._execute(
                f"INSERT INTO {table} SELECT ?, {columns} FROM {table} WHERE ino = ?", (target, source)
            )
