"""What `casfs snapshot` has done, on a store that is mounted or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control import asking
from casfs.control.messages import (
    CreateSnapshot,
    Done,
    DropSnapshot,
    Operation,
    RestoredSnapshot,
    RestoreSnapshot,
)
from casfs.control.protocol import path_of
from casfs.fs.filesystem import FileSystem
from casfs.maintenance.snapshots.create import create, drop
from casfs.maintenance.snapshots.restore import restore
from casfs.repositories.forcing import Forced, forcing
from casfs.snapshots.manifest import Manifest


async def _create(fs: FileSystem, asked: CreateSnapshot) -> Manifest:
    return await create(fs, asked.name, reason=asked.reason, expires_ns=asked.expires_ns, job=asked.job)


async def _drop(fs: FileSystem, asked: DropSnapshot) -> Done:
    await drop(fs, asked.name)
    return Done()


async def _restore(fs: FileSystem, asked: RestoreSnapshot) -> RestoredSnapshot:
    what = f"snapshot restore {asked.name}"
    forced = Forced(what, asking.user(), looks=asked.dry_run) if asked.force else None
    with forcing(forced):
        done = await restore(
            fs,
            asked.name,
            list(map(path_of, asked.paths)),
            to=path_of(asked.to) if asked.to else None,
            uid=asking.user(),
            dry_run=asked.dry_run,
        )
    return RestoredSnapshot(
        done.restored,
        done.bytes,
        done.removed,
        done.replaced,
        done.attributes,
        done.renamed,
        done.changed,
        done.left,
        done.before,
        done.releases,
        done.unmade,
    )


CHANGING: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    DropSnapshot: _drop,
    RestoreSnapshot: _restore,
}
"""Those that change names behind the kernel's back."""

HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    CreateSnapshot: _create,
    **CHANGING,
}
