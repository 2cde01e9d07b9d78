"""The digest of a staged file, computed behind the back of its writer.

A writer that goes from the start to the end is followed by a job in a thread, on another core. What it has
been given to hash must not change any more; a change there makes the hash void, and sealing reads it all.
"""

from __future__ import annotations

import logging
import os

from casfs.filestore.hashing import new_hasher
from casfs.fs.scheduler import Event, Scheduler
from casfs.types import Digest

log = logging.getLogger(__name__)

INLINE_HASH = 4 << 20
"""Bytes of a file that are hashed by whoever writes them, out of its request; the rest by the follower."""

FOLLOW_STEP = 4 << 20
"""Bytes that wait to be hashed before a job is started for them."""

PIECE = 1 << 20
"""Bytes a job reads at a time."""


class PrefixHash:
    """The digest of the start of one staged file. Owned by the thread that runs the file system.

    `end`: the bytes before it are hashed, or a job has been told to: they must not change. `filled`: those
    before it were written without a gap. While a job runs, `_done` and the hasher belong to it.
    """

    __slots__ = ("_done", "_failed", "_finished", "_hasher", "end", "filled", "running")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._hasher = new_hasher(data)
        self._done = self.end = self.filled = len(data)
        self._failed = False
        self._finished: Event | None = None
        self.running = False

    def written(self, offset: int, data: bytes | memoryview) -> None:
        """`data` was written there, not before `end`."""
        end = offset + len(data)
        if end <= INLINE_HASH and offset == self.end and not self.running:
            self._hasher.update(data)
            self._done = self.end = end
        if offset <= self.filled < end:
            self.filled = end

    def cut(self, size: int) -> None:
        """The file has that size now, which is not less than `end`."""
        self.filled = min(self.filled, size)

    @property
    def is_behind(self) -> bool:
        """Has enough been written that a job should hash it?"""
        return self.filled - self.end >= (PIECE if self.running else FOLLOW_STEP)

    def follow(self, scheduler: Scheduler, fd: int) -> None:
        """Let a job hash what is filled; nobody changes the file at this moment. Raises OSError (EMFILE)."""
        if self.running:
            self.end = self.filled
            return
        fd = os.dup(fd)  # the file's owner may close it, or use it again, meanwhile
        self.end = self.filled
        self.running = True
        self._finished = scheduler.event()

        def done() -> None:
            self.running = False
            assert self._finished is not None
            self._finished.set()

        scheduler.background(lambda: self._job(fd), done)

    def _job(self, fd: int) -> None:
        try:
            self._feed(fd)
        except OSError as error:
            log.info("hashing while a file is written: %s", error)
        finally:
            os.close(fd)

    def _feed(self, fd: int) -> None:
        """Hash up to `end`, which may move on meanwhile. Raises OSError."""
        buffer = memoryview(bytearray(min(PIECE, self.end - self._done)))
        failed, self._failed = self._failed, True
        while self._done < self.end:
            count = os.preadv(fd, [buffer[: self.end - self._done]], self._done)
            if not count:
                return
            self._hasher.update(buffer[:count])
            self._done += count
        self._failed = failed

    async def complete(self, scheduler: Scheduler, fd: int, size: int, inline: int) -> Digest | None:
        """The digest of the first `size` bytes, which nobody changes meanwhile.

        What the follower has left is hashed in a thread if it is more than `inline`. None when a job has
        failed. Raises OSError.
        """
        if self.running:
            assert self._finished is not None
            await self._finished.wait()
        self.end = size
        if not self._failed and self._done < size:
            if size - self._done <= inline:
                self._feed(fd)
            else:
                await scheduler.run(self._feed, fd)
        return None if self._failed else Digest(self._hasher.digest())
