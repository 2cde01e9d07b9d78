"""System calls that Python's library does not have, or has only in a tamed form."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager

AT_FDCWD = -100
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
"""utimensat(2): nanoseconds that stand for the present, and for no change."""

_libc = ctypes.CDLL(None, use_errno=True)
_HANDLE_BYTES = 128


def _done(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def renameat2(old: str | bytes, new: str | bytes, flags: int) -> None:
    """rename(2) with RENAME_NOREPLACE (1), RENAME_EXCHANGE (2), RENAME_WHITEOUT (4)."""
    names = os.fsencode(old), os.fsencode(new)
    _done(_libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], ctypes.c_uint(flags)), "renameat2")


def link_followed(old: str | bytes, new: str | bytes) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW."""
    names = os.fsencode(old), os.fsencode(new)
    _done(_libc.linkat(AT_FDCWD, names[0], AT_FDCWD, names[1], 0x400), "linkat")


def syncfs(fd: int) -> None:
    _done(_libc.syncfs(fd), "syncfs")


def utimensat(path: str | bytes, access: tuple[int, int], modification: tuple[int, int]) -> None:
    """Times as (seconds, nanoseconds), not followed through symbolic links (AT_SYMLINK_NOFOLLOW)."""
    times = struct.pack("qqqq", *access, *modification)
    _done(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, 0x100), "utimensat")


def futimens(fd: int, access: tuple[int, int], modification: tuple[int, int]) -> None:
    _done(_libc.futimens(fd, struct.pack("qqqq", *access, *modification)), "futimens")


def name_to_handle(path: str | bytes) -> bytes:
    """name_to_handle_at(2): a `struct file_handle`."""
    buffer = ctypes.create_string_buffer(struct.pack("Ii", _HANDLE_BYTES, 0), 8 + _HANDLE_BYTES)
    mount = ctypes.c_int()
    _done(_libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount), 0), "handle")
    return buffer.raw[: 8 + struct.unpack_from("I", buffer.raw)[0]]


def open_by_handle(mount: int, handle: bytes, flags: int) -> int:
    """open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH."""
    return _done(_libc.open_by_handle_at(mount, ctypes.create_string_buffer(handle), flags), "open_by_handle")


def directory(fd: int, size: int = 4096) -> Iterator[tuple[str, int]]:
    """The entries of an open directory from its position on: (name, offset of the next), by getdents64(2)."""
    buffer = ctypes.create_string_buffer(size)
    while count := _done(_libc.getdents64(fd, buffer, size), "getdents64"):
        place = 0
        while place < count:
            _, offset, length, _ = struct.unpack_from("=QqHB", buffer.raw, place)
            name = buffer.raw[place + 19 : place + length].split(b"\0", 1)[0]
            yield os.fsdecode(name), offset
            place += length


def process_vm_writev(pid: int, address: int, data: bytes) -> int:
    """Write into another process's memory, or the own."""
    source = ctypes.create_string_buffer(data, len(data))
    local = struct.pack("QQ", ctypes.addressof(source), len(data))
    remote = struct.pack("QQ", address, len(data))
    return _done(
        _libc.process_vm_writev(pid, local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0)),
        "process_vm_writev",
    )


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG: SIGKILL for this process when the one that forked it ends."""
    _done(_libc.prctl(1, 9, 0, 0, 0), "prctl")


def be_dumpable() -> None:
    """PR_SET_DUMPABLE, which a change of user takes away."""
    _done(_libc.prctl(4, 1, 0, 0, 0), "prctl")


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """With that user's rights, those of its group, and no capabilities but root's."""
    before = os.geteuid()
    if user == before or os.getuid():
        yield
        return
    _become(user)
    try:
        yield
    finally:
        _become(before)


def _become(user: int) -> None:
    os.seteuid(0)
    os.setegid(user)
    os.seteuid(user)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The value of system.posix_acl_*: (tag, permissions, id), as in linux/posix_acl_xattr.h."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ACLS = (
    acl((1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)),
    acl((1, 7, 0xFFFFFFFF), (4, 5, 0xFFFFFFFF), (8, 7, 1234), (16, 7, 0xFFFFFFFF), (32, 5, 0xFFFFFFFF)),
    acl((1, 6, 0xFFFFFFFF), (4, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)),
)
"""Two lists with named users and groups, and one that a mode says as well."""

KINDS = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFREG)
"""What mknod(2) makes here."""
