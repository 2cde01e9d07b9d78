"""Setting attributes: mode, owner, times, size, with the rules of chmod(2), chown(2) and utimensat(2)."""

from __future__ import annotations

import errno
import logging
import stat
import time
from dataclasses import dataclass

from casfs.errors import FsError
from casfs.fs.content.content import MAX_SIZE, Handle
from casfs.fs.content.files import Files, mode_without_suid
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Policy
from casfs.fs.xattrs import ExtendedAttributes

log = logging.getLogger(__name__)

FIRST_TIME, LAST_TIME = (sign * ((1 << 63) // 10**9) * 10**9 for sign in (-1, 1))
"""Nanoseconds: the first and last whole second, in 1677 and 2262, that a row (64 bits) can keep."""


def clamp_time(ns: int) -> int:
    """The nearest time that can be kept, as Linux does it for every file system (timestamp_truncate of
    fs/inode.c)."""
    return min(max(ns, FIRST_TIME), LAST_TIME)


@dataclass(slots=True)
class Changes:
    """What to set; None leaves as it is. Times in nanoseconds, size in bytes."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime: int | None = None
    mtime: int | None = None

    @property
    def access(self) -> bool:
        """Do they change who may do what?"""
        return (self.mode, self.uid, self.gid) != (None, None, None)

    @property
    def are_none(self) -> bool:
        return self.mode is self.uid is self.gid is self.atime is self.mtime is self.size is None


class Attributes:
    """The setattr verb. Owned by the thread that runs the file system."""

    def __init__(self, core: Core, files: Files, xattrs: ExtendedAttributes, policy: Policy) -> None:
        self._inodes = core.inodes
        self._group = core.group
        self._places = core.places
        self._kernel = core.kernel
        self._files = files
        self._xattrs = xattrs
        self._policy = policy

    async def set(self, ino: int, changes: Changes, handle: Handle | None, uid: int) -> Inode:
        """Apply `changes` on behalf of user `uid`. The kernel has checked permissions.

        Times that no row can keep become the nearest that one can. Raises FsError EISDIR, EINVAL (size of
        something without one), EPERM, OSError (ENOSPC, EFBIG, EIO).
        """
        inode = self._inodes.changeable(ino)
        self._policy.check_attributes(inode)
        if changes.size is not None:
            await self._resize(inode, changes.size, handle, uid)
        elif changes.are_none and not inode.is_directory:
            await self._leave_owner(inode, uid)
        group = self._group
        if not group.active:
            await group.begin()
        access = inode.is_directory and changes.access
        if access:
            self._places.invalidate()
        if access or self._xattrs.all(inode):
            with self._xattrs.whole(inode):
                await self._apply(inode, changes)
                if access:
                    self._policy.access_changed(ino)
        else:
            await self._apply(inode, changes)
        inode.ctime = time.time_ns()
        self._inodes.mark(inode)
        group.count()
        return inode

    async def accessed(self, inode: Inode, now_ns: int) -> None:
        """A program has opened it. No open fails for want of this."""
        try:
            if not self._group.active:
                await self._group.begin()
        except OSError as error:
            log.debug("the time of access of inode %d stays as it was: %s", inode.ino, error)
            return
        inode.atime = now_ns
        self._inodes.mark(inode)
        self._group.count()
        self._kernel.forget_attributes(inode.ino)

    async def _apply(self, inode: Inode, changes: Changes) -> None:
        """All but the size. Inside a transaction: nothing has to be waited for."""
        if changes.mtime is not None and inode.content is not None:
            inode.content.observe()  # what a mapping has written before moves it no more
        if changes.mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | changes.mode & 0o7777
            self._xattrs.change_mode(inode, inode.mode)
        if changes.uid is not None or changes.gid is not None:
            inode.uid = inode.uid if changes.uid is None else changes.uid
            inode.gid = inode.gid if changes.gid is None else changes.gid
            if changes.mode is None and not inode.is_directory:
                inode.mode = mode_without_suid(inode.mode)
            await self._files.drop_privileges(inode, False)
        if changes.atime is not None:
            inode.atime = clamp_time(changes.atime)
        if changes.mtime is not None:
            inode.mtime = clamp_time(changes.mtime)

    async def _resize(self, inode: Inode, size: int, handle: Handle | None, uid: int) -> None:
        if inode.is_directory:
            raise FsError(errno.EISDIR)
        if not inode.is_regular or size < 0:
            raise FsError(errno.EINVAL)
        if size > MAX_SIZE:
            raise FsError(errno.EFBIG)
        await self._files.drop_privileges(inode, bool(uid))
        await self._files.truncate(inode, size, handle, uid)

    async def _leave_owner(self, inode: Inode, uid: int) -> None:
        """chown(file, -1, -1): it takes set-id bits away, for who may change the mode.

        The kernel asks for nothing in just the same way before a write or fallocate(2) of a file that is open
        for it (file_remove_privs, fs/inode.c); those requests take the bits away themselves.
        """
        if uid in (0, inode.uid):
            await self._files.drop_privileges(inode, True)
        elif inode.mode & (stat.S_ISUID | stat.S_ISGID) and not (inode.content and inode.content.writers):
            raise FsError(errno.EPERM)
