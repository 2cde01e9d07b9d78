"""Where a directory is: the directories that lead to it, and the top-level one, the repository."""

from __future__ import annotations

from casfs.fs import acl
from casfs.fs.inodes import Inode, InodeTable
from casfs.namespace.namespace import Namespace
from casfs.types import ROOT_INO

PLACES = 1000
"""Directories whose place is remembered."""

Level = tuple[bytes, int, int, int, dict[bytes, bytes]]
"""A directory on the way as it is: name, permissions, uid, gid, access list."""


class Place:
    """A place as long as nothing on the way changes. `path` ends with a slash, and is empty for the root;
    `repository` is the name of the directory in the root, b"" for the root itself."""

    __slots__ = ("chain", "path", "repository")

    def __init__(self, chain: tuple[Level, ...]) -> None:
        self.chain = chain
        self.path = b"".join(level[0] + b"/" for level in chain)
        self.repository = chain[0][0] if chain else b""


class Places:
    """Owned by the thread that runs the file system. `version` is another one after each `invalidate`."""

    def __init__(self, namespace: Namespace, inodes: InodeTable) -> None:
        self._dentries = namespace.dentries
        self._xattrs = namespace.xattrs
        self._inodes = inodes
        self._places: dict[int, Place] = {}
        self.version = 0

    def of(self, ino: int) -> Place:
        """Of a directory."""
        return self._places.get(ino) or self._find(ino)

    def _find(self, ino: int) -> Place:
        chain: list[Level] = []
        above, seen = ino, set[int]()
        while above != ROOT_INO and above not in seen:
            seen.add(above)
            names = self._dentries.names_of(above)
            if not names:
                break
            found = self._inodes.get(above)
            chain.append((names[0][1], found.mode & 0o7777, found.uid, found.gid, self.access(found)))
            above = names[0][0]
        if len(self._places) >= PLACES:
            self.invalidate()
        place = self._places[ino] = Place(tuple(reversed(chain)))
        return place

    def access(self, inode: Inode) -> dict[bytes, bytes]:
        """Its access list, as an attribute; empty when it has none."""
        if inode.xattrs is None:
            inode.xattrs = self._xattrs.of(inode.ino)
        return {key: value for key, value in inode.xattrs.items() if key == acl.ACCESS}

    def forget(self, ino: int) -> None:
        """A directory has gone, which was empty."""
        self._places.pop(ino, None)

    def invalidate(self) -> None:
        """A directory has another name, mode, owner or access list."""
        self._places.clear()
        self.version += 1
