"""The only writer of names: entries of directories, link counts, their times, and which names are absent.

All of it is inside the open transaction and waits for nothing. Each method happens wholly or not at all: rows
go first, what is in memory follows and cannot fail.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from casfs.errors import FsError
from casfs.fs.changes import Changes
from casfs.fs.commit import GroupCommit
from casfs.fs.inodes import Inode, InodeTable
from casfs.fs.nodes import Nodes
from casfs.fs.places import Places
from casfs.namespace.namespace import Namespace
from casfs.types import ROOT_INO

ABSENT_LIMIT = 1000
"""Names that are remembered for not being there."""


class NameFollower(Protocol):
    """Who keeps rows that follow from names. Called inside the transaction in which they change."""

    def added(self, directory: int, name: bytes, entry: tuple[int, int, int]) -> None:
        """A name was given that was not there: (cookie, inode number, type)."""

    def named(self, directory: int, name: bytes) -> None:
        """A name was given, was taken away, or stands for another inode."""

    def moved(self, directory: int) -> None:
        """A directory, with what is below it, has another place."""

    def emptied(self, directory: int) -> None:
        """Names of a directory that has none itself are gone."""


NewName = tuple[int, int, bytes, int, int]
"""(directory, cookie, name, inode number, type): a row of `dentry`."""


class Directories:
    """Owned by the thread that runs the file system.

    `unlinked`: inodes without a name that the kernel still knows; `linkable`: those of them that never had
    one, and may get one. `_absent`: names looked up in vain that were not given since. `follower`: None while
    nothing follows from names.
    """

    def __init__(
        self,
        namespace: Namespace,
        inodes: InodeTable,
        group: GroupCommit,
        changes: Changes,
        places: Places,
        nodes: Nodes,
    ) -> None:
        self._dentries = namespace.dentries
        self._savepoint = namespace.savepoint
        self._inodes = inodes
        self._group = group
        self._changes = changes
        self._places = places
        self._nodes = nodes
        self._absent: set[tuple[int, bytes]] = set()
        self.follower: NameFollower | None = None
        self.unlinked: set[int] = set()
        self.linkable: set[int] = set()

    # Names that are not there

    def note_absent(self, parent: int, name: bytes) -> None:
        """A name was looked up in vain, and will not come without a call of this class."""
        if len(self._absent) >= ABSENT_LIMIT:
            self._absent.clear()
        self._absent.add((parent, name))

    def take_absent(self, parent: int, name: bytes) -> bool:
        """Was a name looked up in vain, and not given since? From now on it is not known to be absent."""
        if (parent, name) not in self._absent:
            return False
        self._absent.discard((parent, name))
        return True

    # One name

    def add(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """A name for an inode whose link count has it already. Raises FsError EEXIST."""
        cookie = self._inodes.next_cookie()
        if not self._dentries.insert(directory.ino, cookie, name, inode.ino, inode.mode >> 12):
            raise FsError(errno.EEXIST)
        if inode.is_directory:
            directory.nlink += 1
        if self._inodes.watcher is not None:
            self._inodes.watcher.changed(inode)
        directory.mtime = directory.ctime = inode.ctime
        self._inodes.mark(directory)
        self._group.count()
        if self.follower is not None:
            self.follower.added(directory.ino, name, (cookie, inode.ino, inode.mode >> 12))
        if self._changes.collecting:
            self._changes.name(directory.ino, name)

    def add_hidden(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """As `add`, a name that is not listed, nor counted in the directory's links and times."""
        if not self._dentries.insert(
            directory.ino, self._inodes.next_cookie(), name, inode.ino, inode.mode >> 12
        ):
            raise FsError(errno.EEXIST)
        self._group.count()

    def add_below(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """As `add`, in a directory that nobody sees yet, whose link count and times are set afterwards."""
        self.add_hidden(directory, name, inode)

    def take_back(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """What `add` has done: the inode cannot be had after all."""
        self._dentries.delete(directory.ino, name)
        if self.follower is not None:
            self.follower.named(directory.ino, name)
        if inode.is_directory:
            directory.nlink -= 1

    def link(self, directory: Inode, name: bytes, inode: Inode, certain: Callable[[], object] | None) -> None:
        """One more name for a file, or the first one. `certain`, if given, is called before the row is
        written: the name is known to be absent. Raises FsError EEXIST."""
        row = (directory.ino, self._inodes.next_cookie(), name, inode.ino, inode.mode >> 12)
        if certain is None and not self._dentries.insert(*row):
            raise FsError(errno.EEXIST)
        before = inode.ctime
        inode.nlink += 1
        inode.ctime = time.time_ns()
        if certain is not None:
            certain()
            try:
                if not self._dentries.insert(*row):
                    raise FsError(errno.EEXIST)
            except BaseException:
                inode.nlink -= 1
                inode.ctime = before
                raise
        self.unlinked.discard(inode.ino)
        self.linkable.discard(inode.ino)
        self._inodes.mark(inode)
        self.touch(directory)
        self._group.count()
        if self.follower is not None:
            self.follower.named(directory.ino, name)
        if self._changes.collecting:
            self._named(directory, name, inode)

    def add_unnamed(self, inode: Inode) -> None:
        """A new file without a name, O_TMPFILE."""
        inode.nlink = 0
        self.unlinked.add(inode.ino)
        self.linkable.add(inode.ino)
        self._group.count()

    def remove(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """A name goes; of a directory, which is empty, the only one."""
        self._dentries.delete(directory.ino, name)
        if inode.is_directory:
            directory.nlink -= 1
            self._directory_gone(inode)
        self._lose_name(inode)
        self.touch(directory)
        self._group.count()
        if self.follower is not None:
            self.follower.named(directory.ino, name)
        if self._changes.collecting:
            self._named(directory, name, inode)

    def move(
        self,
        origin: Inode,
        name: bytes,
        to: Inode,
        new_name: bytes,
        source: Inode,
        target: Inode | None,
        beside: Callable[[], object] | None = None,
    ) -> None:
        """A name takes another place, that of `target` if there is one, which loses it. `beside`: more rows,
        which change with it or not at all."""
        self._absent.discard((to.ino, new_name))
        if beside is None:  # one statement needs no savepoint
            self._place(origin, name, to, new_name, target)
        else:
            with self._savepoint():
                self._place(origin, name, to, new_name, target)
                beside()
        self._has_moved(origin, name, to, new_name, source, target)

    def _place(self, origin: Inode, name: bytes, to: Inode, new_name: bytes, target: Inode | None) -> None:
        if target is None:
            self._dentries.rename(origin.ino, name, to.ino, self._inodes.next_cookie(), new_name)
        else:
            self._dentries.replace(origin.ino, name, to.ino, new_name)

    def move_leaving(
        self,
        origin: Inode,
        name: bytes,
        left: Inode,
        to: Inode,
        new_name: bytes,
        source: Inode,
        target: Inode | None,
        beside: Callable[[], object],
    ) -> None:
        """As `move`; the old name stays and stands for `left`, a new inode that is no directory."""
        self.take_absent(to.ino, new_name)
        cookie, type_ = self._inodes.next_cookie(), source.mode >> 12
        with self._savepoint():
            beside()
            self._dentries.point(origin.ino, name, left.ino, left.mode >> 12)
            if target is not None:
                self._dentries.point(to.ino, new_name, source.ino, type_)
            elif not self._dentries.insert(to.ino, cookie, new_name, source.ino, type_):
                raise FsError(errno.EEXIST)
        self._has_moved(origin, name, to, new_name, source, target)

    def _has_moved(
        self, origin: Inode, name: bytes, to: Inode, new_name: bytes, source: Inode, target: Inode | None
    ) -> None:
        if source.is_directory:
            origin.nlink -= 1
            to.nlink += 1
            self._places.invalidate()
        if target is not None:
            if target.is_directory:
                to.nlink -= 1
                self._directory_gone(target)
            self._lose_name(target)
        self._inodes.changed(source)
        self._touch_both(origin, to)
        if self.follower is not None:
            self._follow_both(origin, name, to, new_name, source)
        if self._changes.collecting:
            self._named(origin, name, source)
            self._named(to, new_name, source if target is None else target)

    def exchange(
        self,
        origin: Inode,
        name: bytes,
        to: Inode,
        new_name: bytes,
        source: Inode,
        target: Inode,
        beside: Callable[[], object] | None = None,
    ) -> None:
        """Two names stand for each other's inodes. `beside` as in `move`."""
        with self._savepoint():
            self._dentries.point(to.ino, new_name, source.ino, source.mode >> 12)
            self._dentries.point(origin.ino, name, target.ino, target.mode >> 12)
            if beside is not None:
                beside()
        for directory, goes, comes in ((origin, source, target), (to, target, source)):
            directory.nlink += comes.is_directory - goes.is_directory
        if source.is_directory or target.is_directory:
            self._places.invalidate()
        self._inodes.changed(target)
        self._inodes.changed(source)
        self._touch_both(origin, to)
        if self.follower is not None:
            self._follow_both(origin, name, to, new_name, source, target)
        if self._changes.collecting:
            self._named(origin, name, source)
            self._named(to, new_name, target)

    def point(self, directory: Inode, name: bytes, inode: Inode, before: Inode) -> None:
        """A name of the file `before` stands for another file now, whose link count has it already."""
        self._dentries.point(directory.ino, name, inode.ino, inode.mode >> 12)
        self._lose_name(before)
        self._inodes.mark(inode)
        self._group.count()
        if self.follower is not None:
            self.follower.named(directory.ino, name)
        if self._changes.collecting:
            self._named(directory, name, before)

    # Many names

    def add_new(self, names: list[NewName]) -> list[NewName]:
        """Names of files whose link counts have them already, in directories that `touch` is called for;
        gives those whose name is taken."""
        return self._dentries.insert_new(names)

    def try_add(self, name: NewName) -> bool:
        """As `add_new`, one; False when it is taken."""
        return self._dentries.insert(*name)

    def remove_all(self, names: Iterable[tuple[Inode, bytes]], inode: Inode) -> None:
        """All names of a file go."""
        names = list(names)
        with self._savepoint():
            for directory, name in names:
                self._dentries.delete(directory.ino, name)
        for directory, _ in names:
            self.touch(directory)
        inode.nlink = 0
        self.unlinked.add(inode.ino)
        self._inodes.changed(inode)
        if self.follower is not None:
            for directory, name in names:
                self.follower.named(directory.ino, name)
        if self._changes.collecting:
            for directory, name in names:
                self._named(directory, name, inode)

    def remove_children(self, directory: Inode, limit: int) -> tuple[bool, list[int]]:
        """Up to so many names in a directory that has none itself go: may there be more, and the numbers of
        the inodes that are left without a name."""
        children = self._dentries.delete_children(directory.ino, limit)
        gone = []
        for ino, _ in children:
            try:
                child = self._inodes.get(ino)
            except FsError:
                continue  # a name of nothing: rows may be damaged
            child.nlink = 0 if child.is_directory else child.nlink - 1
            self._inodes.changed(child)
            if not child.nlink:
                gone.append(ino)
        if self.follower is not None:
            self.follower.emptied(directory.ino)
        self._group.operations += len(children)
        return len(children) == limit, gone

    # What is common to them

    def touch(self, directory: Inode, now_ns: int | None = None) -> None:
        """The names of a directory have changed."""
        directory.mtime = directory.ctime = time.time_ns() if now_ns is None else now_ns
        self._inodes.mark(directory)

    def _touch_both(self, origin: Inode, to: Inode) -> None:
        self.touch(origin)
        if to is not origin:
            self.touch(to)
        self._group.count()

    def _follow_both(self, origin: Inode, name: bytes, to: Inode, new_name: bytes, *moved: Inode) -> None:
        assert self.follower is not None
        self.follower.named(origin.ino, name)
        self.follower.named(to.ino, new_name)
        if origin.ino == to.ino == ROOT_INO:
            return  # what is below lies in the same repository, at the same path
        for inode in moved:
            if inode.is_directory:
                self.follower.moved(inode.ino)

    def _named(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """An inode has got, or lost, a name."""
        self._changes.name(directory.ino, name, 0 if inode.nlink else inode.ino)
        self._changes.inode(inode.ino)

    def _directory_gone(self, directory: Inode) -> None:
        self._places.forget(directory.ino)
        self._nodes.kinds.pop(directory.ino, None)

    def _lose_name(self, inode: Inode) -> None:
        inode.nlink = 0 if inode.is_directory else inode.nlink - 1
        if not inode.nlink:
            self.unlinked.add(inode.ino)
        self._inodes.changed(inode)
