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


def start_writeback(fd: int, offset: int, length: int) -> None:
    """sync_file_range(2) with SYNC_FILE_RANGE_WRITE: begin to write dirty pages of a range to the disk.

    Promises nothing; waits while the queue of the disk is full. Raises OSError.
    """
    _check(_libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), 2))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
