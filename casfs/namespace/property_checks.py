"""Faults of attributes, and of the properties that follow from them, found by queries over whole tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from casfs import properties
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table
from casfs.namespace.xattrs import BEHIND_PREFIX


class PropertyChecks(Table):
    """As `Checks` (checks.py)."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _rows(self, sql: str, *bindings: Any) -> Iterator[Any]:
        yield from self._namespace.query(sql, bindings)

    def stray_xattrs(self) -> Iterator[tuple[int, int]]:
        """(inode number, attributes) of inodes that are missing."""
        yield from self._rows(
            """SELECT x.ino, count(*) FROM xattr AS x
               WHERE NOT EXISTS (SELECT 1 FROM inode AS i WHERE i.ino = x.ino) GROUP BY x.ino"""
        )

    def faults(self) -> Iterator[tuple[int, int, int]]:
        """(inode number, rows that are missing, rows that are not what an attribute says) of each inode."""
        said: Iterator[tuple[int | None, set[tuple[Any, ...]]]] = self._said()
        ino, expected = next(said, (None, set()))
        for at, rows in self._by_inode("SELECT ino, key, value FROM property ORDER BY ino"):
            while ino is not None and ino < at:
                yield ino, len(expected), 0
                ino, expected = next(said, (None, set()))
            says = expected if ino == at else set()
            if says != rows:
                yield at, len(says - rows), len(rows - says)
            if ino == at:
                ino, expected = next(said, (None, set()))
        while ino is not None:
            yield ino, len(expected), 0
            ino, expected = next(said, (None, set()))

    def _said(self) -> Iterator[tuple[int, set[tuple[Any, ...]]]]:
        """What the attributes of each inode say, in the order of their numbers, where they say anything."""
        sql = "SELECT ino, name, value FROM xattr WHERE name >= ? AND name < ? ORDER BY ino"
        for ino, attributes in self._by_inode(sql, properties.PREFIX, BEHIND_PREFIX):
            said = {row for attribute in attributes for row in properties.found_in(*map(bytes, attribute))}
            if said:
                yield ino, said

    def _by_inode(self, sql: str, *bindings: Any) -> Iterator[tuple[int, set[tuple[Any, ...]]]]:
        last: int | None = None
        rows: set[tuple[Any, ...]] = set()
        for ino, *row in self._rows(sql, *bindings):
            if ino != last and last is not None:
                yield last, rows
                rows = set()
            last = ino
            rows.add(tuple(row))
        if last is not None:
            yield last, rows
