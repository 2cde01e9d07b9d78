"""As fsx does: random reads, writes, truncations and maps of one file, and of its model on the disk below.

Seeds are fixed, so a failure comes again; the log of steps that led to it is in the failure's message.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount

LARGEST = 600_000
"""Bytes: beyond what stays in memory, so that staged files take part."""

STEPS = 1_500
REMOUNT_EVERY = 500


class Twins:
    """One file in the mount and its model, always treated alike."""

    def __init__(self, tested: Path, model: Path, seed: int) -> None:
        self.paths = (tested, model)
        self.dice = random.Random(seed)
        self.log: list[str] = []
        self.fds: list[int] = []
        self.open()

    def open(self, flags: int = 0) -> None:
        self.fds = [os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644) for path in self.paths]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def both(self, what: str, step: Callable[[int], object]) -> None:
        self.log.append(what)
        tested, model = (step(fd) for fd in self.fds)
        assert tested == model, f"differs after: {self.log[-30:]}"

    @property
    def size(self) -> int:
        return os.fstat(self.fds[1]).st_size

    def span(self) -> tuple[int, int]:
        start = self.dice.randrange(LARGEST)
        if self.dice.random() < 0.3:
            start &= ~4095
        return start, min(self.dice.choice((1, 500, 4096, 70_000, 300_000)), LARGEST - start)

    def write(self) -> None:
        start, length = self.span()
        data = self.dice.randbytes(length)
        self.both(f"write {start}+{length}", lambda fd: os.pwrite(fd, data, start))

    def append(self) -> None:
        if self.size < LARGEST:
            self.both("append", lambda fd: os.pwrite(fd, b"appended" * 100, os.fstat(fd).st_size))

    def read(self) -> None:
        start, length = self.span()
        self.both(f"read {start}+{length}", lambda fd: os.pread(fd, length, start))

    def truncate(self) -> None:
        size = self.dice.choice((0, self.dice.randrange(LARGEST), self.dice.randrange(self.size + 1)))
        self.both(f"truncate {size}", lambda fd: os.ftruncate(fd, size))

    def map_write(self) -> None:
        start, length = self.span()
        length = min(length, self.size - start)
        if length <= 0:
            return
        data = self.dice.randbytes(length)

        def step(fd: int) -> None:
            with mmap.mmap(fd, 0) as mapped:
                mapped[start : start + length] = data

        self.both(f"map write {start}+{length}", step)

    def map_read(self) -> None:
        start, length = self.span()
        if not self.size:
            return

        def step(fd: int) -> bytes:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
                return mapped[start : start + length]

        self.both(f"map read {start}+{length}", step)

    def copy_range(self) -> None:
        """copy_file_range(2) within the file, where the two ranges do not overlap."""
        start, length = self.span()
        target = self.dice.randrange(LARGEST)
        length = min(length, abs(start - target), LARGEST - max(start, target))
        self.both(
            f"copy {start}+{length} to {target}",
            lambda fd: os.copy_file_range(fd, fd, length, start, target) if length else 0,
        )

    def sync(self) -> None:
        self.both("fsync", os.fsync)

    def reopen(self) -> None:
        flags = self.dice.choice((0, 0, 0, os.O_TRUNC))
        self.log.append(f"reopen {flags}")
        self.close()
        self.open(flags)

    def flush(self) -> None:
        self.both("flush", lambda fd: os.close(os.dup(fd)))

    def compare(self) -> None:
        self.both("size", lambda fd: os.fstat(fd).st_size)
        self.both("compare", lambda fd: os.pread(fd, LARGEST + 1, 0))


@pytest.mark.parametrize("seed", range(4))
def test_random_io_is_as_on_the_disk_below(mount: Mount, scratch: Path, seed: int) -> None:
    twins = Twins(mount.path / "file", scratch / "model", seed)
    steps = [
        *([twins.write] * 4 + [twins.read] * 4 + [twins.map_read] * 3 + [twins.map_write] * 3),
        *([twins.truncate] * 2 + [twins.append, twins.reopen, twins.copy_range, twins.flush, twins.sync]),
    ]
    try:
        for number in range(1, STEPS + 1):
            twins.dice.choice(steps)()
            if number % 10 == 0:
                twins.compare()
            if number % REMOUNT_EVERY == 0:
                twins.close()
                mount.remount()
                twins.log.append("remount")
                twins.open()
                twins.compare()
    finally:
        twins.close()
