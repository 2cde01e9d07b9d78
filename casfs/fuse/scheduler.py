"""trio for the file system (fs/scheduler.py), and for the accelerator, which runs verbs without a task."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import outcome
import trio

log = logging.getLogger(__name__)

T = TypeVar("T")

Result = outcome.Outcome[Any]
Wake = Callable[[Result], object]

GIVE_WAY_SECONDS = 0.003
"""So long work in slices gives way to requests that keep coming."""

QUIET_SECONDS = 0.0003
"""Without a request for so long a program is done for now."""

THREADS = 40
"""Calls in threads at a time; more wait for one of them."""


class Wait:
    """What a verb without a task yields: `begin` is to be called with who goes on with it."""

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[Wake], object]) -> None:
        self.begin = begin

    def __await__(self) -> Generator[Wait, Any, Any]:
        return (yield self)


class Runnable(trio.abc.Instrument):
    """Which tasks could run now; trio's statistics leave out the rest of the batch it is running."""

    def __init__(self) -> None:
        self.tasks: set[trio.lowlevel.Task] = set()

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.tasks.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.tasks.discard(task)


class TrioScheduler:
    """What blocks goes to worker threads. A cancelled waiter waits on: a half-done copy or sync must not go
    on behind the back of who asked for it. Made in a trio run; owned by the event loop's thread, but for
    `_ready`, which threads append to.

    What is ready, a thread's result or a verb that may go on, is called by `drain`, without a pass of the
    scheduler. `wake_fd` is an eventfd(2) that is written to when there is something: whoever sleeps reads it
    and drains, the loop in its poll(2) that trio does not know of (fuse/loop.py), or a task when trio sleeps.

    `direct` is set while a verb runs that has no task: instead of trio, it waits by yielding a `Wait`.
    `runnable` are the tasks that could run: before it sleeps by itself the loop has to let them. `requests`
    tells how many have come so far, which is what `give_way` goes by; `_seen` is what it said last.
    """

    def __init__(self) -> None:
        self.direct = False
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ready: deque[tuple[Wake, Result]] = deque()
        self._threads = 0
        self.requests: Callable[[], int] = lambda: 0
        self._seen = 0
        self._queued: deque[tuple[Callable[[], Any], Wake]] = deque()
        instrument = Runnable()
        self.runnable = instrument.tasks
        trio.lowlevel.add_instrument(instrument)
        trio.lowlevel.spawn_system_task(self._drain_while_trio_sleeps)

    # What is ready

    def soon(self, wake: Wake, result: Result) -> None:
        """Have `wake(result)` called by the event loop. From any thread."""
        self._ready.append((wake, result))
        os.eventfd_write(self.wake_fd, 1)

    def drain(self) -> None:
        """Call what is ready; `wake_fd` has been read."""
        ready = self._ready
        for _ in range(len(ready)):
            wake, result = ready.popleft()
            try:
                wake(result)
            except Exception:
                log.exception("the loop goes on after an error nobody expected")

    def catch_up(self) -> None:
        """As `drain`, when `wake_fd` may not have been read."""
        if self._ready:
            self._read_wake_fd()
            self.drain()

    def _read_wake_fd(self) -> None:
        with contextlib.suppress(BlockingIOError):  # somebody was faster, or the thread is slower
            os.eventfd_read(self.wake_fd)

    async def _drain_while_trio_sleeps(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.wake_fd)
            self._read_wake_fd()
            self.drain()

    @property
    def others_wait(self) -> bool:
        """Is there a task, a timer or a call from elsewhere that trio would turn to now?"""
        if self.runnable:
            return True
        trios = trio.lowlevel.current_statistics()
        return trios.seconds_to_next_deadline <= 0 or trios.run_sync_soon_queue_size > 0

    # Verbs without a task

    def start(self, verb: Coroutine[Any, Any, object]) -> Wait | None:
        """Run a verb up to its end, or the first wait, from which `suspend` goes on. Raises what it does."""
        before, self.direct = self.direct, True
        try:
            wait: Wait = verb.send(None)
        except StopIteration:
            return None
        finally:
            self.direct = before
        return wait

    def resume(
        self, verb: Coroutine[Any, Any, Any], result: Result, done: Callable[[Result], object]
    ) -> None:
        """Run a verb up to its end, of which `done` is told, or to its next wait, and see to it that it goes
        on then."""
        before, self.direct = self.direct, True
        try:
            wait: Wait = result.send(verb)  # type: ignore[arg-type]
        except StopIteration as stop:
            done(outcome.Value(stop.value))
        except Exception as error:
            done(outcome.Error(error))
        else:
            self.suspend(verb, wait, done)
        finally:
            self.direct = before

    def suspend(self, verb: Coroutine[Any, Any, Any], wait: object, done: Callable[[Result], object]) -> None:
        """As `resume`, for a verb that has just yielded `wait`. One that waits for trio has no task that
        could go on with it: it fails, and whoever waits for it has an answer."""
        if not isinstance(wait, Wait):
            error = RuntimeError(f"a verb without a task waits for {wait!r}")
            self.resume(verb, outcome.Error(error), done)
            return
        wait.begin(lambda result: self.resume(verb, result, done))

    # Waiting

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        def begin(wake: Wake) -> None:
            self._run(lambda: function(*args), wake)

        result: T = await (Wait(begin) if self.direct else _in_task(begin))
        return result

    def _run(self, function: Callable[[], T], wake: Wake) -> None:
        if self._threads >= THREADS:
            self._queued.append((function, wake))
            return

        def ended(result: Result) -> None:
            self._threads -= 1
            if self._queued:
                self._run(*self._queued.popleft())
            wake(result)

        self._threads += 1
        self._start(function, ended)

    def background(self, function: Callable[[], object], done: Callable[[], object]) -> None:
        """Needs no task. An exception of `function` is logged."""

        def ended(result: Result) -> None:
            if isinstance(result, outcome.Error):
                log.error("a job in the background failed", exc_info=result.error)
            done()

        self._start(function, ended)

    def _start(self, function: Callable[[], object], ended: Wake) -> None:
        try:
            trio.lowlevel.start_thread_soon(function, lambda result: self.soon(ended, result))
        except RuntimeError as error:  # no more threads are to be had
            self.soon(ended, outcome.Error(error))

    async def pause(self) -> None:
        if self.direct:
            await Wait(lambda wake: self.soon(wake, outcome.Value(None)))
        else:
            await trio.lowlevel.checkpoint()

    async def give_way(self) -> None:
        await self.pause()
        if self.direct:
            return
        until = self.now() + GIVE_WAY_SECONDS
        while (seen := self.requests()) != self._seen and self.now() < until:
            self._seen = seen
            quiet = self.now() + QUIET_SECONDS
            while self.now() < quiet and self.requests() == seen:
                await trio.lowlevel.checkpoint()  # epoll_wait(2) would sleep for a millisecond

    def event(self) -> TaskEvent:
        return TaskEvent(self)

    def now(self) -> float:
        return trio.current_time()


async def _in_task(begin: Callable[[Wake], object]) -> Any:
    """Wait in a task for what `begin` begins; it is not cancelled."""
    task = trio.lowlevel.current_task()
    begin(lambda result: trio.lowlevel.reschedule(task, result))
    return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


class TaskEvent:
    """A trio.Event for tasks, and for verbs without one."""

    __slots__ = ("_event", "_scheduler", "_waiting")

    def __init__(self, scheduler: TrioScheduler) -> None:
        self._scheduler = scheduler
        self._event = trio.Event()
        self._waiting: list[Wake] = []

    def set(self) -> None:
        self._event.set()
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            self._scheduler.soon(wake, outcome.Value(None))

    async def wait(self) -> None:
        if self._event.is_set():
            return
        if self._scheduler.direct:
            await Wait(self._waiting.append)
        else:
            await self._event.wait()
