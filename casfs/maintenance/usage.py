"""The storage summary: what a store holds, what deduplication saves."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from casfs.errors import CasfsError
from casfs.maintenance.repositories import RepositoryFacts, described
from casfs.maintenance.snapshots.look import held
from casfs.namespace.collecting import Amount
from casfs.namespace.connection import DatabaseError
from casfs.namespace.copies import open_copy
from casfs.namespace.usage import below, usage
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import Store, database_path
from casfs.types import Room


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What the regular files below one directory hold.

    `files` counts names: a file with two hard links counts twice, in `bytes` (apparent sizes) too.
    `blobs` and `blob_bytes` count each distinct content once in the row, whoever else has it. A repository
    that holds no files itself has none here. `repository`: None for what is no directory.
    """

    name: bytes
    files: int
    bytes: int
    blobs: int
    blob_bytes: int
    repository: RepositoryFacts | None = None


@dataclass(frozen=True, slots=True)
class SnapshotUsage:
    """What would be collected without a snapshot, and the size of its database. `bytes`: of those blobs."""

    name: str
    blobs: int
    bytes: int
    database_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """`rows`: the top-level directories by name, then the files in the root itself as `/` if there are any.

    `total` has the sums of `files` and `bytes`, and every blob in use once: those that several rows share,
    and those of files that are unlinked and still open. The trash does not count: it has `trash_files`
    of `trash_bytes`, and `trash_blob_bytes` of blobs that nothing else has. `orphans` are blobs no file has,
    `staged` the files being written that take room on disk already. `snapshots`: the oldest first; orphans
    that all of them together hold are `held` of `held_bytes`. Sizes in bytes.
    """

    rows: tuple[UsageRow, ...]
    total: UsageRow
    orphans: int
    orphan_bytes: int
    staged: int
    staged_bytes: int
    database_bytes: int
    room: Room
    trash_files: int = 0
    trash_bytes: int = 0
    trash_blob_bytes: int = 0
    snapshots: tuple[SnapshotUsage, ...] = ()
    held: int = 0
    held_bytes: int = 0


def summarize(path: str) -> Usage:
    """The summary of a store, in use or not, as its last commit left it.

    Raises StoreNotFound, FormatError, FormatTooNew, OSError.
    """
    store = Store(path, readonly=True)
    try:
        directories, in_root, in_store, in_trash = usage(store.namespace)
        repositories = {repository.name: repository for repository in described(store.namespace)}
        blobs, blob_bytes, orphans, orphan_bytes = in_store
        trash_files, trash_bytes, trash_blobs, trash_blob_bytes = in_trash
        database_bytes = _database_bytes(database_path(store.path))
        staged, staged_bytes = store.filestore.staging.usage()
        room = store.filestore.space.room()
        snapshots, held = _snapshots(store)
    finally:
        store.close()
    rows = [UsageRow(name, *figures, repositories.get(name)) for name, figures in directories.items()]
    if in_root.files:
        rows.append(UsageRow(b"/", *in_root))
    files, shown = sum(row.files for row in rows), sum(row.bytes for row in rows)
    total = UsageRow(b"", files, shown, blobs - trash_blobs, blob_bytes - trash_blob_bytes)
    trash = trash_files, trash_bytes, trash_blob_bytes
    return Usage(
        tuple(rows),
        total,
        orphans,
        orphan_bytes,
        staged,
        staged_bytes,
        database_bytes,
        room,
        *trash,
        snapshots,
        *held,
    )


def _snapshots(store: Store) -> tuple[tuple[SnapshotUsage, ...], Amount]:
    """Those that can be read, and what they hold together; of others fsck tells. Raises OSError."""
    folder = SnapshotFolder(store.directory)
    if not folder.names():
        return (), Amount(0, 0)
    manifests = [manifest for manifest in folder.all() if _is_sound(folder, manifest.name)]
    found = held(database_path(store.path), folder, [manifest.name for manifest in manifests])
    rows = [
        SnapshotUsage(manifest.name, alone.blobs, alone.bytes, manifest.database_bytes)
        for manifest, alone in zip(manifests, found.alone, strict=True)
    ]
    return tuple(rows), found.together


def _is_sound(folder: SnapshotFolder, name: str) -> bool:
    try:
        open_copy(folder.database(name)).close()
    except (CasfsError, DatabaseError):
        return False
    return True


def summarize_repositories(path: str) -> list[UsageRow]:
    """The rows of repositories that are more than plain directories, by name. Raises as `summarize`."""
    with contextlib.closing(Store(path, readonly=True)) as store:
        found = [repository for repository in described(store.namespace) if not repository.plain]
        figures = below(store.namespace, (repository.ino for repository in found))
        return [UsageRow(each.name, *figures[each.ino], each) for each in found]


def _database_bytes(path: str) -> int:
    """The database with its log."""
    size = os.stat(path).st_size
    with contextlib.suppress(FileNotFoundError):
        size += os.stat(f"{path}-wal").st_size
    return size
