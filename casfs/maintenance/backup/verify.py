"""Verifying backups: is everything there that they refer to, and is it what its digest says?

Beside backups that are being made, and whoever has the destination mounted. What is found to be damaged is
taken out of the way, as a scrub does, and noted: the next backup brings it anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from casfs.errors import CasfsError
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.local import LocalBlobs
from casfs.maintenance.backup.access import Access
from casfs.maintenance.backup.listing import is_backup
from casfs.maintenance.check.problems import Kind
from casfs.maintenance.collect.batch import never
from casfs.maintenance.progress import Progress, unwatched
from casfs.maintenance.scrub.scrub import Settlement
from casfs.maintenance.scrub.verify import Bad, Batch, Interrupted, Verifier
from casfs.namespace.copies import Content, Copies, open_copy
from casfs.namespace.damage import BlobToRead
from casfs.namespace.sending import Sending
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.store import Store, read_config
from casfs.types import DIGEST_SIZE

STEP = 5_000
BATCH_BLOBS = 256
BATCH_BYTES = 64 << 20

BAD_TOLD = 10_000
PATHS_OF_ONE = 100

_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class BadContent(NamedTuple):
    """A content that a backup has not, or not as it was: `backup`: the first that refers to it; `paths`: its
    files there."""

    backup: str
    digest: bytes
    size: int
    reason: str
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`blobs` were looked at, `read` of them read, `read_bytes` in all. `bad`: the first of so many
    `bad_contents`. `problems`: backups that cannot be read, as a whole. `complete`: it was not
    interrupted."""

    backups: tuple[str, ...]
    blobs: int
    read: int
    read_bytes: int
    bad: tuple[BadContent, ...]
    bad_contents: int
    problems: tuple[str, ...]
    complete: bool


def verify(
    destination: str,
    names: tuple[str, ...] = (),
    *,
    access: Access,
    share: float = 1.0,
    rate: int = 0,
    progress: Progress = unwatched,
    stop: Callable[[], bool] = never,
) -> VerifyReport:
    """Verify some backups, or all. `share`: of the contents is read, chosen by lot; that there is a file of
    their size is looked at for all. `rate`: bytes in a second, 0 = any.

    Raises CasfsError for a name that there is none of, StoreNotFound, FormatError, OSError.
    """
    read_config(destination)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(contextlib.closing(StoreDirectory(destination)))
        store = None if _is_read_only(directory) else _open(destination)
        if store is not None:
            stack.callback(store.close)
        return _Verifying(directory, store, names, access, share, rate, progress, stop).run()


def _is_read_only(directory: StoreDirectory) -> bool:
    """Does it lie on a disk that cannot be written? SQLite opens no database there that has a log."""
    return bool(directory.statvfs().f_flag & os.ST_RDONLY)


def _open(destination: str) -> Store:
    try:
        return Store(destination, shared=True)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        return Store(destination, readonly=True)


class _Verifying:
    """`store`: None when its rows cannot be asked; then its files are looked at only."""

    def __init__(
        self,
        directory: StoreDirectory,
        store: Store | None,
        names: tuple[str, ...],
        access: Access,
        share: float,
        rate: int,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._folder = SnapshotFolder(directory)
        self._contents = LocalBlobs(directory, read_config(directory.path).fan_out)
        self._problems: list[str] = []
        self._manifests = self._chosen(names)
        self._share = share
        self._progress = progress
        self._stop = stop
        self._rate = rate
        self._rows = None if store is None else Sending(store.namespace)
        self._settlement = (
            Settlement(store, self._new_verifier(), lambda numbers: access.damaged(store.path, numbers))
            if store is not None and not store.readonly
            else None
        )
        self._seen = bytearray()  # one bit for the number of each blob of the destination
        self._seen_digests: set[bytes] = set()  # or a part of each digest, where there are no rows
        self._lock = threading.Lock()
        self._blobs = self._read = self._read_bytes = self._bad_contents = 0
        self._total = 0
        self._bad: list[BadContent] = []
        self._told: set[bytes] = set()

    def _chosen(self, names: tuple[str, ...]) -> list[Manifest]:
        if names:
            return [self._folder.find(name) for name in names]
        manifests, problems = self._folder.survey()
        self._problems += map(str, problems)
        return [manifest for manifest in manifests if is_backup(manifest)]

    def run(self) -> VerifyReport:
        complete = True
        try:
            for manifest in self._manifests:
                try:
                    self._verify(manifest)
                except (CasfsError, OSError) as error:
                    if not self._folder.exists(manifest.name):
                        continue  # dropped meanwhile
                    self._problems.append(f"backup {manifest.name}: {error}")
        except Interrupted:
            complete = False
        return VerifyReport(
            tuple(manifest.name for manifest in self._manifests),
            self._blobs,
            self._read,
            self._read_bytes,
            tuple(self._bad),
            self._bad_contents,
            tuple(self._problems),
            complete and not self._stop(),
        )

    def _verify(self, manifest: Manifest) -> None:
        with contextlib.closing(open_copy(self._folder.database(manifest.name))) as namespace:
            namespace.read_through()
            copies = Copies(namespace)
            if manifest.content:
                self._total = self._read_bytes + copies.figures().blob_bytes
                for batch, bad in self._verifier_of(manifest, copies):
                    self._read += len(batch)
                    for each in bad:
                        self._settle(manifest, copies, each)
            else:
                copies.figures()
        if self._stop():
            raise Interrupted

    def _verifier_of(self, manifest: Manifest, copies: Copies) -> Iterator[tuple[Batch, list[Bad]]]:
        batches = self._batches(manifest, copies)
        # One for each backup: it cannot be used again once it has ended.
        with contextlib.closing(self._new_verifier().verified(batches)) as verified:
            yield from verified

    def _new_verifier(self) -> Verifier:
        return Verifier(self._contents, self._count_read, rate=self._rate or None, stop=self._stop)

    def _count_read(self, count: int) -> None:
        with self._lock:
            self._read_bytes += count
        self._progress("reading", min(self._read_bytes, self._total), self._total)

    def _batches(self, manifest: Manifest, copies: Copies) -> Iterator[Batch]:
        batch: Batch = []
        size, after = 0, b""
        while found := copies.contents(after, STEP):
            after = found[-1].digest
            rows = self._rows_of(found)
            for content in found:
                blob = self._look_at(manifest, copies, content, rows)
                if blob is None:
                    continue
                batch.append(blob)
                size += blob.size
                if len(batch) >= BATCH_BLOBS or size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
            if self._stop():
                return
        if batch:
            yield batch

    def _rows_of(self, found: list[Content]) -> dict[bytes, tuple[int, int]]:
        """digest -> (number, bytes) in the destination. Where it cannot be asked, the numbers are the
        backup's, of those that were not seen yet."""
        if self._rows is not None:
            return self._rows.rows_between(found[0].digest, found[-1].digest)
        return {content.digest: (content.id, content.size) for content in found}

    def _look_at(
        self, manifest: Manifest, copies: Copies, content: Content, rows: dict[bytes, tuple[int, int]]
    ) -> BlobToRead | None:
        """What is to be read of it; None when it was looked at, is not chosen, or is bad already."""
        number, size = rows.get(content.digest, (0, 0))
        if number and self._is_seen(number, content.digest):
            return None
        self._blobs += 1
        if len(content.digest) != DIGEST_SIZE or not number:
            self._note(manifest, copies, content, "is missing, as is its row")
            return None
        if size != content.size:
            self._note(manifest, copies, content, f"has {size} bytes by its row, should have {content.size}")
            return None
        blob = BlobToRead(number, content.digest, size)
        is_chosen = self._share >= 1 or random.random() < self._share
        if not is_chosen and self._contents.size(content.digest) == size:
            return None
        return blob

    def _is_seen(self, number: int, digest: bytes) -> bool:
        if self._rows is None:
            seen = digest[:12] in self._seen_digests
            self._seen_digests.add(digest[:12])
            return seen
        index, bit = number >> 3, 1 << (number & 7)
        if index >= len(self._seen):
            self._seen.extend(bytes(max(index + 1 - len(self._seen), len(self._seen))))
        was_seen = bool(self._seen[index] & bit)
        self._seen[index] |= bit
        return was_seen

    def _settle(self, manifest: Manifest, copies: Copies, bad: Bad) -> None:
        if self._settlement is not None:
            try:
                if self._settlement.settle(bad) is None and bad.kind is not Kind.MISSING_BLOB:
                    return  # it has got a whole file meanwhile
            except OSError as error:
                if error.errno not in _READ_ONLY | {errno.ENOSPC}:
                    raise
        content = copies.content(bad.blob.digest)
        if content is not None:
            self._note(manifest, copies, content, bad.reason)

    def _note(self, manifest: Manifest, copies: Copies, content: Content, reason: str) -> None:
        if content.digest in self._told:
            return
        self._bad_contents += 1
        if len(self._bad) < BAD_TOLD:
            self._told.add(content.digest)
            paths = tuple(b"/" + path for path in copies.paths_of(content.id, PATHS_OF_ONE))
            self._bad.append(BadContent(manifest.name, content.digest, content.size, reason, paths))
