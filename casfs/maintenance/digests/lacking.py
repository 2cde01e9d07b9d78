"""Which blobs lack which digests: of those that every content is to get, and of those that repositories ask
for what lies in them."""

from __future__ import annotations

import contextlib
from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from casfs.errors import FormatError
from casfs.filestore.hashing import ALGORITHMS
from casfs.namespace.damage import BlobToRead
from casfs.namespace.namespace import Namespace
from casfs.repositories.rules import decode


class Lack(NamedTuple):
    """A blob, and the algorithms of the digests it lacks."""

    blob: BlobToRead
    algorithms: tuple[str, ...]


Find = Callable[[int, int], list[Lack]]
"""What is lacking: of blobs with ids behind the first number, by id, no more than the second. Called from one
thread; with 0 it looks anew."""


def wanted_of(namespace: Namespace) -> tuple[str, ...]:
    """What every content is to get, and can. Raises DatabaseError."""
    return tuple(name for name in namespace.digests.wanted() if name in ALGORITHMS)


def asked_by_repositories(namespace: Namespace) -> dict[int, tuple[str, ...]]:
    """What they want besides that, by the inode number of their directory. Raises DatabaseError."""
    wanted = wanted_of(namespace)
    found = {}
    for row in namespace.repositories.all():
        with contextlib.suppress(FormatError):  # that of a damaged one is for fsck
            rules = decode(row.rules)
            if more := tuple(sorted(set(rules.digests) & ALGORITHMS.keys() - set(wanted))):
                found[row.ino] = more
    return found


def all_wanted(namespace: Namespace) -> tuple[str, ...]:
    """What any content is to get. Raises DatabaseError."""
    asked = asked_by_repositories(namespace).values()
    return tuple(sorted({*wanted_of(namespace), *(name for names in asked for name in names)}))


def amount_lacking(namespace: Namespace) -> tuple[int, int]:
    """How many blobs lack something, and their bytes. Raises DatabaseError."""
    digests, wanted = namespace.digests, wanted_of(namespace)
    blobs, size = digests.amount_lacking(wanted) if wanted else (0, 0)
    more: dict[int, int] = {}
    for repository, algorithms in asked_by_repositories(namespace).items():
        more.update(digests.lacking_below(repository, algorithms, wanted))
    return blobs + len(more), size + sum(more.values())


class Lacking:
    """Owned by one thread. `_below`: for each repository that asks for more, ids of blobs that lacked some
    when it was looked at last."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._digests = namespace.digests
        self._below: list[tuple[tuple[str, ...], array[int]]] = []

    def find(self, after: int, limit: int) -> list[Lack]:
        """As `Find`. What every content is to get is asked for each time. Raises DatabaseError."""
        if not after:
            self._look_below()
        while True:
            step = self._step(after, limit)
            found = [lack for lack in step if lack.algorithms]
            if found or not step:
                return found
            after = step[-1].blob.id  # all of them were computed, or are not there, since it was looked at

    def _look_below(self) -> None:
        self._below.clear()
        for repository, algorithms in asked_by_repositories(self._namespace).items():
            ids = array("q", sorted(blob for blob, _ in self._digests.lacking_below(repository, algorithms)))
            if ids:
                self._below.append((algorithms, ids))

    def _step(self, after: int, limit: int) -> list[Lack]:
        wanted = wanted_of(self._namespace)
        blobs = {blob.id: blob for blob in self._digests.lacking(wanted, after, limit)} if wanted else {}
        more: dict[int, set[str]] = {}
        for algorithms, ids in self._below:
            begin = bisect_right(ids, after)
            for blob in ids[begin : begin + limit]:
                more.setdefault(blob, set()).update(algorithms)
        found = []
        for blob in sorted(blobs.keys() | more.keys())[:limit]:
            row = blobs.get(blob) or self._digests.blob(blob) or BlobToRead(blob, b"", 0)
            asked = {*wanted, *more.get(blob, ())} if row.digest else set()
            found.append(Lack(row, tuple(sorted(asked - self._digests.of(blob).keys()))))
        return found
