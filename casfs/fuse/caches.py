"""Telling the kernel what changed behind its back: by a command, not by a request."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pyfuse3
import trio

from casfs.fs.tree import Tree


async def forget(names: Iterable[tuple[int, bytes, int]], inos: Iterable[int]) -> set[tuple[int, bytes]]:
    """Drop names, attributes and pages from the kernel's caches: the pages of a directory are its names.

    `names`: (directory, name, inode number), that of an inode that has no name any more, or 0. Without
    being told of that the kernel would remember it, and let it stay here, until it needs the memory.

    Gives the names the kernel did not know. In threads: the kernel may have to wait for a request on the same
    directory, which this loop serves (pyfuse3.invalidate_entry).
    """
    unknown = set()
    for parent, name, gone in names:
        if not await trio.to_thread.run_sync(_forget_name, parent, name, gone):
            unknown.add((parent, name))
    for ino in inos:
        await trio.to_thread.run_sync(_unless_unknown, pyfuse3.invalidate_inode, ino, False)
    return unknown


async def tell(tree: Tree, names: Collection[tuple[int, bytes, int]], inos: Iterable[int]) -> None:
    """As `forget`. An inode without a name that the kernel does not hold has nobody to say when it may go: it
    goes at once."""
    unknown = await forget(names, inos)
    await tree.forget([gone for parent, name, gone in names if (parent, name) in unknown])


def _forget_name(parent: int, name: bytes, gone: int) -> bool:
    if gone and _unless_unknown(pyfuse3.invalidate_entry, parent, name, gone):
        return True
    return _unless_unknown(pyfuse3.invalidate_entry, parent, name)


def write_back(ino: int) -> None:
    """Have the kernel write back what mappings have left in its page cache, and return when that is here. Not
    on the event loop's thread, which serves the writes, nor in a request that changes the size: they wait for
    its end (fuse_set_nowrite, fs/fuse/dir.c)."""
    _unless_unknown(pyfuse3.invalidate_inode, ino, False)


def forget_attributes(ino: int) -> None:
    """Drop the attributes of an inode that a request is under way for, at once: without its pages the kernel
    waits for nothing (fuse_reverse_inval_inode, fs/fuse/inode.c)."""
    _unless_unknown(pyfuse3.invalidate_inode, ino, True)


def _unless_unknown(invalidate: Callable[..., None], *args: Any) -> bool:
    """False when the kernel knows nothing of it."""
    try:
        invalidate(*args)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
