"""A store on disk: what it is made of, who may use it, opening and creating it.

STORE/
  casfs.toml            format version, digest algorithm, fan-out (this file)
  casfs.db  -wal -shm   the namespace (namespace/schema.sql)
  blobs/ab/abcdef…      the filestore (filestore/local.py); files 0400
  staging/              files being written (filestore/staging.py)
  quarantine/           damaged files that fsck or scrub took out of the way; only there if they had to
  schedules/            when each was last at work (service/last_runs.py); only there if a daemon has some
  run/                  lock, turnstile, control socket: nothing in it outlives a reboot; and a little room
                        that is given up on a full disk (filestore/spare.py)
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import tomllib
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from casfs.errors import FormatError, FormatTooNew, StoreExists, StoreLocked, StoreNotFound, UsageError
from casfs.filestore.directory import NO_FILE, StoreDirectory
from casfs.filestore.durable import Durable
from casfs.filestore.filestore import FileStore
from casfs.filestore.hashing import ALGORITHMS
from casfs.filestore.local import FAN_OUTS, LocalBlobs
from casfs.filestore.locks import CREATE, Lock, Turnstile, make_run_folder
from casfs.filestore.locks import FOLDER as RUN
from casfs.filestore.locks import NAMES as LOCKS
from casfs.filestore.spare import Spare
from casfs.filestore.staging import FOLDER as STAGING
from casfs.namespace import schema
from casfs.namespace.namespace import Namespace
from casfs.text import is_text, printable

FORMAT = 1
"""Version of what this file documents. A store of a newer one is refused."""

CONFIG = "casfs.toml"
DATABASE = "casfs.db"

CONFIG_BYTES = 4096
"""Length of casfs.toml at the most."""

COLLECTOR_SECONDS = 10.0
COLLECTOR_POLL = 0.02
"""Seconds to wait for the collector to give back a store that it has for itself, and how often to look."""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """casfs.toml: what was chosen when the store was made. An unknown key is an error."""

    format: int
    digest: Literal["blake3"]
    fan_out: Literal[1, 2, 3]


class Store:
    """An open store.

    `readonly` takes no lock and changes nothing. `shared` takes no lock either, and works beside the mount
    daemon as well as alone: whoever opens it so changes rows in short transactions of his own, each through
    the turnstile, and nothing that the daemon has in memory: inodes, names, counts of references.
    `close_before`: what is to be closed before it.
    """

    def __init__(
        self, path: str, *, readonly: bool = False, shared: bool = False, durable: Durable | None = None
    ) -> None:
        """Raises StoreNotFound, FormatError, FormatTooNew, StoreLocked, OSError."""
        self.path = os.path.realpath(path)
        self.config = read_config(self.path)
        self.readonly = readonly
        self._shared = shared
        self.spare = make_way(self.path, alone=not readonly and not shared)
        self._lock = store_lock(self.path)
        self.turnstile: Turnstile | None = None
        self.close_before: list[Callable[[], object]] = []
        self.directory = StoreDirectory(self.path, durable)
        try:
            if not readonly:
                make_run_folder(self.directory)
            if not readonly and not shared:
                self._take_lock()
            self.filestore = FileStore(self.directory, self.config.fan_out)
            if not readonly:
                self.turnstile = Turnstile(self.directory)
            self.namespace = self._open_namespace()
        except BaseException:
            if self.turnstile is not None:
                self.turnstile.close()
            self._lock.release()
            self.directory.close()
            raise

    def _take_lock(self) -> None:
        """Raises StoreLocked, if it is not the collector that has the store for a moment
        (maintenance/collect/gc.py): at boot it starts together with the mount."""
        deadline = time.monotonic() + COLLECTOR_SECONDS
        while not self._lock.acquire():
            holder = self._lock.holder()
            if holder != collector_lock(self.path).holder() or time.monotonic() > deadline:
                raise StoreLocked(
                    f"{self.path} is in use by {holder}",
                    hint="unmount it first (casfs umount MOUNTPOINT) or wait for the command to end",
                )
            time.sleep(COLLECTOR_POLL)

    def _open_namespace(self) -> Namespace:
        """In the turnstile: of two that open an older store at once, one migrates it."""
        check_database(self.directory)
        if self.turnstile is None:
            return Namespace(database_path(self.path), readonly=True)
        self.turnstile.enter()
        try:
            return Namespace(database_path(self.path), shared=self._shared)
        finally:
            self.turnstile.leave()

    def close(self) -> None:
        for close in self.close_before:
            close()
        if not self.readonly:
            self.filestore.staging.close()
        self.namespace.close()
        if self.turnstile is not None:
            self.turnstile.close()
        self._lock.release()
        self.directory.close()


def config_path(store: str) -> str:
    return f"{store}/{CONFIG}"


def database_path(store: str) -> str:
    return f"{store}/{DATABASE}"


def make_way(store: str, *, alone: bool = False) -> Spare:
    """Give up what is held for a full disk, if it is so full that the store could not be opened.

    Not if the database is open, or was when its user died: then it takes no more files, and a mount may need
    what is held. `alone`: there is no other user.
    """
    spare = Spare(store)
    if (alone or not os.path.exists(f"{database_path(store)}-wal")) and spare.is_needed():
        spare.give_up()
    return spare


def store_lock(store: str) -> Lock:
    """What the one holds who changes the namespace."""
    return Lock(store, "lock")


def scrub_lock(store: str) -> Lock:
    """What who scrubs a store holds."""
    return Lock(store, "scrub")


def digests_lock(store: str) -> Lock:
    """What who computes digests of a store's blobs holds."""
    return Lock(store, "digests")


def collector_lock(store: str) -> Lock:
    """What the collector holds while it works; its file says which process that is."""
    return Lock(store, "gc.lock")


def collector_daemon_lock(store: str) -> Lock:
    """What the collector's daemon holds as long as it is there."""
    return Lock(store, "gcd.lock")


def backup_daemon_lock(store: str) -> Lock:
    """What the daemon of a store's backups holds as long as it is there."""
    return Lock(store, "backupd.lock")


def control_path(store: str) -> str:
    """The control socket of the daemon that has the store mounted."""
    return f"{store}/run/control"


def holder(store: str) -> str | None:
    """Who uses the store, or None when nobody does. Raises StoreNotFound, FormatError."""
    read_config(store)
    return store_lock(store).held_by() or None


def make_run(store: str) -> None:
    """Make the folder of a store's locks, if there is none. Raises OSError."""
    with contextlib.closing(StoreDirectory(store)) as directory:
        make_run_folder(directory)


def check_database(directory: StoreDirectory) -> None:
    """Is the database, with its log, of regular files that have no name elsewhere? SQLite opens what it finds
    there, by path. A rollback journal is never ours, and may name any file for removal ("super-journal",
    sqlite.org/fileformat2.html#rollbackjournal). Raises FormatError."""
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        try:
            status = directory.status(name)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{directory.path}/{name} is no regular file", hint="restore it from a backup")
        if status.st_nlink > 1:
            raise FormatError(
                f"{directory.path}/{name} has a second name, under which it would be changed too",
                hint="put a copy of it in its place",
            )
    if directory.exists(f"{DATABASE}-journal"):
        raise FormatError(f"{directory.path}/{DATABASE}-journal is no part of a store", hint="remove it")


def read_config(path: str) -> StoreConfig:
    """What casfs.toml says. Raises StoreNotFound, FormatError, FormatTooNew, OSError."""
    name = config_path(path)
    _check_path(path)
    try:
        with contextlib.closing(StoreDirectory(os.path.realpath(path))) as directory:
            values = tomllib.loads(_read_config(directory))
    except FileNotFoundError:
        what = "is not a casfs store" if os.path.isdir(path) else "does not exist"
        raise StoreNotFound(f"{path} {what}", hint=f"casfs init {path} makes one") from None
    except NotADirectoryError:
        raise StoreNotFound(f"{path} is not a directory") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{name} is damaged: {error}") from None
    version = values.get("format")
    if isinstance(version, int) and version < 1:
        raise FormatError(f"{name} is damaged: format {version}")
    if isinstance(version, int) and version > FORMAT:
        raise FormatTooNew(
            f"{path} has format {version}; this casfs knows up to {FORMAT}", hint="use a newer casfs"
        )
    try:
        return msgspec.convert(values, StoreConfig)
    except msgspec.ValidationError as error:
        raise FormatError(f"{name} is damaged: {error}") from None


def _check_path(path: str) -> None:
    """Raises UsageError for a path that SQLite could not be given."""
    if not is_text(os.path.realpath(path)):
        raise UsageError(
            f"the path of a store has to be UTF-8, which {printable(path)} is not", "give it another name"
        )


def _read_config(directory: StoreDirectory) -> str:
    try:
        fd = directory.open(CONFIG)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise FormatError(f"{config_path(directory.path)} is no regular file") from None
    try:
        data = os.pread(fd, CONFIG_BYTES + 1, 0)
    finally:
        os.close(fd)
    if len(data) > CONFIG_BYTES:
        raise FormatError(f"{config_path(directory.path)} is damaged: longer than {CONFIG_BYTES} bytes")
    return data.decode()


def create_store(path: str, *, fan_out: int = 2, digests: Iterable[str] = ()) -> None:
    """Make an empty store at `path`, which must not exist or be an empty directory.

    `digests`: algorithms of those that every content gets besides BLAKE3.
    casfs.toml comes last, so that a store cut off in the making is not taken for one.
    Raises StoreExists, FormatError for a fan-out not in FAN_OUTS, UsageError for an algorithm not in
    ALGORITHMS, OSError.
    """
    digests = tuple(digests)
    for name in digests:
        if name not in ALGORITHMS:
            raise UsageError.unknown("algorithm", name, ALGORITHMS)
    if fan_out not in FAN_OUTS:
        raise FormatError(f"fan-out {fan_out} is not one of {', '.join(map(str, FAN_OUTS))}")
    path = os.path.realpath(path)
    _check_path(path)
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.path.exists(config_path(path)):
        raise StoreExists(f"{path} is a casfs store already")
    if os.listdir(path):
        raise StoreExists(f"{path} is not empty", hint="name a new or an empty directory")
    os.chmod(path, 0o700)
    durable = Durable()
    with contextlib.closing(StoreDirectory(path, durable)) as directory:
        _fill(directory, fan_out, digests)
        durable.fsync_path(os.path.dirname(path))
    Spare(path).hold()


def _fill(directory: StoreDirectory, fan_out: int, digests: tuple[str, ...]) -> None:
    """Make everything that a store has; it is one when this returns."""
    make_folders(directory, fan_out)
    schema.create(database_path(directory.path), time.time_ns(), os.getuid(), os.getgid(), digests)
    write_config(directory, fan_out)


def make_folders(directory: StoreDirectory, fan_out: int) -> None:
    """The folders of a store, and the files of its locks; those that are there already stay. Raises
    OSError."""
    for name in (STAGING, *LocalBlobs(directory, fan_out).folders()):
        with contextlib.suppress(FileExistsError):
            directory.make_folder(name)
    directory.sync(LocalBlobs(directory, fan_out).folders()[0])
    directory.sync(".")
    make_run_folder(directory)
    for name in LOCKS:
        os.close(directory.open_own(f"{RUN}/{name}", CREATE, 0o600))


def write_config(directory: StoreDirectory, fan_out: int) -> None:
    """casfs.toml, durable: from here on it is a store. Raises OSError."""
    durable = directory.durable
    text = (
        "# A casfs store. Written once by `casfs init`; do not edit.\n"
        f'format = {FORMAT}\ndigest = "blake3"\nfan_out = {fan_out}\n'
    )
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(f"{CONFIG}.new")
    fd = directory.create(f"{CONFIG}.new", 0o600)
    try:
        durable.write_whole(fd, text.encode())
        durable.fdatasync(fd)
    finally:
        os.close(fd)
    directory.rename(f"{CONFIG}.new", CONFIG)
    directory.sync(".")
