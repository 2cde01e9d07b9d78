"""Several handles and maps of a few files at once: whatever is done through one is seen through the others.

The model is a directory of the disk below the mount, with the same handles and maps. Sizes are on both sides
of what stays in memory, and contents come again, so that files share blobs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.mounted.mounts import Mount, casfs
from tests.mounted.sides import Fallocate, Mapping, Sides, fallocate, outcome, pattern

NAMES = st.sampled_from(["a", "b", "c", "d"])
SIZES = st.sampled_from([0, 1, 4096, 70_000, 262_144, 262_145, 300_000, 600_000])
OFFSETS = st.one_of(
    st.sampled_from([0, 0, 1, 4095, 4096, 100_000, 131_072, 262_143, 262_144, 600_000]),
    st.integers(0, 600_000),
)
LENGTHS = st.sampled_from([1, 16, 4096, 5000, 70_000, 262_144, 300_000])
CONTENTS = st.builds(pattern, st.integers(0, 2), SIZES)
CHANGES = st.builds(pattern, st.integers(3, 5), LENGTHS)
FLAGS = st.sampled_from(
    [
        *(os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR),
        *(os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_CREAT),
        *(os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ]
)
KEEP = Fallocate.KEEP_SIZE
FALLOCATE_MODES = [
    *(Fallocate.ALLOCATE, KEEP, Fallocate.PUNCH_HOLE | KEEP, Fallocate.ZERO_RANGE),
    Fallocate.ZERO_RANGE | KEEP,
]
EXAMPLES = int(os.environ.get("CASFS_EXAMPLES", "60"))
MOST = 6
"""Handles, and maps, at a time."""


class Opened:
    """One file, opened on both sides."""

    def __init__(self, fds: dict[Path, int], name: str, flags: int) -> None:
        self.fds = fds
        self.what = f"{name} opened {flags:o}"
        self.readable = flags & os.O_ACCMODE != os.O_WRONLY
        self.writable = flags & os.O_ACCMODE != os.O_RDONLY

    def __repr__(self) -> str:
        return f"<fd {list(self.fds.values())[-1]}, {self.what}>"


class Programs(RuleBasedStateMachine):
    """What several programs do at the same time in one directory."""

    mount: Mount
    folders: Iterator[Path]
    used: list[Sides]

    @initialize(
        contents=st.lists(CONTENTS, min_size=2, max_size=4),
        opened=st.lists(st.tuples(NAMES, FLAGS), min_size=2, max_size=5),
        remounted=st.sampled_from([False] * 9 + [True]),
    )
    def begin(self, contents: list[bytes], opened: list[tuple[str, int]], remounted: bool) -> None:
        model = next(self.folders)
        tested = self.mount.path / model.name
        for folder in (model, tested):
            folder.mkdir()
        self.sides = Sides(self.mount, tested, model)
        self.used.append(self.sides)
        self.remounted = remounted
        self.handles: list[Opened] = []
        self.maps: list[dict[Path, Mapping]] = []
        self.writable_maps: list[dict[Path, Mapping]] = []
        for name, content in zip("abcd", contents, strict=False):
            self.sides.make(name, content)
        for name, flags in opened:
            self.open(name, flags)

    # Machinery

    def pick(self, data: st.DataObject, *, readable: bool = False, writable: bool = False) -> Opened | None:
        fitting = [
            each
            for each in self.handles
            if (each.readable or not readable) and (each.writable or not writable)
        ]
        return data.draw(st.sampled_from(fitting), label="handle") if fitting else None

    def on(self, opened: Opened | None, what: str, call: Callable[[int], Any]) -> None:
        if opened is not None:
            self.sides.both(what, lambda side: call(opened.fds[side]))

    def size(self, opened: Opened) -> int:
        return os.fstat(opened.fds[self.sides.model]).st_size

    # Names

    @rule(data=st.data(), name=NAMES)
    def use_name(self, data: st.DataObject, name: str) -> None:
        """One rule for all, so that most steps are those of handles and maps."""
        step = data.draw(st.sampled_from(NAME_STEPS), label="step")
        step(self, data, name)

    def write_file(self, data: st.DataObject, name: str) -> None:
        content = data.draw(CONTENTS, label="content")
        self.sides.both("write_file", lambda side: (side / name).write_bytes(content))

    def replace_file(self, data: st.DataObject, name: str) -> None:
        """As editors save: a new file under a name of its own, renamed over the old one."""
        content = data.draw(CONTENTS, label="content")

        def replace(side: Path) -> None:
            (side / "new").write_bytes(content)
            os.rename(side / "new", side / name)

        self.sides.both("replace_file", replace)

    def read_file(self, data: st.DataObject, name: str) -> None:
        self.sides.both("read_file", lambda side: (side / name).read_bytes())

    def truncate(self, data: st.DataObject, name: str) -> None:
        size = data.draw(SIZES, label="size")
        self.sides.both("truncate", lambda side: os.truncate(side / name, size))

    def rename(self, data: st.DataObject, name: str) -> None:
        new = data.draw(NAMES, label="new")
        self.sides.both("rename", lambda side: os.rename(side / name, side / new))

    def link(self, data: st.DataObject, name: str) -> None:
        new = data.draw(NAMES, label="new")
        self.sides.both("link", lambda side: os.link(side / name, side / new))

    def unlink(self, data: st.DataObject, name: str) -> None:
        self.sides.both("unlink", lambda side: os.unlink(side / name))

    def stat(self, data: st.DataObject, name: str) -> None:
        def look(side: Path) -> tuple[int, int]:
            status = (side / name).stat()
            return status.st_size, status.st_nlink

        self.sides.both("stat", look)

    def copy(self, data: st.DataObject, name: str) -> None:
        """As cp(1): one request for the whole length."""
        new = data.draw(NAMES, label="new")

        def copy(side: Path) -> int:
            with open(side / name, "rb") as source, open(side / new, "wb") as target:
                return os.copy_file_range(source.fileno(), target.fileno(), 1 << 30)

        self.sides.both("copy", copy)

    # Handles

    @precondition(lambda self: len(self.handles) < MOST)
    @rule(name=NAMES, flags=FLAGS)
    def open(self, name: str, flags: int) -> None:
        fds: dict[Path, int] = {}

        def open_one(side: Path) -> None:
            fds[side] = os.open(side / name, flags, 0o644)

        try:
            self.sides.both(f"open {name} {flags:o}", open_one)
        finally:
            if len(fds) == 2:
                self.handles.append(Opened(fds, name, flags))
            else:
                for fd in fds.values():
                    os.close(fd)

    @precondition(lambda self: self.handles)
    @rule(
        data=st.data(),
        steps=st.lists(st.deferred(lambda: st.sampled_from(HANDLE_STEPS)), min_size=1, max_size=6),
    )
    def use_handles(self, data: st.DataObject, steps: list[Step]) -> None:
        for step in steps:
            step(self, data)

    def close(self, data: st.DataObject) -> None:
        opened = self.pick(data)
        if opened is not None:
            self.handles.remove(opened)
            self.on(opened, "close", os.close)

    def close_a_duplicate(self, data: st.DataObject) -> None:
        """What every program does that was started with the descriptor."""
        self.on(self.pick(data), "flush", lambda fd: os.close(os.dup(fd)))

    def pread(self, data: st.DataObject) -> None:
        offset, length = data.draw(OFFSETS, label="offset"), data.draw(LENGTHS, label="length")
        self.on(self.pick(data), f"pread {offset}+{length}", lambda fd: os.pread(fd, length, offset))

    def pwrite(self, data: st.DataObject) -> None:
        """To the end of the file on a handle with O_APPEND: pwrite(2), BUGS."""
        offset, content = data.draw(OFFSETS, label="offset"), data.draw(CHANGES, label="content")
        writable = data.draw(st.sampled_from([True] * 9 + [False]), label="writable")
        opened = self.pick(data, writable=writable)
        self.on(opened, f"pwrite {offset}", lambda fd: os.pwrite(fd, content, offset))

    def ftruncate(self, data: st.DataObject) -> None:
        size = data.draw(SIZES, label="size")
        self.on(self.pick(data), f"ftruncate {size}", lambda fd: os.ftruncate(fd, size))

    def fstat(self, data: st.DataObject) -> None:
        def look(fd: int) -> tuple[int, int]:
            status = os.fstat(fd)
            return status.st_size, status.st_nlink

        self.on(self.pick(data), "fstat", look)

    def fsync(self, data: st.DataObject) -> None:
        opened = self.pick(data)
        if opened is not None:
            os.fsync(opened.fds[self.sides.tested])

    def copy_range(self, data: st.DataObject) -> None:
        start, end = data.draw(OFFSETS, label="start"), data.draw(OFFSETS, label="end")
        length = data.draw(LENGTHS, label="length")
        readable = data.draw(st.sampled_from([True] * 9 + [False]), label="readable")
        source, target = self.pick(data, readable=readable), self.pick(data, writable=True)
        if source is None or target is None:
            return
        self.sides.both(
            f"copy_file_range {start}+{length} to {end}",
            lambda side: os.copy_file_range(source.fds[side], target.fds[side], length, start, end),
        )

    def seek(self, data: st.DataObject) -> None:
        """Where holes are is the file system's choice; that they read as zeros is not."""
        opened = self.pick(data, readable=True)
        if opened is None:
            return
        offset, hole = data.draw(OFFSETS, label="offset"), data.draw(st.booleans(), label="hole")
        content = os.pread(opened.fds[self.sides.model], self.size(opened), 0)
        whence, tested = os.SEEK_HOLE if hole else os.SEEK_DATA, opened.fds[self.sides.tested]
        place = outcome(lambda: os.lseek(tested, offset, whence))
        if isinstance(place, str):
            assert place == "ENXIO"
            assert not content[offset:].strip(b"\0"), "data was not found"
            assert offset >= len(content) or not hole, "every file has a hole at its end"
            return
        assert offset <= place <= len(content)
        assert offset < len(content), "nothing is found beyond the end"
        if hole:
            assert not content[place : place + 1].strip(b"\0"), f"data at {place}, not a hole"
        else:
            assert not content[offset:place].strip(b"\0"), f"data before {place} was passed over"

    def fallocate(self, data: st.DataObject) -> None:
        """Without the accelerator there is none, and nothing happens to the file."""
        mode = data.draw(st.sampled_from(FALLOCATE_MODES), label="mode")
        offset, length = data.draw(OFFSETS, label="offset"), data.draw(LENGTHS, label="length")
        opened = self.pick(data)
        if opened is None:
            return
        if self.sides.native:
            self.on(opened, f"fallocate {mode!r}", lambda fd: fallocate(fd, mode, offset, length))
        else:
            failed = outcome(lambda: fallocate(opened.fds[self.sides.tested], mode, offset, length))
            assert failed in ("ENOTSUP", "EBADF"), failed

    # Maps

    @precondition(lambda self: self.handles and len(self.maps) < MOST)
    @rule(data=st.data(), private=st.booleans(), write=st.booleans())
    def map(self, data: st.DataObject, private: bool, write: bool) -> None:
        opened = self.pick(data, readable=True, writable=write and not private)
        if opened is None or not self.size(opened):
            return
        length = self.size(opened)
        made: dict[Path, Mapping] = {}
        self.maps.append(made)
        if write:
            self.writable_maps.append(made)

        def map_one(side: Path) -> None:
            made[side] = Mapping(opened.fds[side], length, write=write, private=private)

        self.sides.both("mmap", map_one)

    @precondition(lambda self: self.maps)
    @rule(
        data=st.data(),
        steps=st.lists(st.deferred(lambda: st.sampled_from(MAP_STEPS)), min_size=1, max_size=6),
    )
    def use_maps(self, data: st.DataObject, steps: list[Step]) -> None:
        for step in steps:
            step(self, data)

    def map_read(self, data: st.DataObject) -> None:
        offset, length = data.draw(OFFSETS, label="offset"), data.draw(LENGTHS, label="length")
        if self.maps:
            mapped = data.draw(st.sampled_from(self.maps), label="map")
            offset %= mapped[self.sides.model].length
            self.sides.both(f"map_read {offset}+{length}", lambda side: mapped[side].read(offset, length))

    def map_write(self, data: st.DataObject) -> None:
        offset, content = data.draw(OFFSETS, label="offset"), data.draw(CHANGES, label="content")
        if self.writable_maps:
            mapped = data.draw(st.sampled_from(self.writable_maps), label="map")
            length = mapped[self.sides.model].length
            offset %= length
            content = content[: length - offset]
            self.sides.both(f"map_write {offset}", lambda side: mapped[side].write(offset, content))

    def msync(self, data: st.DataObject) -> None:
        if self.writable_maps:
            mapped = data.draw(st.sampled_from(self.writable_maps), label="map")
            self.sides.both("msync", lambda side: mapped[side].sync())

    def munmap(self, data: st.DataObject) -> None:
        if self.maps:
            mapped = data.draw(st.sampled_from(self.maps), label="map")
            self.maps = [each for each in self.maps if each is not mapped]
            self.writable_maps = [each for each in self.writable_maps if each is not mapped]
            self.sides.both("munmap", lambda side: mapped[side].close())

    # Everything

    @rule()
    def compare(self) -> None:
        self.sides.assert_same()
        for opened in self.handles:
            if opened.readable:
                self.on(opened, "pread of all", lambda fd: os.pread(fd, 1 << 21, 0))
        for mapped in self.maps:
            self.sides.both("map", lambda side, mapped=mapped: mapped[side].read(0, mapped[side].length))

    def teardown(self) -> None:
        if not hasattr(self, "maps"):
            return
        try:
            self.compare()
        finally:
            for opened in self.handles:
                for fd in opened.fds.values():
                    os.close(fd)
            for mapped in self.maps:
                for mapping in mapped.values():
                    mapping.close()
        self.sides.assert_same()
        self.mount.assert_blobs_whole()
        if self.remounted:
            self.mount.remount()
            self.sides.assert_same()


P = Programs
Step = Callable[[Programs, st.DataObject], None]
NAME_STEPS = [
    *(P.write_file, P.replace_file, P.read_file, P.truncate, P.rename, P.link, P.unlink, P.stat),
    *(P.copy, P.copy, P.write_file),
]
HANDLE_STEPS: list[Step] = [
    *(P.pread, P.pread, P.pread, P.pwrite, P.pwrite, P.pwrite, P.copy_range, P.copy_range, P.ftruncate),
    *(P.fstat, P.fsync, P.close_a_duplicate, P.close, P.close, P.seek, P.fallocate),
]
MAP_STEPS: list[Step] = [P.map_read, P.map_read, P.map_read, P.map_write, P.map_write, P.msync, P.munmap]


@pytest.fixture
def disk_mount(tmp_path: Path, new_mount: Callable[..., Mount]) -> Mount:
    """The store on a disk: what the kernel reads by itself is read from there."""
    mount = new_mount(tmp_path / "store").start()
    mount.assert_mode()
    return mount


def test_whatever_one_handle_does_the_others_see(disk_mount: Mount, tmp_path: Path) -> None:
    class Machine(Programs):
        mount = disk_mount
        folders = (tmp_path / f"example{number}" for number in itertools.count())
        used: list[Sides] = []  # noqa: RUF012

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=50, suppress_health_check=list(HealthCheck)
        ),
    )
    disk_mount.remount()
    for sides in Machine.used:
        sides.assert_same()
    disk_mount.stop()
    casfs("scrub", "--restart", disk_mount.store)
