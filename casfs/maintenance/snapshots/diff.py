"""What differs between two snapshots, or a snapshot and the store (namespace/differences.py)."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence

from casfs.errors import FsError
from casfs.filestore.directory import StoreDirectory
from casfs.namespace.copies import open_copy
from casfs.namespace.differences import NEW, OLD, Difference, Differences, Parts, Spot, What
from casfs.namespace.namespace import Namespace
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import database_path, read_config


@contextlib.contextmanager
def comparing(store: str, old: str, new: str | None, written: Iterable[int] = ()) -> Iterator[Differences]:
    """Compare a snapshot with another one, or with None with the store as of its last commit. `written`:
    as in `Differences`. Raises CasfsError, FormatError, StoreNotFound, OSError."""
    read_config(store)
    with contextlib.closing(StoreDirectory(store)) as directory:
        folder = SnapshotFolder(directory)
        manifest = folder.find(old)
        first = folder.database(old)
        open_copy(first).close()  # it is looked at
        if new is None:
            path = database_path(store)
            with contextlib.closing(Namespace(path, readonly=True)) as live:
                uuid, here = str(live.meta("uuid")), True
        else:
            other = folder.find(new)
            path, uuid, here = folder.database(new), other.uuid, other.here
            open_copy(path).close()
        differences = Differences(
            first,
            path,
            frozen=new is not None,
            numbers=manifest.uuid == uuid,
            ids=manifest.here and here,
            written=written,
        )
    with contextlib.closing(differences):
        yield differences


def parts_of(path: bytes) -> list[bytes]:
    """Of a path from the root. Raises FsError EINVAL for one with `..`."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise FsError(errno.EINVAL, f"{os.fsdecode(path)}: '..' is not allowed here")
    return parts


def differences_below(differences: Differences, path: bytes) -> Iterator[Difference]:
    """Of what has that path, and is below it; b"": of everything. Raises FsError ENOENT where neither has
    it."""
    parts = parts_of(path)
    if not parts:
        yield from differences.everything()
        return
    old, new = differences.way(OLD, parts), differences.way(NEW, parts)
    if max(len(old), len(new)) <= len(parts):
        raise FsError(errno.ENOENT, f"{os.fsdecode(path)}: neither of them has it")
    yield from differences.below(
        parent_in(old, parts), parent_in(new, parts), parts[-1], b"".join(part + b"/" for part in parts[:-1])
    )


def parent_in(way: Sequence[Spot], parts: Sequence[bytes]) -> int | None:
    """The directory that a path's last name is in, if there is one."""
    if len(way) < len(parts) or not way[len(parts) - 1].is_directory:
        return None
    return way[len(parts) - 1].ino


def told(found: Iterator[Difference]) -> Iterator[Difference]:
    """Without those that are only about times: nobody has done anything to these."""
    for each in found:
        if each.what is not What.CHANGED or each.parts & ~Parts.TIMES:
            yield each
