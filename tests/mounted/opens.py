"""Which files programs open and read, as the kernel tells it: fanotify(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_FAN_NONBLOCK, _FAN_CLOEXEC, _FAN_UNLIMITED_QUEUE = 2, 1, 0x10
_FAN_MARK_ADD, _FAN_MARK_MOUNT = 1, 0x10
_FAN_ACCESS, _FAN_OPEN, _FAN_Q_OVERFLOW = 1, 0x20, 0x4000
_EVENT = struct.Struct("=IBBHQii")
"""struct fanotify_event_metadata of linux/fanotify.h."""

_libc = ctypes.CDLL(None, use_errno=True)


class Opened:
    """Paths of files that were opened, and of those from which something was read, from the mount point;
    directories are none of them."""

    def __init__(self) -> None:
        self.opened: set[str] = set()
        self.read: set[str] = set()


@contextlib.contextmanager
def opened_files(mount: Path) -> Iterator[Opened]:
    """What is opened below a mount point while this lasts, but for what is by this process. Needs root."""
    how = _FAN_NONBLOCK | _FAN_CLOEXEC | _FAN_UNLIMITED_QUEUE
    fd = _checked(_libc.fanotify_init(how, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    opened = Opened()
    try:
        asked = ctypes.c_uint64(_FAN_OPEN | _FAN_ACCESS)
        flags = _FAN_MARK_ADD | _FAN_MARK_MOUNT
        _checked(_libc.fanotify_mark(fd, flags, asked, -100, os.fsencode(mount)))
        yield opened
        for path, mask in _events(fd):
            name = os.path.relpath(path, mount)
            if mask & _FAN_OPEN:
                opened.opened.add(name)
            if mask & _FAN_ACCESS:
                opened.read.add(name)
    finally:
        os.close(fd)


def _events(fd: int) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(BlockingIOError):
        while data := os.read(fd, 1 << 16):
            offset = 0
            while offset < len(data):
                length, _, _, _, mask, number, pid = _EVENT.unpack_from(data, offset)
                offset += length
                assert not mask & _FAN_Q_OVERFLOW
                try:
                    if pid != os.getpid():
                        yield os.readlink(f"/proc/self/fd/{number}"), mask
                finally:
                    os.close(number)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
