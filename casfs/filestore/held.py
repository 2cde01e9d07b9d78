"""Files that were removed while a program still had them mapped: they keep their space until it lets go.

A mapping that was made by passthrough holds the blob's file itself, and nobody can take it away. What it
keeps is counted, so that a disk that stays full is no riddle. A file is remembered by its handle,
name_to_handle_at(2), which does not hold it.
"""

from __future__ import annotations

import os
import threading

from casfs.filestore.lease import others_have_open
from casfs.syscalls import file_handle, has_file

SMALLEST = 128 << 10
"""Bytes below which nothing is passed through, and so nothing is mapped (fs/content/passthrough.py)."""


class HeldFiles:
    """Removed files of one file system that somebody holds. From any thread."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._files: dict[bytes, int] = {}

    def will_remove(self, path: str, size: int) -> None:
        """Look at a file of `size` bytes that is going to be removed."""
        if size < SMALLEST:
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return  # it is gone, or removing it fails as well
        try:
            handle = file_handle(path) if others_have_open(fd) else None
        finally:
            os.close(fd)
        if handle is not None:
            with self._lock:
                self._files[handle] = size

    def amount(self) -> tuple[int, int]:
        """Files that are still held, and their bytes."""
        with self._lock:
            if self._files:
                root = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
                try:
                    held = {handle: size for handle, size in self._files.items() if has_file(root, handle)}
                finally:
                    os.close(root)
                self._files = held
            return len(self._files), sum(self._files.values())
