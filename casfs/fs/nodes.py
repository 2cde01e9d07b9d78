"""Kinds of directories: the one place where a directory is found to be another one than a stored one.

Most directories have just the names that programs gave them. In others the file system gives names itself:
each such kind is a `Kind`, which says what is different, and no verb asks for more.

A *generated* inode is one that no row has. Its number is HIGHEST_NUMBER or above it: behind that one come the
kind, a byte, and what tells it from others of its kind. Nothing of it can be changed, and the kernel
remembers neither it nor its name; but what snapshots show does not change by itself either, and is remembered
for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from casfs.fs.content.content import Handle
from casfs.fs.inodes import Inode
from casfs.types import HIGHEST_NUMBER, ROOT_INO


class Kind(Protocol):
    """A kind of directory.

    `names_appear`: may a name come without a request for it? Then the kernel must not remember that it is
    absent.
    """

    names_appear: bool

    def given(self, inos: Iterable[int]) -> None:
        """The kernel gets to know inodes of such a directory, by a lookup or a listing."""


class Made(Protocol):
    """The verbs that make something, of ordinary directories (fs/tree.py)."""

    async def make(
        self,
        parent: int,
        name: bytes | None,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes | None = None,
        umask: int = 0,
        made: Callable[[Inode], object] | None = None,
    ) -> Inode: ...

    async def link(self, ino: int, parent: int, name: bytes, uid: int = 0) -> Inode: ...
    async def unlink(self, parent: int, name: bytes, uid: int = 0) -> Inode: ...
    async def rmdir(self, parent: int, name: bytes, uid: int = 0) -> Inode: ...
    async def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int,
        uid: int = 0,
        gid: int = 0,
    ) -> None: ...


Names = tuple[tuple[int, bytes], ...]
"""(directory, name)."""


class DerivedDirectory(Protocol):
    """A directory whose names are no dentries: somebody else keeps them, and they follow from dentries. What
    is done in it is done to those, by the verbs that are given.

    `catch_up`: have the names follow; False when that has to be waited for, by `caught_up`. Those that look
    do it before. `source_of`: the dentry that the name of a file follows from, which is to be removed or to
    be replaced; raises FsError ENOENT, EROFS. `may_show`: may a change of that dentry, or of that directory,
    change what the kernel remembers of such directories? Then `settle` is called after it, and before it is
    answered, with the names that it has changed, None for others and more than those. `check_attributes`: may
    a directory be changed, but for its names? Raises FsError.
    """

    def catch_up(self) -> bool: ...
    async def caught_up(self) -> None: ...
    def may_show(self, directory: int, name: bytes | None, *, is_new: bool) -> bool: ...
    async def settle(self, names: Names | None) -> None: ...
    def find(self, directory: int, name: bytes) -> int | None: ...
    def source_of(self, directory: int, name: bytes) -> tuple[int, bytes]: ...
    def parent_of(self, directory: int) -> int | None: ...
    def check_attributes(self, directory: int) -> None: ...
    def children(self, directory: int, after: int, limit: int) -> list[tuple[int, bytes, int, int]]: ...
    def list_inodes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]: ...
    def list_attributes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]: ...
    async def make(
        self,
        verbs: Made,
        directory: int,
        name: bytes | None,
        mode: int,
        uid: int,
        gid: int,
        rdev: int,
        target: bytes | None,
        umask: int,
        made: Callable[[Inode], object] | None,
    ) -> Inode: ...
    async def link(self, verbs: Made, ino: int, directory: int, name: bytes, uid: int) -> Inode: ...
    async def unlink(self, verbs: Made, directory: int, name: bytes, uid: int) -> Inode: ...
    async def rmdir(self, verbs: Made, directory: int, name: bytes, uid: int) -> Inode: ...
    async def rename(
        self,
        verbs: Made,
        directory: int,
        name: bytes,
        new_directory: int,
        new_name: bytes,
        flags: int,
        uid: int,
        gid: int,
    ) -> None: ...


GENERATED = HIGHEST_NUMBER
"""Numbers from it on are of inodes that no row has."""

_KIND = 54


def generated_number(kind: int, number: int) -> int:
    """The number of a generated inode."""
    return GENERATED | kind << _KIND | number


def number_in_kind(ino: int) -> int:
    """What tells a generated inode from others of its kind."""
    return ino & (1 << _KIND) - 1


SNAPSHOT = 3
"""The highest kind: what snapshots show (snapshots.py)."""

SNAPSHOTS = GENERATED | SNAPSHOT << _KIND
"""The directory of all snapshots; numbers above it are of what they show."""

SNAPSHOT_BITS = 40
"""Of a number in that kind: above them is which snapshot it is, in them the number that the inode had."""

CASFS = GENERATED | 1 << _KIND
"""The directory /.casfs, where no row has it (by_digest.py)."""

BRIEFLY = 1.0
"""Seconds the kernel may remember what is on the way to a snapshot: those may come and go."""


def is_shown_by_snapshot(ino: int) -> bool:
    return ino > SNAPSHOTS


def seconds(ino: int, forever: float) -> tuple[float, float]:
    """How long the kernel may remember a name of a generated inode, and its attributes. The accelerator has
    this as well (native/attributes.c)."""
    if ino in (CASFS, SNAPSHOTS):
        return BRIEFLY, BRIEFLY
    if ino < SNAPSHOTS:
        return 0.0, 0.0
    is_root = ino & (1 << SNAPSHOT_BITS) - 1 == ROOT_INO
    return BRIEFLY if is_root else forever, forever


class Beside(Protocol):
    """Who knows generated inodes that have names beside dentries, in ordinary directories and in trees."""

    def find(self, directory: int, name: bytes) -> int | None:
        """The number of the one that has a name which no dentry has."""

    def may_appear(self, directory: int, name: bytes) -> bool:
        """May one of that name come without a request for it?"""

    def unlinked(self, directory: int, name: bytes) -> bool:
        """A program removes a name that no dentry has; is that as good as done?"""


class Lister(Protocol):
    """As `Dentries`, of a directory in which further names are listed."""

    def children(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]: ...
    def list_inodes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]: ...
    def list_attributes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]: ...


class Past(Lister, Protocol):
    """Who knows the directories of snapshots, and all that is in them. Raises FsError ESTALE."""

    def find(self, directory: int, name: bytes) -> Inode | None: ...
    def parent_of(self, directory: int) -> int: ...
    def attributes(self, ino: int) -> dict[bytes, bytes]: ...


Opener = Callable[[int, int, int], Coroutine[Any, Any, Handle]]
"""Opens a generated inode by its number, with flags of open(2), for a user."""


class Nodes:
    """Directories that are none of the stored kind, and inodes that no row has. Owned by the thread that runs
    the file system.

    `kinds`: inodes of other kinds that the kernel may hold, directories and what is in them. `hidden`:
    directory -> the inode in it that is not listed. `reserved`: (directory, name) that only the file system
    gives. `derived`: those that the kernel may hold of directories whose names are no dentries; `trees`: of
    them those in the root. `makers`: by kind, who makes a generated inode of a number, None for none.
    `names`: directory -> who knows the numbers of generated inodes that have names in it, beside dentries.
    `openers`: by kind, who opens one that is no plain file; `written`: who knows the inode, which a row has,
    that a program has made of it. `beside`, `listed`: who knows further names in any
    directory, and of directories in which such are listed; None while there are none.
    `past`: who knows what snapshots show.
    `base`: the inode of /.casfs, 0 while no row has it; `base_names`: generated inodes that have names in it.
    """

    def __init__(self) -> None:
        self.makers: dict[int, Callable[[int], Inode | None]] = {}
        self.openers: dict[int, Opener] = {}
        self.written: dict[int, Callable[[int], Inode | None]] = {}
        self.names: dict[int, Callable[[bytes], int | None]] = {}
        self.beside: Beside | None = None
        self.listed: Callable[[int], Lister | None] | None = None
        self.base = 0
        self.base_names: dict[bytes, int] = {}
        self.past: Past | None = None
        self.kinds: dict[int, Kind] = {}
        self.hidden: dict[int, int] = {}
        self.reserved: set[tuple[int, bytes]] = set()
        self.derived: dict[int, DerivedDirectory] = {}
        self.trees: set[int] = set()

    def has_base(self, ino: int) -> None:
        """A row has /.casfs, which is not listed."""
        self.base = self.hidden[ROOT_INO] = ino
        self.names[ino] = self.base_names.get

    def make(self, ino: int) -> Inode | None:
        """A generated inode; None for a number that none has."""
        maker = self.makers.get((ino & GENERATED - 1) >> _KIND)
        return None if maker is None else maker(ino)

    def above(self, ino: int) -> int:
        """The directory that a generated one is in. Raises FsError ESTALE."""
        if ino == CASFS:
            return ROOT_INO
        if self.past is not None and is_shown_by_snapshot(ino):
            return self.past.parent_of(ino)
        return self.base or CASFS

    def attributes(self, ino: int) -> dict[bytes, bytes]:
        """The extended attributes of a generated inode that came without them."""
        return {} if self.past is None else self.past.attributes(ino)

    def stored(self, ino: int) -> int:
        """The number of the inode that a row has, where a program has made one of a generated inode."""
        written = self.written.get((ino & GENERATED - 1) >> _KIND)
        inode = None if written is None else written(ino)
        return ino if inode is None else inode.ino

    def opener(self, ino: int) -> Opener | None:
        """Who opens a generated inode, if it is no plain file."""
        return self.openers.get((ino & GENERATED - 1) >> _KIND)

    def may_appear(self, directory: int, name: bytes) -> bool:
        """May a name that is not there come without a request for it?"""
        if directory >= GENERATED:
            return not is_shown_by_snapshot(directory)
        if self.beside is not None and self.beside.may_appear(directory, name):
            return True
        kind = self.kinds.get(directory)
        if kind is not None:
            return kind.names_appear
        return (directory, name) in self.reserved or directory in self.derived
