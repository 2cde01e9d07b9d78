"""What backups a destination has."""

from __future__ import annotations

from casfs.errors import CasfsError
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.snapshots.look import Listed, listed
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Manifest


def backups(destination: str) -> Listed:
    """All of them, oldest first, and why others cannot be read; snapshots of the destination itself are none.
    Raises StoreNotFound, FormatError, OSError."""
    found = listed(destination)
    return Listed([each for each in found.snapshots if is_backup(each[0])], found.problems)


def is_backup(manifest: Manifest) -> bool:
    """Are its rows those of another store?"""
    return not manifest.here


def choose(directory: StoreDirectory, name: str | None, at_ns: int | None = None) -> Manifest:
    """A backup by its name, or the newest one, of those made at `at_ns` or before. Raises CasfsError when
    there is none, or when without a name there are several stores to choose from, FormatError."""
    folder = SnapshotFolder(directory)
    if name is not None:
        return folder.find(name)
    found = [each for each in folder.all() if is_backup(each)]
    if at_ns is not None:
        found = [each for each in found if each.made_ns <= at_ns]
    if not found:
        when = " that is so old" if at_ns is not None else ""
        raise CasfsError(
            f"{directory.path} has no backup{when}", f"casfs backup list {directory.path} shows what it has"
        )
    if len({each.uuid for each in found}) > 1:
        raise CasfsError(
            f"{directory.path} has backups of several stores",
            f"name one: casfs backup list {directory.path} shows them",
        )
    return found[-1]
