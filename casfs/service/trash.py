"""What the mount daemon does for the trash: the age of what is in it, and the commands."""

from __future__ import annotations

import logging
import time

import trio

from casfs.control.messages import Done, Emptied, EmptyTrash, SetTrashRule, Undelete, Undeleted
from casfs.control.protocol import path_of
from casfs.control.server import Handlers
from casfs.fs.filesystem import FileSystem
from casfs.fuse.caches import KernelCaches
from casfs.trash.filesystem import trash_of
from casfs.trash.undelete import Changed, change_rule, expire, undelete

log = logging.getLogger(__name__)

EMPTY_SECONDS = 3600.0
"""Time from one emptying by age to the next; the first comes with the mount."""


class TrashService:
    """Runs on the event loop's thread."""

    def __init__(self, fs: FileSystem, caches: KernelCaches, *, empties: bool) -> None:
        self._fs = fs
        self._trash = trash_of(fs)
        self._caches = caches
        self._empties = empties

    async def run(self) -> None:
        """Until cancelled."""
        if self._trash.off:
            log.warning("no trash: %s", self._trash.off)
        while self._empties:
            try:
                await self._empty(None)
            except OSError as error:
                log.warning("the trash could not be looked after: %s", error)
            await trio.sleep(EMPTY_SECONDS)

    async def _empty(self, older_ns: int | None) -> Changed:
        changed = await self._expire(older_ns, None)
        if changed.files:
            log.info("%d files, %d bytes left the trash for good", changed.files, changed.size)
        return changed

    async def give_up(self, files: int) -> Changed:
        """Remove the oldest so many files, however long the rules keep them."""
        return await self._expire(0, files)

    async def _expire(self, older_ns: int | None, limit: int | None) -> Changed:
        if self._fs.group.failed:
            return Changed()
        async with self._caches.invalidated(self._trash.holds):
            return await expire(self._fs, time.time_ns(), older_ns, limit)

    # Operations of the control socket

    def handlers(self) -> Handlers:
        return {EmptyTrash: self.empty, SetTrashRule: self.set_rule, Undelete: self.undelete}

    @property
    def state(self) -> str:
        """For `casfs status`."""
        return f"off: {self._trash.off}" if self._trash.off else "on"

    async def empty(self, asked: EmptyTrash) -> Emptied:
        older = asked.older_seconds
        changed = await self._empty(None if older is None else int(older * 1e9))
        await self._fs.group.durable()
        return Emptied(changed.files, changed.size)

    async def set_rule(self, asked: SetTrashRule) -> Done:
        directory = path_of(asked.directory)
        await change_rule(self._fs, directory, asked.days, asked.exclude, asked.minimal_age)
        return Done()

    async def undelete(self, asked: Undelete) -> Undeleted:
        async with self._caches.invalidated():
            changed = await undelete(self._fs, path_of(asked.path), asked.since_ns, asked.before_ns)
        return Undeleted(changed.files, changed.skipped)
