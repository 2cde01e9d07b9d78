"""From the path a person gives to the store it belongs to, and to the path inside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from casfs.errors import NotMounted, UsageError

if TYPE_CHECKING:
    from casfs.control.access import StoreAccess
    from casfs.service.mounts import MountInfo


def store_of(path: str) -> str:
    """The store mounted where `path` lies, or `path` itself (opening it says whether it is a store)."""
    from casfs.service.mounts import find_mount

    try:
        return find_mount(path)[0].store
    except NotMounted:
        return path


def access_to(path: str) -> StoreAccess:
    """To the store of `store_of`, by no other daemon than the one that has that mount."""
    from casfs.control.access import StoreAccess
    from casfs.service.mounts import find_mount

    try:
        mount, _ = find_mount(path)
    except NotMounted:
        return StoreAccess(path)
    return StoreAccess(mount.store, pid=mount.pid)


def place_in(store: str, path: str) -> str:
    """A path from the root of a store, which may be given as one in its mount."""
    from casfs.service.mounts import find_mount

    try:
        mount, inside = find_mount(path)
    except NotMounted:
        return path
    return os.fsdecode(inside) if mount.store == os.path.realpath(store) else path


def rooted_in(store: str, word: str) -> str:
    """The path from the root of a store that a person means by `word`: one in its mount, or from the root.
    Raises UsageError for one that is neither."""
    from casfs.service.mounts import find_mount

    with contextlib.suppress(NotMounted):
        mount, inside = find_mount(word)
        if os.path.realpath(mount.store) == os.path.realpath(store):
            return os.fsdecode(inside)
    if not word.startswith("/"):
        raise UsageError(f"'{word}' lies in no mount of {store}", "or begin it with /, the root of the store")
    return os.path.normpath(word)


class Pair(NamedTuple):
    """Two paths inside one store, absolute from its root; bytes that are no UTF-8 as surrogates (PEP 383)."""

    access: StoreAccess
    source: str
    destination: str


def pair(store: str | None, source: str, destination: str) -> Pair:
    """Two paths inside `store`, or with None two paths below the mount point of one and the same store.

    Raises NotMounted for a path that lies in no casfs mount, UsageError for two stores.
    """
    from casfs.control.access import StoreAccess

    if store is not None:
        return Pair(StoreAccess(store), _rooted(source), _rooted(destination))
    from casfs.service.mounts import find_mount

    mount, inside = find_mount(source)
    other, other_inside = find_mount(destination)
    if mount.store != other.store:
        message = f"{source} and {destination} are in different stores"
        raise UsageError(message, "use cp(1) or mv(1) between stores")
    if mount.pid is None:
        raise _unserved(mount)
    access = StoreAccess(mount.store, mounted=True, pid=mount.pid)
    return Pair(access, os.fsdecode(inside), os.fsdecode(other_inside))


def inside(store: str | None, paths: Sequence[str]) -> list[tuple[StoreAccess, list[str]]]:
    """Paths inside `store`, or with None below mount points, in order for each of their stores. Raises
    NotMounted for a path that lies in no casfs mount."""
    from casfs.control.access import StoreAccess

    if store is not None:
        return [(StoreAccess(store), list(map(_rooted, paths)))]
    from casfs.service.mounts import find_mounts

    found: dict[MountInfo, list[str]] = {}
    for mount, path in find_mounts(paths):
        if mount.pid is None:
            raise _unserved(mount)
        found.setdefault(mount, []).append(os.fsdecode(path))
    return [(StoreAccess(mount.store, mounted=True, pid=mount.pid), paths) for mount, paths in found.items()]


def _unserved(mount: MountInfo) -> NotMounted:
    return NotMounted(f"nothing serves {mount.mountpoint}", f"casfs umount {mount.mountpoint} clears it")


def _rooted(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"'{path}' is no path from the root of the store", "with --store, begin it with /")
    return "/" + os.path.normpath(path).lstrip("/")
