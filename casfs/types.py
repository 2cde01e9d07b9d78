"""Frozen values that cross the floors of the house."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Digest = NewType("Digest", bytes)
"""BLAKE3-256 of a content, 32 raw bytes. Its text form is 64 lower-case hex characters."""

DIGEST_SIZE = 32
"""Bytes in a `Digest`."""

ROOT_INO = 1
"""Inode number of the root directory, FUSE_ROOT_ID of linux/fuse.h."""

HIGHEST_NUMBER = 1 << 62
"""Numbers of inodes and blobs are below it: a row with a higher one was made by nobody who counts, and leaves
no numbers for others."""

COOKIE_BITS = 48
"""Cookies are below 1 << COOKIE_BITS; of names that casfs keeps they have more (schema.sql, `derived`)."""


@dataclass(frozen=True, slots=True)
class Room:
    """Space on the file system that holds the store, in bytes, and its inodes (statvfs(3)).

    `files_total` is 0 where there is no limit to them.
    """

    total: int
    free: int
    available: int
    files_total: int = 0
    files_available: int = 1 << 62
