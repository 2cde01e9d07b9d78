"""What a batch may do to each of many files (batch.py)."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from casfs import properties
from casfs.errors import FsError
from casfs.fs.batch import Item, Undo, shown
from casfs.fs.copy import duplicate, find, is_settled, settle
from casfs.fs.destinations import Destination
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode

log = logging.getLogger(__name__)


class ChangeProperties:
    """Give attributes these values, or with None remove them. With `recursive` a directory stands for the
    files below it. Owned by the task of the batch, as the others."""

    of_files = False

    def __init__(self, fs: FileSystem, attributes: Mapping[bytes, bytes | None], recursive: bool) -> None:
        self._fs = fs
        self._attributes = attributes
        self.recursive = recursive

    def check(self, item: Item, inode: Inode) -> bool:
        """Raises FsError as ExtendedAttributes.set."""
        if inode.ino in self._fs.nodes.derived:
            self._fs.nodes.derived[inode.ino].check_attributes(inode.ino)
        for name, value in self._attributes.items():
            self._fs.xattrs.check(inode, name, value)
        held = self._fs.xattrs.all(inode)
        return any(value is not None or name in held for name, value in self._attributes.items())

    def attributes(self, inode: Inode) -> int:
        return sum(len(value) for value in self._attributes.values() if value)

    async def prepare(self, inode: Inode) -> None:
        """Nothing has to be waited for."""

    def do(self, item: Item, inode: Inode) -> Undo | None:
        held = self._fs.xattrs.all(inode)
        before = {name: held.get(name) for name, new in self._attributes.items() if held.get(name) != new}
        undo = partial(self._undo, item.ino, before, inode.ctime)
        try:
            for name in before:
                self._fs.xattrs.change(inode, name, self._attributes[name])
        except BaseException:
            undo()
            raise
        self._has_another_ctime(inode.ino)
        return undo

    def _has_another_ctime(self, ino: int) -> None:
        """The pages that the kernel has of it stay as they are."""
        with contextlib.suppress(OSError):
            self._fs.kernel.forget_attributes(ino)

    def _undo(self, ino: int, before: dict[bytes, bytes | None], ctime: int) -> None:
        try:
            inode = self._fs.inodes.get(ino)
        except FsError:
            return  # others have removed it
        held = self._fs.xattrs.all(inode)
        for name, value in before.items():
            if held.get(name) == self._attributes[name]:  # and nobody has set it since
                self._fs.xattrs.bring_back(inode, name, value)
        inode.ctime = ctime
        self._fs.inodes.mark(inode)
        self._has_another_ctime(ino)

    def end(self) -> None:
        """Nothing was kept for it."""


def set_properties(
    fs: FileSystem, values: Mapping[str, Iterable[str]], *, recursive: bool = False
) -> ChangeProperties:
    """Each key has these values afterwards, and no others."""
    named = {properties.attribute_of(key): properties.value_of(each) for key, each in values.items()}
    return ChangeProperties(fs, named, recursive)


def remove_properties(fs: FileSystem, keys: Iterable[str], *, recursive: bool = False) -> ChangeProperties:
    return ChangeProperties(fs, dict.fromkeys(map(properties.attribute_of, keys)), recursive)


def properties_of(fs: FileSystem, path: bytes) -> dict[str, list[str]]:
    """Those of a file or directory, by key. Raises FsError ENOENT, ENOTDIR."""
    inode = find(fs, path).inode
    if inode is None:
        raise FsError(errno.ENOENT, f"{shown(path)}: {os.strerror(errno.ENOENT)}")
    found: dict[str, list[str]] = {}
    for name, value in sorted(fs.xattrs.all(inode).items()):
        for key, each in properties.found_in(name, value):
            found.setdefault(key, []).append(each)
    return found


# Names


def _is_written(inode: Inode) -> bool:
    return inode.content is not None and inode.content.writers > 0


def _attributes_of(fs: FileSystem, inode: Inode) -> int:
    return sum(map(len, fs.xattrs.all(inode).values()))


def _may_return(fs: FileSystem, item: Item, directory: Inode) -> bool:
    """May a file have its name again? Else the log says that it cannot."""
    if directory.nlink and fs.store.namespace.dentries.find(directory.ino, item.name) is None:
        return True
    log.warning("%s: others have its place since, so that it cannot be brought back", shown(item.path))
    return False


def _number(fs: FileSystem, directory: Inode, name: bytes) -> int | None:
    """That of the inode of that name in a directory."""
    return fs.store.namespace.dentries.find(directory.ino, name)


class RemoveFiles:
    """unlink(2) by user `uid`, to the trash as its rules have it."""

    of_files = True
    recursive = False

    def __init__(self, fs: FileSystem, uid: int) -> None:
        self._fs = fs
        self._uid = uid
        self._prepared: set[int] = set()
        self._kept: set[int] = set()

    def check(self, item: Item, inode: Inode) -> bool:
        """Raises FsError as Policy.check_remove."""
        self._fs.policy.check_remove(item.parent, item.name, inode)
        return True

    def attributes(self, inode: Inode) -> int:
        return _attributes_of(self._fs, inode)

    async def prepare(self, inode: Inode) -> None:
        """What rests before it is sealed is kept in the trash as well; what cannot be sealed goes."""
        if self._has_to_be_sealed(inode):
            with contextlib.suppress(OSError):
                await self._fs.contents.settling.seal_closed(inode)
            self._prepared.add(inode.ino)

    def _has_to_be_sealed(self, inode: Inode) -> bool:
        rests = self._fs.contents.settling.rests(inode)
        return rests and inode.nlink == 1 and self._fs.policy.keeps(inode.btime)

    def do(self, item: Item, inode: Inode) -> Undo | None:
        fs, policy = self._fs, self._fs.policy
        if _is_written(inode):
            return None
        if self._has_to_be_sealed(inode) and inode.ino not in self._prepared:
            return None  # somebody has written it since
        policy.check_remove(item.parent, item.name, inode)
        directory, noted, ctime = fs.inodes.get(item.parent), policy.noted(), inode.ctime
        fs.tree.kept.add(inode.ino)
        self._kept.add(inode.ino)
        fs.tree.remove(directory, item.name, inode, self._uid)
        return partial(self._undo, item, directory, inode, ctime, policy.noted_since(noted))

    def _undo(self, item: Item, directory: Inode, inode: Inode, ctime: int, noted: list[Any]) -> None:
        if _may_return(self._fs, item, directory):  # or it is in the trash, if anywhere
            self._fs.policy.forget(noted)
            self._fs.tree.bring_back(directory, item.name, inode)
            inode.ctime = ctime
            self._fs.inodes.mark(inode)

    def end(self) -> None:
        self._fs.tree.kept -= self._kept


class CopyInto:
    """As `casfs cp` of each."""

    of_files = True
    recursive = False

    def __init__(self, fs: FileSystem, path: bytes, below: bytes | None = None) -> None:
        """Raises FsError as `Destination`."""
        self._fs = fs
        self._to = Destination(fs, path, below)

    def check(self, item: Item, inode: Inode) -> bool:
        """Raises FsError EEXIST, and as the rules have it."""
        self._to.check(item, inode)
        return True

    def attributes(self, inode: Inode) -> int:
        return _attributes_of(self._fs, inode)

    async def prepare(self, inode: Inode) -> None:
        """Raises FsError EBUSY."""
        if not is_settled(inode):
            await settle(self._fs, inode)

    def do(self, item: Item, inode: Inode) -> Undo | None:
        if _is_written(inode) or not is_settled(inode):
            return None
        directory, close = self._to.open(item)
        try:
            copied = duplicate(self._fs, inode)
            try:
                self._fs.tree.attach(directory.ino, item.name, copied)
            except BaseException:
                self._fs.inodes.remove(copied)
                raise
        except BaseException:
            close()
            raise
        return partial(self._undo, item, directory, copied, close)

    def _undo(self, item: Item, directory: Inode, copied: Inode, close: Undo) -> None:
        if _number(self._fs, directory, item.name) == copied.ino:
            self._fs.directories.remove(directory, item.name, copied)
            close()
        else:
            log.warning("%s: others have moved its copy, which stays", shown(item.path))

    def end(self) -> None:
        """Nothing was kept for it."""


class MoveInto:
    """rename(2) of each."""

    of_files = True
    recursive = False

    def __init__(self, fs: FileSystem, path: bytes, below: bytes | None = None) -> None:
        """Raises FsError as `Destination`."""
        self._fs = fs
        self._to = Destination(fs, path, below)

    def check(self, item: Item, inode: Inode) -> bool:
        """Raises FsError EEXIST, and as the rules have it. Nothing is to be done to what is there already."""
        if self._to.takes(item):
            return False
        self._fs.policy.check_move(item.parent, item.name, inode, self._to.check(item, inode))
        return True

    def attributes(self, inode: Inode) -> int:
        return 0

    async def prepare(self, inode: Inode) -> None:
        if inode.content is not None:
            await self._fs.contents.settling.settle_closed(inode)

    def do(self, item: Item, inode: Inode) -> Undo | None:
        if _is_written(inode):
            return None
        origin, ctime = self._fs.inodes.get(item.parent), inode.ctime
        directory, close = self._to.open(item)
        try:
            self._fs.tree.move(item.parent, item.name, inode, directory.ino, item.name)
        except BaseException:
            close()
            raise
        return partial(self._undo, item, origin, directory, inode, ctime, close)

    def _undo(
        self, item: Item, origin: Inode, directory: Inode, inode: Inode, ctime: int, close: Undo
    ) -> None:
        if _number(self._fs, directory, item.name) != inode.ino:
            log.warning("%s: others have moved it elsewhere, where it stays", shown(item.path))
        elif _may_return(self._fs, item, origin):
            self._fs.directories.move(directory, item.name, origin, item.name, inode, None)
            inode.ctime = ctime
            self._fs.inodes.mark(inode)
            close()

    def end(self) -> None:
        """Nothing was kept for it."""
