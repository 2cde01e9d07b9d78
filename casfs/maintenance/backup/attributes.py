"""What a restored file has besides its content: owner, mode, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat

from casfs.namespace.inodes import InodeRow
from casfs.namespace.namespace import Namespace

PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_UNSET = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENODATA, errno.ERANGE, errno.E2BIG),
        *(errno.ENOSPC, errno.EINVAL),
    }
)
"""Errors of setting an attribute that the file system, or the user, cannot have."""


class Attributes:
    """Sets them as rows have them. `unset`: how many could not be set."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.unset = 0

    def set(self, fd: int, row: InodeRow) -> None:
        """Of an open file or directory. Raises OSError."""
        try:
            os.fchown(fd, row.uid, row.gid)
        except OSError as error:
            self._count(error)
        for name, value in self._namespace.xattrs.of(row.ino).items():
            try:
                os.setxattr(fd, name, value)
            except ValueError:
                self.unset += 1
            except OSError as error:
                self._count(error)
        os.fchmod(fd, _mode(os.fstat(fd), row))
        os.utime(fd, ns=(row.atime_ns, row.mtime_ns))

    def set_of(self, name: bytes, row: InodeRow, folder: int) -> None:
        """Of what cannot be opened, by its name in a folder that is open; a link is not followed. Raises
        OSError."""
        try:
            os.chown(name, row.uid, row.gid, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            self._count(error)
        if not stat.S_ISLNK(row.mode):
            fd = os.open(name, PLACE, dir_fd=folder)
            try:
                os.chmod(f"/proc/self/fd/{fd}", _mode(os.fstat(fd), row))
            finally:
                os.close(fd)
        os.utime(name, ns=(row.atime_ns, row.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def _count(self, error: OSError) -> None:
        if error.errno not in _UNSET:
            raise error
        self.unset += 1


def _mode(there: os.stat_result, row: InodeRow) -> int:
    """Without the bits that give somebody else's rights, where the owner is another one."""
    mode = stat.S_IMODE(row.mode)
    if (there.st_uid, there.st_gid) != (row.uid, row.gid) and not stat.S_ISDIR(row.mode):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    return mode
