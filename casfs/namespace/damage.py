"""The damage table, and how far a scrub has come: blobs whose file was found to be bad, until it is whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw

from casfs.namespace.table import Table, typed


class BlobToRead(NamedTuple):
    """What a scrub needs to know of a blob. `size`: bytes, by its row; `others`: further digests by algorithm
    that are to be compared with its bytes."""

    id: int
    digest: bytes
    size: int
    others: tuple[tuple[str, bytes], ...] = ()


class DamageRow(NamedTuple):
    """A row as schema.sql documents it."""

    blob_id: int
    found_ns: int
    reason: str


class Pass(NamedTuple):
    """One pass of a scrub over all blobs, by their ids.

    `cursor`: the last blob that was read and settled; `read_bytes`: the bytes of all up to it; `ended_ns`:
    0 while blobs are left to be read.
    """

    started_ns: int
    cursor: int = 0
    read_bytes: int = 0
    ended_ns: int = 0


_PASS_KEYS = ("scrub_started_ns", "scrub_cursor", "scrub_bytes", "scrub_ended_ns")


class Damage(Table):
    """Methods that change rows belong into a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()

    def _run(self, sql: str, *bindings: Any) -> list[Any]:
        return self._cursor.execute(sql, bindings).fetchall()

    # Blobs that are known to be bad

    def note(self, blob_id: int, reason: str, now_ns: int) -> bool:
        """Note a blob as damaged; False when it was known to be, with its time and reason as they were."""
        return bool(
            self._run(
                "INSERT INTO damage VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
                blob_id,
                now_ns,
                reason,
            )
        )

    def is_known(self, blob_id: int) -> bool:
        """Is the blob known to be damaged?"""
        return bool(self._run("SELECT 1 FROM damage WHERE blob_id = ?", blob_id))

    def clear(self, blob_id: int) -> bool:
        """The blob is whole again, or gone; was it known to be damaged?"""
        return bool(self._run("DELETE FROM damage WHERE blob_id = ? RETURNING 1", blob_id))

    def clear_strays(self) -> int:
        """Forget those whose blob is gone; how many."""
        return len(
            self._run("DELETE FROM damage WHERE blob_id NOT IN (SELECT id FROM blob) RETURNING blob_id")
        )

    def known(self) -> dict[int, DamageRow]:
        """Every blob that is known to be damaged: id -> row."""
        rows = self._run("SELECT * FROM damage ORDER BY blob_id")
        return {row.blob_id: row for row in typed(rows, DamageRow)}

    def inodes_of(self, blob_id: int) -> list[int]:
        """Inodes whose row refers to a blob."""
        return [ino for (ino,) in self._run("SELECT ino FROM inode WHERE blob_id = ?", blob_id)]

    # Reading every blob

    def blobs_after(self, blob_id: int, limit: int) -> list[BlobToRead]:
        """Up to `limit` blobs with a higher id, by id; those whose digest or size is none are left to
        fsck."""
        rows = self._run(
            """SELECT id, blake3, size FROM blob WHERE id > ? AND length(blake3) = 32
               AND typeof(blake3) = 'blob' AND typeof(size) = 'integer' ORDER BY id LIMIT ?""",
            blob_id,
            limit,
        )
        return typed(rows, BlobToRead)

    def blob_bytes(self) -> int:
        """Bytes of all blobs."""
        return int(self._run("SELECT coalesce(sum(size), 0) FROM blob")[0][0])

    def last_pass(self) -> Pass | None:
        """The pass that is under way or was the last; None when there was none, or what is said of it is
        not understood."""
        values = [self._run("SELECT value FROM meta WHERE key = ?", key) for key in _PASS_KEYS]
        numbers = [value[0][0] for value in values if value and isinstance(value[0][0], int)]
        return Pass(*numbers) if len(numbers) == len(_PASS_KEYS) else None

    def save_pass(self, state: Pass) -> None:
        """Keep how far a pass has come."""
        for key, value in zip(_PASS_KEYS, state, strict=True):
            self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)
