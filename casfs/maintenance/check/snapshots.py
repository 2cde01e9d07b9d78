"""fsck of STORE/snapshots: what lies there, whether each snapshot can be read, and has its contents.

No snapshot is ever removed: that is for who has made it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator

from casfs.errors import CasfsError
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.filestore import FileStore
from casfs.filestore.hashing import hash_descriptor
from casfs.maintenance.check.files import PRIVATE, FileFault
from casfs.maintenance.check.problems import LISTED, Findings, Kind
from casfs.namespace.checks import Checks
from casfs.namespace.connection import DatabaseError
from casfs.namespace.copies import Content, open_copy
from casfs.namespace.snapshot_checks import SnapshotChecks, add_orphan
from casfs.snapshots.folder import (
    COUNTS,
    DATABASE,
    DESTINATIONS,
    FOLDER,
    GONE,
    LEFT_NS,
    MANIFEST,
    NEW,
    PART,
    SERIAL,
    SnapshotFolder,
)
from casfs.snapshots.manifest import Manifest, is_name
from casfs.store import Store, database_path

_OWN = {SERIAL, f"{SERIAL}.new", DESTINATIONS}
_FILES = {DATABASE, MANIFEST, COUNTS, f"{MANIFEST}.new", f"{COUNTS}.new"}
_UNFINISHED = _FILES | {f"{PART}{end}" for end in ("", "-wal", "-shm", "-journal", ".small")}
_COPIED = re.compile("[0-9a-f]{16}")


def folder_faults(directory: StoreDirectory) -> Iterator[FileFault]:
    """What does not belong into snapshots/, what is left there, and what others than the owner may get at."""
    if not directory.exists(FOLDER):
        return
    if not directory.is_folder(FOLDER):
        yield FileFault(Kind.FOREIGN_FILE, FOLDER, "is no part of a store")
        return
    yield from _open_to_others(directory, FOLDER)
    folder = SnapshotFolder(directory)
    for name, status in sorted(directory.entries(FOLDER)):
        path = f"{FOLDER}/{name}"
        if not stat.S_ISDIR(status.st_mode):
            if name not in _OWN or not stat.S_ISREG(status.st_mode):
                yield FileFault(Kind.FOREIGN_FILE, path, "is no part of a store")
        elif name.startswith(GONE):
            yield FileFault(Kind.LEFT_SNAPSHOT, path, "was removed, and is still there")
        elif name.startswith(NEW) and is_name(name.removeprefix(NEW)):
            old = status.st_mtime_ns < time.time_ns() - LEFT_NS
            if old and not folder.is_being_made(name.removeprefix(NEW)):
                yield FileFault(Kind.LEFT_SNAPSHOT, path, "was never finished")
            yield from _files(directory, path, _UNFINISHED, _COPIED)
        elif is_name(name):
            yield from _open_to_others(directory, path)
            yield from _files(directory, path, _FILES)
        else:
            yield FileFault(Kind.FOREIGN_FILE, path, "is no part of a store")


def _open_to_others(directory: StoreDirectory, name: str) -> Iterator[FileFault]:
    mode = directory.status(name).st_mode
    if mode & PRIVATE:
        yield FileFault(Kind.PERMISSIONS, name, f"has mode {stat.S_IMODE(mode):o}")


def _files(
    directory: StoreDirectory, folder: str, known: set[str], further: re.Pattern[str] | None = None
) -> Iterator[FileFault]:
    with contextlib.suppress(FileNotFoundError):  # it was removed, or is finished, meanwhile
        for name, status in sorted(directory.entries(folder)):
            is_known = name in known or (further is not None and further.fullmatch(name))
            if not is_known or not stat.S_ISREG(status.st_mode):
                yield FileFault(Kind.FOREIGN_FILE, f"{folder}/{name}", "is no part of a store")


def check_snapshots(store: Store, findings: Findings, *, deep: bool) -> None:
    """Can each be read, and has the store a row of each of its contents? Whether those have their files is
    seen with the rows. Raises OSError."""
    folder = SnapshotFolder(store.directory)
    for name in sorted(folder.names()):
        try:
            manifest = folder.find(name)
            database = folder.database(name)
            with contextlib.closing(open_copy(database)) as namespace:
                damage = Checks(namespace).integrity(deep=deep)
        except (CasfsError, DatabaseError) as error:
            if folder.exists(name):
                findings.add(Kind.BAD_SNAPSHOT, f"{FOLDER}/{name}: {_text(error)}")
            continue
        for line in damage:
            findings.add(Kind.BAD_SNAPSHOT, f"{FOLDER}/{name}/{DATABASE}: {line}")
        if not damage:
            for content in _without_row(store, folder, manifest, LISTED):
                has = "its file is there" if _is_there(store.filestore, content) else "nor a file"
                detail = f"{content.digest.hex()}, which snapshot {name} refers to, has no row: {has}"
                findings.add(Kind.LOST_HELD, detail)


def _without_row(store: Store, folder: SnapshotFolder, manifest: Manifest, limit: int) -> list[Content]:
    if not manifest.content:
        return []
    lacking = set(manifest.lacking)
    path = database_path(store.path)
    with contextlib.closing(SnapshotChecks(folder.database(manifest.name), path)) as checks:
        found = checks.without_row(limit + len(lacking))
    return [content for content in found if content.digest.hex() not in lacking]


def _is_there(filestore: FileStore, content: Content) -> bool:
    return filestore.blobs.size(content.digest) == content.size


def _text(error: OSError | CasfsError) -> str:
    return error.message if isinstance(error, CasfsError) else error.strerror or str(error)


def mend_held(store: Store) -> None:
    """Give contents that only snapshots refer to their rows again, if their files are whole. Inside a
    transaction. Raises OSError."""
    folder = SnapshotFolder(store.directory)
    for manifest in folder.all():
        with contextlib.suppress(CasfsError, DatabaseError):
            # The rows that are made here are not committed yet, so that one look has to find all.
            for content in _without_row(store, folder, manifest, 1 << 40):
                if store.namespace.blobs.find(content.digest) is None and _is_whole(store.filestore, content):
                    add_orphan(store.namespace, content, time.time_ns())


def _is_whole(filestore: FileStore, content: Content) -> bool:
    if not _is_there(filestore, content):
        return False
    fd = filestore.directory.open(filestore.blobs.name(content.digest))
    try:
        return bool(hash_descriptor(fd, os.fstat(fd).st_size) == content.digest)
    finally:
        os.close(fd)
