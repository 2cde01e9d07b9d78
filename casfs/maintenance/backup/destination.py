"""Where backups go: a store of its own, which is made where there is none.

A store remembers, in snapshots/.destinations, the paths to which it was backed up: what is no store there any
more is a disk that is not mounted, rather than a new one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time

import msgspec

from casfs.errors import CasfsError, StoreExists, StoreNotFound, UsageError
from casfs.filestore.directory import NO_FILE, NO_FOLDER, StoreDirectory
from casfs.filestore.local import LocalBlobs
from casfs.snapshots.folder import DESTINATIONS, FOLDER
from casfs.store import CONFIG, Store, config_path, create_store, read_config

KNOWN = f"{FOLDER}/{DESTINATIONS}"
"""A JSON array of paths."""

KNOWN_BYTES = 1 << 20

MAKING_SECONDS = 10.0
POLL_SECONDS = 0.1
"""How long a store that somebody makes is waited for, and how often it is looked at."""

_PARTS = frozenset(
    {
        "blobs",
        "staging",
        "run",
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
    deadline = time.monotonic() + MAKING_SECONDS
    while not os.path.lexists(config_path(path)):
        try:
            create_store(path, fan_out=fan_out)
            return
        except (StoreExists, FileExistsError):
            if os.path.lexists(config_path(path)):
                return
            if not is_cut_off(path, fan_out):
                raise StoreExists(
                    f"{path} is no store, and not empty", "name a store, or a new or an empty directory"
                ) from None
            if time.monotonic() > deadline:
                _remove_parts(path, fan_out)
        time.sleep(POLL_SECONDS)


def is_cut_off(path: str, fan_out: int) -> bool:
    """Is that a store which was cut off in the making, with nothing in it?"""
    try:
        with contextlib.closing(StoreDirectory(path)) as directory:
            names = set(directory.names("."))
            root, *shards = LocalBlobs(directory, fan_out).folders()
            if root not in names or not names <= {root, *_PARTS}:
                return False
            there = {f"{root}/{name}" for name in directory.names(root)}
            return there <= set(shards) and not any(map(directory.names, there))
    except OSError:
        return False


def _remove_parts(path: str, fan_out: int) -> None:
    with contextlib.closing(StoreDirectory(path)) as directory:
        for shard in reversed(LocalBlobs(directory, fan_out).folders()):
            directory.remove_folder(shard)
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
    new = f"{KNOWN}.new-{os.getpid()}"
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
