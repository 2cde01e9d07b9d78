"""Backups made in this process."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from casfs.control.backups import BackupAccess
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.local import LocalBlobs
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.backup.run import BackupResult, run_backup
from casfs.maintenance.backup.tree import RestoredTree, restore_tree
from casfs.maintenance.backup.whole import Restored, restore_store
from casfs.maintenance.check.fsck import check
from casfs.maintenance.check.problems import Severity
from casfs.maintenance.offline import opened
from casfs.namespace.copies import open_copy
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.store import read_config
from tests.maintenance.stores import make_file

ACCESS = BackupAccess()


def back_up(store: object, destination: object, **options: Any) -> BackupResult:
    """A backup with these `BackupOptions`, and arguments of `run_backup`."""
    others = {name: options.pop(name) for name in ("stop", "progress", "existing", "new") if name in options}
    return run_backup(str(store), str(destination), BackupOptions(**options), access=ACCESS, **others)


def made(result: BackupResult) -> Manifest:
    assert result.manifest is not None
    return result.manifest


def backups_of(destination: object) -> list[Manifest]:
    with closing(StoreDirectory(str(destination))) as directory:
        return SnapshotFolder(directory).all()


def unfinished(destination: object) -> list[str]:
    with closing(StoreDirectory(str(destination))) as directory:
        return SnapshotFolder(directory).unfinished()


def restored(destination: object, target: object, name: str | None = None, **options: Any) -> Restored:
    with closing(StoreDirectory(str(destination))) as directory:
        folder = SnapshotFolder(directory)
        manifest = folder.find(name or folder.all()[-1].name)
        fan_out = read_config(str(destination)).fan_out
        blobs = LocalBlobs(directory, fan_out)
        return restore_store(
            blobs, folder.database(manifest.name), manifest, str(target), fan_out=fan_out, **options
        )


def tree_restored(destination: object, path: bytes, target: object, **options: Any) -> RestoredTree:
    with closing(StoreDirectory(str(destination))) as directory:
        folder = SnapshotFolder(directory)
        blobs = LocalBlobs(directory, read_config(str(destination)).fan_out)
        with closing(open_copy(folder.database(folder.all()[-1].name))) as namespace:
            return restore_tree(namespace, blobs, path, str(target), **options)


def assert_sound(*stores: object) -> None:
    """Each passes fsck --deep."""
    for store in stores:
        report = check(str(store), deep=True)
        assert not report.problems, report.problems


def add_files(store: object, files: dict[bytes, bytes]) -> None:
    with opened(str(store)) as fs:
        for name, content in files.items():
            make_file(fs, 1, name, content)


def listing(top: Path) -> dict[str, tuple[object, ...]]:
    """What is in a directory, by path: kind, mode, owner, time, content."""
    return dict(_listing(top, top))


def _listing(top: Path, folder: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    for entry in sorted(folder.iterdir()):
        status = entry.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(entry)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(entry.read_bytes()).hexdigest()
        yield (
            str(entry.relative_to(top)),
            (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content),
        )
        if stat.S_ISDIR(status.st_mode):
            yield from _listing(top, entry)


def stop_after(calls: int) -> Callable[[], bool]:
    """A `stop` that says so from its n-th call on."""
    left = [calls]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stop


def assert_unharmed(store: object) -> None:
    """What fsck --deep finds is no more than what a crash may leave."""
    problems = check(str(store), deep=True).problems
    assert not [problem for problem in problems if problem.severity is Severity.ERROR], problems
