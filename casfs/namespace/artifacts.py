"""What paths say of files (schema.sql, artifact): written by the follower, read by searches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import apsw

from casfs.namespace.table import Table, typed

_INSERT = "INSERT OR REPLACE INTO artifact VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class ArtifactRow(NamedTuple):
    """A row as schema.sql documents it."""

    parent: int
    name: bytes
    repository: int
    organisation: str
    module: str
    revision: str
    base: str
    integration: str
    snapshot: int
    classifier: str
    extension: str
    type: str
    companion: str
    tokens: str


class Artifacts(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def set_all(self, rows: Iterable[ArtifactRow]) -> None:
        self._cursor.executemany(_INSERT, rows)

    def remove_all(self, names: Iterable[tuple[int, bytes]]) -> None:
        """Those of names (parent, name) that have one."""
        self._cursor.executemany("DELETE FROM artifact WHERE parent = ? AND name = ?", names)

    def remove_below(self, parent: int) -> None:
        """Those of all names in a directory."""
        self._execute("DELETE FROM artifact WHERE parent = ?", (parent,))

    def of(self, parent: int, name: bytes) -> ArtifactRow | None:
        rows = typed(
            self._execute("SELECT * FROM artifact WHERE parent = ? AND name = ?", (parent, name)), ArtifactRow
        )
        return rows[0] if rows else None

    def below(self, parent: int) -> list[ArtifactRow]:
        """Those of all names in a directory."""
        return typed(self._execute("SELECT * FROM artifact WHERE parent = ?", (parent,)), ArtifactRow)

    def count(self, repository: int) -> int:
        """Artifacts of a repository, those that accompany others not among them."""
        count: int = self._execute(
            "SELECT count(*) FROM artifact WHERE repository = ? AND companion = ''", (repository,)
        ).get
        return count
