"""Sidecars: FILE.sha1 and its like, beside each file of a repository that has them (rules.py).

What no program has written there is generated: a file whose content is a digest of FILE, in hex. Its inode
has no row (fs/nodes.py), and is computed from that of FILE. Its size is known before the digest is. One that
a program writes is a file like any other, and a claim about FILE (claims.py).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from casfs.errors import FsError
from casfs.filestore.hashing import ALGORITHMS
from casfs.fs.content.content import Content, Handle
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.listing import NAME_LIMIT
from casfs.fs.nodes import generated_number, number_in_kind
from casfs.repositories.registry import Registry

SIDECAR = 2
"""Kind of generated inodes (fs/nodes.py)."""

EXTENSIONS = {b".sha1": "sha1", b".sha256": "sha256", b".sha512": "sha512", b".md5": "md5"}
"""End of a sidecar's name -> what it is a digest by."""

_ALGORITHMS = list(EXTENSIONS.values())
_SHIFT = 3
"""Bits of a generated inode's number, and of a cookie, that tell the sidecars of one file from each other."""

_FILE = (1 << _SHIFT) - 1

PLACES = 10_000
"""Sidecars of which it is remembered by which name they were looked up last."""

HIDDEN_SECONDS = 1.0
"""So long a sidecar that a program has removed is not there: tar(1) and install(1) remove what they make."""

WRITE, SEARCH = 2, 1


def split(name: bytes) -> tuple[bytes, str] | None:
    """The name of the file that a sidecar of that name is about, and the algorithm; None for another name."""
    base, extension = os.path.splitext(name)
    if extension not in EXTENSIONS or not base or os.path.splitext(base)[1] in EXTENSIONS:
        return None
    return base, EXTENSIONS[extension]


class TextContent(Content):
    """The content of a generated file, which is in memory as long as that is open."""

    __slots__ = ()

    def __init__(self, inode: Inode, fs: FileSystem, text: bytes) -> None:
        super().__init__(inode, fs.scheduler)
        self.buffer = bytearray(text)
        self.handles = 1

    @property
    def is_staged(self) -> bool:
        return False


class Sidecars:
    """Owned by the thread that runs the file system.

    `_places`: number of a generated inode -> (directory, name) by which it was looked up last. `_hidden`:
    until when one that was removed is not there. `_listing`: repositories in which they are listed.
    """

    def __init__(self, fs: FileSystem, registry: Registry) -> None:
        self._fs = fs
        self._registry = registry
        self._nodes = fs.nodes
        self._dentries = fs.store.namespace.dentries
        self._inodes = fs.inodes
        self._places: dict[int, tuple[int, bytes]] = {}
        self._hidden: dict[tuple[int, bytes], float] = {}
        self._listing: set[int] = set()
        fs.nodes.makers[SIDECAR] = self._make
        fs.nodes.openers[SIDECAR] = self.open
        fs.nodes.written[SIDECAR] = self._written
        registry.subscribe(self._read)

    def _read(self) -> None:
        """Repositories have changed."""
        shown = {each.ino: each.rules.sidecars for each in self._registry.repositories.values()}
        self._nodes.beside = self if any(shown.values()) else None
        listing = {ino for ino, sidecars in shown.items() if sidecars == "listed"}
        self._nodes.listed = self.listed if listing else None
        for ino in self._listing ^ listing if self._fs.changes.collecting else ():
            for directory in (ino, *self._fs.store.namespace.trash.directories_below(ino)):
                self._fs.changes.inode(directory)
        self._listing = listing

    def has(self, directory: int) -> bool:
        """Do files in a directory have sidecars?"""
        repository = self._registry.at(directory)
        return repository is not None and bool(repository.rules.sidecars)

    # Names and inodes

    def find(self, directory: int, name: bytes) -> int | None:
        """The number of the sidecar that has a name, which no dentry has."""
        parts = split(name)
        if parts is None or len(name) > NAME_LIMIT:
            return None
        base, algorithm = parts
        names = self._nodes.derived.get(directory)
        ino = (names or self._dentries).find(directory, base)
        if ino is None or not self._inodes.get(ino).is_regular:
            return None
        if not self.has(directory) and not (names and self._is_of_one(ino)):
            return None
        return self.number(directory, name, ino, algorithm)

    def number(self, directory: int, name: bytes, ino: int, algorithm: str) -> int | None:
        """As `find`, where it is known that files have sidecars, and which file it is about."""
        if self._hidden.get((directory, name), 0.0) > self._fs.scheduler.now():
            return None
        number = generated_number(SIDECAR, ino << _SHIFT | _ALGORITHMS.index(algorithm))
        if len(self._places) >= PLACES:
            self._places.clear()
        self._places[number] = directory, name
        return number

    def names_of(self, name: bytes, ino: int) -> list[tuple[bytes, str]]:
        """Those of the sidecars of what has a name, and the algorithms."""
        names = [(name + extension, algorithm) for extension, algorithm in EXTENSIONS.items()]
        if split(names[0][0]) is None or not self._inodes.get(ino).is_regular:
            return []
        return [each for each in names if len(each[0]) <= NAME_LIMIT]

    def may_appear(self, directory: int, name: bytes) -> bool:
        """May a sidecar of that name come with its file?"""
        return split(name) is not None and self.has(directory)

    def unlinked(self, directory: int, name: bytes) -> bool:
        """A program removes a name that no dentry has; is it a sidecar's? Then it is not there for a moment,
        for who removes a file before he makes it."""
        if not self.may_appear(directory, name):
            return False
        if len(self._hidden) >= PLACES:
            self._hidden.clear()
        self._hidden[directory, name] = self._fs.scheduler.now() + HIDDEN_SECONDS
        return True

    def _is_of_one(self, ino: int) -> bool:
        """Has a file a name in a repository with sidecars? Trees show it elsewhere."""
        return any(self.has(parent) for parent, _ in self._dentries.names_of(ino))

    def _base(self, number: int) -> tuple[Inode, str]:
        """The file that a sidecar is about. Raises FsError ESTALE."""
        base = self._inodes.get(number_in_kind(number) >> _SHIFT)
        which = number & (1 << _SHIFT) - 1
        if not base.is_regular or not base.nlink or which >= len(_ALGORITHMS):
            raise FsError(errno.ESTALE)
        return base, _ALGORITHMS[which]

    def _place(self, number: int) -> tuple[int, bytes]:
        """Directory and name of a sidecar. Raises FsError ESTALE."""
        base, algorithm = self._base(number)
        place = self._places.get(number)
        if place is not None:
            return place
        for parent, name in self._dentries.names_of(base.ino):
            if self.has(parent):
                return parent, name + b"." + algorithm.encode()
        raise FsError(errno.ESTALE)

    def _written(self, number: int) -> Inode | None:
        """The file that a program has made under a sidecar's name, since that was looked up."""
        directory, name = self._place(number)
        ino = (self._nodes.derived.get(directory) or self._dentries).find(directory, name)
        return None if ino is None else self._inodes.get(ino)

    def _make(self, number: int) -> Inode | None:
        base, algorithm = self._base(number)
        size = 2 * ALGORITHMS[algorithm].size
        written = self._written(number)
        if written is not None:  # who has made it has this one open
            base, size = written, written.size
        times = base.atime, base.mtime, base.ctime, base.btime
        mode = stat.S_IFREG | base.mode & 0o666
        inode = Inode(number, mode, 1, base.uid, base.gid, 0, size, 512, None, None, None, *times)
        inode.xattrs = dict(self._fs.places.access(base))  # or its mode would say more than it does there
        return inode

    # Contents

    async def open(self, number: int, flags: int, uid: int) -> Handle:
        """A handle of a sidecar; to write to it makes a file of that name. Raises FsError EBUSY while
        somebody writes to the file that it is about, EACCES, ESTALE, OSError."""
        files = self._fs.files
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        inode = self._written(number)
        is_new = inode is None
        if inode is None and (writable or flags & os.O_TRUNC):
            inode = await self._make_file(number, uid)
        if inode is None:
            handle = await self._open_text(number, uid)
        else:
            handle = files.open(inode, writable, uid)
            handle.wrote = is_new
            if flags & os.O_TRUNC:
                await files.truncate_at_open(handle)
        handle.direct = True
        handle.appends = bool(flags & os.O_APPEND)
        return handle

    async def _make_file(self, number: int, uid: int) -> Inode:
        base, _ = self._base(number)
        directory, name = self._place(number)
        if not self._may_write(self._inodes.get(directory), uid):
            raise FsError(errno.EACCES)
        made: list[Inode] = []  # and nobody is answered yet: what was asked for is an open(2)
        mode = stat.S_IFREG | base.mode & 0o666
        inode = await self._fs.tree.make(directory, name, mode, uid, base.gid, made=made.append)
        self._fs.kernel.forget_attributes(directory)  # by whose times it knows whether its listing is true
        return inode

    def _may_write(self, directory: Inode, uid: int) -> bool:
        """The kernel has asked for the right to write to the file only. Where there is an access list, only
        the owner may."""
        if not uid:
            return True
        if uid != directory.uid and self._fs.places.access(directory):
            return False
        shift = 6 if uid == directory.uid else 3 if directory.gid in self._fs.kernel.groups(uid) else 0
        return directory.mode >> shift & (WRITE | SEARCH) == WRITE | SEARCH

    async def _open_text(self, number: int, uid: int) -> Handle:
        base, algorithm = self._base(number)
        value = await self.digest(base, algorithm)
        if value is None:
            raise FsError(errno.EBUSY)
        inode = self._inodes.get(number)
        return Handle(inode, TextContent(inode, self._fs, value.hex().encode()), False, uid)

    async def digest(self, base: Inode, algorithm: str, *, closing: bool = False) -> bytes | None:
        """Of a file's content, computed if nobody has asked for it before; None while somebody writes to it,
        but for who is `closing` it, or where it cannot be sealed. Raises OSError."""
        settling = self._fs.contents.settling
        content = self._fs.contents.table.find(base)
        if content is not None and content.writers > closing:
            return None
        if content is not None and closing:
            await settling.begin_in_order()
            await settling.seal_unwritten(content)
        else:
            await settling.seal_closed(base)
        return await self._fs.contents.digesting.value(base, algorithm, wanted=True)

    # Listing

    def listed(self, directory: int) -> ListedSidecars | None:
        """The names of a directory, where they are listed with those of sidecars."""
        repository = self._registry.at(directory)
        if repository is None or repository.rules.sidecars != "listed":
            return None
        return ListedSidecars(self)


class ListedSidecars:
    """As `Dentries`, for listings, with the sidecars before each file: rm(1) removes them first. Cookies are
    those of the files, with the number of the sidecar below them, or _FILE."""

    def __init__(self, sidecars: Sidecars) -> None:
        self._dentries = sidecars._dentries
        self._sidecars = sidecars

    def children(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        found = self._rows(self._dentries.children, directory, after, limit)
        return [(*row[:3], stat.S_IFREG >> 12) if len(row) == 3 else row for row in found]

    def list_inodes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        return [
            (*row, None) if len(row) == 3 else row
            for row in self._rows(self._dentries.list_inodes, directory, after, limit)
        ]

    def list_attributes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        columns = (None,) * 10
        return [
            (*row, *columns) if len(row) == 3 else row
            for row in self._rows(self._dentries.list_attributes, directory, after, limit)
        ]

    def _rows(self, read: Any, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """Rows of dentries as they are, those of sidecars as (cookie, name, number)."""
        found: list[tuple[Any, ...]] = []
        shown, last = after >> _SHIFT, after & _FILE == _FILE
        rows = read(directory, max(2, shown - (not last)), limit + 1)
        for cookie, name, *rest in rows:
            if len(found) >= limit:
                break
            for number, (sidecar, algorithm) in enumerate(self._sidecars.names_of(name, rest[0]), 1):
                place = cookie << _SHIFT | number
                if place > after and self._dentries.find(directory, sidecar) is None:
                    ino = self._sidecars.number(directory, sidecar, rest[0], algorithm)
                    if ino is not None:
                        found.append((place, sidecar, ino))
            if cookie << _SHIFT | _FILE > after:
                found.append((cookie << _SHIFT | _FILE, name, *rest))
        return found[:limit]
