"""A batch of orphans removed by the daemon that has the store mounted, because the collector asks it to.

What the collector removes by itself (batch.py) keeps everybody from beginning a transaction until the files
have gone. Here nobody waits for that. One batch goes in these steps:

    take            in the open transaction, some rows at a time: still nothing refers to them, on disk or in
                    memory (I8); their rows go, and their digests are condemned
    durable         the commit that is due anyway, if others write too (I3)
    unlink_files    in a thread, what is still condemned

Who has a content again that is condemned spares it (Sealing._find_or_publish): its new row takes the file
over as it is. Nothing may be written in its place before the old row's end is durable, since power could
bring that row back. When the daemon dies, or a batch fails, files without rows are left, which a full run of
the collector finds.
"""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from casfs.fs.filesystem import FileSystem
from casfs.maintenance.collect.batch import Failures, never, not_held, unlink_files
from casfs.namespace.collecting import Amount, Collecting, Orphan, Record
from casfs.snapshots.holding import Holds

STEP = 16
"""Orphans whose rows are deleted before other requests are served again, about half a millisecond."""

BUSY_BATCH = 200
IDLE_BATCH = 1_000
"""Orphans removed with one commit when others write too, and when nobody does."""

COMMIT_SECONDS = 2.0
COMMIT_POLL = 0.05
"""Seconds to wait for a commit that comes by itself, and how often to look."""


Urgent = Callable[[], bool]
"""Does somebody wait for the room, so that the commit of others is not to be waited for?"""

UNRECORDED = Record(0, 0, 0, 0, 0)
"""Of a run that is not written down."""


class Collected(NamedTuple):
    """What has gone; which files could not be unlinked, as (digest, size, reason); how many were not tried
    since it `gave_up`. `busy`: others wrote too."""

    gone: Amount
    failures: list[tuple[bytes, int, str]]
    untried: int
    gave_up: bool
    busy: bool


async def collect(
    fs: FileSystem, ids: list[int], cutoff_ns: int, now_ns: int, record: Record, *, urgent: Urgent = never
) -> Collected:
    """Remove those of the orphans that are still due. `record`: what the run has done before, to be written
    down.

    One batch at a time: the collector may be killed, and another one ask, while one goes on, whose thread
    would take what the next one has condemned and not committed. Raises FsError EROFS, OSError; then rows may
    have gone whose files are left.
    """
    async with fs.collecting:
        return await _collect(fs, ids, cutoff_ns, now_ns, record, urgent)


async def _collect(
    fs: FileSystem, ids: list[int], cutoff_ns: int, now_ns: int, record: Record, urgent: Urgent
) -> Collected:
    busy = fs.group.active
    if busy and fs.group.is_half_full:
        await next_commit(fs, urgent)
    taken: list[Orphan] = []
    failures = Failures()
    rows = Collecting(fs.store.namespace)
    # Many snapshots take long: a thread asks them, and `_take` only those that come meanwhile.
    digests = {orphan.digest for orphan in rows.still_due(ids, cutoff_ns, now_ns)}
    free = digests - await fs.scheduler.run(fs.holds.held, digests)
    asked = fs.holds.asked
    await fs.group.begin()
    rows.update_run(record)
    for start in range(0, len(ids), STEP):
        await fs.group.begin()
        taken += _take(fs, ids[start : start + STEP], cutoff_ns, now_ns, free, asked)
        asked &= fs.holds.asked  # not of one that has got the number of one that went
        if fs.group.must_wait:
            await fs.group.committed()
        await fs.scheduler.pause()
    if busy:
        await next_commit(fs, urgent)
    else:
        await fs.group.committed()
    gone = await fs.scheduler.run(_unlink_condemned, fs, taken, failures)
    kept = [(stray.digest, stray.size, reason) for stray, reason in failures.kept]
    return Collected(gone, kept, failures.others + failures.untried, failures.too_many, busy)


async def collect_oldest(
    fs: FileSystem,
    cutoff_ns: int,
    *,
    wanted: Callable[[Amount], int],
    urgent: Urgent = never,
    record: Record = UNRECORDED,
) -> Amount:
    """Remove orphans, the oldest first, while so many more bytes are `wanted` after what has gone, which it
    gives.

    Those that came before `cutoff_ns`, in nanoseconds since 1970, and that no pin holds. For the daemon
    itself, which may do so whenever it likes. Raises as `collect`; what it was cancelled in is done.
    """
    holds = Holds(fs.store.directory)  # of threads, which may take their time
    try:
        return await _collect_oldest(fs, holds, cutoff_ns, wanted, urgent, record)
    finally:
        holds.close()


async def _collect_oldest(
    fs: FileSystem,
    holds: Holds,
    cutoff_ns: int,
    wanted: Callable[[Amount], int],
    urgent: Urgent,
    record: Record,
) -> Amount:
    rows = Collecting(fs.store.namespace)
    now_ns = time.time_ns()
    after, done = (-1, 0), Amount(0, 0)
    while (more := wanted(done)) > 0:
        size = BUSY_BATCH if fs.group.active else IDLE_BATCH
        found = rows.due(cutoff_ns, now_ns, after, size)
        if not found:
            break
        last = found[-1]
        found = await fs.scheduler.run(not_held, holds, found)
        if not found:
            after = (last.orphaned_ns, last.id)
            continue
        sums = itertools.accumulate(orphan.size for orphan in found)
        found = found[: 1 + sum(total < more for total in sums)]  # the last one makes it enough
        after = (found[-1].orphaned_ns, found[-1].id)  # what is held behind it comes again, and is held
        ids = [orphan.id for orphan in found]
        collected = await collect(fs, ids, cutoff_ns, now_ns, record, urgent=urgent)
        done = Amount(done.blobs + collected.gone.blobs, done.bytes + collected.gone.bytes)
        failed = record.failures + len(collected.failures) + collected.untried
        record = record._replace(blobs=done.blobs, bytes=done.bytes, failures=failed)
        if collected.gave_up:
            raise OSError(errno.EIO, f"files of orphans cannot be removed: {collected.failures[-1][2]}")
    return done


def _take(
    fs: FileSystem,
    ids: list[int],
    cutoff_ns: int,
    now_ns: int,
    free: Collection[bytes],
    asked: Collection[tuple[int, int]],
) -> list[Orphan]:
    """Delete the rows of those that are due. Inside a transaction; nobody else runs meanwhile. `free`: not
    held by the snapshots that were `asked`; of others nobody has asked."""
    rows = Collecting(fs.store.namespace)
    due = [orphan for orphan in rows.still_due(ids, cutoff_ns, now_ns) if not fs.inodes.counts(orphan.id)]
    due = not_held(fs.holds, [orphan for orphan in due if orphan.digest in free], asked)
    rows.delete([orphan.id for orphan in due])
    fs.store.filestore.condemn(orphan.digest for orphan in due)
    fs.group.count(len(due))
    return due


def _unlink_condemned(fs: FileSystem, taken: list[Orphan], failures: Failures) -> Amount:
    return unlink_files(fs.store, taken, failures, condemned=True)


async def next_commit(fs: FileSystem, urgent: Urgent) -> None:
    """Return when what was done until now is durable, by a commit of others if one comes soon."""
    number = fs.group.number
    deadline = fs.scheduler.now() + COMMIT_SECONDS
    while not fs.group.is_durable(number):
        if urgent() or fs.scheduler.now() > deadline:
            await fs.group.committed()
        await fs.scheduler.run(time.sleep, COMMIT_POLL)
