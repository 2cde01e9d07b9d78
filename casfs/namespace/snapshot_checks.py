"""fsck of a snapshot's database against that of its store."""

from __future__ import annotations

from casfs.namespace.connection import connect
from casfs.namespace.copies import Content, open_copy
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table, typed


class SnapshotChecks(Table):
    """For one thread at a time."""

    def __init__(self, snapshot: str, store: str) -> None:
        """The paths of both; the store's has been looked at. Raises FormatError, DatabaseError."""
        open_copy(snapshot).close()  # it is looked at
        self._connection = connect(store, readonly=True)
        try:
            self._connection.execute("ATTACH DATABASE ? AS snapshot", (snapshot,))
        except BaseException:
            self._connection.close()
            raise

    def without_row(self, limit: int) -> list[Content]:
        """Contents that the snapshot refers to, and the store has no row of; up to `limit`, by digest."""
        rows = self._connection.execute(
            """SELECT blake3, id, size FROM snapshot.blob AS b
               WHERE NOT EXISTS (SELECT 1 FROM main.blob AS k WHERE k.blake3 = b.blake3)
               ORDER BY blake3 LIMIT ?""",
            (limit,),
        ).fetchall()
        return typed(rows, Content)

    def close(self) -> None:
        self._connection.close()


def add_orphan(namespace: Namespace, content: Content, now_ns: int) -> None:
    """A row for a content that only snapshots refer to, under its number there, if that is free. Inside a
    transaction."""
    taken = namespace.query("SELECT 1 FROM blob WHERE id = ?", (content.id,)).get is not None
    namespace.query(
        "INSERT INTO blob (id, blake3, size, refs, created_ns, orphaned_ns) VALUES (?, ?, ?, 0, ?, ?)",
        (None if taken else content.id, content.digest, content.size, now_ns, now_ns),
    ).fetchall()
