"""What a run of the daemon of backups does: as `casfs backup run` and `casfs backup prune`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from casfs.errors import ExitCode
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.progress import Progress
from casfs.maintenance.snapshots.retention import Retention
from casfs.service.backup_runs import DAMAGED, INTERRUPTED, OK, Outcome


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
        run = import_module("casfs.maintenance.backup.run")
        result = run.run_backup(store, destination, options, progress=progress, stop=stop)
        manifest = result.manifest
        if manifest is None:
            return Outcome(INTERRUPTED, error="interrupted", code=ExitCode.INTERRUPTED)
        lacking = len(manifest.lacking)
        return Outcome(
            DAMAGED if lacking else OK,
            snapshot=manifest.name,
            uuid=manifest.uuid,
            new_blobs=manifest.new_blobs,
            new_bytes=manifest.new_bytes,
            error=f"{lacking} contents could not be read" if lacking else "",
            code=ExitCode.PROBLEMS if lacking else ExitCode.OK,
        )

    def prune(self, destination: str, policy: Retention, *, job: str, source_uuid: str) -> int:
        prune = import_module("casfs.maintenance.backup.prune")
        pruned = prune.prune(destination, policy, job=job, source_uuid=source_uuid, dry_run=False)
        return len(pruned.dropped)
