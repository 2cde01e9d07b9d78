"""Digests written by the daemon that has the store mounted, because who computes them asks it to.

Who writes them by himself has the daemon commit for him first, and then keeps it from beginning a transaction
until his own commit is durable: its requests wait for two syncs of the disk. Here they wait for nothing, and
the rows are durable with the commit that is due anyway, if others write too.
"""

from __future__ import annotations

from casfs.fs.filesystem import FileSystem
from casfs.maintenance.collect.batch import never
from casfs.maintenance.collect.mounted import next_commit
from casfs.namespace.digests import DigestRow, DigestRun

STEP = 32
"""Rows that are written before other requests are served again, less than a millisecond."""


async def add(fs: FileSystem, rows: list[DigestRow], run: DigestRun, *, durable: bool) -> None:
    """Write digests of blobs that may have gone meanwhile, and how far the run has come that computes them.

    `durable`: return when they are so. Raises FsError EROFS, OSError.
    """
    busy = fs.group.active
    digests = fs.store.namespace.digests
    for start in range(0, len(rows), STEP):
        await fs.group.begin()
        step = rows[start : start + STEP]
        digests.add_to_present(step)
        fs.group.count(len(step))
        if fs.group.must_wait:
            await fs.group.committed()
        await fs.scheduler.give_way()
    await fs.group.begin()
    digests.save_run(run)
    fs.group.count()
    if durable and busy:
        await next_commit(fs, never)
    elif durable:
        await fs.group.committed()
