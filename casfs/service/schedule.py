"""When a daemon works: by a cron expression, at once when it is told to, and until it is to end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

import trio

from casfs.cron import has_missed, next_run
from casfs.service.notify import notify

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""How often it looks at the clock: it may be set, and stands still while the machine sleeps."""


def hold_signals() -> None:
    """From here on a SIGUSR1 waits for `Schedule.run`: it would end who does not expect it. To be called
    before somebody can find the daemon and send one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


class Schedule:
    """That of one daemon. SIGUSR1 has it work now; SIGTERM and SIGINT end it.

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
    ) -> None:
        """Work again and again, until a signal ends it; a run that was missed comes at once.

        `last`: when the last run began, in seconds since 1970, or None; in a thread, and what it raises
        passes. `ready`: it goes on from there. `work`: one run, which says when the next one is due.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            # Outside of the nursery, which would make a group of what it raises.
            missed = has_missed(self._expression, await trio.to_thread.run_sync(last))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                due = time.time() if missed else self.next()
                ready()
                notify("READY=1")
                while await self._wait_until(due):
                    self._wanted = False
                    due = await work()
                nursery.cancel_scope.cancel()

    def next(self) -> float:
        """When the next run is due, seen from now, in seconds since 1970."""
        return next_run(self._expression, time.time())

    def ending(self) -> bool:
        """Shall it end? In any thread."""
        return self._ending.is_set()

    def is_time(self, due: float) -> bool:
        """Is there another thing to do than to wait, or to fill the time, until then? In any thread."""
        return self.ending() or self._wanted or time.time() >= due

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                self._wanted = True
            else:
                log.info("%s: ending", signal.Signals(number).name)
                notify("STOPPING=1")
                self._ending.set()
            self._wake.set()

    async def _wait_until(self, due: float) -> bool:
        """Wait until it is time, or somebody wants it to be; False when it is over."""
        at = datetime.fromtimestamp(due).isoformat(" ", "seconds")
        notify(f"STATUS=the next {self._work} is due at {at}")
        while not self.is_time(due):
            due = min(due, self.next())  # the clock was set back
            with trio.move_on_after(min(max(0.0, due - time.time()), LOOK_SECONDS)):
                await self._wake.wait()
            self._wake = trio.Event()
        return not self.ending()
