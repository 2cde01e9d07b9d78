"""lost+found: a directory in the root of the namespace for what a repair cannot place."""

from __future__ import annotations

import stat

from casfs.namespace.inodes import directory_row, empty_row
from casfs.namespace.namespace import Namespace
from casfs.namespace.repairs import Repairs
from casfs.types import ROOT_INO

NAME = b"lost+found"


class LostAndFound:
    """Gives names, and the numbers new rows need (I7). Inside a write transaction, on a store with a root.

    nlink of the root, of lost+found and of what gets a name is counted afterwards.
    """

    def __init__(self, namespace: Namespace, repairs: Repairs) -> None:
        self._namespace = namespace
        self._repairs = repairs
        self._ino, self._cookie = repairs.highest()
        root = repairs.inode(ROOT_INO)
        self.uid, self.gid = root.uid, root.gid
        self._folder: int | None = None

    def next_ino(self) -> int:
        self._ino += 1
        return self._ino

    def next_cookie(self) -> int:
        self._cookie += 1
        return self._cookie

    def save_numbers(self) -> None:
        """Reserve what was given out."""
        self._repairs.set_counter("next_ino", self._ino + 1)
        self._repairs.set_counter("next_cookie", self._cookie + 1)

    def add(self, ino: int, name: str) -> None:
        """Name an inode; if the name is taken, a number is put behind it."""
        self._insert(self._place(), name.encode(), ino, self._repairs.inode(ino).mode)

    def add_directory(self, name: str) -> int:
        """A new directory."""
        ino = self.next_ino()
        self._repairs.insert(directory_row(ino, 0o700, self.uid, self.gid))
        self.add(ino, name)
        return ino

    def add_file(
        self, name: str, size: int, *, blob: int | None = None, staged: str | None = None, mtime_ns: int
    ) -> None:
        """A new file with a content, which nobody but its owner may read."""
        ino = self.next_ino()
        row = empty_row(ino, stat.S_IFREG | 0o400, 1, self.uid, self.gid, mtime_ns)
        allocated = size + 511 & ~511
        self._repairs.insert(row._replace(size=size, allocated=allocated, blob_id=blob, staged=staged))
        self.add(ino, name)

    def _place(self) -> int:
        if self._folder is None:
            found = self._namespace.dentries.find(ROOT_INO, NAME)
            if found is not None and self._repairs.inode(found).kind == stat.S_IFDIR:
                self._folder = found
            else:
                self._folder = self.next_ino()
                folder = directory_row(self._folder, 0o700, self.uid, self.gid)
                self._repairs.insert(folder)
                self._insert(ROOT_INO, NAME, self._folder, folder.mode)
        return self._folder

    def _insert(self, parent: int, name: bytes, ino: int, mode: int) -> None:
        number, free = 1, name
        while not self._repairs.add_name(parent, self.next_cookie(), free, ino, mode):
            number += 1
            free = name + b".%d" % number
