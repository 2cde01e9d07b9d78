"""What a store that is sent blobs has to know and to note: which contents it has, and orphans for the new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from casfs.errors import FormatError
from casfs.namespace.copies import Content, Copies
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table, typed
from casfs.types import DIGEST_SIZE

STEP = 10_000
"""Contents that are compared at a time."""


class Sending(Table):
    """Of the store that is sent something."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def between(self, low: bytes, high: bytes) -> set[bytes]:
        """The digests in a range, both ends included, that have a row."""
        found: set[bytes] = set()
        while rows := self._digests(
            "SELECT blake3 FROM blob WHERE blake3 BETWEEN ? AND ? ORDER BY blake3 LIMIT ?", low, high, STEP
        ):
            found.update(rows)
            if len(rows) < STEP:
                break
            low = rows[-1] + b"\0"  # the lowest above it
        return found

    def _digests(self, sql: str, *bindings: Any) -> list[bytes]:
        rows: Any = self._namespace.query(sql, bindings).fetchall()
        return [digest for (digest,) in rows]

    def rows_between(self, low: bytes, high: bytes) -> dict[bytes, tuple[int, int]]:
        """digest -> (number, bytes) of those in a range, both ends included."""
        found: dict[bytes, tuple[int, int]] = {}
        while True:
            rows = self._namespace.query(
                "SELECT blake3, id, size FROM blob WHERE blake3 BETWEEN ? AND ? ORDER BY blake3 LIMIT ?",
                (low, high, STEP),
            ).fetchall()
            contents = typed(rows, Content)
            found.update((content.digest, (content.id, content.size)) for content in contents)
            if len(contents) < STEP:
                return found
            low = contents[-1].digest + b"\0"

    def known(self, digests: Iterable[bytes]) -> set[bytes]:
        """Those of the digests that have a row."""
        query = self._namespace.query
        return {
            digest
            for digest in digests
            if query("SELECT 1 FROM blob WHERE blake3 = ?", (digest,)).get is not None
        }

    def add_orphans(self, contents: Iterable[Content], now_ns: int) -> None:
        """Rows to which nothing refers, for contents whose files are there, durable (I1). In a write
        transaction."""
        for content in contents:
            self._namespace.query(
                """INSERT INTO blob (blake3, size, refs, created_ns, orphaned_ns) VALUES (?, ?, 0, ?, ?)
                   ON CONFLICT (blake3) DO NOTHING""",
                (content.digest, content.size, now_ns, now_ns),
            )

    def damaged(self) -> set[bytes]:
        """The digests of blobs that are noted as damaged."""
        return set(self._digests("SELECT b.blake3 FROM damage AS d JOIN blob AS b ON b.id = d.blob_id"))

    def no_longer_damaged(self, digests: Iterable[bytes]) -> None:
        """These have got whole files. In a write transaction."""
        for digest in digests:
            self._namespace.query(
                "DELETE FROM damage WHERE blob_id = (SELECT id FROM blob WHERE blake3 = ?)", (digest,)
            )


def lacking(wanted: Namespace, target: Namespace, *, where: str) -> Iterator[Content]:
    """The contents that one database has and the other one lacks, by their digests, or has as damaged: by a
    merge of both in their order, so that no memory is needed for what they have. `where`: whose contents
    they are, for the message. Raises FormatError for digests and sizes that are none, DatabaseError."""
    return lacking_of(Copies(wanted).all_contents(STEP), target, where=where)


def lacking_of(contents: Iterable[Content], target: Namespace, *, where: str) -> Iterator[Content]:
    """The same, of contents in the order of their digests."""
    sending = Sending(target)
    damaged = sending.damaged()
    each = iter(contents)
    while found := list(islice(each, STEP)):
        there = sending.between(found[0].digest, found[-1].digest)
        for content in found:
            if len(content.digest) != DIGEST_SIZE or content.size <= 0:
                raise FormatError(f"{where} has a content that cannot be one", "restore it from elsewhere")
            if content.digest not in there or content.digest in damaged:
                yield content
