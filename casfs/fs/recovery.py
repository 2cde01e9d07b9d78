"""What a crash left: at every start, in time proportional to what was in flight.

Kernel lookup counts and handles are gone, so inodes without a name go. Staged files that a committed row
names hold data that somebody has synced, or that was rewritten (I5): they are sealed, or stay staged if they
are too sparse, programs still have them mapped, or are so much that the start would take long: then they are
sealed when the file system is in use. All other staged files belong to nobody.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from dataclasses import dataclass

from casfs.errors import CasfsError
from casfs.filestore.hashing import hash_descriptor
from casfs.fs.commit import PASSING, GroupCommit
from casfs.fs.content.content import Content
from casfs.fs.content.contents import Contents
from casfs.fs.content.staged import StagedContents
from casfs.fs.directories import Directories
from casfs.fs.inodes import InodeTable
from casfs.store import Store

log = logging.getLogger(__name__)

REMOVE_BATCH = 500

SEALED_BYTES = 64 << 20
"""Bytes of staged files that are sealed at the start, a tenth of a second; the rest is sealed later."""


@dataclass(slots=True)
class Recovery:
    """What a start has found and done. `clean`: the last user of the store has left nothing to do.

    `staged`: files that rows named; `sealed`: bytes of them that were sealed; `unlinked`: inodes without a
    name, but for those below a directory; `removed`: staged files that no row named. All in `seconds`, of
    which `sync_seconds` were for syncfs(2), which waits for other programs' data on that disk, too.
    """

    clean: bool
    staged: int = 0
    sealed: int = 0
    unlinked: int = 0
    removed: int = 0
    sync_seconds: float = 0.0
    seconds: float = 0.0


def _sync_all(store: Store) -> None:
    """Raises CasfsError when something could not be written since anybody asked, by whoever: once."""
    try:
        store.filestore.sync_all()
    except OSError as error:
        raise CasfsError(
            f"the disk of {store.path} could not write all that it was given: {error.strerror}",
            "what was never synced may be lost, also of others; mount again, and see 'casfs fsck --deep'",
        ) from None


async def recover(
    store: Store, inodes: InodeTable, group: GroupCommit, contents: Contents, directories: Directories
) -> Recovery:
    """Bring a store whose last user may have died to a clean state, durable. Raises FormatError, OSError."""
    began = time.monotonic()
    store.filestore.check_folders()
    await group.begin()
    found = Recovery(store.namespace.note_start(time.time_ns()))
    inodes.reserve_numbers()
    # Before anything is published: a commit of our own takes the place of one that a SIGKILL has cut off
    # between its last byte in the log and its being seen, and what was published and never synced cannot be
    # found again as if it were durable (I1).
    await group.durable()
    if not found.clean:  # after a clean end nothing is there that is not durable, and a disk may be busy
        syncing = time.monotonic()
        _sync_all(store)
        found.sync_seconds = round(time.monotonic() - syncing, 3)
    for row in list(store.namespace.inodes.with_staged()):
        await group.begin()
        found.staged += 1
        left = SEALED_BYTES - found.sealed
        found.sealed += await _restore_staged(store, inodes, contents, row.ino, row.size, left)
    unlinked = store.namespace.inodes.unlinked()
    found.unlinked = len(unlinked)
    await remove_unlinked(inodes, group, contents, directories, unlinked)
    await group.durable()
    kept = {row.staged for row in store.namespace.inodes.with_staged()}
    staging = store.filestore.staging
    staging.close()  # what was sealed above may have left files there for the next writers, named by no row
    for name in staging.names():
        if name in kept:
            continue
        try:
            staging.remove(name)
        except OSError as error:  # a folder, say, which is no part of a store
            log.warning("what is staged as %s is left: %s; see casfs fsck", name, error.strerror)
        else:
            found.removed += 1
    found.seconds = round(time.monotonic() - began, 3)
    if not found.clean:
        log.info(
            "the store was not left cleanly: %d staged files kept (%d bytes sealed), %d removed, "
            "%d unlinked inodes removed, in %.3f s; syncfs took %.3f s of it",
            *(found.staged, found.sealed, found.removed, found.unlinked, found.seconds, found.sync_seconds),
        )
    return found


async def _restore_staged(
    store: Store, inodes: InodeTable, contents: Contents, ino: int, size: int, left: int
) -> int:
    """Let a file have what its row says of its staged file, and seal it if that is up to `left` bytes. The
    bytes that were sealed."""
    try:
        inode = inodes.get(ino)
        if not inode.nlink:
            return 0
        if not inode.is_regular:
            raise OSError(errno.EIO, "it is no file")
        handle = contents.table.open(inode, False, 0)
    except OSError as error:
        log.error("inode %d: its staged content cannot be read: %s; see casfs fsck", ino, error)
        return 0
    staged = handle.content.staged
    assert staged is not None
    # Longer: written after the fsync, lost whole. Shorter: truncated after it, which is a state it had.
    below = os.fstat(staged.fd)
    inode.size = min(below.st_size, size)
    inodes.mark(inode)
    try:
        if below.st_nlink > 1:
            await _copy_staged(store, contents.staged, handle.content)
        elif below.st_size > size:
            os.ftruncate(staged.fd, size)
    finally:
        await contents.files.release(handle)
    contents.settling.rest(inode)
    if inode.size > left:
        return 0
    await contents.settling.seal_closed(inode)
    return inode.size


async def _copy_staged(store: Store, staged: StagedContents, content: Content) -> None:
    """Of a staged file with two names: sealing was cut off, and it is the file of a blob already, of a later
    content maybe, whose row was lost. Nobody may write to it any more (I2), so the inode has a copy. Where
    there is no room for one the blob, if it is nobody's, loses its name, and the file is cut. Another name
    may lie anywhere (I9): then OSError ENOSPC is raised."""
    try:
        await staged.take_copy(content)
    except OSError as error:
        if error.errno not in PASSING:
            raise
        assert content.staged is not None
        digest = hash_descriptor(content.staged.fd, os.fstat(content.staged.fd).st_size)
        if store.namespace.blobs.find(digest) is not None:
            raise
        if not store.filestore.take_back(digest, content.staged):
            raise
        os.ftruncate(content.staged.fd, content.inode.size)
        return
    content.mark_dirty()
    content.rewritten = True


async def remove_unlinked(
    inodes: InodeTable, group: GroupCommit, contents: Contents, directories: Directories, unlinked: list[int]
) -> None:
    """Remove inodes without a name, with everything below a directory, in batches."""
    todo = list(unlinked)
    while todo:
        await group.begin()
        inode = inodes.get(todo[-1])
        more, gone = directories.remove_children(inode, REMOVE_BATCH) if inode.is_directory else (False, [])
        if not more:
            todo.pop()
            contents.discard(inode)
        todo += gone
        if group.is_long:
            await group.durable()
