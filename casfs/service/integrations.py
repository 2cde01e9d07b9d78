"""What the mount daemon does about integrations (to Maven: snapshots) that are too many."""

from __future__ import annotations

import logging
import time

import trio

from casfs.fs.filesystem import FileSystem
from casfs.fuse.caches import KernelCaches
from casfs.repositories.integrations import Cleaned, clean, wanted

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""How often it looks, if something was committed since, or had to wait."""


class IntegrationCleanup:
    """Runs on the event loop's thread. `_looked`: the last group that was committed when it looked, None
    where something waits."""

    def __init__(self, fs: FileSystem, caches: KernelCaches) -> None:
        self._fs = fs
        self._caches = caches
        self._looked: int | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            try:
                cleaned = await self._look()
            except OSError as error:
                log.warning("snapshots could not be cleaned up: %s", error)
                continue
            if cleaned.files:
                log.info("%d files of old snapshots went to the trash", cleaned.files)

    async def _look(self) -> Cleaned:
        fs = self._fs
        number = fs.group.number - fs.group.active
        if fs.group.failed or self._looked == number or not wanted(fs):
            return Cleaned()
        async with self._caches.invalidated():
            cleaned = await clean(fs, time.time_ns())
        self._looked = None if cleaned.waits else number
        return cleaned
