"""Waiting for what others may delay for ever: file systems and daemons of other users."""

from __future__ import annotations

import gc
import os
import pickle
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from casfs.control.client import NoAnswer

Result = TypeVar("Result")
Job = Callable[[], Result]


def all_within(seconds: float, jobs: Sequence[Job[Result]]) -> list[Result | Exception]:
    """Do all jobs at once and wait so long at the most; for each its result, or what it raised, or
    TimeoutError. Results and exceptions have to be picklable.

    Each job has a process of its own, which is left behind when it has not ended: where a file system hangs,
    not even SIGKILL ends who waits for a name that another process looks up (d_alloc_parallel in the kernel's
    fs/dcache.c), and with a thread that waits like that the whole process would not end.
    """
    deadline = time.monotonic() + seconds
    # A signal is for who has asked, whose handlers the helpers have as well.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        helpers = [_start(job) for job in jobs]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    said = {pipe: bytearray() for _, pipe in helpers}
    silent = set(said)
    try:
        _listen(said, silent, deadline)
    finally:
        for pid, pipe in helpers:
            os.close(pipe)
            if pipe in silent:
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, os.WNOHANG if pipe in silent else 0)
    return [TimeoutError() if pipe in silent else _result(said[pipe]) for _, pipe in helpers]


def within(seconds: float, what: str, job: Job[Result]) -> Result:
    """Do a job that hangs if the file system does that `what` lies on. Raises NoAnswer, and what the job
    raises."""
    (result,) = all_within(seconds, [job])
    if isinstance(result, TimeoutError):
        raise NoAnswer(f"{what} does not answer", "the file system it lies on hangs")
    if isinstance(result, Exception):
        raise result
    return result


def _start(job: Job[Any]) -> tuple[int, int]:
    """The process that does a job, and the pipe on which it says what came of it."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        _help(job, sending)
    os.close(sending)
    return pid, receiving


def _help(job: Job[Any], sending: int) -> NoReturn:
    """In the process of a job. It has none of the caller's open files: left behind, it would hold his locks
    and keep those waiting who read what he writes."""
    try:
        gc.disable()  # his objects are not to be taken down here: SQLite's connections must not cross a fork
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, sending)
        os.closerange(sending + 1, os.sysconf("SC_OPEN_MAX"))
        try:
            answer = pickle.dumps(job())
        except Exception as error:
            answer = pickle.dumps(error)
        with open(sending, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _listen(said: dict[int, bytearray], silent: set[int], deadline: float) -> None:
    """Collect what the helpers say, by the pipe of each; who has said all is taken from `silent`."""
    with selectors.DefaultSelector() as selector:
        for pipe in said:
            selector.register(pipe, selectors.EVENT_READ)
        while silent and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 1 << 16)
                said[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
                    silent.remove(key.fd)


def _result(answer: bytearray) -> Any:
    return pickle.loads(answer) if answer else ChildProcessError("who was to look has died")
