"""Scrubbing: every blob is read and compared with its digest, while the store is in use or not.

A pass goes through the blobs by their ids. How far it has come is kept in the database, so that the next
one who scrubs goes on there. What is bad is taken out of the way: reading it then gives EIO, not wrong
bytes, and the next write of the same content, or `heal`, puts the blob back.
"""

from __future__ import annotations

import contextlib
import logging
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from casfs.errors import CasfsError, StoreLocked
from casfs.filestore.locks import Lock
from casfs.maintenance.check.digests import digest_checks
from casfs.maintenance.check.problems import Kind
from casfs.maintenance.check.repair_files import Quarantine
from casfs.maintenance.collect.batch import transaction
from casfs.maintenance.progress import Progress, unwatched
from casfs.maintenance.scrub.verify import Bad, Batch, Identity, Interrupted, Verifier, never
from casfs.namespace.checks import Checks
from casfs.namespace.damage import BlobToRead, Pass
from casfs.namespace.digests import DigestRow
from casfs.store import Store
from casfs.store import scrub_lock as lock_of_scrubs

log = logging.getLogger(__name__)

PERIOD = 30 * 86400.0
"""Seconds in which a daemon reads each blob at least once, if nothing else is asked for."""

BATCH_BLOBS = 256
"""Blobs that one thread reads in one go ..."""

BATCH_BYTES = 64 << 20
"""... unless they have more bytes than this, or take longer than BATCH_SECONDS at the rate asked for."""

BATCH_SECONDS = 2.0

SAVE_SECONDS = 5.0
"""So much of the work a SIGKILL may lose."""

READ_AGAIN = 1 << 20
"""Bytes up to which a bad file is read once more while nobody can write: a blob that is published in place
(filestore/local.py) may have been read half-written. Larger ones get their name when they are whole."""

ALL_PATHS = -1
"""No limit, as SQLite wants to be told."""

SLICE_SPEED = 4.0
"""A daemon that is behind reads so many times as fast as the period asks for ..."""

SLICE_RATE = 16 << 20
"""... and at this many bytes per second at least."""

Damaged = Callable[[list[int]], None]
"""Called with ids of blobs whose files are bad, after they were taken away: whoever has the store mounted
must invalidate what it has cached of them."""


@dataclass(frozen=True, slots=True)
class BadBlob:
    """A blob that is not what its name says, and what became of it.

    `kind`: slug of a kind of `problems`. `known`: it was noted before. `quarantined`: where its file is
    now, below the store; None when there is none to be moved. `paths`: every name it has, from the root of
    the mount.
    """

    digest: str
    size: int
    kind: str
    reason: str
    known: bool
    quarantined: str | None
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What one run did. `resumed`: it went on with a pass that another one began at `started_ns`;
    `complete`: it came to the pass's end. `cleared`: blobs that were noted as damaged and are whole again,
    or gone. `digests`: further ones that were wrong, and have got the value of the bytes. `known`: noted as
    damaged now, by any run. `blobs` and `bytes` were read by this run. `error`:
    why it ended early, "" when it did not."""

    store: str
    started_ns: int
    resumed: bool
    complete: bool
    blobs: int
    bytes: int
    seconds: float
    bad: tuple[BadBlob, ...]
    cleared: int
    digests: int
    known: int
    error: str


class Settlement:
    """Takes bad blobs out of the way, one transaction for each. `damaged`: who has to be told."""

    def __init__(self, store: Store, verifier: Verifier, damaged: Damaged) -> None:
        self._store = store
        self._verifier = verifier
        self._damaged = damaged
        self._blobs = store.filestore.blobs
        self._quarantine = Quarantine(store.directory)
        self._checks = Checks(store.namespace)

    def settle(self, bad: Bad) -> BadBlob | None:
        """Quarantine the file of a bad blob, if it still is, and note the damage. None when the blob was
        collected meanwhile, or got another, whole file. Raises StoreLocked, OSError, Interrupted."""
        found: Bad | None = bad
        while found is not None:
            taken = None
            try:
                with transaction(self._store):
                    if self._store.namespace.blobs.find(found.blob.digest) != found.blob.id:
                        return None
                    if self._is_as_it_was(found):
                        if self._is_small(found) and not self._verifier.is_bad(found.blob):
                            return None
                        taken = self._take(found)
            finally:
                if taken is not None:  # its file has gone, also when the note of that is not committed
                    self._damaged([found.blob.id])
            if taken is not None:
                return self._bad_blob(found, *taken)
            found = self._verifier.verify(found.blob)
        return None

    def _bad_blob(self, bad: Bad, known: bool, place: str | None) -> BadBlob:
        blob = bad.blob
        paths = self._checks.paths_of_blob(blob.id, ALL_PATHS).paths
        return BadBlob(blob.digest.hex(), blob.size, bad.kind.slug, bad.reason, known, place, paths)

    def _is_as_it_was(self, bad: Bad) -> bool:
        """Inside the transaction: nobody publishes, collects or heals now."""
        try:
            there = self._blobs.status(bad.blob.digest)
        except FileNotFoundError:
            return bad.kind is Kind.MISSING_BLOB
        return Identity.of(there) == bad.file

    def _is_small(self, bad: Bad) -> bool:
        if bad.file is None or bad.file.size > READ_AGAIN:
            return False
        return stat.S_ISREG(self._blobs.status(bad.blob.digest).st_mode)

    def _take(self, bad: Bad) -> tuple[bool, str | None]:
        """Quarantine and note; was it known, and where its file is now. The file goes first: when it ends
        here, the next scrub finds that it is missing."""
        blob, place = bad.blob, None
        if bad.kind is not Kind.MISSING_BLOB:
            place = self._quarantine.take(self._blobs.name(blob.digest))
            self._blobs.sync_names([blob.digest])
        return not self._store.namespace.damage.note(blob.id, bad.reason, time.time_ns()), place


class Scrub:
    """One run over the blobs of a store. Whoever makes it holds `scrub_lock`."""

    def __init__(
        self,
        store: Store,
        *,
        rate: float | None,
        progress: Progress,
        damaged: Damaged,
        stop: Callable[[], bool],
        restart: bool = False,
    ) -> None:
        """`rate`: bytes per second at the most. Raises DatabaseError."""
        self._store = store
        self._damage = store.namespace.damage
        self._rate = rate
        self._progress = progress
        self._count = 0
        self._counting = threading.Lock()
        self._wrong: deque[DigestRow] = deque()  # values that are right; any thread appends
        self._corrected = 0
        self._checks = digest_checks(store.namespace)
        self._verifier = Verifier(
            store.filestore.blobs, self._read, rate=rate, stop=stop, wrong=self._note_wrong
        )
        self._settlement = Settlement(store, self._verifier, damaged)
        self._total = self._damage.blob_bytes()
        last = None if restart else self._damage.last_pass()
        self._resumed = last is not None and not last.ended_ns
        self._pass = last if last is not None and not last.ended_ns else Pass(time.time_ns())
        self._read_until = self._pass.read_bytes
        self._saved_at = time.monotonic()
        self._last: int | None = None  # where the pass ends, once the list of blobs has been read to its end

    def run(self, limit: int | None = None) -> ScrubReport:
        """Read to the end of the pass, until about `limit` bytes are read, or a stop; what was read before is
        not read again. Raises StoreLocked, OSError; when it has found something, the report tells of that."""
        started = time.monotonic()
        known = set(self._damage.known())
        bad: list[BadBlob] = []
        blobs = cleared = 0
        complete = False
        failure: Exception | None = None
        try:
            with contextlib.closing(self._verifier.verified(self._batches(limit))) as verified:
                for batch, found in verified:
                    wrong = set()
                    for each in found:
                        settled = self._settlement.settle(each)
                        if settled is not None:
                            bad.append(settled)
                            wrong.add(each.blob.id)
                    whole = [blob.id for blob in batch if blob.id in known and blob.id not in wrong]
                    cleared += self._clear(whole)
                    self._correct()
                    self._advance(batch)
                    blobs += len(batch)
            complete = self._is_at_the_end()
        except Interrupted:
            log.debug("stopped while a bad file was read again; the next run goes on before its batch")
        except (CasfsError, OSError) as error:
            failure = error
        if complete:
            self._pass = self._pass._replace(ended_ns=time.time_ns())
        try:
            self._save()
            if complete:
                cleared += self._clear_strays()
        except (CasfsError, OSError) as error:
            failure = failure or error
        if failure is not None and not bad:
            raise failure
        seconds = time.monotonic() - started
        pass_started = self._pass.started_ns
        return ScrubReport(
            self._store.path,
            pass_started,
            self._resumed,
            complete,
            blobs,
            self._count,
            seconds,
            tuple(bad),
            cleared,
            self._corrected,
            len(self._damage.known()),
            str(failure or ""),
        )

    def _batches(self, limit: int | None) -> Iterator[Batch]:
        """The blobs from where the pass has come to."""
        most = min(BATCH_BYTES, int((self._rate or BATCH_BYTES) * BATCH_SECONDS))
        cursor, given = self._pass.cursor, 0
        while limit is None or given < limit:
            blobs = self._damage.blobs_after(cursor, BATCH_BLOBS)
            if not blobs:
                self._last = cursor
                return
            batch: Batch = []
            size = 0
            for blob in blobs:
                if batch and size + blob.size > most:
                    break
                batch.append(blob._replace(others=self._checks.sound(blob.id)))
                size += blob.size
            cursor = batch[-1].id
            given += size
            yield batch

    def _is_at_the_end(self) -> bool:
        """Is all read that was there when the blobs were listed last? Newer ones are for the next pass."""
        if self._last is not None:
            return self._pass.cursor >= self._last
        return not self._damage.blobs_after(self._pass.cursor, 1)

    def _read(self, count: int) -> None:
        with self._counting:
            self._count += count
            self._progress("reading blobs", min(self._total, self._read_until + self._count), self._total)

    def _advance(self, batch: Batch) -> None:
        size = sum(blob.size for blob in batch)
        self._pass = self._pass._replace(cursor=batch[-1].id, read_bytes=self._pass.read_bytes + size)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        with transaction(self._store, durable=False):
            self._damage.save_pass(self._pass)
        self._saved_at = time.monotonic()

    def _note_wrong(self, blob: BlobToRead, right: dict[str, bytes]) -> None:
        self._wrong.extend(DigestRow(blob.id, name, value) for name, value in right.items())

    def _correct(self) -> None:
        wrong = [self._wrong.popleft() for _ in range(len(self._wrong))]
        if wrong:
            with transaction(self._store):
                self._checks.correct(wrong)
            log.warning("%d further digests were wrong, and have been corrected", len(wrong))
            self._corrected += len(wrong)

    def _clear(self, blobs: list[int]) -> int:
        """These were read and are whole."""
        if not blobs:
            return 0
        with transaction(self._store):
            return sum(self._damage.clear(blob) for blob in blobs)

    def _clear_strays(self) -> int:
        with transaction(self._store):
            return self._damage.clear_strays()


def scrub_lock(store: Store) -> Lock:
    """Hold off a second scrub of the store. Raises StoreLocked."""
    lock = lock_of_scrubs(store.path)
    if not lock.acquire():
        raise StoreLocked(f"{store.path} is being scrubbed by {lock.holder()}")
    return lock


def scrub(
    store: Store,
    *,
    rate: float | None = None,
    period: float | None = None,
    restart: bool = False,
    progress: Progress,
    damaged: Damaged,
    stop: Callable[[], bool] = never,
) -> ScrubReport:
    """Go on with the pass that is under way, or make a new one, to its end.

    `rate`: bytes per second at the most; `period`: seconds that a whole pass shall take. `stop` is asked
    often whether to end early, by any thread. Raises StoreLocked, DatabaseError, OSError.
    """
    lock = scrub_lock(store)
    try:
        if period is not None:
            rate = max(1.0, store.namespace.damage.blob_bytes() / period)
        run = Scrub(store, rate=rate, progress=progress, damaged=damaged, stop=stop, restart=restart)
        return run.run()
    finally:
        lock.release()


def scrub_slice(
    store: Store,
    *,
    period: float = PERIOD,
    damaged: Damaged,
    stop: Callable[[], bool] = never,
) -> ScrubReport | None:
    """What a daemon does now and then, so that a pass is done `period` seconds after the last one began.

    Reads what is due by now, at a moderate rate; None when nothing is. Raises StoreLocked, also while
    somebody scrubs by hand; DatabaseError, OSError.
    """
    lock = scrub_lock(store)
    try:
        last = store.namespace.damage.last_pass()
        total = store.namespace.damage.blob_bytes()
        elapsed = 0.0 if last is None else (time.time_ns() - last.started_ns) / 1e9
        if last is not None and last.ended_ns:
            if 0 <= elapsed < period:
                return None
            last, elapsed = None, 0.0
        due = int(total * min(1.0, max(0.0, elapsed) / period)) - (0 if last is None else last.read_bytes)
        if last is not None and due <= 0 and elapsed < period:
            return None
        rate = max(SLICE_SPEED * total / period, SLICE_RATE)
        run = Scrub(store, rate=rate, progress=unwatched, damaged=damaged, stop=stop)
        return run.run(limit=max(due, 1) if elapsed < period else None)
    finally:
        lock.release()
