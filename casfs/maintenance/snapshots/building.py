"""What a restore makes anew: inodes like those of the snapshot, and trees of them, before they get names.

None of it can be seen, and what a crash leaves is removed at the next start, as any inode without a name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter

from casfs.errors import FsError
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.listing import is_name
from casfs.fs.recovery import remove_unlinked
from casfs.namespace.differences import Difference, Spot
from casfs.namespace.inodes import InodeRow
from casfs.namespace.namespace import Namespace

STEP = 32
"""Inodes that are made before other requests are served: about 2 ms."""

LONGEST_TARGET = 4096
"""Of a symbolic link, with the byte that ends it: PATH_MAX in linux/limits.h."""

_KINDS = frozenset({stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})


class Builder:
    """Of one restore. `rows`: of the snapshot. On the thread that runs the file system.

    `directories`: those that were made, by the number that the snapshot has them under; `made`: other things
    that have several names there. `roots`: everything that was made and is in no directory that was.
    """

    def __init__(self, fs: FileSystem, rows: Namespace) -> None:
        self._fs = fs
        self.rows = rows
        self.directories: dict[int, Inode] = {}
        self.made: dict[int, Inode] = {}
        self.roots: list[Inode] = []
        self._below: Counter[int] = Counter()

    def row(self, spot: Spot) -> InodeRow:
        """What the snapshot has. Raises DatabaseError."""
        row = self.rows.inodes.get(spot.ino)
        if row is None:
            raise FsError(errno.EIO, f"the snapshot has no inode {spot.ino}")
        return InodeRow(*row)

    def attributes(self, spot: Spot) -> dict[bytes, bytes]:
        return self.rows.xattrs.of(spot.ino)

    async def build(self, wanted: list[Difference]) -> list[tuple[Difference, Inode]]:
        """Make them, directories before what is in them. Gives those that lie in no directory that was
        made, for `attach`. Raises OSError; `remove` removes what there is then."""
        fs = self._fs
        tops = []
        for number, each in enumerate(wanted):
            assert each.old is not None
            if number % STEP == 0:
                if fs.group.is_long or fs.group.must_wait:
                    await fs.group.durable()
                await fs.scheduler.pause()
            await fs.group.begin()
            # Without a wait: a commit must not find an inode that is half made.
            inode = self.made.get(each.old.ino) or self._make(each)
            above = self.directories.get(each.old.parent)
            if above is None:
                tops.append((each, inode))
            else:
                self._put_below(above, each.old.name, inode)
        return tops

    def _make(self, wanted: Difference) -> Inode:
        fs, spot = self._fs, wanted.old
        assert spot is not None
        if not is_name(spot.name):
            raise FsError(errno.EIO, "the snapshot has a name that is none")
        row, attributes = self.row(spot), self.attributes(spot)
        _check_row(row, wanted.path)
        fs.store.filestore.space.claim_rows(1024 + sum(map(len, attributes.values())))
        blob = None if row.blob_id is None else self._blob(row.blob_id, row.size, wanted.path)
        inode = fs.inodes.create(row.mode, row.uid, row.gid, row.rdev, row.target)
        inode.nlink = 0
        self.roots.append(inode)
        inode.size, inode.allocated = row.size, row.allocated
        inode.atime, inode.mtime, inode.btime = row.atime_ns, row.mtime_ns, row.btime_ns
        fs.inodes.set_blob(inode, blob)
        for name, value in attributes.items():
            fs.store.namespace.xattrs.set(inode.ino, name, value)
        inode.xattrs = attributes
        fs.inodes.mark(inode)
        fs.group.count(1 + sum(map(len, attributes.values())) // 4096)
        if spot.is_directory:
            self.directories[spot.ino] = inode
        elif row.nlink > 1:
            self.made[spot.ino] = inode
        return inode

    def _blob(self, number: int, size: int, path: bytes) -> int:
        """Of the content that has that number in the snapshot, of `size` bytes. It is there, row and file: in
        this transaction, nobody collects it (I1)."""
        store = self._fs.store
        digest = self.rows.blobs.digest(number)
        blob = None if digest is None else store.namespace.blobs.find(digest)
        there = None if digest is None or blob is None else store.filestore.blobs.size(digest)
        if blob is None or there is None:
            raise FsError(errno.EIO, f"{os.fsdecode(path)}: its content is not there any more")
        if there != size:  # whoever has written the snapshot's database (I9)
            raise FsError(
                errno.EIO, f"{os.fsdecode(path)}: its content has {there} bytes, not the {size} of its inode"
            )
        return blob

    def _put_below(self, above: Inode, name: bytes, inode: Inode) -> None:
        self._fs.directories.add_below(above, name, inode)
        if inode.is_directory:
            inode.nlink = 2
            self._below[above.ino] += 1
            if above.nlink:
                above.nlink += 1
                self._fs.inodes.mark(above)
        else:
            inode.nlink += 1
        self._fs.inodes.mark(inode)
        if self.roots and self.roots[-1] is inode:
            self.roots.pop()

    def links(self, inode: Inode) -> int:
        """What link count something that was made has when it gets one more name."""
        return 2 + self._below[inode.ino] if inode.is_directory else inode.nlink + 1

    async def remove(self) -> None:
        """What was made and has no name goes. Raises OSError: then it goes at the next start."""
        fs = self._fs
        gone = [inode.ino for inode in self.roots if not inode.nlink]
        fs.directories.unlinked.difference_update(gone)
        await remove_unlinked(fs.inodes, fs.group, fs.contents, fs.directories, gone)


def _check_row(row: InodeRow, path: bytes) -> None:
    """Whoever has written the snapshot's database writes what he likes (I9). Raises FsError EIO."""
    has_content = row.blob_id is not None
    if row.kind == stat.S_IFREG:
        fits = has_content == bool(row.size)
    elif row.kind == stat.S_IFLNK:
        target = row.target or b""
        fits = not has_content and 0 < len(target) < LONGEST_TARGET and b"\0" not in target
    else:
        fits = not has_content and row.kind in _KINDS
    if not fits:
        raise FsError(errno.EIO, f"{os.fsdecode(path)}: the snapshot has a row of it that is none")
