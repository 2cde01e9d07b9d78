"""STORE/snapshots: the snapshots there are, those that are being made, and those that go.

    NAME/casfs.db        the database as it was, without a log; it never changes again
    NAME/manifest.json   manifest.py
    NAME/counts.json     the same; not there before somebody has counted
    .serial              the last serial that was given, in decimal
    .destinations        the paths to which backups were made (maintenance/backup/destination.py)
    .new-NAME/           being made, by the process that holds flock(2) on the folder; casfs.db.part in it
    until
                         the database is whole, casfs.db from then on; and contents that come from elsewhere,
                         under names of 16 hex digits, until they are blobs
    .gone-NAME-HEX/      being removed

A snapshot is there from the rename(2) that takes `.new-` from its folder's name, until the one that puts
`.gone-` before it. A maker that died leaves the first kind: what it was about goes on with it, or it goes
after LEFT_NS. Who removes and dies leaves the second; the next one who looks removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from casfs.errors import CasfsError, FormatError, StoreLocked
from casfs.filestore.directory import LIST, NO_FOLDER, StoreDirectory
from casfs.snapshots.manifest import (
    MANIFEST_BYTES,
    SERIALS,
    Counts,
    Manifest,
    check_name,
    decode_counts,
    decode_manifest,
    encode_manifest,
    is_name,
)
from casfs.syscalls import open_beneath

FOLDER = "snapshots"
DATABASE = "casfs.db"
PART = f"{DATABASE}.part"
MANIFEST = "manifest.json"
COUNTS = "counts.json"
SERIAL = ".serial"
DESTINATIONS = ".destinations"
NEW = ".new-"
GONE = ".gone-"

LEFT_NS = 7 * 86_400 * 10**9
"""Age from which what a dead maker left goes: until then an interrupted backup goes on with it."""

USELESS_NS = 600 * 10**9
"""The same, without a whole database: nobody goes on with that, and each may be as large as the store's."""


class Database(NamedTuple):
    """The database of a snapshot: its path, and what tells its file from others, (st_dev, st_ino)."""

    path: str
    file: tuple[int, int]


class SnapshotFolder:
    """That of one store. From any thread and any process; what must not happen twice at once is said below.

    Methods raise OSError as their system calls do.
    """

    def __init__(self, directory: StoreDirectory) -> None:
        self._directory = directory

    @property
    def directory(self) -> StoreDirectory:
        """STORE."""
        return self._directory

    # Looking

    def names(self) -> list[str]:
        """Of those that are whole, in no order."""
        return [name for name in self._entries() if self.exists(name)]

    def unfinished(self) -> list[str]:
        """Names of those that are being made, or were when their maker died."""
        return [name.removeprefix(NEW) for name in self._entries() if name.startswith(NEW)]

    def _entries(self) -> list[str]:
        try:
            return self._directory.names(FOLDER)
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            return []

    def exists(self, name: str) -> bool:
        return is_name(name) and self._directory.is_folder(f"{FOLDER}/{name}")

    def find(self, name: str) -> Manifest:
        """Raises CasfsError when there is none, FormatError for one whose manifest is damaged."""
        check_name(name)
        try:
            return self._manifest(f"{FOLDER}/{name}", name)
        except FileNotFoundError:
            if self._directory.is_folder(f"{FOLDER}/{name}"):
                where = f"{self._directory.path}/{FOLDER}/{name}"
                raise FormatError(f"{where} has no manifest", "casfs snapshot rm removes it") from None
            raise CasfsError(
                f"there is no snapshot {name}", f"casfs snapshot list {self._directory.path} shows them"
            ) from None

    def all(self) -> list[Manifest]:
        """Of all that are whole and can be read, oldest first."""
        return self.survey()[0]

    def survey(self) -> tuple[list[Manifest], list[FormatError]]:
        """`all`, and why others cannot be read."""
        found: list[Manifest] = []
        problems: list[FormatError] = []
        for name in self.names():
            try:
                found.append(self.find(name))
            except FormatError as error:
                problems.append(error)
            except CasfsError:
                continue  # it went meanwhile
        return sorted(found, key=lambda manifest: (manifest.made_ns, manifest.serial)), problems

    def _manifest(self, folder: str, name: str) -> Manifest:
        where = f"{self._directory.path}/{folder}/{MANIFEST}"
        manifest = decode_manifest(self._read(f"{folder}/{MANIFEST}"), where)
        if manifest.name != name:
            raise FormatError(f"{where} is that of {manifest.name!r:.100}", "casfs snapshot rm removes it")
        return manifest

    def _read(self, name: str) -> bytes:
        fd = self._directory.open(name)
        try:
            return os.pread(fd, MANIFEST_BYTES + 1, 0)
        finally:
            os.close(fd)

    def database(self, name: str) -> str:
        """Where the database of a snapshot is, for SQLite. Raises CasfsError when there is none, FormatError
        for what is no file of its own."""
        found = self.file_of(name) if is_name(name) else None
        if found is None:
            self.find(name)
            raise FormatError(f"{self._directory.path}/{FOLDER}/{name} has no database")
        return found.path

    def file_of(self, name: str) -> Database | None:
        """The same, for who asks whether it is still that one; None when the snapshot is gone. Raises
        FormatError."""
        try:
            return _file(self._directory, f"{FOLDER}/{name}/{DATABASE}")
        except FileNotFoundError:
            if self.exists(name):
                where = f"{self._directory.path}/{FOLDER}/{name}"
                raise FormatError(f"{where} has no database", "casfs snapshot rm removes it") from None
            return None

    def unfinished_database(self, name: str) -> Database | None:
        """That of an unfinished snapshot, if it is whole, and somebody may still go on with it."""
        folder = f"{FOLDER}/{NEW}{name}"
        try:
            database = _file(self._directory, f"{folder}/{DATABASE}")
            if self._directory.status(folder).st_mtime_ns >= time.time_ns() - LEFT_NS:
                return database
        except FileNotFoundError:
            return None
        return database if self.is_being_made(name) else None

    def is_there(self, database: Database) -> bool:
        """Is a database still where it was?"""
        name = database.path.removeprefix(f"{self._directory.path}/")
        try:
            return _file(self._directory, name).file == database.file
        except (OSError, FormatError):
            return False

    def is_being_made(self, name: str) -> bool:
        """Has somebody the lock of an unfinished snapshot?"""
        try:
            fd = open_beneath(self._directory.fd, f"{FOLDER}/{NEW}{name}", LIST)
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            return False
        try:
            return not _lock(fd, shared=True)
        finally:
            os.close(fd)

    def counts(self, name: str) -> Counts | None:
        """What somebody has counted; None when nobody has."""
        try:
            return decode_counts(self._read(f"{FOLDER}/{name}/{COUNTS}"))
        except OSError:
            return None

    def note_counts(self, name: str, counts: Counts) -> None:
        """Keep them for the next who asks; without a word where that cannot be."""
        with contextlib.suppress(OSError):
            _replace(self._directory, f"{FOLDER}/{name}/{COUNTS}", msgspec.json.encode(counts))

    # Making

    @contextlib.contextmanager
    def building(self, name: str) -> Iterator[Building]:
        """Make a snapshot of that name, or go on where a maker that died has left one. What is not finished
        in it stays so, for LEFT_NS. Raises UsageError, CasfsError for a name that is taken, StoreLocked for
        one that somebody else is making."""
        check_name(name)
        folder = f"{FOLDER}/{NEW}{name}"
        self._make_folder()
        with contextlib.suppress(FileExistsError):
            self._directory.make_folder(folder)
        try:
            fd = open_beneath(self._directory.fd, folder, LIST)
        except FileNotFoundError:
            raise _is_made(name) from None
        try:
            if not _lock(fd):
                raise _is_made(name)
            if self.exists(name):
                with contextlib.suppress(OSError):
                    self._directory.remove_folder(folder)
                raise CasfsError(f"there is a snapshot {name} already", "give it another name")
            if not self._is_at(folder, fd):
                raise _is_made(name)  # who had it has abandoned it, and somebody else may have the next one
            self._directory.sync(FOLDER)
            yield Building(self, name, folder)
        finally:
            os.close(fd)

    def _is_at(self, folder: str, fd: int) -> bool:
        try:
            return os.path.samestat(self._directory.status(folder), os.fstat(fd))
        except OSError:
            return False

    def next_serial(self) -> int:
        """A serial that no snapshot has. The next ones are others until all were given once."""
        self._make_folder()
        fd = open_beneath(self._directory.fd, FOLDER, LIST)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            taken = {manifest.serial for manifest in self._readable()}
            last = max(taken, default=0)
            with contextlib.suppress(OSError, ValueError):
                last = int(self._read(f"{FOLDER}/{SERIAL}")[:20])
            for step in range(1, SERIALS):
                serial = (last + step - 1) % (SERIALS - 1) + 1
                if serial not in taken:
                    _replace(self._directory, f"{FOLDER}/{SERIAL}", b"%d\n" % serial)
                    return serial
        finally:
            os.close(fd)
        raise CasfsError(f"there are {SERIALS - 1} snapshots, and there cannot be more", "remove some")

    def _readable(self) -> Iterator[Manifest]:
        for name in self.names():
            with contextlib.suppress(OSError, FormatError):
                yield self._manifest(f"{FOLDER}/{name}", name)

    def _make_folder(self) -> None:
        try:
            self._directory.make_folder(FOLDER)
        except FileExistsError:
            if not self._directory.is_folder(FOLDER):
                raise FormatError(f"{self._directory.path}/{FOLDER} is no directory", "remove it") from None
        else:
            self._directory.sync(".")

    # Removing

    def remove(self, name: str) -> None:
        """From here on it holds nothing. Raises CasfsError when there is none of that name, StoreLocked while
        somebody is `using` it."""
        check_name(name)
        if not self.exists(name):
            self.find(name)
        folder = f"{FOLDER}/{name}"
        fd = open_beneath(self._directory.fd, folder, LIST)
        try:
            if not _lock(fd):
                raise StoreLocked(
                    f"snapshot {name} is in use", "wait for the backup or restore that reads it"
                )
            self._remove(folder, name)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Nobody removes it for the time of the block. Raises CasfsError when there is none, or when it is
        being removed."""
        try:
            fd = open_beneath(self._directory.fd, f"{FOLDER}/{name}", LIST)
        except FileNotFoundError:
            raise CasfsError(f"there is no snapshot {name} any more") from None
        try:
            if not _lock(fd, shared=True) or not self._is_at(f"{FOLDER}/{name}", fd):
                raise CasfsError(f"snapshot {name} is being removed, or its maker uses it")
            yield
        finally:
            os.close(fd)

    def abandon(self, name: str) -> None:
        """Remove what the maker of a snapshot has left, if he is gone. Raises StoreLocked, OSError."""
        folder = f"{FOLDER}/{NEW}{name}"
        fd = open_beneath(self._directory.fd, folder, LIST)
        try:
            if not _lock(fd) or not self._is_at(folder, fd):
                raise StoreLocked(f"snapshot {name} is being made", "wait for it")
            self._remove(folder, name)
        finally:
            os.close(fd)

    def _remove(self, folder: str, name: str) -> None:
        gone = f"{FOLDER}/{GONE}{name[:100]}-{secrets.token_hex(4)}"
        self._directory.rename(folder, gone)
        self._directory.sync(FOLDER)
        self._directory.remove_folder(gone)

    def remove_leftovers(self, now_ns: int) -> None:
        """Remove what nobody will go on with: of the removed ones all, of the unfinished ones those that are
        older than LEFT_NS, or than USELESS_NS. What cannot be removed stays."""
        for entry in self._entries():
            name = f"{FOLDER}/{entry}"
            with contextlib.suppress(OSError, StoreLocked):
                if entry.startswith(GONE):
                    self._directory.remove_folder(name)
                elif entry.startswith(NEW):
                    limit = LEFT_NS if self._directory.exists(f"{name}/{DATABASE}") else USELESS_NS
                    if self._directory.status(name).st_mtime_ns < now_ns - limit:
                        self.abandon(entry.removeprefix(NEW))


class Building:
    """A snapshot that is being made, by whoever has its lock. Owned by one thread at a time."""

    def __init__(self, snapshots: SnapshotFolder, name: str, folder: str) -> None:
        self._directory = snapshots.directory
        self.name = name
        self._folder = folder

    @property
    def part(self) -> str:
        """Where the database is until it is whole, for SQLite."""
        return f"{self._directory.path}/{self.part_name}"

    @property
    def part_name(self) -> str:
        """The same, below STORE."""
        return f"{self._folder}/{PART}"

    @property
    def has_database(self) -> bool:
        """Is the database whole, by who was at it before?"""
        return self._directory.exists(f"{self._folder}/{DATABASE}")

    @property
    def database(self) -> str:
        """Where the whole database is, for SQLite. Raises FormatError."""
        return _file(self._directory, f"{self._folder}/{DATABASE}").path

    def create_part(self) -> int:
        """An empty file for the database, open; what somebody has left in its place goes."""
        for name in (PART, f"{PART}-wal", f"{PART}-shm", f"{PART}-journal", DATABASE):
            with contextlib.suppress(FileNotFoundError):
                self._directory.unlink(f"{self._folder}/{name}")
        return self._directory.create(f"{self._folder}/{PART}", 0o600)

    def create_log(self) -> int:
        """An empty file for the log of `part`, open."""
        return self._directory.create(f"{self._folder}/{PART}-wal", 0o600)

    def database_is_whole(self) -> int:
        """The database holds by itself from here on, and is durable. Gives its bytes."""
        for end in ("-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                self._directory.unlink(f"{self._folder}/{PART}{end}")
        self._directory.sync(f"{self._folder}/{PART}")
        self._directory.rename(f"{self._folder}/{PART}", f"{self._folder}/{DATABASE}")
        self._directory.sync(self._folder)
        return self._directory.status(f"{self._folder}/{DATABASE}").st_size

    def finish(self, manifest: Manifest, counts: Counts | None = None) -> None:
        """There is a snapshot, durable."""
        _replace(self._directory, f"{self._folder}/{MANIFEST}", encode_manifest(manifest))
        if counts is not None:
            _replace(self._directory, f"{self._folder}/{COUNTS}", msgspec.json.encode(counts))
        self._directory.sync(self._folder)
        self._directory.rename(self._folder, f"{FOLDER}/{self.name}")
        self._directory.sync(FOLDER)

    def abandon(self) -> None:
        """Nobody will go on with it."""
        self._directory.remove_folder(self._folder)


def _is_made(name: str) -> StoreLocked:
    return StoreLocked(f"snapshot {name} is being made already", "wait, or give it another name")


def _lock(fd: int, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _file(directory: StoreDirectory, name: str) -> Database:
    """SQLite opens by path: what lies there is looked at before. Raises FormatError, FileNotFoundError."""
    try:
        status = directory.status(name)
    except OSError as error:
        if error.errno == errno.ENOENT or error.errno not in NO_FOLDER:
            raise
        raise FormatError(f"{directory.path}/{name} is no regular file", "remove the snapshot") from None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise FormatError(f"{directory.path}/{name} is no regular file of its own", "remove the snapshot")
    return Database(f"{directory.path}/{name}", (status.st_dev, status.st_ino))


def _replace(directory: StoreDirectory, name: str, data: bytes) -> None:
    """Write a small file whole, durable but for its name."""
    new = f"{name}.new"
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(new)
    fd = directory.create(new, 0o600)
    try:
        directory.durable.write_whole(fd, data)
        directory.durable.fdatasync(fd)
    finally:
        os.close(fd)
    directory.rename(new, name)


def name_at(prefix: str, seconds: float | None = None) -> str:
    """The name of a snapshot that a program makes now: PREFIX-YYYYMMDDTHHMMSSZ."""
    return f"{prefix}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(seconds))}"
