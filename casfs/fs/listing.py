"""What is in a directory: the part of the namespace verbs that only looks."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from typing import Any

from casfs.errors import FsError
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.nodes import GENERATED, SNAPSHOTS, Lister
from casfs.types import ROOT_INO

DT_DIR = stat.S_IFDIR >> 12
"""Type of a directory's entry for a directory, readdir(3)."""

LIST_CHUNK = 128
"""Entries read from the directory at a time; about one READDIRPLUS reply."""

Rows = list[tuple[Any, ...]]
"""Entries of a directory; how each begins: cookie, name, inode number."""

NAME_LIMIT = 255

MOVE_DEPTH = 10_000
"""Directories above the one that a directory is moved to, at the most: 15 ms in which others wait."""


def is_name(name: bytes) -> bool:
    """May a file have that name?"""
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        return False
    return 0 < len(name) <= NAME_LIMIT


class Listing:
    """Owned by the thread that runs the file system."""

    def __init__(self, core: Core) -> None:
        self._dentries = core.store.namespace.dentries
        self._inodes = core.inodes
        self._nodes = core.nodes
        self._kinds = core.nodes.kinds
        self._derived = core.nodes.derived
        self._remembered = core.remembered

    def list(self, ino: int, after: int) -> Iterator[tuple[int, bytes, Inode]]:
        """(cookie, name, inode) of the entries behind the cookie `after`; 0 begins with "." and "..".

        Entries that come and go meanwhile do not make others appear twice or not at all.
        """
        if after < 1:
            yield 1, b".", self._inodes.get(ino)
        if after < 2:
            yield 2, b"..", self.dot(ino, b"..")
        glimpse = self._inodes.glimpse
        after = max(after, 2)
        hidden = self._nodes.hidden.get(ino, 0)
        names = self._names(ino)
        if ino == ROOT_INO and self._derived:
            self._learned_trees()
        while True:
            rows = names.list_inodes(ino, after, LIST_CHUNK)
            if ino in self._kinds:
                self._kinds[ino].given(row[2] for row in rows)
            for row in rows:
                if row[2] == hidden:
                    continue
                yield row[0], row[1], glimpse(row[2], row[3:])
            if len(rows) < LIST_CHUNK:
                return
            after = rows[-1][0]

    def names(self, ino: int, after: int, limit: int) -> Rows:
        """As `list`, but (cookie, name, inode number, type), up to `limit` rows besides "." and ".."."""
        hidden = self._nodes.hidden.get(ino, 0)
        names = self._names(ino)
        listed = names.children(ino, max(after, 2), limit + bool(hidden))
        if hidden:
            listed = [row for row in listed if row[2] != hidden][:limit]
        return [*self._dots(ino, after), *listed]

    def rows(self, ino: int, after: int, limit: int) -> Rows:
        """As `names`, but those besides "." and ".." are rows of `Dentries.list_attributes`: an inode in
        memory is newer, and one that is only there has NULL for attributes."""
        hidden = self._nodes.hidden.get(ino, 0)
        names = self._names(ino)
        if ino == ROOT_INO and self._derived:
            self._learned_trees()
        listed = names.list_attributes(ino, max(after, 2), limit + bool(hidden))
        if hidden:
            listed = [row for row in listed if row[2] != hidden][:limit]
        if ino in self._kinds:
            self._kinds[ino].given(row[2] for row in listed)
        return [*self._dots(ino, after), *listed]

    def _names(self, ino: int) -> Lister:
        """Who knows the names that are listed in a directory."""
        if ino >= SNAPSHOTS and self._nodes.past is not None:
            return self._nodes.past
        names: Lister | None = self._derived.get(ino)
        if names is None and self._nodes.listed is not None:
            names = self._nodes.listed(ino)
        return names or self._dentries

    def _learned_trees(self) -> None:
        """The attributes of what is in the root are going to be told."""
        for ino in self._nodes.trees:
            self._remembered.learned(ino)

    def _dots(self, ino: int, after: int) -> Rows:
        if after >= 2:
            return []
        dots = (1, b".", self._inodes.get(ino).ino, DT_DIR), (2, b"..", self.dot(ino, b"..").ino, DT_DIR)
        return [*dots[after:]]

    def dot(self, ino: int, name: bytes) -> Inode:
        """What "." or ".." is in a directory."""
        above = None
        if name == b".." and ino >= GENERATED:
            above = self._nodes.above(ino)
        elif name == b"..":
            names = self._derived.get(ino)
            above = None if names is None else names.parent_of(ino)
            if above is None:
                above = self._dentries.parent_of(ino)
        return self._inodes.get(ino if above is None else above)

    # What verbs look at first

    def existing(self, parent: int, name: bytes) -> Inode:
        """The inode under a name, which may go. Raises FsError ENOENT, ENAMETOOLONG, EROFS."""
        if len(name) > NAME_LIMIT:
            raise FsError(errno.ENAMETOOLONG)
        self._inodes.changeable(parent)
        ino = self._dentries.find(parent, name)
        if ino is None:
            raise FsError(errno.ENOENT)
        return self._inodes.get(ino)

    def check_empty(self, inode: Inode) -> None:
        """Raises FsError ENOTDIR, ENOTEMPTY."""
        if not inode.is_directory:
            raise FsError(errno.ENOTDIR)
        if not self._dentries.is_empty(inode.ino):
            raise FsError(errno.ENOTEMPTY)

    def check_loop(self, moved: Inode, new_parent: int) -> None:
        """A directory must not come below itself, nor so deep that to tell takes long: any user may nest
        hundreds of thousands of them. Raises FsError EINVAL, ENAMETOOLONG."""
        if not moved.is_directory:
            return
        above: int | None = new_parent
        for _ in range(MOVE_DEPTH):
            if above is None or above == ROOT_INO:
                return
            if above == moved.ino:
                raise FsError(errno.EINVAL)
            above = self._dentries.parent_of(above)
        raise FsError(errno.ENAMETOOLONG)

    def check_replaceable(self, source: Inode, target: Inode) -> None:
        """May the one take the name of the other? Raises FsError EISDIR, ENOTDIR, ENOTEMPTY."""
        if target.is_directory:
            if not source.is_directory:
                raise FsError(errno.EISDIR)
            self.check_empty(target)
        elif source.is_directory:
            raise FsError(errno.ENOTDIR)
