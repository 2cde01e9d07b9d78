"""What changes in a database that was copied with its store, or out of a snapshot, before it is used."""

from __future__ import annotations

from casfs.namespace.copies import Content
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table


class Adopted(Table):
    """Statements on the database that becomes that of a store. Inside a transaction."""

    def __init__(self, namespace: Namespace) -> None:
        self._query = namespace.query

    def forget_end(self) -> None:
        """Nobody knows how the last process ended: whatever has no row may be there."""
        self._query("DELETE FROM meta WHERE key = 'clean_end'").fetchall()

    def knows(self, digest: bytes) -> bool:
        """Is there a row for that content?"""
        return self._query("SELECT 1 FROM blob WHERE blake3 = ?", (digest,)).get is not None

    def add_orphan(self, content: Content, now_ns: int) -> bool:
        """A row for a content that only a snapshot has; False when there is one."""
        return bool(
            self._query(
                """INSERT INTO blob (blake3, size, refs, created_ns, orphaned_ns) VALUES (?, ?, 0, ?3, ?3)
                   ON CONFLICT DO NOTHING RETURNING 1""",
                (content.digest, content.size, now_ns),
            ).fetchall()
        )
