"""A rate that several threads keep together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from casfs.maintenance.collect.batch import Stopped

STOP_SECONDS = 0.25
"""So long a stop may take to be noticed by who waits."""

CREDIT_SECONDS = 0.1
"""So much of the time that the rate would have given and nobody used may be made up for."""


class Pace:
    """`rate`: bytes in a second at the most; 0 = any. `stop` is asked often. From any thread."""

    def __init__(self, rate: int, stop: Callable[[], bool]) -> None:
        self._rate = rate
        self._stop = stop
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._ended = threading.Event()

    def end(self) -> None:
        """Have every thread stop."""
        self._ended.set()

    def check(self) -> None:
        """Raises Stopped."""
        if self._ended.is_set() or self._stop():
            raise Stopped

    def spend(self, count: int) -> None:
        """Take the time that so many bytes may take. Raises Stopped."""
        self.check()
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - CREDIT_SECONDS) + count / self._rate
            delay = self._free_at - now
        while delay > 0:
            self._ended.wait(min(delay, STOP_SECONDS))
            self.check()
            delay -= STOP_SECONDS
