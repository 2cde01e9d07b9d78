"""Room on the store's file system, for files and rows alike: who wants to put something there says so before.

Bytes and inodes are claimed when a program writes, so that it is the program that gets ENOSPC, and not a
commit that comes after its close(2). A part of both is left to what makes room: the log of a removal, lock
files.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from casfs.types import Room

RESERVE = 16 << 20
"""Bytes (at most 1/32 of the file system) that new data leaves free, so that there is always room for
the log: what is acknowledged can be committed, and files can be deleted, on a full disk."""

FILE_ROOM = 4096
"""Bytes that a file takes on disk besides its content, at the most: the rest of its last block."""

FILE_RESERVE = 64
"""Inodes (at most 1/32 of those of the file system) that new files leave free, for the same reason."""

CLAIM_CHECK = 16 << 20
"""Bytes that may be claimed before the free space is looked at again."""

CLAIM_FILES = 64
"""And inodes."""

CLAIM_SECONDS = 0.01
"""And how old that look may be for a file that is only made after its close(2)."""

NO_LIMIT = 1 << 62
"""Inodes of a file system that makes them as it needs them (btrfs): it says that it has 0."""

BLOCK = 4096
"""Bytes of a write that is cut short are a multiple of this one."""


class Left(NamedTuple):
    """What may still be claimed, negative when others have taken what was promised already."""

    bytes: int
    files: int


class Space:
    """The room of a store, and what of it is spoken for. Owned by the file system's thread.

    `statvfs`: called for a look at its file system; `waiting`: for the bytes and inodes of what is accepted
    and not written yet. `promised`, `promised_files`: bytes and inodes that staged content in memory will
    take on disk. `refused`: bytes of the largest claim that found no room since somebody has set it to 0.
    `is_low` is called when a look at the disk finds fewer than `low` bytes for new data.
    """

    def __init__(self, statvfs: Callable[[], os.statvfs_result], waiting: Callable[[], Left]) -> None:
        self._statvfs = statvfs
        self._waiting = waiting
        self._claimable = 0
        self._claimable_files = 0
        self._looked = 0.0
        self._pending_rows = 0
        self.promised = 0
        self.promised_files = 0
        self.refused = 0
        self.low = 0
        self.is_low: Callable[[], object] = lambda: None
        room = self.room()
        self.reserve = min(RESERVE, room.total // 32)
        self.file_reserve = min(FILE_RESERVE, room.files_total // 32)

    def room(self) -> Room:
        """Space on the store's file system."""
        stat = self._statvfs()
        block = stat.f_frsize
        return Room(
            stat.f_blocks * block,
            stat.f_bfree * block,
            stat.f_bavail * block,
            stat.f_files,
            stat.f_favail if stat.f_files else NO_LIMIT,
        )

    def left(self) -> Left:
        """What there is for new data and new files."""
        room, waiting = self.room(), self._waiting()
        return Left(
            room.available - self.reserve - self._pending_rows - waiting.bytes - self.promised,
            room.files_available - self.file_reserve - waiting.files - self.promised_files,
        )

    def claim(self, size: int, files: int = 0) -> None:
        """Say that `size` bytes of new data or rows, and so many new files, are coming. Raises OSError ENOSPC
        near a full disk."""
        if size > self._claimable or files > self._claimable_files:
            self._look(size, files)
        self._claimable -= size
        self._claimable_files -= files

    def _look(self, size: int, files: int) -> None:
        self._looked = time.monotonic()
        left = self.left()
        if left.bytes < self.low:
            self.is_low()
        # Is there room for what is promised? The log may have taken a part of the reserve, which is its.
        only_asks = not size and not files
        bytes_left = left.bytes + only_asks * self.reserve // 2
        files_left = left.files + only_asks * self.file_reserve // 2
        if size > bytes_left or files > files_left:
            self.refused = max(self.refused, size)
            self._claimable = -1  # also for who only asks
            what = "is full" if size > bytes_left else "has no inodes left"
            raise OSError(errno.ENOSPC, f"the file system of the store {what}")
        self._claimable = max(size, min(left.bytes, CLAIM_CHECK))
        self._claimable_files = max(files, min(left.files, CLAIM_FILES))

    def claim_some(self, size: int) -> int:
        """As `claim`, for so much of a write as there is room for: gives the bytes. Raises OSError ENOSPC
        when there is none."""
        if size > self._claimable:
            try:
                self._look(size, 0)
            except OSError:
                size = min(size, self.left().bytes) // BLOCK * BLOCK
                if size <= 0:
                    raise
                self._claimable = size
        self._claimable -= size
        return size

    def promise(self, size: int, files: int = 0) -> None:
        """As `claim`, for `size` more bytes (or fewer) of so many more files (or fewer) that are made later;
        0 for having a look whether there is room for all that is promised.

        Does not rest on an old look at the disk: what others have taken of it would come out only after
        close(2). Raises OSError ENOSPC.
        """
        if size >= 0:
            if time.monotonic() - self._looked > CLAIM_SECONDS:
                self._claimable = -1
            self.claim(size, files)
        self.promised += size
        self.promised_files += files

    def claim_rows(self, size: int) -> None:
        """As `claim`, for rows, which take no room on disk before the commit. Raises OSError ENOSPC."""
        self.claim(size)
        self._pending_rows += size

    def rows_committed(self) -> None:
        """The rows claimed so far have taken their room."""
        self._pending_rows = 0

    def rows_refused(self) -> None:
        """There was no room to commit them: the next claim looks again."""
        self._claimable = -1

    @property
    def rows_are_many(self) -> bool:
        """Should what is pending be committed before more comes? The reserve must hold it."""
        return self._pending_rows > self.reserve // 2

    def log_room(self) -> int:
        """Bytes that one COMMIT may take: half of what new data leaves free, or more on a disk with room."""
        return max(self.reserve // 2, self.room().available // 4)
