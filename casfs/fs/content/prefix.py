"""The digests of a staged file, computed behind the back of its writer.

A writer that goes from the start to the end is followed by a job in a thread, on another core. What it has
been given to hash must not change any more; a change there makes the hash void, and sealing reads it all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import NamedTuple

from casfs.filestore.hashing import ALGORITHMS, Hasher, new_hasher
from casfs.fs.scheduler import Event, Scheduler
from casfs.types import Digest

log = logging.getLogger(__name__)

INLINE_HASH = 4 << 20
"""Bytes of a file that are hashed by whoever writes them, out of its request; the rest by the follower."""

FOLLOW_STEP = 4 << 20
"""Bytes that wait to be hashed before a job is started for them."""

PIECE = 1 << 20
"""Bytes a job reads at a time."""


class Hashes(NamedTuple):
    """Of one content: the digest under which it is kept, and others by their algorithms."""

    digest: Digest
    others: dict[str, bytes]


class _Lane:
    """One digest in the making. `done`: bytes that it has had. While a job runs, it belongs to that.

    `failed`: a job could not read what it was to hash; the digest will be none.
    """

    __slots__ = ("done", "failed", "finished", "hasher")

    def __init__(self, hasher: Hasher) -> None:
        self.hasher = hasher
        self.done = 0
        self.failed = False
        self.finished: Event | None = None

    def feed(self, fd: int, prefix: PrefixHash) -> None:
        """Hash up to the prefix's end, which may move on meanwhile. Raises OSError."""
        buffer = memoryview(bytearray(max(1, min(PIECE, prefix.end - self.done))))
        failed, self.failed = self.failed, True
        while self.done < prefix.end:
            count = os.preadv(fd, [buffer[: prefix.end - self.done]], self.done)
            if not count:
                return
            self.hasher.update(buffer[:count])
            self.done += count
        self.failed = failed


class PrefixHash:
    """The digests of the start of one staged file. Owned by the thread that runs the file system.

    `end`: the bytes before it are hashed, or jobs have been told to, or will be: they must not change.
    `filled`: those before it were written without a gap. Each digest has a job of its own: they take
    different times, and there may be cores for all. BLAKE3, which takes the least, is computed by who writes
    as well.
    """

    __slots__ = ("_blake3", "_others", "end", "filled")

    def __init__(self, data: bytes | bytearray | memoryview, algorithms: Iterable[str] = ()) -> None:
        self._blake3 = _Lane(new_hasher(data))
        self._blake3.done = self.end = self.filled = len(data)
        self._others = {name: _Lane(ALGORITHMS[name].new()) for name in algorithms}

    @property
    def running(self) -> bool:
        """Is a job of BLAKE3 under way?"""
        return self._blake3.finished is not None

    def written(self, offset: int, data: bytes | memoryview) -> None:
        """`data` was written there, not before `end`."""
        end = offset + len(data)
        if end <= INLINE_HASH and offset == self.end and not self.running:
            self._blake3.hasher.update(data)
            self._blake3.done = self.end = end
        if offset <= self.filled < end:
            self.filled = end

    def cut(self, size: int) -> None:
        """The file has that size now, which is not less than `end`."""
        self.filled = min(self.filled, size)

    @property
    def is_behind(self) -> bool:
        """Has enough been written that jobs should hash it?"""
        return self.filled - self.end >= (PIECE if self.running else FOLLOW_STEP)

    def follow(self, scheduler: Scheduler, fd: int) -> None:
        """Let jobs hash what is filled; nobody changes the file at this moment. Raises OSError (EMFILE)."""
        self.end = self.filled
        for lane in (self._blake3, *self._others.values()):
            if lane.finished is None:
                self._start(lane, scheduler, fd)

    def _start(self, lane: _Lane, scheduler: Scheduler, fd: int) -> None:
        """Start a job for one digest. Raises OSError (EMFILE)."""
        fd = os.dup(fd)  # the file's owner may close it, or use it again, meanwhile
        finished = lane.finished = scheduler.event()

        def job() -> None:
            try:
                lane.feed(fd, self)
            except OSError as error:
                log.info("hashing while a file is written: %s", error)
            finally:
                os.close(fd)

        def done() -> None:
            lane.finished = None
            finished.set()

        scheduler.background(job, done)

    async def complete(self, scheduler: Scheduler, fd: int, size: int, inline: int) -> Hashes | None:
        """The digests of the first `size` bytes, which nobody changes meanwhile.

        What the jobs have left is hashed in threads if it is more than `inline`. None when a job has failed.
        Raises OSError.
        """
        lanes = [self._blake3, *self._others.values()]
        self.end = size
        for lane in lanes[1:]:
            if lane.finished is None and lane.done < size:
                self._start(lane, scheduler, fd)
        for lane in lanes:
            while lane.finished is not None:
                await lane.finished.wait()
            if lane.failed:
                return None
            if lane.done >= size:
                continue
            if size - lane.done <= inline and lane is self._blake3:
                lane.feed(fd, self)
            else:
                await scheduler.run(lane.feed, fd, self)
        if any(lane.failed for lane in lanes):
            return None
        others = {name: lane.hasher.digest() for name, lane in self._others.items()}
        return Hashes(Digest(self._blake3.hasher.digest()), others)
