"""blobs/ against the blob rows, both ways, one shard at a time.

Files that are no blob where they lie (foreign, misnamed, in another shard) are fsck's business.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import NamedTuple

from casfs.filestore.local import LocalBlobs
from casfs.namespace.checks import Checks
from casfs.store import Store


class Stray(NamedTuple):
    """A blob file without a row. `size`: bytes."""

    digest: bytes
    size: int


class Shard(NamedTuple):
    """What there is of the blobs of one prefix, of so many: files without a row, and paths of rows without a
    file."""

    strays: list[Stray]
    missing: list[str]
    of: int


def scan(store: Store, cutoff_ns: int) -> Iterator[Shard]:
    """One after the other, in the memory that one takes. Only files that have not changed since `cutoff_ns`.

    Sound on a store in use, with one exception: a stray may be a blob whose row is not committed yet.
    Between two shards rows and files may be changed. Raises OSError.
    """
    checks = Checks(store.namespace)
    blobs = store.filestore.blobs
    prefixes = blobs.prefixes()
    for prefix in prefixes:
        rows = checks.shard(prefix)
        strays = []
        for digest in blobs.enumerate(prefix):
            if rows.pop(digest, None) is not None:
                continue
            size = _size_if_old(blobs, digest, cutoff_ns)
            if size is not None and checks.blob_id(digest) is None:
                strays.append(Stray(digest, size))
        # A row that is still there after its file was seen missing: rows go before files (I3).
        missing = [
            blobs.path(digest)
            for digest, (blob, _) in rows.items()
            if blobs.size(digest) is None and checks.blob_id(digest) == blob
        ]
        yield Shard(strays, missing, len(prefixes))


def is_old(blobs: LocalBlobs, digest: bytes, cutoff_ns: int) -> bool:
    """Is there a file that has not changed since `cutoff_ns`?"""
    return _size_if_old(blobs, digest, cutoff_ns) is not None


def _size_if_old(blobs: LocalBlobs, digest: bytes, cutoff_ns: int) -> int | None:
    try:
        status = blobs.status(digest)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or max(status.st_mtime_ns, status.st_ctime_ns) > cutoff_ns:
        return None
    return status.st_size
