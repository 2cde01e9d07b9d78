"""Rows of repositories and layouts that say nothing that can be meant: what is made of them, and why.

Such a store is mounted all the same. A layout that cannot be read is none; a repository that cannot be read,
or has such a layout, is shown as it is and not written to, so that what follows from its names stays as it
was until somebody mends it (casfs fsck).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from casfs.errors import LayoutError
from casfs.layouts.files import from_toml
from casfs.layouts.layout import Layout, prepare
from casfs.namespace.repositories import LayoutRow


def layout_of(row: LayoutRow) -> Layout:
    """Raises LayoutError."""
    definitions = from_toml(row.definition)
    if [definition.name for definition in definitions] != [row.name]:
        raise LayoutError("its definition is not that of a layout of this name")
    return prepare(definitions[0])


def layouts_of(rows: Iterable[LayoutRow]) -> tuple[dict[str, Layout], dict[str, str]]:
    """The layouts, and why those that are missing among them cannot be read; by name."""
    layouts: dict[str, Layout] = {}
    damaged: dict[str, str] = {}
    for row in rows:
        try:
            layouts[row.name] = layout_of(row)
        except LayoutError as error:
            damaged[row.name] = error.message
    return layouts, damaged


def circles(members: Mapping[int, Iterable[int]]) -> list[list[int]]:
    """Repositories that show each other, or themselves: each circle in order, and found once. A graph
    without what is in them has none."""
    found: list[list[int]] = []
    done: set[int] = set()
    for first in members:
        way: dict[int, None] = {}
        ahead = [iter((first,))]
        while ahead:
            repository = next(ahead[-1], None)
            if repository is None:
                ahead.pop()
                if way:
                    done.add(way.popitem()[0])
            elif repository in way:
                found.append(list(way)[list(way).index(repository) :])
            elif repository not in done:
                way[repository] = None
                ahead.append(iter(tuple(members.get(repository, ()))))
    return found
