"""What is done to the layouts of a store: added, set, removed. Each verb happens wholly or not at all, and is
durable when it returns. Raises LayoutError, RepositoryError, OSError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from casfs.errors import LayoutError, RepositoryError
from casfs.fs.filesystem import FileSystem
from casfs.layouts.builtin import DEFINITIONS
from casfs.layouts.files import to_toml
from casfs.layouts.layout import Definition, Layout, prepare
from casfs.namespace.repositories import LayoutRow
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.registry import RepositoryKind
from casfs.text import printable

BUILT_IN = frozenset(definition.name for definition in DEFINITIONS)


async def add(fs: FileSystem, definitions: Sequence[Definition], *, replace: bool = False) -> None:
    """Add layouts; with `replace`, those that are there get their new definition."""
    await fs.group.begin()
    there = registry_of(fs).layouts
    for definition in definitions:
        _check_own(definition.name)
        if definition.name in there and not replace:
            raise RepositoryError(
                f"there is a layout '{definition.name}' already", "casfs layout set changes it"
            )
    _write(fs, definitions, [])
    await fs.group.durable()


async def change(fs: FileSystem, name: str, changes: Mapping[str, Any]) -> None:
    """Set keys of a layout's definition, named as in TOML."""
    await fs.group.begin()
    fields = msgspec.to_builtins(_existing(fs, name).definition)
    try:
        definition = msgspec.convert({**fields, **changes, "name": name}, Definition)
    except msgspec.ValidationError as error:
        raise LayoutError(f"{name}: {error}") from None
    prepare(definition)
    _write(fs, [definition], [])
    await fs.group.durable()


async def remove(fs: FileSystem, name: str) -> None:
    """A layout that no repository has."""
    await fs.group.begin()
    layout = _existing(fs, name)
    names_of = fs.store.namespace.dentries.names_of
    users = [
        printable(names_of(repository.ino)[0][1]) if names_of(repository.ino) else f"inode {repository.ino}"
        for repository in registry_of(fs).repositories.values()
        if repository.layout is layout
    ]
    if users:
        hint = "give them another one first"
        raise RepositoryError(f"layout '{name}' is in use: {', '.join(sorted(users))}", hint)
    _write(fs, [], [name])
    await fs.group.durable()


def _existing(fs: FileSystem, name: str) -> Layout:
    _check_own(name)
    layouts = registry_of(fs).layouts
    if name not in layouts:
        raise LayoutError.unknown("layout", printable(name), layouts)
    return layouts[name]


def _check_own(name: str) -> None:
    if name in BUILT_IN:
        raise RepositoryError(f"layout '{name}' is built in", "add one of another name")


def _write(fs: FileSystem, definitions: Sequence[Definition], gone: Sequence[str]) -> None:
    """Inside a transaction. Repositories with a layout that is another one now are followed."""
    rows, registry = fs.store.namespace.repositories, registry_of(fs)
    before = dict(registry.repositories)
    try:
        with fs.store.namespace.savepoint():
            for definition in definitions:
                rows.set_layout(LayoutRow(definition.name, to_toml([definition])))
            for name in gone:
                rows.remove_layout(name)
            registry.read()
            for ino, repository in registry.repositories.items():
                if repository.kind is RepositoryKind.LOCAL and repository.layout is not before[ino].layout:
                    follower_of(fs).follow(ino)
    except BaseException:
        registry.read()
        raise
    fs.group.count()
