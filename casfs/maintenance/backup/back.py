"""Sending what a backup has back to a store: a snapshot of it is there then, from which it is restored by
rows (maintenance/snapshots/restore.py)."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from msgspec import structs

from casfs.errors import CasfsError
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.local import LocalBlobs
from casfs.maintenance.backup.access import Access
from casfs.maintenance.backup.copying import Unreadable
from casfs.maintenance.backup.destination import check_room
from casfs.maintenance.backup.pace import Pace
from casfs.maintenance.backup.receiving import await_removals, counted, put_database
from casfs.maintenance.backup.send import Sender, remove_copies
from casfs.maintenance.backup.tree import find
from casfs.maintenance.collect.batch import never
from casfs.maintenance.progress import Progress, unwatched
from casfs.namespace.copies import Content, Copies, open_copy
from casfs.namespace.namespace import Namespace
from casfs.namespace.sending import lacking, lacking_of
from casfs.snapshots.folder import DATABASE, FOLDER, NEW, SnapshotFolder, name_at
from casfs.snapshots.manifest import Manifest
from casfs.store import Store, database_path

PREFIX = "for-restore"
"""How the names of snapshots begin that are there for a restore that is being made."""

EXPIRES_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class SentBack:
    """`name`: of the snapshot in the store. `blobs` and `bytes` came back; `unreadable`: what could not."""

    name: str
    blobs: int
    bytes: int
    unreadable: tuple[Unreadable, ...]


@contextlib.contextmanager
def sent_back(
    source: StoreDirectory,
    fan_out: int,
    manifest: Manifest,
    store: str,
    path: bytes,
    *,
    access: Access,
    contents: bool = True,
    rate: int = 0,
    progress: Progress = unwatched,
    stop: Callable[[], bool] = never,
) -> Iterator[SentBack]:
    """For the time of the block a store has a backup as a snapshot, with the contents below `path`, or
    without.

    Raises CasfsError, StoreLocked, OSError, Stopped.
    """
    if not manifest.content:
        raise CasfsError(f"backup {manifest.name} has no contents", "there is nothing to be restored")
    database = SnapshotFolder(source).database(manifest.name)
    with contextlib.closing(open_copy(database)) as namespace:
        find(namespace, path)
    with contextlib.closing(Store(store, shared=True)) as target:
        folder = SnapshotFolder(target.directory)
        name = f"{name_at(PREFIX)}-{secrets.token_hex(2)}"
        with folder.building(name) as building:
            try:
                put_database(source, f"{FOLDER}/{manifest.name}/{DATABASE}", target, building, never)
                size = building.database_is_whole()
                await_removals(target, access, stop)
                sender = Sender(
                    LocalBlobs(source, fan_out),
                    target,
                    f"{FOLDER}/{NEW}{name}",
                    Pace(rate, stop),
                )
                with contextlib.closing(open_copy(building.database)) as wanted:
                    if contents:
                        _send(sender, wanted, target, path, progress)
                building.finish(
                    structs.replace(
                        manifest,
                        name=name,
                        serial=folder.next_serial(),
                        reason=f"to restore from {source.path}"[:200],
                        expires_ns=time.time_ns() + EXPIRES_NS,
                        job="",
                        here=False,
                        database_bytes=size,
                    )
                )
            except BaseException:
                with contextlib.suppress(OSError):
                    remove_copies(target, f"{FOLDER}/{NEW}{name}")
                    building.abandon()
                raise
        try:
            result = sender.result
            yield SentBack(name, result.blobs, result.bytes, tuple(result.unreadable))
        finally:
            access.drop_snapshot(target.path, name)


def _send(sender: Sender, wanted: Namespace, target: Store, path: bytes, progress: Progress) -> None:
    with contextlib.closing(Namespace(database_path(target.path), readonly=True)) as there:

        def missing() -> Iterator[Content]:
            if not path.strip(b"/"):
                return lacking(wanted, there, where="the backup")
            _, row = find(wanted, path)
            return lacking_of(Copies(wanted).below(row.ino), there, where="the backup")

        block = target.directory.statvfs().f_frsize
        files = size = room = 0
        for content in missing():
            files, size = files + 1, size + content.size
            room += -(-content.size // block) * block
        check_room(target, room, files)
        sender.watch(counted(progress, size))
        sender.send(missing())
