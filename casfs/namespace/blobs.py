"""The blob table: which contents there are and how many inodes refer to each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import apsw

from casfs.namespace.table import Table, typed
from casfs.types import DIGEST_SIZE


class BlobRow(NamedTuple):
    """A row as schema.sql documents it."""

    id: int
    blake3: bytes
    size: int
    refs: int
    created_ns: int
    orphaned_ns: int | None


class Blobs(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def find(self, digest: bytes) -> int | None:
        """The id of a content, or None."""
        blob_id: int | None = self._execute("SELECT id FROM blob WHERE blake3 = ?", (digest,)).get
        return blob_id

    def between(self, low: bytes, high: bytes, limit: int) -> list[tuple[int, bytes]]:
        """(id, digest) of those whose digest is in a range, up to `limit`."""
        rows: Any = self._execute(
            "SELECT id, blake3 FROM blob WHERE blake3 BETWEEN ? AND ? ORDER BY blake3 LIMIT ?",
            (low, high, limit),
        ).fetchall()
        return list(rows)

    def digest(self, blob_id: int) -> bytes | None:
        """The digest of a blob, or None for an id no row has."""
        digest: bytes | None = self._execute("SELECT blake3 FROM blob WHERE id = ?", (blob_id,)).get
        if digest is not None and (type(digest) is not bytes or len(digest) != DIGEST_SIZE):
            raise ValueError(f"blob {blob_id} has a digest that is none")
        return digest

    def get(self, blob_id: int) -> BlobRow | None:
        """The row of a blob, or None."""
        rows = typed(self._execute("SELECT * FROM blob WHERE id = ?", (blob_id,)), BlobRow)
        return rows[0] if rows else None

    def insert(self, digest: bytes, size: int, now_ns: int) -> int:
        """A new blob with one reference, which the caller owes it (I4). Gives its id."""
        self._execute(
            "INSERT INTO blob (blake3, size, refs, created_ns) VALUES (?, ?, 1, ?)", (digest, size, now_ns)
        )
        return self._connection.last_insert_rowid()

    def add_refs(self, changes: dict[int, int], now_ns: int) -> None:
        """Add to the reference counts (I4); one that comes to 0 makes an orphan as of `now_ns`."""
        self._cursor.executemany(
            """UPDATE blob SET refs = refs + ?2, orphaned_ns = CASE refs + ?2 WHEN 0 THEN ?3 END
               WHERE id = ?1""",
            [(blob_id, change, now_ns) for blob_id, change in changes.items() if change],
        )

    def delete_unused(self, blob_id: int, change: int) -> bool:
        """Delete a blob that nothing refers to once `change` is added to its count, with its digests; was it
        so?"""
        self._execute("DELETE FROM blob WHERE id = ? AND refs + ? = 0", (blob_id, change))
        if not self._connection.changes():
            return False
        self._execute("DELETE FROM blob_digest WHERE blob_id = ?", (blob_id,))
        return True

    def totals(self) -> tuple[int, int, int, int]:
        """(blobs in use, their bytes, orphans, their bytes)."""
        row: tuple[int, int, int, int] = self._execute(
            """SELECT coalesce(sum(refs > 0), 0), coalesce(sum(iif(refs > 0, size, 0)), 0),
                coalesce(sum(refs = 0), 0), coalesce(sum(iif(refs = 0, size, 0)), 0) FROM blob"""
        ).get
        return row

    def all(self) -> Iterator[BlobRow]:
        """Every row by id."""
        for row in self._execute("SELECT * FROM blob ORDER BY id"):
            yield from typed([row], BlobRow)
