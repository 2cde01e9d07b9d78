"""`casfs rm`: files and whole trees, in short steps between other requests.

All that is below is looked at before anything goes: where a rule keeps something, all of it stays. Then names
go one by one, the deepest first, to the trash as its rules have it. After a crash what had not gone is where
it was. Names in views and virtual repositories go as programs remove them there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from casfs.errors import FsError
from casfs.fs.copy import Place, find
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.listing import Rows

STEP = 64
"""Names before other requests are served again: about 2 ms."""


@dataclass(slots=True)
class Amount:
    """What there is, or was. `size`: bytes of the files, each as often as it has a name there."""

    files: int = 0
    directories: int = 0
    size: int = 0


@dataclass(slots=True)
class _Level:
    """A directory on the way. `rows`: its names from the cookie `after` back to where it has been, the next
    one last."""

    parent: int
    name: bytes
    ino: int
    after: int
    rows: Rows


class _Verb(Protocol):
    """What is done to each name, to a directory's before and after those in it. Raises FsError."""

    def enter(self, parent: int, name: bytes, inode: Inode) -> None: ...
    async def file(self, parent: int, name: bytes, inode: Inode) -> None: ...
    async def leave(self, parent: int, name: bytes) -> None: ...


class _Look:
    """Ask the rules, and count."""

    def __init__(self, fs: FileSystem, found: Amount) -> None:
        self._derived = fs.nodes.derived
        self._policy = fs.policy
        self._found = found

    def enter(self, parent: int, name: bytes, inode: Inode) -> None:
        if parent in self._derived:
            self._derived[parent].source_of(parent, name)
        else:
            self._policy.check_remove(parent, name, inode)

    async def file(self, parent: int, name: bytes, inode: Inode) -> None:
        if parent in self._derived:
            parent, name = self._derived[parent].source_of(parent, name)
        self._policy.check_remove(parent, name, inode)
        self._found.files += 1
        self._found.size += inode.size

    async def leave(self, parent: int, name: bytes) -> None:
        self._found.directories += 1


class _Remove:
    """Remove, and count. What is gone already is none of it."""

    def __init__(self, fs: FileSystem, removed: Amount, uid: int) -> None:
        self._tree = fs.tree
        self._removed = removed
        self._uid = uid

    def enter(self, parent: int, name: bytes, inode: Inode) -> None:
        """It goes when it is empty."""

    async def file(self, parent: int, name: bytes, inode: Inode) -> None:
        with _if_there():
            await self._tree.unlink(parent, name, self._uid)
            self._removed.files += 1
            self._removed.size += inode.size

    async def leave(self, parent: int, name: bytes) -> None:
        with _if_there():
            await self._tree.rmdir(parent, name, self._uid)
            self._removed.directories += 1


@contextlib.contextmanager
def _if_there() -> Iterator[None]:
    try:
        yield
    except FsError as error:
        if error.errno != errno.ENOENT:
            raise


class Removal:
    """One removal of what has a path from the root of the store, by user `uid`. It is added to `amount`."""

    def __init__(self, fs: FileSystem, path: bytes, uid: int, amount: Amount) -> None:
        self._fs = fs
        self._path = path
        self._uid = uid
        self._amount = amount
        self._levels: list[_Level] = []
        self._version = 0

    async def look(self, *, recursive: bool, counts: bool = False) -> None:
        """May all of it go? With `counts` what would go is added to the amount. Raises FsError with the
        path: ENOENT, EISDIR (a directory without `recursive`), EINVAL (the root), and by rules EPERM, EROFS,
        EBUSY."""
        place, inode = self._there()
        if inode.is_directory and not recursive:
            raise FsError(errno.EISDIR, f"{os.fsdecode(self._path)} is a directory; remove it with -r")
        await self._walk(place, inode, _Look(self._fs, self._amount if counts else Amount()))

    async def run(self) -> None:
        """Remove it. What others remove meanwhile is no error. Raises FsError as `look`, and ENOTEMPTY when
        they add something."""
        place, inode = self._there()
        await self._walk(place, inode, _Remove(self._fs, self._amount, self._uid))

    def _there(self) -> tuple[Place, Inode]:
        place = find(self._fs, self._path)
        if place.inode is None:
            raise FsError(errno.ENOENT, f"{os.fsdecode(self._path)}: {os.strerror(errno.ENOENT)}")
        if not place.name:
            raise FsError(errno.EINVAL, "the root directory itself cannot be removed")
        return place, place.inode

    # Going through a tree, without recursion

    async def _walk(self, place: Place, inode: Inode, verb: _Verb) -> None:
        self._levels.clear()
        self._version = self._fs.places.version
        await self._fs.group.begin()
        if not inode.is_directory:
            await self._one(place.parent, place.name, inode, verb)
            return
        self._enter(place.parent, place.name, inode, verb)
        steps = 0
        while self._levels:
            steps += 1
            if steps % STEP == 0:
                await self._pause()
            self._check_moved()
            level = self._levels[-1]
            if not level.rows and not await self._list(level):
                await self._leave(verb)
                continue
            name = level.rows.pop()[1]
            child = self._fs.tree.lookup(level.ino, name)
            if child is None:
                continue  # others have removed it
            if child.is_directory:
                self._enter(level.ino, name, child, verb)
            else:
                await self._one(level.ino, name, child, verb)

    async def _pause(self) -> None:
        fs = self._fs
        if fs.group.is_long or fs.group.must_wait:
            await fs.group.durable()
        await fs.scheduler.pause()

    def _check_moved(self) -> None:
        """A directory that others have moved out of the tree meanwhile is not touched. Raises FsError."""
        if self._version == self._fs.places.version:
            return
        self._version = self._fs.places.version
        for level in self._levels:
            there = self._fs.tree.lookup(level.parent, level.name)
            if there is None or there.ino != level.ino:
                raise FsError(errno.ENOENT, f"{os.fsdecode(self._path)}: a directory was moved meanwhile")

    async def _list(self, level: _Level) -> bool:
        """Read more names of a directory; False when there are none."""
        names = self._fs.nodes.derived.get(level.ino)
        if names is not None:
            await names.caught_up()
        level.rows = self._fs.listing.names(level.ino, level.after, STEP)
        if not level.rows:
            return False
        level.after = level.rows[-1][0]
        level.rows.reverse()
        return True

    def _enter(self, parent: int, name: bytes, inode: Inode, verb: _Verb) -> None:
        with self._telling(name):
            verb.enter(parent, name, inode)
        self._levels.append(_Level(parent, name, inode.ino, 2, []))

    async def _leave(self, verb: _Verb) -> None:
        level = self._levels.pop()
        with self._telling(level.name):
            await verb.leave(level.parent, level.name)

    async def _one(self, parent: int, name: bytes, inode: Inode, verb: _Verb) -> None:
        with self._telling(name):
            await verb.file(parent, name, inode)

    @contextlib.contextmanager
    def _telling(self, name: bytes) -> Iterator[None]:
        """Which path it was that something is wrong with, if that is not said."""
        try:
            yield
        except FsError as error:
            number = error.errno or errno.EIO
            if error.strerror != os.strerror(number):
                raise
            raise FsError(number, f"{self._shown(name)}: {error.strerror}") from None

    def _shown(self, name: bytes) -> str:
        if not self._levels:
            return os.fsdecode(self._path)
        return os.fsdecode(b"/".join([self._path, *(level.name for level in self._levels[1:]), name]))
