"""The verbs on ranges of open files: copy_file_range, SEEK_DATA and SEEK_HOLE, fallocate."""

from __future__ import annotations

import contextlib
import errno
import os
import time

from casfs.errors import FsError
from casfs.filestore.filestore import copy_range
from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.content import MAX_SIZE, MEMORY_LIMIT, Content, Handle
from casfs.fs.content.files import Files, read_whole
from casfs.fs.content.passthrough import Passthrough
from casfs.fs.content.sealing import Sealing
from casfs.fs.content.settling import Settling
from casfs.fs.content.staged import INLINE_WORK, StagedContents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Policy
from casfs.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

ALLOCATIONS = (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE)
"""Modes of fallocate(2) that are served."""

FAR = 1 << 40
"""Offset from which the file system below is asked whether a file may be so long: EFBIG before ENOSPC."""


class Ranges:
    """Range verbs. Owned by the thread that runs the file system."""

    def __init__(
        self,
        core: Core,
        blobs: BlobFiles,
        staged: StagedContents,
        passthrough: Passthrough,
        sealing: Sealing,
        settling: Settling,
        files: Files,
        policy: Policy,
    ) -> None:
        self._filestore = core.store.filestore
        self._group = core.group
        self._scheduler = core.scheduler
        self._blobs = blobs
        self._staged = staged
        self._passthrough = passthrough
        self._sealing = sealing
        self._settling = settling
        self._files = files
        self._policy = policy

    def _grows(self, inode: Inode, size: int) -> None:
        """A file is about to have at least so many bytes. Raises FsError EDQUOT."""
        if self._policy.resizes is not None and size > inode.size:
            self._policy.resizes(inode, size)

    # Copying

    async def copy_range(
        self, source: Handle, offset: int, target: Handle, target_offset: int, length: int, uid: int = 0
    ) -> int:
        """Copy up to `length` bytes between files, or within one where the ranges do not overlap.

        User `uid` does it. A whole sealed file onto an empty one takes its blob: one row, no bytes. Gives the
        bytes copied, fewer only at the end of the source. Raises OSError (ENOSPC, EFBIG, EIO).
        """
        if self._group.failed:
            raise FsError(errno.EROFS)
        length = min(length, source.inode.size - offset)
        if length <= 0:
            return 0
        if target_offset + length > MAX_SIZE:
            raise FsError(errno.EFBIG)
        await self._files.drop_privileges(target.inode, bool(uid))
        whole = offset == target_offset == 0 and length == source.inode.size and not target.inode.size
        if not (whole and await self._share_blob(source.content, target.content)):
            length = await self._copy_bytes(source.content, offset, target.content, target_offset, length)
        if target.flushed:
            target.inherited = True
        target.wrote = True
        target.inode.mtime = target.inode.ctime = time.time_ns()
        return length

    async def _share_blob(self, source: Content, target: Content) -> bool:
        """Let an empty file have the blob of a sealed one; False when there is no such blob."""
        await self._settling.seal_closed(source.inode)
        await self._settling.begin_in_order()
        async with target.mutex:
            await self._group.begin()
            inode, blob = source.inode, source.inode.blob
            if inode.is_generated and blob is not None and not self._blobs.is_there(blob):
                raise FsError(errno.ESTALE)
            if source.is_staged or blob is None or target.inode.size or target.backing:
                return False
            self._grows(target.inode, inode.size)
            self._staged.drop(target)
            target.inode.size, target.inode.allocated = inode.size, inode.allocated
            self._sealing.sealed(target, blob)
        return True

    async def _copy_bytes(
        self, source: Content, offset: int, target: Content, target_offset: int, length: int
    ) -> int:
        async with contextlib.AsyncExitStack() as held:
            # In one order, so that copies in opposite directions do not wait for each other.
            for content in sorted({source, target}, key=lambda content: content.inode.ino):
                await held.enter_async_context(content.mutex)
            await self._passthrough.copy_up(target, target.inode.size)
            length = min(length, source.inode.size - offset)
            if length <= 0:
                return 0
            self._grows(target.inode, target_offset + length)
            if source.buffer is not None or target_offset + length <= MEMORY_LIMIT:
                piece = await self._read_held(source, offset, min(length, MEMORY_LIMIT))
                return self._staged.write(target, target_offset, piece)
            if target.buffer is not None:
                self._staged.spill(target)
            target.begin_change()
            self._filestore.space.claim(length)
            assert target.staged is not None
            fd = await self._blobs.open(source) if source.staged is None else source.staged.fd
            target.will_change(target_offset)
            if length <= INLINE_WORK:
                copy_range(fd, target.staged.fd, length, offset, target_offset)
            else:
                fd = os.dup(fd)  # another inode's writer may have the blob's descriptor closed meanwhile
                blob = source.inode.blob if source.staged is None else None
                step = (copy_range, fd, target.staged.fd, length, offset, target_offset)
                try:
                    with self._blobs.in_thread(blob):
                        await self._scheduler.run(*step)
                finally:
                    os.close(fd)
            target.written += length
            target.inode.size = max(target.inode.size, target_offset + length)
            return length

    async def _read_held(self, content: Content, offset: int, size: int) -> bytes:
        """Read while the content's mutex is held. Raises OSError EIO when the file below is too short: to
        copy less would say that the source ends there."""
        if content.buffer is not None:
            return bytes(memoryview(content.buffer)[offset : offset + size])
        fd = await self._blobs.open(content) if content.staged is None else content.staged.fd
        return read_whole(fd, size, offset)

    # Seeking

    async def seek(self, handle: Handle, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE. Raises OSError ENXIO at and after the end of the file."""
        content, inode = handle.content, handle.inode
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise FsError(errno.EINVAL)
        while (
            0 <= offset < inode.size
            and content.buffer is None
            and not content.is_staged
            and content.blob_fd < 0
        ):
            await self._blobs.open(content)
        size = inode.size
        if not 0 <= offset < size:
            raise FsError(errno.ENXIO)
        if content.buffer is not None:
            return offset if whence == os.SEEK_DATA else size
        fd = content.blob_fd if content.staged is None else content.staged.fd
        return min(os.lseek(fd, offset, whence), size)

    # Allocating

    async def allocate(self, handle: Handle, offset: int, length: int, mode: int, uid: int = 0) -> None:
        """fallocate(2) by user `uid`. Raises OSError (EOPNOTSUPP for another mode than ALLOCATIONS, ENOSPC,
        EFBIG)."""
        content, inode = handle.content, handle.inode
        if mode not in ALLOCATIONS:
            raise FsError(errno.EOPNOTSUPP)
        if self._group.failed:
            raise FsError(errno.EROFS)
        if offset + length > MAX_SIZE:
            raise FsError(errno.EFBIG)
        await self._files.drop_privileges(inode, bool(uid))
        async with content.mutex:
            await self._passthrough.copy_up(content, inode.size)
            if not mode & KEEP_SIZE:
                self._grows(inode, offset + length)
            if content.buffer is not None:
                self._staged.spill(content)
            assert content.staged is not None
            if offset + length > FAR:
                fallocate(content.staged.fd, PUNCH_HOLE | KEEP_SIZE, offset + length - 1, 1)
            if not mode & PUNCH_HOLE:
                self._filestore.space.claim(length)
            content.begin_change()
            content.will_change(offset)
            await self._scheduler.run(fallocate, content.staged.fd, mode, offset, length)
            content.preallocated = True
            if not mode & KEEP_SIZE:
                inode.size = max(inode.size, offset + length)
        handle.wrote = True
        if handle.flushed:
            handle.inherited = True
        inode.mtime = inode.ctime = time.time_ns()
