"""trio for the file system (fs/scheduler.py), and for the accelerator, which starts verbs without a task."""

from __future__ import annotations

import logging
import os
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import outcome
import trio

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 40
"""Calls in threads at a time; more wait for one of them."""


class TrioScheduler:
    """What blocks goes to worker threads. A cancelled waiter waits on: a half-done copy or sync must not go
    on behind the back of who asked for it. Owned by the event loop's thread.

    `wake_fd` is an eventfd(2) that is written to when a thread has finished: the loop may be asleep in a
    poll(2) that trio does not know of (fuse/loop.py).

    `direct` is set while the accelerator runs verbs itself. One that has to wait then yields before anything
    else, once, and is resumed in a task (`resume`).
    """

    def __init__(self) -> None:
        self.direct = False
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._free = trio.Semaphore(THREADS)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        if self.direct:
            await _into_task()
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            await self._free.acquire()
        try:
            return await self._in_thread(function, *args)
        finally:
            self._free.release()

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """As trio.to_thread.run_sync, but with the eventfd written after the result is on its way."""
        task = trio.lowlevel.current_task()
        self._start(lambda: function(*args), lambda result: trio.lowlevel.reschedule(task, result))
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    def background(self, function: Callable[[], object], done: Callable[[], object]) -> None:
        """Needs no task. An exception of `function` is logged."""

        def ended(result: outcome.Outcome[object]) -> None:
            if isinstance(result, outcome.Error):
                log.error("a job in the background failed", exc_info=result.error)
            done()

        self._start(function, ended)

    def _start(self, function: Callable[[], T], ended: Callable[[outcome.Outcome[T]], object]) -> None:
        token = trio.lowlevel.current_trio_token()
        wake_fd = self.wake_fd

        def deliver(result: outcome.Outcome[T]) -> None:
            try:
                token.run_sync_soon(ended, result)
            except trio.RunFinishedError:  # the daemon has ended meanwhile
                return
            os.eventfd_write(wake_fd, 1)

        trio.lowlevel.start_thread_soon(function, deliver)

    async def pause(self) -> None:
        if self.direct:
            await _into_task()
        await trio.lowlevel.checkpoint()

    def event(self) -> TaskEvent:
        return TaskEvent(self)

    def now(self) -> float:
        return trio.current_time()


class TaskEvent:
    """A trio.Event whose waiter gets a task first if it has none."""

    __slots__ = ("_event", "_scheduler")

    def __init__(self, scheduler: TrioScheduler) -> None:
        self._scheduler = scheduler
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        if self._event.is_set():
            return
        if self._scheduler.direct:
            await _into_task()
        await self._event.wait()


@types.coroutine
def _into_task() -> Generator[None, None, None]:
    yield


@types.coroutine
def resume(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Go on, in a task, with a verb that yielded in `_into_task`."""
    try:
        message = coroutine.send(None)
        while True:
            try:
                received = yield message
            except BaseException as error:
                message = coroutine.throw(error)
            else:
                message = coroutine.send(received)
    except StopIteration as stop:
        result: T = stop.value
        return result
