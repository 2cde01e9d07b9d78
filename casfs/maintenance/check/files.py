"""fsck of the files of a store: its folders, blobs/ against the blob rows, staging/ against the inode rows.

Nothing here is changed. A store in use is looked at soundly: what seems to
be wrong is held against a later commit before it is told. A blob's row goes before its file and comes after
it (I3), so a row that is still there after its file was seen missing is an error.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from casfs.filestore.directory import NO_FOLDER, StoreDirectory
from casfs.filestore.filestore import FileStore
from casfs.filestore.local import BLOB_MODE, Found
from casfs.filestore.locks import FOLDER as RUN
from casfs.filestore.locks import NAMES as LOCKS
from casfs.filestore.staging import FOLDER, LENT, Staging
from casfs.maintenance.check.problems import Kind
from casfs.maintenance.progress import Progress
from casfs.namespace.checks import Checks
from casfs.store import CONFIG, DATABASE

PRIVATE = 0o077
"""Permission bits nobody but the owner may have: the mount decides who may read what."""

STRAY_SECONDS = 3600.0
"""Age from which a blob file without a row cannot belong to the group that is being committed."""

_STAGED_NAME = re.compile(f"[0-9a-f]+({LENT})?")


class FileFault(NamedTuple):
    """A file or folder that is not as it should be. `name`: below STORE. `blob`: the id in its row, where it
    has one."""

    kind: Kind
    name: str
    detail: str
    digest: bytes | None = None
    blob: int | None = None


def layout_faults(filestore: FileStore) -> Iterator[FileFault]:
    """Folders that are missing, and what others than the owner may get at."""
    blobs, *shards = filestore.blobs.folders()
    folders = [".", blobs, FOLDER, RUN, *shards]
    for name, bits in (
        *((folder, PRIVATE) for folder in folders),
        (DATABASE, PRIVATE),
        (CONFIG, stat.S_IWGRP | stat.S_IWOTH),
    ):
        try:
            mode = filestore.directory.status(name).st_mode
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            mode = 0
        if name in folders and not stat.S_ISDIR(mode):
            yield FileFault(Kind.MISSING_FOLDER, name, "is missing" if not mode else "is no directory")
        elif mode & bits:
            yield FileFault(Kind.PERMISSIONS, name, f"has mode {stat.S_IMODE(mode):o}")


def run_faults(directory: StoreDirectory) -> Iterator[FileFault]:
    """What lies in run/ in the place of a file that is written to, or of the control socket."""
    if directory.is_folder(f"{RUN}/control"):
        yield FileFault(Kind.RUN_FILE, f"{RUN}/control", "is a directory")
    for name in (f"{RUN}/{name}" for name in (*LOCKS, "mount.log", "digests.log")):
        try:
            status = directory.status(name)
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            continue
        if not stat.S_ISREG(status.st_mode):
            yield FileFault(Kind.RUN_FILE, name, "is no regular file")
        elif status.st_nlink > 1:
            yield FileFault(Kind.RUN_FILE, name, "has a second name, under which it would be changed too")


class BlobScan:
    """Compares blobs/ with the rows, one shard after the other."""

    def __init__(self, filestore: FileStore, checks: Checks, *, in_use: bool, progress: Progress) -> None:
        self._blobs = filestore.blobs
        self._directory = filestore.directory
        self._checks = checks
        self._in_use = in_use
        self._progress = progress
        self._missing: dict[bytes, tuple[int, int]] = {}
        self._misplaced: set[bytes] = set()

    def faults(self) -> Iterator[FileFault]:
        """Between two of them, whoever repairs may change rows and files of the one that was given."""
        for name in self._blobs.foreign_entries():
            yield _foreign(name)
        prefixes = self._blobs.prefixes()
        for number, prefix in enumerate(prefixes):
            self._progress("checking blob files", number, len(prefixes))
            rows = self._checks.shard(prefix)
            for found in self._blobs.found(prefix):
                yield from self._fault(found, rows)
            self._missing |= rows
        yield from self._missing_blobs()

    def _fault(self, found: Found, rows: dict[bytes, tuple[int, int]]) -> Iterator[FileFault]:
        name, digest, is_in_place, status = found
        if not stat.S_ISREG(status.st_mode) or digest is None:
            yield _foreign(name)
            return
        if not is_in_place:
            self._misplaced.add(digest)
            yield FileFault(Kind.MISPLACED_BLOB, name, "lies in the wrong shard", digest)
            return
        row = rows.pop(digest, None)
        if row is None:
            if not self._in_use or self._is_old_stray(digest, status):
                yield FileFault(Kind.STRAY_BLOB, name, "has no row", digest)
            return
        blob, size = row
        if status.st_size != size:
            detail = f"has {status.st_size} bytes, its row says {size}"
            yield FileFault(Kind.BLOB_SIZE, name, detail, digest, blob)
        if stat.S_IMODE(status.st_mode) != BLOB_MODE:
            detail = f"has mode {stat.S_IMODE(status.st_mode):o}, should have {BLOB_MODE:o}"
            yield FileFault(Kind.BLOB_MODE, name, detail, digest, blob)

    def _is_old_stray(self, digest: bytes, status: os.stat_result) -> bool:
        return time.time() - status.st_ctime > STRAY_SECONDS and self._checks.blob_id(digest) is None

    def _missing_blobs(self) -> Iterator[FileFault]:
        for digest, (blob, _) in self._missing.items():
            name = self._blobs.name(digest)
            if digest in self._misplaced or _is_file(self._directory, name):
                continue
            if self._checks.blob_id(digest) == blob:
                yield FileFault(Kind.MISSING_BLOB, name, "is missing", digest, blob)


def foreign_folders(staging: Staging) -> list[str]:
    """Folders in staging/, below STORE."""
    return [f"{FOLDER}/{name}" for name, status in staging.entries() if stat.S_ISDIR(status.st_mode)]


def staged_faults(
    filestore: FileStore, checks: Checks, *, in_use: bool
) -> Iterator[tuple[FileFault, int | None]]:
    """Staged files with what is wrong, and the inode that names them.

    Of a store in use only those that are missing: programs write, lengthen and cut the others.
    """
    staging = filestore.staging
    named = list(checks.staged())
    present = dict(staging.entries())
    for ino, name, size in named:
        status = present.pop(name, None)
        if not _STAGED_NAME.fullmatch(name):
            continue  # a fault of the row
        path = staging.name(name)
        if status is None or not stat.S_ISREG(status.st_mode):
            if not _is_file(filestore.directory, path) and checks.is_staged(ino, name):
                yield FileFault(Kind.MISSING_STAGED, path, "is missing"), ino
        elif status.st_size < size and not in_use:
            detail = f"has {status.st_size} bytes, should have {size} at least"
            yield FileFault(Kind.SHORT_STAGED, path, detail), ino
    if not in_use:
        for name, status in present.items():
            if stat.S_ISDIR(status.st_mode):
                yield _foreign(f"{FOLDER}/{name}"), None
                continue
            detail = f"of {status.st_size} bytes belongs to no inode"
            yield FileFault(Kind.STRAY_STAGED, staging.name(name), detail), None


def _foreign(name: str) -> FileFault:
    return FileFault(Kind.FOREIGN_FILE, name, "is no part of a store")


def _is_file(directory: StoreDirectory, name: str) -> bool:
    try:
        return stat.S_ISREG(directory.status(name).st_mode)
    except OSError as error:
        if error.errno not in NO_FOLDER:
            raise
        return False
