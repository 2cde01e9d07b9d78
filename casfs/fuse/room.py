"""What statfs(2) says: the room on the disk of the store, or that of a quota."""

from __future__ import annotations

import struct
from typing import NamedTuple

from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode

_KSTATFS = struct.Struct("=5Q4I24x")
"""struct fuse_kstatfs of linux/fuse.h, up to its padding and with it."""

NAME_LIMIT = 255


class Room(NamedTuple):
    """As the fields of statvfs(3)."""

    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    favail: int
    bsize: int
    frsize: int

    def packed(self) -> bytes:
        """As the kernel has it, to which free inodes are those that are available."""
        return _KSTATFS.pack(*self[:4], self.ffree, self.bsize, NAME_LIMIT, self.frsize, 0)


def room_of(fs: FileSystem, inode: Inode | None, step: int) -> Room:
    """What the store's file system says, less what is spoken for: what may be written has to fit. Where
    `inode` lies in a repository with a quota that is its size, as of XFS's projects, of which no more is free
    than on the disk.

    `step`: free space is shown in steps of so many bytes, and of files nothing (as btrfs): one file more or
    less, or a few bytes, would tell whether a content is in the store. 0: as it is.
    """
    below = fs.store.directory.statvfs()
    left = fs.store.filestore.space.left()
    unit = below.f_frsize
    bavail = max(0, left.bytes) // unit
    bfree = max(bavail, below.f_bfree - (below.f_bavail - bavail))
    favail = max(0, left.files) if below.f_files else 0
    ffree = max(favail, below.f_ffree - (below.f_favail - favail))
    room = Room(below.f_blocks, bfree, bavail, below.f_files, ffree, favail, below.f_bsize, unit)
    if step:
        bfree, bavail = (free * unit // step * step // unit for free in (bfree, bavail))
        room = room._replace(bfree=bfree, bavail=bavail, files=0, ffree=0, favail=0)
    quota = None if inode is None else fs.policy.room(inode)
    if quota is not None and quota.bytes:
        free = min(quota.bytes_left // unit, room.bavail)
        room = room._replace(blocks=-(-quota.bytes // unit), bfree=free, bavail=free)
    if quota is not None and quota.files:
        free = min(quota.files_left, room.favail) if room.files else quota.files_left
        room = room._replace(files=quota.files, ffree=free, favail=free)
    return room
