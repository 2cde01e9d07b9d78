"""What the kernel demands of a file system whose files it reads by itself, unnoticed by programs.

FUSE passthrough (Linux 6.9, Documentation/filesystems/fuse-passthrough.rst) lets the kernel read a blob's own
file, and lets readers and writers of one inode share a staged file. Each test is one rule; all of them hold
without the accelerator as well. Most compare what programs observe with the disk below the mount.
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.mounted.mounts import Mount
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
    pattern,
)

CONTENTS = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])


def test_passthrough_is_used_where_it_can_be(common_mount: Mount) -> None:
    """Otherwise the tests of this module would hold without being about it."""
    features = common_mount.status["features"]
    major, minor = (int(number) for number in os.uname().release.split(".")[:2])
    able = common_mount.mode == "native" and os.getuid() == 0 and (major, minor) >= (6, 9)
    assert (features.get("passthrough", "off: not there") == "on") == able


# A reader that was there first


@CONTENTS
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR], ids=["write-only", "read-write"])
def test_a_reader_that_was_there_first_sees_what_a_writer_writes(
    sides: Sides, content: bytes, flags: int
) -> None:
    sides.make("file", content)

    def program(side: Path) -> list[Any]:
        with Reader(side / "file") as reader:
            seen = [reader.see()]
            with opened(side / "file", flags) as writer:
                for offset in (5000, 0, PAGE - 2, len(content) - 3, len(content) + 10_000):
                    os.pwrite(writer, b"written", offset)
                    seen.append(reader.see())
            with opened(side / "file", flags) as writer:
                os.pwrite(writer, b"once more", 70_000)
                seen.append(reader.see())
            return [*seen, reader.see()]

    assert len(set(sides.both("program", program))) == 7
    sides.assert_same()
    sides.mount.assert_blobs_whole()


@CONTENTS
def test_a_reader_that_was_there_first_sees_what_a_writer_maps_and_writes(
    sides: Sides, content: bytes
) -> None:
    sides.make("file", content)

    def program(side: Path) -> list[Any]:
        with Reader(side / "file") as reader:
            seen = [reader.see()]
            with opened(side / "file", os.O_RDWR) as fd:
                writer = Mapping(fd, len(content), write=True)
                writer.write(5000, b"mapped")
                seen.append(reader.see())
                os.pwrite(fd, b"written", 5003)
                seen += [writer.read(5000, 20), reader.see()]
            writer.write(80_000, b"after close(2)")
            seen.append(reader.see())
            writer.close()
            return [*seen, reader.see()]

    assert b"mapwritten" in sides.both("program", program)[-1][1]
    sides.assert_same()
    sides.mount.assert_blobs_whole()


@CONTENTS
@pytest.mark.parametrize("how", ["ftruncate", "truncate", "O_TRUNC"])
def test_a_reader_that_was_there_first_sees_a_truncation(sides: Sides, content: bytes, how: str) -> None:
    sides.make("file", content)

    def cut(path: Path, size: int) -> None:
        if how == "truncate":
            os.truncate(path, size)
        else:
            with opened(path, os.O_RDWR | (os.O_TRUNC if how == "O_TRUNC" else 0)) as fd:
                os.ftruncate(fd, size)

    def program(side: Path) -> list[Any]:
        with Reader(side / "file") as reader:
            seen: list[Any] = [reader.see()]
            for size in (50_001, 10, 0, 90_000):
                cut(side / "file", size)
                seen += [reader.see(), reader.see(0, 5), reader.see(60_000, 10)]
            with opened(side / "file", os.O_WRONLY) as fd:
                os.pwrite(fd, b"new", 60_000)
                seen.append(reader.see())
            return seen

    assert "EFAULT" in {mapped for _, _, mapped in sides.both("program", program)}
    sides.assert_same()
    sides.mount.assert_blobs_whole()


def test_a_writer_then_a_reader_then_a_writer(sides: Sides) -> None:
    """The reader comes to a file that is staged already, and outlives the one who staged it."""

    def program(side: Path) -> list[Any]:
        first = os.open(side / "file", os.O_WRONLY | os.O_CREAT)
        os.pwrite(first, LARGE, 0)
        with Reader(side / "file") as reader:
            seen = [reader.see()]
            os.pwrite(first, b"first", 100)
            seen.append(reader.see())
            second = os.open(side / "file", os.O_RDWR)
            os.pwrite(second, b"second", 200)
            seen.append(reader.see())
            os.close(first)
            os.pwrite(second, b"third", 300)
            seen.append(reader.see())
            os.close(second)
            with opened(side / "file", os.O_WRONLY) as third:
                os.pwrite(third, b"fourth", 400)
                seen.append(reader.see())
            with Reader(side / "file") as other:
                return [*seen, reader.see(), other.see()]

    assert len(set(sides.both("program", program))) == 5
    sides.assert_same()
    sides.mount.assert_blobs_whole()


# One mode and one backing file for each open inode

Action = Callable[[ExitStack, Path], Any]


def _read(stack: ExitStack, path: Path) -> Any:
    fd = stack.enter_context(opened(path))
    return os.pread(fd, 4 * MIB, 0)


def _map(stack: ExitStack, path: Path) -> Any:
    fd = stack.enter_context(opened(path))
    size = os.fstat(fd).st_size
    return stack.enter_context(Mapping(fd, size)).read(0, size) if size else b""


def _read_directly(stack: ExitStack, path: Path) -> Any:
    fd = stack.enter_context(opened(path, os.O_RDONLY | os.O_DIRECT))
    with mmap.mmap(-1, PAGE) as buffer:
        return os.preadv(fd, [buffer], 0), bytes(buffer)


def _append(stack: ExitStack, path: Path) -> Any:
    fd = stack.enter_context(opened(path, os.O_WRONLY | os.O_APPEND))
    return os.write(fd, b"by _append")


def _read_and_write(stack: ExitStack, path: Path) -> Any:
    fd = stack.enter_context(opened(path, os.O_RDWR))
    return os.pread(fd, 4 * MIB, 0), os.pwrite(fd, b"by _read_and_write", 600), os.pread(fd, 4 * MIB, 0)


def _only_open_for_both(stack: ExitStack, path: Path) -> Any:
    fd = stack.enter_context(opened(path, os.O_RDWR))
    return os.pread(fd, 4 * MIB, 0)


def _map_and_write(stack: ExitStack, path: Path) -> Any:
    fd = stack.enter_context(opened(path, os.O_RDWR))
    size = os.fstat(fd).st_size
    if not size:
        return 0
    mapped = stack.enter_context(Mapping(fd, size, write=True))
    return mapped.write(700 % size, b"!"), mapped.read(0, size)


def _map_close_and_write(stack: ExitStack, path: Path) -> Any:
    """The mapping outlives its handle, and is written to at the end as well."""
    with opened(path, os.O_RDWR) as fd:
        size = os.fstat(fd).st_size
        if not size:
            return 0
        mapped = stack.enter_context(Mapping(fd, size, write=True))
    there = min(size, os.stat(path).st_size)
    stack.callback(lambda: os.stat(path).st_size >= size and mapped.write(900 % size, b"late"))
    return mapped.write(800 % there, b"?"), mapped.read(0, there)


def _truncate(stack: ExitStack, path: Path) -> Any:
    return os.fstat(stack.enter_context(opened(path, os.O_WRONLY | os.O_TRUNC))).st_size


ACTIONS: list[Action] = [
    _read,
    _map,
    _only_open_for_both,
    _append,
    _read_and_write,
    _map_and_write,
    _map_close_and_write,
    _truncate,
]


@pytest.mark.parametrize("content", [b"", pattern(0, 5000), pattern(0, 300_000)], ids=["empty", "5k", "300k"])
def test_no_order_of_opens_fails_with_eio(sides: Sides, content: bytes) -> None:
    """All handles stay open, so that each inode has every mix of them; then all are gone but the last."""

    def program(side: Path, actions: tuple[Action, ...]) -> list[Any]:
        path = side / "file"
        path.write_bytes(content)
        with ExitStack() as all_of_them:
            seen = [action(all_of_them, path) for action in actions]
        with ExitStack() as afterwards:
            return [*seen, _read(afterwards, path), _map(afterwards, path)]

    pairs = [*itertools.product(ACTIONS, repeat=2)]
    directly = [(_read_directly, *pair) for pair in pairs] + [(*pair, _read_directly) for pair in pairs]
    for actions in (*itertools.product(ACTIONS, repeat=3), *directly):
        names = ", ".join(action.__name__ for action in actions)
        found = sides.both(names, lambda side, actions=actions: program(side, actions))
        assert not isinstance(found, str), names
        sides.both("unlink", lambda side: os.unlink(side / "file"))


@CONTENTS
def test_a_shared_map_of_a_handle_for_both_does_not_keep_readers_out(sides: Sides, content: bytes) -> None:
    """Such a map has an inode without passthrough use the page cache, and then passthrough fails with EIO."""
    sides.make("file", content)

    def program(side: Path) -> list[Any]:
        with opened(side / "file", os.O_RDWR) as fd, Mapping(fd, len(content)) as only_read:
            seen: list[Any] = [only_read.read(0, 5000)]
            with Reader(side / "file") as reader, Mapping(fd, len(content), write=True) as writer:
                seen.append(reader.see())
                writer.write(4000, b"mapped")
                seen += [reader.see(), only_read.read(0, 5000)]
                os.pwrite(fd, b"written", 4003)
                with Reader(side / "file") as late:
                    seen += [reader.see(), late.see(), writer.read(0, 5000), only_read.read(0, 5000)]
            return seen

    sides.both("program", program)
    sides.assert_same()
    sides.mount.assert_blobs_whole()


@CONTENTS
def test_opening_for_both_and_only_reading_changes_nothing(sides: Sides, content: bytes) -> None:
    path = sides.tested / "file"
    path.write_bytes(content)
    before, blobs = os.stat(path), sides.mount.usage()["total"]["blobs"]
    with opened(path, os.O_RDWR) as fd:
        assert os.pread(fd, 4 * MIB, 0) == content
        assert digest(path) == hexdigest(content)
        with Reader(path) as reader:
            assert reader.see() == (len(content), content, content)
        with Mapping(fd, len(content)) as mapped:
            assert mapped.read(0, len(content)) == content
    after = os.stat(path)
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_size) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_size,
    )
    assert digest(path) == hexdigest(content)
    assert sides.mount.usage()["total"]["blobs"] == blobs


# A blob is never written to


def _by_write(path: Path, size: int) -> None:
    with opened(path, os.O_WRONLY) as fd:
        os.pwrite(fd, b"changed", size // 2)


def _by_map(path: Path, size: int) -> None:
    with opened(path, os.O_RDWR) as fd, Mapping(fd, size, write=True) as mapped:
        mapped.write(size // 2, b"changed")


def _by_truncate(path: Path, size: int) -> None:
    os.truncate(path, size - 10_000)


def _by_opening(path: Path, size: int) -> None:
    with opened(path, os.O_WRONLY | os.O_TRUNC) as fd:
        os.write(fd, b"short")


def _by_copy(path: Path, size: int) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.copy_file_range(fd, fd, 10_000, 0, size // 2)


@CONTENTS
@pytest.mark.parametrize("change", [_by_write, _by_map, _by_truncate, _by_opening, _by_copy])
@pytest.mark.parametrize("first", ["first", "second", "neither"])
def test_a_second_inode_with_the_same_content_keeps_its_bytes(
    sides: Sides, content: bytes, change: Callable[[Path, int], None], first: str
) -> None:
    """Only one inode at a time is read from the blob's own file: whichever it is, and whichever changes."""
    for name in ("first", "second", "third"):
        sides.make(name, content)

    def program(side: Path) -> list[Any]:
        with ExitStack() as stack:
            names = [name for name in (first, "first", "second") if first != "neither" and name != "neither"]
            readers = [stack.enter_context(Reader(side / name)) for name in dict.fromkeys(names)]
            seen: list[Any] = [reader.see() for reader in readers]
            change(side / "first", len(content))
            seen += [reader.see() for reader in readers]
            seen += [(side / name).read_bytes() for name in ("second", "third")]
            change(side / "second", len(content))
            return [*seen, *(reader.see() for reader in readers)]

    sides.both("program", program)
    sides.assert_same()
    assert (sides.tested / "third").read_bytes() == content
    assert digest(sides.tested / "third") == hexdigest(content)
    sides.mount.assert_blobs_whole()


@pytest.mark.parametrize("readers", [0, 1], ids=["alone", "with a reader"])
@CONTENTS
def test_a_shared_writable_map_of_a_sealed_file_never_changes_the_blob(
    sides: Sides, content: bytes, readers: int
) -> None:
    path, twin = sides.tested / "file", sides.tested / "twin"
    path.write_bytes(content)
    twin.write_bytes(content)
    with ExitStack() as stack:
        for _ in range(readers):
            stack.enter_context(Reader(path)).see()
        fd = stack.enter_context(opened(path, os.O_RDWR))
        mapped = stack.enter_context(Mapping(fd, len(content), write=True))
        for offset in range(0, len(content), PAGE):
            mapped.write(offset, b"#")
        mapped.sync()
        sides.mount.assert_blobs_whole()
        assert twin.read_bytes() == content
        (sides.tested / "third").write_bytes(content)
        assert (sides.tested / "third").read_bytes() == content
    changed = bytearray(content)
    changed[::PAGE] = b"#" * len(changed[::PAGE])
    assert path.read_bytes() == changed
    assert digest(path) == hexdigest(changed)
    assert digest(twin) == digest(sides.tested / "third") == hexdigest(content)
    sides.mount.assert_blobs_whole()


def test_there_is_no_moment_without_the_blob(sides: Sides) -> None:
    """While a writer takes the readers' file from the filestore, the other inodes have it."""
    content = pattern(9, 2 * MIB)
    path, twin = sides.tested / "file", sides.tested / "twin"
    twin.write_bytes(content)
    blob = next((sides.mount.store / "blobs").glob(f"*/{hexdigest(content)}"))
    ended, wrong = threading.Event(), list[str]()

    def watch() -> None:
        while not ended.is_set():
            if not blob.exists():
                wrong.append("no blob")
            with opened(twin, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, 4 * PAGE) as buffer:
                if os.preadv(fd, [buffer], MIB) != 4 * PAGE or buffer[:] != content[MIB : MIB + 4 * PAGE]:
                    wrong.append("other bytes")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(30):
            path.write_bytes(content)
            with Reader(path) as reader, opened(path, os.O_RDWR) as fd:
                os.pwrite(fd, b"%9d" % number, MIB)
                assert reader.see(MIB, 9)[1:] == (b"%9d" % number, b"%9d" % number)
    finally:
        ended.set()
        watcher.join()
    assert wrong == []
    sides.mount.assert_blobs_whole()


def test_pages_cached_before_are_not_shown_after_a_writer(sides: Sides) -> None:
    """An inode is read through the daemon, written with a reader there, and read through the daemon again."""
    new = bytearray(LARGE)
    new[MIB : MIB + 7] = b"written"

    def program(side: Path) -> list[Any]:
        for name in ("first", "second"):
            (side / name).write_bytes(LARGE)
        with Reader(side / "first"), Reader(side / "second") as reader:
            seen = [reader.see()]
        with Reader(side / "second") as reader, opened(side / "second", os.O_WRONLY) as fd:
            os.pwrite(fd, b"written", MIB)
            seen.append(reader.see())
        (side / "third").write_bytes(new)
        with Reader(side / "third") as reader, Reader(side / "second") as other:
            return [*seen, reader.see(), other.see()]

    assert sides.both("program", program)[1:] == [(len(new), bytes(new), bytes(new))] * 3
