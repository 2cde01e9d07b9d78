"""What is written with O_SYNC, O_DSYNC, RWF_SYNC or RWF_DSYNC survives what comes after write(2)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.sides import LARGE, outcome

ACCESS = {"write-only": os.O_WRONLY, "read-write": os.O_RDWR, "append": os.O_WRONLY | os.O_APPEND}
HOW = {"O_SYNC": os.O_SYNC, "O_DSYNC": os.O_DSYNC, "RWF_SYNC": os.RWF_SYNC, "RWF_DSYNC": os.RWF_DSYNC}
SIZES = {"small": 100, "large": 2_000_000}


def write(fd: int, data: bytes, offset: int, how: str) -> None:
    flags = HOW[how] if how.startswith("RWF") else 0
    assert os.pwritev(fd, [data], offset, flags) == len(data)


def kill(mount: Mount, *fds: int) -> None:
    """SIGKILL while they are open, and mount again."""
    mount.kill()
    for fd in fds:
        assert outcome(functools.partial(os.close, fd)) in (None, "ENOTCONN")
    mount.start()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("access", ACCESS)
def test_a_synced_write_survives_a_kill(new_mount: Callable[..., Mount], access: str, how: str) -> None:
    """Into new files and into ones that were sealed; their descriptors stay open."""
    mount = new_mount().start("allow_other,suid,dev,commit_interval=300")
    expected: dict[Path, bytes] = {}
    flags = ACCESS[access] | (HOW[how] if how.startswith("O_") else 0)
    for kind, size in SIZES.items():
        (mount.path / f"old {kind}").write_bytes(LARGE[:size])
    mount.usage()
    fds = []
    for kind, size in SIZES.items():
        data = LARGE[7 : 7 + size]
        new, old = mount.path / f"new {kind}", mount.path / f"old {kind}"
        fd = os.open(new, flags | os.O_CREAT)
        write(fd, data, 0, how)
        fds.append(fd)
        fd = os.open(old, flags)
        at = size if access == "append" else 50
        write(fd, b"written", at, how)
        fds.append(fd)
        expected[new] = data
        expected[old] = LARGE[:at] + b"written" + LARGE[at + 7 : size]
    kill(mount, *fds)
    for path, content in expected.items():
        assert path.read_bytes() == content, path.name


def test_ranges_of_a_file_that_was_opened_to_sync_are_synced_too(
    new_mount: Callable[..., Mount], mode: str
) -> None:
    if mode != "native":
        pytest.skip("pyfuse3 has neither copy_file_range nor fallocate")
    mount = new_mount().start("allow_other,suid,dev,commit_interval=300")
    (mount.path / "source").write_bytes(LARGE)
    mount.usage()
    source = os.open(mount.path / "source", os.O_RDONLY)
    target = os.open(mount.path / "target", os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
    other = os.open(mount.path / "other", os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
    assert os.copy_file_range(source, target, len(LARGE)) == len(LARGE)
    os.posix_fallocate(other, 0, 10_000)
    kill(mount, source, target, other)
    assert (mount.path / "target").read_bytes() == LARGE
    assert (mount.path / "other").read_bytes() == bytes(10_000)
