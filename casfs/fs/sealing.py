"""Sealing: staged content becomes a blob, or is made durable as it is."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable

from casfs.filestore.filestore import hash_bytes, hash_descriptor
from casfs.filestore.staging import StagedFile
from casfs.fs.content import Content
from casfs.fs.contents import INLINE_WORK
from casfs.fs.inodes import Inode
from casfs.fs.passthrough import Passthrough
from casfs.types import Digest

log = logging.getLogger(__name__)

SPARSE_LIMIT = 1 << 30
"""Bytes of holes from which a file is not hashed but stays a staged file: hashing zeros takes 0.3 s/GiB."""

PAUSE_EVERY = 64
"""Contents looked at, and maybe sealed, before others are served."""

WRITEBACK_SECONDS = 30.0
"""Age at which content that is still being written is made durable as it is, as the kernel does."""


class Sealing(Passthrough):
    """What turns dirty content into blobs. Owned by the thread that runs the file system."""

    async def seal(self, content: Content) -> None:
        """Make dirty content a blob: hash, look whether it is there, publish. Raises OSError."""
        if self._seal_small(content):
            return
        async with content.mutex:
            if content.dirty and content.inode.nlink:
                await self._seal(content)

    def _seal_small(self, content: Content) -> bool:
        """Seal content in memory without a wait, which is what most files take; False when there is one."""
        buffer = content.buffer
        if not buffer or content.mutex.busy or not content.inode.nlink or not self._group.can_publish:
            return False
        if content.dirty:
            content.inode.allocated = content.allocated()
            self._find_or_publish(content, hash_bytes(buffer))
        return True

    async def _seal(self, content: Content) -> None:
        inode = content.inode
        size = inode.size
        inode.allocated = content.allocated()
        await self._group.enter_publishing()
        if size == 0 and not content.backing:
            self._drop_staged(content)
            self._sealed(content, None)
            return
        if content.buffer is not None:
            digest = hash_bytes(content.buffer)
        else:
            staged = content.staged
            assert staged is not None
            if content.preallocated:  # what fallocate(2) put behind the end goes
                os.ftruncate(staged.fd, size)
                content.preallocated = False
            sparse = size - content.allocated() >= SPARSE_LIMIT
            if sparse or content.backing:
                await self._persist(content)
                if not sparse and not content.backing:  # its last reader has gone meanwhile
                    await self._seal(content)
                content.dirty = False
                return
            digest = await self._hash(content, staged.fd, size)
            await self._group.enter_publishing()
        self._find_or_publish(content, digest)

    async def _hash(self, content: Content, fd: int, size: int) -> Digest:
        """The digest of a staged file: what has followed its writer goes on, or it is read whole."""
        prefix = content.prefix
        if prefix is not None:
            digest = await prefix.complete(self._scheduler, fd, size, INLINE_WORK)
            if digest is not None:
                return digest
            content.prefix = None
        if size <= INLINE_WORK:
            return hash_descriptor(fd, size)
        return await self._scheduler.run(hash_descriptor, fd, size)

    def _find_or_publish(self, content: Content, digest: bytes) -> None:
        """Let the inode have the blob of its content, the one that is there or a new one."""
        size = content.inode.size
        blob = self._blobs.find(digest)
        if blob is not None and self._filestore.has(digest, size) and not self._damage.is_known(blob):
            self._drop_staged(content)
        elif blob is not None:
            self._publish_again(content, digest)
            self._damage.clear(blob)
        else:
            # Power could bring the row back that is going: then its file must not have changed (I1).
            spared = self._filestore.spare(digest)
            blob = self._blobs.insert(digest, size, time.time_ns())
            self._inodes.add_refs(blob, -1)
            try:
                if not spared:
                    self._publish(content, digest, blob)
                elif self._filestore.has(digest, size):
                    self._drop_staged(content)
                else:
                    self._publish_again(content, digest)
            except BaseException:
                self._inodes.drop_unused(blob)
                raise
        self._sealed(content, blob)

    def _publish_again(self, content: Content, digest: bytes) -> None:
        """Heal a blob whose file is missing or known to be bad.

        It has a row already, so a torn file would be taken for the blob after a power loss (I1): the new one
        gets its name when it is durable. Blocks for as long as that takes.
        """
        if content.buffer is not None:
            self._spill(content)
        assert content.staged is not None
        self._filestore.durable.fdatasync(content.staged.fd)
        self._publish(content, digest, None)

    def _publish(self, content: Content, digest: bytes, new: int | None) -> None:
        """Hand the content over to the filestore; `new`: the row that was made for it."""
        inode, buffer, staged = content.inode, content.buffer, content.staged
        if buffer is not None:
            self._filestore.promise(0)
            if self._group.defers_files:
                self._filestore.accept(digest, buffer)
            else:
                self._filestore.publish_bytes(digest, buffer)
            self._let_go(content)
        else:
            assert staged is not None
            named = inode.staged == staged.name
            self._filestore.publish_staged(digest, staged, keep_name=named)
            if named:
                self._group.obsolete(staged.name)
                inode.staged = None
            content.staged = None
            content.prefix = None
        self._group.publish(digest, new)

    def _sealed(self, content: Content, blob: int | None) -> None:
        content.dirty = False
        if self.complaints.open:
            self.complaints.over(content.inode.ino)
        content.close_blob()
        if content.inode.blob != blob:
            self._drop_idle(content.inode.blob)
        self._inodes.set_blob(content.inode, blob)
        self._inodes.mark(content.inode)
        self._group.count()

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
        self._drop_idle(inode.blob)
        self._inodes.set_blob(inode, None)
        content.row_size = size
        content.dirty_since = self._scheduler.now()
        self._inodes.mark(inode)

    def _make_durable(self, staged: StagedFile, first: bool) -> None:
        self._filestore.durable.fdatasync(staged.fd)
        if first:
            self._filestore.durable.fsync_path(self._staging.root)

    async def seal_due(self) -> None:
        """Seal what close(2) has left for later: before anybody is told that all that came before is durable.
        Raises OSError, which its close did not know."""
        await self._seal_due(self.seal)

    async def _seal_due(self, seal: Callable[[Content], Awaitable[None]]) -> None:
        for number, content in enumerate(list(self.seals_due)):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await self._scheduler.pause()
            if content.dirty and content.inode.nlink:
                await seal(content)
            self.seals_due.discard(content)
            self._close_if_idle(content)

    @property
    def keeps_order(self) -> bool:
        """Would `begin_in_order` return without waiting?"""
        group = self._group
        return group.active and not (self.seals_due and (group.is_gathering or group.is_closing))

    async def begin_in_order(self) -> None:
        """As `GroupCommit.begin`, for what takes something away, gives a name, or seals: not in a group whose
        commit leaves out what was closed before (I5). A crash would keep the removal of a file, and lose the
        other one that its content was written to before. No mutex may be held: others are taken."""
        group = self._group
        while not self.keeps_order:
            if not group.active:
                await group.begin()
            elif group.is_closing:
                await group.enter_publishing()
            else:
                await self._seal_due(self._seal_late)

    async def seal_closed(self, inode: Inode) -> None:
        """Seal what nobody writes any more and a commit has kept from being sealed at its close."""
        content = inode.content
        if content is not None and content.dirty and not content.writers:
            await self.seal(content)
            self._close_if_idle(content)

    async def persist_inode(self, inode: Inode) -> None:
        """Before an unsealed file takes the name of another one: its content must not be lost (I6)."""
        await self.seal_closed(inode)
        content = inode.content
        if content is not None and content.dirty and inode.nlink:
            async with content.mutex:
                if content.dirty:
                    await self._persist(content)

    async def write_back(self) -> None:
        """Before a commit: long-dirty content becomes durable, what could not be sealed is tried again."""
        now = self._scheduler.now()
        for number, content in enumerate(list(self._open.values())):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await self._scheduler.pause()
            closed = content in self.seals_due
            if not content.dirty or not content.inode.nlink or (content.mutex.busy and not closed):
                continue
            if closed or content.writers == 0:
                await self._seal_late(content)
            elif now - content.dirty_since > WRITEBACK_SECONDS:
                async with content.mutex:
                    if content.dirty:
                        await self._persist(content)
        self.seals_due = {due for due in self.seals_due if due.dirty and due.inode.nlink}

    async def _seal_late(self, content: Content) -> None:
        """Its close has told of the error already; the rest must not wait for it."""
        try:
            await self.seal(content)
        except OSError as error:
            self.complaints.stays_staged(content.inode.ino, error)
        self._close_if_idle(content)

    async def settle(self) -> None:
        """Seal everything, at unmount. Raises OSError for the first that cannot be."""
        for content in list(self._open.values()):
            if content.dirty and content.inode.nlink:
                await self.seal(content)
