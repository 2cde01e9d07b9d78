"""Passthrough: the kernel reads, and maps, the file below by itself.

A file whose readers have its blob as their *backing file* costs no request for a read. What the kernel
demands of it (fs/fuse/iomode.c, fs/fuse/passthrough.c), and what keeps a blob immutable (I2):

- Once an inode has a backing file, every further open has the same one, until the last handle is gone.
  Whether it has one is decided at the first open, if that only reads.
- A blob is the backing file of one inode at a time, as long as a mapping of it lives. Another inode with the
  same content is read through the daemon meanwhile: whoever has it mapped must not see what is written to
  that inode later.
- A blob is never the backing file of a handle that may write: a shared mapping would write to it. When a
  writer comes, the readers' file *becomes* the staged file: a fresh copy takes the name of the blob,
  and is durable, before anything is written; so the readers see the writes, and the blob keeps its bytes.
- While readers have a staged file it stays one, and is not sealed. A row names it, so nothing is lost.
- A mapping holds the file below, not the FUSE file, and outlives the last handle, the mount and the daemon
  (filestore/lease.py). So a staged file that was the backing file of a handle that may write is *lent*: it
  stays staged, and the backing file of whoever opens the inode, as long as a mapping may write to it; and it
  never becomes a blob itself, a copy of it does. The blob's inode is then one that no program could ever
  write to, not even by pages that it had pinned for a read(2) which ends after the mapping has.
- Nobody can take a backing file from a handle that has it. When it is found to be damaged, there is EIO for
  every further open(2) of the inode until the last of those handles is gone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import OrderedDict
from collections.abc import Collection

from casfs.filestore.held import SMALLEST
from casfs.filestore.lease import others_have_open
from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.content import Content, Handle
from casfs.fs.content.staged import StagedContents
from casfs.fs.content.table import OpenContents
from casfs.fs.core import Core
from casfs.fs.kernel import Backings

log = logging.getLogger(__name__)

IDLE_LIMIT = 64
"""Registered blobs that no open file uses, kept for the next open."""


class Passthrough:
    """Which inodes have a backing file. Owned by the thread that runs the file system, and with it `backing`
    and `backing_blob` of each content.

    `_refused`: the kernel has refused to register a file, and is not asked again. `_idle`: blob -> (backing
    id, number of the inode that had it last). `_blobs_in_use`: blobs that are the backing file of an open
    inode. `stale_pages`: inodes that were written while the kernel's page cache did not see it; their next
    open must not keep it. `_damaged`: backing ids of damaged files. Where leases cannot be trusted a blob is
    passed through for one inode only, `_only_for`, and what is lent stays staged until `ending`.
    """

    def __init__(self, core: Core, blobs: BlobFiles, staged: StagedContents, table: OpenContents) -> None:
        self._filestore = core.store.filestore
        self._staging = core.store.filestore.staging
        self._damage = core.store.namespace.damage
        self._inodes = core.inodes
        self._group = core.group
        self._blobs = blobs
        self._staged = staged
        self._table = table
        self._kernel = core.kernel
        self._refused = False
        self._idle: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._only_for: dict[int, int] = {}
        self.ending = False
        self._blobs_in_use: set[int] = set()
        self.stale_pages: set[int] = set()
        self._damaged: set[int] = set()

    async def join(self, handle: Handle) -> None:
        """Decide whether a new handle is passed through: all of an inode are, or none. Raises OSError."""
        content = handle.content
        if content.backing:
            if content.backing in self._damaged:
                raise OSError(errno.EIO, f"the blob of inode {content.inode.ino} is damaged")
            if handle.writable:
                async with content.mutex:
                    await self.copy_up(content, content.inode.size)
        elif self._registry is None or content.handles > 1:
            return
        elif content.is_lent:
            if not self._register_lent(content):
                return
        elif handle.writable or not self._is_fit(content) or not await self._register(content):
            return
        handle.passthrough = True

    async def copy_up(self, content: Content, keep: int) -> None:
        """Have at least the first `keep` bytes of sealed content staged: by a copy, or by giving the readers'
        file away. The mutex is held. Raises OSError."""
        if content.is_staged or not content.backing_blob:
            await self._staged.copy_up(content, keep)
        else:
            await self._displace(content)

    def _is_fit(self, content: Content) -> bool:
        """Is its content a blob that may become a backing file?"""
        inode = content.inode
        if inode.blob is None or content.is_staged or inode.size < SMALLEST:
            return False
        return inode.blob not in self._blobs_in_use

    async def _register(self, content: Content) -> bool:
        inode, blob = content.inode, content.inode.blob
        assert blob is not None
        backing, last = self._idle.pop(blob, (0, 0))
        if backing and last != inode.ino:
            self._unregister(backing)
            backing = 0
        if not backing:
            fd = await self._blobs.open(content)
            if content.handles > 1 or inode.blob != blob or not self._is_fit(content):
                return False  # somebody came meanwhile
            if self._registry is None or self._may_be_mapped(blob, fd, content):
                return False
            if not self._filestore.may_be_lent(fd) and not self._group.has_obsolete:
                return False
            backing = self._open_backing(fd)
            if not backing:
                return False
            content.close_blob()
        content.backing = backing
        content.backing_blob = blob
        self._blobs_in_use.add(blob)
        return True

    def _may_be_mapped(self, blob: int, fd: int, content: Content) -> bool:
        """May a program have the file of a blob mapped, for another inode? What is open here is closed."""
        if not self._kernel.trusts_leases:
            return self._only_for.setdefault(blob, content.inode.ino) != content.inode.ino
        if not others_have_open(fd):
            return False
        self._blobs.close((blob,), but=content)
        return others_have_open(fd)

    def _register_lent(self, content: Content) -> bool:
        """A staged file that a mapping of an earlier mount may still write to: readers have to see that."""
        assert content.staged is not None
        if content.mutex.busy or not self._staging.others_may_write(content.staged):
            return False
        fd = self._staging.open_again(content.staged)
        try:
            content.backing = self._open_backing(fd)
        finally:
            os.close(fd)
        return content.backing != 0

    def _open_backing(self, fd: int) -> int:
        """Register a file: its backing id, 0 when that cannot be done, and is not tried again."""
        assert self._registry is not None
        try:
            return self._registry.backing_open(fd)
        except OSError as error:
            log.warning("nothing is passed through any more: %s", error)
            self._refused = True
            return 0

    def unused(self, content: Content) -> None:
        """The last handle of an inode with a backing file is gone."""
        if content.backing_blob:
            self._leave(content)
            return
        if not content.mutex.busy:
            with contextlib.suppress(OSError):
                self.take_back(content)
        content.begin_change()  # a mapping may have written to it

    def _leave(self, content: Content) -> None:
        """The last handle of an inode whose backing file is a blob is gone."""
        backing, blob = content.backing, content.backing_blob
        content.backing = content.backing_blob = 0
        damaged = backing in self._damaged
        self._damaged.discard(backing)
        self._blobs_in_use.discard(blob)
        if damaged:
            self._unregister(backing)
            return
        self._idle[blob] = backing, content.inode.ino
        if len(self._idle) > IDLE_LIMIT:
            _, (backing, _) = self._idle.popitem(last=False)
            self._unregister(backing)

    def take_back(self, content: Content) -> bool:
        """Nobody has content open whose staged file is lent: can nobody write to that any more? Then it is no
        backing file any more. The mutex is held, or free. Raises OSError."""
        assert content.staged is not None
        if self._kernel.trusts_leases:
            if self._staging.others_may_write(content.staged):
                return False
        elif content.backing and not self.ending:  # without one it is lent to mappings of a mount that died
            return False
        self.give_back(content)
        return True

    def give_back(self, content: Content) -> None:
        """The staged file is no backing file any more."""
        backing, content.backing = content.backing, 0
        self._damaged.discard(backing)
        if backing:
            self._unregister(backing)

    def drop_idle(self, blob: int | None) -> None:
        """An inode has this blob no more: a registered file would keep its space after it was collected."""
        backing, _ = (0, 0) if blob is None else self._idle.pop(blob, (0, 0))
        if backing:
            self._unregister(backing)

    def drop_idle_of(self, low: int, high: int) -> None:
        """As `drop_idle`, for all that inodes with numbers in a range had."""
        for blob in [blob for blob, (_, ino) in self._idle.items() if low <= ino < high]:
            self.drop_idle(blob)

    @property
    def _registry(self) -> Backings | None:
        return None if self._refused else self._kernel.backings

    def _unregister(self, backing: int) -> None:
        if self._kernel.backings is None:  # with the connection the kernel has dropped all of them
            return
        try:
            self._kernel.backings.backing_close(backing)
        except OSError as error:
            log.warning("backing file %d stays registered: %s", backing, error)

    async def invalidate(self, blobs: Collection[int]) -> list[int]:
        """The files of these blobs are damaged and were taken away: whoever reads them next gets EIO.

        Gives the numbers of the inodes that have one of them: the kernel may still have their pages.
        """
        inos: set[int] = set()
        for blob in blobs:
            inos.update(self._damage.inodes_of(blob))
            self.drop_idle(blob)
        inos.update(inode.ino for inode in self._inodes.in_memory.values() if inode.blob in blobs)
        self._blobs.close(blobs)
        for content in self._table:
            if content.backing_blob in blobs and content.backing:
                self._damaged.add(content.backing)
        for blob in blobs:
            await self._blobs.wait_for_threads(blob)
        return sorted(inos)

    async def _displace(self, content: Content) -> None:
        """Let the readers' file become the staged file, which is lent to them, a copy of it the blob. The
        mutex is held."""
        blob = content.backing_blob
        digest = self._blobs.digest(content.inode)
        await self._group.obsolete_removed()  # so long the file may have a name in staging, too
        await self._staged.displace(content, digest)
        content.backing_blob = 0
        self._blobs_in_use.discard(blob)
        self.stale_pages.add(content.inode.ino)
        self._blobs.close((blob,))
        await self._blobs.wait_for_threads(blob)
        content.begin_change()
        await self._group.begin()
        if self._damage.is_known(blob):  # found and taken away meanwhile, of which this is a copy
            with contextlib.suppress(FileNotFoundError):
                self._filestore.remove(digest)
