"""Orphans for the collector, the record of its runs, and the pins that hold blobs back.

An orphan is *due* when nothing refers to it, it became one before the cutoff, and no live pin holds it. That
no inode row refers to it is looked up besides what `refs` says: a wrong count (I4) must cost no data (I8).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table, typed

RUNS_KEPT = 1000
"""Runs of the collector that stay in the record."""

PIN_STEP = 2_000
"""Blobs that are pinned, or unpinned, in one transaction, while others wait."""

NUMBERED_BLOBS = (("blob", "id"), ("blob_digest", "blob_id"), ("pinned", "blob_id"), ("damage", "blob_id"))
"""Where blobs have their numbers, besides the inodes that refer to them."""

_LIVE = "(expires_ns IS NULL OR expires_ns > :now)"

_DUE = f"""b.refs = 0 AND b.orphaned_ns <= :cutoff
    AND NOT EXISTS (SELECT 1 FROM inode AS i WHERE i.blob_id = b.id)
    AND NOT EXISTS (SELECT 1 FROM pinned AS d JOIN pin ON pin.id = d.pin_id
                    WHERE d.blob_id = b.id AND {_LIVE})
    AND NOT EXISTS (SELECT 1 FROM pin WHERE everything = 1 AND {_LIVE})"""


class Orphan(NamedTuple):
    """A blob nothing refers to: size in bytes."""

    id: int
    digest: bytes
    size: int
    orphaned_ns: int


class Amount(NamedTuple):
    """A number of blobs, and their bytes."""

    blobs: int
    bytes: int


class Record(NamedTuple):
    """What a run has done so far, as in its row."""

    run_id: int
    blobs: int
    bytes: int
    strays: int
    failures: int


class Run(NamedTuple):
    """A row of `collection`, as schema.sql documents it."""

    id: int
    kind: str
    started_ns: int
    ended_ns: int | None
    blobs: int
    bytes: int
    strays: int
    failures: int
    error: str | None


class Pin(NamedTuple):
    """A row of `pin`; `blobs`: how many it names, `bytes`: of those. Both 0 when it holds everything."""

    id: int
    reason: str
    everything: bool
    created_ns: int
    expires_ns: int | None
    blobs: int
    bytes: int


class Collecting(Table):
    """The collector's view of a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _rows(self, sql: str, bindings: Any = ()) -> list[Any]:
        return self._namespace.query(sql, bindings).fetchall()

    # Orphans

    def amount_due(self, cutoff_ns: int, now_ns: int) -> Amount:
        """All that is due."""
        rows = self._rows(
            f"SELECT count(*), coalesce(sum(b.size), 0) FROM blob AS b INDEXED BY blob_orphan WHERE {_DUE}",
            {"cutoff": cutoff_ns, "now": now_ns},
        )
        return Amount(*rows[0])

    def amount_orphaned(self) -> Amount:
        """All orphans, due or not."""
        rows = self._rows(
            "SELECT count(*), coalesce(sum(size), 0) FROM blob INDEXED BY blob_orphan WHERE refs = 0"
        )
        return Amount(*rows[0])

    def due(self, cutoff_ns: int, now_ns: int, after: tuple[int, int], limit: int) -> list[Orphan]:
        """The oldest that are due, of those behind `after`, (orphaned_ns, id) of the last one seen."""
        rows = self._rows(
            f"""SELECT b.id, b.blake3, b.size, b.orphaned_ns FROM blob AS b INDEXED BY blob_orphan
                WHERE (b.orphaned_ns, b.id) > (:orphaned, :id) AND {_DUE}
                ORDER BY b.orphaned_ns, b.id LIMIT :limit""",
            {"cutoff": cutoff_ns, "now": now_ns, "orphaned": after[0], "id": after[1], "limit": limit},
        )
        return typed(rows, Orphan)

    def still_due(self, ids: Sequence[int], cutoff_ns: int, now_ns: int) -> list[Orphan]:
        """Those of the blobs that are due, as the open write transaction sees it."""
        rows = self._rows(
            f"""SELECT b.id, b.blake3, b.size, b.orphaned_ns
                FROM json_each(:ids) AS j CROSS JOIN blob AS b ON b.id = j.value WHERE {_DUE}""",
            {"ids": json.dumps(list(ids)), "cutoff": cutoff_ns, "now": now_ns},
        )
        return typed(rows, Orphan)

    def orphaned_after(self, now_ns: int, limit: int) -> list[int]:
        """Orphans that became so after a time: their ids."""
        rows = self._rows(
            "SELECT id FROM blob INDEXED BY blob_orphan WHERE refs = 0 AND orphaned_ns > ? LIMIT ?",
            (now_ns, limit),
        )
        return [row[0] for row in rows]

    def set_orphaned(self, ids: Sequence[int], now_ns: int) -> None:
        """Say when orphans became so. In a write transaction."""
        self._rows(
            """UPDATE blob SET orphaned_ns = ?
               WHERE refs = 0 AND id IN (SELECT value FROM json_each(?))""",
            (now_ns, json.dumps(list(ids))),
        )

    def delete(self, ids: Sequence[int]) -> None:
        """Delete the rows of blobs, with what is said about them elsewhere. In a write transaction."""
        text = json.dumps(list(ids))
        for table, column in NUMBERED_BLOBS:
            self._rows(f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (text,))

    def known(self, digests: Sequence[bytes]) -> set[bytes]:
        """Those of the digests that have a row."""
        return {digest for digest in digests if self._rows("SELECT 1 FROM blob WHERE blake3 = ?", (digest,))}

    def miscounted(self, starts: Sequence[int]) -> int:
        """How many blobs have a wrong count (I4), of the first ones with at least these ids."""
        found: set[int] = set()
        for start in starts:
            rows = self._rows(
                """SELECT b.id, b.refs <> (SELECT count(*) FROM inode AS i WHERE i.blob_id = b.id)
                   FROM blob AS b WHERE b.id >= ? ORDER BY b.id LIMIT 1""",
                (start,),
            )
            found.update(blob_id for blob_id, wrong in rows if wrong)
        return len(found)

    def highest_id(self) -> int:
        """The highest id of a blob; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(id), 0) FROM blob")[0][0])

    # The record of runs

    def start_run(self, kind: str, now_ns: int) -> int:
        """A row for a run that begins; the oldest ones go. Gives its id. In a write transaction."""
        rows = self._rows(
            """INSERT INTO collection (kind, started_ns, blobs, bytes, strays, failures)
               VALUES (?, ?, 0, 0, 0, 0) RETURNING id""",
            (kind, now_ns),
        )
        self._rows("DELETE FROM collection WHERE id <= ?", (rows[0][0] - RUNS_KEPT,))
        return int(rows[0][0])

    def update_run(self, record: Record, ended_ns: int | None = None, error: str | None = None) -> None:
        """What the run has done so far; `ended_ns`: it is over. In a write transaction."""
        self._rows(
            """UPDATE collection SET blobs = ?, bytes = ?, strays = ?, failures = ?, ended_ns = ?, error = ?
               WHERE id = ?""",
            (*record[1:], ended_ns, error, record.run_id),
        )

    def runs(self, limit: int) -> list[Run]:
        """The newest runs, newest first."""
        return typed(self._rows("SELECT * FROM collection ORDER BY id DESC LIMIT ?", (limit,)), Run)

    def last_ended(self) -> Run | None:
        """The newest run that came to its end."""
        rows = self._rows("SELECT * FROM collection WHERE ended_ns IS NOT NULL ORDER BY id DESC LIMIT 1")
        return typed(rows, Run)[0] if rows else None

    def runs_since_full(self) -> int:
        """Runs that ended since the last full one did; all of them when there was none."""
        rows = self._rows(
            """SELECT count(*) FROM collection WHERE ended_ns IS NOT NULL
               AND id > coalesce((SELECT max(id) FROM collection
                                  WHERE kind = 'full' AND ended_ns IS NOT NULL AND error IS NULL), 0)"""
        )
        return int(rows[0][0])

    def strays_before(self, cutoff_ns: int) -> bool:
        """Was the store not left cleanly once, before that time, and not looked through since?"""
        rows = self._rows("SELECT 1 FROM meta WHERE key = 'strays_since_ns' AND value < ?", (cutoff_ns,))
        return bool(rows)

    def looked_for_strays(self, cutoff_ns: int) -> None:
        """What has no row and came before that time has gone. In a write transaction."""
        self._rows("DELETE FROM meta WHERE key = 'strays_since_ns' AND value < ?", (cutoff_ns,))

    # Pins

    def add_pin(self, reason: str, *, everything: bool, now_ns: int, expires_ns: int | None) -> int:
        """A new pin, which holds everything, or nothing yet. Gives its id. In a write transaction."""
        rows = self._rows(
            "INSERT INTO pin (reason, everything, created_ns, expires_ns) VALUES (?, ?, ?, ?) RETURNING id",
            (reason, int(everything), now_ns, expires_ns),
        )
        return int(rows[0][0])

    def pin_blobs(self, pin_id: int, blobs: Sequence[int]) -> None:
        """Let a pin name more blobs. In a write transaction."""
        self._rows(
            "INSERT OR IGNORE INTO pinned (blob_id, pin_id) SELECT value, ? FROM json_each(?)",
            (pin_id, json.dumps(list(blobs))),
        )

    def only_named(self, pin_id: int) -> None:
        """Let a pin hold no more than what it names. In a write transaction."""
        self._rows("UPDATE pin SET everything = 0 WHERE id = ?", (pin_id,))

    def blobs_below(self, ino: int) -> Iterator[int]:
        """The blobs of an inode and of all below it, also in views, some more than once."""
        for (blob_id,) in self._namespace.query(
            """WITH RECURSIVE below (ino) AS (
                   VALUES (?)
                   UNION SELECT d.ino FROM below AS b JOIN dentry AS d ON d.parent = b.ino
                   UNION SELECT d.ino FROM below AS b JOIN derived AS d ON d.parent = b.ino AND d.hidden = 0)
               SELECT i.blob_id FROM below AS b CROSS JOIN inode AS i ON i.ino = b.ino
               WHERE i.blob_id IS NOT NULL""",
            (ino,),
        ):
            yield blob_id

    def pins(self) -> Iterator[Pin]:
        """Every pin, oldest first, with what it holds."""
        for pin_id, reason, everything, created_ns, expires_ns, blobs, size in self._rows(
            """SELECT p.id, p.reason, p.everything, p.created_ns, p.expires_ns, count(b.id),
                      coalesce(sum(b.size), 0)
               FROM pin AS p LEFT JOIN pinned AS d ON d.pin_id = p.id LEFT JOIN blob AS b ON b.id = d.blob_id
               GROUP BY p.id ORDER BY p.id"""
        ):
            row = pin_id, reason, bool(everything), created_ns, expires_ns, blobs, size
            yield from typed([row], Pin)

    def expire_pin(self, pin_id: int) -> bool:
        """Let a pin hold nothing any more; False when there is none of that id. In a write transaction."""
        return bool(self._rows("UPDATE pin SET expires_ns = 0 WHERE id = ? RETURNING id", (pin_id,)))

    def remove_pin(self, pin_id: int, limit: int = PIN_STEP) -> bool:
        """Remove so many of the blobs a pin names, then the pin; True when some are left. In a write
        transaction."""
        named = self._rows(
            """DELETE FROM pinned WHERE (blob_id, pin_id) IN
               (SELECT blob_id, pin_id FROM pinned WHERE pin_id = ? LIMIT ?) RETURNING 1""",
            (pin_id, limit),
        )
        if len(named) == limit:
            return True
        self._rows("DELETE FROM pin WHERE id = ?", (pin_id,))
        return False

    def drop_expired_pin(self, now_ns: int, limit: int = PIN_STEP) -> bool:
        """`remove_pin` for one that holds nothing any more; may some be left for the next transaction?"""
        expired = self._rows("SELECT id FROM pin WHERE expires_ns <= ? LIMIT 1", (now_ns,))
        for (pin_id,) in expired:
            self.remove_pin(pin_id, limit)
        return bool(expired)
