"""Clean-up of integrations (to Maven: snapshots): of one base revision, classifier and extension no more
than the rules keep.

The oldest ones go to the trash, with their checksums and signatures and the directories that they leave
empty; as if a program had removed them, so that whatever keeps a program from that keeps this from it. What
does not parse, releases and the newest snapshot stay, and nothing goes while a module is still published.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from casfs.errors import FsError
from casfs.fs.filesystem import FileSystem
from casfs.layouts.versions import Order
from casfs.namespace.integrations import IntegrationFile, Series
from casfs.repositories.filesystem import follower_of, policy_of, registry_of
from casfs.repositories.registry import Repository
from casfs.store import Store
from casfs.trash.policy import ROW_BYTES
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

QUIET_NS = 60 * 10**9
"""So long no file of a module may have come, or changed. If the trash takes only what is older: that long."""

STEP = 32
"""Files that are removed before other requests are served: about 3 ms."""

NO_VERSIONS = frozenset({"maven"})
"""Orders that do not say which of two integration revisions is the older one."""

_TIME = re.compile(r"(\d{8})\.?(\d{6})(?:-\d+)?", re.ASCII)


@dataclass(slots=True)
class Cleaned:
    """What has gone to the trash. `waits`: there is more, which is not quiet yet, or in use."""

    files: int = 0
    waits: bool = False


def wanted(fs: FileSystem) -> list[Repository]:
    """Repositories whose rules keep no more than so many snapshots."""
    return [
        repository
        for repository in registry_of(fs).repositories.values()
        if repository.rules.max_unique_snapshots > 0
        and not repository.rules.read_only
        and repository.layout is not None
    ]


async def clean(fs: FileSystem, now_ns: int, limit: int | None = None) -> Cleaned:
    """Of all repositories, as of the last commit, until `limit` files have gone. What cannot be removed is
    logged; where there is no trash nothing is. Raises OSError."""
    cleaned = Cleaned()
    for repository in wanted(fs) if not policy_of(fs).trash.off else ():
        most = repository.rules.max_unique_snapshots
        for series in await fs.scheduler.run(crowded, fs.store.path, repository.ino, most):
            if fs.group.failed or (limit is not None and cleaned.files >= limit):
                return cleaned
            try:
                await _clean(fs, repository, series, now_ns, cleaned)
            except FsError as error:
                cleaned.waits = True
                log.warning(
                    "snapshots of %s:%s %s are not cleaned up: %s",
                    *(series.organisation, series.module, series.base, error.strerror),
                )
    return cleaned


def crowded(store: str, repository: int, most: int) -> list[Series]:
    """As `IntegrationRows.crowded`, of the last commit. Blocks, for as long as it takes to count them."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return opened.namespace.integrations.crowded(repository, most)


async def _clean(
    fs: FileSystem, repository: Repository, series: Series, now_ns: int, cleaned: Cleaned
) -> None:
    rows = fs.store.namespace.integrations
    quiet_ns = max(QUIET_NS, policy_of(fs).trash.minimal_age_ns)
    await follower_of(fs).drain()
    if not await _follows(fs):
        cleaned.waits = True
        return
    changed_ns = rows.last_change_ns(series)
    if changed_ns is None or changed_ns > now_ns - quiet_ns:
        cleaned.waits = True
        return
    assert repository.layout is not None
    old = oldest(rows.files(series), repository.rules.max_unique_snapshots, repository.layout.order)
    for number, file in enumerate(old):
        if number % STEP == STEP - 1:
            if fs.group.is_long or fs.group.must_wait:
                await fs.group.committed()
            await fs.scheduler.pause()
        if await _remove(fs, repository, file, now_ns - quiet_ns):
            cleaned.files += 1
            await _prune(fs, file.parent, repository.ino)
        else:
            cleaned.waits = True


async def _follows(fs: FileSystem) -> bool:
    """Have a transaction open that takes removals; do the rows say what the names say? Raises OSError."""
    follower = follower_of(fs)
    await fs.contents.settling.begin_in_order()
    return follower.catch_up() and not follower.is_behind


async def _remove(fs: FileSystem, repository: Repository, file: IntegrationFile, before_ns: int) -> bool:
    """Remove one file, if it is still what it was; False if it is in use."""
    inode = fs.tree.lookup(file.parent, file.name)
    if inode is not None and fs.contents.settling.rests(inode):
        await fs.contents.settling.seal_closed(inode)  # what is not sealed the trash does not take
    if not await _follows(fs):
        return False
    # From here on without a wait: nobody puts something else there.
    row = fs.store.namespace.artifacts.of(file.parent, file.name)
    inode = fs.tree.lookup(file.parent, file.name)
    if inode is None or row is None or (row.repository, row.revision) != (repository.ino, file.revision):
        return True
    if inode.ctime > before_ns or fs.contents.table.is_open(inode.ino) or fs.contents.settling.rests(inode):
        return False
    fs.store.filestore.space.claim_rows(ROW_BYTES)  # on a full disk the trash would not take it
    await fs.tree.unlink(file.parent, file.name)
    log.info("snapshot %s goes to the trash", os.fsdecode(file.name))
    return True


async def _prune(fs: FileSystem, directory: int, top: int) -> None:
    """Remove a directory that is empty, then the one it was in, and so on, below the repository's."""
    dentries = fs.store.namespace.dentries
    while directory not in (top, ROOT_INO) and dentries.is_empty(directory):
        names = dentries.names_of(directory)
        if not names:
            return
        parent, name = names[0]
        try:
            await fs.tree.rmdir(parent, name)
        except FsError:
            return  # somebody has put something there, or a rule keeps it
        directory = parent


def oldest(files: list[IntegrationFile], most: int, order: Order) -> list[IntegrationFile]:
    """Those that are too many, the oldest first: in the order of revisions where that is one of time too,
    else by the time in the integration revision, or the last change of the file."""
    times: dict[str, int] = {}
    for file in files:
        if not file.companion:
            times[file.revision] = max(times.get(file.revision, 0), _time_ns(file))
    by_time = order.name in NO_VERSIONS
    revisions = sorted(times, key=lambda each: (times[each] if by_time else 0, order.key(each)))
    old = {revision: number for number, revision in enumerate(revisions[: -max(1, most)])}
    gone = [file for file in files if file.revision in old]
    return sorted(gone, key=lambda file: (old[file.revision], file.parent, file.name))


def _time_ns(file: IntegrationFile) -> int:
    found = _TIME.fullmatch(file.integration)
    if found is not None:
        with contextlib.suppress(ValueError):
            made = datetime.strptime(f"{found[1]}{found[2]}+0000", "%Y%m%d%H%M%S%z")
            return int(made.astimezone(UTC).timestamp()) * 10**9
    return file.mtime_ns or 0
