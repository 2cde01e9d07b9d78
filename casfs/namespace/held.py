"""What snapshots hold back from collection: contents to which no file refers, and who has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from casfs.namespace.collecting import Amount
from casfs.namespace.connection import connect, run_script
from casfs.namespace.copies import open_copy
from casfs.namespace.table import Table, typed


class Held(NamedTuple):
    """`together`: what would be collected without any of the snapshots. `alone`: of each of them, in their
    order, what would be without just that one."""

    together: Amount
    alone: list[Amount]


class _Row(NamedTuple):
    snapshot: int
    blobs: int
    bytes: int


class HeldContents(Table):
    """Of one store as its last commit is. All is found in the orphans that it has still rows of: each is
    looked for in each snapshot, in the order of the index, so that a million takes a second for each."""

    def __init__(self, path: str) -> None:
        """`path`: of the store's database, which has been looked at. Raises FormatError, DatabaseError."""
        self._connection = connect(path, readonly=True)
        try:
            run_script(
                self._connection,
                """CREATE TEMP TABLE orphan (
                       blake3 BLOB PRIMARY KEY, size INTEGER, found INTEGER, last INTEGER) WITHOUT ROWID;
                   INSERT INTO temp.orphan SELECT blake3, size, 0, 0 FROM main.blob
                   WHERE refs = 0 ORDER BY blake3""",
            )
        except BaseException:
            self._connection.close()
            raise

    def held(self, snapshots: Sequence[str]) -> Held:
        """By the databases of snapshots, by their paths. Raises FormatError, DatabaseError."""
        for number, path in enumerate(snapshots):
            open_copy(path).close()  # it is looked at
            self._connection.execute("ATTACH DATABASE ? AS snapshot", (path,))
            try:
                self._connection.execute(
                    """UPDATE temp.orphan SET found = found + 1, last = ? WHERE EXISTS
                       (SELECT 1 FROM snapshot.blob AS b WHERE b.blake3 = orphan.blake3)""",
                    (number,),
                )
            finally:
                self._connection.execute("DETACH DATABASE snapshot")
        alone = [Amount(0, 0)] * len(snapshots)
        for row in self._rows("last", "found = 1 GROUP BY last"):
            alone[row.snapshot] = Amount(row.blobs, row.bytes)
        together = self._rows("0", "found > 0")[0]
        return Held(Amount(together.blobs, together.bytes), alone)

    def _rows(self, snapshot: str, which: str) -> list[_Row]:
        rows = self._connection.execute(
            f"SELECT {snapshot}, count(*), coalesce(sum(size), 0) FROM temp.orphan WHERE {which}"
        ).fetchall()
        return typed(rows, _Row)

    def close(self) -> None:
        self._connection.close()
