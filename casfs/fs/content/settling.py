"""What close(2) and a commit owe to dirty content, and what becomes of it later.

`settle` is what a close(2) owes, itself or by the next commit: a new file is sealed; one that is written
again after it was sealed has its staged file named by its row, and is sealed when it rests (resting.py).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os

from casfs.errors import FsError
from casfs.fs.commit import PASSING, TRIES
from casfs.fs.content.complaints import Complaints
from casfs.fs.content.content import MEMORY_LIMIT, Content
from casfs.fs.content.passthrough import Passthrough
from casfs.fs.content.sealing import Sealing
from casfs.fs.content.staged import BUFFERED_LIMIT, StagedContents
from casfs.fs.content.table import OpenContents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.namespace.connection import DatabaseError, database_errno

log = logging.getLogger(__name__)

PAUSE_EVERY = 64
"""Contents looked at, and maybe settled, before others are served."""

WRITEBACK_SECONDS = 30.0
"""Age at which content that is still being written is made durable as it is, as the kernel does."""

DUE_LIMIT = BUFFERED_LIMIT // 2
"""Bytes of staged content in memory up to which what is closed may wait to be settled."""


class Settling:
    """When content becomes durable. Owned by the thread that runs the file system, and with it what was tried
    of each content: `broken`, `failures`.

    `seals_at_close`: close(2) waits for the seal, always.
    """

    def __init__(
        self,
        core: Core,
        staged: StagedContents,
        table: OpenContents,
        passthrough: Passthrough,
        sealing: Sealing,
        complaints: Complaints,
    ) -> None:
        self._filestore = core.store.filestore
        self._inodes = core.inodes
        self._group = core.group
        self._scheduler = core.scheduler
        self._staged = staged
        self._table = table
        self._passthrough = passthrough
        self._sealing = sealing
        self._due = sealing.due
        self._resting = sealing.resting
        self._complaints = complaints
        self.seals_at_close = False

    async def settle(self, content: Content) -> None:
        """Do for dirty content what its close owes. Raises OSError. What fails again for another reason than
        a want of room or descriptors is set apart, so that it fails nobody else."""
        if content.broken:
            raise OSError(content.broken, os.strerror(content.broken))
        try:
            if not content.rewritten:
                await self._sealing.seal(content)
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
            self._staged.spill(content)
        staged = content.staged
        assert staged is not None
        inode.allocated = content.allocated()
        named = inode.staged == staged.name and content.row_size == inode.size
        if content.changed or content.is_lent or not named:
            self._group.name(staged.name)
            self._sealing.named(content)
        content.dirty = False
        self._resting.wrote(inode.ino, inode.size, content.written, self._scheduler.now())
        content.written = 0

    @staticmethod
    def _is_synced(content: Content) -> bool:
        """Is a small file durable as it is? Many such are removed soon, as a database's journal is: then it
        need not become a blob first."""
        staged, inode = content.staged, content.inode
        named = staged is not None and inode.staged == staged.name and not staged.is_lent
        return named and not content.changed and inode.size <= MEMORY_LIMIT

    def settles_later(self, content: Content) -> bool:
        """Leave content to the next commit, if it need not be sealed now and is not too much in memory.

        Looks whether there still is room for it. Raises OSError ENOSPC.
        """
        inode, buffer = content.inode, content.buffer
        if self.seals_at_close or content.mutex.busy or content.broken:
            return False
        if buffer is None:
            if not inode.size or not (content.rewritten or self._is_synced(content)):
                return False
        elif self._filestore.space.promised > DUE_LIMIT and not self._group.is_closing:
            return False
        if content.dirty and inode.nlink:
            if buffer is not None:
                self._filestore.space.promise(0)
            content.closed_size, content.written_again = inode.size, False
            self._due.add(content)
        return True

    async def _settle_closing(self, content: Content) -> None:
        """`settle` for what is due, as it was when it was closed. Raises OSError."""
        while content.mutex.busy:  # who has it may be writing it again: that is known afterwards
            async with content.mutex:
                pass
        if content not in self._due:
            return
        if not content.written_again:
            await self.settle(content)
            return
        async with content.mutex:
            await self._group.enter_publishing()
            if content in self._due and content.dirty and content.inode.nlink:
                self._name_closed(content)

    def _name_closed(self, content: Content) -> None:
        """Somebody writes it again, and has not closed it: have the row name the staged file with the bytes
        that it had at its close, so that what was done since is not kept without them. The gate is open."""
        if content.buffer is not None:
            self._staged.spill(content)
        assert content.staged is not None
        size = content.closed_size
        self._group.name(content.staged.name)
        self._sealing.named(content)
        content.row_size = size
        content.changed = True

    async def settle_due(self) -> None:
        """Settle what close(2) has left for later: before anybody is told that all that came before is
        durable. Raises OSError when there is no room for some of it, which its close did not know; the others
        are settled all the same. What fails for another reason is told by its own fsync(2) only."""
        failed: OSError | None = None
        for number, content in enumerate(list(self._due)):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await self._scheduler.pause()
            try:
                await self._settle_closed(content)
            except OSError as error:
                self.log_unsealed(content.inode, error)
                failed = error if error.errno in PASSING else failed
        if failed is not None:
            raise failed

    async def _settle_closed(self, content: Content) -> None:
        """Settle what is due. It is until that is done, for `begin_in_order`. Raises OSError; then it is not
        due any more either."""
        try:
            if content.dirty and content.inode.nlink:
                await self._settle_closing(content)
        finally:
            self._due.discard(content)
            self._table.close_if_idle(content)

    @property
    def keeps_order(self) -> bool:
        """Would `begin_in_order` return without waiting?"""
        group = self._group
        return group.active and not (self._due and (group.is_gathering or group.is_closing))

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
                for number, content in enumerate(list(self._due)):
                    if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                        await self._scheduler.pause()
                    if content.dirty and content.inode.nlink:
                        await self._settle_late(content)
                    self._due.discard(content)

    async def settle_closed(self, inode: Inode) -> None:
        """Settle what nobody writes any more and a commit has kept from being settled at its close."""
        content = self._table.find(inode)
        if content is not None and content.dirty and not content.writers:
            await self.settle(content)
            self._table.close_if_idle(content)

    async def persist_inode(self, inode: Inode) -> None:
        """Before an unsealed file takes the name of another one: its content must not be lost (I6)."""
        await self.settle_closed(inode)
        content = self._table.find(inode)
        if content is not None and content.dirty and inode.nlink:
            async with content.mutex:
                if content.dirty:
                    await self._sealing.persist(content)

    async def persist_unnamed(self, inode: Inode) -> None:
        """Before a file without a name gets one."""
        content = self._table.find(inode)
        if content is not None and content.dirty:
            async with content.mutex:
                if content.dirty:
                    await self._sealing.persist(content)

    async def seal_closed(self, inode: Inode) -> None:
        """Seal what nobody writes any more, whether it has rested or not: somebody wants its digest, or a
        copy of it. Raises OSError."""
        content = self._table.find(inode)
        if content is None and inode.staged is not None and inode.nlink:
            content = self._table.get(inode)
        if content is not None and not content.writers:
            try:
                await self.seal_unwritten(content)
            finally:
                self._table.close_if_idle(content)

    async def seal_all_closed(self) -> None:
        """`seal_closed` for everything that rests. What cannot be sealed is told once."""
        for ino in self._resting.everything():
            with contextlib.suppress(FsError):
                inode = self._inodes.get(ino)
                try:
                    await self.seal_closed(inode)
                except OSError as error:
                    self.log_unsealed(inode, error)

    async def seal_unwritten(self, content: Content) -> None:
        """Seal content that is dirty, or of which the row names the staged file. Raises OSError."""
        inode = content.inode
        named = inode.staged is not None and inode.nlink and not content.dirty
        if named and not self._sealing.is_sparse(content):
            content.mark_dirty()
            content.rewritten = True  # so it stays, when this cannot be done
        if content.dirty:
            await self._sealing.seal(content)

    def rests(self, inode: Inode) -> bool:
        """Does nobody write the file, whose content has to rest before it is sealed?"""
        content = self._table.find(inode)
        if content is None:
            return inode.staged is not None
        return not content.writers and (inode.staged is not None or (content.dirty and content.rewritten))

    def rest(self, inode: Inode) -> None:
        """Have a file, whose staged file its row names, sealed soon."""
        self._resting.put_off(inode.ino, self._scheduler.now())

    async def seal_resting(self) -> None:
        """Seal what has rested long enough, one after the other. What cannot be is told once, and tried again
        later."""
        while not self._group.failed:
            ino = self._resting.next_due(self._scheduler.now())
            if ino is None:
                return
            try:
                inode = self._inodes.get(ino)
            except FsError:
                self._resting.forget(ino)
                continue
            if not inode.staged:
                continue
            try:
                await self.seal_closed(inode)
            except Exception as error:
                self.log_unsealed(inode, error)
            if inode.staged and ino not in self._resting:
                self._sealing.rest_again(inode)

    async def write_back(self) -> None:
        """Before a commit: long-dirty content becomes durable, what could not be sealed is tried again."""
        now = self._scheduler.now()
        for number, content in enumerate(list(self._table)):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await self._scheduler.pause()
            closed = content in self._due
            if not content.dirty or not content.inode.nlink or content.broken:
                continue
            if content.mutex.busy and not closed:
                continue
            if closed or content.writers == 0:
                await self._settle_late(content)
            elif now - content.dirty_since > WRITEBACK_SECONDS:
                await self._persist_late(content)
        self._due.difference_update(
            [due for due in self._due if not due.dirty or not due.inode.nlink or due.broken]
        )

    async def _settle_late(self, content: Content) -> None:
        """Its close has told of the error already; the rest must not wait for it."""
        try:
            await (self._settle_closing if content in self._due else self.settle)(content)
        except Exception as error:
            self.log_unsealed(content.inode, error)
        self._table.close_if_idle(content)

    async def _persist_late(self, content: Content) -> None:
        """Make what is written for long durable as it is; the rest must not wait for what cannot be."""
        try:
            async with content.mutex:
                if content.dirty:
                    await self._sealing.persist(content)
        except Exception as error:
            self.log_unsealed(content.inode, error)

    async def settle_all(self) -> list[OSError]:
        """Seal everything, at unmount. What cannot be, of which the errors are given, keeps nobody else."""
        self._passthrough.ending = True
        failed: list[OSError] = []
        for ino in self._resting.everything():
            with contextlib.suppress(FsError):
                await self._settle_last(self._inodes.get(ino), failed)
        for content in list(self._table):
            await self._settle_last(content.inode, failed)
        return failed

    async def _settle_last(self, inode: Inode, failed: list[OSError]) -> None:
        try:
            content = self._table.find(inode)
            if content is not None and content.broken and inode.nlink:
                path = self._complaints.path(inode.ino)
                raise OSError(content.broken, f"{path}: {os.strerror(content.broken)}")
            await self.seal_closed(inode)
            content = self._table.find(inode)
            if content is not None and inode.nlink:  # by force, before it was closed
                await self.seal_unwritten(content)
                if content.is_lent and not content.handles:  # nobody's backing file after this mount
                    self._passthrough.give_back(content)
                self._table.close_if_idle(content)
        except Exception as error:
            self.log_unsealed(inode, error)
            failed.append(error if isinstance(error, OSError) else OSError(errno.EIO, str(error)))

    def _set_apart(self, content: Content, error: Exception) -> None:
        """Content that can be neither sealed nor written: a crash, or an unmount, leaves the file as it was
        before."""
        content.broken = (error.errno if isinstance(error, OSError) else None) or errno.EIO
        unexpected = None if isinstance(error, OSError) else error
        log.error(
            "%s: what was written cannot be kept, copy it before this mount ends: %s",
            self._complaints.path(content.inode.ino),
            error,
            exc_info=unexpected,
        )

    def check_kept(self) -> None:
        """Raises OSError when something was written that cannot be kept."""
        for content in self._table:
            if content.broken and content.inode.nlink:
                path = self._complaints.path(content.inode.ino)
                raise OSError(content.broken, f"what was written to {path} cannot be kept")

    def log_unsealed(self, inode: Inode, error: Exception) -> None:
        """Have the log say that a file cannot be sealed, unless it has said that it cannot be kept."""
        content = self._table.find(inode)
        if content is None or not content.broken:
            self._complaints.stays_staged(inode.ino, error)
