"""A backup becomes a store again, at an empty place: with the same inode numbers, and the same identity.

Its blobs first, the database, and casfs.toml last, so that what was cut off is not taken for a store. It is
gone on with: what is there whole is not copied again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from casfs.errors import CasfsError, FormatError, StoreExists
from casfs.filestore.directory import NO_FILE, StoreDirectory
from casfs.filestore.hashing import hash_descriptor
from casfs.filestore.local import FAN_OUTS, LocalBlobs
from casfs.filestore.staging import FOLDER
from casfs.maintenance.backup.copying import CHUNK, Copied, Copier, Unreadable
from casfs.maintenance.backup.filecopy import copy_file
from casfs.maintenance.backup.pace import Pace
from casfs.maintenance.backup.send import THREADS
from casfs.maintenance.collect.batch import Stopped, never
from casfs.maintenance.progress import Progress, unwatched
from casfs.namespace.copies import Content, Copies, make_live, open_copy
from casfs.namespace.namespace import Namespace
from casfs.namespace.sending import STEP
from casfs.snapshots.manifest import Manifest
from casfs.store import CONFIG, DATABASE, make_folders, write_config
from casfs.types import DIGEST_SIZE

MARK = "restoring.json"
"""In a store that is being restored: which backup it will be."""

LOST_TOLD = 10_000


class LostContent(NamedTuple):
    """A content that cannot be restored, and its paths, from the root of the store."""

    digest: bytes
    size: int
    reason: str
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: files, contents that were `copied`, and `there` already. `complete`: it was not
    interrupted. `lost`: contents that are not there, or not as they were: reading them gives EIO."""

    blobs: int
    copied: int
    copied_bytes: int
    lost: tuple[LostContent, ...]
    complete: bool


class _Mark(msgspec.Struct, frozen=True):
    uuid: str
    name: str
    made_ns: int


def restore_store(
    source: LocalBlobs,
    database: str,
    manifest: Manifest,
    target: str,
    *,
    fan_out: int = 2,
    dry_run: bool = False,
    rate: int = 0,
    progress: Progress = unwatched,
    stop: Callable[[], bool] = never,
) -> Restored:
    """Make a backup a store at `target`, which is empty, does not exist, or was begun for that backup before.

    Raises StoreExists, FormatError, CasfsError, OSError; what was copied stays, for the next who tries.
    """
    if not manifest.content:
        raise CasfsError(
            f"backup {manifest.name} has no contents", "its names and digests can be looked at only"
        )
    mark = _Mark(manifest.uuid, manifest.name, manifest.made_ns)
    with contextlib.closing(open_copy(database)) as namespace:
        namespace.read_through()
        if str(namespace.meta("uuid")) != manifest.uuid:
            raise FormatError(f"{database} is the database of another store", "casfs backup verify says more")
        path = os.path.realpath(target)
        _check_place(path, mark)
        size = Copies(namespace).figures().blob_bytes
        if dry_run:
            return Restored(Copies(namespace).figures().blobs, 0, size, (), True)
        if fan_out not in FAN_OUTS:
            raise FormatError(f"fan-out {fan_out} is none")
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(path, 0o700)
        with contextlib.closing(StoreDirectory(path)) as directory:
            _begin(directory, fan_out, mark)
            work = _Restoring(source, namespace, directory, fan_out, progress, Pace(rate, stop), size)
            try:
                work.blobs()
            except Stopped:
                return work.result(complete=False)
            progress("writing names", 0, 0)
            _put_database(directory, database, work.lost)
            write_config(directory, fan_out)
            directory.unlink(MARK)
            directory.sync(".")
            return work.result(complete=True)


def _check_place(path: str, mark: _Mark) -> None:
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise StoreExists(f"{path} is not a directory") from None
    if not names or names == [f"{MARK}.new"]:
        return
    with contextlib.closing(StoreDirectory(path)) as directory:
        if CONFIG in names:
            raise StoreExists(f"{path} is a casfs store already", "restore to a new or an empty directory")
        if MARK not in names:
            raise StoreExists(f"{path} is not empty", "restore to a new or an empty directory")
        fd = directory.open(MARK)
        try:
            begun = msgspec.json.decode(os.pread(fd, 4096, 0), type=_Mark)
        except msgspec.DecodeError:
            begun = None
        finally:
            os.close(fd)
    if begun != mark:
        what = begun.name if begun is not None else "something else"
        raise StoreExists(f"{path} has been begun as {what}", "restore that, or name another directory")


def _begin(directory: StoreDirectory, fan_out: int, mark: _Mark) -> None:
    if not directory.exists(MARK):
        with contextlib.suppress(FileNotFoundError):
            directory.unlink(f"{MARK}.new")
        fd = directory.create(f"{MARK}.new", 0o600)
        try:
            directory.durable.write_whole(fd, msgspec.json.encode(mark))
            directory.durable.fdatasync(fd)
        finally:
            os.close(fd)
        directory.rename(f"{MARK}.new", MARK)
        directory.sync(".")
    make_folders(directory, fan_out)
    for name in directory.names(FOLDER):
        directory.unlink(f"{FOLDER}/{name}")


def _put_database(directory: StoreDirectory, database: str, lost: list[Unreadable]) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            directory.unlink(f"{DATABASE}{end}")
    source = os.open(database, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target = directory.create(DATABASE, 0o600)
        try:
            copy_file(source, target, os.fstat(source).st_size, never)
        finally:
            os.close(target)
    finally:
        os.close(source)
    found = [(each.content.digest, each.reason) for each in lost]
    make_live(f"{directory.path}/{DATABASE}", found, time.time_ns())
    directory.sync(DATABASE)


class _Restoring:
    def __init__(
        self,
        source: LocalBlobs,
        namespace: Namespace,
        directory: StoreDirectory,
        fan_out: int,
        progress: Progress,
        pace: Pace,
        size: int,
    ) -> None:
        self._copies = Copies(namespace)
        self._directory = directory
        self._target = LocalBlobs(directory, fan_out)
        self._copier = Copier(source, directory, FOLDER, pace)
        self._pace = pace
        self._progress = progress
        self._size = size
        self._lock = threading.Lock()
        self._done = 0
        self._blobs = self._copied = self._copied_bytes = 0
        self.lost: list[Unreadable] = []

    def result(self, *, complete: bool) -> Restored:
        lost = []
        for content, reason in self.lost[:LOST_TOLD]:
            paths = tuple(b"/" + path for path in self._copies.paths_of(content.id, 100))
            lost.append(LostContent(content.digest, content.size, reason, paths))
        return Restored(self._blobs, self._copied, self._copied_bytes, tuple(lost), complete)

    def blobs(self) -> None:
        """Copy them all. Raises Stopped, FormatError, OSError."""
        self._check_room()
        with ThreadPoolExecutor(THREADS, "copy") as pool:
            try:
                for batch in self._batches():
                    parts = [batch[start : start + 32] for start in range(0, len(batch), 32)]
                    for future in [pool.submit(self._copy, part) for part in parts]:
                        self._take(future.result())
            except BaseException:
                self._pace.end()
                raise
        self._directory.sync_all()

    def _batches(self) -> Iterator[list[Content]]:
        after = b""
        while found := self._copies.contents(after, STEP):
            after = found[-1].digest
            for content in found:
                if len(content.digest) != DIGEST_SIZE or content.size <= 0:
                    raise FormatError("the backup has a content that cannot be one", "casfs backup verify")
            yield found

    def _check_room(self) -> None:
        status = self._directory.statvfs()
        room = status.f_bavail * status.f_frsize
        needed = files = 0
        for batch in self._batches():
            for content in batch:
                if self._target.size(content.digest) != content.size:
                    files += 1
                    needed += -(-content.size // status.f_frsize) * status.f_frsize
        if needed > room:
            raise CasfsError(
                f"{self._directory.path} has no room: {needed} bytes are needed, {needed - room} are lacking",
                "make room there, or restore to another place",
            )

    def _copy(self, contents: list[Content]) -> list[Copied | Unreadable | Content]:
        buffer = memoryview(bytearray(CHUNK + 1))
        done: list[Copied | Unreadable | Content] = []
        for content in contents:
            self._pace.check()
            done.append(content if self._is_there(content) else self._copier.copy(content, buffer))
            with self._lock:
                self._done += content.size
            self._progress("copying", self._done, self._size)
        return done

    def _is_there(self, content: Content) -> bool:
        """A file of the right size may be the torn rest of a crash."""
        if self._target.size(content.digest) != content.size:
            return False
        try:
            fd = self._target.open(content.digest)
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            return False
        try:
            return hash_descriptor(fd, content.size) == content.digest
        finally:
            os.close(fd)

    def _take(self, done: list[Copied | Unreadable | Content]) -> None:
        copied = [each for each in done if isinstance(each, Copied)]
        self._target.adopt((each.name, each.content.digest) for each in copied)
        self.lost += [each for each in done if isinstance(each, Unreadable)]
        self._blobs += sum(not isinstance(each, Unreadable) for each in done)
        self._copied += len(copied)
        self._copied_bytes += sum(each.content.size for each in copied)
