"""STORE, held open: everything below it is reached from its descriptor, openat(2) and its kin.

The path of STORE may come to mean something else while it is in use: it may be moved, or be mounted over. The
descriptor stays what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from casfs.filestore.durable import Durable

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW

READ_UNTRUSTED = READ | os.O_NONBLOCK
"""How a file is opened that may be a link or a fifo: neither followed nor waited for."""


class StoreDirectory:
    """The directory at `path`. From any thread, until it is closed.

    Names are paths below it, such as `blobs/ab/abcdef…`; `.` is the directory itself. A name that is a
    symbolic link is not followed, those of the directories on the way are. Methods raise OSError as their
    system calls do. What creates, names, removes or makes durable a file goes through `durable`.
    """

    def __init__(self, path: str, durable: Durable | None = None) -> None:
        self.path = path
        self.durable = durable or Durable()
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)

    def close(self) -> None:
        """Nothing below is reached from here any more; EBADF for who tries."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    # Looking

    def open(self, name: str, flags: int = READ) -> int:
        """open(2) of what is there."""
        return os.open(name, flags, dir_fd=self.fd)

    def open_untrusted(self, name: str) -> int:
        """As `open`, of what may be no file: a link is an error (ELOOP), a fifo is not waited for."""
        try:
            return self.open(name, READ_UNTRUSTED)
        except BlockingIOError:  # a file somebody has a lease on (lease.py), for a moment: wait for that
            return self.open(name)

    def status(self, name: str, *, follow: bool = False) -> os.stat_result:
        """stat(2); `follow`: of what a symbolic link leads to."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=follow)

    def exists(self, name: str) -> bool:
        """Is there something of that name?"""
        try:
            self.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def names(self, folder: str) -> list[str]:
        fd = self.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """Names in a folder and what they stand for, if that is not gone by then; nothing if there is no
        folder."""
        try:
            names = self.names(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            try:
                yield name, self.status(f"{folder}/{name}")
            except FileNotFoundError:
                continue

    def statvfs(self) -> os.statvfs_result:
        """statvfs(3) of the file system that STORE lies on."""
        return os.statvfs(self.fd)

    # Changing

    def create(self, name: str, mode: int) -> int:
        """A new file open read-write; it must not exist."""
        return self.durable.create(name, mode, dir_fd=self.fd)

    def write_files(self, files: Sequence[tuple[str, bytes | bytearray, int]]) -> None:
        """Make a file of each (name, content, mode), as `Durable.write_files`."""
        self.durable.write_files(files, dir_fd=self.fd)

    def rename(self, source: str, target: str) -> None:
        self.durable.rename(source, target, dir_fd=self.fd)

    def link(self, source: str, target: str) -> None:
        self.durable.link(source, target, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        self.durable.unlink(name, dir_fd=self.fd)

    def make_folder(self, name: str) -> None:
        os.mkdir(name, 0o700, dir_fd=self.fd)

    def set_mode(self, name: str, mode: int) -> None:
        """Of a file or folder, which is known to be no symbolic link."""
        os.chmod(name, mode, dir_fd=self.fd)

    # Making durable

    def sync(self, name: str) -> None:
        """fsync(2) of a file or folder. Blocks."""
        self.durable.fsync_path(name, dir_fd=self.fd)

    def sync_all(self) -> None:
        """syncfs(2). Blocks, for as long as all dirty data of that file system takes, that of other programs
        included."""
        self.durable.syncfs(self.fd)


def folder_of(name: str) -> str:
    """The name of the folder that a name is in."""
    return os.path.dirname(name) or "."
