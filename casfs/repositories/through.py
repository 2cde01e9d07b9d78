"""Looking into views and virtual repositories, and what is done through them to the repositories they show.

A name that is made in a tree is made in the repository that takes what is written, where its path leads there
by the layouts. A path that they do not know stays as it is, and the tree shows it (`kept`), so that temporary
names work, and with them cp(1), rsync(1) and tar(1). Directories on the way are made as the tree's own one.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from casfs.errors import FsError
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.listing import NAME_LIMIT, is_name
from casfs.fs.nodes import Made, Names
from casfs.fs.tree import RENAME_NOREPLACE
from casfs.namespace.derived import DIRECTORY, DerivedRow
from casfs.namespace.inodes import S_IFMT
from casfs.repositories.derived import SHOWN, DerivedNames
from casfs.repositories.following import Follower
from casfs.repositories.locks import Locks
from casfs.repositories.refusals import refuse
from casfs.repositories.rights import Rights
from casfs.repositories.trees import Source, Tree

FORGOTTEN = 200
"""Directories whose names are looked up before other requests are served: about 1 ms."""

Directory = tuple[Inode, bytes, Inode]
"""A directory that was made on the way: where, its name, itself."""


class Placed(NamedTuple):
    """Where something that is made in a tree belongs."""

    parent: int
    name: bytes
    made: list[Directory]
    kept_by: int = 0
    """The tree that has to be told to show it, since no layout leads there; or 0."""


class Through:
    """The directories of all trees (fs/nodes.py, DerivedDirectory). Owned by the thread that runs the file
    system."""

    def __init__(self, core: Core, derived: DerivedNames, follower: Follower, locks: Locks) -> None:
        self._core = core
        self._group = core.group
        self._inodes = core.inodes
        self._directories = core.directories
        self._dentries = core.store.namespace.dentries
        self._rows = core.store.namespace.derived
        self._places = core.places
        self._rights = Rights(core)
        self._derived = derived
        self._follower = follower
        self._locks = locks
        self._given = core.nodes.derived
        self._trees = core.nodes.trees
        self._remembered = core.remembered
        self.parent_of = self._rows.parent_of
        self.catch_up = follower.catch_up

    def read(self) -> None:
        """The repositories have changed."""
        for ino in self._derived.trees:
            self._given[ino] = self
        self._trees.clear()
        self._trees.update(self._derived.trees)
        for ino in [ino for ino in self._given if self._rows.parent_of(ino) is None]:
            if ino not in self._derived.trees:
                del self._given[ino]

    # Looking

    async def caught_up(self) -> None:
        """Wait until all names follow. Raises OSError."""
        while not self.catch_up():
            await self._follower.drain()

    def find(self, directory: int, name: bytes) -> int | None:
        self.catch_up()
        row = self._rows.first(directory, name) if name else None
        if row is None:
            return None
        if row.type == DIRECTORY:
            self._give_one(row.ino)
        return row.ino

    def source_of(self, directory: int, name: bytes) -> tuple[int, bytes]:
        self.catch_up()
        row = self._rows.first(directory, name)
        if row is None:
            raise FsError(errno.ENOENT)
        tree, path = self._path(directory, name)
        if row.type == DIRECTORY:
            self._taker(tree, path)
        else:
            self._check_taker(row.source_parent, tree, path)
        return row.source_parent, row.source_name

    def _give_one(self, directory: int) -> Inode:
        """The kernel gets to know a directory."""
        self._given[directory] = self
        self._remembered.learned(directory)
        return self._inodes.get(directory)

    def children(self, directory: int, after: int, limit: int) -> list[tuple[int, bytes, int, int]]:
        self.catch_up()
        return self._rows.children(directory, after, limit)

    def list_inodes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        self.catch_up()
        rows = self._rows.list_inodes(directory, after, limit)
        self._give((row[2], row[4]) for row in rows)
        return rows

    def list_attributes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        self.catch_up()
        rows = self._rows.list_attributes(directory, after, limit)
        self._give((row[2], row[3]) for row in rows)
        return rows

    def _give(self, listed: Any) -> None:
        """The kernel gets to know directories: (inode number, mode). The mode is None for one that has
        no row yet, and anything where the row is damaged."""
        for ino, mode in listed:
            if not isinstance(mode, int):
                mode = self._inodes.get(ino).mode
            if mode & S_IFMT == stat.S_IFDIR:
                self._given[ino] = self
                self._remembered.learned(ino)

    # What the kernel remembers

    def may_show(self, directory: int, name: bytes | None, *, is_new: bool) -> bool:
        """May the kernel remember something else than is there once that name in a directory of a repository,
        or, None, the directory itself, is another one? `is_new`: the name is not there yet."""
        place = self._places.of(directory)
        if place is None or place.top not in self._derived.shown:
            return False
        if self._remembered.attributes or name is None:
            return True
        if self._derived.is_contended(place.top):
            return True
        if is_new:
            return False
        entry = self._dentries.entry(directory, name)
        if entry is not None and entry[2] == DIRECTORY:
            return True
        return any(row.parent in self._given for row in self._rows.of_source(directory, name))

    async def settle(self, names: Names | None) -> None:
        """What has been changed now may be remembered otherwise: have it follow, or, where that cannot be
        done at once, have everything be forgotten."""
        if self._follower.is_behind_directories or (names is None and not self.catch_up()):
            await self._forget_everything()
        elif names is not None:
            self._follower.follow_at_once(names)
        self._remembered.followed()

    async def _forget_everything(self) -> None:
        self._remembered.forget_attributes()
        for count, ino in enumerate(list(self._given)):
            if name := self._name_of(ino):
                self._remembered.names.add(name)
            if count % FORGOTTEN == FORGOTTEN - 1:
                await self._core.scheduler.pause()

    def _name_of(self, directory: int) -> tuple[int, bytes] | None:
        if directory in self._derived.trees:
            names = self._dentries.names_of(directory)
            return names[0] if names else None
        row = self._rows.place_of(directory)
        return None if row is None else (row.parent, row.name)

    async def _row(self, directory: int, name: bytes) -> DerivedRow:
        """What has a name. Raises FsError ENOENT, ENAMETOOLONG."""
        if len(name) > NAME_LIMIT:
            raise FsError(errno.ENAMETOOLONG)
        await self.caught_up()
        row = self._rows.first(directory, name)
        if row is None:
            raise FsError(errno.ENOENT)
        return row

    # Where it is done

    def _path(self, directory: int, name: bytes) -> tuple[Tree, bytes]:
        """The tree of a name, and its path there. Raises FsError ENOENT."""
        tree, above = self._derived.where(directory)
        return tree, above + b"/" + name if above else name

    def _taker(self, tree: Tree, path: bytes) -> Source:
        """What takes what is written to a tree. Raises FsError EROFS."""
        if tree.writes is None:
            self._refuse(errno.EROFS, tree, path, "there is no repository that takes what is written")
        return tree.sources[tree.writes]

    def _check_taker(self, directory: int, tree: Tree, path: bytes) -> None:
        """Raises FsError EROFS for a directory of another repository."""
        taker, place = self._taker(tree, path), self._places.of(directory)
        if place is None or place.top != taker.repository:
            rule = "it lies in another repository than the one that takes what is written"
            self._refuse(errno.EROFS, tree, path, rule)

    def _refuse(self, number: int, tree: Tree, path: bytes, rule: str) -> NoReturn:
        refuse(number, self._dentries.paths_of(tree.ino)[0], path, rule)

    def check_attributes(self, directory: int) -> None:
        """As DerivedDirectory.check_attributes."""
        self._taker(*self._derived.where(directory))

    def _source(
        self, row: DerivedRow, tree: Tree, path: bytes, uid: int | None, gid: int | None
    ) -> tuple[int, bytes]:
        """The dentry that a name is derived from, which is going to be removed. Raises FsError EROFS, EACCES,
        EPERM."""
        self._check_taker(row.source_parent, tree, path)
        directory = self._inodes.get(row.source_parent)
        self._rights.check(directory, tree, uid, gid, self._inodes.get(row.ino))
        return row.source_parent, row.source_name

    async def _place(
        self, directory: int, name: bytes, uid: int | None, gid: int | None, kind: int
    ) -> Placed:
        """Where a new name in a tree is to be made: `kind`, of a mode. Layouts have paths for files, and for
        directories on the way to them; all else stays as it is. Raises FsError EROFS, EACCES, ENOTDIR,
        EINVAL."""
        if not is_name(name):
            raise FsError(errno.ENAMETOOLONG if len(name) > NAME_LIMIT else errno.EINVAL)
        await self._group.begin()
        tree, path = self._path(directory, name)
        source = self._taker(tree, path)
        origin = source.origin(path) if kind in (stat.S_IFREG, stat.S_IFDIR) or not source.steps else None
        *parents, last = (path if origin is None else origin).split(b"/")
        made: list[Directory] = []
        place = self._inodes.get(source.repository)
        try:
            for part in parents:
                place = self._enter(place, part, tree, uid, gid, made)
            self._rights.check(place, tree, uid, gid)
            if not self._derived.shows(place.ino, tree):
                raise FsError(errno.EACCES)  # it would not be seen
        except BaseException:
            self._undo(made)
            raise
        return Placed(place.ino, last, made, tree.ino if origin is None else 0)

    def _keep(self, placed: Placed) -> None:
        """It was made there, just now, in the group that is open."""
        if placed.kept_by:
            self._rows.keep(placed.parent, placed.name, placed.kept_by)
            self._follower.named(placed.parent, placed.name)

    def _enter(
        self,
        place: Inode,
        name: bytes,
        tree: Tree,
        uid: int | None,
        gid: int | None,
        made: list[Directory],
    ) -> Inode:
        found = self._dentries.find(place.ino, name)
        if found is not None:
            inode = self._inodes.get(found)
            if not inode.is_directory:
                raise FsError(errno.ENOTDIR)
            return inode
        self._rights.check(place, tree, uid, gid)
        self._locks.check_directory(place.ino)
        self._core.store.filestore.space.claim_rows(1024)
        inode = self._inodes.create(*self._like_top(tree))
        inode.nlink = 2
        try:
            self._directories.take_absent(place.ino, name)
            self._directories.add(place, name, inode)
        except BaseException:
            self._inodes.remove(inode)
            raise
        made.append((place, name, inode))
        return inode

    def _like_top(self, tree: Tree) -> tuple[int, int, int]:
        """Mode, owner and group of a directory that is made through a tree."""
        top = self._inodes.get(tree.ino)
        return stat.S_IFDIR | top.mode & SHOWN, top.uid, top.gid

    def _undo(self, made: list[Directory]) -> None:
        """Remove the directories that were made for something that could not be made."""
        for place, name, inode in reversed(made):
            if self._dentries.is_empty(inode.ino):
                self._directories.remove(place, name, inode)

    # Verbs

    async def make(
        self,
        verbs: Made,
        directory: int,
        name: bytes | None,
        mode: int,
        uid: int,
        gid: int,
        rdev: int,
        target: bytes | None,
        umask: int,
        made: Callable[[Inode], object] | None,
    ) -> Inode:
        """As Tree.make."""
        if name is None:
            raise FsError(errno.EOPNOTSUPP)
        await self.caught_up()
        if self.find(directory, name) is not None:
            raise FsError(errno.EEXIST)
        if stat.S_ISDIR(mode) and (held := await self._hold(directory, name)) is not None:
            return held
        placed = await self._place(directory, name, uid, gid, mode & S_IFMT)
        if stat.S_ISDIR(mode):  # as it is shown: cp(1) makes it closed, and cannot open it afterwards
            mode, uid, gid = self._like_top(self._derived.where(directory)[0])
            umask = 0
        where = placed.parent, placed.name, mode, uid, gid
        try:
            inode = await verbs.make(*where, rdev=rdev, target=target, umask=umask, made=made or _nobody)
        except BaseException:
            self._undo(placed.made)
            raise
        self._keep(placed)
        if inode.is_directory:
            return self._give_one((await self._row(directory, name)).ino)
        return inode

    async def _hold(self, directory: int, name: bytes) -> Inode | None:
        """Make a directory of the tree alone; None when it is one of the repository as well."""
        tree, path = self._path(directory, name)
        if not self._taker(tree, path).steps:
            return None
        if not is_name(name):
            raise FsError(errno.ENAMETOOLONG if len(name) > NAME_LIMIT else errno.EINVAL)
        await self._group.begin()
        self._locks.check_directory(directory)
        self._core.store.filestore.space.claim_rows(1024)
        self._group.count()
        ino = self._derived.hold(tree, path)
        return self._give_one(ino)

    async def link(self, verbs: Made, ino: int, directory: int, name: bytes, uid: int) -> Inode:
        """As Tree.link."""
        await self.caught_up()
        if self.find(directory, name) is not None:
            raise FsError(errno.EEXIST)
        kind = self._inodes.get(ino).mode & S_IFMT
        placed = await self._place(directory, name, uid, None, kind)
        try:
            inode = await verbs.link(ino, placed.parent, placed.name)
        except BaseException:
            self._undo(placed.made)
            raise
        self._keep(placed)
        return inode

    async def unlink(self, verbs: Made, directory: int, name: bytes, uid: int) -> Inode:
        """As Tree.unlink."""
        row = await self._row(directory, name)
        if row.type == DIRECTORY:
            raise FsError(errno.EISDIR)
        await self._group.begin()
        source = self._source(row, *self._path(directory, name), uid, None)
        tree, above = self._derived.where(directory)
        held = self._hold_emptied(tree, above, directory)
        try:
            inode = await verbs.unlink(*source, uid)
        except BaseException:
            if held and self._group.active:
                self._derived.hold_no_more(directory, tree.ino)
            raise
        await self._prune(verbs, source[0], tree)
        return inode

    async def _prune(self, verbs: Made, directory: int, tree: Tree) -> None:
        """Where a tree has paths of its own its directories are not those of the repository: what has become
        empty there goes."""
        while True:
            place = self._places.of(directory)
            if place is None or not self._has_own_paths(tree, place.top) or directory == place.top:
                return
            if not self._dentries.is_empty(directory):
                return
            parent, name = self._dentries.names_of(directory)[0]
            try:
                await verbs.rmdir(parent, name)
            except FsError:
                return
            directory = parent

    @staticmethod
    def _has_own_paths(tree: Tree, repository: int) -> bool:
        return any(source.steps for source in tree.sources if source.repository == repository)

    def _hold_emptied(self, tree: Tree, path: bytes, directory: int) -> bool:
        """What is emptied through the tree stays until it is removed, as any directory does; one of a
        repository as long as it does there. Was it held by nothing?"""
        if not path or len(self._rows.children(directory, 2, 2)) > 1 or self._rows.holders(directory):
            return False
        self._derived.hold(tree, path)
        self._group.count()
        return True

    async def rmdir(self, verbs: Made, directory: int, name: bytes, uid: int) -> Inode:
        """As Tree.rmdir. Raises FsError EROFS for a directory of a repository that is not written to."""
        row = await self._row(directory, name)
        if row.type != DIRECTORY:
            raise FsError(errno.ENOTDIR)
        if self._rows.has_names(row.ino):
            raise FsError(errno.ENOTEMPTY)
        await self._group.begin()
        inode = self._inodes.get(row.ino)
        tree, path = self._path(directory, name)
        self._taker(tree, path)
        holders = [holder for holder in self._rows.holders(row.ino) if holder.source_parent]
        for holder in holders:
            self._check_taker(holder.source_parent, tree, path)
            self._rights.check(self._inodes.get(holder.source_parent), tree, uid, None, inode)
        for holder in holders:
            await verbs.rmdir(holder.source_parent, holder.source_name, uid)
        await self._group.begin()
        self._hold_emptied(tree, path.rpartition(b"/")[0], directory)
        self._derived.hold_no_more(row.ino, tree.ino)
        self._derived.finish()
        self._group.count()
        return inode

    async def rename(
        self,
        verbs: Made,
        directory: int,
        name: bytes,
        new_directory: int,
        new_name: bytes,
        flags: int,
        uid: int,
        gid: int,
    ) -> None:
        """As Tree.rename, of a file within trees. Raises FsError EXDEV for directories, and between a tree
        and another directory: mv(1) copies then, which moves no bytes. EEXIST for a name that the repository
        has and the tree does not show: nobody replaces what he does not see."""
        if directory not in self._given or new_directory not in self._given:
            raise FsError(errno.EXDEV)
        if flags & ~RENAME_NOREPLACE:
            raise FsError(errno.EINVAL)
        row = await self._row(directory, name)
        if row.type == DIRECTORY:
            raise FsError(errno.EXDEV)
        there = self._rows.first(new_directory, new_name)
        if there is not None and flags:
            raise FsError(errno.EEXIST)
        if there is not None and there.type == DIRECTORY:
            raise FsError(errno.EISDIR)
        await self._group.begin()
        source = self._source(row, *self._path(directory, name), uid, gid)
        to = self._path(new_directory, new_name)
        if there is not None:
            target = Placed(*self._source(there, *to, uid, gid), [])
        else:
            kind = self._inodes.get(row.ino).mode & S_IFMT
            target = await self._place(new_directory, new_name, uid, gid, kind)
        try:
            if there is None and self._dentries.find(target.parent, target.name) is not None:
                self._refuse(errno.EEXIST, *to, "the repository has that name, which is not shown")
            await verbs.rename(*source, target.parent, target.name, flags, uid, gid)
        except BaseException:
            self._undo(target.made)
            raise
        self._keep(target)
        tree, above = self._derived.where(directory)
        self._hold_emptied(tree, above, directory)
        await self._prune(verbs, source[0], tree)


def _nobody(inode: Inode) -> None:
    """The kernel is answered when it is done: what it is to remember is the name in the tree."""
