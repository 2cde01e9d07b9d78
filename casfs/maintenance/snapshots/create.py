"""Making a snapshot of a store, while it is in use or not.

    building          STORE/snapshots/.new-NAME is there: from here on nothing is collected
    settle            what nobody writes becomes blobs, and everything that was done is durable
    moment            between two groups of the daemon, in the turnstile, so between the transactions of all
                      others: a clone of database and log where the file system shares blocks, else a reader
                      that sees them as they are. Files that are being written are copied, up to COPIED_BYTES
    copy              the rest, while others go on: the database through the reader, larger files
    keep              the copied files become blobs to which nothing refers, but the snapshot
    database_is_whole the rows refer to blobs only. From here on it is asked what is held, and durable
    finish            there is a snapshot

Who writes two files and calls fsync(2) in between never finds the second one newer than the first in a
snapshot: fsync waits while the moment lasts. A file of more than COPIED_BYTES that is written all the time,
on a file system that shares no blocks, is copied after it, and named in the manifest.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import casfs
from casfs.filestore.filestore import copy_range
from casfs.filestore.hashing import hash_bytes, hash_descriptor
from casfs.filestore.locks import Turnstile
from casfs.filestore.reflink import can_clone, clone_database, clone_range
from casfs.filestore.staging import StagedFile, Staging
from casfs.fs.filesystem import FileSystem
from casfs.namespace.copies import LiveRows, SealedRow, StagedRow, fold_log, make_snapshot
from casfs.repositories.filesystem import follower_of
from casfs.snapshots.folder import Building, SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.store import DATABASE, Store
from casfs.types import Digest

log = logging.getLogger(__name__)

COPIED_BYTES = 64 << 20
"""Bytes of files that are being written which are copied while everybody waits: 50 ms."""

TRIES = 3
"""So often a larger one is copied, until it was not written meanwhile."""

UNSTEADY_TOLD = 100
"""Paths of those that never were, in the manifest."""


@dataclass(slots=True)
class _Copied:
    """A file that is being written, and its copy. `source`: open for reading; `is_whole`: all of it is of one
    moment."""

    row: StagedRow
    source: int
    target: StagedFile | None = None
    is_whole: bool = False
    digest: Digest = field(default_factory=lambda: hash_bytes(b""))


async def create(
    fs: FileSystem, name: str, *, reason: str = "", expires_ns: int | None = None, job: str = ""
) -> Manifest:
    """Make a snapshot of everything as it is now. Times as in `Manifest`.

    Raises UsageError for a name that cannot be one, CasfsError for one that is taken, StoreLocked, OSError;
    then there is none.
    """
    run = fs.scheduler.run
    folder = SnapshotFolder(fs.store.directory)
    await run(folder.remove_leftovers, time.time_ns())
    with contextlib.ExitStack() as stack:
        building = await run(stack.enter_context, folder.building(name))
        started_ns = time.time_ns()
        copied: list[_Copied] = []
        try:
            await _settle(fs)
            reader, made_ns = await _moment(fs, building, copied, stack)
            await run(_copy, fs.store, building, reader, copied)
            sealed = [await _keep(fs, each) for each in copied]
            await fs.group.durable()
            await run(make_snapshot, building.part, sealed)
            size = await run(building.database_is_whole)
            manifest = Manifest(
                name=name,
                serial=await run(folder.next_serial),
                made_ns=made_ns,
                reason=reason,
                expires_ns=expires_ns,
                job=job,
                uuid=str(fs.store.namespace.meta("uuid")),
                source=fs.store.path,
                host=platform.node(),
                version=casfs.__version__,
                schema=fs.store.namespace.version,
                database_bytes=size,
                started_ns=started_ns,
                ended_ns=time.time_ns(),
                unsteady=tuple(_path(fs, each.row.ino) for each in copied if not each.is_whole)[
                    :UNSTEADY_TOLD
                ],
            )
            await run(building.finish, manifest)
            fs.snapshots.appeared(name)
        except BaseException:
            _drop(fs, copied)
            with contextlib.suppress(OSError):
                building.abandon()
            raise
    for path in manifest.unsteady:
        log.warning("snapshot %s: %s was written while it was copied", name, path)
    return manifest


async def _settle(fs: FileSystem) -> None:
    """Have everything that nobody writes sealed, and what was done durable. What cannot be sealed is
    copied."""
    await fs.contents.settling.write_back()
    await fs.contents.settling.seal_all_closed()
    await follower_of(fs).drain()
    await fs.group.durable()


async def _moment(
    fs: FileSystem, building: Building, copied: list[_Copied], stack: contextlib.ExitStack
) -> tuple[LiveRows | None, int]:
    """The reader that sees the rows of the moment, None if they were cloned; when it was, in nanoseconds
    since 1970. The files that were being written go to `copied`, also when this fails."""
    run = fs.scheduler.run
    clones = await run(can_clone, fs.store.directory)
    if not clones:
        fs.store.filestore.space.claim(fs.store.directory.status(DATABASE).st_size)
    turnstile = Turnstile(fs.store.directory)
    stack.callback(turnstile.close)
    async with fs.group.between():
        await run(turnstile.enter)
        try:
            made_ns = time.time_ns()
            reader = await run(_take, fs.store, building, clones, copied, stack)
        finally:
            turnstile.leave()
    return reader, made_ns


def _take(
    store: Store, building: Building, clones: bool, copied: list[_Copied], stack: contextlib.ExitStack
) -> LiveRows | None:
    rows = LiveRows(store.namespace.path)
    try:
        if clones:
            _clone(store, building)
        for row in rows.staged():
            each = _Copied(row, store.directory.open(store.filestore.staging.name(row.staged)))
            stack.callback(os.close, each.source)
            copied.append(each)
        _copy_small(store, copied, clones)
    except BaseException:
        rows.close()
        raise
    if clones:
        rows.close()
        return None
    stack.callback(rows.close)
    return rows


def _clone(store: Store, building: Building) -> None:
    """The database first: the log has what is moved into it meanwhile (nobody can begin it anew)."""
    os.close(building.create_part())
    store.directory.unlink(building.part_name)
    clone_database(store.directory, DATABASE, building.part_name)
    source = store.directory.open(f"{DATABASE}-wal")
    try:
        if os.fstat(source).st_size:
            target = building.create_log()
            try:
                clone_range(source, target)
            finally:
                os.close(target)
    finally:
        os.close(source)


def _copy_small(store: Store, copied: list[_Copied], clones: bool) -> None:
    """In the moment: the smallest first, as many as may be waited for; all where a copy shares its blocks."""
    left = COPIED_BYTES
    for each in sorted(copied, key=lambda each: each.row.size):
        if not clones and (left := left - each.row.size) < 0:
            break
        each.target = _new_staged(store)
        if clones:
            clone_range(each.source, each.target.fd)
        else:
            _copy_data(each.source, each.target.fd, each.row.size)
        each.is_whole = True


def _copy(store: Store, building: Building, reader: LiveRows | None, copied: list[_Copied]) -> None:
    """What can be copied while others go on. Blocks. The database first: as long as its reader is there the
    log grows, and large files may take long."""
    if reader is None:
        fold_log(building.part)
    else:
        os.close(building.create_part())
        reader.copy_to(building.part)
        reader.close()
    _check_room(store, copied)
    for each in copied:
        if each.target is None:
            each.target = _new_staged(store)
            for _ in range(TRIES):
                before = os.fstat(each.source).st_ctime_ns
                os.ftruncate(each.target.fd, 0)
                _copy_data(each.source, each.target.fd, each.row.size)
                each.is_whole = os.fstat(each.source).st_ctime_ns == before
                if each.is_whole:
                    break
        os.ftruncate(each.target.fd, each.row.size)
        each.digest = hash_descriptor(each.target.fd, each.row.size)


def _check_room(store: Store, copied: list[_Copied]) -> None:
    """Is there room for the copies that are still to be made, so that they take none from who writes? Raises
    OSError ENOSPC."""
    wanted = sum(
        min(each.row.size, os.fstat(each.source).st_blocks * 512) for each in copied if each.target is None
    )
    left = store.filestore.space.left().bytes
    if wanted > left:
        raise OSError(
            errno.ENOSPC, f"there is no room for copies of what is being written: {wanted} bytes are needed"
        )


def _new_staged(store: Store) -> StagedFile:
    """As `Staging.create`, from any thread."""
    name = Staging.new_name()
    return StagedFile(name, store.directory.create(store.filestore.staging.name(name), 0o600))


def _copy_data(source: int, target: int, size: int) -> None:
    """Copy the first bytes of a file, its holes as holes; what is beyond its end is one, too."""
    for start, end in _data(source, size):
        copy_range(source, target, end - start, start, start)
    os.ftruncate(target, size)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where there is data, lseek(2)."""
    end = 0
    size = min(size, os.fstat(fd).st_size)
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        if start >= size:
            return
        end = min(size, os.lseek(fd, start, os.SEEK_HOLE))
        yield start, end


async def _keep(fs: FileSystem, copied: _Copied) -> SealedRow:
    row, target = copied.row, copied.target
    assert target is not None
    allocated = min(os.fstat(target.fd).st_blocks * 512, row.size + 511 & ~511)
    copied.target = None
    blob = None
    try:
        if row.size:
            blob = await fs.contents.sealing.keep(copied.digest, row.size, target)
        else:
            fs.store.filestore.staging.drop(target)
    except BaseException:
        fs.store.filestore.staging.drop(target)
        raise
    return SealedRow(row.ino, blob, copied.digest, row.size, allocated)


def _drop(fs: FileSystem, copied: list[_Copied]) -> None:
    for each in copied:
        if each.target is not None:
            with contextlib.suppress(OSError):
                fs.store.filestore.staging.drop(each.target)


def _path(fs: FileSystem, ino: int) -> str:
    paths = fs.store.namespace.dentries.paths_of(ino)
    return os.fsdecode(paths[0]).encode(errors="replace").decode() if paths else f"inode {ino}"


async def drop(fs: FileSystem, name: str) -> None:
    """Remove a snapshot: what only it holds may be collected. Raises UsageError, CasfsError, OSError."""
    folder = SnapshotFolder(fs.store.directory)
    if folder.exists(name):
        fs.snapshots.dropped(name)  # who has a file of it open has it for himself, before it may be collected
    await fs.scheduler.run(folder.remove, name)
    fs.snapshots.dropped(name)  # somebody may have looked for it meanwhile
