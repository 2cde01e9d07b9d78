"""A directory of the machine's own file system behind the same calls as `tests.kernel`: the model."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from contextlib import suppress

_libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


class DiskFile:
    """A file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def write(self, data: bytes, offset: int) -> int:
        return os.pwrite(self._fd, data, offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def fsync(self) -> None:
        """Nobody cuts the power of the model."""

    def flush(self) -> None:
        """close(2) of a duplicate, as after fork(2)."""
        os.close(os.dup(self._fd))

    def close(self) -> None:
        os.close(self._fd)


class Disk:
    """System calls with paths relative to `root`. Runs as root, with umask 0."""

    def __init__(self, root: str) -> None:
        self._root = os.fsencode(root)
        self._umask = os.umask(0)

    def end(self) -> None:
        os.umask(self._umask)

    def _path(self, path: bytes) -> bytes:
        return self._root + b"/" + path

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._path(path), mode)
        os.chmod(self._path(path), os.stat(self._path(path)).st_mode & stat.S_ISGID | mode)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._path(path))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._path(path))

    def link(self, source: bytes, path: bytes) -> None:
        os.link(self._path(source), self._path(path), follow_symlinks=False)

    def unlink(self, path: bytes) -> None:
        os.unlink(self._path(path))

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._path(path))

    def rename(self, source: bytes, target: bytes, flags: int) -> None:
        if _libc.renameat2(AT_FDCWD, self._path(source), AT_FDCWD, self._path(target), flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._path(path), mode)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._path(path), size)
        status = os.stat(self._path(path))
        if not size:  # tmpfs, unlike a disk's file system, leaves the times of a file that was empty before
            os.utime(self._path(path), ns=(status.st_atime_ns, time.time_ns()))

    def utime(self, path: bytes, atime: int, mtime: int) -> None:
        os.utime(self._path(path), ns=(atime, mtime))

    def setxattr(self, path: bytes, name: bytes, value: bytes) -> None:
        os.setxattr(self._path(path), name, value, follow_symlinks=False)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return os.getxattr(self._path(path), name, follow_symlinks=False)

    def removexattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(self._path(path), name, follow_symlinks=False)

    def names(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(self._path(path)))

    def open(self, path: bytes, flags: int, mode: int) -> DiskFile:
        fd = os.open(self._path(path), flags, mode)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, "open")
        return DiskFile(fd)

    def tree(self) -> dict[bytes, DiskEntry]:
        """Everything below the root, by path."""
        found: dict[bytes, DiskEntry] = {}
        pending = [b""]
        while pending:
            prefix = pending.pop()
            for entry in os.scandir(self._path(prefix)):
                path = prefix + entry.name
                found[path] = DiskEntry(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path + b"/")
        return found


class DiskEntry:
    """One name with what stat(2) shows and what is in it."""

    def __init__(self, path: bytes) -> None:
        status = os.lstat(path)
        self.ino = status.st_ino
        self.mode = status.st_mode
        self.nlink = status.st_nlink
        self.size = status.st_size
        self.mtime = status.st_mtime_ns
        self.content = None
        self.xattrs: dict[bytes, bytes] = {}
        if stat.S_ISLNK(self.mode):
            self.content = os.readlink(path)
        elif stat.S_ISREG(self.mode):
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
            with suppress(OSError):
                self.content = os.pread(fd, self.size + 1, 0)
            os.close(fd)
        for name in os.listxattr(path, follow_symlinks=False):
            self.xattrs[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=False)
