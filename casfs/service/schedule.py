"""When a daemon works: by cron expressions, at once when it is told to, and until it is to end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime

import trio

from casfs.cron import has_missed, next_run
from casfs.service.notify import notify

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""How often it looks at the clock: it may be set, and stands still while the machine sleeps."""


def hold_signals(*numbers: signal.Signals) -> None:
    """From here on these, SIGUSR1 if none is named, wait for `Schedule.run` or who else takes them: they
    would end who does not expect them. To be called before somebody can find the daemon and send one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers or {signal.SIGUSR1})


class Schedule:
    """One of a daemon: `run` is for one that has no other, or this as its first one, `repeat` for each of
    several.

    Owned by the thread of the event loop; what says so may be asked by any.
    """

    def __init__(self, expression: str, work: str) -> None:
        """`work`: the word for one run. Raises UsageError."""
        next_run(expression, time.time())
        self._expression = expression
        self._work = work
        self._ending = threading.Event()
        self._wake = trio.Event()
        self._wanted = False

    async def run(
        self,
        last: Callable[[], float | None],
        work: Callable[[], Awaitable[float]],
        ready: Callable[[], object] = lambda: None,
        beside: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        """Work again and again, until SIGTERM or SIGINT end it; a run that was missed comes at once, and one
        at SIGUSR1.

        `last`: when the last run began, in seconds since 1970, or None; in a thread, and what it raises
        passes. `ready`: it goes on from there. `work`: one run, which says when the next one is due.
        `beside`: what is done meanwhile, and cancelled when it ends.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            # Outside of the nursery, which would make a group of what it raises.
            missed = self.has_missed(await trio.to_thread.run_sync(last))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                ready()
                notify("READY=1")
                for other in beside:
                    nursery.start_soon(other)
                await self.repeat(work, time.time() if missed else self.next(), self._tell)
                nursery.cancel_scope.cancel()

    async def repeat(
        self,
        work: Callable[[], Awaitable[float]],
        due: float,
        waiting: Callable[[float], object] = lambda _due: None,
    ) -> None:
        """Work when it is due, in seconds since 1970, and again and again, until it ends. `waiting`: called
        with that time before it waits for it."""
        while True:
            waiting(due)
            if not await self.wait_until(due):
                return
            self._wanted = False
            due = await work()

    def next(self) -> float:
        """When the next run is due, seen from now, in seconds since 1970."""
        return next_run(self._expression, time.time())

    def has_missed(self, last: float | None) -> bool:
        """Was a run due since the last one began, in seconds since 1970, or was there none yet?"""
        return has_missed(self._expression, last)

    def want(self) -> None:
        """Work as soon as what is under way has ended."""
        self._wanted = True
        self._wake.set()

    def end(self) -> None:
        """Work no more."""
        self._ending.set()
        self._wake.set()

    def ending(self) -> bool:
        """Shall it end? In any thread."""
        return self._ending.is_set()

    def is_time(self, due: float) -> bool:
        """Is there another thing to do than to wait, or to fill the time, until then? In any thread."""
        return self.ending() or self._wanted or time.time() >= due

    async def wait_until(self, due: float) -> bool:
        """Wait until it is time, or somebody wants it to be; False when it is over."""
        while not self.is_time(due):
            due = min(due, self.next())  # the clock was set back
            with trio.move_on_after(min(max(0.0, due - time.time()), LOOK_SECONDS)):
                await self._wake.wait()
            self._wake = trio.Event()
        return not self.ending()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                self.want()
            else:
                log.info("%s: ending", signal.Signals(number).name)
                notify("STOPPING=1")
                self.end()

    def _tell(self, due: float) -> None:
        at = datetime.fromtimestamp(due).isoformat(" ", "seconds")
        notify(f"STATUS=the next {self._work} is due at {at}")
