"""The collector's daemon: collects one store by a schedule, and when it is told to. After each run it reads a
part of the blobs to see whether they are whole.

It opens the store for a run and closes it after, so that between two runs it holds nothing but its own lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from datetime import datetime

import trio
from cronsim import CronSim, CronSimError

from casfs.control.access import StoreAccess
from casfs.errors import CasfsError, StoreLocked, UsageError
from casfs.maintenance import gc
from casfs.maintenance.gc import NO_LIMITS, Limits, Outcome
from casfs.maintenance.scrub import PERIOD, ScrubReport, scrub_slice
from casfs.namespace.collecting import Collecting
from casfs.service.notify import notify
from casfs.store import Lock, Store, collector_daemon_lock, read_config

log = logging.getLogger(__name__)

SCHEDULE = "0 */4 * * *"
"""When it collects, if nothing else is said: every four hours."""

FULL_EVERY = 42
"""Every so manieth run is a full one, if nothing else is said: with that schedule, once a week."""

LOOK_SECONDS = 60.0
"""How often it looks at the clock: it may be set, and stands still while the machine sleeps."""

RETRY_SECONDS = 60.0
"""When it tries again after it found somebody else collecting, or checking, the store."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`schedule`: five fields as in crontab(5), local time. `full_every`: 0 = no run is full.

    `scrub_seconds`: every blob is read once in so long; 0 = none is.
    """

    schedule: str = SCHEDULE
    full_every: int = FULL_EVERY
    grace_ns: int = gc.GRACE_NS
    limits: Limits = NO_LIMITS
    scrub_seconds: float = PERIOD


def next_run(schedule: str, after: float) -> float:
    """The first time of a schedule after a time, both in seconds since 1970. Raises UsageError."""
    try:
        return next(CronSim(schedule, datetime.fromtimestamp(after).astimezone())).timestamp()
    except (CronSimError, StopIteration):
        hint = "five fields: minute hour day month weekday"
        raise UsageError(f"'{schedule}' is no cron expression that ever comes", hint) from None


def serve(store: str, settings: Settings) -> None:
    """Collect until SIGTERM or SIGINT, which end a run after the batch it is in.

    Raises UsageError, StoreNotFound, FormatError, StoreLocked when the store has such a daemon, OSError.
    """
    next_run(settings.schedule, time.time())
    store = os.path.realpath(store)
    read_config(store)
    os.makedirs(f"{store}/run", mode=0o700, exist_ok=True)
    lock = collector_daemon_lock(store)
    # From the moment the lock is held `casfs gc --now` may send it, which would end who does not expect it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if not _acquired(lock):
        raise StoreLocked(f"{store} has a collector already, {lock.holder()}", "stop that one first")
    logging.basicConfig(level=logging.INFO, format="casfs: %(levelname)s: %(message)s")
    try:
        trio.run(Daemon(store, settings).run)
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
        self._store = store
        self._settings = settings
        self._stop = threading.Event()
        self._wake = trio.Event()
        self._wanted = False

    async def run(self) -> None:
        """Until a signal ends it. Raises what opening the store the first time raises."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            # Outside of the nursery, which would make a group of what it raises.
            missed = await trio.to_thread.run_sync(self._has_missed_one)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                try:
                    await self._collect_by_schedule(missed)
                finally:
                    nursery.cancel_scope.cancel()
        log.info("%s is not collected any more", self._store)

    async def _obey(self, signals: object) -> None:
        async for number in signals:  # type: ignore[attr-defined]
            if number == signal.SIGUSR1:
                self._wanted = True
            else:
                log.info("%s: ending", signal.Signals(number).name)
                notify("STOPPING=1")
                self._stop.set()
            self._wake.set()

    async def _collect_by_schedule(self, missed: bool) -> None:
        due = time.time() if missed else self._next()
        log.info("%s is collected by the schedule '%s'", self._store, self._settings.schedule)
        notify("READY=1")
        while await self._wait_until(due):
            self._wanted = False
            notify("STATUS=collecting")
            try:
                outcome = await trio.to_thread.run_sync(self._collect)
            except StoreLocked as error:
                log.warning("%s; trying again in %d s", error, RETRY_SECONDS)
                due = time.time() + RETRY_SECONDS
                continue
            except (CasfsError, OSError) as error:
                log.error("not collected: %s", error)
            else:
                _tell(outcome)
                due = self._next()
                await self._scrub(due)
                continue
            due = self._next()

    async def _scrub(self, until: float) -> None:
        """Read what is due. Collection does not wait for it: what is left comes after the next run."""
        if self._stop.is_set() or not self._settings.scrub_seconds:
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

    def _next(self) -> float:
        return next_run(self._settings.schedule, time.time())

    async def _wait_until(self, due: float) -> bool:
        """Wait until it is time, or somebody wants it to be; False when it is over."""
        at = datetime.fromtimestamp(due).isoformat(" ", "seconds")
        notify(f"STATUS=the next collection is due at {at}")
        while not self._stop.is_set() and not self._wanted and (left := due - time.time()) > 0:
            due = min(due, self._next())  # the clock was set back
            with trio.move_on_after(min(left, LOOK_SECONDS)):
                await self._wake.wait()
            self._wake = trio.Event()
        return not self._stop.is_set()

    # In a thread

    def _has_missed_one(self) -> bool:
        """Was a run due since the last one, or was there none yet?"""
        with contextlib.closing(Store(self._store, shared=True)) as store:
            last = Collecting(store.namespace).last_ended()
        return last is None or next_run(self._settings.schedule, last.started_ns / 1e9) <= time.time()

    def _read_blobs(self, until: float) -> ScrubReport | None:
        damaged = StoreAccess(self._store).damaged
        period = self._settings.scrub_seconds

        def stop() -> bool:
            return self._stop.is_set() or self._wanted or time.time() >= until

        with contextlib.closing(Store(self._store, shared=True)) as store:
            return scrub_slice(store, period=period, damaged=damaged, stop=stop)

    def _collect(self) -> Outcome:
        settings = self._settings
        with gc.opened(self._store, stop=self._stop.is_set) as store:
            rows = Collecting(store.namespace)
            due = rows.runs_since_full() + 1 >= settings.full_every
            # A mount that did not end cleanly has maybe left files without a row.
            full = bool(settings.full_every) and (
                due or rows.strays_before(time.time_ns() - settings.grace_ns)
            )
            plan = gc.plan(store, grace_ns=settings.grace_ns, full=full)
            ask = StoreAccess(self._store).collect
            return gc.execute(store, plan, limits=settings.limits, stop=self._stop.is_set, ask=ask)


def _tell(outcome: Outcome) -> None:
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
