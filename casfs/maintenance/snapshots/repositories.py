"""What a restore does about repositories: a directory in the root that comes back is the one that it was.

One that was made since stays, with all that is in it. Views and virtual repositories follow from others, and
come back by their own command alone: what they showed may be there no more, or be another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import partial

from casfs.errors import CasfsError
from casfs.fs.filesystem import FileSystem
from casfs.namespace.differences import Difference, What
from casfs.namespace.namespace import Namespace
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.registry import RepositoryKind
from casfs.text import printable
from casfs.types import ROOT_INO


def left_out(
    fs: FileSystem, rows: Namespace, differences: list[Difference]
) -> tuple[list[Difference], list[str], list[str]]:
    """The differences without those repositories, the names of those that stay, and of those that are not
    made. `rows`: of the snapshot."""
    there = registry_of(fs).repositories
    derived = {row.ino for row in rows.repositories.all() if row.kind != RepositoryKind.LOCAL}
    staying: list[bytes] = []
    unmade: list[bytes] = []
    for each in differences:
        if each.what is What.ADDED and each.new and each.new.parent == ROOT_INO and each.new.ino in there:
            staying.append(each.path)
        elif each.what is What.REMOVED and each.old and each.old.ino in derived:
            unmade.append(each.path)
    found = [
        each
        for each in differences
        if not (each.what is What.ADDED and _is_in(each.path, staying))
        and not (each.what is What.REMOVED and _is_in(each.path, unmade))
    ]
    return found, _shown(staying), _shown(unmade)


def _is_in(path: bytes, tops: Collection[bytes]) -> bool:
    return bool(tops) and path.partition(b"/")[0] in tops


def _shown(paths: list[bytes]) -> list[str]:
    return [printable(os.fsdecode(path)) for path in paths]


def bring_back(fs: FileSystem, rows: Namespace, old: int, new: int) -> Callable[[], object] | None:
    """A directory in the root is made anew: is it a repository with rules, it is that again, with its layout.
    Inside a transaction. Gives what undoes it."""
    row = next((row for row in rows.repositories.all() if row.ino == old), None)
    if row is None or row.kind != RepositoryKind.LOCAL:
        return None
    registry, written = registry_of(fs), fs.store.namespace.repositories
    layout = row.layout
    if layout is not None:
        try:
            registry.layout(layout)
        except CasfsError:
            for each in rows.repositories.layouts():
                if each.name == layout:
                    written.set_layout(each)
    written.set(RepositoryRow(new, row.kind, layout, None, row.rules))
    registry.read()
    follower_of(fs).follow(new)
    fs.group.count()
    return partial(_remove, fs, new)


def _remove(fs: FileSystem, ino: int) -> None:
    fs.store.namespace.repositories.remove(ino)
    registry_of(fs).read()
