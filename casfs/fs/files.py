"""Reading, writing, sealing: what happens to the content of regular files."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time

from blake3 import blake3

from casfs.errors import FsError
from casfs.filestore.filestore import hash_bytes, hash_descriptor
from casfs.filestore.staging import StagedFile
from casfs.fs.commit import GroupCommit
from casfs.fs.content import MEMORY_LIMIT, Content, Handle
from casfs.fs.inodes import Inode, InodeTable
from casfs.fs.scheduler import Scheduler
from casfs.store import Store

log = logging.getLogger(__name__)

BUFFERED_LIMIT = 64 << 20
"""Bytes of staged content in memory, over all files; beyond it new content goes to staged files."""

INLINE_WORK = 1 << 20
"""Bytes that are hashed or copied on the event loop's own thread: less than a millisecond."""

SPARSE_LIMIT = 1 << 30
"""Bytes of holes from which a file is not hashed but stays a staged file: hashing zeros takes 0.3 s/GiB."""

WRITEBACK_SECONDS = 30.0
"""Age at which content that is still being written is made durable as it is, as the kernel does."""

MAX_SIZE = (1 << 63) - 1


class Files:
    """Content verbs. Owned by the thread that runs the file system."""

    def __init__(self, store: Store, inodes: InodeTable, group: GroupCommit, scheduler: Scheduler) -> None:
        self._filestore = store.filestore
        self._staging = store.filestore.staging
        self._blobs = store.namespace.blobs
        self._savepoint = store.namespace.savepoint
        self._inodes = inodes
        self._group = group
        self._scheduler = scheduler
        self._open: dict[int, Content] = {}
        self._buffered = 0
        self.handles = 0
        group.before_commit = self.write_back

    # Handles

    def open(self, inode: Inode, writable: bool, uid: int) -> Handle:
        """A handle of a regular file. Raises OSError EIO when its staged file is gone."""
        content = self._content(inode)
        content.handles += 1
        content.writers += writable
        self.handles += 1
        return Handle(inode, content, writable, uid)

    def _content(self, inode: Inode) -> Content:
        content = inode.content
        if content is None:
            content = Content(inode, self._scheduler)
            if inode.staged is not None:
                content.staged = self._staging.reopen(inode.staged)
            inode.content = self._open[inode.ino] = content
        return content

    async def release(self, handle: Handle) -> None:
        """The last reference to a handle is gone; nobody is left to hear of an error."""
        content = handle.content
        content.handles -= 1
        content.writers -= handle.writable
        self.handles -= 1
        if content.writers == 0 and content.dirty:
            try:
                await self.seal(content)
            except OSError as error:
                log.error("inode %d stays staged: %s", content.inode.ino, error)
        self._close_if_idle(content)

    def _close_if_idle(self, content: Content) -> None:
        if content.handles or content.mutex.busy or (content.dirty and content.inode.nlink):
            return
        content.close_blob()
        if content.is_staged:
            if content.dirty or not content.inode.nlink:
                self._drop_staged(content)
            elif content.staged is not None:
                os.close(content.staged.fd)
        content.staged = None
        if content.inode.content is content:
            content.inode.content = None
            del self._open[content.inode.ino]

    # Reading

    def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; less only at the end of the file. Raises OSError EIO."""
        content = handle.content
        if content.buffer is not None or content.staged is not None:
            return content.read(offset, size)
        if offset >= content.inode.size:
            return b""
        return os.pread(self._blob_fd(content), size, offset)

    def _blob_fd(self, content: Content) -> int:
        if content.blob_fd < 0:
            content.blob_fd = self._filestore.open(self._digest(content.inode))
        return content.blob_fd

    def _digest(self, inode: Inode) -> bytes:
        digest = None if inode.blob is None else self._blobs.digest(inode.blob)
        if digest is None:
            raise OSError(errno.EIO, f"inode {inode.ino} has no blob")
        return digest

    def digest(self, inode: Inode) -> bytes | None:
        """The digest of a sealed, regular file; None while it is staged."""
        content = inode.content
        if not inode.is_regular or inode.staged is not None or (content is not None and content.is_staged):
            return None
        return hash_bytes(b"") if inode.blob is None else self._digest(inode)

    # Writing

    async def write(self, handle: Handle, offset: int, data: bytes) -> int:
        """Write `data`, less of it only when the disk fills up. Raises OSError (ENOSPC, EFBIG, EIO)."""
        content = handle.content
        if content.mutex.busy or not content.is_staged:
            async with content.mutex:
                await self._make_staged(content, content.inode.size)
        written = self._write(content, offset, data)
        handle.wrote = True
        if handle.flushed:
            handle.inherited = True
        inode = content.inode
        inode.mtime = inode.ctime = time.time_ns()
        if handle.uid and inode.mode & (stat.S_ISUID | stat.S_ISGID):
            await self.drop_privileges(inode)
        return written

    async def drop_privileges(self, inode: Inode) -> None:
        """What a write or truncation by another than root takes away."""
        mode = mode_without_suid(inode.mode)
        if mode != inode.mode:
            await self._group.begin()
            inode.mode = mode
            self._inodes.changed(inode)

    def _write(self, content: Content, offset: int, data: bytes) -> int:
        content.mark_dirty()
        end = offset + len(data)
        if end > MAX_SIZE:
            raise FsError(errno.EFBIG)
        if content.buffer is not None:
            grown = end - len(content.buffer)
            if end > MEMORY_LIMIT or self._buffered + grown > BUFFERED_LIMIT:
                self._spill(content)
            elif grown > 0:
                self._buffered += grown
        if content.staged is not None:
            self._filestore.claim(len(data))
        return content.write(offset, data)

    def _spill(self, content: Content) -> None:
        """Move staged content from memory to a staged file. Raises OSError."""
        buffer = content.buffer
        assert buffer is not None
        self._filestore.claim(len(buffer) + 4096)
        staged = self._staging.create()
        try:
            self._filestore.durable.write_whole(staged.fd, buffer)
        except OSError:
            self._staging.drop(staged)
            raise
        content.staged = staged
        content.buffer = None
        self._buffered -= len(buffer)
        content.hasher = blake3(buffer)
        content.hashed = len(buffer)

    async def _make_staged(self, content: Content, keep: int) -> None:
        """Copy up: have the first `keep` bytes of sealed content staged. The mutex is held."""
        if content.is_staged:
            return
        if keep == 0 or content.inode.blob is None:
            content.buffer = bytearray()
        elif keep <= MEMORY_LIMIT and self._buffered + keep <= BUFFERED_LIMIT:
            data = os.pread(self._blob_fd(content), keep, 0)
            if len(data) != keep:
                raise OSError(errno.EIO, "blob is shorter than its row says")
            content.buffer = bytearray(data)
            self._buffered += keep
        else:
            self._filestore.claim(keep)
            staged = self._staging.create()
            try:
                if keep <= INLINE_WORK:
                    self._filestore.copy_to(self._digest(content.inode), staged, keep)
                else:
                    await self._scheduler.run(
                        self._filestore.copy_to, self._digest(content.inode), staged, keep
                    )
            except OSError:
                self._staging.drop(staged)
                raise
            content.staged = staged
            content.hasher = None
        content.close_blob()

    async def truncate(self, inode: Inode, size: int, handle: Handle | None) -> None:
        """Set the size of a regular file. Raises OSError (ENOSPC, EFBIG, EIO)."""
        content = self._content(inode)
        try:
            async with content.mutex:
                await self._make_staged(content, min(size, inode.size))
                await self._truncate(content, size)
            inode.mtime = inode.ctime = time.time_ns()
            if handle is not None:
                handle.wrote = True
            elif content.writers == 0:
                await self.seal(content)
        finally:
            self._close_if_idle(content)

    async def _truncate(self, content: Content, size: int) -> None:
        if content.inode.staged is not None:
            await self._group.begin()
        content.mark_dirty()
        if size == 0:
            self._drop_staged(content)
            content.buffer = bytearray()
            content.inode.size = 0
            return
        buffer = content.buffer
        if buffer is not None:
            grown = size - len(buffer)
            if size > MEMORY_LIMIT or self._buffered + grown > BUFFERED_LIMIT:
                self._spill(content)
            else:
                self._buffered += grown
        content.truncate(size)

    async def truncate_at_open(self, handle: Handle) -> None:
        """What O_TRUNC asks for: no bytes are copied, nothing is sealed before the flush."""
        content = handle.content
        inode = content.inode
        if inode.size or content.is_staged:
            async with content.mutex:
                await self._truncate(content, 0)
                content.close_blob()
            handle.wrote = True
            inode.mtime = inode.ctime = time.time_ns()
        else:
            await self._group.begin()
            inode.mtime = time.time_ns()
            self._inodes.changed(inode)
        if handle.uid:
            await self.drop_privileges(inode)

    def _drop_staged(self, content: Content) -> None:
        """Forget staged content.

        A staged file that a committed row may name goes after the next commit, and its row says from
        then on that the file is empty: inside a transaction. An unlinked inode's goes with its row.
        """
        inode, staged = content.inode, content.staged
        if content.buffer is not None:
            self._buffered -= len(content.buffer)
            content.buffer = None
        elif staged is not None and inode.staged == staged.name:
            os.close(staged.fd)
            if inode.nlink:
                self._group.obsolete(staged.name)
                inode.staged = None
                content.row_size = 0
                self._inodes.mark(inode)
        elif staged is not None:
            self._staging.drop(staged)
        content.staged = None
        content.hasher = None
        content.hashed = 0

    def discard(self, inode: Inode) -> bool:
        """An inode without names goes: content, attributes, row. Inside a transaction. False while open."""
        content = inode.content
        if content is not None:
            self._close_if_idle(content)
            if inode.content is not None:
                return False
        if inode.staged is not None:
            self._group.obsolete(inode.staged)
        self._inodes.remove(inode)
        return True

    # Sealing

    async def flush(self, handle: Handle) -> None:
        """What close(2) waits for: seal what this handle wrote. Raises OSError.

        Not while another handle may still write: the last one seals. Nor again for a handle that went on
        writing after a flush: its descriptor is shared by several processes, each of whose ends flushes,
        and to seal and copy up at each would take quadratic time; its release seals.
        """
        if not handle.wrote:
            return
        handle.flushed = True
        content = handle.content
        if handle.inherited or content.writers > 1:
            return
        await self.seal(content)
        handle.wrote = False

    async def seal(self, content: Content) -> None:
        """Make dirty content a blob: hash, look whether it is there, publish. Raises OSError."""
        async with content.mutex:
            if not content.dirty or not content.inode.nlink:
                return
            await self._seal(content)

    async def _seal(self, content: Content) -> None:
        inode = content.inode
        size = inode.size
        inode.allocated = content.allocated()
        await self._group.enter_publishing()
        if size == 0:
            self._drop_staged(content)
            self._sealed(content, None)
            return
        if content.buffer is not None:
            digest: bytes = hash_bytes(content.buffer)
        else:
            staged = content.staged
            assert staged is not None
            if size - content.allocated() >= SPARSE_LIMIT:
                await self._persist(content)
                content.dirty = False
                return
            if content.hasher is not None and content.hashed == size:
                digest = content.hasher.digest()
            elif size <= INLINE_WORK:
                digest = hash_descriptor(staged.fd, size)
            else:
                digest = await self._scheduler.run(hash_descriptor, staged.fd, size)
                await self._group.enter_publishing()
        blob = self._blobs.find(digest)
        if blob is not None and self._filestore.has(digest, size):
            self._drop_staged(content)
        elif blob is not None:
            self._publish(content, digest)
        else:
            with self._savepoint():
                blob = self._blobs.insert(digest, size, time.time_ns())
                self._publish(content, digest)
            self._inodes.add_refs(blob, -1)
        self._sealed(content, blob)

    def _publish(self, content: Content, digest: bytes) -> None:
        inode, buffer, staged = content.inode, content.buffer, content.staged
        if buffer is not None:
            self._filestore.claim(len(buffer) + 4096)
            self._filestore.publish_bytes(digest, buffer)
            self._buffered -= len(buffer)
            content.buffer = None
        else:
            assert staged is not None
            named = inode.staged == staged.name
            self._filestore.publish_staged(digest, staged, keep_name=named)
            if named:
                self._group.obsolete(staged.name)
                inode.staged = None
            content.staged = None
            content.hasher = None
            content.hashed = 0
        self._group.publish(digest)

    def _sealed(self, content: Content, blob: int | None) -> None:
        content.dirty = False
        content.close_blob()
        self._inodes.set_blob(content.inode, blob)
        self._inodes.mark(content.inode)
        self._group.count()

    # Making staged content durable

    async def fsync(self, handle: Handle) -> None:
        """fsync(2): content and row survive a power loss when this returns. Raises OSError."""
        content = handle.content
        if content.inode.nlink:
            async with content.mutex:
                if content.dirty and content.inode.nlink:
                    await self._persist(content)
        await self._group.durable()

    async def _persist(self, content: Content) -> None:
        """Let the row name the staged file, with its bytes durable first. The mutex is held."""
        inode = content.inode
        if content.buffer is not None:
            self._spill(content)
        staged = content.staged
        assert staged is not None
        size = inode.size
        first = inode.staged != staged.name
        try:
            await self._scheduler.run(self._make_durable, staged, first)
        except OSError as error:
            self._group.stop(error)
            raise
        await self._group.begin()
        if inode.staged is not None and first:
            self._group.obsolete(inode.staged)
        inode.staged = staged.name
        self._inodes.set_blob(inode, None)
        content.row_size = size
        content.dirty_since = self._scheduler.now()
        self._inodes.mark(inode)

    def _make_durable(self, staged: StagedFile, first: bool) -> None:
        self._filestore.durable.fdatasync(staged.fd)
        if first:
            self._filestore.durable.fsync_path(self._staging.root)

    async def persist_inode(self, inode: Inode) -> None:
        """Before an unsealed file takes the name of another one: its content must not be lost (I6)."""
        content = inode.content
        if content is not None and content.dirty and inode.nlink:
            async with content.mutex:
                if content.dirty:
                    await self._persist(content)

    async def write_back(self) -> None:
        """Before a commit: long-dirty content becomes durable, what could not be sealed is tried again."""
        now = self._scheduler.now()
        for content in list(self._open.values()):
            if not content.dirty or content.mutex.busy or not content.inode.nlink:
                continue
            if content.writers == 0:
                await self.seal(content)
                self._close_if_idle(content)
            elif now - content.dirty_since > WRITEBACK_SECONDS:
                async with content.mutex:
                    if content.dirty:
                        await self._persist(content)

    async def settle(self) -> None:
        """Seal everything, at unmount. Raises OSError for the first that cannot be."""
        for content in list(self._open.values()):
            if content.dirty and content.inode.nlink:
                await self.seal(content)

    @property
    def unsealed(self) -> int:
        """Files whose content is staged."""
        return sum(content.dirty for content in self._open.values())


def mode_without_suid(mode: int) -> int:
    """The mode after a write or a change of owner: S_ISUID goes, S_ISGID too where group may execute."""
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode
