"""Staged content: in memory, or in a staged file; and how the content of a blob becomes staged (copy-up)."""

from __future__ import annotations

import errno
import os

from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.content import MEMORY_LIMIT, Content
from casfs.fs.content.digests import Digesting
from casfs.fs.content.prefix import PrefixHash
from casfs.fs.core import Core
from casfs.space import FILE_ROOM

BUFFERED_LIMIT = 64 << 20
"""Bytes of staged content in memory, over all files; beyond it new content goes to staged files."""

INLINE_WORK = 1 << 20
"""Bytes that are hashed or copied on the event loop's own thread: less than a millisecond."""


class StagedContents:
    """Owned by the thread that runs the file system, and with it `buffer`, `staged` and `prefix` of each
    content. How much is in memory is what the filestore has been promised."""

    def __init__(self, core: Core, blobs: BlobFiles, digesting: Digesting) -> None:
        self._filestore = core.store.filestore
        self._staging = core.store.filestore.staging
        self._group = core.group
        self._scheduler = core.scheduler
        self._blobs = blobs
        self._digesting = digesting

    def reopen(self, content: Content, name: str) -> None:
        """Open the staged file that the row names. Raises OSError EIO when it is missing."""
        content.staged = self._staging.reopen(name)
        if content.is_lent:
            content.mtime_below = os.fstat(content.staged.fd).st_mtime_ns

    async def copy_up(self, content: Content, keep: int) -> None:
        """Have the first `keep` bytes of sealed content staged. The mutex is held. Raises OSError."""
        if content.staged is not None and content.staged.read_only:
            await self.take_copy(content)
        if content.is_staged:
            return
        if keep == 0 or content.inode.blob is None:
            content.buffer = bytearray()
        elif self._may_hold(keep, _room(keep)):
            data = os.pread(await self._blobs.open(content), keep, 0)
            if len(data) != keep:
                raise OSError(errno.EIO, "blob is shorter than its row says")
            self._filestore.space.promise(_room(keep), 1)
            content.buffer = bytearray(data)
        else:
            self._filestore.space.claim(keep, 1)
            staged = self._staging.create()
            try:
                digest = self._blobs.digest(content.inode)
                if keep <= INLINE_WORK:
                    self._filestore.copy_to(digest, staged, keep)
                else:
                    with self._blobs.in_thread(content.inode.blob):
                        await self._scheduler.run(self._filestore.copy_to, digest, staged, keep)
            except BaseException:
                self._staging.drop(staged)
                raise
            content.staged = staged
            content.prefix = None
        content.close_blob()

    def _may_hold(self, size: int, grown: int) -> bool:
        """May so much staged content be in memory, `grown` bytes on disk more than was promised?"""
        return size <= MEMORY_LIMIT and self._filestore.space.promised + grown <= BUFFERED_LIMIT

    def make_room(self, content: Content, size: int) -> None:
        """Staged content is going to be of that size: it stays in memory, or goes to a staged file. What it
        will take on disk is promised to it, so that nothing is left for close(2) to complain of. Raises
        OSError ENOSPC."""
        buffer = content.buffer
        if buffer is None:
            return
        grown = _room(size) - _room(len(buffer))
        if not self._may_hold(size, grown):
            self.spill(content)
        elif grown:
            self._filestore.space.promise(grown, bool(size) - bool(buffer))

    def write(self, content: Content, offset: int, data: bytes | memoryview) -> int:
        """Write to staged content; gives the bytes written, fewer on a disk that fills up. Raises OSError."""
        end = offset + len(data)
        content.begin_change()
        buffer = content.buffer
        if buffer is not None and end > len(buffer):
            self.make_room(content, end)
        if content.staged is not None:
            room = self._filestore.space.claim_some(len(data))
            if room < len(data):
                data = data[:room]
        return content.write(offset, data)

    def free_buffer(self, content: Content) -> None:
        """The staged content is in memory no more."""
        if content.buffer:
            self._filestore.space.promise(-_room(len(content.buffer)), -1)
        content.buffer = None

    def spill(self, content: Content) -> None:
        """Move staged content from memory to a staged file. Raises OSError."""
        buffer = content.buffer
        assert buffer is not None
        self._filestore.space.promise(0)
        self._filestore.space.claim(0, int(not buffer))  # else the file it would become is promised
        try:
            staged = self._staging.create()
            try:
                self._filestore.durable.write_whole(staged.fd, buffer)
            except BaseException:
                self._staging.drop(staged)
                raise
        except OSError as error:
            self._group.stop_if_broken(error)
            raise
        self.free_buffer(content)
        content.staged = staged
        content.prefix = PrefixHash(buffer, self._digesting.of(content.inode))

    async def take_copy(self, content: Content) -> None:
        """Have a copy of the staged file, to which others may write, in its place: that one may become a blob
        (I2). On a file system with reflinks it shares the bytes. The mutex is held."""
        lent = content.staged
        assert lent is not None
        size = content.inode.size
        self._filestore.space.claim(size, 1)
        fresh = self._staging.create()
        try:
            if size <= INLINE_WORK:
                self._filestore.copy_lent(lent, fresh, size)
            else:
                await self._scheduler.run(self._filestore.copy_lent, lent, fresh, size)
        except BaseException:
            self._staging.drop(fresh)
            raise
        self.drop(content)
        content.staged = fresh

    async def displace(self, content: Content, digest: bytes) -> None:
        """Have the file of the blob, which programs may have mapped, for a staged file that is lent to them,
        and a copy of it, durable, for the blob. The mutex is held. Raises OSError."""
        size = content.inode.size
        self._filestore.space.claim(size, 1)
        fresh = self._staging.create()
        try:
            content.staged = await self._scheduler.run(self._filestore.displace, digest, fresh, size)
        except OSError as error:
            if fresh.fd >= 0:
                self._staging.drop(fresh)
            else:
                self._group.stop(error)
            raise
        content.prefix = None
        content.mtime_below = os.fstat(content.staged.fd).st_mtime_ns

    def drop(self, content: Content) -> None:
        """Forget staged content. A staged file that the row names stays until the row names another one, or a
        blob: until then a crash leaves the file as it was (I5)."""
        inode, staged = content.inode, content.staged
        if content.buffer is not None:
            self.free_buffer(content)
        elif staged is not None and inode.staged == staged.name:
            os.close(staged.fd)
        elif staged is not None:
            self._staging.drop(staged)
        content.staged = None
        content.prefix = None


def _room(size: int) -> int:
    """Bytes on disk that a blob of `size` bytes takes at the most; an empty file has none."""
    return size + FILE_ROOM if size else 0
