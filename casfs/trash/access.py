"""Who may look into the trash: its own directories allow what the root of the mount allows.

What lies there lay in the root, or below it: who may not list that one shall not learn its names here.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable

from casfs.fs import acl
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.types import ROOT_INO

Access = tuple[int, int, int, dict[bytes, bytes]]
"""Permissions, uid, gid, access list."""


class RootAccess:
    """Of one file system. Owned by the thread that runs it."""

    def __init__(self, core: Core) -> None:
        self._inodes = core.inodes
        self._places = core.places
        self._xattrs = core.store.namespace.xattrs
        self._savepoint = core.store.namespace.savepoint
        self._group = core.group

    def of_root(self) -> Access:
        return self._of(self._inodes.get(ROOT_INO))

    def _of(self, inode: Inode) -> Access:
        return inode.mode & 0o7777, inode.uid, inode.gid, self._places.access(inode)

    def others(self, directories: Iterable[Inode]) -> list[Inode]:
        """Those that allow something else than the root."""
        wanted = self.of_root()
        return [inode for inode in directories if self._of(inode) != wanted]

    def follow(self, directories: Iterable[Inode]) -> list[int]:
        """Let directories allow what the root allows, all or none; the numbers of those that did not.

        Inside a transaction. Raises DatabaseError.
        """
        mode, uid, gid, access = self.of_root()
        others = self.others(directories)
        with self._savepoint():
            for inode in others:
                for key in self._places.access(inode):
                    self._xattrs.remove(inode.ino, key)
                for key, value in access.items():
                    self._xattrs.set(inode.ino, key, value)
        for inode in others:
            kept = {key: value for key, value in (inode.xattrs or {}).items() if key != acl.ACCESS}
            inode.xattrs = kept | access
            inode.mode, inode.uid, inode.gid = stat.S_IFDIR | mode, uid, gid
            self._inodes.changed(inode)
            self._group.count()
        return [inode.ino for inode in others]
