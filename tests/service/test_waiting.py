"""Waiting for what may hang."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from casfs.control.client import NoAnswer
from casfs.service.waiting import all_within, within


def test_all_are_waited_for_at_once_and_no_longer_than_is_said() -> None:
    never = threading.Event()

    def fails() -> int:
        raise ValueError("no")

    started = time.monotonic()
    found = all_within(0.5, [lambda: 1, never.wait, fails, never.wait, lambda: 2])
    assert time.monotonic() - started < 5
    assert (found[0], found[4]) == (1, 2)
    assert isinstance(found[1], TimeoutError)
    assert isinstance(found[2], ValueError)
    never.set()


def test_what_hangs_is_named() -> None:
    never = threading.Event()
    with pytest.raises(NoAnswer, match="/mnt/x does not answer"):
        within(0.1, "/mnt/x", never.wait)
    never.set()
    assert within(5, "/mnt/x", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, "/mnt/x", lambda: 1 // 0)


def test_the_threads_that_wait_take_no_signals() -> None:
    """One that came while such a thread was left ended a daemon that held it back until it was ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    (blocked,) = all_within(5.0, [lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())])
    assert isinstance(blocked, set)
    assert signal.SIGUSR1 in blocked
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
