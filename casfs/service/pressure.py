"""Room on a disk that fills up: what nobody needs is given back before anybody is refused.

When little room is left, or a request was refused for want of it, orphans go at once, the oldest first,
however young they are; if that is not enough, the trash, the oldest first. What a pin holds stays. A request
that was refused waits for that, and is tried once more (fuse/verbs.py).

Removing takes room too, for the log: the reserve of space.py, and where others have taken that,
what filestore/spare.py holds.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
from dataclasses import asdict, dataclass
from typing import Any

import trio

from casfs.errors import CasfsError
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import Event
from casfs.maintenance.collect.mounted import collect_oldest
from casfs.namespace.collecting import Amount
from casfs.service.ending import Ending
from casfs.service.trash import TrashService
from casfs.space import NO_LIMIT
from casfs.store import Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often it looks at the disk when nobody asks."""

RELIEF_SECONDS = 5.0
"""So long a refused request waits at the most."""

ENOUGH = 1.25
"""This many times what counts as low is free when it stops."""

FORGET_SECONDS = 0.02
FORGET_LOOKS = 5
"""How long, and how often, to wait for the kernel to release what was removed just now."""

TRASH_STEP = 64
"""Files that leave the trash at a time."""

EVER = 1 << 62
"""Later than any orphan, and more bytes than any disk has."""


@dataclass
class Counts:
    """Since the mount. `requests_waited` for room; `requests_refused` got none."""

    times_low: int = 0
    blobs_removed: int = 0
    removed_bytes: int = 0
    trash_files_removed: int = 0
    requests_waited: int = 0
    requests_refused: int = 0


class _Waiters:
    """The requests that wait for one round."""

    def __init__(self, event: Event, removed: int) -> None:
        self.event = event
        self.removed_before = removed
        self.made_room = False


class Pressure:
    """Runs on the event loop's thread. `low_percent`: of the disk, below which it begins."""

    def __init__(self, fs: FileSystem, trash: TrashService, low_percent: float) -> None:
        self._fs = fs
        self._trash = trash
        self._space = fs.store.filestore.space
        self._low_percent = low_percent
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._waiters: _Waiters | None = None
        self._vain: object = None
        self._logged = False
        self._ending = Ending(lambda: self._wake_waiters(always=True))
        self.counts = Counts()
        self._space.is_low = self._woken
        self._space.low = self._lows()[0] - self._space.reserve

    def _woken(self) -> None:
        self._wake.set()

    def state(self) -> dict[str, Any]:
        """For `casfs status`. `left_bytes` is what `df` shows as available."""
        try:
            left = self._space.left()
            room: dict[str, Any] = {
                "left_bytes": max(0, left.bytes),
                "left_inodes": None if left.files > NO_LIMIT // 2 else max(0, left.files),
                "low": self._is_low(),
            }
        except OSError as error:  # the disk does not answer
            room = {"error": error.strerror or str(error)}
        return room | asdict(self.counts)

    async def relieve(self) -> bool:
        """Wait until there is more room, or there is none to be had: was any made?"""
        nursery = self._nursery
        if nursery is None or self._ending.begun or self._fs.group.failed or self._vain == self._mark():
            self.counts.requests_refused += 1
            return False
        if self._waiters is None:
            self._waiters = _Waiters(self._fs.scheduler.event(), self._removed)
            nursery.start_soon(self._limit, self._waiters)
        waiters = self._waiters
        self.counts.requests_waited += 1
        self._wake.set()
        await waiters.event.wait()
        self.counts.requests_refused += not waiters.made_room
        return waiters.made_room

    async def run(self) -> None:
        """Until cancelled; a batch that is under way is ended first, since its files go after its rows."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._ending.watch)
            while True:
                with trio.move_on_after(LOOK_SECONDS):
                    await self._wake.wait()
                self._wake = trio.Event()
                with trio.CancelScope(shield=True):
                    await self._look()

    async def _limit(self, waiters: _Waiters) -> None:
        await trio.sleep(RELIEF_SECONDS)
        if waiters is self._waiters:
            self._wake_waiters(always=True)

    # How it stands

    @property
    def _removed(self) -> int:
        return self.counts.blobs_removed

    def _mark(self) -> object:
        """Something that is another one when something was removed, or committed, since."""
        group = self._fs.group
        return group.number, group.operations, len(self._fs.tree.unlinked)

    def _lows(self) -> tuple[int, int]:
        """Bytes and inodes below which there is little room."""
        room, space = self._space.room(), self._space
        share = self._low_percent / 100
        low = max(int(room.total * share), 2 * space.reserve)
        return low, max(int(room.files_total * share), 2 * space.file_reserve)

    def _is_low(self, times: float = 1.0) -> bool:
        space, (low, low_files) = self._space, self._lows()
        left = space.left()
        few_files = left.files + space.file_reserve < times * low_files
        return few_files or left.bytes + space.reserve < times * low

    def _wanted(self) -> int:
        """Bytes that should go; 0 when there is enough. Lets those who wait go on as soon as they can."""
        self._wake_waiters()
        space, (low, low_files) = self._space, self._lows()
        left = space.left()
        if self._ending.begun:
            return 0
        if left.files + space.file_reserve < ENOUGH * low_files:
            return EVER
        missing = int(ENOUGH * low) - left.bytes - space.reserve
        return max(0, missing, space.refused - left.bytes)

    def _is_urgent(self) -> bool:
        return self._waiters is not None

    def _wake_waiters(self, *, always: bool = False) -> None:
        """When there is room for what was refused, or `always`."""
        waiters = self._waiters
        if waiters is None:
            return
        left = self._space.left()
        enough = left.files > 0 and left.bytes > self._space.refused
        if always or enough:
            self._waiters = None
            waiters.made_room = enough or self._removed > waiters.removed_before
            waiters.event.set()

    # Making room

    async def _look(self) -> None:
        try:
            if self._waiters is not None or (self._is_low() and self._vain != self._mark()):
                await self._make_room()
            elif not self._is_low(ENOUGH):
                self._logged = False
                self._fs.store.spare.hold()
        except OSError as error:
            log.debug("no room could be made: %s", error)
            self._vain = self._mark()
        except CasfsError as error:  # a snapshot that cannot be read
            log.warning("no room can be made: %s", error)
            self._vain = self._mark()
        except Exception:
            log.exception("making room goes on after an error nobody expected")
            self._vain = self._mark()
        finally:
            self._space.refused = 0
            self._wake_waiters(always=True)

    async def _make_room(self) -> None:
        fs, before = self._fs, self._removed
        if fs.group.failed:
            return
        await self._committed()
        await self._limit_to_what_there_is()
        await self._collect()
        for _ in range(FORGET_LOOKS):
            if not fs.tree.unlinked or not self._wanted():
                break
            await trio.sleep(FORGET_SECONDS)
            await self._committed()
            await self._collect()
        await self._empty_trash()
        if self._removed == before:
            self._vain = self._mark()

    async def _limit_to_what_there_is(self) -> None:
        """Who asks for more than could be given shall not cost what is kept for others."""
        refused = self._space.refused
        if refused > self._space.reserve:
            can = await self._fs.scheduler.run(_givable, self._fs.store.path)
            if refused > can + self._space.left().bytes:
                self._space.refused = 0

    async def _committed(self) -> None:
        """What was removed until now is an orphan on disk."""
        if not self._fs.group.active:
            return
        try:
            await self._fs.group.committed()
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._fs.store.spare.give_up():
                raise
            await self._fs.group.committed()

    async def _collect(self) -> None:
        try:
            await self._collect_orphans()
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._fs.store.spare.give_up():
                raise
            await self._collect_orphans()

    async def _collect_orphans(self) -> None:
        blobs, size = self.counts.blobs_removed, self.counts.removed_bytes

        def wanted(gone: Amount) -> int:
            if gone.blobs:
                self._log_low()
                self.counts.blobs_removed = blobs + gone.blobs
                self.counts.removed_bytes = size + gone.bytes
            return self._wanted()

        await collect_oldest(self._fs, EVER, wanted=wanted, urgent=self._is_urgent)

    async def _empty_trash(self) -> None:
        while wanted := self._wanted():
            sizes = self._fs.store.namespace.trash.oldest_sizes(TRASH_STEP)
            files = 1 + sum(total < wanted for total in itertools.accumulate(sizes))
            changed = await self._trash.give_up(files)
            if not changed.files:
                return
            self._log_low()
            if not self.counts.trash_files_removed:
                log.warning("the disk is so full that files leave the trash before their time")
            self.counts.trash_files_removed += changed.files
            await self._committed()
            removed = self.counts.removed_bytes
            await self._collect()
            if self.counts.removed_bytes == removed and not self._fs.holds.nothing:
                return  # snapshots hold it: the trash would go for nothing

    def _log_low(self) -> None:
        """Once, until there is enough room again."""
        if not self._logged:
            self._logged = True
            self.counts.times_low += 1
            log.info("little room is left: what nobody needs is removed at once")


def _givable(store: str) -> int:
    """Bytes of all orphans, and of what only the trash has. Blocks, for as long as the tables take."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return opened.namespace.blobs.totals()[3] + opened.namespace.trash.totals()[3]
