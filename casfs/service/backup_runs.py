"""One run of a backup's schedule: the hook before, the backup, what is kept no longer, the hooks after."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import trio

from casfs.config import Backup
from casfs.errors import CasfsError, ExitCode, UsageError
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.progress import Progress
from casfs.maintenance.snapshots.retention import EVERYTHING, Retention
from casfs.service.hooks import run_hook
from casfs.store import read_config

log = logging.getLogger(__name__)

ENDING_SECONDS = 60.0
"""How long a hook after a run may take while the daemon ends: systemd waits 90 s for it in all."""

OK = "ok"
DAMAGED = "damaged"
FAILED = "failed"
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. `result`: OK; DAMAGED, made but for contents that could not be read; FAILED;
    INTERRUPTED, the next one goes on there.

    `snapshot`: what was made, "" when nothing was. `uuid`: the store whose it is. `error`: what is wrong,
    `code`: the exit code that `casfs backup run` would end with.
    """

    result: str
    snapshot: str = ""
    uuid: str = ""
    new_blobs: int = 0
    new_bytes: int = 0
    error: str = ""
    code: int = ExitCode.OK


class Work(Protocol):
    """What a run does, in a thread. Both raise CasfsError and OSError."""

    def run(
        self,
        store: str,
        destination: str,
        options: BackupOptions,
        *,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> Outcome:
        """Make a backup; `stop` says when to leave off."""

    def prune(self, destination: str, policy: Retention, *, job: str, source_uuid: str) -> int:
        """Drop what is kept no longer; how many."""


@dataclass(frozen=True, slots=True)
class Job:
    """One schedule of a store, as the configuration has it."""

    store: str
    name: str
    section: Backup
    known: tuple[str, ...] | None


class Ending:
    """Shall the daemon end? `event` for tasks, `begun` for threads."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.begun = False

    def begin(self) -> None:
        self.begun = True
        self.event.set()


def check(store: str, destination: str) -> None:
    """Raises UsageError for a destination that cannot be one. Only paths are looked at, no disk: a network
    file system that is away would keep the daemon waiting."""
    for inner, outer in ((destination, store), (store, destination)):
        if os.path.commonpath((inner, outer)) == outer:
            raise UsageError(f"{destination} and {store} lie one in the other, or are the same")


async def perform(job: Job, work: Work, ending: Ending, progress: Progress) -> Outcome:
    """Do one run, to the line in the log that says what came of it. Raises nothing of what went wrong."""
    began = time.time()
    variables = {
        "CASFS_BACKUP_NAME": job.name,
        "CASFS_BACKUP_STORE": job.store,
        "CASFS_BACKUP_DESTINATION": job.section.destination,
    }
    error = await _hook(job, "before", variables, ending)
    if error:
        outcome = Outcome(FAILED, error=error, code=ExitCode.FAILED)
    else:
        outcome = await trio.to_thread.run_sync(_back_up, job, work, ending, progress)
    if ending.begun and outcome.result == FAILED:
        outcome = replace(outcome, result=INTERRUPTED, code=ExitCode.INTERRUPTED)
    variables |= _variables(outcome, began)
    error = await _hook(job, "after", variables, ending)
    if error and outcome.result == OK:
        outcome = replace(outcome, result=FAILED, error=error, code=ExitCode.FAILED)
        variables |= _variables(outcome, began)
    if outcome.result in (FAILED, DAMAGED):
        await _hook(job, "on_failure", variables, ending)
    _report(job, outcome, began)
    return outcome


async def _hook(job: Job, which: str, variables: dict[str, str], ending: Ending) -> str:
    """Run one, if there is one; "" when nothing is wrong."""
    command: tuple[str, ...] = getattr(job.section, which)
    if not command:
        return ""
    seconds = float(job.section.hook_timeout)
    stop = ending.event if which == "before" else None
    if stop is None and ending.begun:
        seconds = min(seconds, ENDING_SECONDS)
    error = await run_hook(command, variables, seconds, stop)
    if error:
        log.error("backup %s: the hook '%s' has not done its work: %s", job.name, which, error)
        return f"{which}: {error}"
    return ""


def _back_up(job: Job, work: Work, ending: Ending, progress: Progress) -> Outcome:
    """In a thread."""
    section = job.section
    options = section.options(job.name, job.known, time.time_ns())
    outcome = Outcome(FAILED)
    try:
        check(os.path.realpath(job.store), os.path.realpath(section.destination))
        if not section.create:
            read_config(section.destination)
        outcome = work.run(
            job.store, section.destination, options, progress=progress, stop=lambda: ending.begun
        )
        policy = section.retention()
        if outcome.result == OK and policy != EVERYTHING:  # a damaged one takes no place of a good one
            gone = work.prune(section.destination, policy, job=job.name, source_uuid=outcome.uuid)
            if gone:
                log.info("backup %s: dropped %d that are kept no longer", job.name, gone)
    except CasfsError as error:
        return replace(outcome, result=FAILED, error=str(error), code=error.exit_code)
    except OSError as error:
        return replace(outcome, result=FAILED, error=str(error), code=ExitCode.FAILED)
    except Exception as error:
        log.exception("backup %s: an error nobody expected", job.name)
        text = f"internal error: {type(error).__name__}: {error}"
        return replace(outcome, result=FAILED, error=text, code=ExitCode.INTERNAL)
    return outcome


def _variables(outcome: Outcome, began: float) -> dict[str, str]:
    return {
        "CASFS_BACKUP_RESULT": outcome.result,
        "CASFS_BACKUP_SNAPSHOT": outcome.snapshot,
        "CASFS_BACKUP_NEW_BLOBS": str(outcome.new_blobs),
        "CASFS_BACKUP_NEW_BYTES": str(outcome.new_bytes),
        "CASFS_BACKUP_SECONDS": f"{max(0.0, time.time() - began):.1f}",
        "CASFS_BACKUP_ERROR": outcome.error,
        "CASFS_BACKUP_EXIT": str(int(outcome.code)),
    }


def _report(job: Job, outcome: Outcome, began: float) -> None:
    """One line, which a program can read: what stands behind the colon is JSON."""
    level = {OK: logging.INFO, INTERRUPTED: logging.WARNING}.get(outcome.result, logging.ERROR)
    facts = {
        "backup": job.name,
        "result": outcome.result,
        "destination": job.section.destination,
        "snapshot": outcome.snapshot,
        "began": datetime.fromtimestamp(began).astimezone().isoformat(timespec="seconds"),
        "seconds": round(max(0.0, time.time() - began), 1),
        "new_blobs": outcome.new_blobs,
        "new_bytes": outcome.new_bytes,
        "error": outcome.error,
        "exit": int(outcome.code),
    }
    log.log(level, "backup run: %s", json.dumps(facts))
