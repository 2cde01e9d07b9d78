"""What passthrough and remembered answers must not change: digests, names, times, privileges, descriptors.

Requests that the accelerator answers by itself are unseen by the rest of the daemon, and bytes that the
kernel moves by itself by all of it. What programs observe is compared with the disk below the mount.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.mounted.sides import (
    LARGE,
    MIB,
    PAGE,
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
NOBODY = 65534


# The digest is that of the bytes


@pytest.mark.parametrize("order", ["fd first", "map first"])
def test_writes_through_a_map_are_hashed(sides: Sides, order: str) -> None:
    """The daemon has seen a whole sequential write, and not what was mapped over it."""
    path = sides.tested / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    assert os.write(fd, LARGE) == len(LARGE)
    mapped = Mapping(fd, len(LARGE), write=True)
    mapped.write(MIB, b"mapped")
    if order == "fd first":
        os.close(fd)
        mapped.write(MIB + 9, b"later")
        mapped.close()
    else:
        mapped.close()
        os.close(fd)
    expected = bytearray(LARGE)
    expected[MIB : MIB + 6] = b"mapped"
    if order == "fd first":
        expected[MIB + 9 : MIB + 14] = b"later"
    assert path.read_bytes() == expected
    sides.mount.usage()
    assert digest(path) == hexdigest(expected)
    sides.mount.assert_blobs_whole()


def test_writes_through_a_map_after_a_copy_are_hashed_and_change_only_the_copy(sides: Sides) -> None:
    source, target = sides.tested / "source", sides.tested / "target"
    source.write_bytes(LARGE)
    with opened(source) as old, opened(target, os.O_RDWR | os.O_CREAT) as new:
        assert os.copy_file_range(old, new, len(LARGE)) == len(LARGE)
        with Mapping(new, len(LARGE), write=True) as mapped:
            mapped.write(MIB, b"mapped")
            assert os.pread(new, 6, MIB) == b"mapped"
    expected = bytearray(LARGE)
    expected[MIB : MIB + 6] = b"mapped"
    assert (source.read_bytes(), digest(source)) == (LARGE, hexdigest(LARGE))
    assert (target.read_bytes(), digest(target)) == (expected, hexdigest(expected))
    sides.mount.assert_blobs_whole()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR], ids=["write-only", "read-write"])
def test_the_digest_follows_any_order_of_writes(sides: Sides, seed: int, flags: int) -> None:
    """Mostly one after the other, as a stream that is hashed on the way, and then not."""
    dice = random.Random(seed)
    path, expected, end = sides.tested / "file", bytearray(), 0
    with opened(path, flags | os.O_CREAT) as fd:
        for _ in range(150):
            action = dice.choice(["next"] * 12 + ["again", *(("hole", "cut", "grow") if seed % 2 else ())])
            data = dice.randbytes(dice.choice([1, 4096, 4096, 131_072]))
            if action in ("cut", "grow"):
                end = dice.randrange(len(expected) + 1) if action == "cut" else len(expected) + 5000
                os.ftruncate(fd, end)
                del expected[end:]
                expected += bytes(end - len(expected))
                continue
            end = {"next": end, "again": dice.randrange(len(expected) + 1)}.get(action, len(expected) + 9000)
            expected += bytes(max(0, end - len(expected)))
            expected[end : end + len(data)] = data
            assert os.pwrite(fd, data, end) == len(data)
            end = end + len(data) if action == "next" or seed == 3 else len(expected)
    assert digest(path) == hexdigest(expected)
    assert path.read_bytes() == expected


def test_bytes_that_come_and_go_through_pipes(sides: Sides) -> None:
    """splice(2) and sendfile(2) have ways of their own through the kernel."""
    sides.make("source", LARGE)

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        with Reader(side / "source") as reader, opened(side / "target", os.O_RDWR | os.O_CREAT) as target:
            ours, theirs = os.pipe()
            for offset in range(0, len(LARGE), PAGE):
                assert os.splice(reader.fd, theirs, PAGE, offset_src=offset) == PAGE
                assert os.splice(ours, target, PAGE, offset_dst=offset) == PAGE
            os.close(ours)
            os.close(theirs)
            with opened(side / "source", os.O_WRONLY) as writer:
                os.pwrite(writer, b"written", MIB)
            through = os.memfd_create("through")
            while os.sendfile(through, reader.fd, None, MIB):
                pass
            seen += [reader.see(), os.pread(through, 4 * MIB, 0), os.pread(target, 4 * MIB, 0)]
            os.close(through)
        return seen

    sides.both("program", program)
    sides.assert_same()
    assert digest(sides.tested / "target") == hexdigest(LARGE)


# Names and attributes


@CONTENTS
@pytest.mark.parametrize("how", ["unlink", "rename"])
def test_a_reader_keeps_the_bytes_of_a_file_that_is_gone(sides: Sides, content: bytes, how: str) -> None:
    sides.make("file", content)
    sides.make("twin", content)

    def program(side: Path) -> list[Any]:
        with Reader(side / "file") as reader:
            if how == "unlink":
                os.unlink(side / "file")
            else:
                (side / "new").write_bytes(b"new content")
                os.rename(side / "new", side / "file")
            seen: list[Any] = [reader.see(), os.fstat(reader.fd).st_nlink]
            (side / "twin").write_bytes(b"")
            fresh = side / "file"
            fresh.write_bytes(b"newer content")
            return [*seen, reader.see(), fresh.read_bytes()]

    sides.both("program", program)
    sides.assert_same()


def test_a_writer_and_a_reader_of_a_file_that_is_gone(sides: Sides) -> None:
    sides.make("file", LARGE)

    def program(side: Path) -> list[Any]:
        with Reader(side / "file") as reader:
            path = Path(f"/proc/self/fd/{reader.fd}")
            os.unlink(side / "file")
            with opened(path, os.O_RDWR) as fd:
                os.pwrite(fd, b"written", MIB)
                seen = [reader.see()]
                os.ftruncate(fd, MIB + 3)
            return [*seen, reader.see()]

    assert sides.both("program", program)[1][0] == MIB + 3


def test_an_open_after_many_of_the_same_file_sees_what_changed(sides: Sides) -> None:
    def program(side: Path) -> list[Any]:
        path, seen = side / "file", list[Any]()

        def look() -> None:
            with Reader(path) as reader, opened(path) as fd:
                seen.extend(reader.see()[1:])
                seen.append(os.pread(fd, 4 * MIB, 0))

        def make_again() -> None:
            os.unlink(path)
            path.write_bytes(pattern(3, 1000))

        def rename_over() -> None:
            (side / "new").write_bytes(pattern(4, 2 * MIB))
            os.rename(side / "new", path)

        def exchange() -> None:
            (side / "other").write_bytes(pattern(5, 4000))
            os.rename(path, side / "third")
            os.rename(side / "other", path)

        def write(data: bytes) -> None:
            with opened(path, os.O_WRONLY) as fd:
                os.pwrite(fd, data, MIB)

        def write_by_map(data: bytes) -> None:
            with opened(path, os.O_RDWR) as fd, Mapping(fd, 2 * MIB, write=True) as mapped:
                mapped.write(MIB, data)

        path.write_bytes(LARGE)
        steps = [
            lambda: path.write_bytes(pattern(2, 2 * MIB)),
            lambda: os.truncate(path, MIB),
            *(make_again, rename_over, exchange, rename_over),
            lambda: write(b"written"),
            lambda: write_by_map(b"mapped"),
        ]
        for step in steps:
            look()
            look()
            step()
        look()
        return seen

    assert len(set(sides.both("program", program))) == 8
    sides.assert_same()


AS_NOBODY = """
import os, sys
path, how = sys.argv[1:]
try:
    if how == "truncate":
        os.truncate(path, 10)
    else:
        fd = os.open(path, os.O_RDWR | (os.O_TRUNC if how == "O_TRUNC" else 0))
        if how == "ftruncate":
            os.ftruncate(fd, 10)
        elif how == "write":
            os.pwrite(fd, b"new", 0)
        elif how == "copy":
            os.copy_file_range(fd, fd, 10, 0, 100)
except OSError as error:
    print(error.errno)
"""


def as_nobody(how: str, path: Path) -> str:
    """Nobody may walk to the folders of tests, so the program starts in the file's."""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", AS_NOBODY, path.name, how],
        cwd=path.parent,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_mode_decides_at_every_open(sides: Sides) -> None:
    """Also when many opens before it were answered without anybody being asked."""
    sides.make("file", LARGE)

    def program(side: Path) -> list[str]:
        seen: list[str] = []
        for mode in (0o666, 0o600, 0o666, 0o444, 0o222):
            os.chmod(side / "file", mode)
            seen += [as_nobody(how, side / "file") for how in ("open", "open", "truncate")]
        return seen

    assert "13\n" in sides.both("program", program)


@pytest.mark.parametrize("how", ["write", "ftruncate", "truncate", "O_TRUNC", "copy", "open"])
def test_a_write_by_another_takes_privileges_away(sides: Sides, how: str) -> None:
    """FUSE_HANDLE_KILLPRIV_V2: the file system does it, the kernel no longer asks before each write(2)."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        for mode in (0o6777, 0o2775, 0o4766):
            path = side / f"{mode:o}"
            path.write_bytes(SMALL)
            os.chmod(path, mode)
            os.setxattr(path, "security.capability", capability)
            seen += [as_nobody(how, path), os.stat(path).st_mode, "security.capability" in os.listxattr(path)]
        return seen

    sides.both("program", program)
    sides.assert_same()


@CONTENTS
def test_times_and_size_move_with_a_write(sides: Sides, content: bytes) -> None:
    """For those who hold the file open, too, and for those who only look."""
    path = sides.tested / "file"
    path.write_bytes(content)
    with Reader(path) as reader, opened(path, os.O_RDWR) as fd:

        def times() -> tuple[int, int]:
            status = os.fstat(reader.fd)
            assert (status.st_mtime_ns, status.st_size) == (path.stat().st_mtime_ns, path.stat().st_size)
            return status.st_mtime_ns, status.st_ctime_ns

        def change_by_map() -> None:
            with Mapping(fd, len(content), write=True) as mapped:
                mapped.write(100, b"mapped")
                mapped.sync()

        seen = [times()]
        for step in (
            lambda: os.pwrite(fd, b"written", 50),
            lambda: os.pwrite(fd, b"longer", len(content)),
            lambda: os.ftruncate(fd, 90_000),
            lambda: os.ftruncate(fd, len(content)),
            change_by_map,
        ):
            step()
            seen.append(times())
        assert [mtime for mtime, _ in seen] == sorted({mtime for mtime, _ in seen})
        assert [ctime for _, ctime in seen] == sorted({ctime for _, ctime in seen})
        assert os.fstat(fd).st_size == len(content)
    assert times_of(path) == seen[-1] or times_of(path) > seen[-1]


def times_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns


@CONTENTS
def test_what_is_appended_goes_to_the_end(sides: Sides, content: bytes) -> None:
    sides.make("file", content)

    def program(side: Path) -> list[Any]:
        seen: list[Any] = []
        path = side / "file"
        with Reader(path) as reader, ExitStack() as stack:
            both = os.O_RDWR | os.O_APPEND
            fds = [stack.enter_context(opened(path, flags)) for flags in (both, os.O_WRONLY | os.O_APPEND)]
            plain = stack.enter_context(opened(path, os.O_WRONLY))
            for number in range(20):
                os.write(fds[number % 2], b"line %d\n" % number * (number + 1) * 300)
                os.pwrite(plain, b"plain", os.fstat(plain).st_size + 100 * (number % 3))
                os.pwrite(fds[0], b"pwrite(2) appends as well", 0)
                seen.append((os.fstat(reader.fd).st_size, os.lseek(fds[number % 2], 0, os.SEEK_CUR)))
            os.ftruncate(plain, 1000)
            os.write(fds[1], b"after the cut")
            return [*seen, reader.see(), os.pread(fds[0], 4 * MIB, 0)]

    sides.both("program", program)
    sides.assert_same()


def test_programs_run_from_the_mount(sides: Sides) -> None:
    cat = shutil.which("cat") or ""
    for side in (sides.model, sides.tested):
        for name in ("cat", "twin"):
            shutil.copy(cat, side / name)

    def program(side: Path) -> list[Any]:
        with Reader(side / "cat"):
            running = subprocess.Popen([side / "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            seen: list[Any] = [outcome(lambda: os.close(os.open(side / "cat", os.O_WRONLY)))]
            seen += [outcome(lambda: os.truncate(side / "cat", 10))]
            (side / "twin").write_bytes(b"#!/bin/sh\necho a script\n")
            os.rename(side / "twin", side / "cat")
            seen += [subprocess.run([side / "cat"], capture_output=True).stdout]
            return [*seen, *running.communicate(b"still running"), running.returncode]

    expected = ["ETXTBSY", "ETXTBSY", b"a script\n", b"still running", None, 0]
    assert sides.both("program", program) == expected
    sides.mount.assert_blobs_whole()


# What the daemon needs


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """For this process; the daemon has its own limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_descriptors_are_bounded_however_many_readers_there_are(sides: Sides) -> None:
    """2,000 files with a content of their own each, and 500 with one content, all open and read at once."""
    contents = [b"%5d" % number * 1000 for number in [*range(2000), *([0] * 500)]]
    paths = [sides.tested / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    fds: list[int] = []
    try:
        for path, content in zip(paths, contents, strict=True):
            fds.append(os.open(path, os.O_RDONLY))
            assert os.pread(fds[-1], 10, 100) == content[:10]
        assert sides.mount.descriptors < 1100
        for fd, content in zip(fds, contents, strict=True):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, 5, 4000) == content[:5]
        os.truncate(paths[7], 200)
        assert os.pread(fds[7], 5000, 0) == b"    7" * 40
        assert sides.mount.descriptors < 1100
    finally:
        for fd in fds:
            os.close(fd)


def test_backing_files_are_given_back(sides: Sides) -> None:
    """The kernel's table of them is the daemon's to keep small: what is closed is closed there too."""
    sides.make("file", LARGE)
    for number in range(10):
        sides.make(f"other{number}", pattern(10 + number, 300_000))

    def use_all() -> None:
        for path in sorted(sides.tested.iterdir()):
            with Reader(path) as reader, opened(path, os.O_RDWR) as fd:
                os.pwrite(fd, b"%d" % fd, 100)
                reader.see()

    use_all()
    before = sides.mount.descriptors
    for _ in range(20):
        use_all()
    assert sides.mount.descriptors <= before + 20


# Attributes


@pytest.mark.parametrize("prefix", ["user.", "trusted.", "security."])
def test_half_a_name_of_an_attribute_is_refused_as_on_the_disk(sides: Sides, prefix: str) -> None:
    sides.make("file", SMALL)

    def use(side: Path) -> list[object]:
        path = side / "file"
        return [
            outcome(lambda: os.getxattr(path, prefix)),
            outcome(lambda: os.setxattr(path, prefix, b"value")),
            outcome(lambda: os.removexattr(path, prefix)),
            outcome(lambda: os.getxattr(path, prefix + "absent")),
        ]

    assert sides.both("half a name", use) == ["EINVAL"] * 3 + ["ENODATA"]
