"""Further digests of contents (schema.sql, blob_digest), and which ones every content gets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import apsw

from casfs.namespace.table import Table, typed


class DigestRow(NamedTuple):
    """A row as schema.sql documents it."""

    blob_id: int
    algorithm: str
    value: bytes


class Undigested(NamedTuple):
    """A blob that lacks a digest: its BLAKE3 digest, and bytes."""

    id: int
    digest: bytes
    size: int


class Digests(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    # Which there are

    def wanted(self) -> tuple[str, ...]:
        """Names of the algorithms that every content gets, in order."""
        text = self._execute("SELECT value FROM meta WHERE key = 'digests'").get
        return tuple(sorted(text.split())) if isinstance(text, str) else ()

    def set_wanted(self, algorithms: Iterable[str]) -> None:
        """Inside a transaction."""
        self._execute("INSERT OR REPLACE INTO meta VALUES ('digests', ?)", (" ".join(sorted(algorithms)),))

    # Of a blob

    def of(self, blob_id: int) -> dict[str, bytes]:
        """Those that a blob has, by algorithm."""
        rows = self._execute("SELECT algorithm, value FROM blob_digest WHERE blob_id = ?", (blob_id,))
        return {row.algorithm: row.value for row in typed([(blob_id, *row) for row in rows], DigestRow)}

    def add(self, rows: Iterable[DigestRow]) -> None:
        """Inside a transaction; what is there already stays."""
        self._cursor.executemany("INSERT OR IGNORE INTO blob_digest VALUES (?, ?, ?)", rows)

    def add_to_present(self, rows: Iterable[DigestRow]) -> None:
        """As `add`, for blobs that may have been collected since they were read."""
        self._cursor.executemany(
            """INSERT OR IGNORE INTO blob_digest SELECT ?1, ?2, ?3
               WHERE EXISTS (SELECT 1 FROM blob WHERE id = ?1)""",
            rows,
        )

    # Searching

    def find(self, algorithm: str, low: bytes, high: bytes, limit: int = -1) -> list[DigestRow]:
        """Digests from `low` to `high`, in order; no more than `limit`, -1: all."""
        rows = self._execute(
            """SELECT blob_id, algorithm, value FROM blob_digest
               WHERE algorithm = ? AND value BETWEEN ? AND ? ORDER BY value, blob_id LIMIT ?""",
            (algorithm, low, high, limit),
        )
        return typed(rows, DigestRow)

    def lacking(self, algorithm: str, after: int, limit: int) -> list[Undigested]:
        """Blobs without that digest, by id, from the first one behind the id `after`; no more than `limit`.

        Those that are known to be damaged are left out."""
        rows = self._execute(
            """SELECT id, blake3, size FROM blob AS b WHERE id > ?
               AND NOT EXISTS (SELECT 1 FROM blob_digest AS d WHERE d.blob_id = b.id AND d.algorithm = ?)
               AND NOT EXISTS (SELECT 1 FROM damage AS d WHERE d.blob_id = b.id) ORDER BY id LIMIT ?""",
            (after, algorithm, limit),
        )
        return typed(rows, Undigested)
