"""Rows of locked trees: what nothing changes until it is unlocked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from casfs.namespace.table import Table, typed


class LockedRow(NamedTuple):
    """A file, or a directory with all that is below it. `reason`: what whoever locked it said, or nothing."""

    ino: int
    locked_ns: int
    reason: str


class LockedRows(Table):
    """Statements on table locked. Those that change it: inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def all(self) -> list[LockedRow]:
        """Ascending by inode number."""
        rows: Any = self._execute("SELECT ino, locked_ns, reason FROM locked ORDER BY ino").fetchall()
        return typed(rows, LockedRow)

    def add(self, row: LockedRow) -> None:
        self._execute("INSERT OR REPLACE INTO locked VALUES (?, ?, ?)", row)

    def remove(self, inos: Iterable[int]) -> None:
        for ino in inos:
            self._execute("DELETE FROM locked WHERE ino = ?", (ino,))

    def strays(self) -> Iterator[int]:
        """Inode numbers of rows for an inode that is missing."""
        for (ino,) in self._execute("SELECT ino FROM locked WHERE ino NOT IN (SELECT ino FROM inode)"):
            yield ino
