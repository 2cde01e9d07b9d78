"""Snapshots by a schedule, and the end of those that have expired or that no rule keeps."""

from __future__ import annotations

import contextlib
import logging
import time

import trio
from msgspec import structs

from casfs.config import SNAPSHOTS_JOB, Snapshots
from casfs.control.access import StoreAccess
from casfs.control.messages import CreateSnapshot, DropSnapshot
from casfs.errors import CasfsError, StoreLocked
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.snapshots.retention import EVERYTHING, Retention, decide
from casfs.service import last_runs
from casfs.service.last_runs import LastRun
from casfs.service.schedule import Schedule
from casfs.snapshots.folder import SnapshotFolder, name_at
from casfs.snapshots.manifest import Manifest

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""When it tries again after it found somebody else using the store."""


class Snapshotter:
    """Makes snapshots of one store, in a daemon that has the store's lock for such."""

    def __init__(self, store: str, section: Snapshots) -> None:
        """Raises UsageError."""
        self._store = store
        self._section = section
        self._schedule = Schedule(section.schedule, "snapshot") if section.schedule else None

    async def run(self) -> None:
        """Until cancelled; a snapshot that is being made is made first. One that was missed comes at once."""
        schedule = self._schedule
        if schedule is None:
            return
        log.info("%s: snapshots by the schedule '%s'", self._store, self._section.schedule)
        missed = schedule.has_missed(await trio.to_thread.run_sync(self._since))

        async def work() -> float:
            again = await trio.to_thread.run_sync(self._make)
            return schedule.next() if again is None else time.time() + again

        await schedule.repeat(work, time.time() if missed else schedule.next())

    # In a thread

    def _since(self) -> float | None:
        """From when on a run may have been missed."""
        try:
            return last_runs.change(self._store, SNAPSHOTS_JOB, lambda last: last).since
        except (CasfsError, OSError) as error:
            log.error("when the last snapshot was made cannot be read: %s", error)
            return time.time()

    def _make(self) -> float | None:
        """Make one, and drop what is kept no longer. Seconds until it is to be tried again, if it is."""
        error = snapshot = ""
        with contextlib.suppress(OSError, CasfsError):  # on a full disk one may be made all the same
            last_runs.change(self._store, SNAPSHOTS_JOB, _begun)
        try:
            now_ns = time.time_ns()
            section = self._section
            asked = CreateSnapshot(
                name_at(SNAPSHOTS_JOB), section.reason, section.expires_ns(now_ns), SNAPSHOTS_JOB
            )
            snapshot = StoreAccess(self._store).perform(asked).name
            log.info("made snapshot %s", snapshot)
            drop_unkept(self._store, section.retention(), SNAPSHOTS_JOB)
        except StoreLocked as locked:
            log.warning("no snapshot was made: %s; trying again in %d s", locked, RETRY_SECONDS)
            return RETRY_SECONDS
        except (CasfsError, OSError) as failed:
            error = str(failed)
            log.error("no snapshot was made: %s", failed)
        except Exception:
            error = "internal error"
            log.exception("snapshots go on after an error nobody expected")
        self._note(snapshot, error)
        return None

    def _note(self, snapshot: str, error: str) -> None:
        def ended(last: LastRun) -> LastRun:
            return structs.replace(
                last,
                ended_ns=time.time_ns(),
                result="failed" if error else "ok",
                snapshot=snapshot,
                error=error,
            )

        with contextlib.suppress(OSError, CasfsError):
            last_runs.change(self._store, SNAPSHOTS_JOB, ended)


def _begun(last: LastRun) -> LastRun:
    return LastRun(seen_ns=last.seen_ns, began_ns=time.time_ns())


def expired(store: str) -> list[str]:
    """Names of the snapshots that have expired. Raises OSError."""
    now_ns = time.time_ns()
    return [manifest.name for manifest in _manifests(store) if manifest.has_expired(now_ns)]


def drop_expired(store: str) -> list[str]:
    """Drop what has expired, whoever made it: why what is left could not be, a line each. Raises OSError."""
    return _drop(store, [(name, "it has expired") for name in expired(store)])


def drop_unkept(store: str, policy: Retention, job: str) -> None:
    """Drop what no rule keeps of the snapshots of a schedule; what cannot be is logged. Raises OSError."""
    if policy == EVERYTHING:
        return
    fate = decide(_manifests(store), policy, job=job, now_ns=time.time_ns())
    for problem in _drop(store, [(manifest.name, why) for manifest, why in fate.drops]):
        log.error("%s", problem)


def _manifests(store: str) -> list[Manifest]:
    with contextlib.closing(StoreDirectory(store)) as directory:
        return SnapshotFolder(directory).all()


def _drop(store: str, names: list[tuple[str, str]]) -> list[str]:
    access = StoreAccess(store)
    problems = []
    for name, why in names:
        try:
            access.perform(DropSnapshot(name))
        except (CasfsError, OSError) as error:
            problems.append(f"snapshot {name} could not be dropped: {error}")
        else:
            log.info("dropped snapshot %s: %s", name, why)
    return problems
