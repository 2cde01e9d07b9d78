"""Workloads on files that are written again and again: logs, databases, archives.

Beside the rate they tell what that takes of the disk, as a multiple of what is in the end: `hot` right after
the last close(2), and `at rest`, when the file has been hashed and what nobody needs has been collected.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles

from .large_file import await_digest
from .trial import KIB, MIB, Trial, expect, spawn, write_large
from .workload import READY, Goal, Steps, workload

HOT, AT_REST = "disk while hot", "disk at rest"
MOST, SLOWEST = "ms of 99 % but the first", "ms of the slowest but the first"
DISK = {HOT: 2.2, AT_REST: 1.05}
"""Not 1, for what else is being written or removed at that moment."""

NEARLY = Goal(0.3, target="bindfs")
LINE = 100
BLOCK = 4 * KIB


def needed(top: str) -> int:
    """Bytes of the files below a folder in whole blocks, as most file systems keep them; st_blocks is for
    each file system to define."""
    sizes = [os.lstat(f"{folder}/{file}").st_size for folder, _, files in os.walk(top) for file in files]
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


class Disk:
    """What a trial takes of the disk, where the bench knows what is below the target."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        trial.collect()
        self._before = trial.stored()

    def note(self, when: str) -> None:
        """Compare what is stored with what is in the working directory."""
        now = self._trial.stored()
        if now is not None and self._before is not None:
            self._trial.figures[when] = (now - self._before) / needed(".")

    def note_both(self) -> None:
        """While hot, and at rest."""
        self.note(HOT)
        for folder, _, files in os.walk("."):
            for file in files:
                await_digest(f"{folder}/{file}")
        self._trial.collect()
        self.note(AT_REST)


def append(path: str, data: bytes, times: int) -> list[float]:
    """Open the file, append, and close it, so often; how many seconds each took."""
    open_, write, close, clock = os.open, os.write, os.close, time.perf_counter
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    took, before = [], clock()
    for _ in range(times):
        fd = open_(path, flags, 0o644)
        write(fd, data)
        close(fd)
        now = clock()
        took.append(now - before)
        before = now
    return took


def note_times(trial: Trial, took: list[float]) -> None:
    later = took[1:] or took
    trial.figures[MOST] = 1000 * (quantiles(later, n=100)[98] if len(later) > 1 else later[0])
    trial.figures[SLOWEST] = 1000 * max(later)


def expect_end(path: str, size: int, end: bytes) -> None:
    """A file has that size, and ends so."""
    with open(path, "rb") as file:
        expect(os.fstat(file.fileno()).st_size == size, f"size of {path}")
        expect(os.pread(file.fileno(), len(end), size - len(end)) == end, f"end of {path}")


@workload("appends", goal=NEARLY, limits=DISK)
def append_log(trial: Trial) -> Steps:
    """append 8 KiB to a file 800 times, with an open and a close each"""
    times, data = trial.count(800), trial.random().randbytes(8 * KIB)
    disk = Disk(trial)
    yield READY
    append("log", data, times)
    yield times
    expect_end("log", times * len(data), data)
    disk.note_both()


def append_lines(trial: Trial, mebibytes: int) -> Steps:
    size = trial.count(mebibytes) * MIB
    times, data = trial.count(300), trial.random().randbytes(LINE)
    disk = Disk(trial)
    write_large("log", size, trial.block(MIB))
    await_digest("log")
    yield READY
    took = append("log", data, times)
    yield times
    note_times(trial, took)
    expect_end("log", size + times * LINE, data * 2 if times > 1 else data)
    disk.note_both()


@workload("appends", goal=NEARLY, limits=DISK | {MOST: 1})
def append_line(trial: Trial) -> Steps:
    """append 100 bytes to a log of 64 MiB 300 times, with an open and a close each"""
    yield from append_lines(trial, 64)


@workload("appends", slow=True, goal=NEARLY, limits=DISK | {MOST: 1})
def append_line_1g(trial: Trial) -> Steps:
    """append 100 bytes to a log of 1 GiB 300 times, with an open and a close each"""
    yield from append_lines(trial, 1024)


@workload("writes", goal=NEARLY, limits=DISK)
def rewrite_part(trial: Trial) -> Steps:
    """write 4 KiB in a file of 64 MiB at 300 places, with an open and a close each"""
    size, times = trial.count(64) * MIB, trial.count(300)
    data = trial.random().randbytes(4 * KIB)
    disk = Disk(trial)
    write_large("image", size, trial.block(MIB))
    await_digest("image")
    places = [4 * KIB * block for block in trial.random("places").sample(range(size // (4 * KIB) - 1), times)]
    yield READY
    for place in places:
        fd = os.open("image", os.O_WRONLY)
        os.pwrite(fd, data, place)
        os.close(fd)
    yield times
    with open("image", "rb") as file:
        expect(os.fstat(file.fileno()).st_size == size, "size of image")
        for place in places:
            expect(os.pread(file.fileno(), len(data), place) == data, f"content at {place}")
    disk.note_both()


@contextlib.contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """As a program that is started for each transaction."""
    connection = sqlite3.connect("base", isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def transactions(trial: Trial, journal: str) -> Steps:
    times, data = trial.count(500), trial.random().randbytes(1000)
    disk = Disk(trial)
    with database() as connection:
        [mode] = connection.execute(f"PRAGMA journal_mode = {journal}").fetchone()
        expect(mode == journal, f"the journal is {mode}")
        connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, data BLOB)")
    yield READY
    for _ in range(times):
        with database() as connection:
            connection.execute("INSERT INTO entry (data) VALUES (?)", (data,))
    yield times
    with database() as connection:
        expect(
            connection.execute("SELECT count(*) FROM entry").fetchone() == (times,), "rows in the database"
        )
        expect(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the database is damaged")
    disk.note_both()


@workload("transactions", limits=DISK)
def sqlite_journal(trial: Trial) -> Steps:
    """500 transactions of SQLite with a rollback journal, the database opened and closed for each"""
    yield from transactions(trial, "delete")


@workload("transactions", limits=DISK)
def sqlite_wal(trial: Trial) -> Steps:
    """500 transactions of SQLite with a write-ahead log, the database opened and closed for each"""
    yield from transactions(trial, "wal")


def times_over(trial: Trial, times: int, once: Callable[[int], object]) -> Iterator[float]:
    disk = Disk(trial)
    yield READY
    for number in range(times):
        once(number)
    yield times
    disk.note_both()


@workload("commits", slow=True, limits=DISK)
def git_commit(trial: Trial) -> Steps:
    """change a line and git commit it, 200 times"""
    times, words = trial.count(200), trial.random()
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    spawn("git", "init", "--quiet", ".")
    Path("file").write_text("")
    spawn("git", "add", "file")

    def commit(_number: int) -> None:
        with open("file", "a") as file:
            file.write(f"{words.randbytes(20).hex()}\n")
        spawn("git", *identity, "commit", "--quiet", "--all", "--message=one more")

    yield from times_over(trial, times, commit)
    spawn("git", "fsck", "--strict")
    expect(len(Path(".git/logs/HEAD").read_text().splitlines()) == times, "commits in the log")


@workload("members", slow=True, limits=DISK)
def tar_append(trial: Trial) -> Steps:
    """tar -r of one file of 4 KiB more, 500 times"""
    times = trial.count(500)
    members = f"{trial.scratch}/members"
    os.makedirs(members, exist_ok=True)
    for number, content in enumerate(trial.contents(times)):
        Path(members, f"f{number}").write_bytes(content)

    def add(number: int) -> None:
        spawn("tar", "-rf", "archive", "-C", members, f"f{number}")

    yield from times_over(trial, times, add)
    spawn("tar", "-df", "archive", "-C", members)
