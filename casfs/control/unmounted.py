"""What operations do on a store that is not mounted: `casfs cp`, `mv`, `rm`, `lock`, `repo` and others."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control import batches, digests, locks, names, repositories, snapshots
from casfs.control.messages import (
    Done,
    Emptied,
    EmptyTrash,
    Operation,
    Result,
    SetTrashRule,
    Undelete,
    Undeleted,
)
from casfs.control.protocol import operation_of, path_of, request_of
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from casfs.maintenance.offline import opened
from casfs.trash import undelete as trash


def perform(store: str, operation: Operation[Result]) -> Result:
    """Do it under the store's lock. Raises as `Store` and the operation of fs/ do, and UsageError for what a
    daemon would refuse."""
    handle = _HANDLERS[type(operation)]
    operation = operation_of(type(operation), request_of(operation))
    with opened(store) as fs:
        result: Result = run_inline(handle(fs, operation))
    return result


async def _empty_trash(fs: FileSystem, asked: EmptyTrash) -> Emptied:
    older_ns = None if asked.older_seconds is None else int(asked.older_seconds * 1e9)
    changed = await trash.expire(fs, time.time_ns(), older_ns)
    return Emptied(changed.files, changed.size)


async def _set_trash_rule(fs: FileSystem, asked: SetTrashRule) -> Done:
    await trash.change_rule(fs, path_of(asked.directory), asked.days, asked.exclude, asked.minimal_age)
    return Done()


async def _undelete(fs: FileSystem, asked: Undelete) -> Undeleted:
    changed = await trash.undelete(fs, path_of(asked.path), asked.since_ns, asked.before_ns)
    return Undeleted(changed.files, changed.skipped)


_HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    EmptyTrash: _empty_trash,
    SetTrashRule: _set_trash_rule,
    Undelete: _undelete,
    **digests.HANDLERS,
    **locks.HANDLERS,
    **names.HANDLERS,
    **batches.HANDLERS,
    **repositories.HANDLERS,
    **snapshots.HANDLERS,
}
