"""What a store needs before it is sent the contents of a snapshot (send.py), for backup and restore alike."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack

from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.backup.access import Access
from casfs.maintenance.backup.destination import check_room
from casfs.maintenance.backup.filecopy import copy_file
from casfs.maintenance.collect.batch import Stop, transaction
from casfs.maintenance.progress import Progress
from casfs.snapshots.folder import Building
from casfs.store import Store


def put_database(source: StoreDirectory, name: str, target: Store, building: Building, stop: Stop) -> None:
    """Copy the database `name`, below the store it comes from, into an unfinished snapshot of `target`; not
    durable. Raises Stopped, CasfsError where there is no room, OSError."""
    database = source.open(name)
    try:
        size = os.fstat(database).st_size
        check_room(target, size, 2)
        part = building.create_part()
        try:
            copy_file(database, part, size, stop)
        finally:
            os.close(part)
    finally:
        os.close(database)


def await_removals(store: Store, access: Access, stop: Stop) -> None:
    """Return when everybody who had decided before to remove a blob has removed it, and asks the snapshots
    anew: a collector has its turn until the files have gone, the daemon of a mount says so. Raises Stopped,
    StoreLocked, CasfsError, OSError."""
    with ExitStack() as stack:
        stack.enter_context(transaction(store, stop))
    access.await_collection(store.path)


def counted(progress: Progress, size: int) -> Callable[[int], None]:
    """What `Sender.watch` takes, for `size` bytes in all."""
    lock, done = threading.Lock(), 0

    def sent(count: int) -> None:
        nonlocal done
        with lock:
            done += count
        progress("copying", min(done, size), size)

    return sent
