"""Open contents: what is staged in memory or in files, and how sealed content becomes staged."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from casfs.filestore.filestore import FILE_ROOM, hash_bytes
from casfs.fs.commit import GroupCommit
from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.complaints import Complaints
from casfs.fs.content.content import MEMORY_LIMIT, Content, Handle
from casfs.fs.content.prefix import PrefixHash
from casfs.fs.inodes import Inode, InodeTable
from casfs.fs.scheduler import Scheduler
from casfs.store import Store

BUFFERED_LIMIT = 64 << 20
"""Bytes of staged content in memory, over all files; beyond it new content goes to staged files."""

INLINE_WORK = 1 << 20
"""Bytes that are hashed or copied on the event loop's own thread: less than a millisecond."""


class Contents:
    """The table of open contents. Owned by the thread that runs the file system.

    `attributes_changed` is called with the number of an inode whose attributes a request has changed that
    does not say so in its answer: the kernel has to be told.
    `seals_at_close`: close(2) waits for the seal, always. `seals_due`: what was closed and is to be
    settled (settling.py) with the next commit.
    """

    def __init__(self, store: Store, inodes: InodeTable, group: GroupCommit, scheduler: Scheduler) -> None:
        self._filestore = store.filestore
        self._staging = store.filestore.staging
        self._blobs = store.namespace.blobs
        self._damage = store.namespace.damage
        self._xattrs = store.namespace.xattrs
        self._paths_of = store.namespace.dentries.paths_of
        self._inodes = inodes
        self._group = group
        self._scheduler = scheduler
        self._open: dict[int, Content] = {}
        self._slow_writes = 0
        self._blob_files = BlobFiles(store, scheduler)
        self.handles = 0
        self.attributes_changed: Callable[[int], object] = lambda _: None
        self.seals_at_close = False
        self.seals_due: set[Content] = set()
        self.complaints = Complaints()

    def open(self, inode: Inode, writable: bool, uid: int) -> Handle:
        """A handle of a regular file. Raises OSError EIO when its staged file is gone, and for who wants to
        write when what was written before can be neither sealed nor kept."""
        content = self._content(inode)
        if content.broken and writable:
            raise OSError(content.broken, f"what was written to inode {inode.ino} cannot be kept")
        content.handles += 1
        content.writers += writable
        self.handles += 1
        return Handle(inode, content, writable, uid)

    def find(self, inode: Inode) -> Content | None:
        """The content of an inode while it is open, or not sealed yet."""
        return self._open.get(inode.ino)

    def _content(self, inode: Inode) -> Content:
        content = self._open.get(inode.ino)
        if content is None:
            content = Content(inode, self._scheduler)
            if inode.staged is not None:
                content.staged = self._staging.reopen(inode.staged)
                if content.is_lent:
                    content.mtime_below = os.fstat(content.staged.fd).st_mtime_ns
            inode.content = self._open[inode.ino] = content
        return content

    def _close_if_idle(self, content: Content, *, gone: bool = False) -> None:
        """`gone`: the inode goes. Until then what is dirty stays, also without a name: the kernel may still
        open it for who has a descriptor of it (O_PATH), and its row says what it would be without it. So does
        what is lent to mappings that may have outlived their handles."""
        if content.handles or content.mutex.busy or ((content.dirty or content.backing) and not gone):
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

    def may_map(self, handle: Handle) -> None:
        """A program may map what it has opened here, and write to the mapping."""
        if not handle.passthrough:
            handle.maps = True
            handle.content.mappers += 1
            if not handle.content.observe()[1]:
                self.attributes_changed(handle.inode.ino)

    def is_open(self, ino: int) -> bool:
        """Has anybody a handle of that inode?"""
        content = self._open.get(ino)
        return content is not None and content.handles > 0

    def has_writers(self, inode: Inode) -> bool:
        """Has anybody opened it for writing?"""
        content = self.find(inode)
        return content is not None and content.writers > 0

    def close_all(self, inode: Inode) -> None:
        """The mount has gone: the kernel does not send each RELEASE that is left to send then."""
        content = self.find(inode)
        if content is not None:
            content.handles = content.writers = 0

    def discard(self, inode: Inode) -> bool:
        """An inode without names goes: content, attributes, row. Inside a transaction. False while open."""
        content = self.find(inode)
        if content is not None:
            self._close_if_idle(content, gone=True)
            if inode.content is not None:
                return False
        if inode.staged is not None:
            self._group.obsolete(inode.staged)
        if self.complaints.open:
            self.complaints.over(inode.ino)
        self._inodes.remove(inode)
        return True

    def digest(self, inode: Inode) -> bytes | None:
        """The digest of a sealed, regular file; None while it is staged."""
        content = inode.content
        if not inode.is_regular or inode.staged is not None or (content is not None and content.is_staged):
            return None
        return hash_bytes(b"") if inode.blob is None else self._blob_files.digest(inode)

    async def _make_staged(self, content: Content, keep: int) -> None:
        """Copy up: have the first `keep` bytes of sealed content staged. The mutex is held."""
        if content.is_staged:
            return
        if keep == 0 or content.inode.blob is None:
            content.buffer = bytearray()
        elif self._may_hold(content, keep):
            data = os.pread(await self._blob_files.open(content), keep, 0)
            if len(data) != keep:
                raise OSError(errno.EIO, "blob is shorter than its row says")
            self._will_hold(content, keep)
            content.buffer = bytearray(data)
        else:
            self._filestore.claim(keep, 1)
            staged = self._staging.create()
            try:
                if keep <= INLINE_WORK:
                    self._filestore.copy_to(self._blob_files.digest(content.inode), staged, keep)
                else:
                    digest = self._blob_files.digest(content.inode)
                    with self._blob_files.in_thread(content.inode.blob):
                        await self._scheduler.run(self._filestore.copy_to, digest, staged, keep)
            except BaseException:
                self._staging.drop(staged)
                raise
            content.staged = staged
            content.prefix = None
        content.close_blob()

    def _mark_dirty(self, content: Content) -> None:
        """Content is about to change: what was closed and is written again must not be sealed half (I5)."""
        content.changed = content.written_again = True
        if not content.dirty:
            content.rewritten = content.inode.blob is not None or content.inode.staged is not None
            content.mark_dirty()

    def _may_hold(self, content: Content, size: int) -> bool:
        """May so much staged content be in memory?"""
        if size > MEMORY_LIMIT:
            return False
        grown = _room(size) - _room(len(content.buffer or b""))
        return self._filestore.promised + grown <= BUFFERED_LIMIT

    def _will_hold(self, content: Content, size: int) -> None:
        """Content in memory is going to be of that size. What it will take on disk is promised to it, so that
        nothing is left for close(2) to complain of. Raises OSError ENOSPC."""
        held = len(content.buffer or b"")
        grown = _room(size) - _room(held)
        if grown:
            self._filestore.promise(grown, bool(size) - bool(held))

    def _let_go(self, content: Content) -> None:
        """The staged content is in memory no more."""
        self._will_hold(content, 0)
        content.buffer = None

    def _spill(self, content: Content) -> None:
        """Move staged content from memory to a staged file. Raises OSError."""
        buffer = content.buffer
        assert buffer is not None
        self._filestore.promise(0)
        self._filestore.claim(0, int(not buffer))  # else the file it would become is promised
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
        self._let_go(content)
        content.staged = staged
        content.prefix = PrefixHash(buffer)

    def _drop_staged(self, content: Content) -> None:
        """Forget staged content. A staged file that the row names stays until the row names another one, or a
        blob: until then a crash leaves the file as it was (I5)."""
        inode, staged = content.inode, content.staged
        if content.buffer is not None:
            self._let_go(content)
        elif staged is not None and inode.staged == staged.name:
            os.close(staged.fd)
        elif staged is not None:
            self._staging.drop(staged)
        content.staged = None
        content.prefix = None

    def path(self, inode: Inode) -> str:
        """Where a file is, to be told."""
        paths = self._paths_of(inode.ino)
        return os.fsdecode(paths[0]) if paths else f"inode {inode.ino}, which has no name"

    @property
    def writable(self) -> list[int]:
        """The numbers of the inodes that are open for writing."""
        return [ino for ino, content in self._open.items() if content.writers]

    @property
    def unsealed(self) -> int:
        """Files whose content is staged."""
        return sum(content.dirty for content in self._open.values())


def _room(size: int) -> int:
    """Bytes on disk that a blob of `size` bytes takes at the most; an empty file has none."""
    return size + FILE_ROOM if size else 0
