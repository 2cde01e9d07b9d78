"""What can be wrong with further digests of blobs, found by queries, and the changes that mend it.

Whether a value is that of the bytes is for who reads them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from casfs.namespace.damage import BlobToRead
from casfs.namespace.digests import DigestRow
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table, typed

# Algorithms that there are, and bytes of their digests; each row that is none of theirs, or of no blob.
_BAD = """WITH known (algorithm, size) AS (VALUES {places})
    SELECT d.blob_id, d.algorithm, b.id IS NULL AS is_stray
    FROM blob_digest AS d LEFT JOIN known AS k ON k.algorithm = d.algorithm
    LEFT JOIN blob AS b ON b.id = d.blob_id
    WHERE b.id IS NULL OR k.size IS NULL OR typeof(d.value) <> 'blob' OR length(d.value) <> k.size"""


class BadDigest(NamedTuple):
    """A row that is none. `is_stray`: since its blob is gone; else the algorithm is unknown, or the length of
    the value is not that of its digests."""

    blob_id: int
    algorithm: Any
    is_stray: bool


class DigestChecks(Table):
    """`sizes`: bytes of a digest by algorithm. Iterators must be used up before rows are changed."""

    def __init__(self, namespace: Namespace, sizes: Mapping[str, int]) -> None:
        self._namespace = namespace
        self._sizes = sizes
        self._known = [value for pair in sizes.items() for value in pair]

    def _rows(self, sql: str, *bindings: Any) -> Iterator[Any]:
        yield from self._namespace.query(sql, bindings)

    def _bad(self) -> str:
        return _BAD.format(places=", ".join(["(?, ?)"] * len(self._sizes)))

    def bad(self) -> Iterator[BadDigest]:
        for blob_id, algorithm, is_stray in self._rows(self._bad(), *self._known):
            yield BadDigest(blob_id, algorithm, bool(is_stray))

    def unknown_wanted(self) -> list[str]:
        """What every content is to get, and nothing computes."""
        return [name for name in self._namespace.digests.wanted() if name not in self._sizes]

    def sound(self, blob_id: int) -> tuple[tuple[str, bytes], ...]:
        """Those digests of a blob that can be some, by algorithm."""
        rows = self._rows("SELECT algorithm, value FROM blob_digest WHERE blob_id = ?", blob_id)
        return tuple(
            (algorithm, value)
            for algorithm, value in rows
            if isinstance(value, bytes) and len(value) == self._sizes.get(algorithm)
        )

    def sample(self, count: int) -> list[BlobToRead]:
        """Blobs that have such digests, with them: all, if there are no more than `count`, or else some."""
        first = "SELECT DISTINCT blob_id FROM blob_digest ORDER BY blob_id LIMIT ?"
        ids = [blob_id for (blob_id,) in self._rows(first, count + 1)]
        if len(ids) > count:
            highest = self._namespace.query("SELECT max(blob_id) FROM blob_digest").get
            nearest = "SELECT min(blob_id) FROM blob_digest WHERE blob_id >= ?"
            ids = [self._namespace.query(nearest, (random.randint(1, highest),)).get for _ in range(count)]
        found = []
        for blob_id in sorted(set(ids)):
            rows = self._rows(
                """SELECT id, blake3, size FROM blob WHERE id = ? AND typeof(blake3) = 'blob'
                   AND length(blake3) = 32 AND typeof(size) = 'integer'""",
                blob_id,
            )
            found += [row._replace(others=self.sound(blob_id)) for row in typed(rows, BlobToRead)]
        return found

    # Inside a write transaction

    def remove_bad(self) -> None:
        """What is removed can be computed anew."""
        for row in list(self.bad()):
            delete = "DELETE FROM blob_digest WHERE blob_id IS ? AND algorithm IS ?"
            self._namespace.query(delete, (row.blob_id, row.algorithm))
        if self.unknown_wanted():
            wanted = self._namespace.digests.wanted()
            self._namespace.digests.set_wanted(name for name in wanted if name in self._sizes)

    def correct(self, rows: Iterable[DigestRow]) -> None:
        """Give the digests that are there these values."""
        for row in rows:
            update = "UPDATE blob_digest SET value = ? WHERE blob_id = ? AND algorithm = ?"
            self._namespace.query(update, (row.value, row.blob_id, row.algorithm))
