"""The fast event loop seam: how pyfuse3 waits for the next request.

pyfuse3's session loop takes, for each request, a trio.Lock (a full pass of the scheduler) and
trio's `wait_readable` (two epoll system calls and a task switch): 52 µs a request. Its module-level name
`trio` is looked up at run time so that `pyfuse3.asyncio` can replace it. The same seam is used here: look
with poll(2) whether a request is there already, and only if not, wait as trio does: 16 µs a request. With
the native accelerator the wait serves most requests by itself (accelerated.py).

What it relies on in pyfuse3 is the names below; `install` checks them and leaves pyfuse3 alone otherwise.
"""

from __future__ import annotations

import os
import select
import types
from collections.abc import Awaitable, Callable

import pyfuse3
import trio

from casfs.fuse.accelerated import BURST, PATIENCE_MS
from casfs.fuse.scheduler import TrioScheduler

_LOWLEVEL = ("current_task", "current_trio_token", "notify_closing")


class Baton:
    """A lock that is not handed over: who releases it may take it again at once, without a task switch.

    The task that serves a burst of requests keeps reading; another takes over when its handler waits. Until
    then that one only waits for requests too, so that it is taken out of what is `runnable`.
    """

    def __init__(self, runnable: set[trio.lowlevel.Task]) -> None:
        self._held = False
        self._waiters = trio.lowlevel.ParkingLot()
        self._runnable = runnable

    async def __aenter__(self) -> None:
        while self._held:
            await self._waiters.park()
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        if self._waiters:
            self._runnable.difference_update(self._waiters.unpark())


class RequestWait:
    """`trio.lowlevel.wait_readable` for the FUSE descriptor.

    It sleeps up to `PATIENCE_MS` in poll(2) itself, for requests and for threads that finish: a program that
    works file by file sends its next request some microseconds after the last reply. But not while anything
    else could run.
    """

    def __init__(self, scheduler: TrioScheduler) -> None:
        self._scheduler = scheduler
        self._poll: select.poll | None = None
        self._left = BURST
        self._requests = 0

    def requests(self) -> int:
        """How many have come so far."""
        return self._requests

    async def wait_readable(self, fd: int) -> None:
        scheduler, wake_fd = self._scheduler, self._scheduler.wake_fd
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.register(wake_fd, select.POLLIN)
        while True:
            self._left -= 1
            if self._left <= 0:
                self._left = BURST
                await trio.lowlevel.checkpoint()
            others = scheduler.others_wait
            ready = dict(poll.poll(0 if others else PATIENCE_MS))
            if wake_fd in ready:
                os.eventfd_read(wake_fd)
                scheduler.drain()
                self._left = 0
            if fd in ready:
                self._requests += 1
                return
            if others:
                self._left = 0
            elif not ready:
                await trio.lowlevel.wait_readable(fd)
                return


def install(wait_readable: Callable[[int], Awaitable[None]], runnable: set[trio.lowlevel.Task]) -> str:
    """Put the seam in; returns "" or the reason why pyfuse3 runs its own loop."""
    if getattr(pyfuse3, "trio", None) is not trio:
        return "this pyfuse3 does not look up trio by its module-level name"
    lowlevel = types.SimpleNamespace(**{name: getattr(trio.lowlevel, name) for name in _LOWLEVEL})
    lowlevel.wait_readable = wait_readable
    seam = types.SimpleNamespace(
        lowlevel=lowlevel,
        Lock=lambda: Baton(runnable),
        open_nursery=trio.open_nursery,
        ClosedResourceError=trio.ClosedResourceError,
    )
    pyfuse3.trio = seam  # type: ignore[attr-defined]
    return ""
