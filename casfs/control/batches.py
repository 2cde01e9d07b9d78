"""What is done to many files in one transaction, on a store that is mounted or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control import asking
from casfs.control.messages import (
    Acted,
    ActOn,
    CopyInto,
    GetProperties,
    MoveInto,
    Operation,
    Properties,
    RemoveFiles,
    RemoveProperties,
    SetProperties,
)
from casfs.control.protocol import path_of
from casfs.fs import actions
from casfs.fs.batch import Batch, Target, Verb
from casfs.fs.filesystem import FileSystem
from casfs.repositories.forcing import Forced, forcing
from casfs.text import printable


def _verb(fs: FileSystem, asked: ActOn) -> Verb:
    match asked.action:
        case SetProperties(values, recursive):
            return actions.set_properties(fs, values, recursive=recursive)
        case RemoveProperties(keys, recursive):
            return actions.remove_properties(fs, keys, recursive=recursive)
        case RemoveFiles():
            return actions.RemoveFiles(fs, asking.user())
        case CopyInto(directory, below):
            return actions.CopyInto(fs, path_of(directory), path_of(below) if below else None)
        case MoveInto(directory, _, below):
            return actions.MoveInto(fs, path_of(directory), path_of(below) if below else None)


def _forced(asked: ActOn) -> Forced | None:
    action = asked.action
    if not isinstance(action, RemoveFiles | MoveInto) or not action.force:
        return None
    what = "rm" if isinstance(action, RemoveFiles) else f"mv to {printable(action.directory)}"
    return Forced(f"{what}, of {len(asked.targets)} files", asking.user(), looks=asked.dry_run)


async def _act(fs: FileSystem, asked: ActOn) -> Acted:
    batch, forced = Batch(fs, _verb(fs, asked)), _forced(asked)
    targets = [Target(path_of(target.path), target.ino) for target in asked.targets]
    with forcing(forced):
        done = await batch.look(targets)
        releases = forced.releases if forced else 0
        if not asked.dry_run:
            done = await batch.run()
    return Acted(done.files, done.size, done.changed, releases)


async def _get(fs: FileSystem, asked: GetProperties) -> Properties:
    return Properties(actions.properties_of(fs, path_of(asked.path)))


HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    ActOn: _act,
    GetProperties: _get,
}
