"""`casfs cp` and `casfs mv`: whole files and trees inside a store, by rows alone.

A tree is copied in short steps below a directory without a name; giving it its name is the last one. So the
copy is there wholly or not at all, other requests are served meanwhile, and what a crash cuts off is removed
at the next start like any inode without a name. Each file is copied as it is at its step: a tree that others
change meanwhile is not a snapshot.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import NamedTuple

from casfs.errors import FsError
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.nodes import SNAPSHOTS, Lister
from casfs.fs.recovery import remove_unlinked
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

WAIT_SECONDS, WAIT_STEP = 5.0, 0.02
"""How long a copy waits for a program to close a file that it writes to, and how often it looks."""

NAMED = 5
"""Contents that are named where one was meant."""

STEP = 128
"""Entries copied before other requests are served again: about 2 ms."""


class Place(NamedTuple):
    """A name in a directory, and what is there."""

    parent: int
    name: bytes
    inode: Inode | None


def find(fs: FileSystem, path: bytes) -> Place:
    """Walk from the root; symbolic links are not followed. Raises FsError ENOENT, ENOTDIR."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    inode: Inode | None = fs.inodes.get(ROOT_INO)
    parent, name = ROOT_INO, b""
    for part in parts:
        if inode is None:
            raise FsError(errno.ENOENT, f"{_text(path)}: {os.strerror(errno.ENOENT)}")
        if not inode.is_directory:
            raise FsError(errno.ENOTDIR, f"{_text(path)}: {os.strerror(errno.ENOTDIR)}")
        if part == b"..":
            raise FsError(errno.EINVAL, f"{_text(path)}: '..' is not allowed here")
        parent, name = inode.ino, part
        inode = fs.tree.lookup(parent, part)
    return Place(parent, name, inode)


def _text(path: bytes) -> str:
    return os.fsdecode(path) or "/"


def _existing(fs: FileSystem, path: bytes) -> tuple[Place, Inode]:
    place = find(fs, path)
    if place.inode is None:
        raise FsError(errno.ENOENT, f"{_text(path)}: {os.strerror(errno.ENOENT)}")
    if not place.name:
        raise FsError(errno.EINVAL, "the root directory itself cannot be copied or moved")
    return place, place.inode


def _destination(fs: FileSystem, path: bytes, source: Place) -> Place:
    """Where it goes: into `path` when that is a directory, as cp(1) and mv(1) do."""
    place = find(fs, path)
    if place.inode is not None and place.inode.is_directory:
        inside = place.inode.ino
        return Place(inside, source.name, fs.tree.lookup(inside, source.name))
    if path.endswith(b"/") and (place.inode is not None or not (source.inode and source.inode.is_directory)):
        raise FsError(errno.ENOTDIR, f"{_text(path)} is not a directory")
    return place


async def _at_source(fs: FileSystem, place: Place) -> Place:
    """A file that is seen through a tree is replaced where it is. Raises FsError EROFS, ENOENT."""
    names = fs.nodes.derived.get(place.parent)
    if names is None or place.inode is None or place.inode.is_directory:
        return place
    await names.caught_up()
    source = names.source_of(place.parent, place.name)
    if fs.tree.lookup(*source) is not place.inode:
        raise FsError(errno.ENOENT)
    return Place(*source, place.inode)


async def move(fs: FileSystem, source: bytes, destination: bytes) -> None:
    """rename(2) by paths inside the store, durable. Raises FsError as it does."""
    origin, _ = _existing(fs, source)
    target = _destination(fs, destination, origin)
    if origin.parent not in fs.nodes.derived:
        target = await _at_source(fs, target)
    if (origin.parent in fs.nodes.derived) != (target.parent in fs.nodes.derived):
        raise FsError(errno.EXDEV, _in_tree(destination, "mv"))
    await fs.tree.rename(origin.parent, origin.name, target.parent, target.name, 0)
    await fs.group.durable()


def _in_tree(path: bytes, program: str) -> str:
    return f"{_text(path)}: not into or out of a view or a virtual repository; {program}(1) does that"


async def copy(fs: FileSystem, source: bytes, destination: bytes, *, recursive: bool) -> None:
    """Copy a file, or with `recursive` a tree, with all attributes, durable.

    Raises FsError EISDIR (a directory without `recursive`), EEXIST (never replaces a directory, nor a file
    by a directory), EINVAL (into itself), EXDEV (a directory of a view or a virtual repository, or anything
    new to one), EBUSY (a file stays open for writing), ENOSPC.
    """
    origin, inode = _existing(fs, source)
    target = await _at_source(fs, _destination(fs, destination, origin))
    if inode.is_directory and not recursive:
        raise FsError(errno.EISDIR, f"{_text(source)} is a directory; copy it with -r")
    if target.parent in fs.nodes.derived or inode.ino in fs.nodes.derived:  # their names are no dentries
        raise FsError(errno.EXDEV, _in_tree(destination, "cp"))
    if target.inode is inode:
        raise FsError(errno.EINVAL, f"{_text(source)} and {_text(destination)} are the same")
    if target.inode is not None and (inode.is_directory or target.inode.is_directory):
        raise FsError(errno.EEXIST, f"{_text(destination)} exists already")
    if inode.is_directory and fs.store.namespace.dentries.is_below(target.parent, inode.ino):
        raise FsError(errno.EINVAL, f"{_text(source)} cannot be copied into itself")
    if inode.is_directory:
        await _TreeCopy(fs).run(inode, target)
    else:
        await _copy_file(fs, inode, target)
    await fs.group.durable()


async def link(fs: FileSystem, algorithm: str, digest: str, destination: bytes, uid: int) -> None:
    """A new file of user `uid` with a content that is there, whose digest is, or begins with, those hex
    digits; durable.

    Raises FsError ENOENT for no such content, ENOTUNIQ for several, EEXIST, and as `make` does.
    """
    found = fs.by_digest.contents(algorithm, digest)
    if not found:
        await fs.by_digest.settled()
        found = fs.by_digest.contents(algorithm, digest)
    if not found:
        raise FsError(errno.ENOENT, f"there is no content with the {algorithm} {digest}")
    if len(found) > 1:
        beginnings = ", ".join(known.digest.hex() for known in found[:NAMED])
        more = f" and {len(found) - NAMED} or more others" if len(found) > NAMED else ""
        raise FsError(errno.ENOTUNIQ, f"{algorithm} {digest} is that of several: {beginnings}{more}")
    place = find(fs, destination)
    if place.inode is not None:
        raise FsError(errno.EEXIST, f"{_text(destination)}: {os.strerror(errno.EEXIST)}")
    if place.parent in fs.nodes.derived:
        raise FsError(errno.EXDEV, _in_tree(destination, "cp"))
    await fs.group.begin()
    linked = duplicate(fs, fs.inodes.get(fs.by_digest.number(found[0])))
    linked.uid, linked.gid = uid, fs.inodes.get(place.parent).gid
    linked.atime = linked.mtime = linked.btime
    try:
        fs.tree.attach(place.parent, place.name, linked)
    except BaseException:
        fs.inodes.remove(linked)
        raise
    await fs.group.durable()


async def _copy_file(fs: FileSystem, inode: Inode, target: Place) -> None:
    """Over an existing name the copy comes as rename(2) would bring it: old or new, never nothing (I6)."""
    await settle(fs, inode)
    there = fs.tree.lookup(target.parent, target.name)  # others may have come during the waits
    if not inode.nlink:
        raise FsError(errno.ENOENT)
    if there is not None and (target.inode is None or there.is_directory):
        raise FsError(errno.EEXIST)
    copied = duplicate(fs, inode)
    try:
        if there is None:
            fs.tree.attach(target.parent, target.name, copied)
        else:
            fs.tree.replace(target.parent, target.name, copied, there)
    except BaseException:
        fs.inodes.remove(copied)
        raise


async def settle(fs: FileSystem, inode: Inode) -> None:
    """Have the content of a file in a blob, which the copy can share, and a transaction open. A program that
    writes to it is waited for. Raises FsError EBUSY."""
    deadline = fs.scheduler.now() + WAIT_SECONDS
    while True:
        await fs.contents.settling.seal_closed(inode)
        await fs.contents.settling.begin_in_order()
        if is_settled(inode):
            return
        if fs.scheduler.now() > deadline:
            written = inode.content is not None and inode.content.writers
            why = "somebody has it open for writing" if written else "it cannot be sealed"
            raise FsError(errno.EBUSY, f"{fs.contents.complaints.path(inode.ino)}: {why}; copy it with cp(1)")
        await fs.scheduler.run(time.sleep, WAIT_STEP)


def is_settled(inode: Inode) -> bool:
    content = inode.content
    return inode.staged is None and (content is None or not content.is_staged)


def duplicate(fs: FileSystem, inode: Inode) -> Inode:
    """A new inode like `inode`, with no name yet. Inside a transaction."""
    if inode.is_generated and inode.blob is not None and not fs.contents.blobs.is_there(inode.blob):
        raise FsError(errno.ESTALE)
    if inode.is_regular and inode.size and inode.blob is None and inode.is_generated:
        raise FsError(errno.EIO)  # the store has not got it
    attributes = fs.xattrs.all(inode)
    fs.store.filestore.space.claim_rows(512)
    copied = fs.inodes.create(inode.mode, inode.uid, inode.gid, inode.rdev, inode.target)
    copied.size, copied.allocated = inode.size, inode.allocated
    copied.atime, copied.mtime = inode.atime, inode.mtime
    fs.inodes.set_blob(copied, inode.blob)
    if attributes:
        copied.xattrs = None  # the rows have them
        try:
            if inode.is_generated:
                for name, value in attributes.items():
                    fs.store.namespace.xattrs.set(copied.ino, name, value)
            else:
                fs.store.namespace.xattrs.copy(inode.ino, copied.ino)
        except BaseException:
            fs.inodes.remove(copied)
            raise
    return copied


class _TreeCopy:
    """One copy of a tree."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._links: dict[int, Inode] = {}

    async def run(self, source: Inode, target: Place) -> None:
        fs = self._fs
        await fs.group.begin()
        root = duplicate(fs, source)
        root.nlink = 0
        fs.inodes.mark(root)
        try:
            subdirectories = await self._fill(source.ino, root)
            await fs.group.begin()
            root.nlink = 2 + subdirectories
            try:
                fs.tree.attach(target.parent, target.name, root)
            except BaseException:
                root.nlink = 0
                raise
        except BaseException:
            await self._remove(root)
            raise

    async def _remove(self, root: Inode) -> None:
        fs = self._fs
        try:
            await remove_unlinked(fs.inodes, fs.group, fs.contents, fs.directories, [root.ino])
        except OSError as error:
            log.warning("what a copy left is removed at the next start: %s", error)

    async def _fill(self, source: int, root: Inode) -> int:
        """Copy what is below `source` under `root`, without recursion; the root's subdirectories."""
        fs = self._fs
        todo = [(source, root)]
        names: Lister = fs.store.namespace.dentries
        if source >= SNAPSHOTS and fs.nodes.past is not None:
            names = fs.nodes.past
        top = 0
        while todo:
            origin, copied = todo.pop()
            after = subdirectories = 0
            while True:
                await fs.group.begin()
                rows = names.children(origin, after, STEP)
                if not rows:
                    break
                after = rows[-1][0]
                for _, name, ino, _ in rows:
                    entry = self._present(ino)
                    while entry is not None and not (fs.group.active and is_settled(entry)):
                        await settle(fs, entry)
                    # Without a wait: a commit must not find an inode that has no name yet.
                    child = self._copy_child(copied, name, ino)
                    if child is not None and child.is_directory:
                        subdirectories += 1
                        todo.append((ino, child))
                fs.group.count(len(rows))
                if fs.group.is_long:
                    await fs.group.durable()
                await fs.scheduler.pause()
            if copied is root:
                top = subdirectories
            else:
                await fs.group.begin()
                copied.nlink = 2 + subdirectories
                fs.inodes.mark(copied)
        return top

    def _present(self, ino: int) -> Inode | None:
        """An inode that others may have removed since its name was read."""
        try:
            inode = self._fs.inodes.get(ino)
        except FsError:
            return None
        return inode if inode.nlink else None

    def _copy_child(self, directory: Inode, name: bytes, ino: int) -> Inode | None:
        """Copy one entry; None if it is gone, or was removed and made again after it was copied."""
        fs = self._fs
        source = self._present(ino)
        if source is None or fs.store.namespace.dentries.find(directory.ino, name) is not None:
            return None
        linked = self._links.get(ino)
        child = linked or duplicate(fs, source)
        try:
            fs.directories.add_below(directory, name, child)
        except BaseException:
            if linked is None:
                fs.inodes.remove(child)
            raise
        if linked is not None:
            child.nlink += 1
            fs.inodes.mark(child)
        elif child.is_directory:
            child.nlink = 2
        elif source.nlink > 1:
            self._links[ino] = child
        return child
