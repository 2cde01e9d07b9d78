"""Collection by the daemon of a mount: so that who only mounts never fills his disk with what he removed.

By the default schedule, as `casfs gc daemon` would, while the store has no such daemon; and as soon as
orphans take more than a share of the store, however young they are. Full runs are left to `casfs gc`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import datetime
from typing import Any

import trio

from casfs.control.messages import DropSnapshot
from casfs.control.snapshots import HANDLERS
from casfs.cron import has_missed, next_run
from casfs.errors import CasfsError
from casfs.fs.filesystem import FileSystem
from casfs.maintenance.collect.gc import GRACE_NS
from casfs.maintenance.collect.mounted import collect_oldest
from casfs.namespace.collecting import Amount, Collecting, Record
from casfs.service.ending import Ending
from casfs.service.gcd import SCHEDULE
from casfs.service.snapshots import expired
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import Store, collector_daemon_lock, collector_lock

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""How often it looks at the clock, and at what orphans take if something was committed since."""

MISSED_SECONDS = 60.0
"""A run that was missed comes so long after the mount: programs that start with it go first."""

LEAST = 1 << 30
"""Bytes that orphans may always take."""

KEPT = 0.9
"""How much of what they may take is left when there was more: the next run is not due at once."""

EVER = 1 << 62


class Collector:
    """Runs on the event loop's thread. `share`: of the store in percent, what orphans may take; 0 = any."""

    def __init__(self, fs: FileSystem, share: float) -> None:
        self._fs = fs
        self._share = share / 100
        self._store = fs.store.path
        self._due = 0.0
        self._looked = 0
        self._kept_bytes = 0
        self._kept_by: frozenset[str] = frozenset()
        self._ending = Ending()
        self._early = 0

    def state(self) -> dict[str, Any]:
        """For `casfs status`: who collects, and when; how often orphans were too many."""
        holder = self._other()
        if holder:
            return {"by": holder, "early": self._early}
        at = datetime.fromtimestamp(self._due).isoformat(" ", "seconds") if self._due else None
        return {"by": "this mount", "schedule": SCHEDULE, "next": at, "early": self._early}

    def _other(self) -> str:
        """The collector's daemon of this store, if there is one."""
        return collector_daemon_lock(self._store).held_by()

    async def run(self) -> None:
        """Until cancelled; a batch that is under way is ended first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ending.watch)
            self._due = await self._first()
            while True:
                await trio.sleep(max(0.0, min(LOOK_SECONDS, self._due - time.time())))
                with trio.CancelScope(shield=True):
                    await self._look()

    async def _first(self) -> float:
        try:
            last = Collecting(self._fs.store.namespace).last_ended()
        except OSError as error:
            log.warning("when the last collection was cannot be read: %s", error)
            last = None
        if has_missed(SCHEDULE, None if last is None else last.started_ns / 1e9):
            return time.time() + MISSED_SECONDS
        return next_run(SCHEDULE, time.time())

    async def _look(self) -> None:
        if self._fs.group.failed:
            return
        try:
            if time.time() >= self._due:
                self._due = next_run(SCHEDULE, time.time())
                await self._collect_by_schedule()
            if self._looked != self._fs.group.number and self._share:
                self._looked = self._fs.group.number
                await self._keep_in_bounds()
        except (OSError, CasfsError) as error:  # a snapshot that cannot be read, too
            log.warning("not collected: %s", error)
        except Exception:
            log.exception("the collector of the mount goes on after an error nobody expected")

    async def _collect_by_schedule(self) -> None:
        """As `casfs gc run`, and written down as one; none at all when nothing is due."""
        if self._other():
            return
        lock = collector_lock(self._store)
        if not lock.acquire():
            return  # somebody collects or checks it at this moment
        try:
            await self._drop_expired()
            now_ns = time.time_ns()
            cutoff_ns = now_ns - GRACE_NS
            rows = Collecting(self._fs.store.namespace)
            if not rows.due(cutoff_ns, now_ns, (-1, 0), 1):
                return
            await self._fs.group.begin()
            record = Record(rows.start_run("regular", now_ns), 0, 0, 0, 0)
            gone = await collect_oldest(self._fs, cutoff_ns, wanted=self._all, record=record)
            await self._fs.group.begin()
            rows.update_run(record._replace(blobs=gone.blobs, bytes=gone.bytes), time.time_ns())
            log.info("collected by the schedule: %d blobs, %d bytes", gone.blobs, gone.bytes)
        finally:
            lock.release()

    async def _drop_expired(self) -> None:
        """As `casfs gc run` does: a snapshot that cannot be dropped keeps nothing else from going."""
        for name in await self._fs.scheduler.run(expired, self._store):
            try:
                await HANDLERS[DropSnapshot](self._fs, DropSnapshot(name))
                log.info("dropped snapshot %s: it has expired", name)
            except (CasfsError, OSError) as error:
                log.warning("snapshot %s could not be dropped: %s", name, error)

    def _all(self, _gone: Amount) -> int:
        return 0 if self._ending.begun else EVER

    async def _keep_in_bounds(self) -> None:
        orphans, kept = await self._fs.scheduler.run(_orphan_bytes, self._store)
        most = max(LEAST, int(self._share * kept))
        orphans -= self._held_bytes()
        if orphans <= most:
            return
        self._early += 1
        excess = orphans - int(KEPT * most)

        def wanted(gone: Amount) -> int:
            return 0 if self._ending.begun else excess - gone.bytes

        gone = await collect_oldest(self._fs, EVER, wanted=wanted)
        if gone.bytes < excess and not self._ending.begun:
            self._kept_bytes += orphans - gone.bytes
        log.info("orphans took more than %d bytes: removed %d blobs, %d bytes", most, gone.blobs, gone.bytes)

    def _held_bytes(self) -> int:
        """Bytes of orphans that could not be collected, since snapshots or pins hold them: they are not
        looked at again and again, but when there are other snapshots."""
        snapshots = frozenset(SnapshotFolder(self._fs.store.directory).names())
        if snapshots != self._kept_by:
            self._kept_by, self._kept_bytes = snapshots, 0
        return self._kept_bytes


def _orphan_bytes(store: str) -> tuple[int, int]:
    """Bytes of orphans, and of all other blobs. Blocks, for as long as the table takes."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        _, kept, _, orphans = opened.namespace.blobs.totals()
        return orphans, kept
