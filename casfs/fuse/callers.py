"""Who has asked: what /proc says of the program whose request is served."""

from __future__ import annotations

import os
from contextvars import ContextVar

CALLER: ContextVar[int] = ContextVar("caller", default=0)
"""The thread whose request a task serves, as it is numbered where the daemon is; 0 where it is not known."""

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
