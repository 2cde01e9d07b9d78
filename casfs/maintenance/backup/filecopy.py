"""Copying a file that nobody changes meanwhile, from any file system to any other."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from casfs.filestore.filestore import copy_range
from casfs.filestore.reflink import clone_range
from casfs.maintenance.collect.batch import Stopped

STEP = 64 << 20
"""Bytes that are copied without a look at `stop`."""

_NOT_BY_KERNEL = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})


def copy_file(source: int, target: int, size: int, stop: Callable[[], bool]) -> None:
    """The first bytes of one into another, empty one; as a clone where that can be. Blocks. Raises Stopped,
    OSError."""
    try:
        clone_range(source, target)
        return
    except OSError:
        os.ftruncate(target, 0)
    by_kernel = True
    for start in range(0, size, STEP):
        if stop():
            raise Stopped
        length = min(STEP, size - start)
        if by_kernel:
            try:
                copy_range(source, target, length, start, start)
                continue
            except OSError as error:
                if error.errno not in _NOT_BY_KERNEL:
                    raise
                by_kernel = False
        _copy_by_hand(source, target, length, start)


def _copy_by_hand(source: int, target: int, length: int, start: int) -> None:
    done = 0
    while done < length:
        data = os.pread(source, min(1 << 20, length - done), start + done)
        if not data:
            raise OSError(errno.EIO, f"the file ends after {start + done} bytes")
        written = 0
        while written < len(data):
            written += os.pwrite(target, data[written:], start + done + written)
        done += len(data)
