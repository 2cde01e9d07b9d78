"""fsck of the names that casfs keeps in views and virtual repositories: told as problems, and mended.

They are the only copy of nothing: they are computed anew from names in repositories by the pure rules
(repositories/trees.py) and compared. A repair removes all of them, and the file system makes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from casfs.fs.places import ACCESS_LIMIT, DEEPEST, LONGEST, Level
from casfs.maintenance.check.problems import PATHS, Findings, Kind
from casfs.maintenance.check.repositories import RepositoryScan
from casfs.maintenance.left_out import sound_repositories
from casfs.namespace.checks import Affected, Checks
from casfs.namespace.derived import DIRECTORY, DerivedRow
from casfs.namespace.derived_checks import DerivedChecks, DerivedRepairs
from casfs.namespace.namespace import Namespace
from casfs.repositories.derived import FILE, takes_nothing
from casfs.repositories.trees import Shows, Tree, shown_by, trees_of
from casfs.types import ROOT_INO

PLACES = 10_000
"""Directories of trees whose paths are remembered."""

Key = tuple[bytes, int, int]
"""(name of the source, tree, rank)."""

Wanted = tuple[bytes, bytes, int, int, int]
"""What a row says: path of the directory in the tree, name, cookie, inode number, type."""


class NameFault(NamedTuple):
    """What is derived from a name, and is not as it must be; or is not there."""

    parent: int
    name: bytes
    is_missing: bool
    detail: str


class Visit(NamedTuple):
    """A directory of a repository that is to be judged: its path there with a slash at the end, the bytes,
    directories and access lists on the way, and the trees that may show what is in it."""

    directory: int
    path: bytes
    length: int
    depth: int
    access: int
    shown_in: tuple[Shows, ...]


class DerivedScan:
    """Compares the rows with what follows from the names in repositories. The rows must be sound as such,
    and so must the repositories."""

    def __init__(self, namespace: Namespace, scan: RepositoryScan) -> None:
        self._checks = DerivedChecks(namespace)
        self._scan = scan
        self._places: dict[int, tuple[int, bytes]] = {}
        self._trees = trees_of(sound_repositories(namespace))
        self._bases: dict[int, Level | None] = {ino: self._level(b"", ino) for ino in self._trees}

    def faults(self) -> Iterator[NameFault]:
        """Raises DatabaseError."""
        for row in self._checks.sourceless():  # to follow a directory is to look at the names that are there
            is_noted = (row.source_parent, row.source_name) in self._scan.noted
            if not is_noted and row.tree not in self._scan.unjudged:
                detail = "the name that it is derived from is gone, or another one"
                yield NameFault(row.source_parent, row.source_name, False, detail)
        judged: set[int] = set()
        judged_trees = (tree for tree in self._trees.values() if tree.ino not in self._scan.unjudged)
        for repository, shown_in in shown_by(judged_trees).items():
            yield from self._below(repository, tuple(shown_in), judged)
        excused: dict[int, bool] = {}
        for directory in self._checks.source_directories():
            if directory not in judged and not self._scan.is_excused(directory, excused):
                yield NameFault(directory, b"", False, "what lies there is shown in no tree, and has rows")

    def _level(self, name: bytes, directory: int) -> Level | None:
        found = self._checks.level(directory)
        return None if found is None else (name, *found)

    def _below(self, repository: int, shown_in: tuple[Shows, ...], judged: set[int]) -> Iterator[NameFault]:
        top = self._scan.checks.name_of(repository)
        if top is None or top[0] != ROOT_INO:
            return
        todo = [Visit(repository, b"", len(top[1]) + 1, 1, 0, shown_in)]
        while todo:
            visit = todo.pop()
            if visit.directory in self._scan.unjudged or visit.directory in judged:
                continue
            level = self._level(b"", visit.directory)
            if level is None:
                continue
            access = visit.access + sum(map(len, level[4].values()))
            if visit.depth > DEEPEST or visit.length > LONGEST or access > ACCESS_LIMIT:
                self._scan.unjudged.add(visit.directory)  # as for artifacts
                continue
            judged.add(visit.directory)
            open_to = tuple(one for one in visit.shown_in if self._allows(level, one.tree))
            visit = visit._replace(shown_in=open_to, access=access)
            kept = self._checks.kept_in(visit.directory)
            for names, rows in self._checks.names(visit.directory):
                yield from self._compare(visit, names, rows, kept, repository)
                for name, _, ino, type_ in names:
                    if type_ == DIRECTORY:
                        path, length = visit.path + name + b"/", visit.length + len(name) + 1
                        todo.append(Visit(ino, path, length, visit.depth + 1, access, open_to))

    def _allows(self, level: Level, tree: Tree) -> bool:
        base = self._bases[tree.ino]
        return base is not None and takes_nothing(level, base)

    def _compare(
        self,
        visit: Visit,
        names: list[tuple[bytes, int, int, int]],
        rows: list[DerivedRow],
        kept: set[tuple[bytes, int]],
        repository: int,
    ) -> Iterator[NameFault]:
        wanted: dict[Key, Wanted] = {}
        for entry in names:
            wanted.update(self._wanted(visit, *entry, kept, repository))
        there: dict[Key, DerivedRow] = {}
        for row in rows:
            if row.tree in self._scan.unjudged:
                continue
            key = row.source_name, row.tree, row.rank
            expected = wanted.get(key)
            is_noted = (visit.directory, row.source_name) in self._scan.noted
            if not is_noted and (key in there or expected is None or expected != self._said(row)):
                detail = "it is shown where it is not to be, or as another one"
                yield NameFault(visit.directory, row.source_name, False, detail)
            there[key] = row
        for key in wanted.keys() - there.keys():
            if (visit.directory, key[0]) not in self._scan.noted:
                yield NameFault(visit.directory, key[0], True, "there is none")

    def _wanted(
        self,
        visit: Visit,
        name: bytes,
        cookie: int,
        ino: int,
        type_: int,
        kept: set[tuple[bytes, int]],
        repository: int,
    ) -> Iterator[tuple[Key, Wanted]]:
        path = visit.path + name
        layout = self._scan.layouts.get(repository)
        found = layout.parse(path) if layout is not None and type_ == FILE else None
        for shows in visit.shown_in:
            tree, source, rank, _ = shows
            key = name, tree.ino, rank
            if type_ == DIRECTORY:
                if not source.steps:
                    yield key, (path, b"", shows.cookie(cookie), 0, 0)
                continue
            derived: bytes | None = path
            if source.steps:
                derived = None if found is None else source.derive(path, found)
                if derived is None and (name, tree.ino) in kept:
                    derived = path
            if derived is not None:
                above, _, last = derived.rpartition(b"/")
                yield key, (above, last, shows.cookie(cookie), ino, type_)

    def _said(self, row: DerivedRow) -> Wanted | None:
        """None for a row that lies in another tree than it says."""
        tree, path = self._place(row.parent)
        return None if tree != row.tree else (path, row.name, row.cookie, row.ino, row.type)

    def _place(self, directory: int) -> tuple[int, bytes]:
        """The tree of a directory, and its path there."""
        way: list[tuple[int, bytes]] = []
        above = directory
        while above not in self._places and above not in self._trees:
            place = self._checks.place_of(above)
            if place is None:
                return 0, b""
            way.append((above, place[1]))
            above = place[0]
        tree, path = self._places.get(above, (above, b""))
        if len(self._places) > PLACES:
            self._places.clear()
        for ino, name in reversed(way):
            path = path + b"/" + name if path else name
            self._places[ino] = tree, path
        return tree, path


def check_derived(namespace: Namespace, checks: Checks, findings: Findings) -> None:
    """Inside a snapshot. Raises DatabaseError."""
    rows = DerivedChecks(namespace)
    for parent, name, tree in rows.stray_kept():
        detail = f"the name {name!r:.300} in inode {parent!r:.40} is gone, or the view {tree!r:.40}"
        findings.add(Kind.STRAY_KEPT, detail)
    for ino in rows.with_entries():
        detail = f"there are entries in inode {ino}, a directory of a view or virtual repository"
        findings.add(Kind.LOST_ENTRIES, detail, _path_of, checks, rows, ino)
    sound = True
    for detail in rows.no_rows():
        sound = False
        findings.add(Kind.WRONG_DERIVED, detail)
    if not sound:
        return
    for fault in rows.faults():
        sound = False
        detail = f"a row of a name in a view or virtual repository: {fault.detail}"
        findings.add(Kind.WRONG_DERIVED, detail, _path, checks, fault.parent, fault.name)
    for ino in rows.lost_directories():
        sound = False
        detail = f"inode {ino} was a directory of a view or virtual repository, and nothing names it"
        findings.add(Kind.WRONG_DERIVED, detail, checks.paths_of_inode, ino, PATHS)
    scan = RepositoryScan(namespace)
    if not sound or scan.is_damaged:
        return
    for found in DerivedScan(namespace, scan).faults():
        kind = Kind.MISSING_DERIVED if found.is_missing else Kind.WRONG_DERIVED
        detail = f"row of a name in a view or virtual repository: {found.detail}"
        findings.add(kind, detail, _path, checks, found.parent, found.name)


def mend_rows(namespace: Namespace) -> None:
    """Before anything else is mended: what the rows name is no part of the ordinary tree. Inside a write
    transaction. Raises DatabaseError."""
    if not _are_rows_sound(DerivedChecks(namespace)):
        DerivedRepairs(namespace).wipe()


def mend_derived(namespace: Namespace) -> bool:
    """When names and repositories are as they will be; are links to be counted again? Inside a write
    transaction. Raises DatabaseError."""
    checks, repairs = DerivedChecks(namespace), DerivedRepairs(namespace)
    repairs.forget_kept(list(checks.stray_kept()))
    if _are_rows_sound(checks):
        scan = RepositoryScan(namespace)
        if next(DerivedScan(namespace, scan).faults(), None) is None:
            return False
    repairs.wipe()
    return True


def _are_rows_sound(checks: DerivedChecks) -> bool:
    return (
        next(checks.no_rows(), None) is None
        and next(checks.faults(), None) is None
        and next(checks.lost_directories(), None) is None
    )


def _path_of(checks: Checks, rows: DerivedChecks, directory: int) -> Affected:
    place = rows.place_of(directory)
    return checks.paths_of_inode(directory, PATHS) if place is None else _path(checks, *place)


def _path(checks: Checks, parent: int, name: bytes) -> Affected:
    return Affected((checks.path(parent, name),), 1)
