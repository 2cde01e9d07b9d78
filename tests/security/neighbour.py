"""Another user of the machine: mounts that say to be casfs, stores and daemons of his own making."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mounted.mounts import is_mounted

NEIGHBOUR = pwd.getpwnam("nobody").pw_uid
"""Who has a name in the user database, as fusermount3(1) demands, wherever the tests run."""

AS_NEIGHBOUR = ("setpriv", f"--reuid={NEIGHBOUR}", f"--regid={NEIGHBOUR}", "--clear-groups")

HANGING_MOUNT = """
import os, socket, subprocess, sys
ours, his = socket.socketpair()
options, place = sys.argv[1:]
subprocess.run(
    ["fusermount3", "-o", options, "--", place],
    env={**os.environ, "_FUSE_COMMFD": str(his.fileno())}, pass_fds=[his.fileno()], check=True,
)
fuse = socket.recv_fds(ours, 1, 1)
print("mounted", flush=True)
sys.stdin.read()
"""
"""A FUSE file system that never answers a request."""

DAEMON = """
import os, socket, sys, threading, time
place, *answers = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(place)
listener.listen(0 if answers == ["deaf"] else 128)
def serve(connection):
    try:
        connection.recv(1 << 16)
        for answer in answers:
            word, _, count = answer.partition(":")
            if word == "wait":
                time.sleep(float(count))
            elif word == "for-ever":
                while True:
                    connection.sendall(count.encode() * 1000 if count else b"\\n")
                    time.sleep(0.01 if count else 0.3)
            elif word == "nested":
                connection.sendall(b"[" * int(count) + b"\\n")
            elif word == "result":
                connection.sendall(b'{"ok": true, "result": %s}\\n' % count.encode())
    except OSError:
        pass
print("listening", flush=True)
while answers == ["deaf"]:
    time.sleep(1)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=[connection], daemon=True).start()
"""
"""A control server that does what it is told by words."""


@contextmanager
def running(
    program: str, *words: str | Path, prefix: tuple[str, ...] = AS_NEIGHBOUR
) -> Iterator[subprocess.Popen[str]]:
    """A program of the neighbour's, once it says that it is there."""
    command = [*prefix, os.path.realpath(sys.executable), "-c", program, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "it did not start"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def mounted(
    place: Path, store: Path | str, *, subtype: str = "casfs", prefix: tuple[str, ...] = AS_NEIGHBOUR
) -> Iterator[None]:
    """His file system, which hangs, mounted on `place` with the name of a store."""
    words = f"fsname={store},subtype={subtype}"
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", mode | 0o666)  # as udev has it
    with running(HANGING_MOUNT, words, place, prefix=prefix):
        os.chmod("/dev/fuse", mode)
        try:
            yield
        finally:
            if is_mounted(place):
                subprocess.run(["umount", "-l", place], check=True)


def give(path: Path) -> Path:
    """A directory that is the neighbour's."""
    path.mkdir(exist_ok=True)
    os.chown(path, NEIGHBOUR, NEIGHBOUR)
    return path


def own_store(path: Path) -> Path:
    """What looks like a store of his."""
    give(path)
    give(path / "run")
    return path
