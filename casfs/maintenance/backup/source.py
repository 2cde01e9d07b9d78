"""The store that is backed up: a snapshot of it, as long as it is read."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterator

from casfs.errors import CasfsError
from casfs.filestore.directory import LIST, StoreDirectory
from casfs.filestore.local import LocalBlobs
from casfs.maintenance.backup.access import Access
from casfs.snapshots.folder import FOLDER, SnapshotFolder, name_at
from casfs.snapshots.manifest import Manifest
from casfs.store import read_config
from casfs.syscalls import open_beneath

log = logging.getLogger(__name__)

PREFIX = "for-backup"
"""How the names of snapshots begin that are there for a backup that is being made."""

EXPIRES_NS = 7 * 86_400 * 10**9
"""When one goes that nobody has removed: what was killed is gone on with before that, or never."""

TRIES = 3


class Source:
    """A store with a snapshot of it that nobody removes while this is used. For one thread at a time, but for
    `is_held`."""

    def __init__(self, directory: StoreDirectory, manifest: Manifest, held: int) -> None:
        self.directory = directory
        self.manifest = manifest
        self.blobs = LocalBlobs(directory, read_config(directory.path).fan_out)
        self._held = held

    @property
    def database(self) -> str:
        """Of the snapshot, below the store."""
        return f"{FOLDER}/{self.manifest.name}/casfs.db"

    def is_held(self) -> bool:
        """Is the snapshot there still? What it has may be gone otherwise, without being damaged."""
        return _is_there(self.directory, self.manifest.name, self._held)


@contextlib.contextmanager
def source_of(store: str, access: Access, reason: str) -> Iterator[Source]:
    """A snapshot of a store for the time of the block. Raises as `Access.create_snapshot`."""
    with contextlib.ExitStack() as stack:
        directory = StoreDirectory(os.path.realpath(store))
        stack.callback(directory.close)
        folder = SnapshotFolder(directory)
        drop_leftovers(folder, access)
        for _ in range(TRIES):
            name = f"{name_at(PREFIX)}-{secrets.token_hex(2)}"
            access.create_snapshot(directory.path, name, reason, time.time_ns() + EXPIRES_NS)
            stack.callback(_drop, directory.path, name, access)
            held = _hold(directory, name)
            if held is not None:
                stack.callback(os.close, held)
                yield Source(directory, folder.find(name), held)
                return
        raise CasfsError(
            f"snapshots of {directory.path} are removed as soon as they are made", "try it later"
        )


def drop_leftovers(folder: SnapshotFolder, access: Access) -> None:
    """Remove the snapshots that backups have left that were killed."""
    for name in folder.names():
        if not name.startswith(f"{PREFIX}-"):
            continue
        try:
            held = _hold(folder.directory, name)
            if held is not None:
                os.close(held)
                _drop(folder.directory.path, name, access)
        except OSError as error:
            log.warning("snapshot %s, which a backup has left, stays: %s", name, error)


def _hold(directory: StoreDirectory, name: str) -> int | None:
    """Lock a snapshot for who uses it; None when it has gone, or somebody else has it."""
    try:
        fd = open_beneath(directory.fd, f"{FOLDER}/{name}", LIST)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_there(directory, name, fd):
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def _is_there(directory: StoreDirectory, name: str, held: int) -> bool:
    try:
        return os.path.samestat(directory.status(f"{FOLDER}/{name}"), os.fstat(held))
    except OSError:
        return False


def _drop(store: str, name: str, access: Access) -> None:
    try:
        access.drop_snapshot(store, name)
    except (CasfsError, OSError) as error:
        log.warning("snapshot %s, which was there for a backup, stays until it expires: %s", name, error)
