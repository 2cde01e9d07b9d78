"""Copies as cp(1) makes them, between mounts, and after the daemon has ended in one way or the other."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.sides import LARGE, MIB, SMALL, Sides, digest, hexdigest, opened, outcome, pattern

NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
ALL = 1 << 30
OLD = pattern(7, 2 * MIB + 5000)


def copy(source: Path, target: Path) -> int:
    with opened(source) as old, opened(target, NEW) as new:
        return os.copy_file_range(old, new, ALL)


# Programs


@pytest.mark.parametrize(
    "options",
    [
        *([], ["--reflink=auto"], ["--reflink=never"], ["--sparse=always"], ["--sparse=never"], ["-a"]),
        ["--reflink=always"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
def test_cp(sides: Sides, options: list[str], sparse: bool) -> None:
    def make(side: Path) -> None:
        with opened(side / "source", NEW) as fd:
            os.pwrite(fd, LARGE, 3 * MIB if sparse else 0)
            os.ftruncate(fd, 6 * MIB if sparse else len(LARGE))

    sides.both("make", make)
    sides.make("there before", OLD)

    def program(side: Path) -> list[int]:
        return [
            subprocess.run(["cp", *options, side / "source", side / target], capture_output=True).returncode
            for target in ("target", "there before")
        ]

    failed = options == ["--reflink=always"]
    assert sides.both("cp", program) == [int(failed)] * 2
    sides.assert_same()
    if not failed:
        assert digest(sides.tested / "target") == digest(sides.tested / "source")


def test_a_copy_of_full_content_looks_full(sides: Sides) -> None:
    """A file with fewer blocks than bytes is taken for sparse by cp(1), which reads it then."""
    for name, content in (("large", LARGE), ("small", SMALL)):
        path = sides.tested / name
        path.write_bytes(content)
        copy(path, sides.tested / f"copy of {name}")
        for each in (path, sides.tested / f"copy of {name}"):
            assert each.stat().st_blocks * 512 >= len(content)


def test_cp_between_the_mount_and_the_disk(sides: Sides) -> None:
    (sides.tested / "source").write_bytes(LARGE)
    for command in (["cp"], ["cp", "--reflink=auto"], ["cp", "--sparse=always"]):
        subprocess.run([*command, sides.tested / "source", sides.model / "on disk"], check=True)
        assert (sides.model / "on disk").read_bytes() == LARGE
        subprocess.run([*command, sides.model / "on disk", sides.tested / "back"], check=True)
        assert (sides.tested / "back").read_bytes() == LARGE
        assert digest(sides.tested / "back") == hexdigest(LARGE)
    shutil.copyfile(sides.model / "on disk", sides.tested / "back")
    assert digest(sides.tested / "back") == hexdigest(LARGE)


# Stores of their own


def test_a_copy_between_two_mounts(new_mount: Callable[..., Mount]) -> None:
    one, other = new_mount().start(), new_mount().start()
    (one.path / "source").write_bytes(LARGE)
    assert copy(one.path / "source", other.path / "target") == len(LARGE)
    assert (other.path / "target").read_bytes() == LARGE
    assert digest(other.path / "target") == digest(one.path / "source")


def test_a_copy_is_there_after_a_remount(mount: Mount) -> None:
    (mount.path / "source").write_bytes(LARGE)
    copy(mount.path / "source", mount.path / "target")
    with opened(mount.path / "source") as old, opened(mount.path / "changed", NEW) as new:
        os.copy_file_range(old, new, ALL)
        os.pwrite(new, b"written", MIB)
    os.unlink(mount.path / "source")
    mount.remount()
    changed = bytearray(LARGE)
    changed[MIB : MIB + 7] = b"written"
    assert (mount.path / "target").read_bytes() == LARGE
    assert (mount.path / "changed").read_bytes() == changed


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_copy_that_was_synced_survives_the_daemon(mount: Mount, closed: bool) -> None:
    """Its source, removed and synced afterwards, does not."""
    (mount.path / "source").write_bytes(LARGE)
    with opened(mount.path / "source") as old:
        new = os.open(mount.path / "target", NEW)
        assert os.copy_file_range(old, new, ALL) == len(LARGE)
    os.fsync(new)
    os.unlink(mount.path / "source")
    with opened(mount.path) as folder:
        os.fsync(folder)
    if closed:
        os.close(new)
    mount.kill()
    if not closed:
        assert outcome(lambda: os.close(new)) in (None, "ENOTCONN", "ECONNABORTED", "EIO")
    mount.start()
    assert os.listdir(mount.path) == ["target"]
    assert (mount.path / "target").read_bytes() == LARGE
