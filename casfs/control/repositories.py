"""What the operations on repositories and layouts do, on a store that is mounted or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control.messages import (
    AddLayouts,
    CreateRepository,
    Done,
    Operation,
    RemoveLayout,
    RemoveRepositories,
    RenameRepository,
    SetLayout,
    SetPlainDirectories,
    SetRepository,
)
from casfs.control.protocol import path_of
from casfs.fs.filesystem import FileSystem
from casfs.layouts.files import from_toml
from casfs.repositories import definitions, verbs
from casfs.repositories.registry import RepositoryKind


async def _create(fs: FileSystem, asked: CreateRepository) -> Done:
    await verbs.create(
        fs,
        path_of(asked.name),
        RepositoryKind(asked.kind),
        members=list(map(path_of, asked.members)),
        deploy=path_of(asked.deploy),
        settings=asked.settings,
    )
    return Done()


async def _set(fs: FileSystem, asked: SetRepository) -> Done:
    await verbs.change(
        fs,
        path_of(asked.name),
        members=None if asked.members is None else list(map(path_of, asked.members)),
        deploy=None if asked.deploy is None else path_of(asked.deploy),
        settings=asked.settings,
    )
    return Done()


async def _set_plain(fs: FileSystem, asked: SetPlainDirectories) -> Done:
    await verbs.set_plain(fs, asked.yes)
    return Done()


async def _rename(fs: FileSystem, asked: RenameRepository) -> Done:
    await verbs.rename(fs, path_of(asked.name), path_of(asked.new_name))
    return Done()


async def _remove(fs: FileSystem, asked: RemoveRepositories) -> Done:
    await verbs.remove(fs, list(map(path_of, asked.names)), force=asked.force)
    return Done()


async def _add_layouts(fs: FileSystem, asked: AddLayouts) -> Done:
    await definitions.add(fs, from_toml(asked.definitions), replace=asked.replace)
    return Done()


async def _set_layout(fs: FileSystem, asked: SetLayout) -> Done:
    await definitions.change(fs, asked.name, asked.changes)
    return Done()


async def _remove_layout(fs: FileSystem, asked: RemoveLayout) -> Done:
    await definitions.remove(fs, asked.name)
    return Done()


HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Done]]] = {
    CreateRepository: _create,
    SetRepository: _set,
    SetPlainDirectories: _set_plain,
    RenameRepository: _rename,
    RemoveRepositories: _remove,
    AddLayouts: _add_layouts,
    SetLayout: _set_layout,
    RemoveLayout: _remove_layout,
}
