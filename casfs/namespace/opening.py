"""What SQLite may open: the files of the databases that were named to it, if they are files of their own.

SQLite opens by path, when it needs a file: also one that lay there a moment after it was looked at, and one
that a rollback journal names, which it then removes ("super-journal", sqlite.org/fileformat2.html). So its
open(2) is replaced by one that looks at what it has opened. It does so for a process, for every connection.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

import apsw

_ALWAYS = (b"/dev/urandom", b"/dev/null")

_JOURNAL = b"-journal"

_named: dict[bytes, int] = {}
"""Paths that may be opened, with flags to add. Only ever grows, by a few for each database; any thread."""


def name_database(path: str) -> None:
    """Let SQLite open the database at `path`, with its log and the log's index. From any thread."""
    name = os.fsencode(os.path.abspath(path))
    for end in (b"", b"-wal", b"-shm", _JOURNAL):
        _named[name + end] = os.O_NOFOLLOW | os.O_NONBLOCK
    _named.setdefault(os.path.dirname(name), os.O_NOFOLLOW | os.O_DIRECTORY)


def _open(path: bytes, flags: int, mode: int) -> int:
    """open(2). Raises OSError, EACCES for what SQLite has no business with."""
    if path in _ALWAYS:
        return os.open(path, flags, mode)
    more = _named.get(path)
    if more is None:
        raise OSError(errno.EACCES, "is no file of the database", path)
    if path.endswith(_JOURNAL):
        # One that is there already is not ours, and is not rolled back. A new one is: without a log yet.
        if not flags & os.O_CREAT:
            raise OSError(errno.EACCES, "is no journal of ours", path)
        more |= os.O_EXCL
    fd = os.open(path, flags | more, mode)
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink <= 1):
        return fd
    os.close(fd)
    raise OSError(errno.EACCES, "is no file of the database's own", path)


def _called(path: bytes, flags: int, mode: int) -> int:
    try:
        return _open(path, flags, mode)
    except OSError as error:
        ctypes.set_errno(error.errno or errno.EIO)
        return -1


_prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, use_errno=True)
_function = _prototype(_called)


def _replace() -> apsw.VFS:
    vfs = apsw.VFS("casfs", "unix")
    address = ctypes.cast(_function, ctypes.c_void_p).value
    assert address is not None
    if not vfs.xSetSystemCall("open", address):
        raise OSError(errno.ENOSYS, "SQLite's open(2) cannot be replaced")
    return vfs


_vfs = _replace()
