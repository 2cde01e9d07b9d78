"""Locking trees and unlocking them (locks.py). Each verb happens wholly or not at all, and is durable when it
returns."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence

from casfs.errors import FsError
from casfs.filestore.staging import LENT
from casfs.fs.content.content import Content
from casfs.fs.copy import find
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.namespace.locked import LockedRow
from casfs.repositories.filesystem import locks_of
from casfs.types import ROOT_INO

WAIT_SECONDS, WAIT_STEP = 2.0, 0.02
"""How long is waited for programs that write, and how often is looked: close(2) returns before the kernel
tells of it."""


async def lock(fs: FileSystem, paths: Sequence[bytes], reason: str) -> None:
    """Lock what these paths stand for, with all below them; what is locked itself gets that reason.

    Raises FsError ENOENT, ENOTDIR; EINVAL for what has no row of its own; EBUSY while a program has a file
    there open for writing, or mapped.
    """
    inodes = [_lockable(fs, path) for path in paths]
    locks = locks_of(fs)
    now_ns = time.time_ns()
    await _make_unwritten(fs, {inode.ino for inode in inodes})
    # From here on without a wait: nobody opens anything for writing.
    for path, inode in zip(paths, inodes, strict=True):
        if _lockable(fs, path) is not inode:
            raise FsError(errno.EBUSY, f"{os.fsdecode(path)}: it was moved meanwhile; try again")
    with fs.store.namespace.savepoint():
        for inode in inodes:
            fs.store.namespace.locked.add(LockedRow(inode.ino, now_ns, reason))
    fs.group.count(len(inodes))
    locks.read()
    await _settled(fs)


async def unlock(fs: FileSystem, paths: Sequence[bytes]) -> None:
    """Remove the locks that these paths have. Raises FsError ENOENT, ENOTDIR; EINVAL for what has none of its
    own, with the path of the one that locks it."""
    await fs.group.begin()
    locks = locks_of(fs)
    gone: set[int] = set()
    for path in paths:
        inode = _existing(fs, path)
        if inode.ino not in locks.roots:
            root = locks.of(inode)
            above = _path(fs, root) if root else ""
            why = f"it is locked by the lock on {above}" if root else "it is not locked"
            raise FsError(errno.EINVAL, f"{os.fsdecode(path)}: {why}")
        gone.add(inode.ino)
    with fs.store.namespace.savepoint():
        fs.store.namespace.locked.remove(gone)
    fs.group.count(len(gone))
    locks.read()
    await fs.group.durable()


async def _settled(fs: FileSystem) -> None:
    """Durable; and what was under way before, and had to wait for a group, is over."""
    await fs.group.durable()
    await fs.scheduler.pause()
    await fs.group.durable()


def _existing(fs: FileSystem, path: bytes) -> Inode:
    inode = find(fs, path).inode
    if inode is None:
        raise FsError(errno.ENOENT, f"{os.fsdecode(path)}: {os.strerror(errno.ENOENT)}")
    return inode


def _lockable(fs: FileSystem, path: bytes) -> Inode:
    inode = _existing(fs, path)
    why = ""
    if inode.is_generated:
        why = "casfs makes it itself"
    elif inode.ino in fs.nodes.derived:
        why = "it shows what lies in repositories; lock those"
    elif _is_below(fs, inode, fs.nodes.base):
        why = "the trash and snapshots are not locked"
    if why:
        raise FsError(errno.EINVAL, f"{os.fsdecode(path)}: {why}")
    return inode


def _is_below(fs: FileSystem, inode: Inode, directory: int) -> bool:
    if not directory:
        return False
    dentries = fs.store.namespace.dentries
    above = [inode.ino] if inode.is_directory else dentries.parents_of(inode.ino)
    return any(each == directory or dentries.is_below(each, directory) for each in above)


def _path(fs: FileSystem, ino: int) -> str:
    return os.fsdecode(next(iter(fs.store.namespace.dentries.paths_of(ino)), b"")) or "/"


# Who writes there


async def _make_unwritten(fs: FileSystem, roots: set[int]) -> None:
    """Wait until no program may write to anything there, and have a transaction open. Raises FsError EBUSY
    when that takes too long."""
    deadline = fs.scheduler.now() + WAIT_SECONDS
    while True:
        await fs.group.begin()
        written = next((inode for inode in _perhaps_written(fs) if _is_in(fs, inode, roots)), None)
        if written is None:
            return
        if fs.scheduler.now() > deadline:
            path = _path(fs, written.ino)
            raise FsError(errno.EBUSY, f"{path}: a program has it open for writing, or mapped")
        await fs.scheduler.run(time.sleep, WAIT_STEP)


def _perhaps_written(fs: FileSystem) -> Iterator[Inode]:
    """What is open for writing, is being cut, or may be mapped: also by who had it mapped in an earlier
    mount (fs/content/passthrough.py)."""
    table = fs.contents.table
    for content in list(table):
        if content.inode.nlink and (content.writers or content.mutex.busy or _may_be_mapped(fs, content)):
            yield content.inode
    for row in fs.store.namespace.inodes.with_staged():
        inode = fs.inodes.get(row.ino)
        if inode.content is None and inode.staged is not None and inode.staged.endswith(LENT):
            content = table.get(inode)
            try:
                if _may_be_mapped(fs, content):
                    yield inode
            finally:
                table.close_if_idle(content)


def _may_be_mapped(fs: FileSystem, content: Content) -> bool:
    """Raises OSError."""
    if not content.is_lent:
        return False
    assert content.staged is not None
    return not fs.kernel.trusts_leases or fs.store.filestore.staging.others_may_write(content.staged)


def _is_in(fs: FileSystem, inode: Inode, roots: set[int]) -> bool:
    if inode.ino in roots:
        return True
    dentries = fs.store.namespace.dentries
    for parent in dentries.parents_of(inode.ino):
        if any(dentries.is_below(parent, root) for root in roots):
            return True
        if ROOT_INO in roots and not dentries.is_below(parent, fs.nodes.base):
            return True
    return False
