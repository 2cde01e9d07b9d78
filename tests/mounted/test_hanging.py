"""What others hold, and daemons that do not answer: it is said who and what, and nobody hangs for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from casfs.control import protocol
from casfs.control.client import Client, NoAnswer
from casfs.control.messages import Status
from casfs.store import control_path
from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, await_exit, casfs, is_mounted

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may bind mounts and make namespaces")


@contextmanager
def bound(source: Path, place: Path) -> Iterator[None]:
    """A bind mount."""
    place.mkdir()
    subprocess.run(["mount", "--bind", source, place], check=True)
    try:
        yield
    finally:
        if is_mounted(place):
            subprocess.run(["umount", place], check=True)


@contextmanager
def in_a_namespace() -> Iterator[subprocess.Popen[str]]:
    """A process in a mount namespace of its own, with all mounts there are now: those of other tests, too."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo there; read line"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.communicate("\n", timeout=60)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# umount


@as_root
def test_umount_says_which_bind_mount_holds_it_and_does_not_hang(mount: Mount, scratch: Path) -> None:
    (mount.path / "folder").mkdir()
    (mount.path / "folder" / "file").write_text("content")
    daemon = os.pidfd_open(mount.pid)
    with bound(mount.path / "folder", scratch / "bound"):
        complaint = casfs("umount", mount.path, code=32)
        assert f"it is mounted at {scratch / 'bound'}" in complaint
        assert f"casfs umount --wait {mount.store}" in complaint
        assert not is_mounted(mount.path)
        assert (scratch / "bound" / "file").read_text() == "content", "it is still served"
    casfs("umount", "--wait", mount.store)
    await_exit(daemon)
    mount.start()


@as_root
@pytest.mark.alone
def test_umount_says_which_process_of_another_namespace_holds_it(mount: Mount) -> None:
    (mount.path / "file").write_text("content")
    daemon = os.pidfd_open(mount.pid)
    with in_a_namespace() as process:
        complaint = casfs("umount", mount.path, code=32)
        assert f"it is mounted at {mount.path} for process {process.pid} (sh)" in complaint
    await_exit(daemon)
    mount.start()
    assert (mount.path / "file").read_text() == "content"


@as_root
@pytest.mark.alone
def test_umount_waits_for_who_holds_it_when_it_is_told_to(mount: Mount) -> None:
    with in_a_namespace() as process:
        umount = subprocess.Popen(
            [*CASFS, "umount", "--wait", mount.path], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        assert umount.stderr is not None
        assert f"for process {process.pid} (sh)" in umount.stderr.readline()
        assert umount.poll() is None
    assert umount.communicate(timeout=60) == (None, "")
    assert umount.returncode == 0
    casfs("fsck", mount.store)


@as_root
def test_a_path_in_a_bind_mount_of_a_folder_is_the_one_in_the_store(mount: Mount, scratch: Path) -> None:
    (mount.path / "folder").mkdir()
    (mount.path / "folder" / "file").write_text("content")
    with bound(mount.path / "folder", scratch / "bound"):
        casfs("cp", scratch / "bound" / "file", scratch / "bound" / "copy")
        casfs("umount", scratch / "bound", code=32)
    assert (mount.path / "folder" / "copy").read_text() == "content"


# Daemons that do not answer


def test_a_stopped_daemon_does_not_hang_status_for_all(new_mount: Callable[..., Mount]) -> None:
    mounts = [new_mount().start() for _ in range(2)]
    with stopped(mounts[0].pid):
        listed = json.loads(casfs("status", "--json"))["mounts"]
        states = {each["store"]: each for each in listed}
        told = states[str(mounts[0].store)]
        assert (told["serving"], told["pid"]) == (False, mounts[0].pid)
        assert "has not answered for 3 s" in told["error"]
        assert states[str(mounts[1].store)]["serving"]
        done = subprocess.run(
            [*CASFS, "status", mounts[0].path], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert (done.returncode, "has not answered" in done.stdout) == (6, True)
    assert mounts[0].status["serving"]


def test_umount_of_a_stopped_daemon_says_so_and_leaves_the_mount(mount: Mount) -> None:
    (mount.path / "file").write_text("content")
    with stopped(mount.pid):
        complaint = casfs("umount", mount.path, code=32)
    assert f"process {mount.pid} serves it" in complaint
    assert (mount.path / "file").read_text() == "content"


# The protocol


@contextmanager
def daemon(scratch: Path, *answers: list[bytes]) -> Iterator[str]:
    """Something that sends one list of answers after the other to those who ask; the store's path."""
    (scratch / "store" / "run").mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(control_path(str(scratch / "store")))
    listener.listen()
    done = threading.Event()

    def serve() -> None:
        for parts in answers:
            connection, _ = listener.accept()
            with connection, suppress(BrokenPipeError):  # who has given up does not listen any more
                connection.recv(protocol.LINE_LIMIT)
                for part in parts:
                    connection.sendall(part)
                    done.wait(0.3)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield str(scratch / "store")
    finally:
        done.set()
        thread.join()
        listener.close()


def test_who_works_for_long_is_waited_for_while_it_says_so(scratch: Path) -> None:
    with daemon(scratch, [b"\n"] * 5 + [b'\n{"ok": true, ', b'"result": {"done": 1}}\n']) as store:
        assert Client(store, 0.6).ask(Status()) == {"done": 1}


def test_who_says_nothing_is_given_up(scratch: Path) -> None:
    with daemon(scratch, [b"\n", b"", b"", b""]) as store, pytest.raises(NoAnswer, match=r"for 0\.5 s"):
        Client(store, 0.5).ask(Status())


def test_a_daemon_from_before_an_update_is_asked_in_its_version(scratch: Path) -> None:
    old = b'{"ok": false, "error": "the mount speaks version 1 of the control protocol", "exit_code": 1}\n'
    with daemon(scratch, [old], [b"", b"", b'{"ok": true, "result": {"pid": 1}}\n']) as store:
        assert Client(store, 0.5).ask(Status()) == {"pid": 1}


def test_who_asks_in_the_version_without_signs_of_life_gets_the_answer_alone(mount: Mount) -> None:
    for version in (protocol.SILENT_VERSION, protocol.VERSION):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(control_path(str(mount.store)))
            connection.sendall(protocol.encode(protocol.Request(version, "status")))
            answer = connection.makefile("rb").readline()
        assert protocol.decode_answer(answer).ok
