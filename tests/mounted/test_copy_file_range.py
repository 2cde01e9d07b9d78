"""copy_file_range(2): what cp(1) and others call is one row where it can be, and always the same bytes.

Without the accelerator the kernel reads and writes instead (splice), and programs see the same. FICLONE never
reaches a FUSE server: `cp --reflink=always` fails as on a disk that has no reflinks.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mounted.sides import (
    LARGE,
    MIB,
    SMALL,
    Mapping,
    Reader,
    Sides,
    digest,
    hexdigest,
    opened,
    outcome,
    pattern,
)

CONTENTS = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
ALL = 1 << 30
OLD = pattern(7, 2 * MIB + 5000)
"""What is in a destination that is not empty."""


def copy(source: Path, target: Path, flags: int = NEW) -> int:
    with opened(source) as old, opened(target, flags) as new:
        return os.copy_file_range(old, new, ALL)


def stat_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_blocks


# A whole sealed file


@CONTENTS
def test_a_copy_has_the_blob_of_its_source(sides: Sides, content: bytes) -> None:
    source, target = sides.tested / "source", sides.tested / "target"
    source.write_bytes(content)
    before = sides.mount.usage()["total"]
    assert copy(source, target) == len(content)
    assert (target.read_bytes(), digest(target)) == (content, hexdigest(content))
    assert stat_of(target) == stat_of(source)
    after = sides.mount.usage()["total"]
    assert (after["blobs"], after["blob_bytes"]) == (before["blobs"], before["blob_bytes"])
    assert after["files"] == before["files"] + 1


@CONTENTS
def test_a_copy_is_there_before_it_is_closed(sides: Sides, content: bytes) -> None:
    sides.make("source", content)
    sides.make("target", b"what was there before")

    def program(side: Path) -> list[Any]:
        with opened(side / "source") as old, Reader(side / "target") as reader:
            with opened(side / "target", NEW) as new:
                seen: list[Any] = [reader.see(), os.copy_file_range(old, new, ALL), reader.see()]
                seen += [os.fstat(new).st_size, (side / "target").read_bytes()]
                os.fsync(new)
                seen += [os.lseek(old, 0, os.SEEK_CUR), os.lseek(new, 0, os.SEEK_CUR)]
                seen += [os.copy_file_range(old, new, ALL), reader.see()]
            return [*seen, reader.see()]

    assert sides.both("program", program)[-1][1] == content
    sides.assert_same()


@CONTENTS
def test_a_write_after_the_copy_leaves_the_source_alone(sides: Sides, content: bytes) -> None:
    sides.make("source", content)

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        with opened(side / "source") as old, Reader(side / "source") as reader:
            with opened(side / "target", NEW) as new:
                os.copy_file_range(old, new, ALL)
                os.pwrite(new, b"written", 50_000)
                os.write(new, b"at the end")
                seen += [(side / "target").read_bytes(), reader.see()]
            with opened(side / "cut", NEW) as new:
                os.copy_file_range(old, new, ALL, 0)
                os.ftruncate(new, 60_001)
            with opened(side / "grown", NEW) as new:
                os.copy_file_range(old, new, ALL, 0)
                os.ftruncate(new, len(content) + 10_000)
            with opened(side / "emptied", NEW) as new:
                os.copy_file_range(old, new, ALL, 0)
                os.ftruncate(new, 0)
            with (
                opened(side / "appended", NEW) as new,
                opened(side / "appended", os.O_RDWR | os.O_APPEND) as end,
            ):
                os.copy_file_range(old, new, ALL, 0)
                os.write(end, b"more")
                seen.append(os.pread(end, 4 * MIB, 0))
            return [*seen, reader.see()]

    sides.both("program", program)
    sides.assert_same()
    for path in sides.tested.iterdir():
        assert path.name == "emptied" or digest(path) == hexdigest(path.read_bytes())
    sides.mount.assert_blobs_whole()


@CONTENTS
def test_a_write_to_the_source_leaves_the_copy_alone(sides: Sides, content: bytes) -> None:
    sides.make("source", content)

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        with opened(side / "source", os.O_RDWR) as old, Mapping(old, len(content), write=True) as mapped:
            with opened(side / "target", NEW) as new:
                os.copy_file_range(old, new, ALL)
                os.pwrite(old, b"written", 50_000)
                seen.append((side / "target").read_bytes())
            mapped.write(10_000, b"mapped")
            seen.append((side / "target").read_bytes())
            copy(side / "source", side / "second")
            os.unlink(side / "source")
            mapped.write(20_000, b"mapped")
        return seen

    assert sides.both("program", program) == [content, content]
    sides.assert_same()
    sides.mount.assert_blobs_whole()


def test_a_copy_of_a_copy_whose_sources_are_gone(sides: Sides) -> None:
    sides.make("0", LARGE)

    def program(side: Path) -> list[int]:
        sizes = []
        for number in range(1, 10):
            sizes.append(copy(side / str(number - 1), side / str(number)))
            os.unlink(side / str(number - 1))
        return sizes

    assert sides.both("program", program) == [len(LARGE)] * 9
    sides.assert_same()
    assert digest(sides.tested / "9") == hexdigest(LARGE)


@pytest.mark.parametrize("chunk", [100_000, MIB], ids=["100k", "1M"])
def test_a_copy_in_pieces_has_the_blob_of_its_source(sides: Sides, chunk: int) -> None:
    source, target = sides.tested / "source", sides.tested / "target"
    source.write_bytes(LARGE)
    blobs = sides.mount.usage()["total"]["blobs"]
    with opened(source) as old, opened(target, NEW) as new:
        while os.copy_file_range(old, new, chunk):
            pass
    assert (target.read_bytes(), digest(target)) == (LARGE, hexdigest(LARGE))
    assert sides.mount.usage()["total"]["blobs"] == blobs


@pytest.mark.parametrize("old", [b"", b"short", OLD], ids=["empty", "short", "longer"])
@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, NEW], ids=["write-only", "read-write", "truncated"]
)
def test_a_whole_file_onto_one_that_is_there(sides: Sides, old: bytes, flags: int) -> None:
    """The end of a longer one stays."""
    for name, content in (("source", LARGE), ("target", old), ("twin", old)):
        sides.make(name, content)
    assert sides.both("copy", lambda side: copy(side / "source", side / "target", flags)) == len(LARGE)
    sides.assert_same()
    sides.mount.assert_blobs_whole()


# Sources that are no blob


@CONTENTS
def test_a_source_that_is_still_staged(sides: Sides, content: bytes) -> None:
    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        with opened(side / "source", NEW) as writer, opened(side / "source") as old:
            os.write(writer, content)
            with opened(side / "target", NEW) as new:
                seen.append(os.copy_file_range(old, new, ALL))
            os.pwrite(writer, b"written", 40_000)
            seen.append((side / "target").read_bytes())
            seen.append(copy(side / "source", side / "second"))
        return seen

    assert sides.both("program", program) == [len(content), content, len(content)]
    sides.assert_same()
    for path in sides.tested.iterdir():
        assert digest(path) == hexdigest(path.read_bytes())
    assert digest(sides.tested / "source") == digest(sides.tested / "second")


def test_a_source_with_holes(sides: Sides) -> None:
    def program(side: Path) -> list[Any]:
        with opened(side / "source", NEW) as writer:
            os.pwrite(writer, b"data", MIB)
            os.ftruncate(writer, 3 * MIB)
            seen = [copy(side / "source", side / "target")]
        return [*seen, copy(side / "source", side / "second")]

    assert sides.both("program", program) == [3 * MIB] * 2
    sides.assert_same()


def test_an_empty_source(sides: Sides) -> None:
    for name in ("source", "target"):
        sides.make(name, b"")

    def program(side: Path) -> list[int]:
        return [copy(side / "source", side / "new"), copy(side / "source", side / "target", os.O_WRONLY)]

    assert sides.both("program", program) == [0, 0]
    sides.assert_same()


# Ranges


RANGES = [
    (0, 4096, 0),
    (4096, 8192, 65_536),
    (1, 100_000, 77),
    (0, MIB, MIB),
    (MIB + 3, MIB, 0),
    (0, ALL, 3 * MIB),
    (len(LARGE) - 10, 5000, 100),
    (len(LARGE), 10, 0),
    (len(LARGE) + 5000, 10, 0),
    (100, 0, 0),
    (0, len(LARGE), 4096),
    (4096, ALL, 0),
]
"""Offset in the source, length, offset in the destination."""


@pytest.mark.parametrize(("start", "length", "end"), RANGES)
def test_a_range_between_two_files(sides: Sides, start: int, length: int, end: int) -> None:
    """Into a new, a sealed and a staged file; beyond the end of the source it is short, or nothing."""
    sides.make("source", LARGE)
    sides.make("sealed", OLD)
    sides.make("twin", OLD)

    def program(side: Path) -> list[int]:
        copied = []
        with opened(side / "source") as old:
            for name in ("new", "sealed"):
                with opened(side / name, os.O_WRONLY | os.O_CREAT) as new:
                    copied.append(os.copy_file_range(old, new, length, start, end))
            with opened(side / "staged", NEW) as new:
                os.write(new, OLD)
                copied.append(os.copy_file_range(old, new, length, start, end))
                os.write(new, b"and on")
        return copied

    assert sides.both("program", program) == [max(0, min(length, len(LARGE) - start))] * 3
    sides.assert_same()
    sides.mount.assert_blobs_whole()


@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        *((0, 5000, 5000), (MIB, 4096, 0), (0, MIB, MIB), (0, ALL, 2 * MIB), (100, 50_000, 3 * MIB)),
        *((0, 5000, 4999), (5000, 5000, 1), (0, ALL, 0), (7, 1, 7), (0, ALL, MIB), (MIB, 4096, MIB - 4095)),
    ],
)
def test_a_range_within_a_file(sides: Sides, start: int, length: int, end: int) -> None:
    """EINVAL where the two overlap, as copy_file_range(2) says."""
    sides.make("file", LARGE)
    sides.make("twin", LARGE)

    def program(side: Path) -> list[Any]:
        with opened(side / "file", os.O_RDWR) as new, opened(side / "file") as old:
            return [
                outcome(lambda source=source: os.copy_file_range(source, new, length, start, end))
                for source in (new, old)
            ]

    length = min(length, len(LARGE) - start)
    found = sides.both("program", program)
    assert found == ["EINVAL" if start < end + length and end < start + length else length] * 2
    sides.assert_same()
    sides.mount.assert_blobs_whole()


def test_a_range_into_a_name_of_the_same_file(sides: Sides) -> None:
    sides.make("file", LARGE)
    sides.both("link", lambda side: os.link(side / "file", side / "name"))

    def program(side: Path) -> int:
        with opened(side / "file") as old, opened(side / "name", os.O_WRONLY) as new:
            return os.copy_file_range(old, new, MIB, 0, 10)

    assert sides.both("program", program) == "EINVAL"
    sides.assert_same()


def test_readers_see_what_is_copied_into_their_file(sides: Sides) -> None:
    sides.make("source", LARGE)
    sides.make("target", OLD)

    def program(side: Path) -> list[Any]:
        with Reader(side / "target") as reader, opened(side / "source") as old:
            seen = [reader.see()]
            with opened(side / "target", os.O_WRONLY) as new:
                for start, length, end in RANGES:
                    os.copy_file_range(old, new, length, start, end)
                    seen.append(reader.see())
            copy(side / "source", side / "target")
            return [*seen, reader.see()]

    sides.both("program", program)
    sides.assert_same()


# Errors


def raw_copy(old: int, new: int, length: int, start: int, flags: int) -> int:
    """Arguments that os.copy_file_range does not let through."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.copy_file_range.restype = ctypes.c_ssize_t
    place = ctypes.c_int64(start)
    copied = int(
        libc.copy_file_range(
            old, ctypes.byref(place), new, None, ctypes.c_size_t(length), ctypes.c_uint(flags)
        )
    )
    if copied < 0:
        raise OSError(ctypes.get_errno(), "copy_file_range")
    return copied


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (os.O_RDONLY, os.O_WRONLY | os.O_APPEND, "EBADF"),
        (os.O_RDONLY, os.O_RDWR | os.O_APPEND, "EBADF"),
        (os.O_RDONLY, os.O_RDONLY, "EBADF"),
        (os.O_WRONLY, os.O_WRONLY, "EBADF"),
        (os.O_RDWR | os.O_APPEND, os.O_RDWR, len(LARGE)),
        (os.O_RDONLY | os.O_PATH, os.O_WRONLY, "EBADF"),
    ],
)
def test_handles_that_do_not_fit(sides: Sides, source: int, target: int, expected: str | int) -> None:
    sides.make("source", LARGE)
    sides.make("target", OLD)

    def program(side: Path) -> int:
        with opened(side / "source", source) as old, opened(side / "target", target) as new:
            return os.copy_file_range(old, new, ALL, 0)

    assert sides.both("program", program) == expected
    sides.assert_same()


def test_what_is_no_file(sides: Sides) -> None:
    sides.make("file", LARGE)
    sides.both("mkdir", lambda side: os.mkdir(side / "folder"))
    sides.both("mkfifo", lambda side: os.mkfifo(side / "fifo"))

    def between(source: str, target: str) -> Callable[[Path], int]:
        def program(side: Path) -> int:
            flags = os.O_RDWR | os.O_NONBLOCK
            with (
                opened(side / source, os.O_RDONLY if source == "folder" else flags) as old,
                opened(side / target, os.O_RDONLY if target == "folder" else flags) as new,
            ):
                return os.copy_file_range(old, new, 100)

        return program

    for source, target in (("folder", "file"), ("file", "folder"), ("fifo", "file"), ("file", "fifo")):
        assert sides.both(f"{source} to {target}", between(source, target)) in ("EINVAL", "EISDIR")
    sides.both("rmdir", lambda side: os.rmdir(side / "folder"))
    sides.both("unlink", lambda side: os.unlink(side / "fifo"))
    sides.assert_same()


@pytest.mark.parametrize(
    ("start", "length", "flags"),
    [(0, 10, 1), (-1, 10, 0), (0, (1 << 63) - 1, 0), (1 << 62, 1 << 62, 0), (100, (1 << 63) - 50, 0)],
)
def test_arguments_that_make_no_sense(sides: Sides, start: int, length: int, flags: int) -> None:
    sides.make("source", SMALL)

    def program(side: Path) -> int:
        with opened(side / "source") as old, opened(side / "target", NEW) as new:
            return raw_copy(old, new, length, start, flags)

    sides.both("program", program)
    sides.assert_same()


def test_the_limit_for_file_sizes(sides: Sides) -> None:
    """RLIMIT_FSIZE: as much as it allows, then EFBIG. Python ignores SIGXFSZ."""
    sides.make("source", LARGE)

    def program(side: Path) -> list[Any]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with opened(side / "source") as old, opened(side / "target", NEW) as new:
            resource.setrlimit(resource.RLIMIT_FSIZE, (MIB + 100, limits[1]))
            try:
                first = outcome(lambda: os.copy_file_range(old, new, ALL))
                return [first, outcome(lambda: os.copy_file_range(old, new, ALL)), os.fstat(new).st_size]
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert sides.both("program", program) == [MIB + 100, "EFBIG", MIB + 100]
    sides.assert_same()
