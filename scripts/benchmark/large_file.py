"""Workloads on the content of a large file."""

from __future__ import annotations

import mmap
import os

from . import trial as material
from .trial import MIB, Trial, spawn, write_large
from .workload import Drop, Steps, workload

LARGE = 512  # MiB of the large file at scale 1


@workload("MiB")
def seq_write(trial: Trial) -> Steps:
    """write 512 MiB of new content in writes of 1 MiB, close included"""
    size, block = trial.count(LARGE), trial.block(MIB)
    yield
    write_large("written", size * MIB, block)
    return size


@workload("MiB")
def write_4k(trial: Trial) -> Steps:
    """write 512 MiB of new content in writes of 4 KiB, close included"""
    size, block = trial.count(LARGE), trial.block(4096)
    yield
    write_large("written", size * MIB, block)
    return size


def enter_large(trial: Trial) -> int:
    os.chdir(trial.fixture("large", material.large_file))
    return trial.count(LARGE)


def read_through() -> None:
    buffer = [bytearray(MIB)]
    fd = os.open("large", os.O_RDONLY)
    while os.readv(fd, buffer):
        pass
    os.close(fd)


@workload("MiB", Drop.ALL)
def seq_read_cold(trial: Trial) -> Steps:
    """read 512 MiB in reads of 1 MiB, nothing cached"""
    size = enter_large(trial)
    yield
    read_through()
    return size


@workload("MiB")
def seq_read_warm(trial: Trial) -> Steps:
    """open and read 512 MiB in reads of 1 MiB that were read before"""
    size = enter_large(trial)
    read_through()
    yield
    read_through()
    return size


def random_offsets(trial: Trial, size: int, count: int) -> list[int]:
    return [4096 * block for block in trial.random("offsets").choices(range(size * MIB // 4096), k=count)]


def read_at(offsets: list[int]) -> None:
    pread = os.pread
    fd = os.open("large", os.O_RDONLY)
    for offset in offsets:
        pread(fd, 4096, offset)
    os.close(fd)


@workload("reads", Drop.ALL)
def random_read_cold(trial: Trial) -> Steps:
    """2,048 reads of 4 KiB at random places of a file of 512 MiB, nothing cached"""
    offsets = random_offsets(trial, enter_large(trial), trial.count(2_048))
    yield
    read_at(offsets)
    return len(offsets)


@workload("reads")
def random_read(trial: Trial) -> Steps:
    """open a file of 512 MiB that was read before and read 4 KiB at 16,384 random places"""
    offsets = random_offsets(trial, enter_large(trial), trial.count(16_384))
    read_through()
    yield
    read_at(offsets)
    return len(offsets)


@workload("writes")
def random_write(trial: Trial) -> Steps:
    """open a file of 64 MiB and write 4 KiB at 8,192 random places, close included"""
    size = trial.count(64)
    write_large("existing", size * MIB, trial.block(MIB))
    offsets = random_offsets(trial, size, trial.count(8_192))
    block = trial.block(4096)
    yield
    pwrite = os.pwrite
    fd = os.open("existing", os.O_WRONLY)
    for offset in offsets:
        block[:8] = offset.to_bytes(8, "big")
        pwrite(fd, block, offset)
    os.close(fd)
    return len(offsets)


def read_mapped() -> None:
    fd = os.open("large", os.O_RDONLY)
    buffer = bytearray(MIB)
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapping, memoryview(mapping) as content:
        for start in range(0, len(content), MIB):
            buffer[:] = content[start : start + MIB]
    os.close(fd)


@workload("MiB", Drop.ALL)
def mmap_read_cold(trial: Trial) -> Steps:
    """read 512 MiB through a shared mapping, nothing cached"""
    size = enter_large(trial)
    yield
    read_mapped()
    return size


@workload("MiB")
def mmap_read(trial: Trial) -> Steps:
    """open, map and read 512 MiB that were read before"""
    size = enter_large(trial)
    read_through()
    yield
    read_mapped()
    return size


@workload("MiB")
def cp(trial: Trial) -> Steps:
    """cp of a file of 512 MiB on the same target"""
    source = f"{trial.fixture('large', material.large_file)}/large"
    yield
    spawn("cp", source, "copy")
    return trial.count(LARGE)
