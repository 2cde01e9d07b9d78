"""The content of an open file: sealed in a blob, or staged in memory or in a file."""

from __future__ import annotations

import os

from blake3 import blake3

from casfs.filestore.staging import StagedFile
from casfs.fs.inodes import Inode
from casfs.fs.scheduler import Mutex, Scheduler

MEMORY_LIMIT = 256 << 10
"""Bytes up to which staged content stays in memory until it is sealed."""


class Content:
    """What the handles of one inode share. Exists while the inode is open, or not sealed yet.

    Sealed: neither `buffer` nor `staged`; reads come from `blob_fd`, opened at the first one.
    Staged: one of the two. `dirty` until it is sealed; `row_size` is the size the row shows meanwhile.
    `backing`: the id of the file the kernel reads by itself, 0 for none (passthrough.py); it is the file of
    `backing_blob`, or, when that is 0, the staged file.
    `mutex` is held by who changes the content and has to wait meanwhile, for a thread or a commit.
    """

    __slots__ = (
        "backing",
        "backing_blob",
        "blob_fd",
        "buffer",
        "dirty",
        "dirty_since",
        "handles",
        "hashed",
        "hasher",
        "inode",
        "mutex",
        "preallocated",
        "row_size",
        "scheduler",
        "staged",
        "writers",
    )

    def __init__(self, inode: Inode, scheduler: Scheduler) -> None:
        self.inode = inode
        self.mutex = Mutex(scheduler)
        self.scheduler = scheduler
        self.handles = 0
        self.writers = 0
        self.dirty = False
        self.dirty_since = 0.0
        self.row_size = inode.size
        self.blob_fd = -1
        self.buffer: bytearray | None = None
        self.staged: StagedFile | None = None
        self.hasher: blake3 | None = None
        self.hashed = 0
        self.preallocated = False
        self.backing = 0
        self.backing_blob = 0

    @property
    def is_staged(self) -> bool:
        return self.buffer is not None or self.staged is not None

    def mark_dirty(self) -> None:
        """The content is about to differ from what the row says."""
        if not self.dirty:
            self.dirty = True
            self.dirty_since = self.scheduler.now()
            self.row_size = self.inode.size

    def write(self, offset: int, data: bytes) -> int:
        """Write to staged content and follow a sequential writer with the hash.

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
            written = os.pwrite(self.staged.fd, data, offset)
            if self.hasher is not None:
                if offset == self.hashed:
                    self.hasher.update(data if written == len(data) else data[:written])
                    self.hashed += written
                else:
                    self.hasher = None
        self.inode.size = max(self.inode.size, offset + written)
        return written

    def truncate(self, size: int) -> None:
        """Set the size of staged content; what is new reads as zeros. Raises OSError (EFBIG)."""
        if self.buffer is not None:
            if size < len(self.buffer):
                del self.buffer[size:]
            else:
                self.buffer.extend(bytes(size - len(self.buffer)))
        else:
            assert self.staged is not None
            os.ftruncate(self.staged.fd, size)
            if size < self.hashed or size > self.inode.size:
                self.hasher = None
        self.inode.size = size

    def allocated(self) -> int:
        """Bytes on disk, whole 512-byte units: holes do not count, nor what is allocated ahead."""
        whole = self.inode.size + 511 & ~511
        if self.staged is not None:
            return min(whole, os.fstat(self.staged.fd).st_blocks * 512)
        return whole if self.buffer is not None else self.inode.allocated

    def close_blob(self) -> None:
        if self.blob_fd >= 0:
            os.close(self.blob_fd)
            self.blob_fd = -1


class Handle:
    """One open(2) of a file."""

    __slots__ = ("content", "flushed", "inherited", "inode", "passthrough", "uid", "writable", "wrote")

    def __init__(self, inode: Inode, content: Content, writable: bool, uid: int) -> None:
        self.inode = inode
        self.content = content
        self.writable = writable
        self.uid = uid
        self.wrote = False
        self.flushed = False
        self.inherited = False
        self.passthrough = False
