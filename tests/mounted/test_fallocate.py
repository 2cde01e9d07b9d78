"""fallocate(2) and lseek(2) with SEEK_DATA and SEEK_HOLE, as on the disk below the mount.

Without the accelerator there is no fallocate (EOPNOTSUPP, and nothing happens to the file), and every file is
all data with a hole at its end, which lseek(2) allows.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mounted.disks import Disk
from tests.mounted.mounts import Mount
from tests.mounted.sides import (
    LARGE,
    MIB,
    PAGE,
    SMALL,
    Fallocate,
    Mapping,
    Reader,
    Sides,
    digest,
    fallocate,
    hexdigest,
    opened,
    outcome,
)

CONTENTS = pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC
ALLOCATE, KEEP, ZERO = Fallocate.ALLOCATE, Fallocate.KEEP_SIZE, Fallocate.ZERO_RANGE
PUNCH = Fallocate.PUNCH_HOLE | KEEP
MODES = [ALLOCATE, KEEP, PUNCH, ZERO, ZERO | KEEP]
EACH_MODE = pytest.mark.parametrize("mode", MODES, ids=["allocate", "keep", "punch", "zero", "zero-keep"])
RANGES = [
    *((0, 1), (0, PAGE), (PAGE, 2 * PAGE), (PAGE - 1, 2), (1000, 50_000), (65_536, 65_536)),
    *(
        (90_000, 20_000),
        (100_000, 50_000),
        (MIB, MIB),
        (MIB - 7, MIB + 1),
        (2 * MIB - 10, 4096),
        (3 * MIB, 100),
    ),
]
"""Offset and length: within pages, over them, over the end of each content, and beyond."""

SLACK = 128
"""Blocks of 512 bytes by which two disks' files may differ: their own blocks are larger."""


def alike_or_not_at_all(sides: Sides, what: str, program: Callable[[Path], Any]) -> Any:
    """As on the disk; without the accelerator fallocate(2) is refused and has not changed anything."""
    if sides.native:
        return sides.both(what, program)
    before = {path.name: path.read_bytes() for path in sides.tested.iterdir()}
    assert outcome(lambda: program(sides.tested)) == "ENOTSUP"
    assert {path.name: path.read_bytes() for path in sides.tested.iterdir()} == before
    sides.both("remove", lambda side: [path.unlink() for path in side.iterdir()] and None)
    return None


def assert_sealed(sides: Sides) -> None:
    """What is closed has the digest of its bytes, and no blob has changed."""
    sides.assert_same()
    for path in sides.tested.iterdir():
        assert digest(path) == hexdigest(path.read_bytes())
    sides.mount.assert_blobs_whole()


def blocks(path: Path) -> int:
    return path.stat().st_blocks


# What becomes of a file


@EACH_MODE
@CONTENTS
def test_a_sealed_file(sides: Sides, content: bytes, mode: int) -> None:
    """Each range of a file of its own; another inode has the content as it was."""
    for number in range(len(RANGES)):
        sides.make(str(number), content)
    sides.make("twin", content)

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        for number, (offset, length) in enumerate(RANGES):
            with opened(side / str(number), os.O_WRONLY) as fd:
                fallocate(fd, mode, offset, length)
                seen.append(os.fstat(fd).st_size)
        return seen

    alike_or_not_at_all(sides, "program", program)
    assert_sealed(sides)


@EACH_MODE
@CONTENTS
def test_a_file_that_is_being_written(sides: Sides, content: bytes, mode: int) -> None:
    """One range after the other; its bytes were hashed on the way."""
    for name in ("file", "stream"):
        sides.make(name, b"")

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        with opened(side / "stream", os.O_WRONLY) as fd:
            fallocate(fd, mode, 0, 10)
            os.pwrite(fd, content, 0)
            fallocate(fd, mode, len(content) // 2, 1000)
        with opened(side / "file", os.O_RDWR) as fd:
            for offset, length in RANGES:
                os.pwrite(fd, content, 0)
                fallocate(fd, mode, offset, length)
                seen += [os.fstat(fd).st_size, os.pread(fd, 4 * MIB, 0)]
            os.pwrite(fd, b"and on", 10)
        return seen

    alike_or_not_at_all(sides, "program", program)
    assert_sealed(sides)


@EACH_MODE
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_reader_that_was_there_first_sees_what_becomes_of_the_file(
    sides: Sides, content: bytes, mode: int
) -> None:
    for name in ("file", "twin"):
        sides.make(name, content)

    def program(side: Path) -> list[Any]:
        with Reader(side / "file") as reader, Reader(side / "twin") as other:
            seen = [reader.see()]
            with opened(side / "file", os.O_RDWR) as fd, Mapping(fd, len(content), write=True) as mapped:
                for offset, length in RANGES:
                    mapped.write(offset % len(content), b"mapped")
                    fallocate(fd, mode, offset, length)
                    seen += [reader.see(), mapped.read(0, len(content))]
                seen.append(other.see())
            return [*seen, reader.see()]

    if sides.native:
        sides.both("program", program)
    assert_sealed(sides)


@EACH_MODE
def test_times_move(sides: Sides, mode: int) -> None:
    sides.make("file", LARGE)

    def program(side: Path) -> bool:
        before = (side / "file").stat()
        with opened(side / "file", os.O_RDWR) as fd:
            fallocate(fd, mode, MIB, MIB)
            after = (side / "file").stat()
        return after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns

    assert alike_or_not_at_all(sides, "program", program) in (True, None)


@pytest.mark.parametrize(
    ("mode", "offset", "length"),
    [
        (ALLOCATE, 0, 4 * MIB),
        (ALLOCATE, MIB, 10),
        (PUNCH, MIB, 512 << 10),
        (PUNCH, 0, 2 * MIB),
        (ZERO, 0, MIB),
    ],
)
def test_blocks(sides: Sides, mode: int, offset: int, length: int) -> None:
    """st_blocks, while the file is open and when it is sealed: holes do not count, what is allocated does."""
    for name in ("sealed", "staged"):
        sides.make(name, LARGE)

    def program(side: Path) -> None:
        with opened(side / "staged", NEW) as fd:
            os.pwrite(fd, LARGE, 0)
            fallocate(fd, mode, offset, length)
            os.fsync(fd)
        with opened(side / "sealed", os.O_WRONLY) as fd:
            fallocate(fd, mode, offset, length)
            os.fsync(fd)

    alike_or_not_at_all(sides, "program", program)
    for path in sides.model.iterdir():
        assert abs(blocks(sides.tested / path.name) - blocks(path)) <= SLACK, path.name
    assert_sealed(sides)


def test_room_beyond_the_end_is_not_content(sides: Sides) -> None:
    """KEEP_SIZE: the file is sealed without it, grows into it, and is cut off before it."""

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        for name in ("sealed", "written", "cut"):
            with opened(side / name, NEW) as fd:
                os.write(fd, LARGE)
                fallocate(fd, KEEP, 0, 4 * MIB)
                if name == "written":
                    os.pwrite(fd, b"!", 3 * MIB)
                elif name == "cut":
                    os.ftruncate(fd, MIB)
                    os.ftruncate(fd, MIB + 5000)
                seen.append(os.pread(fd, 5 * MIB, 0))
        return seen

    if sides.native:
        sides.both("program", program)
    assert_sealed(sides)


@pytest.mark.parametrize(
    ("mode", "offset", "length", "flags"),
    [
        *((mode, 0, 100, os.O_RDONLY) for mode in (*MODES, Fallocate.COLLAPSE_RANGE)),
        *((ALLOCATE, -1, 100, os.O_RDWR), (PUNCH, -1, 100, os.O_RDWR)),
        *((ALLOCATE, 100, 0, os.O_RDWR), (ALLOCATE, 100, -1, os.O_RDWR), (PUNCH, 0, 0, os.O_RDWR)),
        *((ALLOCATE, 100, (1 << 63) - 50, os.O_RDWR), (PUNCH, 100, (1 << 63) - 50, os.O_RDWR)),
        (Fallocate.PUNCH_HOLE, 0, 100, os.O_RDWR),
        (Fallocate.PUNCH_HOLE | ZERO | KEEP, 0, 100, os.O_RDWR),
        (1 << 12, 0, 100, os.O_RDWR),
        (ALLOCATE, 0, 100, os.O_RDONLY | os.O_PATH),
    ],
)
def test_arguments_that_make_no_sense(sides: Sides, mode: int, offset: int, length: int, flags: int) -> None:
    sides.make("file", SMALL)

    def program(side: Path) -> None:
        with opened(side / "file", flags) as fd:
            fallocate(fd, mode, offset, length)

    assert isinstance(sides.both("program", program), str)
    assert_sealed(sides)


@pytest.mark.parametrize("mode", [Fallocate.COLLAPSE_RANGE, Fallocate.INSERT_RANGE, Fallocate.UNSHARE_RANGE])
def test_ranges_are_not_collapsed_or_inserted(sides: Sides, mode: int) -> None:
    """The kernel does not pass these on to a FUSE server."""
    sides.make("file", LARGE)
    with opened(sides.tested / "file", os.O_RDWR) as fd:
        assert outcome(lambda: fallocate(fd, mode, PAGE, PAGE)) == "ENOTSUP"
    assert_sealed(sides)


def test_what_is_no_file(sides: Sides) -> None:
    sides.both("mkfifo", lambda side: os.mkfifo(side / "fifo"))

    def program(side: Path) -> list[Any]:
        with opened(side / "fifo", os.O_RDWR) as fifo, opened(side) as folder:
            return [outcome(lambda fd=fd: fallocate(fd, ALLOCATE, 0, 10)) for fd in (fifo, folder)]

    assert sides.both("program", program) == ["ESPIPE", "EBADF"]


def test_more_than_a_file_may_have(sides: Sides) -> None:
    """RLIMIT_FSIZE (Python ignores SIGXFSZ), and what the disk below takes for one file."""
    sides.make("file", LARGE)

    def program(side: Path) -> list[Any]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with opened(side / "file", os.O_RDWR) as fd:
            fallocate(fd, ALLOCATE, 0, 100)
            seen = [outcome(lambda: fallocate(fd, ALLOCATE, 0, 1 << 44))]
            resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, limits[1]))
            try:
                seen += [
                    outcome(lambda mode=mode: fallocate(fd, mode, MIB, 4 * MIB))
                    for mode in (ALLOCATE, ZERO, PUNCH)
                ]
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return seen

    assert alike_or_not_at_all(sides, "program", program) in (["EFBIG", "EFBIG", "EFBIG", None], None)
    assert_sealed(sides)


def test_more_than_the_disk_has(new_disk: Callable[..., Disk], new_mount: Callable[..., Mount]) -> None:
    """ENOSPC before anything was changed; the room is there for others."""
    disk = new_disk("ext4")
    mount = new_mount(disk.path / "store").start()
    (mount.path / "file").write_bytes(LARGE)
    (mount.path / "twin").write_bytes(LARGE)
    expected = "ENOSPC" if mount.mode == "native" else "ENOTSUP"
    with opened(mount.path / "file", os.O_RDWR) as fd:
        for mode in (ALLOCATE, KEEP, ZERO):
            assert outcome(lambda mode=mode: fallocate(fd, mode, MIB, 200 * MIB)) == expected
        assert os.fstat(fd).st_size == len(LARGE)
        os.pwrite(fd, b"written", MIB)
    (mount.path / "other").write_bytes(LARGE[::-1])
    changed = bytearray(LARGE)
    changed[MIB : MIB + 7] = b"written"
    assert (mount.path / "file").read_bytes() == changed
    assert (mount.path / "other").read_bytes() == LARGE[::-1]


def test_posix_fallocate(sides: Sides) -> None:
    """Where a file system has no fallocate, the C library writes instead."""
    sides.make("file", LARGE)

    def program(side: Path) -> None:
        for name, size in (("file", 3 * MIB), ("file", MIB), ("new", 5000)):
            with opened(side / name, os.O_RDWR | os.O_CREAT) as fd:
                os.posix_fallocate(fd, 0, size)

    sides.both("program", program)
    assert_sealed(sides)


@pytest.mark.parametrize(
    "options", [["-l", "3M"], ["-n", "-l", "3M"], ["-p", "-o", "1M", "-l", "64K"], ["-z", "-l", "1M"], ["-d"]]
)
def test_the_command(sides: Sides, options: list[str]) -> None:
    sides.make("file", LARGE + bytes(MIB))

    def program(side: Path) -> int:
        return subprocess.run(["fallocate", *options, side / "file"], capture_output=True).returncode

    if sides.native:
        assert sides.both("program", program) == 0
    else:
        assert program(sides.tested) == 1
    assert_sealed(sides)


AS_NOBODY = """
import ctypes, sys
with open(sys.argv[1], "r+b") as file:
    start, length = ctypes.c_int64(0), ctypes.c_int64(9)
    sys.exit(ctypes.CDLL(None).fallocate(file.fileno(), int(sys.argv[2]), start, length))
"""


@EACH_MODE
def test_privileges_go_when_another_does_it(sides: Sides, mode: int) -> None:
    sides.make("file", SMALL)

    def program(side: Path) -> tuple[int, int]:
        os.chmod(side / "file", 0o6777)
        command = ["/usr/bin/python3", "-I", "-c", AS_NOBODY, "file", str(int(mode))]
        done = subprocess.run(command, user=65534, group=65534, extra_groups=[], cwd=side)
        return done.returncode, (side / "file").stat().st_mode

    if sides.native:
        sides.both("program", program)
    assert_sealed(sides)


# SEEK_DATA, SEEK_HOLE


def seeks(fd: int, offsets: list[int]) -> list[Any]:
    """All answers, and where the file position is then."""
    seen: list[Any] = []
    for offset in offsets:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            seen.append(outcome(lambda w=whence, o=offset: os.lseek(fd, o, w)))
            seen.append(os.lseek(fd, 0, os.SEEK_CUR))
    return seen


def places(size: int) -> list[int]:
    return [0, 1, size // 2, size - 1, size, size + 1, size + MIB, -1, 1 << 62]


@CONTENTS
def test_a_full_file_is_data_up_to_its_end(sides: Sides, content: bytes) -> None:
    sides.make("file", content)

    def program(side: Path) -> list[Any]:
        with opened(side / "file") as sealed, opened(side / "new", NEW) as staged:
            os.write(staged, content)
            with opened(side / "new") as reader:
                return [seeks(fd, places(len(content))) for fd in (sealed, staged, reader)]

    sides.both("program", program)
    assert_sealed(sides)


SPARSE_PLACES = [
    *(
        0,
        1,
        65_535,
        MIB - 1,
        MIB,
        MIB + 1,
        MIB + 65_536,
        MIB + 65_537,
        2 * MIB,
        2 * MIB + 5,
        3 * MIB - 65_536,
    ),
    *(3 * MIB - 1, 3 * MIB, 3 * MIB + 1, -1),
]


def make_sparse(fd: int) -> None:
    """3 MiB with holes up to 1 MiB, from 64 KiB after it to 2 MiB, and in the last 64 KiB.

    64 KiB is more than a block of any disk.
    """
    os.ftruncate(fd, 3 * MIB)
    os.pwrite(fd, LARGE[:65_536], MIB)
    os.pwrite(fd, LARGE[: MIB - 65_536], 2 * MIB)


@pytest.mark.parametrize("how", ["staged", "through a reader", "sealed", "remounted", "copied"])
def test_the_holes_of_a_sparse_file(sides: Sides, how: str) -> None:
    """Without the accelerator it is all data."""

    def program(side: Path) -> list[Any]:
        with opened(side / "file", NEW) as fd:
            make_sparse(fd)
            if how == "staged":
                return seeks(fd, SPARSE_PLACES)
            if how == "through a reader":
                with opened(side / "file") as reader:
                    return seeks(reader, SPARSE_PLACES)
        if how == "copied":
            subprocess.run(["cp", "--sparse=auto", side / "file", side / "copy"], check=True)
        if how == "remounted" and side == sides.tested:
            sides.mount.remount()
        with opened(side / ("copy" if how == "copied" else "file")) as fd:
            return seeks(fd, SPARSE_PLACES)

    if sides.native:
        sides.both("program", program)
    else:
        program(sides.model)
        size = 3 * MIB
        data = [offset if 0 <= offset < size else "ENXIO" for offset in SPARSE_PLACES]
        ends = [size if 0 <= offset < size else "ENXIO" for offset in SPARSE_PLACES]
        found = program(sides.tested)
        assert (found[::4], found[2::4]) == (data, ends)
    assert_sealed(sides)


def test_a_sparse_file_takes_what_it_has(sides: Sides) -> None:
    """st_blocks in both modes, while it is written, sealed, copied and remounted."""

    def program(side: Path) -> None:
        with opened(side / "file", NEW) as fd:
            make_sparse(fd)
            os.fsync(fd)

    sides.both("program", program)
    expected = blocks(sides.model / "file")
    assert abs(blocks(sides.tested / "file") - expected) <= SLACK
    with opened(sides.tested / "file") as old, opened(sides.tested / "copy", NEW) as new:
        os.copy_file_range(old, new, 3 * MIB)
    if sides.native:
        assert abs(blocks(sides.tested / "copy") - expected) <= SLACK
    sides.mount.remount()
    assert abs(blocks(sides.tested / "file") - expected) <= SLACK


def test_a_hole_that_was_punched_is_found(sides: Sides) -> None:
    sides.make("file", LARGE)

    def program(side: Path) -> list[Any]:
        with opened(side / "file", os.O_RDWR) as fd:
            fallocate(fd, PUNCH, MIB, 512 << 10)
            os.fsync(fd)
            seen = seeks(fd, places(len(LARGE)))
        with opened(side / "file") as fd:
            return [*seen, *seeks(fd, places(len(LARGE))), os.read(fd, 100)]

    alike_or_not_at_all(sides, "program", program)
    assert_sealed(sides)


def test_a_read_goes_on_where_the_data_is(sides: Sides) -> None:
    """The kernel's file position is what lseek(2) has returned."""

    def program(side: Path) -> list[bytes]:
        with opened(side / "file", NEW) as fd:
            make_sparse(fd)
        with opened(side / "file") as fd:
            os.lseek(fd, MIB, os.SEEK_DATA)
            seen = [os.read(fd, 50)]
            os.lseek(fd, 2 * MIB + 10, os.SEEK_DATA)
            return [*seen, os.read(fd, 50)]

    sides.both("program", program)
    assert_sealed(sides)
