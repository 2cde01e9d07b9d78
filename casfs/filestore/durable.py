"""The durable seam: every call that creates, names, removes or makes durable a file of the store.

Fault injection replaces a `Durable` by one that stops at the n-th call; nothing else in the product
calls fsync, rename or unlink on the store's files.

`dir_fd`: the directory that paths begin in, both where there are two. Nothing on the way may be a symbolic
link then, nor lead out of it (syscalls.py, `open_beneath`). Without it they are as for the functions of `os`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from casfs.syscalls import open_beneath, syncfs

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors of open(2) that pass: they say nothing about the file, nor about the disk."""

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened to reach what is in it."""

PATIENCE_SECONDS = 5.0
RETRY_SECONDS = 0.05
"""How long what only has to be synced waits for a descriptor, and how often it looks."""


class Durable:
    """The real thing. Each method raises OSError as its system call does."""

    def create(self, path: str, mode: int, *, dir_fd: int | None = None) -> int:
        """A new file open read-write; it must not exist."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, mode) if dir_fd is None else open_beneath(dir_fd, path, flags, mode)

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
        with folder(source, dir_fd) as (old, name), folder(target, dir_fd) as (new, new_name):
            os.rename(name, new_name, src_dir_fd=old, dst_dir_fd=new)

    def rename_all(self, names: Iterable[tuple[str, str]], *, dir_fd: int) -> None:
        """rename(2) of each (source, target), in their order; the folders of the last ones are not looked up
        again. Raises OSError for the first that cannot be renamed."""
        with Folders(dir_fd) as sources, Folders(dir_fd) as targets:
            for source, target in names:
                old, name = sources.find(source)
                new, new_name = targets.find(target)
                self.rename_in(old, name, new, new_name)

    def rename_in(self, old: int, name: str, new: int, new_name: str) -> None:
        """rename(2) of a name in a folder that is open, to one in another."""
        os.rename(name, new_name, src_dir_fd=old, dst_dir_fd=new)

    def link(self, source: str, target: str, *, dir_fd: int | None = None) -> None:
        with folder(source, dir_fd) as (old, name), folder(target, dir_fd) as (new, new_name):
            os.link(name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        above, _, name = path.rpartition("/")
        if dir_fd is None or not above:
            os.unlink(path, dir_fd=dir_fd)
            return
        parent = open_beneath(dir_fd, above, FOLDER)
        try:
            os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)

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


class Folders:
    """The folder that was looked up last, below a directory, kept open."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._path: str | None = None
        self._fd = -1

    def find(self, path: str) -> tuple[int, str]:
        """As `folder`, until the next call. Raises OSError."""
        above, _, name = path.rpartition("/")
        if above != self._path:
            self.__exit__()
            self._fd = open_beneath(self._directory, above or ".", FOLDER)
            self._path = above
        return self._fd, name

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *_: object) -> None:
        fd, self._fd, self._path = self._fd, -1, None
        if fd >= 0:
            os.close(fd)


@contextmanager
def folder(path: str, dir_fd: int | None) -> Iterator[tuple[int | None, str]]:
    """The directory that `path` lies in, open, and the name there: for the calls that take one. Raises
    OSError."""
    above, _, name = path.rpartition("/")
    if dir_fd is None or not above:
        yield dir_fd, path
        return
    fd = open_beneath(dir_fd, above, FOLDER)
    try:
        yield fd, name
    finally:
        os.close(fd)


def write_whole(fd: int, data: bytes | bytearray) -> None:
    """All of `data` from the start of the file, or OSError: write(2) stops short where there is no more
    room."""
    written = os.pwrite(fd, data, 0)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], written)


def open_file(directory: int, path: str, flags: int, mode: int = 0, *, folders: bool = False) -> int:
    """Open a regular file below a directory: a link, a fifo, a device or whatever else may lie in its place
    is neither followed, nor waited for, nor read. `folders`: or a directory. Raises OSError, ELOOP and ENXIO
    for those."""
    try:
        fd = open_beneath(directory, path, flags | os.O_NONBLOCK, mode)
    except BlockingIOError:  # a file somebody has a lease on (lease.py), for a moment: wait for that
        fd = _open_leased(directory, path, flags)
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind) or (folders and stat.S_ISDIR(kind)):
        return fd
    os.close(fd)
    raise OSError(errno.ENXIO, "is no regular file", path)


def _open_leased(directory: int, path: str, flags: int) -> int:
    place = open_beneath(directory, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.ENXIO, "is no regular file", path)
        return os.open(f"/proc/self/fd/{place}", flags & ~(os.O_NOFOLLOW | os.O_CREAT))
    finally:
        os.close(place)


def _open_patiently(path: str, dir_fd: int | None) -> int:
    """open(2) for reading that waits out a want of descriptors: what is to be synced is written already."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            if dir_fd is None:
                return os.open(path, flags)
            return open_file(dir_fd, path, flags, folders=True)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)
