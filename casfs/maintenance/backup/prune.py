"""Dropping the backups that are kept no longer. What only they hold is collected later."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from msgspec import structs

from casfs.errors import CasfsError
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.backup.access import Access
from casfs.maintenance.backup.listing import is_backup
from casfs.maintenance.snapshots.retention import Retention, decide
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.store import read_config

BY_HAND = "(by hand)"
"""What stands for the schedule of those that have none, where the policy is for them, too."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """`kept`: each with what it is kept for; `dropped`: why. From the newest to the oldest. `problems`: why
    others cannot be read, or dropped; they stay."""

    kept: tuple[tuple[Manifest, tuple[str, ...]], ...]
    dropped: tuple[tuple[Manifest, str], ...]
    problems: tuple[str, ...]


def prune(
    destination: str,
    policy: Retention,
    *,
    access: Access,
    job: str | None = None,
    source_uuid: str | None = None,
    dry_run: bool = False,
    now_ns: int | None = None,
) -> Pruned:
    """Drop what `policy` does not keep, of each source and each schedule for itself, and what has expired.
    `job`, `source_uuid`: only of these; others stay. Raises StoreNotFound, FormatError, CasfsError,
    OSError."""
    read_config(destination)
    now_ns = time.time_ns() if now_ns is None else now_ns
    with contextlib.closing(StoreDirectory(destination)) as directory:
        manifests, problems = SnapshotFolder(directory).survey()
    groups: dict[tuple[str, str], list[Manifest]] = {}
    for manifest in manifests:
        if not is_backup(manifest) or (source_uuid is not None and manifest.uuid != source_uuid):
            continue
        if job is not None and manifest.job != job:
            continue
        groups.setdefault((manifest.uuid, manifest.job), []).append(manifest)
    kept: list[tuple[Manifest, tuple[str, ...]]] = []
    dropped: list[tuple[Manifest, str]] = []
    for (_, name), group in groups.items():
        named = {manifest.name: manifest for manifest in group}
        asked = [structs.replace(manifest, job=name or BY_HAND) for manifest in group]
        fate = decide(asked, policy, job=name or BY_HAND, now_ns=now_ns)
        kept += [(named[each.name], reasons) for each, reasons in fate.keeps]
        dropped += [(named[each.name], why) for each, why in fate.drops]
    kept.sort(key=lambda each: each[0].made_ns, reverse=True)
    dropped.sort(key=lambda each: each[0].made_ns, reverse=True)
    told = list(map(str, problems))
    for manifest, why in list(dropped) if not dry_run else ():
        try:
            access.drop_snapshot(directory.path, manifest.name)
        except CasfsError as error:  # it is being restored from: the others go all the same
            told.append(f"backup {manifest.name} could not be dropped: {error}")
            dropped.remove((manifest, why))
            kept.append((manifest, ("in use",)))
    return Pruned(tuple(kept), tuple(dropped), tuple(told))
