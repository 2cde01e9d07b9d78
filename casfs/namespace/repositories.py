"""The tables of repositories and layouts (schema.sql)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from casfs.namespace.table import Table, typed


class RepositoryRow(NamedTuple):
    """A row as schema.sql documents it."""

    ino: int
    kind: str
    layout: str | None
    deploy: int | None
    rules: str


class MemberRow(NamedTuple):
    """A row as schema.sql documents it."""

    repository: int
    position: int
    member: int


class LayoutRow(NamedTuple):
    """A row as schema.sql documents it."""

    name: str
    definition: str


class RepositoryRows(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def all(self) -> list[RepositoryRow]:
        return typed(self._execute("SELECT * FROM repository ORDER BY ino"), RepositoryRow)

    def members(self) -> list[MemberRow]:
        """By repository and position."""
        return typed(self._execute("SELECT * FROM member ORDER BY repository, position"), MemberRow)

    def set(self, row: RepositoryRow, members: Iterable[int] = ()) -> None:
        """A repository with its members, whatever it had before."""
        self._execute("INSERT OR REPLACE INTO repository VALUES (?, ?, ?, ?, ?)", row)
        self._execute("DELETE FROM member WHERE repository = ?", (row.ino,))
        rows = [(row.ino, position, member) for position, member in enumerate(members)]
        self._cursor.executemany("INSERT INTO member VALUES (?, ?, ?)", rows)

    def remove(self, ino: int) -> None:
        """Its row and those of its members."""
        self._execute("DELETE FROM repository WHERE ino = ?", (ino,))
        self._execute("DELETE FROM member WHERE repository = ?", (ino,))

    # The whole store

    def takes_plain_directories(self) -> bool:
        """May programs make directories in the root?"""
        value: str | None = self._execute("SELECT value FROM meta WHERE key = 'plain_directories'").get
        return value != "no"

    def take_plain_directories(self, yes: bool) -> None:
        self._execute("DELETE FROM meta WHERE key = 'plain_directories'")
        if not yes:
            self._execute("INSERT INTO meta VALUES ('plain_directories', 'no')")

    # Layouts

    def layouts(self) -> list[LayoutRow]:
        return typed(self._execute("SELECT * FROM layout ORDER BY name"), LayoutRow)

    def set_layout(self, row: LayoutRow) -> None:
        self._execute("INSERT OR REPLACE INTO layout VALUES (?, ?)", row)

    def remove_layout(self, name: str) -> None:
        self._execute("DELETE FROM layout WHERE name = ?", (name,))

    # Names that are to be followed

    def note(self, names: Iterable[tuple[int, bytes]]) -> None:
        self._cursor.executemany("INSERT OR IGNORE INTO noted VALUES (?, ?)", names)

    def note_no_more(self, names: Iterable[tuple[int, bytes]]) -> None:
        self._cursor.executemany("DELETE FROM noted WHERE parent = ? AND name = ?", names)

    def noted(self) -> list[tuple[int, bytes]]:
        """(directory, name)."""
        rows: Any = self._execute(
            "SELECT parent, name FROM noted WHERE typeof(parent) = 'integer' AND typeof(name) = 'blob'"
        ).fetchall()
        return list(rows)

    # Directories that are to be followed

    def to_follow(self) -> list[tuple[int, int]]:
        """(inode number, cookie of the last name that was followed)."""
        rows: Any = self._execute("SELECT ino, cookie FROM follow ORDER BY ino").fetchall()
        return list(rows)

    def follow(self, ino: int, cookie: int = 0) -> None:
        self._execute("INSERT OR REPLACE INTO follow VALUES (?, ?)", (ino, cookie))

    def followed(self, ino: int) -> None:
        self._execute("DELETE FROM follow WHERE ino = ?", (ino,))
