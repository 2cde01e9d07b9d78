"""What snapshots there are, and what each has."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from casfs.errors import CasfsError
from casfs.filestore.directory import StoreDirectory
from casfs.namespace.collecting import Amount
from casfs.namespace.copies import Copies, HeldDigests, open_copy
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Counts, Manifest
from casfs.store import Store, read_config

STEP = 5_000
"""Contents that are asked for at a time."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The snapshots of a store, oldest first, and why others cannot be read."""

    snapshots: list[tuple[Manifest, Counts | None]]
    problems: list[str]


def listed(store: str) -> Listed:
    """Of a store, mounted or not. Counts what nobody has counted yet, 0.3 s for a million files. Raises
    StoreNotFound, FormatError, OSError."""
    read_config(store)
    with contextlib.closing(StoreDirectory(store)) as directory:
        folder = SnapshotFolder(directory)
        manifests, problems = folder.survey()
        told = [str(problem) for problem in problems]
        found: list[tuple[Manifest, Counts | None]] = []
        for manifest in manifests:
            try:
                found.append((manifest, counted(folder, manifest.name)))
            except (OSError, CasfsError) as error:
                found.append((manifest, None))
                told.append(f"snapshot {manifest.name} cannot be read: {error}")
        return Listed(found, told)


def counted(folder: SnapshotFolder, name: str) -> Counts:
    """What a snapshot has. Raises CasfsError, FormatError, DatabaseError."""
    counts = folder.counts(name)
    if counts is None:
        with contextlib.closing(open_copy(folder.database(name))) as namespace:
            counts = Counts(*Copies(namespace).figures())
        folder.note_counts(name, counts)
    return counts


def shown(store: str, name: str) -> tuple[Manifest, Counts, Amount]:
    """One snapshot, what it has, and what would be collected without it. Raises CasfsError, FormatError,
    OSError."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        folder = SnapshotFolder(opened.directory)
        manifest = folder.find(name)
        return manifest, counted(folder, name), held_alone(opened, folder, name)


def held_alone(store: Store, folder: SnapshotFolder, name: str) -> Amount:
    """What a snapshot refers to and nothing else does: no file, no other snapshot. Raises FormatError,
    OSError."""
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(contextlib.closing(open_copy(folder.database(name))))
        others = [
            stack.enter_context(contextlib.closing(HeldDigests(folder.database(other))))
            for other in folder.names()
            if other != name
        ]
        rows, after, blobs, size = Copies(own), b"", 0, 0
        live = Copies(store.namespace)
        while found := rows.contents(after, STEP):
            after = found[-1].digest
            left = {content.digest: content.size for content in found}
            for digest in live.used([content.digest for content in found]):
                del left[digest]
            for other in others:
                for digest in other.held(left.keys()):
                    del left[digest]
            blobs, size = blobs + len(left), size + sum(left.values())
    return Amount(blobs, size)
