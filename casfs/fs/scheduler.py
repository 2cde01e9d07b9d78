"""How the file system waits without knowing an event loop.

Verbs that may block are coroutines; what they await comes from here. The mount daemon gives them trio
(fuse/scheduler.py), commands and tests the inline one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Event(Protocol):
    def set(self) -> object: ...
    async def wait(self) -> object: ...


class Scheduler(Protocol):
    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call something that blocks, in a thread."""

    def background(self, function: Callable[[], object], done: Callable[[], object]) -> None:
        """Start something that blocks in a thread, and go on; `done` is called here when it has ended,
        whether by an exception or not. Neither may raise anything that matters."""

    async def pause(self) -> None:
        """Let others run."""

    async def give_way(self) -> None:
        """Let others run, and as long as requests keep coming them alone, for a while. For work that nobody's
        request is held up by, after a slice of it: a program sends its requests one after the other, and
        would wait a slice for each."""

    def event(self) -> Event: ...

    def now(self) -> float:
        """Seconds of a clock that never goes back."""


class Mutex:
    """A lock that costs nothing while nobody competes: entering it free does not yield."""

    __slots__ = ("_released", "_scheduler", "busy")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._released: Event | None = None
        self.busy = False

    async def __aenter__(self) -> None:
        while self.busy:
            if self._released is None:
                self._released = self._scheduler.event()
            await self._released.wait()
        self.busy = True

    async def __aexit__(self, *_: object) -> None:
        self.busy = False
        if self._released is not None:
            released, self._released = self._released, None
            released.set()


class _InlineEvent:
    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    async def wait(self) -> None:
        if not self._set:
            raise RuntimeError("nobody is left who could set this event")


class InlineScheduler:
    """One task, no event loop: everything runs where it is called."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    def background(self, function: Callable[[], object], done: Callable[[], object]) -> None:
        try:
            function()
        finally:
            done()

    async def pause(self) -> None:
        return None

    async def give_way(self) -> None:
        return None

    def event(self) -> Event:
        return _InlineEvent()

    def now(self) -> float:
        return time.monotonic()


def run_inline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine of the file system to its end under the `InlineScheduler`."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a verb waited for something the inline scheduler does not have")
