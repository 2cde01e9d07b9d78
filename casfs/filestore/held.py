"""Files that were removed while a program still had them mapped: they keep their space until it lets go.

A mapping that was made by passthrough holds the blob's file itself, and nobody can take it away. What it
keeps is counted, so that a disk that stays full is no riddle. A file is remembered by its handle,
name_to_handle_at(2), which does not hold it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from casfs.filestore.directory import StoreDirectory
from casfs.filestore.lease import others_have_open
from casfs.syscalls import file_handle, has_file

SMALLEST = 128 << 10
"""Bytes from which a file is read by passthrough, and may be mapped so (fs/content/passthrough.py): smaller
ones fit into one request and stay cached."""


class HeldFiles:
    """Removed blobs that somebody holds; `open_blob` gives a descriptor of one. From any thread."""

    def __init__(self, directory: StoreDirectory, open_blob: Callable[[bytes], int]) -> None:
        self._directory = directory
        self._open = open_blob
        self._lock = threading.Lock()
        self._files: dict[bytes, int] = {}

    def will_remove(self, digest: bytes, size: int) -> None:
        """Look at the file of a blob of `size` bytes that is going to be removed."""
        if size < SMALLEST:
            return
        try:
            fd = self._open(digest)
        except OSError:
            return  # it is gone, or removing it fails as well
        try:
            handle = file_handle(fd) if others_have_open(fd) else None
        finally:
            os.close(fd)
        if handle is not None:
            with self._lock:
                self._files[handle] = size

    def amount(self) -> tuple[int, int]:
        """Files that are still held, and their bytes."""
        with self._lock:
            if self._files:
                root = self._directory.fd
                self._files = {handle: size for handle, size in self._files.items() if has_file(root, handle)}
            return len(self._files), sum(self._files.values())
