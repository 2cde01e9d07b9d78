"""What a crash left: at every start, in time proportional to what was in flight.

Kernel lookup counts and handles are gone, so inodes without a name go. Staged files that a committed row
names hold fsynced data (I5): they are sealed, or stay staged if they are too sparse. All other staged
files belong to nobody.
"""

from __future__ import annotations

import logging
import os

from casfs.fs.commit import GroupCommit
from casfs.fs.files import Files
from casfs.fs.inodes import InodeTable
from casfs.store import Store

log = logging.getLogger(__name__)

REMOVE_BATCH = 500


async def recover(store: Store, inodes: InodeTable, group: GroupCommit, files: Files) -> None:
    """Bring a store whose last user may have died to a clean state, durable."""
    await group.begin()
    inodes.reserve_numbers()
    # Before anything is published: a commit of our own takes the place of one that a SIGKILL has cut off
    # between its last byte in the log and its being seen, and what was published and never synced cannot be
    # found again as if it were durable (I1).
    await group.durable()
    store.filestore.sync_all([])
    for row in list(store.namespace.inodes.with_staged()):
        await group.begin()
        await _seal_staged(store, inodes, files, row.ino, row.size)
    await remove_unlinked(store, inodes, group, files, store.namespace.inodes.unlinked())
    await group.durable()
    kept = {row.staged for row in store.namespace.inodes.with_staged()}
    staging = store.filestore.staging
    for name in staging.names():
        if name not in kept:
            staging.remove(name)


async def _seal_staged(store: Store, inodes: InodeTable, files: Files, ino: int, size: int) -> None:
    inode = inodes.get(ino)
    if not inode.nlink:
        return
    try:
        handle = files.open(inode, True, 0)
    except OSError as error:
        log.error("inode %d: staged content %s cannot be read: %s; see casfs fsck", ino, inode.staged, error)
        return
    staged = handle.content.staged
    assert staged is not None
    # Longer: written after the fsync, lost whole. Shorter: truncated after it, which is a state it had.
    held = os.fstat(staged.fd).st_size
    if held > size:
        os.ftruncate(staged.fd, size)
    handle.content.mark_dirty()
    inode.size = min(held, size)
    await files.release(handle)


async def remove_unlinked(
    store: Store, inodes: InodeTable, group: GroupCommit, files: Files, unlinked: list[int]
) -> None:
    """Remove inodes without a name, with everything below a directory, in batches."""
    todo = list(unlinked)
    while todo:
        await group.begin()
        inode = inodes.get(todo[-1])
        children = (
            store.namespace.dentries.delete_children(inode.ino, REMOVE_BATCH) if inode.is_directory else []
        )
        for ino, _ in children:
            child = inodes.get(ino)
            child.nlink = 0 if child.is_directory else child.nlink - 1
            inodes.changed(child)
            if not child.nlink:
                todo.append(ino)
        group.operations += len(children)
        if not children:
            todo.pop()
            files.discard(inode)
        if group.is_long:
            await group.durable()
