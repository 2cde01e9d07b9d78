"""Which digests a store keeps beside BLAKE3, in use or not, as its last commit left it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from casfs.filestore.hashing import ALGORITHMS
from casfs.maintenance.digests.lacking import all_wanted, amount_lacking, wanted_of
from casfs.namespace.digests import DigestRun
from casfs.store import Store, digests_lock


@dataclass(frozen=True, slots=True)
class AlgorithmFacts:
    """`wanted`: every content gets it; `asked`: those in some repositories do. So many `blobs` of so many
    `bytes` have it, the others lack it."""

    name: str
    wanted: bool
    asked: bool
    blobs: int
    bytes: int
    lacking: int
    lacking_bytes: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """`wanted`: what every content is to get; `asked`: what repositories ask for besides. `run`: what is
    under way, or was the last; None before the first. `by`: who computes digests now, "" when nobody does.
    `left`: blobs that lack a digest that is wanted or asked for, and are not known to be damaged, and their
    bytes. `known`: blobs that are known to be damaged."""

    store: str
    wanted: tuple[str, ...]
    asked: tuple[str, ...]
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
        if row is not None or name in (*state.wanted, *state.asked):
            has, has_bytes = (0, 0) if row is None else (row.blobs, row.bytes)
            which = name in state.wanted, name in state.asked
            lacking = blobs - has, size - has_bytes
            algorithms.append(AlgorithmFacts(name, *which, has, has_bytes, *lacking))
    return DigestFacts(blobs, size, tuple(algorithms), state)


def run_facts(path: str) -> RunFacts:
    """Raises as `Store` does, DatabaseError."""
    with contextlib.closing(Store(path, readonly=True)) as store:
        return _state(store)


def _state(store: Store) -> RunFacts:
    wanted = wanted_of(store.namespace)
    asked = tuple(name for name in all_wanted(store.namespace) if name not in wanted)
    left = amount_lacking(store.namespace)
    by = digests_lock(store.path).held_by()
    known = len(store.namespace.damage.known())
    return RunFacts(store.path, wanted, asked, store.namespace.digests.last_run(), by, *left, known)
