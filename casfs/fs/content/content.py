"""The content of an open file: sealed in a blob, or staged in memory or in a file."""

from __future__ import annotations

import os
import time

from casfs.filestore.staging import StagedFile
from casfs.fs.content.prefix import PrefixHash
from casfs.fs.inodes import Inode
from casfs.fs.scheduler import Mutex, Scheduler

MEMORY_LIMIT = 256 << 10
"""Bytes up to which staged content stays in memory until it is sealed."""


MAX_SIZE = (1 << 63) - 1
"""Bytes a file may have, as everywhere in Linux (MAX_LFS_FILESIZE, linux/fs.h)."""


class Content:
    """What the handles of one inode share. Exists while the inode is open, or not sealed yet.

    Sealed: neither `buffer` nor `staged`; reads come from `blob_fd`, opened at the first one (blobs.py).
    Staged (staged.py): one of the two. `dirty` until it is sealed, or a row names its staged file; `row_size`
    is the size the row shows meanwhile; `prefix`, if there is one, is the hash of the staged file so far.
    `rewritten`: it was sealed before it became dirty, so that it has to rest first (resting.py); `written`:
    bytes since then, or since a row named them last; `changed`: there are some that no row tells of.
    `closed_size`: bytes it had at its last close, less when it was cut since; `written_again`: it has changed
    since then. Both as long as it is due (Sealing.due).
    `broken`: the errno for who writes, closes or syncs it, since it can be neither sealed nor written, as was
    tried `failures` times; 0 if it can be (settling.py).
    `backing`: the id of the file the kernel reads by itself, 0 for none (passthrough.py); it is the file of
    `backing_blob`, or, when that is 0, the staged file, whose time after our last write is `mtime_below`.
    `handles`: how many there are, from OpenContents.open to Files.release; `writers`: those that may write;
    `mappers`: those that may have it mapped and written to in the kernel's page cache, of which nothing is
    known here before the kernel writes it back.
    `mutex` is held by who changes the content and has to wait meanwhile, for a thread or a commit.
    """

    __slots__ = (
        "backing",
        "backing_blob",
        "blob_fd",
        "broken",
        "buffer",
        "changed",
        "closed_size",
        "dirty",
        "dirty_since",
        "failures",
        "handles",
        "inode",
        "mappers",
        "mtime_below",
        "mutex",
        "preallocated",
        "prefix",
        "rewritten",
        "row_size",
        "scheduler",
        "staged",
        "writers",
        "written",
        "written_again",
    )

    def __init__(self, inode: Inode, scheduler: Scheduler) -> None:
        self.inode = inode
        self.mutex = Mutex(scheduler)
        self.scheduler = scheduler
        self.handles = 0
        self.writers = 0
        self.mappers = 0
        self.broken = 0
        self.failures = 0
        self.dirty = False
        self.changed = False
        self.closed_size = 0
        self.written_again = False
        self.rewritten = False
        self.written = 0
        self.dirty_since = 0.0
        self.row_size = inode.size
        self.blob_fd = -1
        self.buffer: bytearray | None = None
        self.staged: StagedFile | None = None
        self.prefix: PrefixHash | None = None
        self.preallocated = False
        self.backing = 0
        self.backing_blob = 0
        self.mtime_below = 0

    @property
    def is_staged(self) -> bool:
        return self.buffer is not None or self.staged is not None

    @property
    def is_busy(self) -> bool:
        return self.mutex.busy

    @property
    def is_lent(self) -> bool:
        """May programs have the staged file mapped (filestore/staging.py)?"""
        return self.staged is not None and self.staged.is_lent

    def mark_dirty(self) -> None:
        """The content is about to differ from what the row says."""
        if not self.dirty:
            self.dirty = True
            self.dirty_since = self.scheduler.now()
            self.row_size = self.inode.size

    def begin_change(self) -> None:
        """It is about to be written: what was closed and is written again must not be sealed half (I5)."""
        self.changed = self.written_again = True
        if not self.dirty:
            self.rewritten = self.inode.blob is not None or self.inode.staged is not None
            self.mark_dirty()

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write to staged content.

        Gives the bytes written, which are fewer on a disk that fills up. Raises OSError for none at all.
        """
        written = len(data)
        if self.buffer is not None:
            buffer = self.buffer
            if offset > len(buffer):
                buffer.extend(bytes(offset - len(buffer)))
            buffer[offset : offset + written] = data
        else:
            assert self.staged is not None
            self.will_change(offset)
            written = os.pwrite(self.staged.fd, data, offset)
            if self.backing:
                self.mtime_below = os.fstat(self.staged.fd).st_mtime_ns
            if self.prefix is not None:
                self.prefix.written(offset, data if written == len(data) else data[:written])
        self.written += written
        self.inode.size = max(self.inode.size, offset + written)
        return written

    def will_change(self, offset: int) -> None:
        """Bytes of the staged file from `offset` on are about to change."""
        if self.prefix is not None and offset < self.prefix.end:
            self.prefix = None

    def truncate(self, size: int) -> None:
        """Set the size of staged content; what is new reads as zeros. Raises OSError (EFBIG)."""
        if self.buffer is not None:
            if size < len(self.buffer):
                del self.buffer[size:]
            else:
                self.buffer.extend(bytes(size - len(self.buffer)))
        else:
            assert self.staged is not None
            self.will_change(size)
            os.ftruncate(self.staged.fd, size)
            if self.backing:
                self.mtime_below = os.fstat(self.staged.fd).st_mtime_ns
            if self.prefix is not None:
                self.prefix.cut(size)
        self.closed_size = min(self.closed_size, size)
        self.inode.size = size

    def allocated(self) -> int:
        """Bytes on disk, whole 512-byte units: holes do not count, nor what is allocated ahead."""
        whole = self.inode.size + 511 & ~511
        if self.staged is not None:
            return min(whole, os.fstat(self.staged.fd).st_blocks * 512)
        return whole if self.buffer is not None else self.inode.allocated

    def observe(self) -> tuple[int, bool]:
        """(`allocated`, may the kernel keep the attributes?), with times that a mapping has moved.

        The kernel writes to a backing file by itself through a shared mapping. Holes that a mapping may have
        filled are none: cp(1) and tar(1) would leave out what is in them.
        """
        if not self.backing or self.staged is None:
            allocated, whole = self.allocated(), min(self.inode.size + 511, MAX_SIZE) & ~511
            return (whole, False) if self.mappers and allocated < whole else (allocated, True)
        below = os.fstat(self.staged.fd).st_mtime_ns
        if below != self.mtime_below:
            self.mtime_below = below
            self.inode.mtime = self.inode.ctime = time.time_ns()
        return self.allocated(), False

    def close_blob(self) -> None:
        if self.blob_fd >= 0:
            os.close(self.blob_fd)
            self.blob_fd = -1


class Handle:
    """One open(2) of a file.

    `maps`: one of `content.mappers`. `syncs`: opened with O_SYNC or O_DSYNC. `direct`: the kernel writes past
    its page cache, and then leaves it to the file system to make durable what is written with one of them, or
    with RWF_SYNC or RWF_DSYNC. `appends`: what is written goes to the end of the file, wherever the
    kernel takes that to be.
    """

    __slots__ = (
        "appends",
        "content",
        "direct",
        "flushed",
        "inherited",
        "inode",
        "maps",
        "passthrough",
        "syncs",
        "uid",
        "writable",
        "wrote",
    )

    def __init__(self, inode: Inode, content: Content, writable: bool, uid: int) -> None:
        self.inode = inode
        self.content = content
        self.writable = writable
        self.uid = uid
        self.wrote = False
        self.flushed = False
        self.inherited = False
        self.passthrough = False
        self.maps = False
        self.syncs = False
        self.direct = False
        self.appends = False
