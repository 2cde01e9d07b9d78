"""One thing that is done to many files in one transaction, wholly or not at all, while others are served.

All are looked at first, in short steps: where a rule refuses one, nothing is done. Then the group is kept
from being committed (`GroupCommit.kept_open`) while it is done to one file after the other, in short steps
again; what was done is undone, the last first, when that fails in the middle. So a crash finds all of it, or
nothing. Who waits for a commit, as fsync(2) does, waits that long: hence LIMIT.

What is not any more what it was when it was found is left as it is, and counted: a name that is gone, or
stands for another inode, and a file that a program has open for writing.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from casfs.errors import FsError
from casfs.fs.copy import Place, find
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode

log = logging.getLogger(__name__)

LIMIT = 100_000
"""Files that it is done to, at the most."""

STEP = 32
"""Of them, before other requests are served again: about 1 ms."""

FLUSH = 256
"""Of them, after which the rows of inodes are written, and counts of references."""

LOG_BYTES = 4096
"""What one of so many adds to the log, at the most."""

ATTRIBUTES_LIMIT = 64 << 20
"""Bytes of extended attributes that it writes, at the most: until the commit they are in memory, and a user
may give each of his files a MiB of them."""

Undo = Callable[[], object]
"""Undoes what was done to one file, or as much of it as what others have done since allows. It waits for
nothing."""


class Target(NamedTuple):
    """A path from the root, and the number of the inode that it stood for when it was found; 0: any."""

    path: bytes
    ino: int = 0


class Item(NamedTuple):
    """A target that was found: `name` in the directory `parent` stands for `ino`."""

    path: bytes
    parent: int
    name: bytes
    ino: int


class Verb(Protocol):
    """What is done. `of_files`: to files only, and only where they are; else to files and directories, which
    views and virtual repositories show as well. `recursive`: a directory stands for the files below it."""

    of_files: bool
    recursive: bool

    def check(self, item: Item, inode: Inode) -> bool:
        """May it be done, and is there anything to do? Raises FsError."""

    def attributes(self, inode: Inode) -> int:
        """Bytes of extended attributes that it writes for that."""

    async def prepare(self, inode: Inode) -> object:
        """What has to be waited for before it is done. Raises OSError."""

    def do(self, item: Item, inode: Inode) -> Undo | None:
        """Do it inside the transaction, without a wait, wholly or not at all; None: it has changed. Raises
        OSError."""

    def end(self) -> object:
        """It is done to all, or undone."""


@dataclass(slots=True)
class Done:
    """To how many files, or directories, it was done, and the bytes of the files. `changed`: those left as
    they are, since they have changed."""

    files: int = 0
    size: int = 0
    changed: int = 0

    def add(self, inode: Inode) -> None:
        self.files += 1
        self.size += inode.size


def shown(path: bytes) -> str:
    return os.fsdecode(path) or "/"


@contextmanager
def telling(path: bytes) -> Iterator[None]:
    """Which path it was that something is wrong with, if that is not said."""
    try:
        yield
    except FsError as error:
        number = error.errno or errno.EIO
        if error.strerror != os.strerror(number):
            raise
        raise FsError(number, f"{shown(path)}: {error.strerror}") from None


class Batch:
    """One such thing: `look`, and then `run`. Used by one task, on the thread that runs the file system."""

    def __init__(self, fs: FileSystem, verb: Verb) -> None:
        self._fs = fs
        self._verb = verb
        self._items: dict[tuple[int, bytes], Item] = {}
        self._changed = 0
        self._version = 0

    async def look(self, targets: Sequence[Target]) -> Done:
        """What would be done.

        Raises FsError with a path: as the verb does, ENOENT (no inode number was given), EISDIR (a
        directory), EXDEV (a name that follows from another one), EROFS (what no row has), E2BIG (more than
        LIMIT, or ATTRIBUTES_LIMIT).
        """
        self._version = self._fs.places.version
        for number, target in enumerate(targets):
            await self._step(number)
            await self._find(target)
        items, self._items = self._items, {}
        found, attributes = Done(), 0
        for number, item in enumerate(items.values()):
            await self._step(number)
            inode = self._still(item)
            if inode is None:
                self._changed += 1
                continue
            with telling(item.path):
                self._check_kind(item, inode)
                if self._verb.check(item, inode):
                    self._items[item.parent, item.name] = item
                    found.add(inode)
                    attributes += self._verb.attributes(inode)
            if attributes > ATTRIBUTES_LIMIT:
                raise FsError(errno.E2BIG, "their attributes are too large for one transaction")
        found.changed = self._changed
        return found

    async def run(self) -> Done:
        """Do what was looked at, durably. Raises FsError as `look`, and ENOSPC where the disk has no room for
        so much at once. Raises OSError of the commit: it is done then, and to be committed still."""
        items = list(self._items.values())
        if len(items) * LOG_BYTES > self._fs.store.filestore.space.log_room():
            raise FsError(errno.ENOSPC, "the disk has no room for so much in one transaction")
        for number, item in enumerate(items):
            await self._step(number)
            if inode := self._still(item):
                with telling(item.path):
                    await self._verb.prepare(inode)
        done = Done(changed=self._changed)
        async with self._fs.group.kept_open():
            await self._do(items, done)
        await self._fs.group.durable()
        return done

    async def _step(self, number: int) -> None:
        if number % STEP == STEP - 1:
            await self._fs.scheduler.pause()

    # Finding

    async def _find(self, target: Target) -> None:
        place = self._place(target)
        if place is None or place.inode is None:
            self._changed += 1
        elif place.inode.is_generated:
            raise FsError(errno.EROFS, f"{shown(target.path)}: {os.strerror(errno.EROFS)}")
        elif place.inode.is_directory and self._verb.recursive:
            await self._find_below(target.path, place.inode.ino)
        else:
            self._add(Item(target.path, place.parent, place.name, place.inode.ino))

    def _place(self, target: Target) -> Place | None:
        """Where a target is; None if it has changed. Raises FsError ENOENT when that cannot be told."""
        place = None
        try:
            place = find(self._fs, target.path)
        except FsError as error:
            if not target.ino or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                raise
        if place is not None and place.inode is None and not target.ino:
            raise FsError(errno.ENOENT, f"{shown(target.path)}: {os.strerror(errno.ENOENT)}")
        same = place is not None and place.inode is not None and target.ino in (0, place.inode.ino)
        return place if same else None

    def _add(self, item: Item) -> None:
        self._items[item.parent, item.name] = item
        if len(self._items) > LIMIT:
            raise FsError(errno.E2BIG, f"these are more than {LIMIT} files, too many for one transaction")

    async def _find_below(self, path: bytes, directory: int) -> None:
        """The regular files below a directory, without recursion."""
        fs, todo = self._fs, [(path.rstrip(b"/"), directory)]
        while todo:
            path, ino = todo.pop()
            names, after = fs.nodes.derived.get(ino), 2
            while True:
                await fs.scheduler.pause()
                if names is not None:
                    await names.caught_up()
                rows = fs.listing.names(ino, after, STEP)
                if not rows:
                    break
                after = rows[-1][0]
                for _, name, child, *_ in rows:
                    inode = fs.tree.lookup(ino, name)
                    if inode is not None and inode.is_directory:
                        todo.append((path + b"/" + name, child))
                    elif inode is not None and inode.is_regular and not inode.is_generated:
                        self._add(Item(path + b"/" + name, ino, name, child))

    def _still(self, item: Item) -> Inode | None:
        """What is at that path, if that is what was found; a directory on the way may have moved since."""
        try:
            inode = self._fs.inodes.get(item.ino)
            if not inode.nlink:
                return None
            if self._version != self._fs.places.version:
                place = find(self._fs, item.path)
                return inode if place.parent == item.parent and place.inode is inode else None
            if not item.name or item.parent in self._fs.nodes.derived:
                return inode
            found = self._fs.store.namespace.dentries.find(item.parent, item.name)
        except FsError:
            return None
        return inode if found == item.ino else None

    def _check_kind(self, item: Item, inode: Inode) -> None:
        """Raises FsError EISDIR, EXDEV, EPERM."""
        if not self._verb.of_files:
            return
        if inode.is_directory:
            raise FsError(errno.EISDIR)
        if item.parent in self._fs.nodes.derived:
            raise FsError(errno.EXDEV, f"{shown(item.path)}: name it as it is in its repository")
        if item.parent in self._fs.nodes.kinds:
            raise FsError(errno.EPERM)

    # Doing

    async def _do(self, items: Sequence[Item], done: Done) -> None:
        """In a group that is not committed meanwhile. `done` is what was done."""
        fs, undo = self._fs, list[Undo]()
        try:
            for number, item in enumerate(items):
                await self._step(number)
                if not fs.group.active:
                    raise FsError(fs.group.failed or errno.EROFS)
                inode = self._still(item)
                with telling(item.path):
                    undone = None if inode is None else self._verb.do(item, inode)
                if inode is None or undone is None:
                    done.changed += 1
                    continue
                undo.append(undone)
                done.add(inode)
                if len(undo) % FLUSH == 0:
                    fs.inodes.flush()  # or the commit would write all counts of references in one step
        except BaseException as error:
            await self._undo(undo, in_steps=isinstance(error, Exception))
            raise
        finally:
            self._verb.end()

    async def _undo(self, undo: list[Undo], *, in_steps: bool) -> None:
        """The last first. Who is cancelled does it all at once."""
        try:
            while undo and in_steps:
                self._undo_last(undo, STEP)
                await self._fs.scheduler.pause()
        finally:
            self._undo_last(undo, len(undo))

    def _undo_last(self, undo: list[Undo], count: int) -> None:
        for _ in range(min(count, len(undo))):
            if not self._fs.group.active:  # SQLite has undone it, and the file system only reads
                undo.clear()
                return
            try:
                undo.pop()()
            except Exception as error:
                log.exception("what was done in part cannot be undone")
                self._fs.group.stop(error if isinstance(error, OSError) else OSError(errno.EIO, str(error)))
