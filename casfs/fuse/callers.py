"""Who has asked: what /proc says of the program whose request is served."""

from __future__ import annotations

import os
import time
from contextvars import ContextVar

CALLER: ContextVar[int] = ContextVar("caller", default=0)
"""The thread whose request a task serves, as it is numbered where the daemon is; 0 where it is not known."""

PATIENCE_SECONDS = 0.1
"""So long a thread that has sent a request may take until it waits for the answer, on a busy machine."""

_UIDS, _GIDS, _GROUPS = b"Uid:", b"Gid:", b"Groups:"
_OF_FILES = 3
"""Of the ids in a line, the one that counts for access to files: real, effective, saved, file system's."""


def groups_of(thread: int, uid: int) -> frozenset[int]:
    """All groups of a thread, its primary one among them; none if it is not user `uid`'s, who has asked: then
    another one has its number by now. None either where /proc does not tell."""
    if not thread:
        return frozenset()
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return frozenset()  # it numbers the processes of another namespace
        with open(f"/proc/{thread}/status", "rb") as file:
            lines = file.read().splitlines()
        ids = {words[0]: [int(word) for word in words[1:]] for line in lines if (words := _ids(line))}
        if ids[_UIDS][_OF_FILES] != uid:
            return frozenset()
        return frozenset((ids[_GIDS][_OF_FILES], *ids[_GROUPS]))
    except (OSError, ValueError, LookupError):
        return frozenset()


def _ids(line: bytes) -> list[bytes]:
    return line.split() if line.startswith((_UIDS, _GIDS, _GROUPS)) else []


_MAKING = {
    "x86_64": frozenset((83, 86, 88, 133, 258, 259, 265, 266)),
    "aarch64": frozenset((33, 34, 36, 37)),
}
"""System calls whose path must not be there: mkdir, link, symlink, mknod, and those that end with "at"
(arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)."""

_OPENING = {"x86_64": {2: 1, 257: 2}, "aarch64": {56: 2}}
"""open(2) and openat(2), and which of their arguments is the flags."""

_RENAMING = {"x86_64": 316, "aarch64": 276}
"""renameat2(2), whose fifth argument is the flags."""

_NOREPLACE = 1

_EXCLUSIVELY = os.O_CREAT | os.O_EXCL


def makes_exclusively(thread: int) -> bool:
    """Is a thread in a system call that makes something under a name that must not be there, as proc(5) tells
    (/proc/PID/syscall)? False where it does not. Blocks until the thread waits."""
    machine = os.uname().machine
    try:
        number, *arguments = (int(word, 0) for word in _syscall_of(thread))
        if number in _MAKING.get(machine, ()):
            return True
        if number == _RENAMING.get(machine):
            return bool(arguments[4] & _NOREPLACE)
        flags = _OPENING.get(machine, {}).get(number)
        return flags is not None and arguments[flags] & _EXCLUSIVELY == _EXCLUSIVELY
    except (OSError, ValueError, LookupError):
        return False


def _syscall_of(thread: int) -> list[bytes]:
    """The system call that a thread waits in, for us, or is just about to: number and arguments. Raises
    OSError."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with open(f"/proc/{thread}/syscall", "rb") as file:
            words = file.read().split()
        if words != [b"running"] or time.monotonic() > deadline:
            return words
        time.sleep(0.0001)
