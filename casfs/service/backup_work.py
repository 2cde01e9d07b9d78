"""What a run of the daemon of backups does: as `casfs backup run` and `casfs backup prune`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from casfs.control.backups import BackupAccess
from casfs.errors import ExitCode
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.backup.prune import prune
from casfs.maintenance.backup.run import run_backup
from casfs.maintenance.progress import Progress
from casfs.maintenance.snapshots.retention import Retention
from casfs.service.backup_runs import DAMAGED, INTERRUPTED, OK, Outcome
from casfs.text import printable

log = logging.getLogger(__name__)

LOST_TOLD = 100
"""Contents that could not be read of which the log has the paths."""


class BackupWork:
    """`Work` of backup_runs.py."""

    def run(
        self,
        store: str,
        destination: str,
        options: BackupOptions,
        *,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> Outcome:
        result = run_backup(store, destination, options, access=BackupAccess(), progress=progress, stop=stop)
        manifest = result.manifest
        if manifest is None:
            return Outcome(
                INTERRUPTED,
                new_blobs=result.copied_blobs,
                new_bytes=result.copied_bytes,
                error="interrupted; the next run goes on with what was copied",
                code=ExitCode.INTERRUPTED,
            )
        for lost in result.lost[:LOST_TOLD]:
            paths = ", ".join(printable(path) for path in lost.paths) or lost.digest.hex()
            log.error("backup %s: the source is damaged: %s: %s", manifest.name, paths, lost.reason)
        return Outcome(
            DAMAGED if result.lost else OK,
            snapshot=manifest.name,
            uuid=manifest.uuid,
            new_blobs=manifest.new_blobs,
            new_bytes=manifest.new_bytes,
            error=f"{len(result.lost)} contents could not be read" if result.lost else "",
            code=ExitCode.PROBLEMS if result.lost else ExitCode.OK,
        )

    def prune(self, destination: str, policy: Retention, *, job: str, source_uuid: str) -> int:
        pruned = prune(destination, policy, access=BackupAccess(), job=job, source_uuid=source_uuid)
        return len(pruned.dropped)
