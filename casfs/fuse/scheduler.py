"""trio for the file system (fs/scheduler.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")


class TrioScheduler:
    """What blocks goes to trio's worker threads. A cancelled waiter waits on: a half-done copy or sync
    must not go on behind the back of who asked for it."""

    def __init__(self) -> None:
        self.threads = 0

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        self.threads += 1
        try:
            return await trio.to_thread.run_sync(function, *args)
        finally:
            self.threads -= 1

    async def pause(self) -> None:
        await trio.lowlevel.checkpoint()

    def event(self) -> trio.Event:
        return trio.Event()

    def now(self) -> float:
        return trio.current_time()
