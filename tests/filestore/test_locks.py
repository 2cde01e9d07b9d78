"""Locks in run/: shared, exclusive, signalled; what may lie in their place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from casfs.errors import FormatError
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.locks import Lock, Turnstile, make_run_folder


@pytest.fixture
def run(directory: StoreDirectory, scratch: Path) -> Path:
    make_run_folder(directory)
    return scratch / "run"


def test_locks_can_be_shared(scratch: Path, run: Path) -> None:
    one, two, three = (Lock(str(scratch), "lock") for _ in range(3))
    assert one.acquire(shared=True)
    assert two.acquire(shared=True)
    assert not three.acquire()
    one.release()
    two.release()
    two.release()
    assert three.acquire()
    assert not one.acquire(shared=True)
    assert one.held_by() == three.holder()
    three.release()
    assert one.held_by() == ""


def test_the_holder_of_an_odd_lock_file(scratch: Path, run: Path) -> None:
    lock = Lock(str(scratch), "lock")
    assert lock.holder() == "another process"
    for content, told in (
        (b"", "another process"),
        (b"12 casfs \xff\xfe", "process 12 (casfs \ufffd\ufffd)"),
    ):
        (run / "lock").write_bytes(content)
        assert lock.holder() == told


HOLDER = """
import sys, time
from casfs.filestore.locks import Lock
lock = Lock(sys.argv[1], "lock")
assert lock.acquire()
print(flush=True)
time.sleep(60)
"""


def test_only_the_process_that_holds_the_lock_gets_a_signal(scratch: Path, run: Path) -> None:
    """Whoever owned the store could have root signal any process: by writing its number into the lock."""
    lock = Lock(str(scratch), "lock")
    assert lock.signal(signal.SIGTERM) == 0
    with (
        subprocess.Popen([sys.executable, "-c", HOLDER, scratch], stdout=subprocess.PIPE) as holder,
        subprocess.Popen(["sleep", "60"]) as victim,
    ):
        assert holder.stdout is not None
        holder.stdout.readline()
        (run / "lock").write_text(f"{victim.pid} casfs gc\n")
        assert lock.signal(signal.SIGTERM) == 0
        (run / "lock").write_text(f"{holder.pid} casfs gc\n")
        assert lock.signal(signal.SIGTERM) == holder.pid
        assert holder.wait(30) == -signal.SIGTERM
        assert victim.poll() is None
        victim.kill()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_a_lock_that_is_no_file_is_neither_followed_nor_waited_for(scratch: Path, run: Path, make) -> None:
    make(run / "lock")
    lock = Lock(str(scratch), "lock")
    with pytest.raises(OSError, match=r"symbolic|regular|directory"):
        lock.acquire()
    assert lock.held_by() == ""
    assert lock.holder() == "another process"


def test_a_lock_with_a_name_elsewhere_is_not_written(scratch: Path, run: Path) -> None:
    (scratch / "victim").write_bytes(b"theirs")
    os.link(scratch / "victim", run / "lock")
    with pytest.raises(OSError, match="second name"):
        Lock(str(scratch), "lock").acquire()
    assert (scratch / "victim").read_bytes() == b"theirs"


@pytest.mark.parametrize("make", [lambda path: os.symlink("/tmp", path), lambda path: path.touch()])
def test_the_folder_of_the_locks_is_a_folder(directory: StoreDirectory, scratch: Path, make) -> None:
    make(scratch / "run")
    with pytest.raises(FormatError, match="is no directory"):
        make_run_folder(directory)


def test_the_turnstile_lets_one_in(directory: StoreDirectory, run: Path) -> None:
    one, two = (Turnstile(directory) for _ in range(2))
    assert one.try_enter()
    assert not two.try_enter()
    one.leave()
    two.enter()
    assert not one.try_enter()
    two.close()
    assert one.try_enter()
    one.close()
