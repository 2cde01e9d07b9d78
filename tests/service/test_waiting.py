"""Waiting for what may hang."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from casfs.control.client import NoAnswer
from casfs.errors import FsError, LayoutError
from casfs.service.mounts import MountInfo, NotOurs
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


def test_the_helpers_that_wait_take_no_signals() -> None:
    """One that came while such a thread was left ended a daemon that held it back until it was ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    (blocked,) = all_within(5.0, [lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())])
    assert isinstance(blocked, set)
    assert signal.SIGUSR1 in blocked
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_helper_that_is_left_behind_holds_nothing_of_who_asked(tmp_path: Path) -> None:
    """Neither his locks nor the pipe that somebody reads his output from."""
    receiving, sending = os.pipe()
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        descriptors = all_within(5.0, [lambda: sorted(os.listdir("/proc/self/fd"), key=int)])[0]
    assert isinstance(descriptors, list)
    assert len(descriptors) <= 5  # 0 to 2, the pipe of the answer, and the directory that is listed
    os.close(sending)
    os.close(receiving)


def test_errors_arrive_as_they_are() -> None:
    mount = MountInfo("/store", "/mnt")
    for error in (NotOurs("/mnt", "/store", "why"), FsError(errno.EIO), LayoutError("a", "b", column=3)):

        def fails(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            within(5.0, "/mnt", fails)
        assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))
    assert within(5.0, "/mnt", lambda: mount) == mount


def test_a_helper_that_dies_is_no_result() -> None:
    with pytest.raises(ChildProcessError, match="has died"):
        within(5.0, "/mnt", lambda: os.kill(os.getpid(), signal.SIGKILL))
