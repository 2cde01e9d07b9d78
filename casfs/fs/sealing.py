"""Sealing: staged content becomes a blob, or is made durable as it is.

What a close(2) owes, itself or by the next commit, is `settle`: a new file is sealed; one that is written
again after it was sealed has its staged file named by its row, and is sealed when it rests (resting.py).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time

from casfs.errors import FsError
from casfs.filestore.durable import NO_DESCRIPTOR
from casfs.filestore.filestore import hash_bytes, hash_descriptor
from casfs.filestore.staging import StagedFile
from casfs.fs.commit import PASSING, TRIES, GroupCommit
from casfs.fs.content import Content
from casfs.fs.contents import INLINE_WORK
from casfs.fs.inodes import Inode, InodeTable
from casfs.fs.passthrough import Passthrough
from casfs.fs.resting import REST_SECONDS, Resting
from casfs.fs.scheduler import Scheduler
from casfs.namespace.connection import DatabaseError, database_errno
from casfs.store import Store
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

    def __init__(self, store: Store, inodes: InodeTable, group: GroupCommit, scheduler: Scheduler) -> None:
        super().__init__(store, inodes, group, scheduler)
        self.resting = Resting()
        self._told: set[int] = set()

    async def settle(self, content: Content) -> None:
        """Do for dirty content what its close owes. Raises OSError. What fails again for another reason than
        a want of room or descriptors is set apart, so that it fails nobody else."""
        if content.broken:
            raise OSError(content.broken, os.strerror(content.broken))
        try:
            if not content.rewritten:
                await self.seal(content)
            elif not self._name_at_once(content):
                async with content.mutex:
                    await self._group.enter_publishing()
                    self._name(content)
        except Exception as error:
            number = error.errno if isinstance(error, OSError) else None
            if number in PASSING or self._group.failed or isinstance(error, DatabaseError):
                raise
            content.failures += 1
            if database_errno(error) is None and content.failures >= TRIES:
                self._set_apart(content, error)
            raise OSError(number or database_errno(error) or errno.EIO, str(error)) from error
        content.failures = 0
        self._told.discard(content.inode.ino)

    def _set_apart(self, content: Content, error: Exception) -> None:
        """Content that can be neither sealed nor written: a crash, or an unmount, leaves the file as it was
        before."""
        content.broken = (error.errno if isinstance(error, OSError) else None) or errno.EIO
        unexpected = None if isinstance(error, OSError) else error
        log.error(
            "%s: what was written cannot be kept, copy it before this mount ends: %s",
            self._path(content.inode),
            error,
            exc_info=unexpected,
        )

    def _name_at_once(self, content: Content) -> bool:
        """As `_name`, if there is nothing to wait for; False when there is."""
        if content.mutex.busy or not self._group.can_publish:
            return False
        self._name(content)
        return True

    def _name(self, content: Content) -> None:
        """Have the row name the staged file, which the commit makes durable first. The gate is open."""
        inode = content.inode
        if not content.dirty or not inode.nlink:
            return
        if content.buffer is not None:
            self._spill(content)
        staged = content.staged
        assert staged is not None
        inode.allocated = content.allocated()
        named = inode.staged == staged.name and content.row_size == inode.size
        if content.changed or content.is_lent or not named:
            self._group.name(staged.name)
            self._named(content)
        content.dirty = False
        self.resting.wrote(inode.ino, inode.size, content.written, self._scheduler.now())
        content.written = 0

    def _named(self, content: Content) -> None:
        """The row names the staged file as it is now. Inside a transaction."""
        inode, staged = content.inode, content.staged
        assert staged is not None
        if inode.staged is not None and inode.staged != staged.name:
            self._group.obsolete(inode.staged)
        inode.staged = staged.name
        self._drop_idle(inode.blob)
        self._inodes.set_blob(inode, None)
        content.row_size = inode.size
        content.changed = False
        content.dirty_since = self._scheduler.now()
        self._inodes.mark(inode)
        self._group.count()

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
        """As `seal`; the mutex is held."""
        inode = content.inode
        is_used = content.is_lent and self._is_used(content)
        size = inode.size
        inode.allocated = content.allocated()
        await self._group.enter_publishing()
        if size == 0 and not is_used:
            self._drop_staged(content)
            self._sealed(content, None)
            return
        if content.buffer is not None:
            self._find_or_publish(content, hash_bytes(content.buffer))
            return
        assert content.staged is not None
        if content.preallocated:  # what fallocate(2) put behind the end goes
            os.ftruncate(content.staged.fd, size)
            content.preallocated = False
        if is_used or self._is_sparse(content):
            handles = content.handles
            await self._persist(content)
            if is_used and handles and not content.handles:  # its last reader has gone meanwhile
                await self._seal(content)
            elif content.dirty:
                content.dirty = False
                self._rest_again(inode)
            return
        if content.is_lent:
            await self._take_copy(content)
        digest = await self._hash(content, content.staged.fd, size)
        await self._group.enter_publishing()
        self._find_or_publish(content, digest)

    def _is_used(self, content: Content) -> bool:
        """Is the staged file, which is lent, the backing file of somebody, or may a mapping write to it?"""
        return bool(content.backing and content.handles) or not self._take_back(content)

    def _is_sparse(self, content: Content) -> bool:
        return content.inode.size - content.allocated() >= SPARSE_LIMIT

    def _rest_again(self, inode: Inode) -> None:
        """It could not be sealed, but may be later."""
        self.resting.put_off(inode.ino, self._scheduler.now() + REST_SECONDS)

    async def _take_copy(self, content: Content) -> None:
        """Have a copy of the staged file, which was lent, in its place: that one may become a blob (I2). On a
        file system with reflinks it shares the bytes. The mutex is held."""
        lent = content.staged
        assert lent is not None
        size = content.inode.size
        self._filestore.claim(size)
        fresh = self._staging.create()
        try:
            if size <= INLINE_WORK:
                self._filestore.copy_lent(lent, fresh, size)
            else:
                await self._scheduler.run(self._filestore.copy_lent, lent, fresh, size)
        except BaseException:
            self._staging.drop(fresh)
            raise
        self._drop_staged(content)
        content.staged = fresh

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
        buffer, staged = content.buffer, content.staged
        if buffer is not None:
            self._filestore.promise(0)
            if self._group.defers_files:
                self._filestore.accept(digest, buffer)
            else:
                self._filestore.publish_bytes(digest, buffer)
            self._let_go(content)
        else:
            assert staged is not None
            named = content.inode.staged == staged.name
            self._filestore.publish_staged(digest, staged, keep_name=named)
            content.staged = None
            content.prefix = None
        self._group.publish(digest, new)

    def _sealed(self, content: Content, blob: int | None) -> None:
        inode = content.inode
        content.dirty = content.changed = content.rewritten = False
        content.written = 0
        content.close_blob()
        if inode.blob != blob:
            self._drop_idle(inode.blob)
        if inode.staged is not None:
            self._group.obsolete(inode.staged)
            inode.staged = None
        self.resting.forget(inode.ino)
        self._inodes.set_blob(inode, blob)
        self._inodes.mark(inode)
        self._group.count()

    async def _persist(self, content: Content) -> None:
        """Let the row name the staged file, with its bytes durable first. The mutex is held."""
        if content.buffer is not None:
            self._spill(content)
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
        self._named(content)
        content.row_size = size

    def _make_durable(self, staged: StagedFile, first: bool) -> None:
        self._filestore.durable.fdatasync(staged.fd)
        if first:
            self._filestore.durable.fsync_path(self._staging.root)

    async def settle_due(self) -> None:
        """Settle what close(2) has left for later: before anybody is told that all that came before is
        durable. Raises OSError, which its close did not know; the others are settled all the same."""
        failed: OSError | None = None
        for number, content in enumerate(list(self.seals_due)):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await self._scheduler.pause()
            try:
                await self._settle_closed(content)
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    async def _settle_closed(self, content: Content) -> None:
        """Settle what is due. It is until that is done, for `begin_in_order`. Raises OSError; then it is not
        due any more either."""
        try:
            if content.dirty and content.inode.nlink:
                await self.settle(content)
        finally:
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
                for number, content in enumerate(list(self.seals_due)):
                    if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                        await self._scheduler.pause()
                    if content.dirty and content.inode.nlink:
                        await self._settle_late(content)
                    self.seals_due.discard(content)

    async def settle_closed(self, inode: Inode) -> None:
        """Settle what nobody writes any more and a commit has kept from being settled at its close."""
        content = inode.content
        if content is not None and content.dirty and not content.writers:
            await self.settle(content)
            self._close_if_idle(content)

    async def seal_closed(self, inode: Inode) -> None:
        """Seal what nobody writes any more, whether it has rested or not: somebody wants its digest, or a
        copy of it. Raises OSError."""
        content = inode.content
        if content is None and inode.staged is not None and inode.nlink:
            content = self._content(inode)
        if content is not None and not content.writers:
            try:
                await self.seal_unwritten(content)
            finally:
                self._close_if_idle(content)

    async def seal_unwritten(self, content: Content) -> None:
        """Seal content that is dirty, or of which the row names the staged file. Raises OSError."""
        inode = content.inode
        if inode.staged is not None and inode.nlink and not content.dirty and not self._is_sparse(content):
            content.mark_dirty()
            content.rewritten = True  # so it stays, when this cannot be done
        if content.dirty:
            await self.seal(content)

    def rest(self, inode: Inode) -> None:
        """Have a file, whose staged file its row names, sealed soon."""
        self.resting.put_off(inode.ino, self._scheduler.now())

    def rests(self, inode: Inode) -> bool:
        """Does nobody write the file, whose content has to rest before it is sealed?"""
        content = inode.content
        if content is None:
            return inode.staged is not None
        return not content.writers and (inode.staged is not None or (content.dirty and content.rewritten))

    async def seal_resting(self) -> None:
        """Seal what has rested long enough, one after the other. What cannot be is told once, and tried again
        later."""
        while not self._group.failed:
            ino = self.resting.next_due(self._scheduler.now())
            if ino is None:
                return
            try:
                inode = self._inodes.get(ino)
            except FsError:
                self.resting.forget(ino)
                continue
            if not inode.staged:
                continue
            try:
                await self.seal_closed(inode)
            except Exception as error:
                self._tell_once(inode, error)
            if inode.staged and ino not in self.resting:
                self._rest_again(inode)

    def _tell_once(self, inode: Inode, error: Exception) -> None:
        if inode.ino not in self._told:
            self._told.add(inode.ino)
            unexpected = None if isinstance(error, OSError) else error
            log.error("%s stays staged: %s", self._path(inode), error, exc_info=unexpected)

    async def persist_inode(self, inode: Inode) -> None:
        """Before an unsealed file takes the name of another one: its content must not be lost (I6)."""
        await self.settle_closed(inode)
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
            if not content.dirty or not content.inode.nlink or content.broken:
                continue
            if content.mutex.busy and not closed:
                continue
            if closed or content.writers == 0:
                await self._settle_late(content)
            elif now - content.dirty_since > WRITEBACK_SECONDS:
                await self._persist_late(content)
        self.seals_due = {due for due in self.seals_due if due.dirty and due.inode.nlink and not due.broken}

    async def _settle_late(self, content: Content) -> None:
        """Its close has told of the error already; the rest must not wait for it."""
        try:
            await self.settle(content)
        except Exception as error:
            if not content.broken:
                self._tell_once(content.inode, error)
        self._close_if_idle(content)

    async def _persist_late(self, content: Content) -> None:
        """Make what is written for long durable as it is; the rest must not wait for what cannot be."""
        try:
            async with content.mutex:
                if content.dirty:
                    await self._persist(content)
        except Exception as error:
            self._tell_once(content.inode, error)

    async def settle_all(self) -> list[OSError]:
        """Seal everything, at unmount. What cannot be, of which the errors are given, keeps nobody else."""
        self.ending = True
        failed: list[OSError] = []
        for ino in self.resting.everything():
            with contextlib.suppress(FsError):
                await self._settle_last(self._inodes.get(ino), failed)
        for content in list(self._open.values()):
            await self._settle_last(content.inode, failed)
        return failed

    async def _settle_last(self, inode: Inode, failed: list[OSError]) -> None:
        try:
            content = inode.content
            if content is not None and content.broken and inode.nlink:
                raise OSError(content.broken, f"{self._path(inode)}: {os.strerror(content.broken)}")
            await self.seal_closed(inode)
            if content is not None and inode.nlink:  # by force, before it was closed
                await self.seal_unwritten(content)
                self._close_if_idle(content)
        except Exception as error:
            self._tell_once(inode, error)
            failed.append(error if isinstance(error, OSError) else OSError(errno.EIO, str(error)))
