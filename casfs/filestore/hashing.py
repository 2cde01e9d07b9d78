"""Digests of contents: the one module that knows which algorithms they are made with.

BLAKE3 is the one under which a content is kept. Others may be kept beside it, for who asks by them.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, Protocol

from blake3 import blake3
from crc32c import CRC32CHash

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


class Algorithm(NamedTuple):
    """One of ALGORITHMS: `size` is bytes of a digest."""

    size: int
    new: Callable[[], Hasher]


def _library(name: str) -> Callable[[], Hasher]:
    return partial(hashlib.new, name, usedforsecurity=False)


ALGORITHMS = {
    "sha256": Algorithm(32, _library("sha256")),
    "sha1": Algorithm(20, _library("sha1")),
    "md5": Algorithm(16, _library("md5")),
    "sha512": Algorithm(64, _library("sha512")),
    "crc32c": Algorithm(4, CRC32CHash),
}
"""Those that may be kept beside BLAKE3."""


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
    return hash_all(fd, size, ())[0]


def other_digests(data: Bytes, algorithms: Iterable[str]) -> dict[str, bytes]:
    """The digests of a content in memory, by algorithm."""
    digests = {}
    for algorithm in algorithms:
        hasher = ALGORITHMS[algorithm].new()
        hasher.update(data)
        digests[algorithm] = hasher.digest()
    return digests


def hash_all(fd: int, size: int, algorithms: Iterable[str]) -> tuple[Digest, dict[str, bytes]]:
    """As `hash_descriptor`, with further digests of the same bytes."""
    blake = blake3()
    others = {algorithm: ALGORITHMS[algorithm].new() for algorithm in algorithms}
    hashers: list[Hasher] = [blake, *others.values()]
    position = 0
    while position < size:
        chunk = os.pread(fd, min(HASH_CHUNK, size - position), position)
        if not chunk:
            raise OSError(errno.EIO, f"content ends after {position} of {size} bytes")
        for hasher in hashers:
            hasher.update(chunk)
        position += len(chunk)
    return Digest(blake.digest()), {name: hasher.digest() for name, hasher in others.items()}
