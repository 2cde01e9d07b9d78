"""The collector's daemon: collects one store by a schedule, and when it is told to. After each run it reads a
part of the blobs to see whether they are whole, and computes digests that blobs lack. Meanwhile it makes
snapshots, if the store's configuration has a schedule for them.

It opens the store for a run and closes it after, so that between two runs it holds nothing but its own lock.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from dataclasses import dataclass

import trio

from casfs.config import Snapshots
from casfs.control.access import StoreAccess
from casfs.errors import CasfsError, StoreLocked
from casfs.filestore.locks import Lock
from casfs.maintenance.collect import gc
from casfs.maintenance.collect.gc import NO_LIMITS, Limits, Outcome
from casfs.maintenance.digests.lacking import Lacking
from casfs.maintenance.digests.migration import (
    BESIDE_OTHERS,
    DigestReport,
    add_digests,
    digests_lock,
)
from casfs.maintenance.progress import unwatched
from casfs.maintenance.scrub.scrub import PERIOD, ScrubReport, scrub_slice
from casfs.namespace.collecting import Collecting
from casfs.service.logfile import digests_logged
from casfs.service.notify import notify
from casfs.service.schedule import Schedule, hold_signals
from casfs.service.snapshots import Snapshotter, drop_expired
from casfs.store import Store, collector_daemon_lock, make_run, read_config
from casfs.text import log_to

log = logging.getLogger(__name__)

SCHEDULE = "0 */4 * * *"
"""When it collects, if nothing else is said: every four hours."""

FULL_EVERY = 42
"""One in so many runs is a full one, if nothing else is said: with that schedule, once a week."""

RETRY_SECONDS = 60.0
"""When it tries again after it found somebody else collecting, or checking, the store."""

NO_SNAPSHOTS = Snapshots()
"""None are made."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`schedule`: as service/schedule.py takes it. `full_every`: 0 = no run is full.

    `scrub_seconds`: every blob is read once in so long; 0 = none is. `snapshots`: none are made without a
    schedule; those that have expired go in any case.
    """

    schedule: str = SCHEDULE
    full_every: int = FULL_EVERY
    grace_ns: int = gc.GRACE_NS
    limits: Limits = NO_LIMITS
    scrub_seconds: float = PERIOD
    snapshots: Snapshots = NO_SNAPSHOTS


def serve(store: str, settings: Settings) -> None:
    """Collect until SIGTERM or SIGINT, which end a run after the batch it is in.

    Raises UsageError, StoreNotFound, FormatError, StoreLocked when the store has such a daemon, OSError.
    """
    store = os.path.realpath(store)
    daemon = Daemon(store, settings)
    read_config(store)
    make_run(store)
    lock = collector_daemon_lock(store)
    hold_signals()  # `casfs gc now` finds it by its lock
    if not _acquired(lock):
        raise StoreLocked(f"{store} has a collector already, {lock.holder()}", "stop that one first")
    log_to(logging.StreamHandler(), "casfs: %(levelname)s: %(message)s")
    try:
        trio.run(daemon.run)
    finally:
        lock.release()


def _acquired(lock: Lock) -> bool:
    """Take it; a mount that looks who has it holds it for a moment."""
    for _ in range(3):
        if lock.acquire():
            return True
        time.sleep(0.05)
    return False


class Daemon:
    """The daemon while it runs."""

    def __init__(self, store: str, settings: Settings) -> None:
        """Raises UsageError."""
        self._store = store
        self._settings = settings
        self._schedule = Schedule(settings.schedule, "collection")
        self._snapshotter = Snapshotter(store, settings.snapshots)

    async def run(self) -> None:
        """Until a signal ends it. Raises what opening the store the first time raises."""
        await self._schedule.run(self._last_run, self._work, self._ready, beside=[self._snapshotter.run])
        log.info("%s is not collected any more", self._store)

    def _ready(self) -> None:
        log.info("%s is collected by the schedule '%s'", self._store, self._settings.schedule)

    async def _work(self) -> float:
        """Collect, then read blobs until it is time for the next run. When is that?

        What is to be read by now comes before digests, which may take all the time that there is."""
        notify("STATUS=collecting")
        try:
            await trio.to_thread.run_sync(self._drop_expired)
            outcome = await trio.to_thread.run_sync(self._collect)
        except StoreLocked as error:
            log.warning("%s; trying again in %d s", error, RETRY_SECONDS)
            return time.time() + RETRY_SECONDS
        except (CasfsError, OSError) as error:
            log.error("not collected: %s", error)
            return self._schedule.next()
        _log(outcome)
        due = self._schedule.next()
        await self._scrub(due)
        await self._digest(due)
        return due

    async def _scrub(self, until: float) -> None:
        """Read what is due. Collection does not wait for it: what is left comes after the next run."""
        if self._schedule.ending() or not self._settings.scrub_seconds:
            return
        notify("STATUS=scrubbing")
        try:
            report = await trio.to_thread.run_sync(self._read_blobs, until)
        except (CasfsError, OSError) as error:
            log.warning("not scrubbed: %s", error)
            return
        if report is None:
            return
        for bad in report.bad:
            log.error("blob %s is damaged: %s; see casfs scrub, casfs heal", bad.digest, bad.reason)
        if report.error:
            log.warning("not scrubbed to the end: %s", report.error)

    async def _digest(self, until: float) -> None:
        """Compute what blobs lack of the digests that are wanted. What is left comes after the next run."""
        if self._schedule.is_time(until):
            return
        notify("STATUS=computing digests")
        try:
            report = await trio.to_thread.run_sync(self._add_digests, until)
        except (CasfsError, OSError) as error:
            log.warning("digests are not computed: %s", error)
            return
        if report is not None and report.blobs:
            left = "" if report.complete else "; more after the next collection"
            log.info("computed %d digests of %d blobs%s", report.digests, report.blobs, left)

    # In a thread

    def _add_digests(self, until: float) -> DigestReport | None:
        """None when nothing is lacking, and no run is to be ended."""
        access = StoreAccess(self._store)
        stop = functools.partial(self._schedule.is_time, until)
        with contextlib.closing(Store(self._store, shared=True)) as store:
            last = store.namespace.digests.last_run()
            if not Lacking(store.namespace).find(0, 1) and (last is None or last.ended_ns):
                return None
            lock = digests_lock(self._store)
            try:
                with digests_logged(store.directory):
                    return add_digests(
                        store,
                        pace=BESIDE_OTHERS,
                        progress=unwatched,
                        damaged=access.damaged,
                        mount=access.add_digests,
                        stop=stop,
                    )
            finally:
                lock.release()

    def _last_run(self) -> float | None:
        """When the last collection began."""
        with contextlib.closing(Store(self._store, shared=True)) as store:
            last = Collecting(store.namespace).last_ended()
        return None if last is None else last.started_ns / 1e9

    def _read_blobs(self, until: float) -> ScrubReport | None:
        damaged = StoreAccess(self._store).damaged
        period = self._settings.scrub_seconds
        stop = functools.partial(self._schedule.is_time, until)
        with contextlib.closing(Store(self._store, shared=True)) as store:
            return scrub_slice(store, period=period, damaged=damaged, stop=stop)

    def _drop_expired(self) -> None:
        """What only they hold is collected at once, if it was an orphan for long enough."""
        for problem in drop_expired(self._store):
            log.warning("%s", problem)

    def _collect(self) -> Outcome:
        settings, stop = self._settings, self._schedule.ending
        with gc.opened(self._store, stop=stop) as store:
            rows = Collecting(store.namespace)
            due = rows.runs_since_full() + 1 >= settings.full_every
            # A mount that did not end cleanly has maybe left files without a row.
            full = bool(settings.full_every) and (
                due or rows.strays_before(time.time_ns() - settings.grace_ns)
            )
            plan = gc.plan(store, grace_ns=settings.grace_ns, full=full)
            mount = StoreAccess(self._store).collect
            return gc.execute(store, plan, limits=settings.limits, stop=stop, mount=mount)


def _log(outcome: Outcome) -> None:
    log.info(
        "removed %d blobs, %d bytes, and %d files without a row, in %.1f s",
        outcome.blobs,
        outcome.bytes,
        outcome.strays,
        (outcome.ended_ns - outcome.started_ns) / 1e9,
    )
    for path in outcome.first_failures:
        log.error("could not remove %s", path)
    for path in outcome.first_missing:
        log.error("%s is missing; see casfs fsck", path)
    if outcome.miscounted:
        log.error("%d blobs have a wrong count; see casfs fsck", outcome.miscounted)
    if outcome.error:
        log.warning("the collection ended early: %s", outcome.error)
