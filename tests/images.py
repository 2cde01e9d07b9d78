"""Copies of a store as it is on disk, while it is in use."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


def copy_store(source: Path, target: Path) -> None:
    """Copy every file as it is now, hard links as hard links; not SQLite's shared memory, which dies with
    its processes."""
    copied: dict[int, str] = {}
    for folder, _, names in os.walk(source):
        place = os.path.normpath(os.path.join(target, os.path.relpath(folder, source)))
        os.mkdir(place, 0o700)
        for name in names:
            file, destination = os.path.join(folder, name), os.path.join(place, name)
            with suppress(FileNotFoundError):  # a thread removes what it may
                inode = os.lstat(file).st_ino
                if inode in copied:
                    os.link(copied[inode], destination)
                elif not name.endswith("-shm"):
                    copy_file(file, destination)
                    copied[inode] = destination


def copy_file(source: str, target: str) -> None:
    """Copy content and mode; holes stay holes."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        status = os.fstat(reader.fileno())
        offset = 0
        while offset < status.st_size:
            try:
                offset = os.lseek(reader.fileno(), offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            end = os.lseek(reader.fileno(), offset, os.SEEK_HOLE)
            while offset < end:
                offset += os.copy_file_range(reader.fileno(), writer.fileno(), end - offset, offset, offset)
        os.ftruncate(writer.fileno(), status.st_size)
        os.fchmod(writer.fileno(), status.st_mode & 0o777)
