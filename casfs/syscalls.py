"""System calls that the standard library lacks."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
"""FALLOC_FL_* of linux/falloc.h."""


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). Raises OSError."""
    _check(_libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def syncfs(fd: int) -> None:
    """syncfs(2), which reports write errors since Linux 5.8. Raises OSError."""
    _check(_libc.syncfs(fd))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
