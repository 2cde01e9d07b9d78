"""Sealing: staged content becomes a blob, or is made durable as it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from casfs.filestore.durable import NO_DESCRIPTOR
from casfs.filestore.hashing import hash_all, hash_bytes, other_digests
from casfs.filestore.staging import StagedFile
from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.complaints import Complaints
from casfs.fs.content.content import Content
from casfs.fs.content.digests import Digesting, Values
from casfs.fs.content.passthrough import Passthrough
from casfs.fs.content.resting import REST_SECONDS, Resting
from casfs.fs.content.staged import INLINE_WORK, StagedContents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.types import Digest

SPARSE_LIMIT = 1 << 30
"""Bytes of holes from which a file is not hashed but stays a staged file: hashing zeros takes 0.3 s/GiB."""


INLINE_OTHERS = 256 << 10
"""Bytes that are hashed for further digests on the event loop's own thread: 0.2 to 0.4 ms."""


class Sealing:
    """What turns dirty content into blobs. Owned by the thread that runs the file system.

    `due`: what was closed and is to be settled (settling.py) with the next commit. `resting`: files whose
    rows name a staged file.
    """

    def __init__(
        self,
        core: Core,
        blobs: BlobFiles,
        staged: StagedContents,
        passthrough: Passthrough,
        complaints: Complaints,
        digesting: Digesting,
    ) -> None:
        self._filestore = core.store.filestore
        self._staging = core.store.filestore.staging
        self._blob_rows = core.store.namespace.blobs
        self._damage = core.store.namespace.damage
        self._inodes = core.inodes
        self._group = core.group
        self._scheduler = core.scheduler
        self._blobs = blobs
        self._staged = staged
        self._passthrough = passthrough
        self._complaints = complaints
        self._digesting = digesting
        self.due: set[Content] = set()
        self.resting = Resting()

    def digest(self, inode: Inode) -> bytes | None:
        """The digest of a sealed, regular file; None while it is staged. Raises OSError EIO."""
        content = inode.content
        if not inode.is_regular or inode.staged is not None or (content is not None and content.is_staged):
            return None
        if inode.blob is None:
            return None if inode.size else hash_bytes(b"")  # what is generated has none
        return self._blobs.digest(inode)

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
            algorithms = self._digesting.of(content.inode)
            if len(buffer) * len(algorithms) > INLINE_OTHERS:
                return False
            content.inode.allocated = content.allocated()
            self._find_or_publish(
                content, hash_bytes(buffer), algorithms, lambda names: other_digests(buffer, names)
            )
        return True

    async def _seal(self, content: Content) -> None:
        """As `seal`; the mutex is held."""
        inode = content.inode
        is_used = content.is_lent and self._is_used(content)
        size = inode.size
        inode.allocated = content.allocated()
        await self._group.enter_publishing()
        if size == 0 and not is_used:
            self._staged.drop(content)
            self.sealed(content, None)
            return
        algorithms = self._digesting.of(inode)
        if content.buffer is not None:
            buffer = content.buffer
            others: Values = {}
            if algorithms:  # nobody writes to it meanwhile: the mutex is held
                others = await self._scheduler.run(other_digests, buffer, algorithms)
                await self._group.enter_publishing()
            self._find_or_publish(content, hash_bytes(buffer), algorithms, lambda _: others)
            return
        assert content.staged is not None
        if content.preallocated:  # what fallocate(2) put behind the end goes
            os.ftruncate(content.staged.fd, size)
            content.preallocated = False
        if is_used or self.is_sparse(content):
            handles = content.handles
            await self.persist(content)
            if is_used and handles and not content.handles:  # its last reader has gone meanwhile
                await self._seal(content)
            elif content.dirty:
                content.dirty = False
                self.rest_again(inode)
            return
        if content.is_lent:
            await self._staged.take_copy(content)
        prefix = content.prefix
        digest, values = await self._hash(content, content.staged.fd, size, algorithms)
        await self._group.enter_publishing()
        rest = content.prefix if content.prefix is prefix and algorithms and not values else None
        if rest is not None and not rest.hold(content.staged.fd):
            rest = None
        try:
            published = self._find_or_publish(content, digest, algorithms, lambda _: values)
        except BaseException:
            if rest is not None:
                rest.abandon()
            raise
        if rest is not None and published and inode.blob is not None:
            self._digesting.follow(inode.blob, rest)
        elif rest is not None:
            rest.abandon()

    def _is_used(self, content: Content) -> bool:
        """Is the staged file, which is lent, the backing file of somebody, or may a mapping write to it?"""
        return bool(content.backing and content.handles) or not self._passthrough.take_back(content)

    @staticmethod
    def is_sparse(content: Content) -> bool:
        """Are there so many holes that it stays a staged file?"""
        return content.inode.size - content.allocated() >= SPARSE_LIMIT

    async def _hash(
        self, content: Content, fd: int, size: int, algorithms: tuple[str, ...]
    ) -> tuple[Digest, Values]:
        """The digest of a staged file: what has followed its writer goes on, or it is read whole. Further
        ones too, unless what follows goes on to compute them when the file is a blob."""
        prefix = content.prefix
        if prefix is not None and prefix.algorithms >= set(algorithms):
            digest = await prefix.complete(self._scheduler, fd, size, INLINE_WORK)
            if digest is not None:
                blob = self._blob_rows.find(digest) if algorithms else None
                if blob is not None and self._digesting.lacking(blob, algorithms):  # then the file will go
                    return digest, await prefix.others(self._scheduler, fd)
                return digest, {}
        content.prefix = None
        if size <= INLINE_WORK and not algorithms:
            return hash_all(fd, size, ())
        return await self._scheduler.run(hash_all, fd, size, algorithms)

    def _find_or_publish(
        self,
        content: Content,
        digest: bytes,
        algorithms: tuple[str, ...],
        others: Callable[[Iterable[str]], Values],
    ) -> bool:
        """Let the inode have the blob of its content, the one that is there or a new one: is that the file
        that was staged? `others` gives further digests of it, of which the blob gets those of `algorithms`
        that it has not."""
        size = content.inode.size
        blob = self._blob_rows.find(digest)
        lacking = algorithms if blob is None else self._digesting.lacking(blob, algorithms)
        values = others(lacking) if lacking else {}
        published = True
        if blob is not None and self._filestore.has(digest, size) and not self._damage.is_known(blob):
            self._staged.drop(content)
            published = False
        elif blob is not None:
            self._publish_again(content, digest)
            self._damage.clear(blob)
        else:
            # Power could bring the row back that is going: then its file must not have changed (I1).
            spared = self._filestore.spare(digest)
            blob = self._blob_rows.insert(digest, size, time.time_ns())
            self._inodes.add_refs(blob, -1)
            try:
                if not spared:
                    self._publish(content, digest, blob)
                elif self._filestore.has(digest, size):
                    self._staged.drop(content)
                    published = False
                else:
                    self._publish_again(content, digest)
            except BaseException:
                self._inodes.drop_unused(blob)
                raise
        self._digesting.note(blob, values)
        self.sealed(content, blob)
        return published

    def _publish_again(self, content: Content, digest: bytes) -> None:
        """Heal a blob whose file is missing or known to be bad.

        It has a row already, so a torn file would be taken for the blob after a power loss (I1): the new one
        gets its name when it is durable. Blocks for as long as that takes.
        """
        if content.buffer is not None:
            self._staged.spill(content)
        assert content.staged is not None
        self._filestore.durable.fdatasync(content.staged.fd)
        self._publish(content, digest, None)

    def _publish(self, content: Content, digest: bytes, new: int | None) -> None:
        """Hand the content over to the filestore; `new`: the row that was made for it."""
        buffer, staged = content.buffer, content.staged
        if buffer is not None:
            self._filestore.space.promise(0)
            if self._group.defers_files:
                self._filestore.accept(digest, buffer)
            else:
                self._filestore.publish_bytes(digest, buffer)
            self._staged.free_buffer(content)
        else:
            assert staged is not None
            named = content.inode.staged == staged.name
            self._filestore.publish_staged(digest, staged, keep_name=named)
            content.staged = None
            content.prefix = None
        self._group.publish(digest, new)

    async def keep(self, digest: Digest, size: int, staged: StagedFile) -> int:
        """Make a file that nothing names, of that content, a blob that nothing refers to, or drop it where
        there is one. Whoever asks for it sees to it that it is not collected. Gives its number; it is durable
        with the group. Raises OSError."""
        await self._group.enter_publishing()
        blob = self._blob_rows.find(digest)
        if blob is not None and self._filestore.has(digest, size) and not self._damage.is_known(blob):
            self._staging.drop(staged)
            return blob
        if blob is not None or self._filestore.spare(digest):
            self._filestore.durable.fdatasync(staged.fd)  # as in _publish_again
        if blob is not None:
            self._filestore.publish_staged(digest, staged, keep_name=False)
            self._group.publish(digest, None)
            self._damage.clear(blob)
            return blob
        blob = self._blob_rows.insert(digest, size, time.time_ns())
        self._inodes.add_refs(blob, -1)
        try:
            self._filestore.publish_staged(digest, staged, keep_name=False)
        except BaseException:
            self._inodes.drop_unused(blob)
            raise
        self._group.publish(digest, blob)
        self._group.count()
        return blob

    def sealed(self, content: Content, blob: int | None) -> None:
        """The content is that blob now, None for an empty one; what was staged is gone. In a transaction."""
        inode = content.inode
        content.dirty = content.changed = content.rewritten = False
        content.written = 0
        if self._complaints.open:
            self._complaints.over(inode.ino)
        content.close_blob()
        if inode.blob != blob:
            self._passthrough.drop_idle(inode.blob)
        if inode.staged is not None:
            self._group.obsolete(inode.staged)
            inode.staged = None
        self.resting.forget(inode.ino)
        self._inodes.set_blob(inode, blob)
        self._inodes.mark(inode)
        self._group.count()

    async def persist(self, content: Content) -> None:
        """Let the row name the staged file, with its bytes durable first. The mutex is held."""
        if content.buffer is not None:
            self._staged.spill(content)
        staged = content.staged
        assert staged is not None
        size = content.inode.size
        first = content.inode.staged != staged.name
        try:
            await self._scheduler.run(self._make_durable, staged, first)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR:  # which only open(2) tells, behind the sync
                self._group.stop(error)
            raise
        await self._group.begin()
        self.named(content)
        content.row_size = size

    def _make_durable(self, staged: StagedFile, first: bool) -> None:
        self._filestore.durable.fdatasync(staged.fd)
        if first:
            self._staging.sync_names()

    def named(self, content: Content) -> None:
        """The row names the staged file as it is now. Inside a transaction."""
        inode, staged = content.inode, content.staged
        assert staged is not None
        if inode.staged is not None and inode.staged != staged.name:
            self._group.obsolete(inode.staged)
        inode.staged = staged.name
        self._passthrough.drop_idle(inode.blob)
        self._inodes.set_blob(inode, None)
        content.row_size = inode.size
        content.changed = False
        self.due.discard(content)
        content.dirty_since = self._scheduler.now()
        self._inodes.mark(inode)
        self._group.count()

    def rest_again(self, inode: Inode) -> None:
        """It could not be sealed, but may be later."""
        self.resting.put_off(inode.ino, self._scheduler.now() + REST_SECONDS)
