"""From the path a person gives to the store it belongs to, and to the path inside it."""

from __future__ import annotations

import os
from typing import NamedTuple

from casfs.errors import NotMounted, UsageError


def store_of(path: str) -> str:
    """The store mounted where `path` lies, or `path` itself (opening it says whether it is a store)."""
    from casfs.service.mounts import find_mount

    try:
        return find_mount(path)[0].store
    except NotMounted:
        return path


class Pair(NamedTuple):
    """Two paths inside one store, absolute from its root; bytes that are no UTF-8 as surrogates (PEP 383)."""

    store: str
    source: str
    destination: str


def pair(store: str | None, source: str, destination: str) -> Pair:
    """Two paths inside `store`, or with None two paths below the mount point of one and the same store.

    Raises NotMounted for a path that lies in no casfs mount, UsageError for two stores.
    """
    if store is not None:
        return Pair(store, _rooted(source), _rooted(destination))
    from casfs.service.mounts import find_mount

    mount, inside = find_mount(source)
    other, other_inside = find_mount(destination)
    if mount.store != other.store:
        message = f"{source} and {destination} are in different stores"
        raise UsageError(message, "use cp(1) or mv(1) between stores")
    return Pair(mount.store, os.fsdecode(inside), os.fsdecode(other_inside))


def _rooted(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"'{path}' is no path from the root of the store", "with --store, begin it with /")
    return "/" + os.path.normpath(path).lstrip("/")
