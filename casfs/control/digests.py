"""What `casfs digests` changes, on a store that is mounted or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control.messages import Operation, SetDigests, WantedDigests
from casfs.errors import UsageError
from casfs.filestore.hashing import ALGORITHMS
from casfs.fs.filesystem import FileSystem


async def _set(fs: FileSystem, asked: SetDigests) -> WantedDigests:
    for name in asked.add:
        if name not in ALGORITHMS:
            raise UsageError.unknown("algorithm", name, ALGORITHMS)
    await fs.group.begin()
    wanted = sorted({*fs.store.namespace.digests.wanted(), *asked.add} - set(asked.remove))
    fs.contents.digesting.set_wanted(wanted)
    await fs.group.durable()
    return WantedDigests(wanted)


HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    SetDigests: _set
}
