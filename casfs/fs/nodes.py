"""Kinds of directories: the one place where a directory is found to be another one than a stored one.

Most directories have just the names that programs gave them. In others the file system gives names itself:
each such kind is a `Kind`, which says what is different, and no verb asks for more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Kind(Protocol):
    """A kind of directory.

    `names_appear`: may a name come without a request for it? Then the kernel must not remember that it is
    absent.
    """

    names_appear: bool

    def given(self, inos: Iterable[int]) -> None:
        """The kernel gets to know inodes of such a directory, by a lookup or a listing."""


class Nodes:
    """Directories that are none of the stored kind. Owned by the thread that runs the file system.

    `kinds`: inodes of other kinds that the kernel may hold, directories and what is in them. `hidden`:
    directory -> the inode in it that is not listed. `reserved`: (directory, name) that only the file system
    gives.
    """

    def __init__(self) -> None:
        self.kinds: dict[int, Kind] = {}
        self.hidden: dict[int, int] = {}
        self.reserved: set[tuple[int, bytes]] = set()

    def may_appear(self, directory: int, name: bytes) -> bool:
        """May a name that is not there come without a request for it?"""
        kind = self.kinds.get(directory)
        return kind.names_appear if kind is not None else (directory, name) in self.reserved
