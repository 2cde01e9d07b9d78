"""Workloads on the content of a large file."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from itertools import count, repeat

from . import trial as material
from .trial import LARGE, MIB, Trial, expect, expect_same, spawn, spots, write_large
from .workload import AS_BINDFS, AS_PLAIN, READY, Drop, Goal, Steps, workload


def expect_written(path: str, size: int, block: int) -> None:
    """Some blocks of what `write_large` wrote, spread evenly, start with their numbers."""
    with open(path, "rb") as file:
        expect(os.fstat(file.fileno()).st_size == size, f"size of {path}")
        for number in spots(size // block):
            wanted = number.to_bytes(8, "big")
            expect(os.pread(file.fileno(), 8, number * block) == wanted, f"block {number} of {path}")


def await_digest(path: str) -> None:
    """casfs may still be hashing a file after its close(2); others have no such attribute."""
    with contextlib.suppress(OSError):
        os.getxattr(path, "user.casfs.blake3")


@workload("MiB", goal=Goal(0.5, target="plain"))
def seq_write(trial: Trial) -> Steps:
    """write 512 MiB of new content in writes of 1 MiB, until it is closed and hashed"""
    size, block = trial.count(LARGE), trial.block(MIB)
    yield READY
    write_large("written", size * MIB, block)
    await_digest("written")
    yield size
    expect_written("written", size * MIB, MIB)


@workload("MiB", goal=AS_BINDFS)
def write_4k(trial: Trial) -> Steps:
    """write 64 MiB of new content in writes of 4 KiB, until it is closed and hashed"""
    size, block = trial.count(64), trial.block(4096)
    yield READY
    write_large("written", size * MIB, block)
    await_digest("written")
    yield size
    expect_written("written", size * MIB, 4096)


def enter_large(trial: Trial) -> int:
    os.chdir(trial.fixture("large", material.large_file))
    return trial.count(LARGE)


def read_through(path: str = "large") -> int:
    """Reads the file from beginning to end; its size in MiB."""
    buffer, total = [bytearray(MIB)], 0
    fd = os.open(path, os.O_RDONLY)
    while done := os.readv(fd, buffer):
        total += done
    os.close(fd)
    return total // MIB


@workload("MiB", Drop.ALL, goal=AS_PLAIN)
def seq_read_cold(trial: Trial) -> Steps:
    """read 512 MiB in reads of 1 MiB, nothing cached"""
    size = enter_large(trial)
    yield READY
    amount = read_through()
    yield amount
    expect(amount == size, f"{amount} of {size} MiB read")


@workload("MiB", goal=AS_PLAIN)
def seq_read_warm(trial: Trial) -> Steps:
    """open and read 512 MiB in reads of 1 MiB that were read before, again and again"""
    size = enter_large(trial)
    expect(read_through() == size, f"not {size} MiB read")
    yield READY
    amount = trial.repeated(read_through)
    yield amount
    expect(amount % size == 0, "a pass read less than the others")


def random_offsets(trial: Trial, size: int, reads: int) -> list[int]:
    return [4096 * block for block in trial.random("offsets").choices(range(size * MIB // 4096), k=reads)]


def read_at(offsets: Iterable[int]) -> int:
    """Reads 4 KiB at each offset; the number of reads."""
    fd = os.open("large", os.O_RDONLY)
    total = sum(map(len, map(os.pread, repeat(fd), repeat(4096), offsets)))
    os.close(fd)
    return total // 4096


@workload("reads", Drop.ALL, goal=AS_PLAIN)
def random_read_cold(trial: Trial) -> Steps:
    """2,048 reads of 4 KiB at random places of a file of 512 MiB, nothing cached"""
    offsets = random_offsets(trial, enter_large(trial), trial.count(2_048))
    yield READY
    amount = read_at(offsets)
    yield amount
    expect(amount == len(offsets), "a read was short")


@workload("reads", goal=AS_PLAIN)
def random_read(trial: Trial) -> Steps:
    """open a file of 512 MiB that was read before and read 4 KiB at 16,384 random places, again and again"""
    offsets = random_offsets(trial, enter_large(trial), trial.count(16_384))
    read_through()
    yield READY
    amount = trial.repeated(lambda: read_at(offsets))
    yield amount
    expect(amount % len(offsets) == 0, "a read was short")


@workload("writes")
def random_write(trial: Trial) -> Steps:
    """open a file of 64 MiB and write 4 KiB at 8,192 random places, close included"""
    size = trial.count(64)
    write_large("existing", size * MIB, trial.block(MIB))
    offsets = random_offsets(trial, size, trial.count(8_192))
    block = trial.block(4096)
    yield READY
    pwrite = os.pwrite
    fd = os.open("existing", os.O_WRONLY)
    for offset in offsets:
        block[:8] = offset.to_bytes(8, "big")
        pwrite(fd, block, offset)
    os.close(fd)
    yield len(offsets)
    with open("existing", "rb") as file:
        for offset in offsets:
            expect(os.pread(file.fileno(), 8, offset) == offset.to_bytes(8, "big"), f"content at {offset}")


def read_mapped() -> int:
    """Copies the file out of a mapping from beginning to end; its size in MiB."""
    fd = os.open("large", os.O_RDONLY)
    buffer = memoryview(bytearray(MIB))
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapping, memoryview(mapping) as content:
        for start in range(0, len(content), MIB):
            buffer[:] = content[start : start + MIB]
        size = len(content)
    os.close(fd)
    return size // MIB


@workload("MiB", Drop.ALL, goal=AS_PLAIN)
def mmap_read_cold(trial: Trial) -> Steps:
    """read 512 MiB through a shared mapping, nothing cached"""
    size = enter_large(trial)
    yield READY
    amount = read_mapped()
    yield amount
    expect(amount == size, f"{amount} of {size} MiB mapped")


@workload("MiB", goal=AS_PLAIN)
def mmap_read(trial: Trial) -> Steps:
    """open, map and read 512 MiB that were read before, again and again"""
    enter_large(trial)
    read_through()
    yield READY
    yield trial.repeated(read_mapped)


@workload("MiB", goal=Goal(100, target="plain"))
def cp(trial: Trial) -> Steps:
    """cp of a file of 512 MiB that was read before, on the same target, again and again"""
    source = f"{trial.fixture('large', material.large_file)}/large"
    size = read_through(source)
    copies = count()

    def copy() -> int:
        spawn("cp", source, f"copy{next(copies)}")
        return size

    yield READY
    yield trial.repeated(copy)
    expect_same(source, "copy0")
    expect_same(source, f"copy{next(copies) - 1}")
