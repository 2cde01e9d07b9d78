"""Searches of a store, in use or not, as its last commit left it: what lies where, and what is the newest."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterator
from typing import NamedTuple

from casfs.errors import CasfsError, StoreLocked, UsageError
from casfs.layouts.builtin import builtin
from casfs.layouts.layout import Layout
from casfs.layouts.versions import ORDERS, Order
from casfs.maintenance import offline
from casfs.namespace.artifacts import ArtifactRow
from casfs.namespace.namespace import Namespace
from casfs.namespace.searches import Wanted
from casfs.repositories.damaged import layouts_of
from casfs.store import Store
from casfs.text import printable
from casfs.types import ROOT_INO

DEEPEST = 10_000
"""Directories above one another that are followed, at the most: rows may lead round in a circle."""


class NothingFound(CasfsError):
    """There is nothing of that kind."""


class Found(NamedTuple):
    """A file: its path from the root of the store, its repository, and what its path says of it. `snapshot`:
    by its path or by its revision."""

    path: bytes
    repository: bytes
    row: ArtifactRow
    snapshot: bool


class Search:
    """Over one store that is open. Raises as `Store` does, and OSError."""

    def __init__(self, namespace: Namespace) -> None:
        self._dentries = namespace.dentries
        self._searches = namespace.searches
        self._paths: dict[int, bytes | None] = {ROOT_INO: b"/"}
        self.layouts = layouts_by_repository(namespace)
        self._members: dict[int, list[int]] = {}
        for row in namespace.repositories.members():
            self._members.setdefault(row.repository, []).append(row.member)

    def repositories(self, name: bytes) -> tuple[int, ...]:
        """The inode number of a repository; of one that shows others, those of all that it shows. Raises
        UsageError for one that has no layout, and shows none that has."""
        ino = self._dentries.find(ROOT_INO, name)
        seen: set[int] = set()
        waiting = [] if ino is None else [ino]
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting += self._members.get(each, ())
        found = tuple(sorted(seen & self.layouts.keys()))
        if not found:
            paths = (self._path(ino) for ino in self.layouts)
            known = sorted(printable(path.strip(b"/")) for path in paths if path)
            raise UsageError.unknown("repository with a layout", printable(name), known)
        return found

    def order(self, repository: int) -> Order:
        """Of the revisions in a repository."""
        layout = self.layouts.get(repository)
        return layout.order if layout is not None else ORDERS["maven"]

    def find(self, wanted: Wanted, name: str | None = None, snapshot: bool | None = None) -> Iterator[Found]:
        """By directory, then by name. `name`: a pattern as in fnmatch(3); `snapshot`: only such, or none."""
        directories = [
            (path, directory)
            for directory in self._searches.directories(wanted)
            if (path := self._path(directory)) is not None
        ]
        for path, directory in sorted(directories):
            for row in self._searches.in_directory(directory, wanted):
                if name is not None and not fnmatch.fnmatchcase(os.fsdecode(row.name), name):
                    continue
                is_snapshot = bool(row.snapshot) or self.order(row.repository).integration(row.revision)
                if snapshot is None or snapshot == is_snapshot:
                    yield Found(path + row.name, path.split(b"/")[1], row, is_snapshot)

    def _path(self, directory: int) -> bytes | None:
        """From the root, with a slash at both ends; None for one that is not there any more."""
        way: list[tuple[int, bytes]] = []
        above = directory
        while above not in self._paths:
            names = self._dentries.names_of(above)
            if not names or len(way) > DEEPEST:
                return None
            way.append((above, names[0][1]))
            above = names[0][0]
        path = self._paths[above]
        for ino, name in reversed(way):
            path = None if path is None else path + name + b"/"
            self._paths[ino] = path
        return path


def layouts_by_repository(namespace: Namespace) -> dict[int, Layout]:
    """Of the repositories that have one, by inode number."""
    rows = namespace.repositories
    stored, _ = layouts_of(rows.layouts())
    layouts = {}
    for row in rows.all():
        with contextlib.suppress(CasfsError):  # fsck tells of it
            if row.layout is not None:
                layouts[row.ino] = stored.get(row.layout) or builtin(row.layout)
    return layouts


@contextlib.contextmanager
def searching(store: str) -> Iterator[Search]:
    """Raises as `Store` does."""
    follow_all(store)
    with contextlib.closing(Store(store, readonly=True)) as opened:
        yield Search(opened.namespace)


def follow_all(store: str) -> None:
    """Of a store that nobody uses: have the rows be true that were still to be followed when its last user
    was killed. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        rows = opened.namespace.repositories
        if not rows.to_follow() and not rows.noted():
            return
    with contextlib.suppress(StoreLocked), offline.opened(store):
        return


def latest(search: Search, wanted: Wanted, *, snapshots: bool) -> list[Found]:
    """The files of the newest revision of one module, in the order of its layout; releases only, or snapshots
    too. Raises NothingFound, UsageError where repositories sort its revisions in different ways."""
    files = list(search.find(wanted, snapshot=None if snapshots else False))
    orders = {search.order(found.row.repository).name for found in files}
    if len(orders) > 1:
        names = sorted({printable(found.repository) for found in files})
        raise UsageError(
            f"{', '.join(names)} sort revisions in different ways ({', '.join(sorted(orders))})",
            "say which one is meant, by --repo",
        )
    if not files:
        what = "nothing" if snapshots else "no release"
        raise NothingFound(f"there is {what} of {wanted.organisation}:{wanted.module}")
    order = ORDERS[orders.pop()]
    newest = max((found.row.revision for found in files), key=order.key)
    return [found for found in files if found.row.revision == newest]
