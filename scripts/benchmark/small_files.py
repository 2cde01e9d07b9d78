"""Workloads on small files and on names."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat

from . import trial as material
from .trial import SMALL_FILE, Trial, WorkloadError, create_files, names
from .workload import Drop, Steps, workload

SMALL = 2_000  # files, names or directories in one trial at scale 1
PASSES = 10  # times a warm loop goes over its files, else it would be over in a few milliseconds
CLIENTS = 4


def call_each(operation: Callable[..., object], *columns: Iterable[object]) -> int:
    """Calls the operation once per row of the columns, in the cheapest loop there is; the number of calls."""
    return deque(enumerate(map(operation, *columns), 1), maxlen=1).pop()[0]


def make_small_files(trial: Trial, prefix: str = "f") -> list[str]:
    paths = names(trial.count(SMALL), prefix)
    create_files(paths, trial.contents(len(paths), purpose=prefix))
    return paths


def enter_small_files(trial: Trial) -> list[str]:
    os.chdir(trial.fixture("small-files", material.small_files))
    return names(trial.count(SMALL))


@workload("files")
def create(trial: Trial) -> Steps:
    """create, write and close 2,000 files of 4 KiB, each with new content"""
    paths, contents = names(trial.count(SMALL)), trial.contents(trial.count(SMALL))
    yield
    create_files(paths, contents)
    return len(paths)


@workload("files")
def create_dup(trial: Trial) -> Steps:
    """create 2,000 files of 4 KiB with contents that other files on the target have already"""
    paths, contents = names(trial.count(SMALL), "copy"), trial.contents(trial.count(SMALL))
    create_files(names(len(paths), "original"), contents)
    yield
    create_files(paths, contents)
    return len(paths)


@workload("files")
def create_parallel(trial: Trial) -> Steps:
    """four processes at once create 1,000 files of 4 KiB each, in directories of their own; their sum"""
    each = trial.count(SMALL // 2)
    start, starter = os.pipe()
    ready, announce = os.pipe()
    clients = []
    for number in range(CLIENTS):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(starter)
                os.mkdir(f"client{number}")
                os.chdir(f"client{number}")
                contents = trial.contents(each, purpose=f"client {number}")
                os.write(announce, b".")
                os.read(start, 1)
                create_files(names(each), contents)
                status = 0
            finally:
                os._exit(status)
        clients.append(pid)
    os.close(announce)
    waiting = CLIENTS
    while waiting and os.read(ready, 1):
        waiting -= 1
    yield
    os.close(starter)
    statuses = [os.waitpid(pid, 0)[1] for pid in clients]
    if any(statuses):
        raise WorkloadError("a client process failed")
    return CLIENTS * each


@workload("stats", Drop.INODES)
def stat_cold(trial: Trial) -> Steps:
    """stat 2,000 files that the kernel does not know"""
    paths = enter_small_files(trial)
    yield
    return call_each(os.stat, paths)


@workload("stats")
def stat_warm(trial: Trial) -> Steps:
    """stat 2,000 files ten times that the kernel knows"""
    paths = enter_small_files(trial)
    call_each(os.stat, paths)
    yield
    return sum(call_each(os.stat, paths) for _ in range(PASSES))


def open_read_close_all(paths: list[str]) -> None:
    open_, read, close, flags = os.open, os.read, os.close, os.O_RDONLY
    for path in paths:
        fd = open_(path, flags)
        read(fd, 2 * SMALL_FILE)
        close(fd)


@workload("files")
def open_read_close(trial: Trial) -> Steps:
    """open, read and close 2,000 files of 4 KiB, warm"""
    paths = enter_small_files(trial)
    open_read_close_all(paths)
    yield
    open_read_close_all(paths)
    return len(paths)


@workload("renames")
def rename(trial: Trial) -> Steps:
    """rename 2,000 files to new names in the same directory"""
    old = make_small_files(trial)
    new = names(len(old), "renamed")
    yield
    return call_each(os.rename, old, new)


@workload("renames")
def rename_over(trial: Trial) -> Steps:
    """rename 2,000 files over existing files"""
    old, new = make_small_files(trial), make_small_files(trial, "existing")
    yield
    return call_each(os.rename, old, new)


@workload("unlinks")
def unlink(trial: Trial) -> Steps:
    """unlink 2,000 files of 4 KiB"""
    paths = make_small_files(trial)
    yield
    return call_each(os.unlink, paths)


@workload("unlinks", at_rest=False)
def unlink_fresh(trial: Trial) -> Steps:
    """unlink 2,000 files of 4 KiB that were just written and are not on disk yet"""
    paths = make_small_files(trial)
    yield
    return call_each(os.unlink, paths)


@workload("mkdirs")
def mkdir(trial: Trial) -> Steps:
    """make 2,000 directories"""
    paths = names(trial.count(SMALL))
    yield
    return call_each(os.mkdir, paths)


@workload("symlinks")
def symlink(trial: Trial) -> Steps:
    """make 2,000 symbolic links"""
    paths = names(trial.count(SMALL))
    yield
    return call_each(os.symlink, repeat("../some/target"), paths)


@workload("links")
def hardlink(trial: Trial) -> Steps:
    """give 2,000 files a second name"""
    paths = make_small_files(trial)
    second = names(len(paths), "second")
    yield
    return call_each(os.link, paths, second)


@workload("chmods")
def chmod(trial: Trial) -> Steps:
    """change the mode of 2,000 files"""
    paths = make_small_files(trial)
    yield
    return call_each(os.chmod, paths, repeat(0o600))
