"""Where files get a name in a batch: in a directory, or below it as they lie below another one."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from functools import partial

from casfs.errors import FsError
from casfs.fs.batch import Item, shown
from casfs.fs.copy import duplicate, find
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode

log = logging.getLogger(__name__)


class Destination:
    """A directory in which files get a name, where nothing is replaced. Owned by the task of the batch.

    `below`: a directory; each file gets the path below the destination that it has below that one. What is
    missing of directories on the way is made, as a copy of the one that it lies in. None: the destination
    itself takes all of them.
    """

    def __init__(self, fs: FileSystem, path: bytes, below: bytes | None = None) -> None:
        """Raises FsError ENOENT, ENOTDIR, EXDEV; EINVAL where one of the two lies in the other."""
        directory = find(fs, path).inode
        if directory is None or not directory.is_directory:
            number = errno.ENOENT if directory is None else errno.ENOTDIR
            raise FsError(number, f"{shown(path)}: {os.strerror(number)}")
        if directory.ino in fs.nodes.derived:
            raise FsError(errno.EXDEV, f"{shown(path)}: name a directory of a repository")
        self._fs = fs
        self._dentries = fs.store.namespace.dentries
        self._path = path.rstrip(b"/")
        self._below = None if below is None else b"/%s/" % below.strip(b"/") if below.strip(b"/") else b"/"
        if self._below is not None and (b"/%s/" % path.strip(b"/")).startswith(self._below):
            raise FsError(errno.EINVAL, f"{shown(path)} lies below {shown(below or b'/')}")
        self._top = directory
        self._names: set[tuple[bytes, bytes]] = set()

    # Before

    def check(self, item: Item, inode: Inode) -> int:
        """The directory that takes it, or the one in which a directory has to be made for it. Raises FsError
        EEXIST, ENOTDIR, and as the rules have it."""
        way = self._way(item)
        if (way, item.name) in self._names:
            raise FsError(errno.EEXIST, f"{shown(item.path)}: another one of them has this name, too")
        self._names.add((way, item.name))
        directory, missing = self._nearest(way)
        if missing:
            self._fs.policy.check_add(directory, missing[0], 0o040755, None)
        elif self._dentries.find(directory, item.name) is not None:
            name = shown(self._join(way) + b"/" + item.name)
            raise FsError(errno.EEXIST, f"{name}: {os.strerror(errno.EEXIST)}")
        else:
            self._fs.policy.check_add(directory, item.name, inode.mode, inode)
        return directory

    def takes(self, item: Item) -> bool:
        """Is it there already, as itself?"""
        directory, missing = self._nearest(self._way(item))
        return not missing and directory == item.parent

    def _way(self, item: Item) -> bytes:
        """The directories on the way to it, from the destination; b"" for none."""
        if self._below is None:
            return b""
        path = b"/" + item.path.strip(b"/")
        if not path.startswith(self._below):
            raise FsError(errno.EINVAL, f"{shown(path)} does not lie below {shown(self._below)}")
        return path[len(self._below) :].rpartition(b"/")[0]

    def _join(self, way: bytes) -> bytes:
        return b"/".join(filter(None, (self._path, way)))

    def _nearest(self, way: bytes) -> tuple[int, list[bytes]]:
        """The last directory on the way that is there, and the names of those that are not. Raises FsError
        ENOTDIR."""
        ino, names = self._top.ino, way.split(b"/") if way else []
        while names:
            found = self._dentries.entry(ino, names[0])
            if found is None:
                break
            if not self._fs.inodes.get(found[1]).is_directory:
                raise FsError(errno.ENOTDIR, f"{shown(self._join(way))}: {os.strerror(errno.ENOTDIR)}")
            ino = found[1]
            del names[0]
        return ino, names

    # Inside the transaction, without a wait

    def open(self, item: Item) -> tuple[Inode, Callable[[], None]]:
        """The directory that takes it, and what takes those away again that were made for it. Raises
        FsError as `Tree.attach`."""
        way = self._way(item)
        ino, missing = self._nearest(way)
        directory = self._fs.inodes.get(ino)
        made: list[tuple[Inode, bytes, Inode]] = []
        undo = partial(self._remove, made)
        try:
            for number, name in enumerate(missing, way.count(b"/") + 2 - len(missing)):
                source = b"/".join(way.split(b"/")[:number])
                directory = self._make(directory, name, (self._below or b"") + source)
                made.append((self._fs.inodes.get(ino), name, directory))
                ino = directory.ino
        except BaseException:
            undo()
            raise
        return directory, undo

    def _make(self, directory: Inode, name: bytes, source: bytes) -> Inode:
        like = find(self._fs, source).inode
        if like is None or not like.is_directory:
            raise FsError(errno.ENOENT, f"{shown(source)}: {os.strerror(errno.ENOENT)}")
        copied = duplicate(self._fs, like)
        copied.nlink = 2
        try:
            self._fs.tree.attach(directory.ino, name, copied)
        except BaseException:
            self._fs.inodes.remove(copied)
            raise
        return copied

    def _remove(self, made: list[tuple[Inode, bytes, Inode]]) -> None:
        """The last first. What others have taken stays."""
        while made:
            directory, name, inode = made.pop()
            if self._dentries.find(directory.ino, name) != inode.ino or self._dentries.children(
                inode.ino, 0, 1
            ):
                log.warning("%s: a directory that was made for a copy is in use, and stays", shown(name))
                return
            self._fs.directories.remove(directory, name, inode)
            self._fs.policy.removed(directory.ino, inode)
