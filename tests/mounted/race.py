"""Few contents that die and are reborn all the time, who collects them, and who looks at what is left.

    python -m tests.mounted.race write FOLDER RECORD NUMBER SEED
    python -m tests.mounted.race audit FOLDER RECORD
    python -m tests.mounted.race collect STORE RECORD

The writers also append to files, rewrite them in place and by mappings, and have them sealed (hot.py).
Each runs until it is killed, or until the file system under FOLDER has lost its daemon, and appends to its
RECORD. Of a writer: `try NAME CONTENT` before it gives a name a content ("-": before it removes it), `sure
NAME` when the last one was made durable by fsync(2). Of the auditor: `read COUNT` and `bad WHAT`. Of the
collector: a line of JSON for each run.

A content says by its first line which one it is; all others have nothing in common with it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.check import fsck
from casfs.maintenance.check.problems import Kind
from casfs.maintenance.collect.gc import ByMount
from casfs.maintenance.collect.mounted import Collected
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import Store
from tests.mounted import hot
from tests.mounted.mounts import CASFS, ENVIRONMENT, ROOT_OPTIONS, Mount, assert_sound
from tests.mounted.sides import Mapping

CONTENTS = 12
"""So few that most operations meet a blob that is just dying or being born."""

NAMES = 3
"""Of each writer."""

SIZES = (300, 3_000, 50_000, 400_000)
"""Bytes: accepted and written with the commit, and staged files."""

HELD = 3
"""Files that the auditor keeps open, whatever becomes of their names."""

INTERVALS = ("0", "0.02", "0.05", "0.2")
"""Of commits, in seconds."""

LEFT_BY_A_KILL = {Kind.STRAY_BLOB.slug, Kind.STRAY_STAGED.slug, Kind.UNLINKED.slug}
"""What the next mount, or the next full collection, takes away."""

LATE_SECONDS = 0.1
"""For which the collector waits at the most before each of its turns."""

FULL_EVERY = 5
"""Every so many runs of the collector are full."""

ASKED = 0.7
"""Of the batches of orphans, those that the daemon is asked to remove, if there is one."""


@functools.cache
def content_of(number: int) -> bytes:
    """The content of that number."""
    dice = random.Random(f"content {number}")
    return f"content {number}\n".encode() + dice.randbytes(SIZES[number % len(SIZES)])


def number_of(data: bytes) -> int | None:
    """Which content it is, whole; None when it is none."""
    head, _, _ = data.partition(b"\n")
    word, _, number = head.partition(b" ")
    if word != b"content" or not number.isdigit() or int(number) >= CONTENTS:
        return None
    return int(number) if data == content_of(int(number)) else None


class Writer:
    """One writer, with a folder of its own and names nobody else touches."""

    def __init__(self, folder: Path, record: Path, number: int, seed: int) -> None:
        self.folder = folder / f"writer{number}"
        self.folder.mkdir()
        self.dice = random.Random(f"{seed}/{number}")
        self.held: dict[str, int] = {}
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._root = os.open(self.folder, os.O_RDONLY)
        self.hot = hot.HotFiles(self.folder, self.note, self.dice)

    def run(self) -> None:
        hot = self.hot
        steps = [
            *([self.replace] * 6 + [self.overwrite] * 3 + [self.unlink] * 6 + [self.copy] * 3),
            *([self.move] * 2 + [self.cut] * 3 + [hot.append] * 4 + [hot.rewrite] * 3 + [hot.store] * 3),
            *(hot.map, hot.unmap, hot.seal, hot.seal),
        ]
        while True:
            step = self.dice.choice(steps)
            if self.dice.random() < 0.003:
                step = self.casfs_cp
            step()

    def note(self, kind: str, name: str, content: object = "") -> None:
        os.write(self._record, f"{kind} {self.folder.name}/{name} {content}\n".encode())

    def _name(self) -> str:
        return f"name{self.dice.randrange(NAMES)}"

    def _write(self, name: str, flags: int, number: int, *, sync: bool) -> None:
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | flags, 0o644)
        try:
            os.write(fd, content_of(number))
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _sure(self, name: str) -> None:
        os.fsync(self._root)
        self.note("sure", name)

    def replace(self) -> None:
        """As editors do: a new file, renamed over the name."""
        name, number, sync = self._name(), self.dice.randrange(CONTENTS), self.dice.random() < 0.2
        self._write("new", os.O_TRUNC, number, sync=sync)
        self.note("try", name, number)
        os.rename(self.folder / "new", self.folder / name)
        self.held[name] = number
        if sync:
            self._sure(name)

    def overwrite(self) -> None:
        """In place: it may be seen, and left by a kill, empty or half. Names of its own for that."""
        number = self.dice.randrange(CONTENTS)
        self._write("torn", os.O_TRUNC, number, sync=self.dice.random() < 0.2)

    def cut(self) -> None:
        """By O_TRUNC, while nobody else has it open: whole, whatever happens to the daemon. Who is killed
        himself in between has closed it empty."""
        name, number, sync = (
            f"cut{self.dice.randrange(2)}",
            self.dice.randrange(CONTENTS),
            self.dice.random() < 0.2,
        )
        self.note("try", name, number)
        self._write(name, os.O_TRUNC, number, sync=sync)
        if sync:
            self._sure(name)

    def unlink(self) -> None:
        name = self._name()
        if name in self.held:
            self.note("try", name, "-")
            os.unlink(self.folder / name)
            del self.held[name]
            if self.dice.random() < 0.1:
                self._sure(name)

    def copy(self) -> None:
        """copy_file_range(2) of a whole file; with the accelerator that is one row."""
        if not self.held:
            return
        source, target = self.dice.choice(sorted(self.held)), self._name()
        number = self.held[source]
        size = len(content_of(number))
        read = os.open(self.folder / source, os.O_RDONLY)
        write = os.open(self.folder / "copy", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            done = 0
            while done < size:
                count = os.copy_file_range(read, write, size - done)
                if not count:
                    raise OSError(errno.EIO, f"{source} ends after {done} of {size} bytes")
                done += count
        finally:
            os.close(read)
            os.close(write)
        self.note("try", target, number)
        os.rename(self.folder / "copy", self.folder / target)
        self.held[target] = number

    def casfs_cp(self) -> None:
        """`casfs cp`: a row, whatever the mount can do."""
        if not self.held:
            return
        source, target = self.dice.choice(sorted(self.held)), self._name()
        if source == target:
            return
        self.note("try", target, self.held[source])
        command = [*CASFS, "cp", self.folder / source, self.folder / target]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode:
            raise OSError(errno.EIO, f"casfs cp: {done.stderr}")
        self.held[target] = self.held[source]

    def move(self) -> None:
        source, target = self._name(), self._name()
        if source in self.held and source != target:
            number = self.held[source]
            # Both at once: a look in between two lines must not believe one of them alone.
            text = f"try {self.folder.name}/{target} {number}\ntry {self.folder.name}/{source} -\n"
            os.write(self._record, text.encode())
            os.rename(self.folder / source, self.folder / target)
            self.held[target] = self.held.pop(source)


class Auditor:
    """Reads what is there, and what it has opened before."""

    def __init__(self, folder: Path, record: Path) -> None:
        self.folder = folder
        self.dice = random.Random(1)
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._held: list[tuple[int, str, int]] = []
        self._mapped: list[tuple[Path, Mapping]] = []
        self._read = 0

    def run(self) -> None:
        while True:
            os.statvfs(self.folder)  # a folder that is not there any more has no names, and no end
            for path in sorted(self.folder.glob("*/name*")):
                self._look(path)
            for path in sorted([*self.folder.glob("*/hot*"), *self.folder.glob("*/log*")]):
                self._look_at_hot(path)
            os.write(self._record, f"read {self._read}\n".encode())
            self._read = 0

    def _look(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            if is_served(self.folder):
                self._bad(f"{path} cannot be opened: {error}")
            raise
        number = self._check(fd, str(path))
        if number is not None and self.dice.random() < 0.1:
            self._held.append((fd, str(path), number))
        else:
            os.close(fd)
        if len(self._held) > HELD:
            fd, name, number = self._held.pop(0)
            now = self._check(fd, f"{name}, opened before,")
            if now not in (number, None):
                self._bad(f"{name}, opened before, was content {number} and is {now}")
            os.close(fd)

    def _look_at_hot(self, path: Path) -> None:
        """Also by a mapping, which outlives the handle, and sees what is stored then."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            self._check_hot(path, self._read_all(fd, str(path)))
            size = os.fstat(fd).st_size
            if path.name.startswith("hot") and size and self.dice.random() < 0.1:
                self._mapped.append((path, Mapping(fd, size)))
        finally:
            os.close(fd)
        if len(self._mapped) > HELD:
            path, mapping = self._mapped.pop(0)
            self._check_hot(path, mapping.read(0, mapping.length))
            mapping.close()

    def _check_hot(self, path: Path, data: bytes) -> None:
        if wrong := hot.rubbish(path, data):
            self._bad(wrong)

    def _read_all(self, fd: int, name: str) -> bytes:
        data = b""
        try:
            # To the end: what a daemon that dies has answered in part is less, and no error yet.
            while piece := os.pread(fd, 1 << 20, len(data)):
                data += piece
        except OSError as error:
            if is_served(self.folder):
                self._bad(f"{name} cannot be read: {error}")
            raise
        self._read += 1
        return data

    def _check(self, fd: int, name: str) -> int | None:
        data = self._read_all(fd, name)
        number = number_of(data)
        if number is None:
            self._bad(f"{name} holds {len(data)} bytes that are no content: {data[:40]!r}")
        return number

    def _bad(self, what: str) -> None:
        os.write(self._record, f"bad {what}\n".encode())


def is_served(folder: Path) -> bool:
    try:
        os.statvfs(folder)
    except OSError:
        return False
    return True


def collect(store: Path, record: Path, *, forever: bool = True, full: bool = False) -> None:
    """Collect without grace, over and over; `full`: once, and all there is. At times it has the daemon of the
    mount remove the orphans, at times it does so by itself.

    Between its look at the rows and its turn it waits for a moment, so that much happens there.
    """
    from casfs.control.access import StoreAccess
    from casfs.maintenance.collect import gc

    enter = gc.enter_turnstile
    dice = random.Random()

    def enter_late(opened: Store, stop: Callable[[], bool]) -> None:
        time.sleep(dice.uniform(0, LATE_SECONDS) if forever else 0)
        enter(opened, stop)

    def mount(*batch: Any) -> Collected | None:
        if dice.random() < ASKED:
            time.sleep(dice.uniform(0, LATE_SECONDS) if forever else 0)
            return StoreAccess(str(store)).collect(*batch)
        return None

    with mock.patch.multiple(gc, enter_turnstile=enter_late, BUSY_SHARE=gc.SHARE):
        _collect(store, record, mount, forever=forever, full=full)


def _collect(store: Path, record: Path, mount: ByMount, *, forever: bool, full: bool) -> None:
    from casfs.maintenance.collect import gc

    fd = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with gc.opened(str(store)) as opened:
        number = 0
        while True:
            number += 1
            plan = gc.plan(opened, grace_ns=0, full=full or number % FULL_EVERY == 0)
            outcome = gc.execute(opened, plan, mount=mount)
            line = {
                "blobs": outcome.blobs,
                "strays": outcome.strays,
                "missing": outcome.missing,
                "miscounted": outcome.miscounted,
                "failures": outcome.failures,
            }
            os.write(fd, (json.dumps(line) + "\n").encode())
            if not forever:
                break
    os.close(fd)


# The look afterwards


def allowed(record: Path, *, killed: bool) -> dict[str, set[str]]:
    """For each name, what it may hold after a kill: the last that is sure, or what was tried since. `killed`:
    the writer was, so that the last cut may be half done."""
    tried: dict[str, list[str]] = {}
    data = record.read_bytes() if record.exists() else b""
    for line in data.decode().splitlines()[: data.count(b"\n")]:
        kind, name, *rest = line.split()
        if kind in hot.KINDS:
            continue
        if kind == "sure":
            tried[name] = tried[name][-1:]
        else:
            tried.setdefault(name, ["-"]).append(rest[0])
    for name, values in tried.items():
        if killed and len(values) > 1 and is_cut(name):
            values.append("-")
    return {name: set(values) for name, values in tried.items()}


def is_cut(name: str) -> bool:
    return Path(name).name.startswith("cut")


def lost(folder: Path, record: Path, *, killed: bool) -> list[str]:
    """Names that hold nothing they may hold."""
    found = []
    for name, values in allowed(record, killed=killed).items():
        try:
            data = (folder / name).read_bytes()
            number = number_of(data)
            holds = f"{len(data)} bytes of no content: {data[:40]!r}" if number is None else str(number)
            if not data and is_cut(name):  # made or cut, and not written yet
                holds = "-"
        except FileNotFoundError:
            holds = "-"
        except OSError as error:
            holds = f"nothing: {error}"
        if holds not in values:
            found.append(f"{folder / name} holds {holds}, may hold {sorted(values)}")
    return found + hot.broken(folder, record.read_bytes() if record.exists() else b"")


# Running it


class Totals(Counter[str]):
    """What came together: operations, reads, collections, removed, strays, reborn, kills.
    `hot`: operations on hot files."""

    def line(self) -> str:
        return ", ".join(f"{self[key]} {key}" for key in TOTALS)


TOTALS = ("operations", "hot", "reads", "in snapshots", "collections", "removed", "reborn", "strays", "kills")


class Process:
    """One of the processes of the race."""

    def __init__(self, *words: object, program: str = "", module: str = "tests.mounted.race") -> None:
        command = [sys.executable, *(["-c", program] if program else ["-m", module])]
        self._process = subprocess.Popen(
            [*command, *map(str, words)], env=ENVIRONMENT, stderr=subprocess.PIPE, cwd="/", text=True
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> str:
        """Wait for its end; what it complained about."""
        complaint = self._process.communicate(timeout=60)[1]
        return complaint if self._process.returncode else ""


class Race:
    """Rounds on one store: `folder` is for the records, `program` replaces the collector's."""

    def __init__(self, mount: Mount, folder: Path, seed: int, writers: int = 3, program: str = "") -> None:
        self.mount = mount
        self.folder = folder
        self.dice = random.Random(seed)
        self.seed = seed
        self.writers = writers
        self.program = program
        self.totals = Totals()
        self.problems: list[str] = []
        self._rounds = 0

    def _collector(self) -> Process:
        return Process("collect", self.mount.store, self.folder / "collected", program=self.program)

    def _snapshots(self, place: Path) -> Process:
        record = self.folder / f"snapshots{place.name}"
        return Process(place, record, self.mount.store, module="tests.mounted.race_snapshots")

    def round(self, seconds: float, *, kill: bool) -> None:
        """Mount, let everybody work for so long, killing the collector now and then; kill the daemon, or
        unmount; look at what is there, mounted again and unmounted."""
        self._rounds += 1
        self.mount.start(f"{ROOT_OPTIONS},commit_interval={self.dice.choice(INTERVALS)}")
        place = self.mount.path / f"round{self._rounds}"
        place.mkdir()
        audit = self.folder / f"audit{self._rounds}"
        workers = [
            Process("write", place, self._record(place, number), number, f"{self.seed}{self._rounds}")
            for number in range(self.writers)
        ]
        workers.append(Process("audit", place, audit))
        collector = self._collector()
        snapshots = self._snapshots(place)
        try:
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, self.dice.uniform(0.05, 1.5)))
                if collector.has_ended:
                    self.problems.append(f"the collector has ended: {collector.end()}")
                    return
                if self.dice.random() < 0.4:
                    collector.kill()
                    self._killed()
                    collector = self._collector()
                if self.dice.random() < 0.1:
                    snapshots.kill()
                    self.totals["kills"] += 1
                    snapshots = self._snapshots(place)
                for worker in (*workers, snapshots):
                    if worker.has_ended:
                        self.problems.append(f"a worker has ended: {worker.end()}")
                        return
            if kill:
                self.mount.kill()
                self._killed()
                ended = [worker.end() for worker in (*workers, snapshots)]
                self.problems += [complaint for complaint in ended if complaint]
            else:
                snapshots.kill()
                for worker in workers:
                    worker.kill()
                self.mount.stop()
        finally:
            collector.kill()
            for worker in (*workers, snapshots):
                worker.kill()
            self.count(place, audit)
        self._killed()
        found = fsck.check(str(self.mount.store), deep=True).problems
        self.problems += [f"{each.kind}: {each.detail}" for each in found if each.kind not in LEFT_BY_A_KILL]
        self.mount.start()
        self.look(place, killed=not kill)
        shutil.rmtree(place)  # what it holds could not die
        self.mount.stop()
        assert_sound(self.mount.store, crashed=True)
        self.tally()

    def _killed(self) -> None:
        self.totals["kills"] += 1
        self.mount.crashed = True

    def _record(self, place: Path, number: int) -> Path:
        return self.folder / f"{place.name}-writer{number}"

    def count(self, place: Path, audit: Path) -> None:
        for number in range(self.writers):
            record = self._record(place, number)
            if record.exists():
                data = record.read_bytes()
                self.totals["operations"] += data.count(b"\ntry ")
                self.totals["hot"] += data.count(b"\nstore ") + data.count(b"\nfloor ")
        for record, what in ((audit, "reads"), (self.folder / f"snapshots{place.name}", "in snapshots")):
            for line in record.read_text().splitlines() if record.exists() else []:
                kind, _, rest = line.partition(" ")
                if kind == "bad":
                    self.problems.append(rest)
                elif rest.isdigit():
                    self.totals[what] += int(rest)

    def look(self, place: Path, *, killed: bool) -> None:
        """After the next mount: is everything there that has to be? `killed`: the writers were."""
        for number in range(self.writers):
            self.problems += lost(place, self._record(place, number), killed=killed)

    def tally(self) -> None:
        """Count what the collectors have written down. One that was killed has not told of its last run."""
        record = self.folder / "collected"
        data = record.read_bytes() if record.exists() else b""
        runs = [json.loads(line) for line in data.decode().splitlines()[: data.count(b"\n")]]
        self.totals["collections"] = len(runs)
        self.totals["removed"] = sum(run["blobs"] for run in runs)
        self.totals["strays"] = sum(run["strays"] for run in runs)
        # Each content can be removed once without having been made again.
        self.totals["reborn"] = max(0, self.totals["removed"] - CONTENTS)
        for what in ("missing", "miscounted", "failures"):
            if number := sum(run[what] for run in runs):
                self.problems.append(f"the collector reports {number} {what}")

    def finish(self) -> Totals:
        """Remove the rest, strays too, after which nothing is left to be excused, and count."""
        with contextlib.closing(StoreDirectory(str(self.mount.store))) as directory:
            snapshots = SnapshotFolder(directory)
            for name in snapshots.names():
                snapshots.remove(name)
        collect(self.mount.store, self.folder / "collected", forever=False, full=True)
        self.mount.crashed = False
        self.tally()
        return self.totals


@contextmanager
def quiet_end(folder: Path) -> Iterator[None]:
    """A worker ends without complaint when its file system has lost its daemon."""
    try:
        yield
    except OSError:
        if is_served(folder):
            raise


def main() -> int:
    kind, place, record = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if kind == "collect":
        collect(place, record)
        return 0
    with quiet_end(place):
        if kind == "write":
            Writer(place, record, int(sys.argv[4]), int(sys.argv[5])).run()
        else:
            Auditor(place, record).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
