"""blobs/ against the blob rows, both ways, one shard at a time.

Files that are no blob where they lie (foreign, misnamed, in another shard) are fsck's business.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from casfs.namespace.checks import Checks
from casfs.store import Store


class Stray(NamedTuple):
    """A blob file without a row. `size`: bytes."""

    path: str
    digest: bytes
    size: int


class Shard(NamedTuple):
    """What one shard folder, of so many, has: files without a row, and paths of rows without a file."""

    strays: list[Stray]
    missing: list[str]
    of: int


def scan(store: Store, cutoff_ns: int) -> Iterator[Shard]:
    """Shard by shard, in the memory that one takes. Only files that have not changed since `cutoff_ns`.

    Sound on a store in use, with one exception: a stray may be a blob whose row is not committed yet.
    Between two shards rows and files may be changed. Raises OSError.
    """
    checks = Checks(store.namespace)
    paths = store.filestore.paths
    shards = list(paths.shards())
    for shard in shards:
        rows = checks.shard(os.path.basename(shard))
        strays = []
        for name in _names(shard):
            path = f"{shard}/{name}"
            digest = paths.digest_of(path)
            if digest is None or rows.pop(digest, None) is not None:
                continue
            size = _size_if_old(path, cutoff_ns)
            if size is not None and checks.blob_id(digest) is None:
                strays.append(Stray(path, digest, size))
        # A row that is still there after its file was seen missing: rows go before files (I3).
        missing = [
            paths.blob(digest)
            for digest, (blob, _) in rows.items()
            if not os.path.lexists(paths.blob(digest)) and checks.blob_id(digest) == blob
        ]
        yield Shard(strays, missing, len(shards))


def is_old(path: str, cutoff_ns: int) -> bool:
    """Is there a file that has not changed since `cutoff_ns`?"""
    return _size_if_old(path, cutoff_ns) is not None


def _size_if_old(path: str, cutoff_ns: int) -> int | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or max(status.st_mtime_ns, status.st_ctime_ns) > cutoff_ns:
        return None
    return status.st_size


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
