"""The digests of a staged file, computed behind the back of its writer.

A writer that goes from the start to the end is followed by a job in a thread, on another core. What it has
been given to hash must not change any more; a change there makes the hash void, and sealing reads it all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Set

from casfs.filestore.hashing import ALGORITHMS, Hasher, new_hasher
from casfs.fs.scheduler import Event, Scheduler
from casfs.types import Digest

log = logging.getLogger(__name__)

INLINE_HASH = 4 << 20
"""Bytes of a file that are hashed by whoever writes them, out of its request; the rest by the follower."""

FOLLOW_STEP = 4 << 20
"""Bytes that wait to be hashed before a job is started for them."""

OTHERS_BEHIND = 512 << 20
"""Bytes that further digests are behind before their jobs are started: they take the processor from the
writer, who has it all while so much is still in the page cache."""

PIECE = 1 << 20
"""Bytes a job reads at a time."""


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
    as well, and is all that sealing waits for: the others may come when the file is a blob (`finish`).
    `_fd`: the file, for that; `_ended`: who is told then.
    """

    __slots__ = ("_blake3", "_ended", "_fd", "_others", "end", "filled")

    def __init__(self, data: bytes | bytearray | memoryview, algorithms: Iterable[str] = ()) -> None:
        self._blake3 = _Lane(new_hasher(data))
        self._blake3.done = self.end = self.filled = len(data)
        self._others = {name: _Lane(ALGORITHMS[name].new()) for name in algorithms}
        self._fd = -1
        self._ended: Callable[[dict[str, bytes]], object] | None = None

    @property
    def algorithms(self) -> Set[str]:
        """Those of the further digests."""
        return self._others.keys()

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
        if not self.running:
            self._start(self._blake3, scheduler, fd)
        for lane in self._others.values():
            if lane.finished is None and self.end - lane.done >= OTHERS_BEHIND:
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
            if self._ended is not None:
                self._go_on(scheduler)

        scheduler.background(job, done)

    async def complete(self, scheduler: Scheduler, fd: int, size: int, inline: int) -> Digest | None:
        """The BLAKE3 digest of the first `size` bytes, which nobody changes any more.

        What its job has left is hashed in a thread if it is more than `inline`. None when a job has failed.
        Raises OSError.
        """
        self.end = size
        await self._complete(self._blake3, scheduler, fd, inline)
        return None if self._blake3.failed else Digest(self._blake3.hasher.digest())

    async def others(self, scheduler: Scheduler, fd: int) -> dict[str, bytes]:
        """Further digests, after `complete`, but for those whose jobs have failed. Raises OSError."""
        for lane in self._others.values():
            await self._complete(lane, scheduler, fd, 0)
        return self._values()

    async def _complete(self, lane: _Lane, scheduler: Scheduler, fd: int, inline: int) -> None:
        while lane.finished is not None:
            await lane.finished.wait()
        if lane.failed or lane.done >= self.end:
            return
        if self.end - lane.done <= inline:
            lane.feed(fd, self)
        else:
            await scheduler.run(lane.feed, fd, self)

    def _values(self) -> dict[str, bytes]:
        lanes = self._others.items()
        return {
            name: lane.hasher.digest() for name, lane in lanes if not lane.failed and lane.done == self.end
        }

    # When the file is a blob

    def hold(self, fd: int) -> bool:
        """Keep the file open for `finish` or `abandon`, after `complete`; False where that cannot be."""
        try:
            self._fd = os.dup(fd)
        except OSError as error:
            log.info("further digests are left to be computed later: %s", error)
        return self._fd >= 0

    def abandon(self) -> None:
        """The file goes: nobody wants the further digests any more."""
        os.close(self._fd)
        self._fd, self.end = -1, 0

    def finish(self, scheduler: Scheduler, ended: Callable[[dict[str, bytes]], object]) -> None:
        """Have jobs compute what is left of the further digests; `ended` is called with those that could be,
        now or later."""
        self._ended = ended
        self._go_on(scheduler)

    def _go_on(self, scheduler: Scheduler) -> None:
        """Start the jobs that are not under way and have something left, or say that there are none."""
        for lane in self._others.values():
            if lane.finished is None and lane.done < self.end and not lane.failed:
                try:
                    self._start(lane, scheduler, self._fd)
                except OSError as error:
                    log.info("a digest is left to be computed later: %s", error)
                    lane.failed = True
        if self._ended is not None and all(lane.finished is None for lane in self._others.values()):
            ended, self._ended = self._ended, None
            os.close(self._fd)
            self._fd = -1
            ended(self._values())
