"""What `casfs lock` and `unlock` do, on a store that is mounted or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control.messages import Done, LockTrees, Operation, UnlockTrees
from casfs.control.protocol import path_of
from casfs.fs.filesystem import FileSystem
from casfs.repositories import locking


async def _lock(fs: FileSystem, asked: LockTrees) -> Done:
    await locking.lock(fs, list(map(path_of, asked.paths)), asked.reason)
    return Done()


async def _unlock(fs: FileSystem, asked: UnlockTrees) -> Done:
    await locking.unlock(fs, list(map(path_of, asked.paths)))
    return Done()


HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Done]]] = {
    LockTrees: _lock,
    UnlockTrees: _unlock,
}
