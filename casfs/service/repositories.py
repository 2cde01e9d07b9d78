"""What the mount daemon does when a command asks for something about repositories or layouts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from casfs.control.messages import Done
from casfs.control.repositories import HANDLERS
from casfs.control.server import Handlers
from casfs.fs.filesystem import FileSystem
from casfs.fuse.caches import KernelCaches


class RepositoryService:
    """Runs on the event loop's thread."""

    def __init__(self, fs: FileSystem, caches: KernelCaches) -> None:
        self._fs = fs
        self._caches = caches

    def handlers(self) -> Handlers:
        """Operations of the control socket."""
        return {kind: partial(self._perform, handle) for kind, handle in HANDLERS.items()}

    async def _perform(self, handle: Callable[[FileSystem, Any], Awaitable[Done]], asked: Any) -> Done:
        async with self._caches.invalidated():
            return await handle(self._fs, asked)
