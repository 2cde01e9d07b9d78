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
from collections.abc import Callable, Iterator
from typing import NamedTuple

from casfs.filestore.filestore import BLOB_MODE, FileStore
from casfs.filestore.staging import LENT
from casfs.maintenance.problems import Kind
from casfs.namespace.checks import Checks
from casfs.store import database_path
from casfs.types import DIGEST_SIZE

PRIVATE = 0o077
"""Permission bits nobody but the owner may have: the mount decides who may read what."""

STRAY_SECONDS = 3600.0
"""Age from which a blob file without a row cannot belong to the group that is being committed."""

Tell = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all)."""


_STAGED_NAME = re.compile(f"[0-9a-f]+({LENT})?")


class FileFault(NamedTuple):
    """A file or folder that is not as it should be. `blob`: the id in its row, where it has one."""

    kind: Kind
    path: str
    detail: str
    digest: bytes | None = None
    blob: int | None = None


def layout_faults(root: str, filestore: FileStore) -> Iterator[FileFault]:
    """Folders that are missing, and what others than the owner may get at."""
    folders = [root, filestore.paths.root, filestore.staging.root, f"{root}/run", *filestore.paths.shards()]
    for path, bits in (
        *((folder, PRIVATE) for folder in folders),
        (database_path(root), PRIVATE),
        (f"{root}/casfs.toml", stat.S_IWGRP | stat.S_IWOTH),
    ):
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            mode = 0
        if path in folders and not stat.S_ISDIR(mode):
            yield FileFault(Kind.MISSING_FOLDER, path, "is missing" if not mode else "is no directory")
        elif mode & bits:
            yield FileFault(Kind.PERMISSIONS, path, f"has mode {stat.S_IMODE(mode):o}")


class _Seen(NamedTuple):
    path: str
    status: os.stat_result


class BlobScan:
    """Compares blobs/ with the rows, one shard after the other."""

    def __init__(self, filestore: FileStore, checks: Checks, *, in_use: bool, tell: Tell) -> None:
        self._paths = filestore.paths
        self._checks = checks
        self._in_use = in_use
        self._tell = tell
        self._missing: dict[bytes, tuple[int, int]] = {}
        self._misplaced: set[bytes] = set()

    def faults(self) -> Iterator[FileFault]:
        """Between two of them, whoever repairs may change rows and files of the one that was given."""
        shards = list(self._paths.shards())
        yield from self._foreign(self._paths.root, set(shards))
        for number, shard in enumerate(shards):
            self._tell("checking blob files", number, len(shards))
            rows = self._checks.shard(os.path.basename(shard))
            for seen in _files(shard):
                yield from self._fault(seen, rows)
            self._missing |= rows
        yield from self._missing_blobs()

    def _foreign(self, folder: str, known: set[str]) -> Iterator[FileFault]:
        for seen in _files(folder):
            if seen.path not in known or not stat.S_ISDIR(seen.status.st_mode):
                yield FileFault(Kind.FOREIGN_FILE, seen.path, "is no part of a store")

    def _fault(self, seen: _Seen, rows: dict[bytes, tuple[int, int]]) -> Iterator[FileFault]:
        path, status = seen
        digest = self._paths.digest_of(path)
        if not stat.S_ISREG(status.st_mode):
            yield FileFault(Kind.FOREIGN_FILE, path, "is no part of a store")
            return
        if digest is None:
            yield self._misnamed(path)
            return
        row = rows.pop(digest, None)
        if row is None:
            if not self._in_use or self._is_old_stray(digest, status):
                yield FileFault(Kind.STRAY_BLOB, path, "has no row", digest)
            return
        blob, size = row
        if status.st_size != size:
            detail = f"has {status.st_size} bytes, its row says {size}"
            yield FileFault(Kind.BLOB_SIZE, path, detail, digest, blob)
        if stat.S_IMODE(status.st_mode) != BLOB_MODE:
            detail = f"has mode {stat.S_IMODE(status.st_mode):o}, should have {BLOB_MODE:o}"
            yield FileFault(Kind.BLOB_MODE, path, detail, digest, blob)

    def _misnamed(self, path: str) -> FileFault:
        """A file that is no blob where it lies: one of another shard, or foreign."""
        digest = digest_of_name(os.path.basename(path))
        if digest is None:
            return FileFault(Kind.FOREIGN_FILE, path, "is no part of a store")
        self._misplaced.add(digest)
        return FileFault(Kind.MISPLACED_BLOB, path, "lies in the wrong shard", digest)

    def _is_old_stray(self, digest: bytes, status: os.stat_result) -> bool:
        return time.time() - status.st_ctime > STRAY_SECONDS and self._checks.blob_id(digest) is None

    def _missing_blobs(self) -> Iterator[FileFault]:
        for digest, (blob, _) in self._missing.items():
            path = self._paths.blob(digest)
            if digest in self._misplaced or _is_file(path) or self._checks.blob_id(digest) != blob:
                continue
            yield FileFault(Kind.MISSING_BLOB, path, "is missing", digest, blob)


def staged_faults(
    filestore: FileStore, checks: Checks, *, in_use: bool
) -> Iterator[tuple[FileFault, int | None]]:
    """Staged files with what is wrong, and the inode that names them.

    Of a store in use only those that are missing: programs write, lengthen and cut the others.
    """
    staging = filestore.staging
    named = list(checks.staged())
    present = {os.path.basename(seen.path): seen for seen in _files(staging.root)}
    for ino, name, size in named:
        seen = present.pop(name, None)
        if not _STAGED_NAME.fullmatch(name):
            continue  # a fault of the row
        path = staging.path(name)
        if seen is None or not stat.S_ISREG(seen.status.st_mode):
            if not _is_file(path) and checks.is_staged(ino, name):
                yield FileFault(Kind.MISSING_STAGED, path, "is missing"), ino
        elif seen.status.st_size < size and not in_use:
            detail = f"has {seen.status.st_size} bytes, should have {size} at least"
            yield FileFault(Kind.SHORT_STAGED, path, detail), ino
    if not in_use:
        for seen in present.values():
            detail = f"of {seen.status.st_size} bytes belongs to no inode"
            yield FileFault(Kind.STRAY_STAGED, seen.path, detail), None


def digest_of_name(name: str) -> bytes | None:
    """The digest whose text form `name` is, in lower case."""
    try:
        digest = bytes.fromhex(name)
    except ValueError:
        return None
    return digest if len(digest) == DIGEST_SIZE and digest.hex() == name else None


def _files(folder: str) -> Iterator[_Seen]:
    """What lies in a folder, nothing if there is none."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield _Seen(entry.path, status)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
