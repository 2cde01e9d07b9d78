"""The durable seam: every call that creates, names, removes or makes durable a file of the store.

Fault injection replaces a `Durable` by one that stops at the n-th call; nothing else in the product
calls fsync, rename or unlink on the store's files.

`dir_fd`: where paths that are not absolute begin, as for the functions of `os`; both, where there are two.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

from casfs.syscalls import syncfs

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors of open(2) that pass: they say nothing about the file, nor about the disk."""

PATIENCE_SECONDS = 5.0
RETRY_SECONDS = 0.05
"""How long what only has to be synced waits for a descriptor, and how often it looks."""


class Durable:
    """The real thing. Each method raises OSError as its system call does."""

    def create(self, path: str, mode: int, *, dir_fd: int | None = None) -> int:
        """A new file open read-write; it must not exist."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, mode, dir_fd=dir_fd)

    def write_whole(self, fd: int, data: bytes | bytearray) -> None:
        """As the function of that name."""
        write_whole(fd, data)

    def write_files(
        self, files: Sequence[tuple[str, bytes | bytearray, int]], *, dir_fd: int | None = None
    ) -> None:
        """Make a file of each (path, content, mode), in their order; one that is there is replaced.

        Raises OSError for the first that cannot be written whole. That one is removed again; those before
        it stay.
        """
        for path, data, mode in files:
            try:
                fd = self.create(path, mode, dir_fd=dir_fd)
            except FileExistsError:
                self.unlink(path, dir_fd=dir_fd)
                fd = self.create(path, mode, dir_fd=dir_fd)
            try:
                self.write_whole(fd, data)
            except OSError:
                self.unlink(path, dir_fd=dir_fd)
                raise
            finally:
                os.close(fd)

    def rename(self, source: str, target: str, *, dir_fd: int | None = None) -> None:
        os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def link(self, source: str, target: str, *, dir_fd: int | None = None) -> None:
        os.link(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        os.unlink(path, dir_fd=dir_fd)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync_path(self, path: str, *, dir_fd: int | None = None) -> None:
        """fsync(2) of the file or directory at `path`. Blocks."""
        fd = _open_patiently(path, dir_fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def syncfs(self, fd: int) -> None:
        """syncfs(2) of the file system of a descriptor, which tells of write errors since that was opened.
        Blocks."""
        syncfs(fd)


def write_whole(fd: int, data: bytes | bytearray) -> None:
    """All of `data` from the start of the file, or OSError: write(2) stops short where there is no more
    room."""
    written = os.pwrite(fd, data, 0)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], written)


def _open_patiently(path: str, dir_fd: int | None) -> int:
    """open(2) for reading that waits out a want of descriptors: what is to be synced is written already."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dir_fd)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)
