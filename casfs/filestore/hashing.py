"""Digests of contents: the one module that knows which algorithm they are made with."""

from __future__ import annotations

import errno
import os
from typing import Protocol

from blake3 import blake3

from casfs.types import Digest

HASH_CHUNK = 1 << 20
"""Bytes read at a time."""

Bytes = bytes | bytearray | memoryview


class Hasher(Protocol):
    """A digest in the making, for one thread at a time; long updates release the GIL."""

    def update(self, data: Bytes, /) -> object:
        """Go on with `data`."""

    def digest(self) -> bytes:
        """The digest of everything until now; more may follow."""


def new_hasher(data: Bytes = b"") -> Hasher:
    """One that has had `data`."""
    return blake3(data)


def hash_bytes(data: bytes | bytearray) -> Digest:
    """The digest of a content in memory."""
    return Digest(blake3(data).digest())


def hash_descriptor(fd: int, size: int) -> Digest:
    """The digest of the first `size` bytes of a descriptor, wherever its offset is. Blocks.

    Raises OSError, EIO when the file is shorter.
    """
    hasher = blake3()
    position = 0
    while position < size:
        chunk = os.pread(fd, min(HASH_CHUNK, size - position), position)
        if not chunk:
            raise OSError(errno.EIO, f"content ends after {position} of {size} bytes")
        hasher.update(chunk)
        position += len(chunk)
    return Digest(hasher.digest())
