"""System calls that the standard library lacks."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
"""FALLOC_FL_* of linux/falloc.h."""

AT_FDCWD = -100
"""The `dir_fd` of paths that begin in the working directory, linux/fcntl.h."""


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_OPENAT2 = 437
_BENEATH = 0x04 | 0x08
"""RESOLVE_NO_SYMLINKS and RESOLVE_BENEATH of linux/openat2.h."""


@functools.cache
def _how(flags: int, mode: int) -> Any:
    """What a pointer to it is made of: made once, it saves a third of the call."""
    return ctypes.byref(_OpenHow(flags, mode, _BENEATH))


_syscall = _libc.syscall


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(2), Linux 5.6, of what lies below a directory: no symbolic link is followed, nor anything that
    leads out of it, whoever changes it meanwhile. Raises OSError, ELOOP for a link, EXDEV for a way out.

    With O_PATH and O_NOFOLLOW a link at the end is given as itself.
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, "a name with a null byte", path)
    while True:
        fd: int = _syscall(_OPENAT2, directory, name, _how(flags, mode), 24)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), path)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). Raises OSError."""
    _check(_libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def syncfs(fd: int) -> None:
    """syncfs(2), which reports write errors since Linux 5.8. Raises OSError."""
    _check(_libc.syncfs(fd))


def start_writeback(fd: int, offset: int, length: int) -> None:
    """sync_file_range(2) with SYNC_FILE_RANGE_WRITE: begin to write dirty pages of a range to the disk.

    Promises nothing; waits while the queue of the disk is full. Raises OSError.
    """
    _check(_libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), 2))


class _Handle(ctypes.Structure):
    """struct file_handle of name_to_handle_at(2), with the longest handle there is (MAX_HANDLE_SZ)."""

    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128))


_AT_EMPTY_PATH = 0x1000


def file_handle(fd: int) -> bytes | None:
    """What stands for the file of a descriptor, whatever becomes of its name, and does not hold it:
    name_to_handle_at(2). None where the file system has no such thing."""
    handle, mount = _Handle(size=128), ctypes.c_int()
    if _libc.name_to_handle_at(fd, b"", ctypes.byref(handle), ctypes.byref(mount), _AT_EMPTY_PATH):
        return None
    return bytes(handle)


def has_file(directory: int, handle: bytes) -> bool:
    """Does the file of a handle still exist on the file system of a descriptor, with a name or without?
    open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH; without it the answer is no."""
    fd = _libc.open_by_handle_at(directory, ctypes.byref(_Handle.from_buffer_copy(handle)), os.O_PATH)
    if fd < 0:
        return False
    os.close(fd)
    return True


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
