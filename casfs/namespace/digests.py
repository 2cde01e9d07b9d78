"""Further digests of contents (schema.sql, blob_digest), and which ones every content gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

from casfs.namespace.damage import BlobToRead
from casfs.namespace.table import Table, typed


class DigestRow(NamedTuple):
    """A row as schema.sql documents it."""

    blob_id: int
    algorithm: str
    value: bytes


class Kept(NamedTuple):
    """How many blobs have a digest, and the bytes of those."""

    algorithm: str
    blobs: int
    bytes: int


class DigestRun(NamedTuple):
    """A run that computes digests of blobs that lack them, and those that went on with it.

    `blobs`, of so many `bytes`, got digests; `damaged` ones could not; `ended_ns`: 0 while some are left.
    """

    started_ns: int
    blobs: int = 0
    bytes: int = 0
    damaged: int = 0
    ended_ns: int = 0


_RUN_KEYS = tuple(f"digests_{name}" for name in ("started_ns", "blobs", "bytes", "damaged", "ended_ns"))


_SOUND = """NOT EXISTS (SELECT 1 FROM damage AS d WHERE d.blob_id = b.id)
    AND length(b.blake3) = 32 AND typeof(b.blake3) = 'blob' AND typeof(b.size) = 'integer'"""
"""Of a blob `b`: it is not known to be damaged, and its row is one."""


def _lacks(algorithms: Sequence[str]) -> str:
    """The condition that a blob `b` lacks one of the digests; the algorithms are its bindings."""
    return f"""(SELECT count(*) FROM blob_digest AS d WHERE d.blob_id = b.id
            AND d.algorithm IN ({", ".join("?" * len(algorithms))})) < {len(algorithms)}
        AND {_SOUND}"""


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

    def lacking(self, algorithms: Sequence[str], after: int, limit: int) -> list[BlobToRead]:
        """Blobs without one of those digests, by id, from the first one behind the id `after`; no more than
        `limit`.

        Those that are known to be damaged are left out, and those whose row is none."""
        rows = self._execute(
            f"""SELECT id, blake3, size FROM blob AS b WHERE id > ? AND {_lacks(algorithms)}
                ORDER BY id LIMIT ?""",
            (after, *algorithms, limit),
        )
        return typed(rows, BlobToRead)

    def amount_lacking(self, algorithms: Sequence[str]) -> tuple[int, int]:
        """How many blobs `lacking` would give, and their bytes."""
        sql = f"SELECT count(*), coalesce(sum(size), 0) FROM blob AS b WHERE {_lacks(algorithms)}"
        row: tuple[int, int] = self._execute(sql, tuple(algorithms)).get
        return row

    def lacking_below(
        self, directory: int, algorithms: Sequence[str], others: Sequence[str] = ()
    ) -> list[tuple[int, int]]:
        """(id, bytes) of each blob of a file below a directory, that lacks one of the digests, and of
        `others` none; as in `lacking`."""
        has_others = f"AND NOT ({_lacks(others)})" if others else ""
        sql = f"""WITH RECURSIVE below (ino) AS (SELECT ? UNION
                SELECT d.ino FROM below JOIN dentry AS d ON d.parent = below.ino WHERE d.type = 4)
            SELECT DISTINCT b.id, b.size FROM below JOIN dentry AS d ON d.parent = below.ino
            JOIN inode AS i ON i.ino = d.ino JOIN blob AS b ON b.id = i.blob_id
            WHERE d.type = 8 AND {_lacks(algorithms)} {has_others}"""
        return [(blob, size) for blob, size in self._execute(sql, (directory, *algorithms, *others))]

    def blob(self, blob_id: int) -> BlobToRead | None:
        """One of those; None when it is gone, or known to be damaged."""
        rows = self._execute(f"SELECT id, blake3, size FROM blob AS b WHERE id = ? AND {_SOUND}", (blob_id,))
        return next(iter(typed(rows, BlobToRead)), None)

    # All of them

    def kept(self) -> list[Kept]:
        """By algorithm. Reads the whole table."""
        rows = self._execute(
            """SELECT algorithm, count(*), sum(size) FROM blob_digest AS d JOIN blob AS b ON b.id = d.blob_id
               GROUP BY algorithm ORDER BY algorithm"""
        )
        return typed(rows, Kept)

    def last_run(self) -> DigestRun | None:
        """The run that is under way or was the last; None when there was none, or what is said of it is not
        understood."""
        values = [self._execute("SELECT value FROM meta WHERE key = ?", (key,)).get for key in _RUN_KEYS]
        numbers = [value for value in values if isinstance(value, int)]
        return DigestRun(*numbers) if len(numbers) == len(_RUN_KEYS) else None

    def save_run(self, run: DigestRun) -> None:
        """Inside a transaction."""
        self._cursor.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", zip(_RUN_KEYS, run, strict=True)
        )
