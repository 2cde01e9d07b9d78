"""Inodes in memory, over their rows: a cache with write-behind.

An operation changes `Inode` objects and marks them dirty; the rows follow in batches, at the latest
before COMMIT, inside the transaction the operation belongs to. So a directory in which a thousand files
are made is written once, and a file that is made and removed within a group is never written.
"""

from __future__ import annotations

import errno
import itertools
import logging
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

from casfs.errors import FsError
from casfs.namespace.inodes import S_IFMT, InodeRow
from casfs.namespace.namespace import Namespace
from casfs.types import HIGHEST_NUMBER

log = logging.getLogger(__name__)

CACHE_SIZE = 20_000
"""Inodes kept in memory besides those that are dirty or open; one takes about 600 bytes."""

EVICT_BATCH = 1000
"""Inodes that are looked at when there are too many: a quarter of a millisecond."""

FLUSH_BATCH = 400
"""Dirty inodes after which their rows are written: about one millisecond of work."""

FIELDS = tuple(name.removesuffix("_id").removesuffix("_ns") for name in InodeRow._fields)
"""What `Inode` calls the columns of its row."""

_columns = attrgetter(*FIELDS)
_SIZE = FIELDS.index("size")

TYPE, DIRECTORY, REGULAR = S_IFMT, stat.S_IFDIR, stat.S_IFREG
"""Of a mode, inode(7): the bits that say what it is, S_IFMT, and two of their values."""

_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
"""What SQLite's integers hold."""

ATTRIBUTES_LIMIT = 16 << 20
"""Bytes of extended attributes in memory, roughly, from which all are read again when they are asked for: a
user may give each of his files a MiB of them."""

NUMBER_BLOCK = 1 << 16
"""Inode numbers and cookies are reserved on disk in blocks of so many (I7)."""


def _references_of_unheld() -> int:
    """What sys.getrefcount says of an object that only a local variable holds."""
    inode = object()
    return sys.getrefcount(inode)


_UNHELD = _references_of_unheld()


class OpenContent(Protocol):
    """What others may know of a file's content while it is open, or not sealed yet (content/content.py).

    `dirty`: it differs from what the row says, which shows `row_size` bytes meanwhile. `writers`: handles
    that may write to it; `mappers`: those that may have it mapped, and written to in the kernel's page cache.
    """

    dirty: bool
    row_size: int
    writers: int
    mappers: int

    @property
    def is_staged(self) -> bool:
        """Is it in memory or in a staged file, in no blob?"""

    @property
    def is_busy(self) -> bool:
        """Is somebody changing it, and waits meanwhile?"""

    def observe(self) -> tuple[int, bool]:
        """Bytes on disk, and whether the kernel may keep the attributes, which are as mappings have left
        them."""


class Watcher(Protocol):
    """Who has to know what becomes of inodes: how large they are, and which names they have."""

    def loaded(self, inode: Inode) -> None:
        """It is read from its row: nothing of it has changed yet."""

    def changed(self, inode: Inode) -> None:
        """Something of it may have changed, its names among them."""


@dataclass(slots=True, eq=False, repr=False)
class Inode:
    """A row of the inode table (schema.sql) and what is known of it while it is in memory.

    `size` is what stat(2) shows; while `content` is dirty the row keeps `content.row_size`.
    """

    # The columns of a row, in their order.
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    allocated: int
    blob: int | None
    staged: str | None
    target: bytes | None
    atime: int
    mtime: int
    ctime: int
    btime: int
    # What is only in memory. Of `xattrs`, None stands for those that were not read: InodeTable.attributes.
    # `counted` belongs to the watcher.
    content: OpenContent | None = field(default=None, init=False)
    xattrs: dict[bytes, bytes] | None = field(default=None, init=False)
    stored: bool = field(default=True, init=False)
    counted: object = field(default=None, init=False)

    @property
    def is_directory(self) -> bool:
        return self.mode & TYPE == DIRECTORY  # S_ISDIR would be a call more

    @property
    def is_regular(self) -> bool:
        return self.mode & TYPE == REGULAR

    @property
    def is_generated(self) -> bool:
        """Has no row it (nodes.py)?"""
        return self.ino >= HIGHEST_NUMBER

    def row(self) -> tuple[object, ...]:
        """The row in the order of `InodeRow`."""
        row: tuple[object, ...] = _columns(self)
        content = self.content
        if content is None or not content.dirty:
            return row
        return *row[:_SIZE], content.row_size, *row[_SIZE + 1 :]


class InodeTable:
    """Every inode in memory. Owned by the thread that runs the file system (the event loop's).

    `watcher`: None while nobody has to know. `generated` makes an inode that no row has (nodes.py), and
    `generated_attributes` those that it came without.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.watcher: Watcher | None = None
        self.generated: Callable[[int], Inode | None] = lambda _: None
        self.generated_attributes: Callable[[int], dict[bytes, bytes]] = lambda _: {}
        self._cache: dict[int, Inode] = {}
        self._evict_at = CACHE_SIZE
        self._dirty: dict[int, Inode] = {}
        self._deleted: set[int] = set()
        self._refs: dict[int, int] = {}
        self._attribute_bytes = 0
        self._put_off = 0
        self._next_ino = self._ino_limit = namespace.counter("next_ino")
        self._next_cookie = self._cookie_limit = namespace.counter("next_cookie")

    # Reading

    def get(self, ino: int) -> Inode:
        """The inode of a number the kernel knows. Raises FsError ESTALE when there is none."""
        inode = self._cache.get(ino)
        return inode if inode is not None else self._load(ino)

    def _load(self, ino: int) -> Inode:
        if ino.__class__ is not int:  # of a name in a database that somebody else has written
            raise FsError(errno.EIO, f"a name stands for inode {ino!r:.50}")
        if ino >= HIGHEST_NUMBER:
            return self._generate(ino)
        row = self._namespace.inodes.get(ino)
        if row is None or ino in self._deleted:
            raise FsError(errno.ESTALE)
        inode = Inode(*row)
        self.remember(inode)
        if self.watcher is not None:
            self.watcher.loaded(inode)
        return inode

    def _generate(self, ino: int) -> Inode:
        inode = None if ino > _HIGHEST else self.generated(ino)
        if inode is None:
            raise FsError(errno.ESTALE)
        if inode.blob is not None:  # who has it open has the same one
            self.remember(inode)
        return inode

    def changeable(self, ino: int) -> Inode:
        """As `get`. Raises FsError EROFS for what is generated (nodes.py)."""
        if ino >= HIGHEST_NUMBER:
            raise FsError(errno.EROFS)
        return self.get(ino)

    def attributes(self, inode: Inode) -> dict[bytes, bytes]:
        """Every extended attribute of an inode, kept with it until memory is short of room for them: not to
        be held across a wait."""
        held = inode.xattrs
        if held is None:
            if inode.ino >= HIGHEST_NUMBER:
                held = inode.xattrs = self.generated_attributes(inode.ino)
            else:
                held = inode.xattrs = self._namespace.xattrs.of(inode.ino)
            if held:
                self.attributes_grew(inode, sum(map(len, held.values())))
        return held

    def attributes_grew(self, inode: Inode, size: int) -> None:
        """There are `size` bytes more of the attributes of an inode in memory. Those of others go when there
        are too many: their rows have them."""
        self._attribute_bytes += size
        if self._attribute_bytes > ATTRIBUTES_LIMIT:
            self._attribute_bytes = size
            for other in self._cache.values():
                if other.xattrs and other is not inode:
                    other.xattrs = None

    def glimpse(self, ino: int, row: tuple[Any, ...]) -> Inode:
        """As `get`, for a row that came with the name, if the one in memory is not newer. To be looked at
        only: a long listing does not drive others out of memory."""
        inode = self._cache.get(ino)
        return Inode(*row) if inode is None and row[0] is not None else inode or self.get(ino)

    def remember(self, inode: Inode) -> None:
        """Keep an inode in memory, of which there is none yet."""
        cache = self._cache
        cache[inode.ino] = inode
        if len(cache) > self._evict_at:
            self._evict()

    def forget_generated(self, low: int, high: int) -> None:
        """Those with numbers in a range are there no more, but for who works with one."""
        for ino in [ino for ino in self._cache if low <= ino < high]:
            inode = self._cache.pop(ino)
            if inode.content is not None or sys.getrefcount(inode) > _UNHELD:
                self._cache[ino] = inode

    def _evict(self) -> None:
        """Forget some of the oldest that are clean, closed, and held by nobody: there must be no second
        object of an inode somebody works with."""
        cache, dirty = self._cache, self._dirty
        for ino in list(itertools.islice(cache, min(EVICT_BATCH, len(cache) // 2))):
            inode = cache[ino]
            free = inode.content is None and ino not in dirty and inode.nlink
            del cache[ino]
            if not free or sys.getrefcount(inode) > _UNHELD:
                cache[ino] = inode
        self._evict_at = max(CACHE_SIZE, len(cache) + CACHE_SIZE // 20)

    # Changing: only inside a transaction

    def create(self, mode: int, uid: int, gid: int, rdev: int = 0, target: bytes | None = None) -> Inode:
        """A new inode with one link, dirty. Its number was never used before (I7)."""
        ino = self.next_number()
        now = time.time_ns()
        size = 0 if target is None else len(target)
        inode = Inode(ino, mode, 1, uid, gid, rdev, size, 0, None, None, target, now, now, now, now)
        inode.stored = False
        inode.xattrs = {}
        self._dirty[ino] = inode
        self.remember(inode)
        return inode

    def next_number(self) -> int:
        """An inode number that was never used before (I7)."""
        ino = self._next_ino
        if ino + NUMBER_BLOCK // 2 > self._ino_limit:
            self.reserve_numbers()
        self._next_ino = ino + 1
        return ino

    def next_cookie(self) -> int:
        """A directory cookie that was never used before."""
        cookie = self._next_cookie
        if cookie + NUMBER_BLOCK // 2 > self._cookie_limit:
            self.reserve_numbers()
        self._next_cookie = cookie + 1
        return cookie

    def mark(self, inode: Inode) -> None:
        """The row of an inode has to be written. Raises nothing: a verb is in the middle of its work."""
        self._dirty[inode.ino] = inode
        self._cache[inode.ino] = inode
        if self.watcher is not None:
            self.watcher.changed(inode)
        if len(self._dirty) > FLUSH_BATCH + self._put_off:
            self._flush_ahead()

    def changed(self, inode: Inode) -> None:
        """Something of an inode has changed: its ctime moves."""
        inode.ctime = time.time_ns()
        self.mark(inode)

    def set_blob(self, inode: Inode, blob: int | None) -> None:
        """Let an inode refer to another blob; the counts follow at commit (I4)."""
        if inode.blob is not None:
            self.add_refs(inode.blob, -1)
        if blob is not None:
            self.add_refs(blob, 1)
        inode.blob = blob

    def add_refs(self, blob: int, change: int) -> None:
        """Note a change of `blob.refs` for the next commit."""
        self._refs[blob] = self._refs.get(blob, 0) + change

    def counts(self, blob: int) -> bool:
        """Is there a change of `blob.refs` that the row does not show yet?"""
        return blob in self._refs

    def drop_unused(self, blob: int) -> bool:
        """Delete the row of a blob if no inode refers to it any more (I4). It must be one that no commit
        has shown to anybody."""
        change = self._refs.get(blob, 0)
        if change >= 0 or not self._namespace.blobs.delete_unused(blob, change):
            return False
        del self._refs[blob]
        return True

    def remove(self, inode: Inode) -> None:
        """Delete an inode without names and handles, its attributes and its reference to a blob. Raises
        DatabaseError; then it is as it was."""
        if inode.xattrs != {}:
            self._namespace.xattrs.remove_all(inode.ino)
        self.set_blob(inode, None)
        self._dirty.pop(inode.ino, None)
        self._cache.pop(inode.ino, None)
        if self.watcher is not None:
            self.watcher.changed(inode)
        if inode.stored:
            self._deleted.add(inode.ino)
            if len(self._deleted) > FLUSH_BATCH + self._put_off:
                self._flush_ahead()

    def flush_rows(self) -> None:
        """Write the rows of dirty inodes and delete those of removed ones. Raises DatabaseError."""
        if self._deleted:
            self._namespace.inodes.delete(self._deleted)
            self._deleted.clear()
        if self._dirty:
            dirty = list(self._dirty.values())
            for inode in dirty:  # before: what fails half way leaves rows, which go with their inodes
                inode.stored = True
            try:
                self._namespace.inodes.write([inode.row() for inode in dirty])
            except OverflowError:
                self._bound(dirty)
                self._namespace.inodes.write([inode.row() for inode in dirty])
            self._dirty.clear()
        self._put_off = 0

    def _flush_ahead(self) -> None:
        """Write rows before the commit does. What goes wrong is for the commit to say."""
        try:
            self.flush_rows()
        except Exception as error:
            log.debug("rows are written with the commit: %s", error)
            self._put_off = max(len(self._dirty), len(self._deleted))

    @staticmethod
    def _bound(inodes: list[Inode]) -> None:
        """Values that no row can hold must not keep others from being committed. They are bounded where they
        come in; this is for those that were forgotten there."""
        for inode in inodes:
            for name in FIELDS:
                value = getattr(inode, name)
                if isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
                    setattr(inode, name, min(max(value, _LOWEST), _HIGHEST))
                    log.error("inode %d: its %s was %d, which no row can hold", inode.ino, name, value)

    def flush(self) -> None:
        """Bring every row in line with memory, reference counts included (I4): what COMMIT needs."""
        self.flush_rows()
        if self._refs:
            with self._namespace.savepoint():
                self._namespace.blobs.add_refs(self._refs, time.time_ns())
            self._refs.clear()

    def reserve_numbers(self) -> None:
        """Reserve numbers ahead: those given out now were reserved by a commit long ago (I7)."""
        self._ino_limit = self._next_ino + NUMBER_BLOCK
        self._cookie_limit = self._next_cookie + NUMBER_BLOCK
        self._namespace.set_meta("next_ino", self._ino_limit)
        self._namespace.set_meta("next_cookie", self._cookie_limit)

    def return_numbers(self) -> None:
        """Give back the reserved numbers nobody used, at a clean end."""
        self._namespace.set_meta("next_ino", self._next_ino)
        self._namespace.set_meta("next_cookie", self._next_cookie)
        self._ino_limit, self._cookie_limit = self._next_ino, self._next_cookie

    # Figures

    @property
    def in_memory(self) -> dict[int, Inode]:
        """Inodes by number, to be looked into only; it is the same object for ever."""
        return self._cache

    @property
    def cached(self) -> int:
        return len(self._cache)

    @property
    def dirty(self) -> int:
        return len(self._dirty)
