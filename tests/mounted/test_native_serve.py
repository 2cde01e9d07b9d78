"""native/serve.c sleeps only when nothing else can run: its patience is infinite here, and it returns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from casfs.fuse.accelerator import native

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.skipif(native is None, reason="there is no native accelerator"),
]

DAEMON = '''
import os, socket, struct, sys, threading

from casfs.fuse.accelerator import native
import pyfuse3
from casfs.fs.inodes import Inode

FOREVER, BURST, UNLINK, RMDIR = -1, 32, 10, 11
wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
runnable, waiting, unlinked = set(), [], []


def unlink(parent, name, uid):
    unlinked.append(name)
    if name == b"schedules":
        runnable.add("a task")


class Wait:
    def __await__(self):
        yield self


async def rmdir(parent, name, uid):
    await Wait()


def suspended(verb, opcode, unique, wait):
    """As the scheduler: start a thread, which is at work when the loop comes to wait for it."""
    assert type(wait) is Wait
    waiting.append(verb)
    threading.Timer(0.05, os.eventfd_write, (wake_fd, 1)).start()


native.prepare(
    {UNLINK: unlink, RMDIR: rmdir}, suspended, None, Inode, {}, set(), {}, (-1, -1, -1), wake_fd, runnable, 0
)
pyfuse3.init(pyfuse3.Operations(), sys.argv[1], {"fsname=test"})
assert native.status()["installed"]
opened = {os.path.realpath(f"/proc/self/fd/{fd}"): int(fd) for fd in os.listdir("/proc/self/fd")}
device = opened["/dev/fuse"]
kernel, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
daemon.setblocking(False)
os.dup2(daemon.fileno(), device)


def send(opcode, name):
    body = name + bytes(1)
    kernel.send(struct.pack("=IIQQIIII", 40 + len(body), opcode, 7, 1, 0, 0, 0, 0) + body)


send(UNLINK, b"schedules")
assert native.serve(FOREVER, BURST) == native.BURST, "it waits for a request while a task could run"
assert kernel.recv(100) == struct.pack("=IiQ", 16, 0, 7)
assert native.serve(FOREVER, BURST) == native.BURST
runnable.clear()

send(UNLINK, b"one")
send(UNLINK, b"two")
send(RMDIR, b"waits")
assert native.serve(FOREVER, BURST) == native.WOKEN, "a thread wakes it"
assert unlinked == [b"schedules", b"one", b"two"]
assert len(waiting) == 1
try:
    os.eventfd_read(wake_fd)
except BlockingIOError:
    pass
else:
    raise AssertionError("who is told of WOKEN need not read wake_fd")

assert native.serve(0, BURST) == native.BURST, "without patience it does not sleep"
assert native.serve(1, BURST) == native.IDLE
waiting[0].close()
'''


def test_it_waits_for_no_request_while_a_task_could_run(tmp_path: Path) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", DAEMON, str(tmp_path)], capture_output=True, text=True, timeout=60
        )
    finally:
        subprocess.run(["fusermount3", "-uzq", str(tmp_path)], check=False)
    assert done.returncode == 0, done.stderr
