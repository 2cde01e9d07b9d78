"""Healing: damaged and missing blobs are put back from a copy of their content.

The source is a tree of files, or another store. It is never trusted: what goes into place is what was
hashed on its way into the staging folder. Names of the source play no part, and nothing is written outside
the store.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from casfs.errors import FormatError, StoreNotFound
from casfs.filestore.directory import READ, StoreDirectory
from casfs.filestore.hashing import hash_descriptor, new_hasher
from casfs.filestore.local import LocalBlobs
from casfs.filestore.staging import StagedFile
from casfs.maintenance.collect.batch import transaction
from casfs.maintenance.progress import Progress
from casfs.maintenance.scrub.scrub import BadBlob, Damaged, Settlement
from casfs.maintenance.scrub.verify import CHUNK, Verifier
from casfs.namespace.damage import BlobToRead
from casfs.store import Store, config_path, read_config

LOOK = 10_000
"""Blobs whose files are looked at in one go."""


@dataclass(frozen=True, slots=True)
class Healed:
    """A blob that is whole again; `paths` can be read again."""

    digest: str
    size: int
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HealReport:
    """`healed` have been put back; `left` are still damaged or missing. `cleared`: blobs that were noted as
    damaged and were whole, or gone, already. `unreadable`: files and folders of the source that could not be
    read, the first ones."""

    store: str
    source: str
    healed: tuple[Healed, ...]
    left: tuple[BadBlob, ...]
    cleared: int
    unreadable: tuple[str, ...]


UNREADABLE_LISTED = 20


def heal(
    store: Store,
    source: str,
    *,
    progress: Progress,
    damaged: Damaged,
    blobs: list[BlobToRead] | None = None,
) -> HealReport:
    """Put back what is damaged or missing and lies in `source`: a casfs store, or any tree of files. `blobs`:
    only these are looked at, which are not known to be whole.

    Raises StoreNotFound when there is no such folder, FormatError for a store that cannot be one or is the
    same one, StoreLocked, DatabaseError, OSError.
    """
    return _Healing(store, source, progress, damaged).run(blobs)


class _Healing:
    def __init__(self, store: Store, source: str, progress: Progress, damaged: Damaged) -> None:
        self._store = store
        self._source = os.path.realpath(source)
        self._fan_out = _fan_out_of(self._source)
        if not os.path.isdir(self._source):
            raise StoreNotFound(f"{source} is no folder", hint="--from takes a tree of files, or a store")
        if self._source == store.path:
            raise FormatError(f"{source} is the store that shall be healed", hint="name a copy of it")
        self._progress = progress
        self._damage = store.namespace.damage
        self._verifier = Verifier(store.filestore.blobs, lambda count: None)
        self._settlement = Settlement(store, self._verifier, damaged)
        self._wanted: dict[bytes, BadBlob] = {}
        self._ids: dict[bytes, int] = {}
        self._cleared = 0
        self._healed: list[Healed] = []
        self._unreadable: list[str] = []

    def run(self, blobs: list[BlobToRead] | None) -> HealReport:
        if blobs is None:
            self._find_wanted()
        else:
            known = self._damage.known()
            for blob in blobs:
                self._look_at(blob, known=blob.id in known)
        if self._wanted:
            if self._fan_out is not None:
                self._from_store(self._fan_out)
            else:
                self._from_tree()
        with transaction(self._store):
            self._cleared += self._damage.clear_strays()
        left = tuple(self._wanted.values())
        return HealReport(
            self._store.path,
            self._source,
            tuple(self._healed),
            left,
            self._cleared,
            tuple(self._unreadable),
        )

    # What is wanted

    def _find_wanted(self) -> None:
        """Every blob that is noted as damaged, or whose file is missing or of another size."""
        known = self._damage.known()
        cursor, done, total = 0, 0, max(1, self._store.namespace.blobs.totals()[0])
        while blobs := self._damage.blobs_after(cursor, LOOK):
            for blob in blobs:
                if blob.id in known or not self._store.filestore.has(blob.digest, blob.size):
                    self._look_at(blob, known=blob.id in known)
            cursor = blobs[-1].id
            done += len(blobs)
            self._progress("looking for missing blobs", min(done, total), total)

    def _look_at(self, blob: BlobToRead, *, known: bool) -> None:
        bad = self._verifier.verify(blob)
        settled = None if bad is None else self._settlement.settle(bad)
        if settled is not None:
            self._wanted[blob.digest] = settled
            self._ids[blob.digest] = blob.id
        elif known:
            with transaction(self._store):
                self._cleared += self._damage.clear(blob.id)

    # Where it may be

    def _from_store(self, fan_out: int) -> None:
        with contextlib.closing(StoreDirectory(self._source)) as directory:
            blobs = LocalBlobs(directory, fan_out)
            for number, digest in enumerate(list(self._wanted)):
                self._progress("healing", number, len(self._wanted))
                path = blobs.path(digest)
                self._try(self._open(path, partial(blobs.open, digest)), path, digest)

    def _from_tree(self) -> None:
        """Only files of a size that is wanted are read."""
        sizes = Counter(bad.size for bad in self._wanted.values())
        for number, (path, size) in enumerate(self._files()):
            if not number % 1000:
                self._progress("reading the source", number, number)
            if not sizes[size]:
                continue
            digest = self._digest_of(path)
            if digest is None or digest not in self._wanted:
                continue
            if self._try(self._open_file(path), path, digest):
                sizes[size] -= 1
                if not self._wanted:
                    return

    def _files(self) -> Iterator[tuple[str, int]]:
        """Regular files below the source; symbolic links are not followed."""
        folders = [self._source]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        elif entry.is_file(follow_symlinks=False) and (size := self._size(entry)) is not None:
                            yield entry.path, size
            except OSError as error:
                self._note_unreadable(folder, error)

    def _size(self, entry: os.DirEntry[str]) -> int | None:
        """None for a file that has gone meanwhile, or cannot be looked at: others are not passed over."""
        try:
            return entry.stat(follow_symlinks=False).st_size
        except OSError as error:
            self._note_unreadable(entry.path, error)
            return None

    def _open_file(self, path: str) -> int:
        return self._open(path, partial(os.open, path, READ | os.O_NONBLOCK))

    def _open(self, path: str, opened: Callable[[], int]) -> int:
        """A regular file; -1 when there is none that can be read."""
        try:
            fd = opened()
        except FileNotFoundError:
            return -1
        except OSError as error:
            self._note_unreadable(path, error)
            return -1
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return -1
        return fd

    def _digest_of(self, path: str) -> bytes | None:
        fd = self._open_file(path)
        if fd < 0:
            return None
        try:
            return hash_descriptor(fd, os.fstat(fd).st_size)
        except OSError as error:
            self._note_unreadable(path, error)
            return None
        finally:
            os.close(fd)

    def _note_unreadable(self, path: str, error: OSError) -> None:
        if len(self._unreadable) < UNREADABLE_LISTED:
            self._unreadable.append(f"{path}: {error.strerror}")

    # Into place

    def _try(self, fd: int, path: str, digest: bytes) -> bool:
        """Copy a file into the store if it has the content of a wanted blob, and close it; -1 for none."""
        if fd < 0:
            return False
        try:
            if os.fstat(fd).st_size != self._wanted[digest].size:
                return False
            staged = self._copy(fd, path, digest)
        finally:
            os.close(fd)
        if staged is None:
            return False
        self._place(digest, staged)
        return True

    def _copy(self, fd: int, path: str, digest: bytes) -> StagedFile | None:
        """A durable staged file with the content of a blob; None when the source has another one."""
        filestore = self._store.filestore
        filestore.space.claim(self._wanted[digest].size)
        staged = filestore.staging.create()
        try:
            hasher, offset, size = new_hasher(), 0, self._wanted[digest].size
            while offset < size and (chunk := self._read(fd, path, min(CHUNK, size - offset), offset)):
                hasher.update(chunk)
                written = 0
                while written < len(chunk):
                    written += os.pwrite(staged.fd, chunk[written:], offset + written)
                offset += len(chunk)
            if hasher.digest() != digest:
                filestore.staging.drop(staged)
                return None
            filestore.durable.fdatasync(staged.fd)
        except BaseException:
            filestore.staging.drop(staged)
            raise
        return staged

    def _read(self, fd: int, path: str, size: int, offset: int) -> bytes:
        """Nothing where the source cannot be read: the digest then tells that something is missing."""
        try:
            return os.pread(fd, size, offset)
        except OSError as error:
            self._note_unreadable(path, error)
            return b""

    def _place(self, digest: bytes, staged: StagedFile) -> None:
        """Make the staged file the blob, if that is still wanted."""
        filestore, blob = self._store.filestore, self._ids[digest]
        bad = self._wanted.pop(digest)
        with transaction(self._store):
            if self._store.namespace.blobs.find(digest) != blob:
                filestore.staging.drop(staged)  # collected meanwhile
                return
            if filestore.has(digest, bad.size):
                filestore.staging.drop(staged)  # written anew meanwhile
            else:
                filestore.publish_staged(digest, staged, keep_name=False)
            filestore.sync_each([digest])  # before the note goes, whoever wrote it
            self._damage.clear(blob)
        self._healed.append(Healed(bad.digest, bad.size, bad.paths))


def _fan_out_of(path: str) -> int | None:
    """The fan-out of the store at `path`; None when that is something else. Raises FormatError for a store
    that cannot be read."""
    return read_config(path).fan_out if os.path.lexists(config_path(path)) else None
