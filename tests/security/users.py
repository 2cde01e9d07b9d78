"""Other users beside root, who try what they must not be able to do."""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OWNER, OTHER, THIRD = 1001, 1002, 1003
"""User and group of the same number."""

TEAM = 2000
"""A group that some are in besides."""

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def acting(uid: int, *groups: int, gid: int | None = None) -> Iterator[None]:
    """Be somebody else for a while, with no capability left that counts. Only `apart`."""
    os.setgroups(groups)
    os.setegid(uid if gid is None else gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


def become(uid: int, *groups: int) -> None:
    """Be somebody else for good, with all ids."""
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def apart(call: Callable[[], Any]) -> Any:
    """What a call returns, or raises, in a process of its own, which may change who it is."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        os.umask(0)
        try:
            answer: object = ("returned", call())
        except OSError as error:
            answer = ("raised", error)
        except BaseException:
            answer = ("failed", traceback.format_exc())
        with open(writer, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        kind, value = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if kind == "raised":
        raise value
    assert kind == "returned", value
    return value


def as_user(uid: int, call: Callable[[], Any], *groups: int) -> Any:
    """What a call returns, or raises, when somebody else makes it."""

    def calling() -> Any:
        become(uid, *groups)
        return call()

    return apart(calling)


# Access control lists

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF


def access_list(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    """(tag, permissions[, id]) each, in the order of the tags."""
    rows = [struct.pack("<HHI", tag, perm, *(rest or [_NOBODY])) for tag, perm, *rest in entries]
    return struct.pack("<I", 2) + b"".join(rows)


# System calls that Python has no function for


def renameat2(source: str, target: str, flags: int) -> None:
    """Raises OSError."""
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def link_descriptor(fd: int, path: str) -> None:
    """A name for what a descriptor refers to. Raises OSError."""
    if _libc.linkat(-100, f"/proc/self/fd/{fd}".encode(), -100, os.fsencode(path), 0x400):
        raise OSError(ctypes.get_errno(), "linkat")


def open_by_handle(mount: str, path: str) -> int:
    """A descriptor of a file by its handle, past the directories above it. Raises OSError."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128)
    mount_id = ctypes.c_int()
    if _libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount_id), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    directory = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    fd = _libc.open_by_handle_at(directory, handle, os.O_RDONLY)
    number = ctypes.get_errno()
    os.close(directory)
    if fd < 0:
        raise OSError(number, "open_by_handle_at")
    return int(fd)
