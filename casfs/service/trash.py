"""What the mount daemon does for the trash: the age of what is in it, and the commands."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

import msgspec
import trio

from casfs.control.protocol import Nanoseconds, path_of
from casfs.errors import UsageError
from casfs.fs.filesystem import FileSystem
from casfs.fuse.caches import KernelCaches
from casfs.trash.policy import Trash
from casfs.trash.undelete import Changed, change_rule, expire, undelete

log = logging.getLogger(__name__)

EMPTY_SECONDS = 3600.0
"""Time from one emptying by age to the next; the first comes with the mount."""


Days = Annotated[int, msgspec.Meta(ge=0, le=36_500)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=36_500 * 86_400)]
Age = Annotated[float, msgspec.Meta(ge=0, le=36_500 * 86_400)]
"""What `casfs trash` takes (cli/trash.py, cli/arguments.py): up to a hundred years; an age in seconds."""


class TrashService:
    """Runs on the event loop's thread."""

    def __init__(self, fs: FileSystem, trash: Trash, caches: KernelCaches, *, empties: bool) -> None:
        self._fs = fs
        self._trash = trash
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
        async with self._caches.told(self._trash.holds):
            return await expire(self._fs, self._trash, time.time_ns(), older_ns, limit)

    # Operations of the control socket

    def operations(self) -> dict[str, Any]:
        return {"trash_empty": self.empty, "trash_set": self.set, "undelete": self.undelete}

    @property
    def state(self) -> str:
        """For `casfs status`."""
        return f"off: {self._trash.off}" if self._trash.off else "on"

    async def empty(self, older_seconds: Age | None) -> dict[str, Any]:
        """By age, or everything that was removed so many seconds ago."""
        changed = await self._empty(None if older_seconds is None else int(older_seconds * 1e9))
        await self._fs.group.durable()
        return {"files": changed.files, "bytes": changed.size}

    async def set(
        self, directory: str, days: Days | None, exclude: list[str] | None, minimal_age: Seconds | None
    ) -> dict[str, Any]:
        if any("\n" in pattern or not _is_text(pattern) for pattern in exclude or ()):
            raise UsageError("bad arguments: a pattern with a line break, or that is not UTF-8")
        await change_rule(self._fs, self._trash, path_of(directory), days, exclude, minimal_age)
        return {}

    async def undelete(self, path: str, since_ns: Nanoseconds, before_ns: Nanoseconds) -> dict[str, Any]:
        async with self._caches.told():
            changed = await undelete(self._fs, self._trash, path_of(path), since_ns, before_ns)
        return {"files": changed.files, "skipped": changed.skipped}


def _is_text(pattern: str) -> bool:
    try:
        pattern.encode()
    except UnicodeEncodeError:
        return False
    return True
