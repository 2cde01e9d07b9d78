"""Where backups go: a store of its own, which is made where there is none.

A store remembers, in snapshots/.destinations, the paths to which it was backed up: what is no store there any
more is a disk that is not mounted, rather than a new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time

import msgspec

from casfs.errors import CasfsError, StoreExists, StoreNotFound, UsageError
from casfs.filestore.directory import LIST, NO_FILE, NO_FOLDER, StoreDirectory
from casfs.filestore.local import FAN_OUTS, LocalBlobs
from casfs.filestore.locks import FOLDER as RUN
from casfs.filestore.locks import NAMES as LOCKS
from casfs.filestore.staging import FOLDER as STAGING
from casfs.snapshots.folder import DESTINATIONS, FOLDER
from casfs.store import CONFIG, Store, config_path, create_store, read_config

KNOWN = f"{FOLDER}/{DESTINATIONS}"
"""A JSON array of paths."""

KNOWN_BYTES = 1 << 20

MAKING_SECONDS = 10.0
POLL_SECONDS = 0.1
"""How long a store that is half made is waited for, and how often it is looked at: by `casfs init`, maybe."""

_PARTS = frozenset(
    {
        STAGING,
        RUN,
        f"{CONFIG}.new",
        "casfs.db",
        "casfs.db-wal",
        "casfs.db-shm",
        "casfs.db-journal",
    }
)
"""What a store has that was cut off in the making."""


def check_apart(store: str, destination: str) -> None:
    """Raises UsageError for two paths of which one lies in the other, by whatever name, StoreNotFound."""
    if not os.path.isdir(store):
        raise StoreNotFound(f"{store} is not a casfs store")
    inner, outer = os.path.realpath(destination), os.path.realpath(store)
    if _is_in(inner, outer) or _is_in(outer, inner):
        raise UsageError(
            f"{destination} and {store} lie one in the other, or are the same", "back up to another directory"
        )


def _is_in(path: str, folder: str) -> bool:
    """Is a path a folder, or below it?"""
    if not os.path.exists(folder):
        return os.path.commonpath((path, folder)) == folder
    while True:
        with contextlib.suppress(OSError):
            if os.path.samefile(path, folder):
                return True
        above = os.path.dirname(path)
        if above == path:
            return False
        path = above


def open_destination(
    store: str, destination: str, fan_out: int, *, existing: bool = False, new: bool = False
) -> Store:
    """The store at the destination, beside whoever else uses it. `existing`: never make one. `new`: make one
    even where there was one.

    Raises UsageError, StoreNotFound, StoreExists, FormatError, OSError.
    """
    check_apart(store, destination)
    path = os.path.realpath(destination)
    if not os.path.lexists(config_path(path)):
        if existing or (not new and path in known(store)):
            why = "backups of this store were made there" if not existing else "one has to be there"
            raise StoreNotFound(
                f"{destination} is no store, and {why}", "is its disk mounted? --init makes a new one"
            )
        _make(path, fan_out)
    read_config(path)
    return Store(path, shared=True)


def _make(path: str, fan_out: int) -> None:
    """Under a lock of the directory, which ends with its process: of two that make it at once, one does."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    fd = os.open(path, LIST)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        deadline = time.monotonic() + MAKING_SECONDS
        while not os.path.lexists(config_path(path)):
            if not os.listdir(fd):
                create_store(path, fan_out=fan_out)
                return
            if not is_cut_off(path) and not os.path.lexists(config_path(path)):
                raise StoreExists(
                    f"{path} is no store, and not empty", "name a store, or a new or an empty directory"
                )
            if time.monotonic() > deadline:
                _remove_parts(path)
            time.sleep(POLL_SECONDS)
    finally:
        os.close(fd)


def _shards(directory: StoreDirectory) -> tuple[str, set[str]]:
    """The folder of blobs, and all that may be in it, by whatever fan-out."""
    folders = [LocalBlobs(directory, fan_out).folders() for fan_out in FAN_OUTS]
    return folders[0][0], {shard for root, *shards in folders for shard in shards}


def is_cut_off(path: str) -> bool:
    """Is that a store which was cut off in the making, with nothing in it?"""
    try:
        with contextlib.closing(StoreDirectory(path)) as directory:
            names = set(directory.names("."))
            root, shards = _shards(directory)
            if not names <= {root, *_PARTS}:
                return False
            there = {f"{root}/{name}" for name in directory.names(root)} if root in names else set()
            empty = there | ({STAGING} & names)
            locks = directory.names(RUN) if RUN in names else []
            return there <= shards and not any(map(directory.names, empty)) and set(locks) <= set(LOCKS)
    except OSError:
        return False


def _remove_parts(path: str) -> None:
    with contextlib.closing(StoreDirectory(path)) as directory:
        root, _ = _shards(directory)
        if directory.is_folder(root):
            for name in directory.names(root):
                directory.remove_folder(f"{root}/{name}")
        for name in directory.names("."):
            if stat.S_ISDIR(directory.status(name).st_mode):
                directory.remove_folder(name)
            else:
                directory.unlink(name)


def known(store: str) -> list[str]:
    """The paths to which a store was backed up, the last one first."""
    try:
        with contextlib.closing(StoreDirectory(os.path.realpath(store))) as directory:
            fd = directory.open(KNOWN)
            try:
                return msgspec.json.decode(os.pread(fd, KNOWN_BYTES, 0), type=list[str])
            finally:
                os.close(fd)
    except (msgspec.DecodeError, RecursionError):
        return []
    except OSError as error:
        if error.errno not in NO_FILE | NO_FOLDER:
            raise
        return []


def remember(directory: StoreDirectory, destination: str) -> None:
    """Note that a store was backed up to a path. Raises OSError."""
    paths = known(directory.path)
    if destination in paths:
        return
    new = f"{KNOWN}.new"
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(new)
    fd = directory.create(new, 0o600)
    try:
        directory.durable.write_whole(fd, msgspec.json.encode([destination, *paths][:1000]))
        directory.durable.fdatasync(fd)
    finally:
        os.close(fd)
    directory.rename(new, KNOWN)


def check_room(store: Store, size: int, files: int) -> None:
    """Raises CasfsError when there is no room for so many more bytes and files."""
    left = store.filestore.space.left()
    if size > left.bytes:
        short = size - max(0, left.bytes)
        raise CasfsError(
            f"{store.path} has no room: {size} bytes are needed, {short} of them are lacking",
            "make room there, or prune backups",
        )
    if files > left.files:
        raise CasfsError(
            f"{store.path} has no room: {files - left.files} inodes are lacking", "make room there"
        )
