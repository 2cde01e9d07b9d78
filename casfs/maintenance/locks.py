"""Which trees of a store are locked, in use or not, as its last commit left it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from casfs.store import Store


@dataclass(frozen=True, slots=True)
class LockFacts:
    """`paths`: those of what is locked, from the root of the store, with a leading slash; none when the inode
    is missing, which fsck tells of."""

    paths: tuple[bytes, ...]
    locked_ns: int
    reason: str


def list_locks(store: str) -> list[LockFacts]:
    """By path. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        namespace = opened.namespace
        found = [
            LockFacts(
                tuple(b"/" + path for path in namespace.dentries.paths_of(row.ino)),
                row.locked_ns,
                row.reason,
            )
            for row in namespace.locked.all()
        ]
    return sorted(found, key=lambda each: each.paths)
