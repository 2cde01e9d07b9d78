"""Who takes set-id bits away, and who keeps them, with what the kernel remembers: as on the disk below."""

from __future__ import annotations

import os
import stat
import subprocess
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
import ctypes, errno, os, sys
path, call, uid, fds = sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(word) for word in sys.argv[4:]]
reader, writer, both = fds
libc = ctypes.CDLL(None, use_errno=True)
def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), "fallocate")
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
try:
    exec(call)
except OSError as error:
    print(errno.errorcode[error.errno], end="")
"""


def done_by(uid: int, call: str, path: Path, mode: int, content: bytes) -> tuple[str, str]:
    """The errno and the mode that a call leaves behind, as whoever looks next sees it."""
    path.write_bytes(content)
    os.chown(path, OWNER, OWNER)
    fds = [os.open(path, flags) if name in call else -1 for name, flags in DESCRIPTORS.items()]
    path.chmod(mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    words = ["/usr/bin/python3", "-I", "-c", PROGRAM, path.name, call, str(uid), *map(str, fds)]
    passed = [fd for fd in fds if fd >= 0]
    # By a relative path: others may not walk to where the tests have their folders.
    done = subprocess.run(words, cwd=path.parent, pass_fds=passed, capture_output=True, text=True)
    assert done.stderr == ""
    left = f"{stat.S_IMODE(path.stat().st_mode):o}"
    for fd in passed:
        os.close(fd)
    assert f"{stat.S_IMODE(path.stat().st_mode):o}" == left
    return done.stdout, left


@pytest.mark.parametrize("content", [b"#!/bin/sh\n" * 1000, LARGE[:MIB]], ids=["small", "large"])
@pytest.mark.parametrize("name", CALLS)
def test_set_id_bits_go_and_stay_as_on_a_disk(sides: Sides, name: str, content: bytes) -> None:
    if name in NEEDS_NATIVE and not sides.native:
        pytest.skip("pyfuse3 has no fallocate")
    for mode in MODES:
        for uid in (ROOT, OWNER, OTHER):
            ends = []
            for folder in (sides.tested, sides.model):
                folder.chmod(0o755)
                ends.append(done_by(uid, CALLS[name], folder / f"{mode:o} {uid}", mode, content))
            if uid == ROOT and not sides.native and (name in WRITES or name == "copy"):
                ends[1] = "", f"{mode & 0o777:o}"  # pyfuse3 does not say who writes
            assert ends[0] == ends[1], (name, uid, f"{mode:o}")
