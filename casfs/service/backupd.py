"""The daemon of a store's backups: makes them by any number of schedules, each of which goes on for itself.

Between two runs it holds nothing but its own lock.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import trio
from msgspec import structs

from casfs.config import Backup, load
from casfs.errors import CasfsError, StoreLocked, UsageError
from casfs.maintenance.backup.filters import Filter
from casfs.maintenance.backup.roots import directories
from casfs.service import last_runs
from casfs.service.backup_runs import INTERRUPTED, Ending, Job, Work, check, perform
from casfs.service.last_runs import LastRun
from casfs.service.notify import notify, reloading
from casfs.service.schedule import LOOK_SECONDS, Schedule, hold_signals
from casfs.store import backup_daemon_lock, make_run, read_config
from casfs.text import log_to

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

STATUS_SECONDS = 5.0
"""How often systemd is told how far a run has come."""


def serve(store: str, config: str, work: Work) -> None:
    """Back up until SIGTERM or SIGINT, which interrupt a run; its schedule goes on with it at the next start.

    SIGUSR1 has all schedules run now, SIGHUP has the configuration read again.
    Raises UsageError, StoreNotFound, FormatError, StoreLocked when the store has such a daemon, OSError.
    """
    store, config = os.path.realpath(store), os.path.abspath(config)
    read_config(store)
    _read(store, config)
    make_run(store)
    lock = backup_daemon_lock(store)
    hold_signals(signal.SIGUSR1, signal.SIGHUP)
    if not lock.acquire():
        raise StoreLocked(f"{store} has a daemon for backups already, {lock.holder()}", "stop that one first")
    log_to(logging.StreamHandler(), "casfs: %(levelname)s: %(message)s")
    try:
        trio.run(Daemon(store, config, work).run)
    finally:
        lock.release()


def _read(store: str, config: str) -> dict[str, Backup]:
    """The schedules there are. Raises UsageError, OSError."""
    sections = load(config).backup
    for name, section in sections.items():
        try:
            check(store, os.path.normpath(section.destination))
        except UsageError as error:
            raise UsageError(f"{config}: [backup.{name}] destination: {error.message}", error.hint) from None
    return sections


class _Planned:
    """A schedule that the daemon goes by, until the configuration has another one of that name."""

    def __init__(self, name: str, section: Backup) -> None:
        self.name = name
        self.section = section
        self.schedule = Schedule(section.schedule, f"backup {name}")
        self.due = 0.0
        self.doing = ""
        self.over = trio.Event()
        """Nothing is done by it any more."""


class Daemon:
    """The daemon while it runs, in one thread but for the runs."""

    def __init__(self, store: str, config: str, work: Work) -> None:
        self._store = store
        self._config = config
        self._work = work
        self._planned: dict[str, _Planned] = {}
        self._going: set[_Planned] = set()
        self._ending = Ending()
        self._changed = trio.Event()
        self._reloading = trio.Lock()

    async def run(self) -> None:
        """Until a signal ends it. Raises UsageError and OSError of the configuration and the store."""
        with trio.open_signal_receiver(*SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGHUP})
            sections = await trio.to_thread.run_sync(self._load)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals, nursery)
                nursery.start_soon(self._show)
                self._plan(sections, nursery)
                notify("READY=1")
                await self._ending.event.wait()
                while self._going:
                    await next(iter(self._going)).over.wait()
                nursery.cancel_scope.cancel()
        log.info("%s is not backed up any more", self._store)

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                for planned in self._planned.values():
                    planned.schedule.want()
            elif number == signal.SIGHUP:
                nursery.start_soon(self._reload, nursery)  # a disk that hangs does not keep it from ending
            else:
                log.info("%s: ending", signal.Signals(number).name)
                notify("STOPPING=1")
                self._ending.begin()
                for planned in self._going:
                    planned.schedule.end()

    # What is planned

    def _load(self) -> dict[str, Backup]:
        """The schedules. What is to be remembered of each from now on is written down. In a thread."""
        sections = _read(self._store, self._config)
        there: tuple[str, ...] | None = None
        for name, section in sections.items():
            if section.exclude_new and there is None:
                there = tuple(map(os.fsdecode, directories(self._store)))
            self._remember(name, functools.partial(_knowing, there if section.exclude_new else None))
        return sections

    def _remember(self, name: str, how: Callable[[LastRun], LastRun]) -> LastRun | None:
        """As `last_runs.change`; None where that cannot be, which the log says: on a full disk backups are
        made all the same. In a thread."""
        try:
            return last_runs.change(self._store, name, how)
        except (CasfsError, OSError) as error:
            log.error("backup %s: what the daemon knows of it cannot be kept: %s", name, error)
            return None

    async def _reload(self, nursery: trio.Nursery) -> None:
        """A configuration that is wrong changes nothing. What runs goes on as it was begun."""
        async with self._reloading:
            reloading()
            try:
                sections = await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
            except (CasfsError, OSError) as error:
                log.error("the configuration is as it was before: %s", error)
            else:
                if not self._ending.begun:
                    self._plan(sections, nursery)
            notify("READY=1")

    def _plan(self, sections: dict[str, Backup], nursery: trio.Nursery) -> None:
        for name, planned in list(self._planned.items()):
            if sections.get(name) != planned.section:
                planned.schedule.end()
                if name not in sections:
                    del self._planned[name]
                    log.info("backup %s is not made any more", name)
        for name, section in sections.items():
            before = self._planned.get(name)
            if before is None or before.section != section:
                planned = self._planned[name] = _Planned(name, section)
                self._going.add(planned)
                nursery.start_soon(self._keep, planned, before)
        if not sections:
            log.warning("%s has no section [backup.NAME]: nothing is backed up", self._config)

    # One schedule

    async def _keep(self, planned: _Planned, before: _Planned | None) -> None:
        """Go by a schedule until it ends; after what was there of that name before."""
        try:
            if before is not None:
                await before.over.wait()
            missed = planned.schedule.has_missed(await trio.to_thread.run_sync(self._since, planned.name))
            log.info(
                "backup %s to %s by the schedule '%s'%s",
                planned.name,
                planned.section.destination,
                planned.section.schedule,
                ", at once since a run was missed" if missed else "",
            )

            def waiting(due: float) -> None:
                planned.due = due
                self._changed.set()

            async def work() -> float:
                await self._run(planned)
                return planned.schedule.next()

            await planned.schedule.repeat(work, time.time() if missed else planned.schedule.next(), waiting)
        finally:
            self._going.discard(planned)
            planned.over.set()

    def _since(self, name: str) -> float | None:
        """From when on a run may have been missed. In a thread."""
        try:
            last = last_runs.read(self._store, name)
        except OSError as error:
            log.error("backup %s: when it was made last cannot be read: %s", name, error)
            last = None
        return time.time() if last is None else last.since

    async def _run(self, planned: _Planned) -> None:
        """One run; the error of one never ends the daemon."""
        planned.doing = "begins"
        self._changed.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_what_is_skipped, planned, time.time())
            try:
                await self._perform(planned)
            except Exception:
                log.exception("backup %s goes on after an error nobody expected", planned.name)
            nursery.cancel_scope.cancel()
        planned.doing = ""

    async def _perform(self, planned: _Planned) -> None:
        def begun(last: LastRun) -> LastRun:
            return LastRun(seen_ns=last.seen_ns, began_ns=time.time_ns(), known=last.known)

        def ended(last: LastRun) -> LastRun:
            return structs.replace(
                last,
                ended_ns=0 if outcome.result == INTERRUPTED else time.time_ns(),
                result=outcome.result,
                snapshot=outcome.snapshot,
                error=outcome.error,
            )

        def progress(doing: str, done: int, total: int) -> None:
            planned.doing = f"{doing} {100 * done // total} %" if total else doing

        await trio.to_thread.run_sync(self._remember, planned.name, begun)
        job = await trio.to_thread.run_sync(self._job, planned)
        outcome = await perform(job, self._work, self._ending, progress)
        await trio.to_thread.run_sync(self._remember, planned.name, ended)

    def _job(self, planned: _Planned) -> Job:
        """What is to be done now; the log has what is left out since it is new. In a thread."""
        name, section, known = planned.name, planned.section, None
        if section.exclude_new:
            try:
                last = last_runs.read(self._store, name)
                known = None if last is None else last.known
                chosen = Filter(section.options(name, known, 0))
                for new in chosen.left_out_as_new(directories(self._store)):
                    log.warning("backup %s: '%s' is new, and left out until 'include' names it", name, new)
            except (CasfsError, OSError) as error:
                log.error("backup %s: what is new cannot be told: %s", name, error)
        return Job(self._store, name, section, known)

    async def _say_what_is_skipped(self, planned: _Planned, began: float) -> None:
        """While a run goes on."""
        while True:
            due = planned.schedule.next()
            while time.time() < due:
                due = min(due, planned.schedule.next())  # the clock was set back
                await trio.sleep(min(max(0.0, due - time.time()), LOOK_SECONDS))
            log.warning(
                "backup %s: the run of %s is skipped: that of %s goes on",
                planned.name,
                _moment(due),
                _moment(began),
            )

    # What is shown

    async def _show(self) -> None:
        """Tell systemd how it is going."""
        told = ""
        while True:
            status = self._status()
            if status != told:
                told = status
                notify(f"STATUS={status}")
            with trio.move_on_after(STATUS_SECONDS):
                await self._changed.wait()
            self._changed = trio.Event()

    def _status(self) -> str:
        facts = [f"{planned.name}: {planned.doing}" for planned in self._going if planned.doing]
        dues = [planned.due for planned in self._planned.values() if planned.due and not planned.doing]
        if dues:
            facts.append(f"the next backup is due at {_moment(min(dues))}")
        return "; ".join(facts) or "no backup is planned"


def _knowing(there: tuple[str, ...] | None, last: LastRun) -> LastRun:
    """What is in the root when this is first said is not new, ever after; None: nothing is new."""
    return structs.replace(last, known=None if there is None else there if last.known is None else last.known)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
