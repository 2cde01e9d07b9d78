"""POSIX access control lists as Linux keeps them in extended attributes.

Format (include/uapi/linux/posix_acl_xattr.h): a little-endian u32 version, 2, then for each entry u16 tag,
u16 permissions, u32 id. Rules: acl(5). The kernel evaluates the lists; a file system keeps list and mode in
step, and hands default lists down to what is created.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from casfs.errors import FsError

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = 2
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ONCE = (_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER)
_NO_ID = 0xFFFFFFFF


class Entry(NamedTuple):
    tag: int
    perm: int
    id: int


def decode(value: bytes) -> list[Entry]:
    """The entries of a list. Raises FsError EINVAL for one that acl(5) calls invalid."""
    if len(value) < 4 or (len(value) - 4) % _ENTRY.size or value[:4] != struct.pack("<I", _VERSION):
        raise FsError(errno.EINVAL)
    entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(value[4:])]
    tags = [entry.tag for entry in entries]
    if (
        any(entry.perm & ~7 for entry in entries)
        or any(tags.count(tag) > 1 for tag in _ONCE)
        or any(tag not in (*_ONCE, _USER, _GROUP) for tag in tags)
        or (entries and any(tag not in tags for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)))
        or (any(tag in (_USER, _GROUP) for tag in tags) and _MASK not in tags)
    ):
        raise FsError(errno.EINVAL)
    return entries


def encode(entries: list[Entry]) -> bytes:
    return struct.pack("<I", _VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def mode_of(entries: list[Entry]) -> int:
    """The nine permission bits that a list stands for."""
    perm = {entry.tag: entry.perm for entry in entries if entry.tag in _ONCE}
    return perm[_USER_OBJ] << 6 | perm.get(_MASK, perm[_GROUP_OBJ]) << 3 | perm[_OTHER]


def is_minimal(entries: list[Entry]) -> bool:
    """Does the list say no more than the mode bits?"""
    return all(entry.tag in (_USER_OBJ, _GROUP_OBJ, _OTHER) for entry in entries)


def with_mode(entries: list[Entry], mode: int) -> list[Entry]:
    """The list after chmod(2)."""
    group_class = _MASK if any(entry.tag == _MASK for entry in entries) else _GROUP_OBJ
    perm = {_USER_OBJ: mode >> 6 & 7, group_class: mode >> 3 & 7, _OTHER: mode & 7}
    return [entry._replace(perm=perm.get(entry.tag, entry.perm)) for entry in entries]


def inherit(default: list[Entry], mode: int) -> tuple[list[Entry], int]:
    """Access list and permission bits of a file made with `mode` in a directory with a default list."""
    entries = with_mode(default, mode & mode_of(default))
    return entries, mode & ~0o777 | mode_of(entries)
