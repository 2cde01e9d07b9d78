"""What backups have done by daemons (maintenance/backup/access.py)."""

from __future__ import annotations

import contextlib
import time

from casfs.control.access import StoreAccess
from casfs.control.messages import CreateSnapshot, DropSnapshot, RestoredSnapshot, RestoreSnapshot
from casfs.errors import CasfsError, StoreLocked
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.collect.mounted import UNRECORDED
from casfs.snapshots.folder import SnapshotFolder

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.2
"""How long a store that another command has is waited for, and how often it is tried."""


class BackupAccess:
    """`Access`, through control sockets."""

    def create_snapshot(self, store: str, name: str, reason: str, expires_ns: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                StoreAccess(store).perform(CreateSnapshot(name, reason, expires_ns))
                return
            except StoreLocked:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def drop_snapshot(self, store: str, name: str) -> None:
        with contextlib.closing(StoreDirectory(store)) as directory:
            folder = SnapshotFolder(directory)
            try:
                if StoreAccess(store).tell(DropSnapshot(name)) is None:
                    folder.remove(name)
            except (CasfsError, OSError):
                if folder.exists(name):
                    raise

    def restore_snapshot(self, store: str, name: str, path: str, to: str, *, force: bool) -> RestoredSnapshot:
        paths = [path] if path else []
        return StoreAccess(store).perform(RestoreSnapshot(name, paths, to, force))

    def await_collection(self, store: str) -> None:
        # The daemon collects one batch at a time: an empty one comes after the files of the one before.
        StoreAccess(store).collect([], 0, time.time_ns(), UNRECORDED)

    def damaged(self, store: str, blobs: list[int]) -> None:
        StoreAccess(store).damaged(blobs)
