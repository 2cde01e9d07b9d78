"""Computing the digests that blobs lack, while the store is in use or not.

Blobs are found by their ids, read by threads, each once for all that it lacks, and what was computed of some
is written in one go, with how far the run has come: by the daemon of a mount (mounted.py), or without one in
a short transaction. Whatever ends it, what was committed is done, and the next run goes on with what is
lacking. Digests are only written of bytes that have the BLAKE3 digest of the blob. One that is bad is taken
out of the way, as a scrub does it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from casfs.errors import CasfsError, StoreLocked
from casfs.filestore.locks import Lock
from casfs.maintenance.collect.batch import Stop, Stopped, commit_rows, never, pause, turn
from casfs.maintenance.digests.lacking import Find, Lack, Lacking, all_wanted, amount_lacking
from casfs.maintenance.progress import Progress
from casfs.maintenance.scrub.scrub import BadBlob, Damaged, Settlement
from casfs.maintenance.scrub.verify import Bad, Interrupted, Verifier
from casfs.namespace.digests import DigestRow, DigestRun
from casfs.store import Store, scrub_lock
from casfs.store import digests_lock as lock_of_digests
from casfs.text import printable

log = logging.getLogger(__name__)

LOG_SECONDS = 60.0
"""So often a run writes to the log how far it has come."""

PART = 100
"""Blobs whose digests a mount is asked to write at a time: what a request may hold, of all algorithms."""

NICENESS = 10
"""Of threads that read and hash, setpriority(2), in a run that leaves the machine to others."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of the machine a run uses.

    `workers`: threads that read and hash. `batch`: blobs whose digests are written in one go, unless they
    have more than `batch_bytes` together; `sleep`: seconds between two. `step`: blobs that are looked up at a
    time. `rate`: bytes that are read each second at the most; None = no limit. `niceness`: of the threads.
    """

    workers: int
    batch: int
    batch_bytes: int
    sleep: float
    step: int
    rate: float | None
    niceness: int


BESIDE_OTHERS = Pace(
    workers=2, batch=100, batch_bytes=64 << 20, sleep=1.0, step=1_000, rate=32 << 20, niceness=NICENESS
)
"""Programs that use the store do not notice it: rows are few with each commit, threads give way to all
others, and less is read than any disk has to give. A million small blobs take three and a half hours."""

FAST = Pace(
    workers=max(2, os.cpu_count() or 1),
    batch=5_000,
    batch_bytes=1 << 30,
    sleep=0.0,
    step=10_000,
    rate=None,
    niceness=0,
)
"""A SIGKILL takes a second or two of it; and after each batch it waits for a commit of a mount that others
write to."""


class Computed(NamedTuple):
    """The digests of a blob, of so many bytes, that it lacked."""

    size: int
    rows: list[DigestRow]


ByMount = Callable[[list[DigestRow], DigestRun, bool], bool]
"""Has the daemon that has the store mounted `add` (mounted.py), durable or not; False when there is none."""


def unmounted(_rows: list[DigestRow], _run: DigestRun, _durable: bool) -> bool:
    """The `ByMount` of a run that writes everything by itself."""
    return False


@dataclass(frozen=True, slots=True)
class DigestReport:
    """What one run did: `blobs`, of so many `bytes`, got `digests` digests. `resumed`: it went on with a run
    that was cut off; `complete`: nothing lacks any that could be computed. `bad`: blobs that were found to be
    damaged; `known` to be damaged are so many now. `error`: why it ended early, "" when it did not."""

    store: str
    wanted: tuple[str, ...]
    started_ns: int
    resumed: bool
    complete: bool
    blobs: int
    bytes: int
    digests: int
    seconds: float
    bad: tuple[BadBlob, ...]
    known: int
    error: str


def add_digests(
    store: Store,
    *,
    pace: Pace,
    progress: Progress,
    damaged: Damaged,
    stop: Stop = never,
    mount: ByMount = unmounted,
    find: Find | None = None,
) -> DigestReport:
    """Compute what is lacking, to the end or a stop. Whoever calls it holds the lock of `digests_lock`.

    `find`: what that is, if it is another than what the store and its repositories want. Raises StoreLocked,
    DatabaseError, OSError, and what `mount` does; when something damaged was found, the report tells of that.
    """
    run = _Run(store, pace, progress, damaged, stop, mount, find or Lacking(store.namespace).find)
    return run.run()


def digests_lock(store: str) -> Lock:
    """Hold off a second run on the store at that path. Raises StoreLocked, OSError."""
    lock = lock_of_digests(store)
    if not lock.acquire():
        raise StoreLocked(
            f"digests of {store} are being computed by {lock.holder()}",
            "it computes all that are wanted; 'casfs digests --status' tells how far it is",
        )
    return lock


class _Run:
    def __init__(
        self,
        store: Store,
        pace: Pace,
        progress: Progress,
        damaged: Damaged,
        stop: Stop,
        mount: ByMount,
        find: Find,
    ) -> None:
        self._store = store
        self._digests = store.namespace.digests
        self._pace = pace
        self._progress = progress
        self._stop = stop
        self._mount = mount
        self._find = find
        self._verifier = Verifier(store.filestore.blobs, self._read, rate=pace.rate, stop=stop)
        self._settlement = Settlement(store, self._verifier, damaged)
        last = self._digests.last_run()
        self._resumed = last is not None and not last.ended_ns
        self._state = last if last is not None and not last.ended_ns else DigestRun(time.time_ns())
        self._first = self._state
        self._added = 0
        self._bad: list[BadBlob] = []
        self._given_up: set[int] = set()
        self._counting = threading.Lock()
        self._count = 0  # bytes, owned by whoever holds _counting
        self._total = 0
        self._logged = time.monotonic()

    def run(self) -> DigestReport:
        started = time.monotonic()
        complete = False
        failure: Exception | None = None
        try:
            complete = self._all()
        except Stopped:
            log.info("stopped; the next run goes on here")
        except (CasfsError, OSError) as error:
            log.error("ended early: %s", error)
            failure = error
        if failure is not None and not self._bad:
            raise failure
        wanted = all_wanted(self._store.namespace)
        blobs, size = self._state.blobs - self._first.blobs, self._state.bytes - self._first.bytes
        return DigestReport(
            self._store.path,
            wanted,
            self._state.started_ns,
            self._resumed,
            complete,
            blobs,
            size,
            self._added,
            time.monotonic() - started,
            tuple(self._bad),
            len(self._store.namespace.damage.known()),
            str(failure or ""),
        )

    def _all(self) -> bool:
        """Until nothing is lacking; False when there was nothing at all. Raises Stopped."""
        step = self._find(0, self._pace.step)
        if not step and not self._resumed:
            return True
        wanted = all_wanted(self._store.namespace)
        _, self._total = amount_lacking(self._store.namespace)
        log.info("%s: computing %s", "going on" if self._resumed else "begun", " ".join(wanted))
        self._write([])
        tried = -1
        with self._workers() as workers:
            while step:
                for batch in self._batches(step):
                    self._one_batch(batch, workers)
                last = step[-1].blob.id
                step = self._find(last, self._pace.step)
                if not step and self._state.blobs != tried:
                    # Those that were being written when an algorithm came, and those that lack one that came
                    # meanwhile, are anywhere.
                    tried = self._state.blobs
                    step = self._find(0, self._pace.step)
        self._state = self._state._replace(ended_ns=time.time_ns())
        self._write([])
        log.info("done: %d blobs, %d bytes, %d damaged", *self._state[1:4])
        return True

    @contextlib.contextmanager
    def _workers(self) -> Iterator[ThreadPoolExecutor]:
        """They have nothing to do while this thread writes: one that is nice would hold the interpreter's
        lock for long while others wait for the transaction."""
        with ThreadPoolExecutor(self._pace.workers, initializer=self._be_nice) as workers:
            yield workers

    def _be_nice(self) -> None:
        if self._pace.niceness:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._pace.niceness)

    def _batches(self, step: list[Lack]) -> Iterator[list[Lack]]:
        batch: list[Lack] = []
        size = 0
        for lack in step:
            if lack.blob.id in self._given_up:
                continue
            if batch and (len(batch) >= self._pace.batch or size + lack.blob.size > self._pace.batch_bytes):
                yield batch
                batch, size = [], 0
            batch.append(lack)
            size += lack.blob.size
        if batch:
            yield batch

    def _one_batch(self, batch: list[Lack], workers: ThreadPoolExecutor) -> None:
        """Read, write and rest; what was read when a stop comes is written too. Raises Stopped."""
        if self._stop():
            raise Stopped
        futures = [workers.submit(self._verifier.digests, *lack) for lack in batch]
        computed: list[Computed] = []
        bad: list[Bad] = []
        failure: Exception | None = None
        for lack, future in zip(batch, futures, strict=True):
            try:
                found = future.result()
            except Interrupted:
                failure = Stopped()
            except OSError as error:
                failure = error
            else:
                if isinstance(found, Bad):
                    bad.append(found)
                else:
                    rows = [DigestRow(lack.blob.id, name, value) for name, value in found.items()]
                    computed.append(Computed(lack.blob.size, rows))
        if computed:
            self._write(computed)
        for each in bad:
            self._settle(each)
        if failure is not None:
            raise failure
        self._tell()
        pause(self._pace.sleep, self._stop)

    def _write(self, computed: list[Computed]) -> None:
        """Have it durable, with the state of the run. A stop does not keep it from what was computed."""
        while True:
            part, computed = computed[:PART], computed[PART:]
            if not self._mount(*self._with(part), not computed):
                part, computed = [*part, *computed], []
                self._write_alone(*self._with(part))
            rows, self._state = self._with(part)
            self._added += len(rows)
            if not computed:
                return

    def _with(self, part: list[Computed]) -> tuple[list[DigestRow], DigestRun]:
        """The rows of these, and the state of the run once it has them."""
        blobs, size = self._state.blobs + len(part), self._state.bytes + sum(each.size for each in part)
        return [row for each in part for row in each.rows], self._state._replace(blobs=blobs, bytes=size)

    def _write_alone(self, rows: list[DigestRow], state: DigestRun) -> None:
        with turn(self._store, never):
            self._digests.add_to_present(rows)
            self._digests.save_run(state)
            commit_rows(self._store, 64 + len(rows))
        if self._store.namespace.log_is_long:
            with contextlib.suppress(OSError):
                self._store.namespace.checkpoint(restart=False)

    def _settle(self, bad: Bad) -> None:
        """Quarantine it, unless somebody reads or mends all blobs now: he will see it himself."""
        blob = bad.blob
        lock = scrub_lock(self._store.path)
        if lock.acquire():
            try:
                settled = self._settlement.settle(bad)
            except Interrupted:
                raise Stopped from None
            finally:
                lock.release()
            if settled is None:
                return  # collected, or whole, by now
        else:
            log.info("blob %s is left to %s", blob.digest.hex(), lock.holder())
            settled = BadBlob(blob.digest.hex(), blob.size, bad.kind.slug, bad.reason, False, None, ())
        self._bad.append(settled)
        self._given_up.add(blob.id)
        self._state = self._state._replace(damaged=self._state.damaged + 1)
        log.error("blob %s is damaged: %s; see casfs scrub, casfs heal", settled.digest, settled.reason)
        for path in settled.paths:
            log.error("  %s", printable(path))

    def _read(self, count: int) -> None:
        with self._counting:
            self._count += count
            total = max(self._total, self._count)
            self._progress("computing digests", self._count, total)

    def _tell(self) -> None:
        if time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            log.info("%d blobs, %d bytes so far", self._state.blobs, self._state.bytes)
