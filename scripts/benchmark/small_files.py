"""Workloads on small files and on names."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat

from . import trial as material
from .trial import (
    SMALL_FILE,
    Trial,
    WorkloadError,
    create_files,
    expect,
    expect_contents,
    expect_names,
    names,
    spots,
)
from .workload import AS_BINDFS, READY, TWICE_BINDFS, Drop, Goal, Steps, workload

SMALL = 2_000  # files, names or directories in one trial at scale 1
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


@workload("files", goal=AS_BINDFS)
def create(trial: Trial) -> Steps:
    """create, write and close 2,000 files of 4 KiB, each with new content"""
    paths, contents = names(trial.count(SMALL)), trial.contents(trial.count(SMALL))
    yield READY
    create_files(paths, contents)
    yield len(paths)
    expect_contents(paths, contents)


@workload("files", goal=Goal(1.3, workload="create"))
def create_4(trial: Trial) -> Steps:
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
    yield READY
    os.close(starter)
    statuses = [os.waitpid(pid, 0)[1] for pid in clients]
    if any(statuses):
        raise WorkloadError("a client process failed")
    yield CLIENTS * each
    for number in range(CLIENTS):
        expect_names(names(each), f"client{number}")


@workload("files", goal=AS_BINDFS)
def create_dup(trial: Trial) -> Steps:
    """create 2,000 files of 4 KiB with contents that other files on the target have already"""
    paths, contents = names(trial.count(SMALL), "copy"), trial.contents(trial.count(SMALL))
    create_files(names(len(paths), "original"), contents)
    yield READY
    create_files(paths, contents)
    yield len(paths)
    expect_contents(paths, contents)


@workload("stats", Drop.INODES, goal=AS_BINDFS)
def stat_cold(trial: Trial) -> Steps:
    """stat 2,000 files that the kernel does not know"""
    paths = enter_small_files(trial)
    yield READY
    yield call_each(os.stat, paths)


@workload("stats")
def stat_warm(trial: Trial) -> Steps:
    """stat 2,000 files that the kernel knows, again and again"""
    paths = enter_small_files(trial)
    call_each(os.stat, paths)
    yield READY
    yield trial.repeated(lambda: call_each(os.stat, paths))


def open_read_close_all(paths: list[str]) -> int:
    """The number of files; all must be as long as small files are."""
    total = 0
    open_, read, close, flags = os.open, os.read, os.close, os.O_RDONLY
    for path in paths:
        fd = open_(path, flags)
        total += len(read(fd, 2 * SMALL_FILE))
        close(fd)
    expect(total == SMALL_FILE * len(paths), f"{total} bytes read of {len(paths)} files")
    return len(paths)


@workload("files", goal=TWICE_BINDFS)
def open_read_close(trial: Trial) -> Steps:
    """open, read and close 2,000 files of 4 KiB that were read before, again and again"""
    paths = enter_small_files(trial)
    open_read_close_all(paths)
    yield READY
    yield trial.repeated(lambda: open_read_close_all(paths))


@workload("files", Drop.ALL, goal=AS_BINDFS)
def open_read_close_cold(trial: Trial) -> Steps:
    """open, read and close 2,000 files of 4 KiB, nothing cached"""
    paths = enter_small_files(trial)
    yield READY
    yield open_read_close_all(paths)


@workload("files")
def create_fsync(trial: Trial) -> Steps:
    """create, write, fsync and close 500 files of 4 KiB, each with new content"""
    paths, contents = names(trial.count(500)), trial.contents(trial.count(500))
    yield READY
    for path, content in zip(paths, contents, strict=True):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, content)
        os.fsync(fd)
        os.close(fd)
    yield len(paths)
    expect_contents(paths, contents)


@workload("renames", goal=AS_BINDFS)
def rename(trial: Trial) -> Steps:
    """rename 2,000 files to new names in the same directory"""
    old = make_small_files(trial)
    new = names(len(old), "renamed")
    yield READY
    yield call_each(os.rename, old, new)
    expect_names(new)


@workload("renames", goal=AS_BINDFS)
def rename_over(trial: Trial) -> Steps:
    """rename 2,000 files over existing files"""
    old, new = make_small_files(trial), make_small_files(trial, "existing")
    yield READY
    yield call_each(os.rename, old, new)
    expect_names(new)


@workload("unlinks", goal=AS_BINDFS)
def unlink(trial: Trial) -> Steps:
    """unlink 2,000 files of 4 KiB"""
    paths = make_small_files(trial)
    yield READY
    yield call_each(os.unlink, paths)
    expect_names([])


@workload("unlinks", at_rest=False, goal=AS_BINDFS)
def unlink_fresh(trial: Trial) -> Steps:
    """unlink 2,000 files of 4 KiB that were just written and are not on disk yet"""
    paths = make_small_files(trial)
    yield READY
    yield call_each(os.unlink, paths)
    expect_names([])


@workload("mkdirs", goal=AS_BINDFS)
def mkdir(trial: Trial) -> Steps:
    """make 2,000 directories"""
    paths = names(trial.count(SMALL))
    yield READY
    yield call_each(os.mkdir, paths)
    expect_names(paths)


@workload("symlinks", goal=AS_BINDFS)
def symlink(trial: Trial) -> Steps:
    """make 2,000 symbolic links"""
    paths = names(trial.count(SMALL))
    yield READY
    yield call_each(os.symlink, repeat("../some/target"), paths)
    expect(set(map(os.readlink, paths)) == {"../some/target"}, "where links lead to")


@workload("links", goal=AS_BINDFS)
def hardlink(trial: Trial) -> Steps:
    """give 2,000 files a second name"""
    paths = make_small_files(trial)
    second = names(len(paths), "second")
    yield READY
    yield call_each(os.link, paths, second)
    expect_names([*paths, *second])
    expect(all(os.path.samefile(paths[spot], second[spot]) for spot in spots(len(paths))), "second names")


@workload("chmods", goal=AS_BINDFS)
def chmod(trial: Trial) -> Steps:
    """change the mode of 2,000 files"""
    paths = make_small_files(trial)
    yield READY
    yield call_each(os.chmod, paths, repeat(0o600))
    expect({stat.S_IMODE(os.stat(path).st_mode) for path in paths} == {0o600}, "modes")
