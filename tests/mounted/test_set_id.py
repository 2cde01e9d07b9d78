"""Who takes set-id bits away, and who keeps them, with what the kernel remembers: as on the disk below."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.sides import LARGE, MIB, Sides

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="has to be several users")

ROOT, OWNER, OTHER = 0, 1234, 65534
MODES = (0o4777, 0o2777, 0o6777, 0o6755, 0o777, 0o0666)

CALLS = {
    "write": "os.write(os.open(path, os.O_WRONLY), b'x')",
    "append": "os.write(os.open(path, os.O_RDWR | os.O_APPEND), b'x')",
    "write by root's descriptor": "os.write(writer, b'x')",
    "read-write by root's descriptor": "os.write(both, b'x')",
    "write in sync": "os.pwritev(writer, [b'x'], 0, os.RWF_DSYNC)",
    "read-write in sync": "os.pwritev(both, [b'x'], 0, os.RWF_DSYNC)",
    "fallocate": "fallocate(writer, 0, 0, 5_000_000)",
    "punch": "fallocate(both, 3, 0, 4096)",
    "copy": "os.copy_file_range(reader, writer, 4096, 0, 8192)",
    "truncate": "os.truncate(path, 3)",
    "truncate to nothing": "os.truncate(path, 0)",
    "ftruncate": "os.ftruncate(writer, 5)",
    "open truncating": "os.open(path, os.O_WRONLY | os.O_TRUNC)",
    "open truncating to read": "os.open(path, os.O_RDONLY | os.O_TRUNC)",
    "chown nothing": "os.chown(path, -1, -1)",
    "chown to the same": "os.chown(path, 1234, 1234)",
    "fchown nothing": "os.fchown(reader, -1, -1)",
    "utime": "os.utime(path)",
    "read": "os.read(both, 10)",
}
DESCRIPTORS = {"reader": os.O_RDONLY, "writer": os.O_WRONLY, "both": os.O_RDWR}
"""That root has opened, and hands over."""

WRITES = {name for name, call in CALLS.items() if "write" in name or "append" in name}
NEEDS_NATIVE = ("fallocate", "punch")

PROGRAM = """
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), "fallocate")
def perform(folder, path, call, uid):
    os.chdir(folder)  # others may not walk to where the tests have their folders
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    try:
        exec(call, globals() | {"path": path})
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
asked = socket.socket(fileno=0)
while True:
    words, fds, _, _ = socket.recv_fds(asked, 65536, 3)
    if not words:
        break
    case, names = json.loads(words)
    child = os.fork()
    if not child:
        globals().update(zip(names, fds))
        asked.send(perform(*case).encode())
        os._exit(0)
    for fd in fds:
        os.close(fd)
    asked.send(b"exit %d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


ENDS = {"done", *errno.errorcode.values()}


class Others:
    """A process that performs calls as any user, each in a child of its own."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(["/usr/bin/python3", "-I", "-c", PROGRAM], stdin=theirs)
        theirs.close()

    def perform(self, uid: int, call: str, path: Path, fds: dict[str, int]) -> str:
        """The errno it ends with, or "done". `fds`: handed over under their names, and closed at its end."""
        case = json.dumps([[str(path.parent), path.name, call, uid], list(fds)]).encode()
        socket.send_fds(self._socket, [case], list(fds.values()))
        outcome, end = self._socket.recv(100).decode(), ""
        if outcome in ENDS:
            end = self._socket.recv(100).decode()
        assert end == "exit 0", (outcome, end)
        return outcome

    def end(self) -> None:
        self._socket.close()
        assert self._process.wait(60) == 0


@pytest.fixture(scope="module")
def others() -> Iterator[Others]:
    others = Others()
    yield others
    others.end()


def done_by(others: Others, uid: int, call: str, path: Path, mode: int, content: bytes) -> tuple[str, str]:
    """How a call ends and the mode that it leaves behind, as whoever looks next sees it."""
    path.write_bytes(content)
    os.chown(path, OWNER, OWNER)
    fds = {name: os.open(path, flags) for name, flags in DESCRIPTORS.items() if name in call}
    path.chmod(mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    outcome = others.perform(uid, call, path, fds)
    left = f"{stat.S_IMODE(path.stat().st_mode):o}"
    for fd in fds.values():
        os.close(fd)
    assert f"{stat.S_IMODE(path.stat().st_mode):o}" == left
    return outcome, left


@pytest.mark.parametrize("content", [b"#!/bin/sh\n" * 1000, LARGE[:MIB]], ids=["small", "large"])
@pytest.mark.parametrize("name", CALLS)
def test_set_id_bits_go_and_stay_as_on_a_disk(
    sides: Sides, others: Others, name: str, content: bytes
) -> None:
    if name in NEEDS_NATIVE and not sides.native:
        pytest.skip("pyfuse3 has no fallocate")
    for mode in MODES:
        for uid in (ROOT, OWNER, OTHER):
            ends = []
            for folder in (sides.tested, sides.model):
                folder.chmod(0o755)
                ends.append(done_by(others, uid, CALLS[name], folder / f"{mode:o} {uid}", mode, content))
            if uid == ROOT and not sides.native and (name in WRITES or name == "copy"):
                ends[1] = "done", f"{mode & 0o777:o}"  # pyfuse3 does not say who writes
            assert ends[0] == ends[1], (name, uid, f"{mode:o}")
