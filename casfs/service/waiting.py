"""Waiting for what others may delay for ever: file systems and daemons of other users."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from casfs.control.client import NoAnswer

Result = TypeVar("Result")


def all_within(seconds: float, jobs: Sequence[Callable[[], Result]]) -> list[Result | Exception]:
    """Do all jobs at once and wait so long at the most; for each its result, or what it raised, or
    TimeoutError.

    A job that has not ended goes on in a thread of its own, which does not keep the process from ending: a
    system call on a file system that hangs ends with the process alone.
    """
    ended: dict[int, Result | Exception] = {}

    def run(number: int, job: Callable[[], Result]) -> None:
        try:
            ended[number] = job()
        except Exception as error:
            ended[number] = error

    threads = [
        threading.Thread(target=run, args=(number, job), daemon=True) for number, job in enumerate(jobs)
    ]
    deadline = time.monotonic() + seconds
    # They take no signals: one that ends who does not expect it may be held back by all others.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for thread in threads:
        thread.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [ended.get(number, TimeoutError()) for number in range(len(jobs))]


def within(seconds: float, what: str, job: Callable[[], Result]) -> Result:
    """Do a job that hangs if the file system does that `what` lies on. Raises NoAnswer, and what the job
    raises."""
    (result,) = all_within(seconds, [job])
    if isinstance(result, TimeoutError):
        raise NoAnswer(f"{what} does not answer", "the file system it lies on hangs")
    if isinstance(result, Exception):
        raise result
    return result
