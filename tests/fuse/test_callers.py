"""Groups of who asks, from /proc."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from casfs.fuse.callers import groups_of

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root changes groups")


@contextmanager
def program(uid: int, gid: int, *groups: int) -> Iterator[int]:
    """The number of a process of that user, which does nothing."""
    words = ["setpriv", f"--reuid={uid}", f"--regid={gid}"]
    words.append(f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups")
    child = subprocess.Popen(
        [*words, "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdin
    try:
        child.stdout.readline()
        yield child.pid
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()


@as_root
def test_all_groups_of_a_user_are_known() -> None:
    with program(1001, 1002, 2000, 2001) as pid:
        assert groups_of(pid, 1001) == {1002, 2000, 2001}
    with program(1001, 1002) as pid:
        assert groups_of(pid, 1001) == {1002}


@as_root
def test_another_one_with_the_same_number_has_none() -> None:
    with program(1001, 1001, 2000) as pid:
        assert groups_of(pid, 1002) == groups_of(pid, 0) == frozenset()


@as_root
def test_ids_for_files_count() -> None:
    found: list[frozenset[int]] = []

    def look() -> None:
        libc = ctypes.CDLL(None)
        libc.setfsgid(1002)
        libc.setfsuid(1001)
        found.append(groups_of(threading.get_native_id(), 0))
        found.append(groups_of(threading.get_native_id(), 1001))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found[0] == frozenset()
    assert 1002 in found[1]


@pytest.mark.parametrize("thread", [0, -1, 1 << 22, (1 << 32) - 1])
def test_who_is_gone_or_not_known_has_none(thread: int) -> None:
    assert groups_of(thread, os.getuid()) == frozenset()


def test_another_numbering_of_processes_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.getgid() in groups_of(os.getpid(), os.getuid())
    monkeypatch.setattr(os, "readlink", lambda path: "1")
    assert groups_of(os.getpid(), os.getuid()) == frozenset()
