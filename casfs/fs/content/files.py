"""The verbs on open regular files: read, write, truncate, flush, fsync, release."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time

from casfs.errors import FsError
from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.content import MAX_SIZE, Content, Handle
from casfs.fs.content.passthrough import Passthrough
from casfs.fs.content.resting import REST_SECONDS
from casfs.fs.content.sealing import Sealing
from casfs.fs.content.settling import Settling
from casfs.fs.content.staged import StagedContents
from casfs.fs.content.table import OpenContents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Policy
from casfs.syscalls import start_writeback

log = logging.getLogger(__name__)

SLOW_SECONDS = 0.005
"""A write that takes longer was throttled by the kernel (too many dirty pages) ..."""

SLOW_WRITES = 256
"""... and this many of the next ones, of SLOW_BYTES or more, go to a thread, so that others are served."""

SLOW_BYTES = 64 << 10

LARGE_FILE = 1 << 30
"""Size from which all writes of SLOW_BYTES go to a thread, for such files are what fills the page cache.
Not those of smaller files: the way to a thread and back takes longer than most of their writes."""

WRITEBACK_STEP = 32 << 20
"""Bytes after which a thread that writes has the disk begin: few dirty pages keep fsyncs short."""

CAPABILITY = b"security.capability"
"""capabilities(7) of a program file."""


class Files:
    """File verbs. Owned by the thread that runs the file system.

    `_slow_writes`: how many of the next writes go to a thread.
    """

    def __init__(
        self,
        core: Core,
        policy: Policy,
        blobs: BlobFiles,
        staged: StagedContents,
        table: OpenContents,
        passthrough: Passthrough,
        sealing: Sealing,
        settling: Settling,
    ) -> None:
        self._filestore = core.store.filestore
        self._policy = policy
        self._xattrs = core.store.namespace.xattrs
        self._inodes = core.inodes
        self._group = core.group
        self._scheduler = core.scheduler
        self._kernel = core.kernel
        self._blobs = blobs
        self._staged = staged
        self._table = table
        self._passthrough = passthrough
        self._sealing = sealing
        self._settling = settling
        self._slow_writes = 0

    def open(self, inode: Inode, writable: bool, uid: int) -> Handle:
        """As `OpenContents.open`. Raises FsError for who wants to write where the policy is
        against it."""
        if writable:
            self._check_write(inode)
        return self._table.open(inode, writable, uid)

    def _check_write(self, inode: Inode) -> None:
        """As `Policy.check_write`. Raises FsError EROFS for what no row has, too."""
        if inode.is_generated:
            raise FsError(errno.EROFS)
        self._policy.check_write(inode)

    def may_map(self, handle: Handle) -> None:
        """A program may map what it has opened here, and write to the mapping."""
        if not handle.passthrough:
            handle.maps = True
            handle.content.mappers += 1
            if not handle.content.observe()[1]:
                self._kernel.forget_attributes(handle.inode.ino)

    async def release(self, handle: Handle) -> None:
        """The last reference to a handle is gone; nobody is left to hear of an error."""
        content = handle.content
        content.handles -= 1
        content.writers -= handle.writable
        content.mappers -= handle.maps
        if content.backing and not content.handles:
            content.observe()
            self._passthrough.unused(content)
        if content.writers == 0 and content.dirty and not content.broken:
            try:
                if not self._settling.settles_later(content):
                    await self._settling.begin_in_order()
                    await self._settling.settle(content)
            except OSError as error:
                self._settling.log_unsealed(content.inode, error)
        if content.mutex.busy:
            async with content.mutex:
                pass
        self._table.close_if_idle(content)

    async def read(self, handle: Handle, offset: int, size: int) -> bytes | bytearray:
        """Up to `size` bytes at `offset`; less only at the end of the file. Raises OSError EIO.

        What the page cache of the store's file system has is read here, the rest in a thread.
        """
        return await self._read_content(handle.content, offset, size)

    async def _read_content(self, content: Content, offset: int, size: int) -> bytes | bytearray:
        if content.buffer is not None:
            return bytes(memoryview(content.buffer)[offset : offset + size])
        size = min(size, content.inode.size - offset)
        if size <= 0:
            return b""
        staged, blob = content.staged, content.inode.blob
        if staged is None and content.blob_fd < 0:
            if self._filestore.has_pending:
                accepted = self._filestore.accepted(self._blobs.digest(content.inode))
                if accepted is not None:
                    return bytes(memoryview(accepted)[offset : offset + size])
            await self._blobs.open(content)
            if content.blob_fd < 0 or content.inode.blob != blob:  # written meanwhile
                return await self._read_content(content, offset, size)
        fd = content.blob_fd if staged is None else staged.fd
        data = bytearray(size)
        try:
            if os.preadv(fd, [data], offset, os.RWF_NOWAIT) == size:
                return data
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        if staged is not None:
            return await self._read_staged(content, offset, size)
        fd = os.dup(fd)  # a writer that comes meanwhile closes the descriptor of the blob
        try:
            with self._blobs.in_thread(blob):
                return await self._scheduler.run(read_whole, fd, size, offset)
        finally:
            os.close(fd)

    async def _read_staged(self, content: Content, offset: int, size: int) -> bytes | bytearray:
        """Read staged content in a thread; the mutex keeps its file from being cut off or used again."""
        async with content.mutex:
            size = min(size, content.inode.size - offset)
            if size > 0 and content.staged is not None:
                return await self._scheduler.run(os.pread, content.staged.fd, size, offset)
            if content.buffer is not None:
                return bytes(memoryview(content.buffer)[offset : offset + max(size, 0)])
        return await self._read_content(content, offset, size)

    async def write(
        self, handle: Handle, offset: int, data: bytes | memoryview, kills: bool | None = None
    ) -> int:
        """Write `data`, less of it only when the disk fills up. `kills`: set-id bits go; None: unless root
        has opened the file. Raises OSError (ENOSPC, EFBIG, EIO)."""
        content = handle.content
        inode = content.inode
        if self._group.failed:
            raise FsError(errno.EROFS)
        if handle.appends:
            offset = inode.size
        if offset + len(data) > MAX_SIZE:
            raise FsError(errno.EFBIG)
        if inode.xattrs != {} or inode.mode & (stat.S_ISUID | stat.S_ISGID):
            await self.drop_privileges(inode, bool(handle.uid) if kills is None else kills)
        staged = content.staged
        if content.mutex.busy or (content.buffer is None and (staged is None or staged.read_only)):
            if content.mutex.busy or inode.size or staged is not None:
                async with content.mutex:
                    await self._passthrough.copy_up(content, inode.size)
            else:
                content.buffer = bytearray()
        resizes = self._policy.resizes
        if resizes is not None and offset + len(data) > inode.size:
            resizes(inode, offset + len(data))
        if len(data) >= SLOW_BYTES and content.staged is not None and self._may_be_slow(content):
            async with content.mutex:
                written = await self._write_in_thread(content, offset, data)
        else:
            started = self._scheduler.now()
            written = self._staged.write(content, offset, data)
            if self._scheduler.now() - started > SLOW_SECONDS:
                self._slow_writes = SLOW_WRITES
        if content.prefix is not None and content.prefix.is_behind:
            self._follow(content)
        handle.wrote = True
        if handle.flushed:
            handle.inherited = True
        inode.mtime = inode.ctime = time.time_ns()
        return written

    def _may_be_slow(self, content: Content) -> bool:
        if content.inode.size >= LARGE_FILE:
            return True
        if self._slow_writes:
            self._slow_writes -= 1
            return True
        return False

    def _follow(self, content: Content) -> None:
        """Have what was written hashed by a thread. Right after a write: nobody has the mutex yet."""
        assert content.prefix is not None
        assert content.staged is not None
        try:
            content.prefix.follow(self._scheduler, content.staged.fd)
        except OSError as error:
            log.info("inode %d is hashed when it is sealed: %s", content.inode.ino, error)

    async def drop_privileges(self, inode: Inode, kills: bool) -> None:
        """What a write or a truncation takes away, before it does anything else, as file_remove_privs does:
        capabilities, and with `kills` suid and sgid.

        The kernel leaves that to the file system (FUSE_HANDLE_KILLPRIV and _V2, linux/fuse.h), and goes by
        the mode it remembers until it is told (bprm_fill_uid, fs/exec.c).
        """
        mode = mode_without_suid(inode.mode) if kills else inode.mode
        capable = CAPABILITY in self._inodes.attributes(inode)
        if mode != inode.mode or capable:
            await self._group.begin()
            attributes = self._inodes.attributes(inode)
            if CAPABILITY in attributes:  # not taken away by somebody else meanwhile
                self._xattrs.remove(inode.ino, CAPABILITY)
                del attributes[CAPABILITY]
            inode.mode = mode_without_suid(inode.mode) if kills else inode.mode
            self._inodes.changed(inode)
            self._kernel.forget_attributes(inode.ino)

    async def _write_in_thread(self, content: Content, offset: int, data: bytes | memoryview) -> int:
        """As `StagedContents.write`, to a staged file; the mutex is held."""
        if content.staged is None:
            return self._staged.write(content, offset, data)
        content.begin_change()
        room = self._filestore.space.claim_some(len(data))
        return await self._scheduler.run(_write_large, content, offset, data[:room])

    async def truncate(self, inode: Inode, size: int, handle: Handle | None, uid: int = 0) -> None:
        """Set the size of a regular file on behalf of user `uid`.

        Raises OSError (ENOSPC, EFBIG, EIO), FsError where the policy is against it.
        """
        if self._group.failed:
            raise FsError(errno.EROFS)
        self._check_write(inode)
        content = self._table.get(inode)
        if size == 0:
            await self._keep_truncated(content, handle, uid)
        try:
            async with content.mutex:
                await self._passthrough.copy_up(content, min(size, inode.size))
                await self._truncate(content, size)
            inode.mtime = inode.ctime = time.time_ns()
            if handle is not None:
                handle.wrote = True
            elif content.writers == 0:
                await self._settling.settle(content)
        finally:
            self._table.close_if_idle(content)

    async def _truncate(self, content: Content, size: int) -> None:
        """The mutex is held."""
        if content.inode.staged is not None:
            await self._group.begin()
        self._check_write(content.inode)  # it may have been locked while this waited
        if self._policy.resizes is not None:
            self._policy.resizes(content.inode, size)
        content.begin_change()
        if size == 0 and not content.backing:
            self._staged.drop(content)
            content.rewritten = content.rewritten and self._was_just_written(content.inode)
            content.buffer = bytearray()
            content.inode.size = 0
            self._sealing.due.discard(content)  # a row that shows it empty meanwhile would be worse (I6)
            return
        self._staged.make_room(content, size)
        content.truncate(size)

    async def truncate_at_open(self, handle: Handle) -> None:
        """What O_TRUNC asks for: no bytes are copied, nothing is sealed before the flush."""
        content = handle.content
        inode = content.inode
        self._check_write(inode)  # open(2) with O_RDONLY | O_TRUNC
        await self.drop_privileges(inode, bool(handle.uid))
        if inode.size or content.is_staged:
            await self._keep_truncated(content, handle, handle.uid)
            async with content.mutex:
                if content.backing:
                    await self._passthrough.copy_up(content, inode.size)
                await self._truncate(content, 0)
                content.close_blob()
            handle.wrote = True
            inode.mtime = inode.ctime = time.time_ns()
        else:
            await self._group.begin()
            inode.mtime = time.time_ns()
            self._inodes.changed(inode)

    async def _keep_truncated(self, content: Content, handle: Handle | None, uid: int) -> None:
        """Have the policy keep what is about to be cut to nothing on behalf of user `uid`, also what rests
        before it is sealed."""
        inode = content.inode
        writers = content.writers - (handle is not None and handle.writable)
        since = max(inode.btime, inode.mtime)
        if inode.staged is not None and not writers and self._policy.keeps(since):
            with contextlib.suppress(OSError):
                await self._settling.seal_unwritten(content)
        if inode.blob is not None:
            await self._group.begin()
            self._policy.truncates(inode, uid)

    def _was_just_written(self, inode: Inode) -> bool:
        """Is a file that is emptied one that is rewritten all the time? Else it is as good as a new one."""
        return time.time_ns() - inode.mtime < REST_SECONDS * 1e9

    async def flush(self, handle: Handle) -> None:
        """What close(2) waits for: settle what this handle wrote. Raises OSError.

        Small content, and a file that is written again, is settled with the next commit, at the latest, or
        when somebody wants to know its digest: until then it may change or go without having been hashed.

        Not while another handle may still write: the last one seals. Nor again for a handle that went on
        writing after a flush: its descriptor is shared by several processes, each of whose ends flushes,
        and to seal and copy up at each would take quadratic time; its release seals.
        """
        if not handle.wrote:
            return
        if self._group.failed:
            raise FsError(errno.EROFS)
        handle.flushed = True
        content = handle.content
        if handle.inherited or content.writers > 1:
            return
        if not self._settling.settles_later(content):
            await self._settling.begin_in_order()
            await self._settling.settle(content)
        handle.wrote = False

    async def fsync(self, handle: Handle) -> None:
        """fsync(2): content and row survive a power loss when this returns. Raises OSError."""
        content = handle.content
        if content.inode.nlink:
            if content.broken:
                raise OSError(content.broken, os.strerror(content.broken))
            async with content.mutex:
                if (content.dirty or content.is_lent) and content.inode.nlink:
                    await self._sealing.persist(content)
        await self._group.durable()


def _write_large(content: Content, offset: int, data: bytes | memoryview) -> int:
    """Write to a staged file, and have the disk begin with what was written before."""
    written = content.write(offset, data)
    whole = (offset + written) // WRITEBACK_STEP * WRITEBACK_STEP
    if whole > offset and content.staged is not None:
        start_writeback(content.staged.fd, max(0, whole - WRITEBACK_STEP), WRITEBACK_STEP)
    return written


def read_whole(fd: int, size: int, offset: int) -> bytes:
    """Exactly `size` bytes: fewer mean that the file is shorter than its row says."""
    data = os.pread(fd, size, offset)
    if len(data) < size:
        raise OSError(errno.EIO, f"content ends after {offset + len(data)} bytes")
    return data


def mode_without_suid(mode: int) -> int:
    """The mode after a write or a change of owner: S_ISUID goes, S_ISGID too where group may execute."""
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode
