"""Clients that send a request at a steady pace while something else happens, and how long each took."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from .trial import WorkloadError

INTERVAL = 0.005  # seconds from one request of a client to its next

Client = Callable[[], Iterator[None]]
"""A generator that sends one request for each step, in the working directory."""


class Request(NamedTuple):
    """On the clock of time.perf_counter(), in seconds; it is the same in all processes (CLOCK_MONOTONIC)."""

    begun: float
    seconds: float


def percentile(ordered: Sequence[float], fraction: float) -> float | None:
    """The smallest value that at least this fraction of all does not exceed."""
    return ordered[math.ceil(fraction * len(ordered)) - 1] if ordered else None


def during(requests: Sequence[Request], begin: float, end: float) -> list[float]:
    """In milliseconds, sorted, how long those took that were under way between two times."""
    return sorted(
        1e3 * one.seconds for one in requests if one.begun < end and begin < one.begun + one.seconds
    )


def _send_requests(control: Connection, folder: str, name: str, client: Client) -> None:
    """The body of a client's process: one request per interval until told to stop, then reports them."""
    requests: list[Request] = []
    answer: list[Request] | str = requests
    try:
        os.chdir(folder)
        steps = client()
        due = time.perf_counter()
        while True:
            due += INTERVAL
            wait = due - time.perf_counter()
            if control.poll(max(0.0, wait)):
                break
            begun = due if wait < 0 else time.perf_counter()
            if next(steps, "no names left"):
                break
            requests.append(Request(begun, time.perf_counter() - begun))
    except OSError as error:
        answer = f"{name}: {error}"
    control.send(answer)


@contextlib.contextmanager
def client_process(folder: str, name: str, client: Client) -> Iterator[Connection]:
    """A client at work; `stop` makes it answer."""
    fork = multiprocessing.get_context("fork")
    control, other_end = fork.Pipe()
    process = fork.Process(target=_send_requests, args=(other_end, folder, name, client))
    process.start()
    other_end.close()
    try:
        yield control
    finally:
        process.kill()
        process.join()
        control.close()


def stop(name: str, control: Connection) -> list[Request]:
    """What the client has sent. Raises WorkloadError with what went wrong."""
    try:
        with contextlib.suppress(BrokenPipeError):  # it has used up its names and answered already
            control.send("stop")
        answer: list[Request] | str = control.recv()
    except EOFError:
        answer = f"{name}: its process died"
    if isinstance(answer, str):
        raise WorkloadError(answer)
    return answer
