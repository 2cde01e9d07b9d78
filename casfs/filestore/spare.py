"""A little room that is held for the day on which there is none: STORE/run/spare0 and so on.

Others may fill the disk to its last byte, or take its last inode. To open a store then, and to remove
something, takes some of both: the log and its index, the control socket, a page or two for each row. So a few
files are kept that can be given up: one has blocks, the others are empty.
"""

from __future__ import annotations

import contextlib
import os

from casfs.filestore.directory import StoreDirectory
from casfs.filestore.locks import CREATE, FOLDER
from casfs.syscalls import fallocate

SPARE_BYTES = 1 << 20
"""What the first of the files takes, or 1/256 of the file system where that is less."""

SPARE_FILES = 16
"""The log and its index, the control socket, the daemon's log and the one put aside, a staged file, locks."""

NEARLY = 4
"""This many times what is held has to be free, for it to be taken back, or not given up."""


class Spare:
    """What is held for a store. Used by who has its lock, and by whoever opens it on a full disk."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._names = [f"{FOLDER}/spare{number}" for number in range(SPARE_FILES)]
        self._held = False

    def is_needed(self) -> bool:
        """Is there so little room that to open the store may fail? Raises OSError."""
        stat = os.statvfs(self._store)
        no_files = bool(stat.f_files) and stat.f_favail < SPARE_FILES
        return no_files or stat.f_bavail * stat.f_frsize < self._size(stat)

    def give_up(self) -> bool:
        """Remove the files; False when there are none. One that cannot be removed stays."""
        gone = self._held = False
        with contextlib.closing(StoreDirectory(self._store)) as directory:
            for name in self._names:
                with contextlib.suppress(OSError):
                    directory.unlink(name)
                    gone = True
        return gone

    def hold(self) -> bool:
        """Make what is missing of the files, if there is room enough; are they there now?"""
        if self._held:
            return True
        stat = os.statvfs(self._store)
        size = self._size(stat)
        if stat.f_files and stat.f_favail < NEARLY * SPARE_FILES:
            return False
        if stat.f_bavail * stat.f_frsize < NEARLY * size:
            return False
        try:
            self._make(size)
        except OSError:
            return False
        self._held = True
        return True

    def _make(self, size: int) -> None:
        with contextlib.closing(StoreDirectory(self._store)) as directory:
            for name in self._names:
                fd = directory.open_own(name, CREATE, 0o600)
                try:
                    if name is self._names[0] and os.fstat(fd).st_size < size:
                        fallocate(fd, 0, 0, size)
                finally:
                    os.close(fd)

    @staticmethod
    def _size(stat: os.statvfs_result) -> int:
        return min(SPARE_BYTES, stat.f_blocks * stat.f_frsize // 256)
