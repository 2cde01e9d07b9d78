"""A store on disk: what it is made of, who may use it, opening and creating it.

STORE/
  casfs.toml            format version, digest algorithm, fan-out (this file)
  casfs.db  -wal -shm   the namespace (namespace/schema.sql)
  blobs/ab/abcdef…      the filestore (filestore/local.py); files 0400
  staging/              files being written (filestore/staging.py)
  quarantine/           damaged files that fsck or scrub took out of the way; only there if they had to
  run/                  lock, turnstile, control socket: nothing in it outlives a reboot; and a little room
                        that is given up on a full disk (filestore/spare.py)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
import tomllib
from typing import Literal

import msgspec

from casfs.errors import FormatError, FormatTooNew, StoreExists, StoreLocked, StoreNotFound
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.durable import Durable
from casfs.filestore.filestore import FileStore
from casfs.filestore.local import FAN_OUTS
from casfs.filestore.spare import Spare
from casfs.namespace import schema
from casfs.namespace.namespace import Namespace

FORMAT = 1
"""Version of what this file documents. A store of a newer one is refused."""

CONFIG = "casfs.toml"
DATABASE = "casfs.db"

COLLECTOR_SECONDS = 10.0
COLLECTOR_POLL = 0.02
"""Seconds to wait for the collector to give back a store that it has for itself, and how often to look."""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """casfs.toml: what was chosen when the store was made. An unknown key is an error."""

    format: int
    digest: Literal["blake3"]
    fan_out: Literal[1, 2, 3]


class Lock:
    """An flock(2) on a file in run/. It dies with its process, however that ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if it is free and write down who has it; False when it is not free."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        if not shared:
            # Cut off only then: the block stays, on a disk that has no other.
            text = f"{os.getpid()} {_command_line()}\n".encode(errors="replace")
            os.ftruncate(fd, os.pwrite(fd, text, 0))
        return True

    def held_by(self) -> str:
        """Who holds the lock; "" when nobody does, or that cannot be seen. Nothing is made or changed."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return ""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self.holder()
        finally:
            os.close(fd)
        return ""

    def holder(self) -> str:
        """Who wrote itself down last, as `process 123 (casfs mount …)`."""
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                pid, _, command = file.read(4096).strip().partition(" ")
        except OSError:
            return "another process"
        return f"process {pid} ({command})" if pid else "another process"

    def signal(self, number: int) -> int:
        """Send a signal to the process that holds the lock. Gives its id; 0 when nobody holds it.

        Through a pidfd that was opened while it held it: an id may be that of another process by now.
        Raises OSError.
        """
        if not os.path.exists(self._path) or self.acquire(shared=True):
            self.release()
            return 0
        with open(self._path, encoding="utf-8", errors="replace") as file:
            pid, _, _ = file.read(4096).partition(" ")
        if not pid.isdecimal():
            return 0
        pidfd = os.pidfd_open(int(pid))
        try:
            if self.acquire(shared=True):
                self.release()
                return 0
            signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
        return int(pid)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Turnstile:
    """Who wants to BEGIN a write transaction passes here first, so that everybody gets a turn.

    The mount daemon writes one group of operations after the other and would leave SQLite's lock free
    for microseconds only. A process that waits for the lock holds the turnstile meanwhile; the daemon
    cannot start its next group before it was let in.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def try_enter(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def enter(self) -> None:
        """Wait for the turn. Blocks."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def leave(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


class Store:
    """An open store.

    `readonly` takes no lock and changes nothing. `shared` takes no lock either, and works beside the mount
    daemon as well as alone: whoever opens it so changes rows in short transactions of his own, each through
    the turnstile, and nothing that the daemon has in memory: inodes, names, counts of references.
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
        os.makedirs(f"{self.path}/run", mode=0o700, exist_ok=True) if not readonly else None
        self._lock = Lock(f"{self.path}/run/lock")
        self.turnstile: Turnstile | None = None
        self.directory = StoreDirectory(self.path, durable)
        try:
            if not readonly and not shared:
                self._take_lock()
            self.filestore = FileStore(self.directory, self.config.fan_out)
            if not readonly:
                self.turnstile = Turnstile(f"{self.path}/run/turnstile")
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
        if self.turnstile is None:
            return Namespace(database_path(self.path), readonly=True)
        self.turnstile.enter()
        try:
            return Namespace(database_path(self.path), shared=self._shared)
        finally:
            self.turnstile.leave()

    def close(self) -> None:
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


def collector_lock(store: str) -> Lock:
    """What the collector holds while it works; its file says which process that is."""
    return Lock(f"{store}/run/gc.lock")


def collector_daemon_lock(store: str) -> Lock:
    """What the collector's daemon holds as long as it is there."""
    return Lock(f"{store}/run/gcd.lock")


def control_path(store: str) -> str:
    """The control socket of the daemon that has the store mounted."""
    return f"{store}/run/control"


def holder(store: str) -> str | None:
    """Who uses the store, or None when nobody does. Raises StoreNotFound, FormatError."""
    read_config(store)
    lock = Lock(f"{store}/run/lock")
    if not os.path.isdir(f"{store}/run") or lock.acquire(shared=True):
        lock.release()
        return None
    return lock.holder()


def read_config(path: str) -> StoreConfig:
    """What casfs.toml says. Raises StoreNotFound, FormatError, FormatTooNew."""
    name = config_path(path)
    try:
        with open(name, "rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        what = "is not a casfs store" if os.path.isdir(path) else "does not exist"
        raise StoreNotFound(f"{path} {what}", hint=f"casfs init {path} makes one") from None
    except NotADirectoryError:
        raise StoreNotFound(f"{path} is not a directory") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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


def create_store(path: str, *, fan_out: int = 2) -> None:
    """Make an empty store at `path`, which must not exist or be an empty directory.

    casfs.toml comes last, so that a store cut off in the making is not taken for one.
    Raises StoreExists, FormatError for a fan-out not in FAN_OUTS, OSError.
    """
    if fan_out not in FAN_OUTS:
        raise FormatError(f"fan-out {fan_out} is not one of {', '.join(map(str, FAN_OUTS))}")
    path = os.path.abspath(path)
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.path.exists(config_path(path)):
        raise StoreExists(f"{path} is a casfs store already")
    if os.listdir(path):
        raise StoreExists(f"{path} is not empty", hint="name a new or an empty directory")
    os.chmod(path, 0o700)
    durable = Durable()
    with contextlib.closing(StoreDirectory(path, durable)) as directory:
        _fill(directory, fan_out)
        durable.fsync_path(os.path.dirname(path))
    Spare(path).hold()


def _fill(directory: StoreDirectory, fan_out: int) -> None:
    """Make everything that a store has; it is one when this returns."""
    path, durable = directory.path, directory.durable
    FileStore(directory, fan_out).create()
    os.mkdir(f"{path}/run", 0o700)
    for name in ("lock", "turnstile", "gc.lock", "gcd.lock", "scrub.lock"):
        os.close(os.open(f"{path}/run/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    schema.create(database_path(path), time.time_ns(), os.getuid(), os.getgid())
    text = (
        "# A casfs store. Written once by `casfs init`; do not edit.\n"
        f'format = {FORMAT}\ndigest = "blake3"\nfan_out = {fan_out}\n'
    )
    fd = directory.create(f"{CONFIG}.new", 0o600)
    try:
        durable.write_whole(fd, text.encode())
        durable.fdatasync(fd)
    finally:
        os.close(fd)
    directory.rename(f"{CONFIG}.new", CONFIG)
    directory.sync(".")


def _command_line() -> str:
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError as error:
        return f"unknown command, errno {error.errno or errno.EIO}"
    return " ".join(
        os.fsdecode(os.path.basename(word) if i < 2 else word) for i, word in enumerate(words) if word
    )
