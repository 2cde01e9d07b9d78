"""Times of access, where a repository keeps them: of the last open of a file, moved once a day at most."""

from __future__ import annotations

from collections.abc import Iterable

from casfs.fs.core import Core
from casfs.fs.inodes import Inode

DAY_NS = 86_400 * 1_000_000_000


class AccessTimes:
    """As `fs.policy.AccessTimes`, of the repositories `tops` (inode numbers). Owned by the thread that runs
    the file system."""

    def __init__(self, core: Core, tops: Iterable[int]) -> None:
        self.tops = frozenset(tops)
        self._dentries = core.store.namespace.dentries
        self._places = core.places

    def due(self, inode: Inode, now_ns: int) -> bool:
        return now_ns >= inode.atime + DAY_NS and self._keeps(inode)

    def due_at(self, inode: Inode, now_ns: int) -> int:
        return min(now_ns, inode.atime) + DAY_NS if self._keeps(inode) else now_ns + DAY_NS

    def _keeps(self, inode: Inode) -> bool:
        """Has it a name in one of the repositories?"""
        for parent in self._dentries.parents_of(inode.ino):
            place = self._places.of(parent)
            if place is not None and place.top in self.tops:
                return True
        return False
