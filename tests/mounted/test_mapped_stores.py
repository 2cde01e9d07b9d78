"""What a program has stored through a mapping is there, though the kernel has not written it back yet."""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path

import pytest

from tests.mounted.sides import MIB, Mapping, Sides, opened, outcome

KINDS = ("new", "sealed", "read meanwhile")


def sparse(folder: Path, kind: str) -> tuple[Path, list[int]]:
    """A file of holes, open for reading and writing; "read meanwhile": and by a reader."""
    path = folder / kind
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 4 * MIB)
    os.pwrite(fd, b"head", 0)
    if kind == "new":
        return path, [fd]
    os.close(fd)
    assert path.stat().st_size == 4 * MIB  # the kernel remembers how much of it is there
    fds = [os.open(path, os.O_RDONLY)] if kind == "read meanwhile" else []
    return path, [*fds, os.open(path, os.O_RDWR)]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_a_sparse_file_have_what_was_stored_through_a_mapping(sides: Sides, kind: str) -> None:
    expected = bytearray(4 * MIB)
    expected[:4], expected[2 * MIB : 2 * MIB + 6], expected[-5:] = b"head", b"stored", b"last!"
    path, fds = sparse(sides.tested, kind)
    with Mapping(fds[-1], 4 * MIB, write=True) as mapped:
        mapped.write(2 * MIB, b"stored")
        mapped.write(4 * MIB - 5, b"last!")
        assert path.stat().st_blocks > 0
        with opened(path) as fd:
            assert os.lseek(fd, MIB, os.SEEK_DATA) <= 2 * MIB
        subprocess.run(["cp", "--sparse=auto", path, sides.model / "copy"], check=True)
        subprocess.run(["tar", "-C", sides.tested, "-Scf", sides.model / "tar", kind], check=True)
        subprocess.run(["tar", "-C", sides.model, "-xf", sides.model / "tar"], check=True)
    for fd in fds:
        os.close(fd)
    assert (sides.model / "copy").read_bytes() == expected
    assert (sides.model / kind).read_bytes() == expected
    assert path.read_bytes() == expected


def test_a_sparse_file_that_nobody_may_map_any_more_has_holes_again(sides: Sides) -> None:
    path, fds = sparse(sides.tested, "sealed")
    assert path.stat().st_blocks * 512 == 4 * MIB
    for fd in fds:
        os.close(fd)
    assert outcome(lambda: path.stat().st_blocks * 512 < MIB) is True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["futimens", "utimensat"])
def test_a_time_that_is_set_after_a_store_stays(sides: Sides, kind: str, how: str) -> None:
    times = (1_000_000_000_000_000_001, 1_000_000_000_000_000_003)
    for folder in (sides.tested, sides.model):
        path, fds = sparse(folder, kind)
        mapped = mmap.mmap(fds[-1], 4 * MIB)
        mapped[2 * MIB : 2 * MIB + 6] = b"stored"
        os.utime(fds[-1] if how == "futimens" else path, ns=times)
        mapped.close()
        for fd in fds:
            os.close(fd)
        status = path.stat()
        assert (status.st_atime_ns, status.st_mtime_ns) == times, folder
        assert path.read_bytes()[2 * MIB : 2 * MIB + 6] == b"stored"
        assert path.stat().st_mtime_ns == times[1], folder
    sides.mount.usage()
    assert (sides.tested / kind).stat().st_mtime_ns == times[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_after_a_time_was_set_moves_it(sides: Sides, kind: str) -> None:
    path, fds = sparse(sides.tested, kind)
    mapped = mmap.mmap(fds[-1], 4 * MIB)
    mapped[:4] = b"once"
    os.utime(fds[-1], ns=(1, 1))
    mapped[2 * MIB : 2 * MIB + 6] = b"stored"
    mapped.close()
    for fd in fds:
        os.close(fd)
    assert path.stat().st_mtime_ns > 1
