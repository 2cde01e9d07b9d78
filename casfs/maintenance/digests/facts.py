"""Which digests a store keeps beside BLAKE3, in use or not, as its last commit left it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from casfs.filestore.hashing import ALGORITHMS
from casfs.maintenance.digests.migration import wanted_of
from casfs.namespace.digests import DigestRun
from casfs.store import Store, digests_lock


@dataclass(frozen=True, slots=True)
class AlgorithmFacts:
    """`wanted`: every content gets it. So many `blobs` of so many `bytes` have it, the others lack it."""

    name: str
    wanted: bool
    blobs: int
    bytes: int
    lacking: int
    lacking_bytes: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """`run`: what is under way, or was the last; None before the first. `by`: who computes digests now, ""
    when nobody does. `left`: blobs that lack a digest that is wanted, and are not known to be damaged, and
    their bytes. `known`: blobs that are known to be damaged."""

    store: str
    wanted: tuple[str, ...]
    run: DigestRun | None
    by: str
    left: int
    left_bytes: int
    known: int


@dataclass(frozen=True, slots=True)
class DigestFacts:
    """Of all `blobs`: `algorithms` that are wanted or some blob has."""

    blobs: int
    bytes: int
    algorithms: tuple[AlgorithmFacts, ...]
    state: RunFacts


def digest_facts(path: str) -> DigestFacts:
    """Raises as `Store` does, DatabaseError."""
    with contextlib.closing(Store(path, readonly=True)) as store:
        state = _state(store)
        blobs, size, orphans, orphan_bytes = store.namespace.blobs.totals()
        blobs, size = blobs + orphans, size + orphan_bytes
        kept = {row.algorithm: row for row in store.namespace.digests.kept()}
    algorithms = []
    for name in ALGORITHMS:
        row = kept.get(name)
        if row is not None or name in state.wanted:
            has, has_bytes = (0, 0) if row is None else (row.blobs, row.bytes)
            is_wanted = name in state.wanted
            lacking = blobs - has, size - has_bytes
            algorithms.append(AlgorithmFacts(name, is_wanted, has, has_bytes, *lacking))
    return DigestFacts(blobs, size, tuple(algorithms), state)


def run_facts(path: str) -> RunFacts:
    """Raises as `Store` does, DatabaseError."""
    with contextlib.closing(Store(path, readonly=True)) as store:
        return _state(store)


def _state(store: Store) -> RunFacts:
    wanted = wanted_of(store.namespace)
    digests = store.namespace.digests
    left = digests.amount_lacking(wanted) if wanted else (0, 0)
    by = digests_lock(store.path).held_by()
    known = len(store.namespace.damage.known())
    return RunFacts(store.path, wanted, digests.last_run(), by, *left, known)
