"""The names in views and virtual repositories: rows that follow from the names in the repositories they show.

What a name has in each tree is made anew from what is there (`update`), so that nothing depends on what came
first. A directory of a tree is there as long as something is in it, or something holds it: a directory of a
repository that is shown as it is, or a program that has made it.

Nobody reaches through a tree what he cannot reach at its source: what lies below a directory that allows less
than the tree's own directory does is not shown.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import KeysView

from casfs.errors import FsError
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.places import Level, Place
from casfs.layouts.coordinates import Coordinates
from casfs.namespace.derived import DIRECTORY, DerivedRow
from casfs.repositories.registry import Registry
from casfs.repositories.trees import Shows, Tree, shown_by, trees_of

FILE = stat.S_IFREG >> 12

PATHS = 10_000
"""Directories of trees whose inode numbers are remembered."""

ALL_READ = 0o555

SHOWN = 0o1777
"""Of the mode of a tree's own directory what those in it have: where it is sticky nobody removes what others
have made in them."""

Entry = tuple[int, int, int]
"""(cookie, inode number, type) of a dentry."""


class DerivedNames:
    """Owned by the thread that runs the file system.

    `trees`: by the inode number of their directory. `_shown_by`: repository -> how trees show it. `_paths`:
    (tree, path) -> the inode number of a directory, and `_keys` the other way; what is in one is in the
    other. `_emptied`: directories that may have nothing in them any more; `_changed`: those with other names.
    `_open`: (place, tree) -> does the place allow all that the tree does?
    """

    def __init__(self, core: Core, registry: Registry) -> None:
        self._rows = core.store.namespace.derived
        self._inodes = core.inodes
        self._places = core.places
        self._directories = core.directories
        self._nodes = core.nodes
        self._kernel = core.kernel
        self._remembered = core.remembered
        self._registry = registry
        self._paths: dict[tuple[int, bytes], int] = {}
        self._keys: dict[int, tuple[int, bytes]] = {}
        self._emptied: set[int] = set()
        self._changed: set[int] = set()
        self._open: dict[tuple[Place, int], bool] = {}
        self._version = -1
        self.trees: dict[int, Tree] = {}
        self._shown_by: dict[int, list[Shows]] = {}

    def read(self) -> tuple[list[Tree], list[Tree]]:
        """The repositories have changed: the trees that are new or other ones, and those that they were
        before, or that are gone. A tree whose directory is missing, which only a damaged database has, is
        none."""
        found = trees_of(self._registry.repositories)
        before = self.trees
        self.trees = {ino: tree for ino, tree in found.items() if self._find(ino) is not None}
        self._shown_by = shown_by(self.trees.values())
        new = [tree for ino, tree in self.trees.items() if before.get(ino) != tree]
        old = [tree for ino, tree in before.items() if self.trees.get(ino) != tree]
        self.invalidate()
        return new, old

    def invalidate(self) -> None:
        """A tree, or what it allows, is another one."""
        self._open.clear()
        self._forget_paths()

    def _forget_paths(self) -> None:
        self._paths.clear()
        self._keys.clear()

    def is_contended(self, repository: int) -> bool:
        """Is there a tree where others may want the names of a repository?"""
        return any(len(shows.tree.sources) > 1 for shows in self._shown_by.get(repository, ()))

    @property
    def shown(self) -> KeysView[int]:
        """The repositories that some tree shows."""
        return self._shown_by.keys()

    # What is wanted

    def update(
        self,
        directory: int,
        name: bytes,
        place: Place | None,
        entry: Entry | None,
        coordinates: Coordinates | None,
        *,
        is_new: bool,
    ) -> None:
        """Bring what is derived from one name in line with what it stands for. `coordinates`: what the layout
        of its repository says of it. `is_new`: nothing was derived from it before. Inside a transaction, with
        `finish` at the end of it."""
        wanted: list[DerivedRow] = []
        if entry is not None and place is not None and place.top in self._shown_by:
            wanted = self._wanted(directory, name, place, entry, coordinates)
        if not is_new:
            there = {(row.tree, row.rank): row for row in wanted}
            for row in self._rows.of_source(directory, name):
                other = there.get((row.tree, row.rank))
                if other is not None and other == row._replace(hidden=other.hidden):
                    wanted.remove(other)
                else:
                    self._remove(row)
        for row in wanted:
            self._add(row)

    def _wanted(
        self, directory: int, name: bytes, place: Place, entry: Entry, coordinates: Coordinates | None
    ) -> list[DerivedRow]:
        its_cookie, ino, type_ = entry
        path = place.within + name
        rows: list[DerivedRow] = []
        for shows in self._shown_by[place.top]:
            tree, source, rank, _ = shows
            if not self._is_open(place, tree):
                continue
            cookie = shows.cookie(its_cookie)
            if type_ == DIRECTORY:
                if not source.steps:
                    holds = self._directory(tree, path)
                    rows.append(DerivedRow(holds, b"", rank, cookie, 0, 0, 1, tree.ino, directory, name))
                continue
            derived: bytes | None = path
            if source.steps:
                derived = None if coordinates is None else source.derive(path, coordinates)
                if derived is None and tree.ino in self._rows.kept(directory, name):
                    derived = path
            if derived is not None:
                above, _, last = derived.rpartition(b"/")
                parent = self._directory(tree, above)
                rows.append(DerivedRow(parent, last, rank, cookie, ino, type_, 0, tree.ino, directory, name))
        return rows

    def _is_open(self, place: Place, tree: Tree) -> bool:
        """May everybody who may look into the tree look into that place?"""
        if self._version != self._places.version:
            self._version = self._places.version
            self._open.clear()
        key = place, tree.ino
        found = self._open.get(key)
        if found is None:
            top = self._places.of(tree.ino)
            base = top.chain[0] if top is not None and top.chain else None
            found = self._open[key] = base is not None and all(
                takes_nothing(level, base) for level in place.chain
            )
        return found

    def shows(self, directory: int, tree: Tree) -> bool:
        """Is what lies in a directory of a repository shown in a tree?"""
        place = self._places.of(directory)
        return place is not None and self._is_open(place, tree)

    def may_show_otherwise(self, directory: int) -> bool:
        """May what is below a directory be shown where it was not, or the other way, now that the directory
        allows something else?"""
        place = self._places.of(directory)
        if place is None:
            return True
        trees = [shows.tree for shows in self._shown_by.get(place.top, ())]
        shown = {row.tree for row in self._rows.of_source_directory(directory)}
        return any(not self._is_open(place, tree) or tree.ino not in shown for tree in trees)

    # Rows

    def _add(self, row: DerivedRow) -> None:
        """A candidate for a name, or what holds a directory."""
        if row.name:
            if self._rows.add(row):
                self._stands_for_another(row)
            self._changed.add(row.parent)
        else:
            self._rows.insert(row)

    def _remove(self, row: DerivedRow) -> None:
        self._rows.remove(row)
        self._emptied.add(row.parent)
        if row.name:
            self._changed.add(row.parent)
            if not row.hidden:
                self._stands_for_another(row)

    def _stands_for_another(self, row: DerivedRow) -> None:
        """A name that the kernel may know stands for something else now, or for nothing."""
        if row.parent in self._nodes.derived:
            self._remembered.names.add((row.parent, row.name))

    def finish(self) -> None:
        """What is left to be done at the end of a step: directories with nothing in them go, and the times of
        those whose names have changed move."""
        self.prune()
        for directory in self._changed:
            self._touch(directory)
        self._changed.clear()

    def _touch(self, directory: int) -> None:
        inode = self._find(directory)
        if inode is not None:
            self._directories.touch(inode)
            self._remembered.changed(directory)

    def _find(self, ino: int) -> Inode | None:
        """None for one that is gone, as a tree's own directory may be while its rows are removed."""
        try:
            return self._inodes.get(ino)
        except FsError:
            return None

    def remove_sources(self, directory: int) -> None:
        """Nothing is derived any more from names of that directory."""
        for row in self._rows.of_source_directory(directory):
            self._remove(row)

    def wipe(self, tree: int, limit: int) -> bool:
        """Remove rows of a tree that is gone, or will be made anew; False when there were no more."""
        rows = self._rows.of_tree(tree, limit)
        gone = False
        for row in rows:
            gone |= self._remove_directory(row) if row.type == DIRECTORY else self._rows.delete(row)
        if rows:
            self._touch(tree)
        return gone

    # Directories of trees

    def _directory(self, tree: Tree, path: bytes) -> int:
        """The inode number of a directory of a tree, which is made if it is not there."""
        if not path:
            return tree.ino
        key = tree.ino, path
        found = self._paths.get(key)
        if found is None:
            above, _, name = path.rpartition(b"/")
            parent = self._directory(tree, above)
            row = self._rows.first(parent, name)
            if row is not None and row.type == DIRECTORY and self._find(row.ino) is None:
                self._rows.remove(row)  # only a damaged database has that
                row = None
            if row is not None and row.type == DIRECTORY:
                found = row.ino
                self._show_as(found, self._inodes.get(tree.ino))
            else:
                found = self._make(tree, parent, name)
            self._remember(found, key)
        return found

    def _remember(self, ino: int, key: tuple[int, bytes]) -> None:
        if len(self._paths) >= PATHS:
            self._forget_paths()
        self._paths[key] = ino
        self._keys[ino] = key

    def where(self, directory: int) -> tuple[Tree, bytes]:
        """The tree that a directory is in, and its path there. Raises FsError ENOENT for one that is gone."""
        if directory in self.trees:
            return self.trees[directory], b""
        key = self._keys.get(directory)
        if key is None:
            row = self._rows.place_of(directory)
            if row is None:
                raise FsError(errno.ENOENT)
            tree, above = self.where(row.parent)
            key = tree.ino, above + b"/" + row.name if above else row.name
            self._remember(directory, key)
        return self.trees[key[0]], key[1]

    def _make(self, tree: Tree, parent: int, name: bytes) -> int:
        top = self._inodes.get(tree.ino)
        inode = self._inodes.create(stat.S_IFDIR | top.mode & SHOWN, top.uid, top.gid)
        inode.nlink = 2
        cookie = self._inodes.next_cookie()
        self._add(DerivedRow(parent, name, -1, cookie, inode.ino, DIRECTORY, 0, tree.ino, 0, b""))
        above = self._inodes.get(parent)
        above.nlink += 1
        self._touch(parent)
        return inode.ino

    def _show_as(self, ino: int, top: Inode) -> None:
        """A directory of a tree is shown as the tree's own one."""
        inode = self._inodes.get(ino)
        mode = stat.S_IFDIR | top.mode & SHOWN
        if (inode.mode, inode.uid, inode.gid) != (mode, top.uid, top.gid):
            inode.mode, inode.uid, inode.gid = mode, top.uid, top.gid
            self._inodes.changed(inode)
            self._remembered.changed(ino)

    def hold(self, tree: Tree, path: bytes) -> int:
        """A program makes a directory in a tree, or leaves it empty: it stays. Its inode number."""
        ino = self._directory(tree, path)
        self._rows.insert(DerivedRow(ino, b"", -1, 0, 0, 0, 1, tree.ino, 0, b""))
        self.finish()
        return ino

    def hold_no_more(self, ino: int, tree: int) -> None:
        self._rows.delete(DerivedRow(ino, b"", -1, 0, 0, 0, 1, tree, 0, b""))
        self._emptied.add(ino)

    def prune(self) -> None:
        """Remove the directories that nothing is in and nothing holds."""
        while self._emptied:
            ino = self._emptied.pop()
            if ino in self.trees or not self._rows.is_empty(ino):
                continue
            row = self._rows.place_of(ino)
            if row is not None:
                self._remove_directory(row)
                self._emptied.add(row.parent)

    def _remove_directory(self, row: DerivedRow) -> bool:
        was_there = self._rows.remove(row)
        key = self._keys.pop(row.ino, None)
        if key is not None:
            del self._paths[key]
        self._stands_for_another(row)
        parent, inode = self._find(row.parent), self._find(row.ino)
        if parent is not None:
            parent.nlink -= 1
            self._touch(row.parent)
        if inode is None:
            return was_there
        inode.nlink = 0
        was_given = self._nodes.derived.pop(row.ino, None) is not None
        if was_given and self._kernel.forget_attributes(row.ino):
            self._directories.unlinked.add(inode.ino)  # until the kernel forgets it
            self._inodes.changed(inode)
        else:
            self._inodes.remove(inode)
        return was_there


def takes_nothing(level: Level, base: Level) -> bool:
    """Does a directory let everybody look into it who may look into another one? It does where it lets
    everybody, or just those."""
    _, mode, uid, gid, access = level
    if not access and mode & ALL_READ == ALL_READ:
        return True
    _, base_mode, base_uid, base_gid, base_access = base
    return (mode & ALL_READ, uid, gid, access) == (base_mode & ALL_READ, base_uid, base_gid, base_access)
