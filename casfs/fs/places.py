"""Where a directory is: the directories that lead to it, and the top-level one, the repository."""

from __future__ import annotations

from collections.abc import Sequence

from casfs.errors import FsError
from casfs.fs import acl
from casfs.fs.inodes import Inode, InodeTable
from casfs.namespace.connection import DatabaseError
from casfs.namespace.namespace import Namespace
from casfs.types import ROOT_INO

PLACES = 1000
"""Directories whose place is remembered."""

DEEPEST = 256
LONGEST = 4095
"""Directories on the way to a place, and bytes of its path, at the most: any user may nest hundreds of
thousands, and each is a query while others wait."""

ACCESS_LIMIT = 1 << 20
"""Bytes of the access lists on the way, at the most: an owner may give each directory one of 64 KiB."""

REMEMBERED_BYTES = 16 << 20
"""Of all places that are remembered, roughly."""

Level = tuple[bytes, int, int, int, dict[bytes, bytes]]
"""A directory on the way as it is: name, permissions, uid, gid, access list."""


class Place:
    """A place as long as nothing on the way changes. `path` ends with a slash, and is empty for the root.

    `repository` is the name of the directory in the root, b"" for the root itself, and `top` is its inode
    number, 0 for the root and for what has no name; `within` is the path below it. `access`: bytes of the
    access lists on the way.
    """

    __slots__ = ("access", "chain", "path", "repository", "top", "within")

    def __init__(self, chain: tuple[Level, ...], access: int, top: int) -> None:
        self.chain = chain
        self.access = access
        self.path = b"".join(level[0] + b"/" for level in chain)
        self.repository = chain[0][0] if chain else b""
        self.top = top
        self.within = self.path[len(self.repository) + 1 :]


def too_far(levels: Sequence[Level], length: int, access: int) -> bool:
    return len(levels) > DEEPEST or length > LONGEST or access > ACCESS_LIMIT


class Places:
    """Owned by the thread that runs the file system. `version` is another one after each `invalidate`."""

    def __init__(self, namespace: Namespace, inodes: InodeTable) -> None:
        self._dentries = namespace.dentries
        self._inodes = inodes
        self._places: dict[int, Place | None] = {}
        self._bytes = 0
        self.version = 0

    def of(self, ino: int) -> Place | None:
        """Of a directory; None for one below nothing, or too deep (DEEPEST, LONGEST, ACCESS_LIMIT)."""
        try:
            return self._places[ino]
        except KeyError:
            return self._remember(ino, self._find(ino))

    def _find(self, ino: int) -> Place | None:
        levels: list[Level] = []
        length = access = top = 0
        above = ino
        while above != ROOT_INO:
            known = self._places.get(above)
            if known is not None and known.top:
                levels.extend(reversed(known.chain))
                length += len(known.path)
                access += known.access
                above, top = ROOT_INO, known.top
                break
            try:
                names = self._dentries.names_of(above)
                if not names:
                    break
                found = self._inodes.get(above)
                level = (names[0][1], found.mode & 0o7777, found.uid, found.gid, self.access(found))
            except (FsError, DatabaseError):  # a damaged database: a name or a directory that is none
                return None
            levels.append(level)
            length += len(level[0]) + 1
            access += sum(map(len, level[4].values()))
            if too_far(levels, length, access):
                return None
            above, top = names[0][0], above
        if too_far(levels, length, access):
            return None
        return Place(tuple(reversed(levels)), access, top if above == ROOT_INO else 0)

    def _remember(self, ino: int, place: Place | None) -> Place | None:
        size = 0
        if place is not None:
            if not place.top and ino != ROOT_INO:
                return place  # it has no name, but may get one, which nobody tells of
            size = len(place.path) + place.access
        if len(self._places) >= PLACES or self._bytes + size > REMEMBERED_BYTES:
            self.invalidate()
        self._bytes += size
        self._places[ino] = place
        return place

    def access(self, inode: Inode) -> dict[bytes, bytes]:
        """Its access list, as an attribute; empty when it has none."""
        return {key: value for key, value in self._inodes.attributes(inode).items() if key == acl.ACCESS}

    def forget(self, ino: int) -> None:
        """A directory has gone, which was empty."""
        self._places.pop(ino, None)

    def invalidate(self) -> None:
        """A directory has another name, mode, owner or access list."""
        self._places.clear()
        self._bytes = 0
        self.version += 1
