"""The steps in which a batch of blobs is removed, beside other processes that publish some.

One batch of orphans goes in these steps, each a function here:

    enter_turnstile   from here on no other process can BEGIN a write transaction
    begin             ... and from here on none has one: no blob is being published or found again
    recheck           still nothing refers to them, they are old enough, no pin and no snapshot holds them
    (I8) delete_rows
    commit_rows       COMMIT, which others see once it is durable (Namespace, `shared`)
    sync_rows         fdatasync of the log: a row must not come back after its file has gone (I3)
    unlink_files      still in the turnstile: nobody can write these contents anew before they are gone
    leave_turnstile

and one of strays, files that have no row (strays.py), in these:

    enter_turnstile, begin, recheck_strays, commit_rows, sync_rows, unlink_strays, leave_turnstile

What is committed there matters little (the record of the run), but that it is: a row may have gone, or have
come, by a commit that is in the log and not yet durable, or that a SIGKILL has cut off there. Power would
decide about it after its file has gone; a commit behind it, or in its place, settles it before.

A crash after any of them leaves garbage at the most.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from casfs.errors import StoreLocked
from casfs.maintenance.collect import strays
from casfs.maintenance.collect.strays import Stray
from casfs.namespace.collecting import Amount, Collecting, Orphan
from casfs.snapshots.holding import Holds
from casfs.store import Store

log = logging.getLogger(__name__)

POLL_SECONDS = 0.001
"""How often the collector looks whether it can enter or begin."""

TURN_SECONDS = 60.0
"""How long it waits for another process that writes (a commit of the mount daemon; a repair takes longer)."""

FAILURES_IN_A_ROW = 10
"""Files that cannot be unlinked, one after the other, after which a run ends."""

FAILURES_KEPT = 1_000
"""Files that could not be unlinked and are tried again at the end; a full run finds all."""

FREED_LATER = 1 << 20
"""Bytes from which a file is kept open while it is unlinked, so that freeing its blocks, which takes most of
the time, comes after the turnstile."""

HELD_OPEN = 64
"""Files so kept open at a time."""

Stop = Callable[[], bool]
"""Is the run to end after the batch it is in? Called often."""


def never() -> bool:
    """The `Stop` of a run that nobody interrupts."""
    return False


class Failure(NamedTuple):
    """A file that could not be unlinked."""

    stray: Stray
    reason: str


@dataclass
class Failures:
    """Files that could not be unlinked: the first of them, how many others, how many since the last success.

    `untried`: files of deleted rows that are left because too many others failed.
    """

    kept: list[Failure] = field(default_factory=list)
    others: int = 0
    in_a_row: int = 0
    untried: int = 0

    def add(self, stray: Stray, error: OSError) -> None:
        self.in_a_row += 1
        self.note(stray, error.strerror or str(error))

    def note(self, stray: Stray, reason: str) -> None:
        if len(self.kept) < FAILURES_KEPT:
            self.kept.append(Failure(stray, reason))
        else:
            self.others += 1

    @property
    def count(self) -> int:
        return len(self.kept) + self.others + self.untried

    @property
    def too_many(self) -> bool:
        return self.in_a_row >= FAILURES_IN_A_ROW


def enter_turnstile(store: Store, stop: Stop) -> None:
    """Keep others from beginning a write transaction. Raises Stopped."""
    assert store.turnstile is not None
    while not store.turnstile.try_enter():
        pause(POLL_SECONDS, stop)


def begin(store: Store, stop: Stop) -> bool:
    """Wait until the transaction of another process has ended, and begin one; was there one to wait for?

    Raises Stopped, StoreLocked.
    """
    deadline = time.monotonic() + TURN_SECONDS
    waited = False
    while not store.namespace.try_begin():
        waited = True
        if time.monotonic() > deadline:
            raise StoreLocked(f"the database of {store.path} is written by another process", "try it later")
        pause(POLL_SECONDS, stop)
    return waited


def recheck(
    store: Store,
    holds: Holds,
    ids: list[int],
    cutoff_ns: int,
    now_ns: int,
    asked: Collection[tuple[int, int]] = (),
) -> list[Orphan]:
    """Those of the orphans that are still due, as nobody can change it any more (I8). `asked`: snapshots that
    are known not to refer to them. Raises FormatError for one that cannot be asked."""
    return not_held(holds, Collecting(store.namespace).still_due(ids, cutoff_ns, now_ns), asked)


def not_held(holds: Holds, orphans: list[Orphan], asked: Collection[tuple[int, int]] = ()) -> list[Orphan]:
    """Those to which no snapshot refers."""
    held = holds.held([orphan.digest for orphan in orphans], asked)
    return [orphan for orphan in orphans if orphan.digest not in held]


def delete_rows(store: Store, orphans: list[Orphan]) -> None:
    """Rows go before files (I3)."""
    Collecting(store.namespace).delete([orphan.id for orphan in orphans])


def commit_rows(store: Store, operations: int) -> None:
    """COMMIT; on a full disk it fails before, with nothing lost."""
    store.namespace.reserve_log(operations)
    store.namespace.commit()


def sync_rows(store: Store) -> None:
    """Make what was committed durable: else power may bring a row back whose file has gone (I1)."""
    store.namespace.sync_log()


def unlink_files(
    store: Store, orphans: list[Orphan], failures: Failures, *, condemned: bool = False
) -> Amount:
    """Unlink the files of deleted rows, or those that still are condemned; what has gone. Those that cannot
    be unlinked have become strays."""
    filestore = store.filestore
    blobs = size = 0
    for number, orphan in enumerate(orphans):
        try:
            if not condemned:
                filestore.remove(orphan.digest)
            elif not filestore.remove_condemned(orphan.digest, orphan.size):
                continue
            size += orphan.size
        except FileNotFoundError:
            log.debug("blob %s was gone before it was collected", orphan.digest.hex())
        except OSError as error:
            failures.add(Stray(orphan.digest, orphan.size), error)
            if failures.too_many:
                failures.untried += len(orphans) - number - 1
                break
            continue
        blobs += 1
        failures.in_a_row = 0
    return Amount(blobs, size)


def recheck_strays(store: Store, holds: Holds, found: list[Stray], cutoff_ns: int) -> list[Stray]:
    """Those that have no row, are still old, and of which no snapshot knows. No other transaction is open, so
    none holds a row back."""
    digests = [stray.digest for stray in found]
    known = Collecting(store.namespace).known(digests) | holds.held(digests)
    blobs = store.filestore.blobs
    return [
        stray
        for stray in found
        if stray.digest not in known and strays.is_old(blobs, stray.digest, cutoff_ns)
    ]


def unlink_strays(store: Store, found: list[Stray], failures: Failures) -> Amount:
    """Unlink files without a row; what has gone."""
    count = size = 0
    for stray in found:
        try:
            store.filestore.remove(stray.digest)
        except FileNotFoundError:
            continue
        except OSError as error:
            failures.add(stray, error)
            if failures.too_many:
                break
            continue
        count, size = count + 1, size + stray.size
        failures.in_a_row = 0
    return Amount(count, size)


def end(store: Store) -> None:
    """End a transaction that has changed nothing."""
    store.namespace.rollback()


def leave_turnstile(store: Store) -> None:
    assert store.turnstile is not None
    store.turnstile.leave()


class Stopped(Exception):
    """Somebody wants the run to end."""


def pause(seconds: float, stop: Stop) -> None:
    """Sleep, but no longer than a moment after `stop` says so. Raises Stopped then."""
    ends = time.monotonic() + seconds
    while True:
        if stop():
            raise Stopped
        left = ends - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, 0.1))


@contextlib.contextmanager
def transaction(store: Store, stop: Stop = never, *, durable: bool = True) -> Iterator[Collecting]:
    """A write transaction beside a mount daemon or alone, undone by an exception.

    `durable`: so at its end, with all commits before it. Raises Stopped, StoreLocked, DatabaseError, OSError.
    """
    with turn(store, stop):
        yield Collecting(store.namespace)
        commit_rows(store, 64)
    if durable:
        sync_rows(store)


@contextlib.contextmanager
def turn(store: Store, stop: Stop) -> Iterator[None]:
    """The turnstile, and a transaction that is undone if it is still open at the end."""
    enter_turnstile(store, stop)
    try:
        begin(store, stop)
        try:
            yield
        finally:
            end(store)
    finally:
        leave_turnstile(store)


def hold_open(store: Store, orphans: list[Orphan], held: list[int]) -> None:
    """Have large files open while they are unlinked."""
    for orphan in orphans:
        if orphan.size >= FREED_LATER and len(held) < HELD_OPEN:
            with contextlib.suppress(OSError):
                held.append(store.filestore.blobs.hold(orphan.digest))
