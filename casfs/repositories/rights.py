"""Who may change names in the directories of repositories that trees show.

The kernel has checked permissions by the directory in the tree; those of the directory in the repository are
checked here.
"""

from __future__ import annotations

import errno
import stat

from casfs.errors import FsError
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.repositories.trees import Tree

WRITE_AND_SEARCH = 3


class Rights:
    """Owned by the thread that runs the file system."""

    def __init__(self, core: Core) -> None:
        self._inodes = core.inodes
        self._places = core.places
        self._kernel = core.kernel

    def check(
        self,
        directory: Inode,
        tree: Tree,
        uid: int | None,
        gid: int | None,
        removed: Inode | None = None,
    ) -> None:
        """May a user change names in a directory of a repository, or remove that one? Raises FsError EACCES,
        EPERM."""
        top = self._inodes.get(tree.ino)
        if uid != 0 and not self._may_write(directory, top, uid, gid):
            raise FsError(errno.EACCES)
        if removed is None or not directory.mode & stat.S_ISVTX:
            return
        if uid not in (0, removed.uid, directory.uid):
            raise FsError(errno.EPERM)

    def _may_write(self, directory: Inode, top: Inode, uid: int | None, gid: int | None) -> bool:
        access = self._places.access(directory)
        same = (directory.mode & 0o777, directory.uid, directory.gid) == (top.mode & 0o777, top.uid, top.gid)
        if same and not access and not self._places.access(top):
            return True  # who may not has not come as far as this
        if uid is None or access:
            return False
        if uid == directory.uid:
            shift = 6
        else:
            shift = 3 if gid == directory.gid or directory.gid in self._kernel.groups(uid) else 0
        return directory.mode >> shift & WRITE_AND_SEARCH == WRITE_AND_SEARCH
