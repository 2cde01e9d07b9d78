"""The collector: removes what nothing refers to any more, beside a mount in use as well as alone.

It has no state that a crash could harm: `plan` looks, `execute` acts, in short batches that look again.
Orphans of a mounted store are removed by its daemon (mounted.py); strays, and what nobody has mounted, by the
collector (batch.py), with a turn for everybody else between two batches.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from casfs.errors import FormatError, StoreLocked
from casfs.filestore.durable import Durable
from casfs.maintenance import integrations, offline, trash
from casfs.maintenance.collect import strays
from casfs.maintenance.collect.batch import (
    FAILURES_IN_A_ROW,
    POLL_SECONDS,
    Failure,
    Failures,
    Stop,
    Stopped,
    begin,
    commit_rows,
    delete_rows,
    end,
    enter_turnstile,
    hold_open,
    leave_turnstile,
    never,
    not_held,
    pause,
    recheck,
    recheck_strays,
    sync_rows,
    transaction,
    unlink_files,
    unlink_strays,
)
from casfs.maintenance.collect.mounted import Collected
from casfs.maintenance.collect.strays import Stray
from casfs.maintenance.progress import Progress, unwatched
from casfs.namespace.collecting import Amount, Collecting, Orphan, Record, Run
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.holding import Holds
from casfs.store import Store, collector_lock, make_run, make_way, read_config

log = logging.getLogger(__name__)

GRACE_NS = 3_600 * 10**9
"""Age from which an orphan is collected, when nothing else is said: comfort, not correctness."""

FIRST_BATCH = SMALLEST_BATCH = 16
LARGEST_BATCH = 2_000
WORK_SECONDS = 0.012
BUSY_SECONDS = 0.003
"""How long the rows and files of one batch may take, which its size follows: with nobody else there, and when
others write, whose requests wait meanwhile. What the disk takes to make the log durable comes on top, and is
the same for a small batch: that is why there is a smallest one."""

SHARE = 0.5
BUSY_SHARE = 0.003
"""How much of the time batches may take, with nobody else there and when others write: so few requests of
theirs meet one that the 99th percentile does not tell."""

ASKED_BUSY = 200
"""Orphans that a mount is asked to remove with one commit, when others write to it."""

MISSING_TOLD = 10
"""Paths of missing files that an outcome names."""

DATED_BACK = 2_000
"""Orphans from the future that are mended in one turn."""

SAMPLE = 1_000
"""Blobs whose count of references is looked at by a full run."""

TRASH_STEP = 5_000
"""Files that leave the trash of an unmounted store, or come there, in one go: about a second, while a mount
waits ..."""

TRASH_PAUSE = 0.2
"""... and seconds until the next go, in which it gets the store."""

ByMount = Callable[[list[int], int, int, Record], Collected | None]
"""Has the daemon that has the store mounted `collect` (mounted.py); None when there is none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Blobs, and bytes of them, each second at the most; 0 = no limit."""

    blobs: int = 0
    bytes: int = 0


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do as of `now_ns`, in nanoseconds since 1970.

    `due` is what it takes, `orphans` all there are: the difference is too young, pinned, or held by
    snapshots. `strays`: files without a row and their bytes, only looked for on demand.
    """

    full: bool
    now_ns: int
    cutoff_ns: int
    due: Amount
    orphans: Amount
    strays: Amount | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did. `bytes` of orphans, `stray_bytes` of strays; `failures`: files that are still there.

    Found by full runs: `missing` blobs have a row and no file, `miscounted` of a sample a wrong count (I4).
    `error`: why it ended early, "" when it did not.
    """

    full: bool
    started_ns: int
    ended_ns: int = 0
    blobs: int = 0
    bytes: int = 0
    strays: int = 0
    stray_bytes: int = 0
    failures: int = 0
    first_failures: tuple[str, ...] = ()
    missing: int = 0
    first_missing: tuple[str, ...] = ()
    miscounted: int = 0
    error: str = ""


def unmounted(_ids: list[int], _cutoff_ns: int, _now_ns: int, _record: Record) -> None:
    """The `ByMount` of a run that removes everything by itself."""


@contextlib.contextmanager
def opened(path: str, durable: Durable | None = None, *, stop: Stop = never) -> Iterator[Store]:
    """The store of the one collector it may have at a time, with nothing in its trash that is too old, and no
    more snapshots than the rules keep.

    Raises StoreLocked when there is one, and as `Store` does.
    """
    read_config(path)
    make_way(path)
    make_run(path)
    lock = collector_lock(path)
    if not lock.acquire():
        raise StoreLocked(f"{path} is being collected or checked by {lock.holder()}", "wait for it to end")
    try:
        _clean_integrations(path, stop)
        _expire_trash(path, stop)
        with contextlib.closing(Store(path, shared=True, durable=durable)) as store:
            SnapshotFolder(store.directory).remove_leftovers(time.time_ns())
            yield store
    finally:
        lock.release()


def look(path: str, *, grace_ns: int = GRACE_NS, full: bool = False) -> Plan:
    """What a run on a store would do, without waiting for anybody. Raises as `Store` does."""
    with contextlib.closing(Store(path, readonly=True)) as store:
        return plan(store, grace_ns=grace_ns, full=full, survey=True)


def history(path: str, limit: int) -> list[Run]:
    """The newest runs of the collector on a store, newest first. Raises as `Store` does."""
    with contextlib.closing(Store(path, readonly=True)) as store:
        return Collecting(store.namespace).runs(limit)


def _clean_integrations(path: str, stop: Stop) -> None:
    """Move to the trash the snapshots that are too many by the rules of their repositories; as
    `_expire_trash`. Raises OSError."""
    with contextlib.suppress(FormatError, StoreLocked):
        while integrations.are_too_many(path) and not stop():
            if offline.clean_integrations(path, TRASH_STEP) < TRASH_STEP:
                return
            time.sleep(TRASH_PAUSE)


def _expire_trash(path: str, stop: Stop) -> None:
    """Remove from the trash what is too old, so that its blobs become orphans.

    Of a store that is mounted, or used by a command, the trash is left alone: the mount's daemon looks after
    it by itself. So is a trash with nothing old in it, since who wants to mount the store meanwhile waits
    (`Store`). Raises OSError.
    """
    with contextlib.suppress(FormatError, StoreLocked):  # an older format has no trash
        while trash.may_have_old(path, time.time_ns()) and not stop():
            if offline.expire_trash(path, TRASH_STEP) < TRASH_STEP:
                return
            time.sleep(TRASH_PAUSE)


def plan(
    store: Store, *, grace_ns: int = GRACE_NS, full: bool = False, survey: bool = False, now_ns: int = 0
) -> Plan:
    """What there is to collect. `survey`: count strays too, which takes a look at every file.

    `now_ns`: the time it is, 0 for the clock's. Raises OSError.
    """
    now_ns = now_ns or time.time_ns()
    cutoff_ns = now_ns - grace_ns
    rows = Collecting(store.namespace)
    counted = None
    if full and survey:
        found = [0, 0]
        for shard in strays.scan(store, cutoff_ns):
            found[0] += len(shard.strays)
            found[1] += sum(stray.size for stray in shard.strays)
        counted = Amount(*found)
    with contextlib.closing(Holds(store.directory)) as holds:
        due = (
            rows.amount_due(cutoff_ns, now_ns)
            if holds.nothing
            else _amount_not_held(rows, holds, cutoff_ns, now_ns)
        )
    return Plan(full, now_ns, cutoff_ns, due, rows.amount_orphaned(), counted)


def _amount_not_held(rows: Collecting, holds: Holds, cutoff_ns: int, now_ns: int) -> Amount:
    """As `amount_due`, without what snapshots refer to."""
    after, due = (-1, 0), Amount(0, 0)
    while found := rows.due(cutoff_ns, now_ns, after, LARGEST_BATCH):
        after = (found[-1].orphaned_ns, found[-1].id)
        left = not_held(holds, found)
        due = Amount(due.blobs + len(left), due.bytes + sum(orphan.size for orphan in left))
    return due


def execute(
    store: Store,
    plan: Plan,
    *,
    limits: Limits = NO_LIMITS,
    stop: Stop = never,
    progress: Progress = unwatched,
    mount: ByMount = unmounted,
) -> Outcome:
    """Collect what was planned, as far as it still holds, and write down what was done.

    Ends early, with `error` set, when `stop` says so or too many files cannot be unlinked. Raises OSError,
    StoreLocked, and what `mount` does; what was done until then is written down if that is possible.
    """
    with contextlib.closing(Holds(store.directory)) as holds:
        return _Run(store, plan, limits, stop, progress, mount, holds).run()


@dataclass
class _Run:
    """One run, while it lasts."""

    store: Store
    plan: Plan
    limits: Limits
    stop: Stop
    progress: Progress
    mount: ByMount
    holds: Holds
    number: int = 0
    size: int = field(default_factory=lambda: FIRST_BATCH)
    busy: bool = True
    failures: Failures = field(default_factory=Failures)
    outcome: Outcome = Outcome(False, 0)

    def run(self) -> Outcome:
        self.outcome = Outcome(self.plan.full, time.time_ns())
        try:
            while self._drop_pin():
                pause(POLL_SECONDS, self.stop)
            with transaction(self.store, self.stop) as rows:
                self.number = rows.start_run("full" if self.plan.full else "regular", self.outcome.started_ns)
        except Stopped:  # while others had their turn: there is no run to write down
            return replace(self.outcome, ended_ns=time.time_ns(), error="stopped")
        try:
            self._date_back()
            self._collect_orphans()
            if self.plan.full:
                self._collect_strays()
                self._look_at_counts()
            self._try_again()
        except Stopped:
            self._ends_early("stopped")
        except _TooManyFailures:
            last = self.failures.kept[-1]
            self._ends_early(
                f"{FAILURES_IN_A_ROW} files in a row could not be removed: {self._describe(last)}"
            )
        except BaseException as error:
            self._ends_early(str(error) or type(error).__name__)
            with contextlib.suppress(OSError, StoreLocked):
                self._finish()
            raise
        self._finish()
        return self.outcome

    def _drop_pin(self) -> bool:
        with transaction(self.store, self.stop) as rows:
            return rows.drop_expired_pin(self.plan.now_ns)

    def _ends_early(self, error: str) -> None:
        self.outcome = replace(self.outcome, error=error)

    def _finish(self) -> None:
        kept = self.failures.kept[:FAILURES_IN_A_ROW]
        self.outcome = replace(
            self.outcome,
            ended_ns=time.time_ns(),
            failures=self.failures.count,
            first_failures=tuple(self._describe(failure) for failure in kept),
        )
        with transaction(self.store) as rows:
            rows.update_run(self.record, self.outcome.ended_ns, self.outcome.error or None)
            if self.plan.full and not self.outcome.error and not self.outcome.failures:
                rows.looked_for_strays(self.plan.cutoff_ns)

    def _describe(self, failure: Failure) -> str:
        return f"{self.store.filestore.blobs.path(failure.stray.digest)}: {failure.reason}"

    @property
    def record(self) -> Record:
        done = self.outcome
        return Record(self.number, done.blobs, done.bytes, done.strays, self.failures.count)

    # Orphans

    def _date_back(self) -> None:
        """Orphans from the future, where the clock was once, would stay until it comes there again."""
        rows = Collecting(self.store.namespace)
        while found := rows.orphaned_after(self.plan.now_ns, DATED_BACK):
            with transaction(self.store, self.stop) as rows:
                rows.set_orphaned(found, self.plan.now_ns)
            pause(POLL_SECONDS, self.stop)

    def _collect_orphans(self) -> None:
        rows = Collecting(self.store.namespace)
        after = (-1, 0)
        while found := rows.due(self.plan.cutoff_ns, self.plan.now_ns, after, self._limited_size()):
            found = self._within_bytes(found)
            after = (found[-1].orphaned_ns, found[-1].id)
            found = not_held(self.holds, found)  # so that nobody waits while many snapshots are asked
            if not found:
                pause(0, self.stop)
                continue
            ids = [orphan.id for orphan in found]
            collected = self.mount(ids, self.plan.cutoff_ns, self.plan.now_ns, self.record)
            seconds, gone = self._orphan_batch(ids) if collected is None else (0.0, self._asked(collected))
            done = self.outcome
            self.outcome = replace(done, blobs=done.blobs + gone.blobs, bytes=done.bytes + gone.bytes)
            self.progress("collecting", self.outcome.blobs, self.plan.due.blobs)
            self._between_batches(seconds, gone)

    def _asked(self, collected: Collected) -> Amount:
        """What the mount's daemon has removed, for which nobody had to wait."""
        for digest, size, reason in collected.failures:
            self.failures.note(Stray(digest, size), reason)
        self.failures.untried += collected.untried
        self.failures.in_a_row = FAILURES_IN_A_ROW if collected.gave_up else 0
        self.size = ASKED_BUSY if collected.busy else LARGEST_BATCH
        return collected.gone

    def _orphan_batch(self, ids: list[int]) -> tuple[float, Amount]:
        """One batch of orphans: how long its rows and files took, and what has gone."""
        store, plan = self.store, self.plan
        asked = self.holds.asked
        held: list[int] = []
        enter_turnstile(store, self.stop)
        try:
            self.busy = begin(store, self.stop)
            since = time.monotonic()
            orphans = recheck(store, self.holds, ids, plan.cutoff_ns, plan.now_ns, asked)
            delete_rows(store, orphans)
            Collecting(store.namespace).update_run(self.record)
            commit_rows(store, 3 * len(orphans))
            syncing = time.monotonic()
            sync_rows(store)
            since += time.monotonic() - syncing
            hold_open(store, orphans, held)
            gone = unlink_files(store, orphans, self.failures)
        finally:
            end(store)
            leave_turnstile(store)
            left = time.monotonic()
            for fd in held:
                os.close(fd)
        return left - since, gone

    def _between_batches(self, seconds: float, gone: Amount) -> None:
        """Let others have their turn, keep to the limits, follow the time that others had to wait for a batch
        with the size of the next one.

        Raises Stopped, _TooManyFailures, DatabaseError.
        """
        if self.failures.too_many:
            raise _TooManyFailures
        if seconds:
            wanted = BUSY_SECONDS if self.busy else WORK_SECONDS
            self.size = round(self.size * min(2.0, max(0.25, wanted / seconds)))
            self.size = min(LARGEST_BATCH, max(SMALLEST_BATCH, self.size))
        if self.store.namespace.log_is_long:
            self._checkpoint()
        length = max(POLL_SECONDS, seconds / (BUSY_SHARE if self.busy else SHARE) - seconds)
        if self.limits.blobs:
            length = max(length, gone.blobs / self.limits.blobs)
        if self.limits.bytes:
            length = max(length, gone.bytes / self.limits.bytes)
        pause(length, self.stop)

    def _limited_size(self) -> int:
        """Rows of the next batch: of what a second allows no more than a tenth at a time."""
        return min(self.size, max(1, self.limits.blobs // 10)) if self.limits.blobs else self.size

    def _within_bytes(self, found: list[Orphan]) -> list[Orphan]:
        """As `_limited_size`, for their bytes; one at least, however large."""
        if not self.limits.bytes:
            return found
        sums = itertools.accumulate(orphan.size for orphan in found)
        return found[: max(1, sum(total <= self.limits.bytes // 10 for total in sums))]

    def _checkpoint(self) -> None:
        try:
            self.store.namespace.checkpoint(restart=False)
        except OSError as error:
            log.info("checkpoint put off: %s", error)

    # Strays, and what else a full run looks at

    def _collect_strays(self) -> None:
        for number, shard in enumerate(strays.scan(self.store, self.plan.cutoff_ns)):
            done = self.outcome
            first = (*done.first_missing, *shard.missing)[:MISSING_TOLD]
            self.outcome = replace(done, missing=done.missing + len(shard.missing), first_missing=first)
            self._remove_strays(shard.strays, self.plan.cutoff_ns)
            self.progress("comparing files with rows", number + 1, shard.of)
            pause(0, self.stop)

    def _remove_strays(self, found: list[Stray], cutoff_ns: int) -> None:
        while found:
            batch, found = found[: self.size], found[self.size :]
            seconds, gone = self._stray_batch(batch, cutoff_ns)
            done = self.outcome
            size = done.stray_bytes + gone.bytes
            self.outcome = replace(done, strays=done.strays + gone.blobs, stray_bytes=size)
            self._between_batches(seconds, gone)

    def _stray_batch(self, found: list[Stray], cutoff_ns: int) -> tuple[float, Amount]:
        """One batch of strays: how long it took, and what has gone."""
        store = self.store
        enter_turnstile(store, self.stop)
        try:
            self.busy = begin(store, self.stop)
            since = time.monotonic()
            old = recheck_strays(store, self.holds, found, cutoff_ns)
            Collecting(store.namespace).update_run(self.record)
            commit_rows(store, 1)
            sync_rows(store)
            gone = unlink_strays(store, old, self.failures)
        finally:
            end(store)
            leave_turnstile(store)
        return time.monotonic() - since, gone

    def _look_at_counts(self) -> None:
        rows = Collecting(self.store.namespace)
        highest = max(0, rows.highest_id())
        sample = sorted(random.sample(range(1, highest + 1), min(SAMPLE, highest)))
        self.outcome = replace(self.outcome, miscounted=rows.miscounted(sample))

    def _try_again(self) -> None:
        """Files that could not be unlinked have no row any more: they are strays by now, of any age."""
        again, self.failures.kept, self.failures.in_a_row = self.failures.kept, [], 0
        try:
            self._remove_strays([failure.stray for failure in again], time.time_ns())
        except (Stopped, _TooManyFailures):
            blobs = self.store.filestore.blobs
            self.failures.kept = [fail for fail in again if blobs.size(fail.stray.digest) is not None]
            raise


class _TooManyFailures(Exception):
    """Too many files in a row could not be unlinked: the next ones will not be either."""
