"""What the mount daemon does when a command asks (control/messages.py)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from casfs.control import batches, digests, locks, names, snapshots
from casfs.control.messages import (
    AddDigests,
    Collect,
    Collected,
    Damaged,
    Done,
    Identify,
    Identity,
    Status,
    Sync,
)
from casfs.control.server import Handlers
from casfs.fs.filesystem import FileSystem
from casfs.fuse.session import Session
from casfs.maintenance.collect import mounted as collect_mounted
from casfs.namespace.collecting import Record
from casfs.repositories.filesystem import follower_of
from casfs.service.collector import Collector
from casfs.service.pressure import Pressure
from casfs.service.repositories import RepositoryService
from casfs.service.trash import TrashService


class Requests:
    """The operations of the control socket. Runs on the event loop's thread.

    `device`: of the mount, MAJOR:MINOR as in the mount table; "" when that is not known.
    """

    def __init__(
        self,
        fs: FileSystem,
        device: str,
        session: Session,
        trash: TrashService,
        pressure: Pressure,
        collector: Collector,
    ) -> None:
        self._fs = fs
        self._device = device
        self._session = session
        self._trash = trash
        self._repositories = RepositoryService(fs, session.caches)
        self._pressure = pressure
        self._collector = collector
        self._since = time.time()

    def handlers(self) -> Handlers:
        return {
            Identify: self.identify,
            Status: self.status,
            Sync: self.sync,
            **{
                kind: partial(handle, self._fs)
                for kind, handle in (digests.HANDLERS | locks.HANDLERS | snapshots.HANDLERS).items()
            },
            **{
                kind: partial(self._name, handle)
                for kind, handle in (names.HANDLERS | batches.HANDLERS | snapshots.CHANGING).items()
            },
            AddDigests: partial(digests.add, self._fs),
            Damaged: self.damaged,
            Collect: self.collect,
            **self._trash.handlers(),
            **self._repositories.handlers(),
        }

    async def status(self, _: Status) -> dict[str, Any]:
        store = self._fs.store
        activity = asdict(self._fs.activity())
        activity["open_handles"] -= self._session.idle_handles
        return {
            "format": store.config.format,
            "schema": store.namespace.version,
            "inodes": store.namespace.inodes.count(),
            "seconds_mounted": int(time.time() - self._since),
            "log_bytes": store.namespace.log_pages * 4096,
            "activity": activity,
            "start": asdict(self._fs.recovery),
            "room": self._pressure.state(),
            "collection": self._collector.state(),
            "features": self._session.features() | {"trash": self._trash.state},
        }

    async def identify(self, _: Identify) -> Identity:
        return Identity(self._device)

    async def sync(self, asked: Sync) -> Done:
        await self._fs.contents.settling.write_back()
        if asked.seal:
            await self._fs.contents.settling.seal_all_closed()
            await self._fs.contents.digesting.finished()
        await follower_of(self._fs).drain()
        await self._fs.group.durable()
        self._fs.contents.settling.check_kept()
        return Done()

    async def _name(self, handle: Callable[[FileSystem, Any], Awaitable[Any]], asked: Any) -> Any:
        async with self._session.caches.invalidated():
            return await handle(self._fs, asked)

    async def collect(self, asked: Collect) -> Collected:
        record = Record(*asked.record)
        done = await collect_mounted.collect(self._fs, asked.ids, asked.cutoff_ns, asked.now_ns, record)
        return Collected(
            blobs=done.gone.blobs,
            bytes=done.gone.bytes,
            failures=[(digest.hex(), size, reason) for digest, size, reason in done.failures],
            untried=done.untried,
            gave_up=done.gave_up,
            busy=done.busy,
        )

    async def damaged(self, asked: Damaged) -> Done:
        await self._session.damaged(frozenset(asked.blobs))
        return Done()
