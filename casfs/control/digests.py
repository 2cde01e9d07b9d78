"""What `casfs digests` has done: what contents get, on a store that is mounted or not; and the writing of
digests by the daemon of a mount."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control.messages import AddDigests, Done, Operation, SetDigests, WantedDigests
from casfs.errors import UsageError
from casfs.filestore.hashing import ALGORITHMS
from casfs.fs.filesystem import FileSystem
from casfs.maintenance.digests import mounted
from casfs.namespace.digests import DigestRow, DigestRun


async def _set(fs: FileSystem, asked: SetDigests) -> WantedDigests:
    for name in asked.add:
        if name not in ALGORITHMS:
            raise UsageError.unknown("algorithm", name, ALGORITHMS)
    await fs.group.begin()
    wanted = sorted({*fs.store.namespace.digests.wanted(), *asked.add} - set(asked.remove))
    fs.contents.digesting.set_wanted(wanted)
    await fs.group.durable()
    return WantedDigests(wanted)


async def add(fs: FileSystem, asked: AddDigests) -> Done:
    """Only a daemon does that for others."""
    try:
        rows = [DigestRow(blob, name, bytes.fromhex(value)) for blob, name, value in asked.rows]
    except ValueError:
        raise UsageError("a digest is hexadecimal") from None
    for row in rows:
        if row.algorithm not in ALGORITHMS or len(row.value) != ALGORITHMS[row.algorithm].size:
            raise UsageError(f"{row.value.hex()} is no {row.algorithm}")
    await mounted.add(fs, rows, DigestRun(*asked.run), durable=asked.durable)
    return Done()


HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    SetDigests: _set
}
