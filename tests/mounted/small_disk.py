"""Daily work on a disk that is small for it: logs, builds, and large files that come and go.

Each worker does the same in a mount and in a plain directory on an equal disk, step by step, so that what the
one refuses can be held against the other. What is live at a time is bounded, and fits both.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

DISK = 300 << 20
"""Bytes of each of the two disks."""

LOG_BYTES = 2 << 20
LOGS = 4
"""A log is put aside at that size, and so many old ones are kept."""

SAME = ("--sort=name", "--mtime=@0")
"""What an archive must not have of its side: the order of the directory, and times."""

SOURCES = 120
BULK_BYTES = 90 << 20
"""What one worker's large files take together at the most."""

Step = Callable[[Path], int]
"""Does something in a directory; gives the bytes written. Raises OSError, CalledProcessError."""


@dataclass
class Report:
    """What was done. `refused`: steps that the mount refused and the plain directory did not; `both`: how
    many both refused. `different`: files that are not the same in the end."""

    steps: Counter[str] = field(default_factory=Counter)
    written: int = 0
    both: int = 0
    refused: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.steps += other.steps
        self.written += other.written
        self.both += other.both
        self.refused += other.refused
        self.different += other.different


# What the workers do


def logs(dice: random.Random) -> Iterator[tuple[str, Step]]:
    """Programs that open their log for each line, and put it aside when it is long."""
    while True:
        line = dice.randbytes(dice.choice((80, 400, 3_000, 20_000))).hex().encode() + b"\n"

        def append(folder: Path, line: bytes = line) -> int:
            log = folder / "log"
            for _ in range(20):
                with log.open("ab") as file:
                    file.write(line)
            if log.stat().st_size > LOG_BYTES:
                for number in range(LOGS - 1, 0, -1):
                    if (folder / f"log.{number}").exists():
                        os.rename(folder / f"log.{number}", folder / f"log.{number + 1}")
                os.rename(log, folder / "log.1")
            return 20 * len(line)

        yield "append", append


def builds(dice: random.Random) -> Iterator[tuple[str, Step]]:
    """Sources are unpacked, made into objects and a program, packed again, and removed."""
    number = 0
    while True:
        number += 1
        contents = [dice.randbytes(dice.randrange(200, 60_000)) for _ in range(SOURCES)]
        name = f"build{number}"

        def write(folder: Path, name: str = name, contents: list[bytes] = contents) -> int:
            tree = folder / name
            tree.mkdir()
            for each, content in enumerate(contents):
                (tree / f"s{each}.c").write_bytes(content)
            objects = " ".join(f"s{each}.o" for each in range(len(contents)))
            rules = f"program: {objects}\n\tcat $^ > $@\n%.o: %.c\n\tcat $< $< > $@\n"
            (tree / "Makefile").write_text(rules)
            return sum(map(len, contents))

        def make(folder: Path, name: str = name, contents: list[bytes] = contents) -> int:
            run("make", "-s", "-j2", "-C", str(folder / name), "program")
            return 4 * sum(map(len, contents))

        def pack(folder: Path, name: str = name) -> int:
            run("tar", "-C", str(folder), *SAME, "-cf", str(folder / f"{name}.tar"), name)
            return (folder / f"{name}.tar").stat().st_size

        def remove(folder: Path, name: str = name) -> int:
            shutil.rmtree(folder / name)
            (folder / f"{name}.tar").unlink()
            return 0

        yield from (("write", write), ("make", make), ("pack", pack), ("remove", remove))


def bulk(dice: random.Random) -> Iterator[tuple[str, Step]]:
    """Large files, the oldest of which are removed just when there is no room for the next one."""
    there: list[tuple[str, int]] = []
    number = 0
    while True:
        number += 1
        name, size = f"bulk{number}", dice.randrange(1 << 20, 30 << 20)
        while there and sum(size for _, size in there) + size > BULK_BYTES:
            gone, _ = there.pop(0)

            def remove(folder: Path, gone: str = gone) -> int:
                (folder / gone).unlink()
                return 0

            yield "unlink", remove
        piece = dice.randbytes(64 << 10)

        def write(folder: Path, name: str = name, size: int = size, piece: bytes = piece) -> int:
            with (folder / name).open("wb") as file:
                for position in range(0, size, len(piece)):
                    file.write(position.to_bytes(8, "big") + piece[8:])
            return size

        there.append((name, size))
        yield "large", write


WORKERS: dict[str, Callable[[random.Random], Iterator[tuple[str, Step]]]] = {
    "logs": logs,
    "builds": builds,
    "bulk": bulk,
}


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


# The run


def attempt(step: Step, folder: Path) -> tuple[int, str]:
    """Bytes written, and what was complained about."""
    try:
        return step(folder), ""
    except OSError as error:
        return 0, error.strerror or str(error)
    except subprocess.CalledProcessError as error:
        return 0, error.stderr.strip().splitlines()[-1] if error.stderr else str(error)


def work(control: Connection, sides: tuple[Path, Path], worker: str, seed: int) -> None:
    """The body of a worker's process: steps until it is told to stop; then it compares, and reports."""
    report = Report()
    for folder in sides:
        folder.mkdir()
    for name, step in WORKERS[worker](random.Random(seed)):
        if control.poll():
            break
        written, complaint = attempt(step, sides[0])
        _, other = attempt(step, sides[1])
        report.steps[name] += 1
        report.written += written
        report.both += bool(complaint and other)
        if complaint and not other:
            report.refused.append(f"{worker}, step {report.steps.total()}, {name}: {complaint}")
            break  # from here on the sides differ
    if not report.refused:
        report.different = differences(*sides)
    control.send(report)


def differences(mounted: Path, plain: Path) -> list[str]:
    """Files that are not the same in both."""
    listed = [sorted(path.relative_to(side) for path in side.rglob("*")) for side in (mounted, plain)]
    if listed[0] != listed[1]:
        return [f"{mounted} has other names than {plain}"]
    files = [path for path in listed[0] if (plain / path).is_file()]
    return [str(path) for path in files if (mounted / path).read_bytes() != (plain / path).read_bytes()]


def work_on_both(mounted: Path, plain: Path, seconds: float, seed: int) -> Report:
    """All workers at once, for so long."""
    fork = multiprocessing.get_context("fork")
    controls: list[Connection] = []
    processes = []
    for number, worker in enumerate(WORKERS):
        control, end = fork.Pipe()
        sides = (mounted / worker, plain / worker)
        processes.append(fork.Process(target=work, args=(end, sides, worker, seed + number)))
        processes[-1].start()
        end.close()
        controls.append(control)
    report = Report()
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and all(process.is_alive() for process in processes):
            time.sleep(0.2)
        for control in controls:
            with contextlib.suppress(BrokenPipeError):  # it has reported, and ended, by itself
                control.send("stop")
        for control in controls:
            report.add(control.recv())
    finally:
        for process in processes:
            process.kill()
            process.join()
    return report
