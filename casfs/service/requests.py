"""What the mount daemon does when a command asks (control/protocol.py)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from casfs.control.protocol import Nanoseconds, Natural, path_of
from casfs.fs import copy
from casfs.fs.filesystem import FileSystem
from casfs.fuse.session import Session
from casfs.maintenance import collect_mounted
from casfs.namespace.collecting import Record
from casfs.service.collector import Collector
from casfs.service.pressure import Pressure
from casfs.service.trash import TrashService


class Requests:
    """The operations of the control socket. Runs on the event loop's thread."""

    def __init__(
        self,
        fs: FileSystem,
        mountpoint: str,
        session: Session,
        trash: TrashService,
        pressure: Pressure,
        collector: Collector,
    ) -> None:
        self._fs = fs
        self._mountpoint = mountpoint
        self._session = session
        self._trash = trash
        self._pressure = pressure
        self._collector = collector
        self._since = time.time()

    def operations(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "sync": self.sync,
            "cp": self.cp,
            "mv": self.mv,
            "damaged": self.damaged,
            "collect": self.collect,
        } | self._trash.operations()

    async def status(self) -> dict[str, Any]:
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

    async def sync(self, seal: bool = False) -> dict[str, Any]:
        """`seal`: also what rests before it is sealed, so that each closed file has its blob."""
        await self._fs.files.write_back()
        if seal:
            await self._fs.files.seal_all_closed()
        await self._fs.group.durable()
        self._fs.files.check_kept()
        return {}

    async def cp(self, src: str, dst: str, recursive: bool) -> dict[str, Any]:
        async with self._session.caches.told():
            await copy.copy(self._fs, path_of(src), path_of(dst), recursive=recursive)
        return {}

    async def mv(self, src: str, dst: str) -> dict[str, Any]:
        async with self._session.caches.told():
            await copy.move(self._fs, path_of(src), path_of(dst))
        return {}

    async def collect(
        self,
        ids: list[Natural],
        cutoff_ns: Nanoseconds,
        now_ns: Nanoseconds,
        record: tuple[Natural, Natural, Natural, Natural, Natural],
    ) -> dict[str, Any]:
        done = await collect_mounted.collect(self._fs, ids, cutoff_ns, now_ns, Record(*record))
        failures = [(digest.hex(), size, reason) for digest, size, reason in done.failures]
        return {
            "blobs": done.gone.blobs,
            "bytes": done.gone.bytes,
            "failures": failures,
            "untried": done.untried,
            "gave_up": done.gave_up,
            "busy": done.busy,
        }

    async def damaged(self, blobs: list[Natural]) -> dict[str, Any]:
        await self._session.damaged(frozenset(blobs))
        return {}
