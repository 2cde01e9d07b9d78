"""STORE, held open: everything below it is reached from its descriptor, openat2(2) and its kin.

The path of STORE may come to mean something else while it is in use: it may be moved, or be mounted over. The
descriptor stays what it is. And what lies below may have been put there by anybody (I9): a store comes from
another machine, or belongs to another user. So no symbolic link below STORE is ever followed, nothing but
regular files is read or written, and no file is changed that has another name somewhere else.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress

from casfs.filestore.durable import Durable, folder, open_file
from casfs.syscalls import open_beneath

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
WRITE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
LIST = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
PLACE = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
"""How something is opened, whatever it is, to ask for its status: nothing can be read by it, nobody waits."""


NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})
"""Errors of what lies in a folder that is missing, or has something else in its place."""

NO_FILE = frozenset({errno.ELOOP, errno.EXDEV, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.ENOTDIR})
"""Errors of opening what is no regular file."""


class StoreDirectory:
    """The directory at `path`. From any thread, until it is closed.

    Names are paths below it, such as `blobs/ab/abcdef…`; `.` is the directory itself. Methods raise OSError
    as their system calls do, ELOOP where there is a symbolic link. What creates, names, removes or makes
    durable a file goes through `durable`.
    """

    def __init__(self, path: str, durable: Durable | None = None) -> None:
        self.path = path
        self.durable = durable or Durable()
        self.fd = os.open(path, LIST)

    def close(self) -> None:
        """Nothing below is reached from here any more; EBADF for who tries."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    # Looking

    def open(self, name: str, flags: int = READ, mode: int = 0) -> int:
        """open(2) of a regular file, which is all that is opened: ENXIO for a fifo, a device, a directory."""
        return open_file(self.fd, name, flags, mode)

    def open_own(self, name: str, flags: int = WRITE, mode: int = 0) -> int:
        """As `open`, to change the file in place: EIO if it has a second name, which may lie anywhere."""
        fd = self.open(name, flags, mode)
        if os.fstat(fd).st_nlink > 1:
            os.close(fd)
            raise OSError(errno.EIO, "has a second name, and is not changed", name)
        return fd

    def place(self, name: str) -> int:
        """A descriptor of whatever is there, of O_PATH: it keeps the space of a file whose name goes, and
        stands in the way of no lease."""
        return open_beneath(self.fd, name, PLACE)

    def status(self, name: str) -> os.stat_result:
        """lstat(2)."""
        fd = open_beneath(self.fd, name, PLACE)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def exists(self, name: str) -> bool:
        """Is there something of that name?"""
        try:
            self.status(name)
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            return False
        return True

    def is_folder(self, name: str) -> bool:
        """Is there a directory of that name?"""
        try:
            return stat.S_ISDIR(self.status(name).st_mode)
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            return False

    def names(self, folder: str) -> list[str]:
        fd = open_beneath(self.fd, folder, LIST)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """Names in a folder and what they stand for, if that is not gone by then; nothing if there is no
        folder."""
        try:
            fd = open_beneath(self.fd, folder, LIST)
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            return
        try:
            for name in os.listdir(fd):
                try:
                    yield name, os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
        finally:
            os.close(fd)

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
        with folder(name, self.fd) as (above, last):
            os.mkdir(last, 0o700, dir_fd=above)

    def remove_folder(self, name: str) -> None:
        """Remove a folder with the files in it; EISDIR, ENOTEMPTY when there are folders among them. One that
        is gone is no error. Not durable."""
        try:
            names = self.names(name)
        except FileNotFoundError:
            return
        for entry in names:
            with suppress(FileNotFoundError):
                self.unlink(f"{name}/{entry}")
        with folder(name, self.fd) as (above, last), suppress(FileNotFoundError):
            os.rmdir(last, dir_fd=above)

    def set_mode(self, name: str, mode: int) -> None:
        """Of a file with one name, or of a folder. EIO for anything else."""
        fd = self.place(name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISDIR(status.st_mode) and not (
                stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            ):
                raise OSError(errno.EIO, "is no file of the store's own", name)
            os.chmod(f"/proc/self/fd/{fd}", mode)  # fchmod(2) takes no descriptor of O_PATH
        finally:
            os.close(fd)

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
