"""What `casfs snapshot` has done, on a store that is mounted or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control.messages import CreateSnapshot, Done, DropSnapshot, Operation
from casfs.fs.filesystem import FileSystem
from casfs.maintenance.snapshots.create import create, drop
from casfs.snapshots.manifest import Manifest


async def _create(fs: FileSystem, asked: CreateSnapshot) -> Manifest:
    return await create(fs, asked.name, reason=asked.reason, expires_ns=asked.expires_ns, job=asked.job)


async def _drop(fs: FileSystem, asked: DropSnapshot) -> Done:
    await drop(fs, asked.name)
    return Done()


HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    CreateSnapshot: _create,
    DropSnapshot: _drop,
}
