"""Work that keeps a record of what was promised, and the look afterwards whether the promises were kept.

    python -m tests.mounted.load FOLDER RECORD SEED

runs until it is killed, or until the file system under FOLDER has lost its daemon. RECORD lies elsewhere. A
line is appended when a promise begins to hold (fsync(2) has returned) or may end (before an unlink):

    whole NAME VERSION     NAME is there, whole, with this version or a later one
    length NAME BYTES      NAME is at least so long, and a prefix of its stream
    dying NAME             NAME may be gone
    dead NAME              NAME is gone
    rows NAME COUNT        the database has at least so many rows

and what hot.py writes of files that are rewritten in place, and published.py of artifacts, where the mount
has the repositories for it.

Every content says by itself which name and version it is of, so that half of one, or a mixture, is found.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from tests.mounted import hot, published

SIZES = ((0, 40), (200, 4_000), (200, 4_000), (20_000, 200_000), (300_000, 2_000_000))
"""Bytes, from and to: empty and small ones, in memory and in staged files."""


def content_of(name: str, version: int) -> bytes:
    """The one content of a version of a name."""
    dice = random.Random(f"{name}/{version}")
    size = dice.randrange(*dice.choice(SIZES))
    return f"{name} {version} {size}\n".encode() + dice.randbytes(size)


def stream_of(name: str, size: int) -> bytes:
    """The first `size` bytes of what is appended to a name."""
    return random.Random(name).randbytes((size + 3) // 4 * 4)[:size]


class Worker:
    """One process of the load."""

    def __init__(self, folder: Path, record: Path, seed: int) -> None:
        self.folder = folder / f"worker{seed}"
        self.dice = random.Random(seed)
        self.versions: dict[str, int] = {}
        self.lengths: dict[str, int] = {}
        self.created: list[str] = []
        self.number = 0
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.folder.mkdir()
        self._database = self._open_database() if seed == 0 else None
        self._hot = hot.HotFiles(
            self.folder, lambda kind, name, rest: self.promise(f"{kind} {name} {rest}"), self.dice
        )
        has_repositories = (folder.parent / published.LIBS).exists()
        self._publisher = (
            published.Publisher(folder, self.folder.name, self.promise, self.dice, content_of)
            if has_repositories
            else None
        )

    def promise(self, line: str) -> None:
        kind, name, *rest = line.split()
        os.write(self._record, f"{kind} {self.folder.name}/{name} {' '.join(rest)}\n".encode())

    def run(self) -> None:
        steps: list[Callable[[], None]] = [
            *(self.create, self.create, self.replace, self.replace_unsynced, self.append),
            *(self.unlink, self.rewrite, self.move_folder, self.link),
            *(self._hot.append, self._hot.rewrite, self._hot.map, self._hot.store, self._hot.seal),
        ]
        if self._database is not None:
            steps += [self.insert] * 3
        if self._publisher is not None:
            steps += [self._publisher.publish] * 3 + [self._publisher.withdraw]
        while True:
            self.dice.choice(steps)()

    def _write(self, name: str, flags: int, *, label: str = "", sync: bool) -> int:
        """Write the next version of `label` to `name` in pieces; the version."""
        label = label or name
        version = self.versions[label] = self.versions.get(label, 0) + 1
        data = content_of(label, version)
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | flags, 0o644)
        try:
            step = self.dice.choice((1_000, 65_536, 1 << 20))
            for start in range(0, len(data), step):
                os.write(fd, data[start : start + step])
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        return version

    def sync_folder(self, folder: Path | None = None) -> None:
        fd = os.open(folder or self.folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def create(self) -> None:
        self.number += 1
        name = f"file{self.number}"
        version = self._write(name, os.O_EXCL, sync=True)
        self.promise(f"whole {name} {version}")
        self.created.append(name)

    def replace(self) -> None:
        """As editors and package managers do: write, fsync, rename over."""
        name = f"replaced{self.dice.randrange(5)}"
        version = self._write("new", os.O_TRUNC, label=name, sync=True)
        os.rename(self.folder / "new", self.folder / name)
        if version == 1 or self.dice.random() < 0.5:
            self.sync_folder()
            self.promise(f"whole {name} {version}")

    def replace_unsynced(self) -> None:
        """As scripts do: write, rename over. The name shows an old or a new version, whole (I6)."""
        name = f"unsynced{self.dice.randrange(5)}"
        version = self._write("next", os.O_TRUNC, label=name, sync=False)
        os.rename(self.folder / "next", self.folder / name)
        if version == 1:
            self.sync_folder()
            self.promise(f"whole {name} {version}")

    def append(self) -> None:
        name = f"appended{self.dice.randrange(3)}"
        length = self.lengths.get(name, 0)
        more = self.dice.choice((10, 3_000, 100_000))
        with open(self.folder / name, "ab", buffering=0) as file:
            file.write(stream_of(name, length + more)[length:])
            self.lengths[name] = length + more
            if self.dice.random() < 0.7:
                os.fsync(file.fileno())
                self.promise(f"length {name} {length + more}")

    def unlink(self) -> None:
        if len(self.created) < 10:
            return
        name = self.created.pop(self.dice.randrange(len(self.created)))
        self.promise(f"dying {name}")
        os.unlink(self.folder / name)
        if self.dice.random() < 0.3:
            self.sync_folder()
            self.promise(f"dead {name}")

    def rewrite(self) -> None:
        """O_TRUNC: empty in between, or an old or the new version, whole."""
        name = f"truncated{self.dice.randrange(3)}"
        self._write(name, os.O_TRUNC, sync=self.dice.random() < 0.3)

    def move_folder(self) -> None:
        """A directory is under one of its two names, never under both or none."""
        here, there = self.folder / "here", self.folder / "there"
        if not here.exists() and not there.exists():
            here.mkdir()
            fd = os.open(here / "held", os.O_WRONLY | os.O_CREAT)
            os.write(fd, content_of("held", 1))
            os.fsync(fd)
            os.close(fd)
            self.sync_folder()
            self.promise("whole held 1")
        elif here.exists():
            os.rename(here, there)
        else:
            os.rename(there, here)

    def link(self) -> None:
        """A hard link of something, and away with it again."""
        if self.created:
            linked = self.folder / "linked"
            with suppress(FileNotFoundError):
                linked.unlink()
            os.link(self.folder / self.dice.choice(self.created), linked)

    def _open_database(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / "rows.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE entry(number INTEGER PRIMARY KEY, data)")
        return connection

    def insert(self) -> None:
        assert self._database is not None
        self._database.execute("INSERT INTO entry(data) VALUES (randomblob(2000))")
        (count,) = self._database.execute("SELECT count(*) FROM entry").fetchone()
        self.promise(f"rows rows.db {count}")


# The look afterwards


def broken_promises(folder: Path, record: bytes) -> list[str]:
    """What `record` promises and is not so below `folder`."""
    found = hot.broken(folder, record) + published.broken(folder, record, _not_whole)
    promises: dict[str, tuple[str, int]] = {}
    # The last line may be half there.
    for line in record.decode().splitlines()[: record.count(b"\n")]:
        kind, name, *rest = line.split()
        if kind in hot.KINDS or kind in published.KINDS:
            continue
        promises[name] = (kind, int(rest[0]) if rest else 0)
    for name, (kind, number) in promises.items():
        path = folder / name
        match kind:
            case "whole":
                if path.name == "held":
                    path = _only_place(path, found)
                found += _not_whole(path, number)
            case "length":
                found += _not_prefix(path, number)
            case "dying":
                found += _not_whole(path, 1) if path.exists() else []
            case "dead":
                found += [f"{name} was removed and is there"] if path.exists() else []
            case "rows":
                found += _missing_rows(path, number)
    for worker in folder.iterdir():
        found += [problem for path in worker.glob("truncated*") for problem in _not_whole(path, 0)]
        found += [problem for path in worker.glob("file*") for problem in _not_whole(path, 0)]
    return found


def _only_place(path: Path, found: list[str]) -> Path:
    places = [path.parent / place / "held" for place in ("here", "there")]
    there = [place for place in places if place.exists()]
    if len(there) != 1:
        found.append(f"{path} is in {len(there)} places")
        return places[0]
    return there[0]


def _not_whole(path: Path, least: int) -> list[str]:
    """`least` 0: it may be empty, or not yet written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return [f"{path}: {error}"]
    if not data and least == 0:
        return []
    head = data.partition(b"\n")[0].split()
    try:
        name, version = head[0].decode(), int(head[1])
        whole = data == content_of(name, version)
    except (ValueError, IndexError):
        return [f"{path} holds {len(data)} bytes of rubbish: {data[:60]!r}"]
    if not whole or name != path.name:
        return [f"{path} is not whole: {data[:60]!r}, {len(data)} bytes"]
    return [f"{path} has version {version}, {least} was promised"] if version < least else []


def _not_prefix(path: Path, least: int) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        return [f"{path}: {error}"]
    if data != stream_of(path.name, len(data)):
        return [f"{path} is not a prefix of its stream, {len(data)} bytes"]
    return [f"{path} has {len(data)} bytes, {least} were promised"] if len(data) < least else []


def _missing_rows(path: Path, least: int) -> list[str]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            (count,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    except sqlite3.Error as error:
        return [f"{path}: {error}"]
    if verdict != "ok":
        return [f"{path} is damaged: {verdict}"]
    return [f"{path} has {count} rows, {least} were promised"] if count < least else []


# Running it


class Load:
    """Several workers, each a process."""

    def __init__(self, folder: Path, record: Path, workers: int, seed: int = 0) -> None:
        folder.mkdir()
        self.folder = folder
        self.record = record
        record.touch()
        command = [sys.executable, "-m", "tests.mounted.load", folder, record]
        checkout = Path(__file__).resolve().parents[2]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        self._workers = [
            subprocess.Popen(
                [*command, str(number), str(seed)], env=environment, stderr=subprocess.PIPE, cwd="/"
            )
            for number in range(workers)
        ]

    def await_promises(self, count: int) -> None:
        """Wait until the record has `count` lines. A worker that ends before fails the test."""
        import time

        while self.record.read_bytes().count(b"\n") < count:
            for worker in self._workers:
                if worker.poll() is not None:
                    raise AssertionError(f"a worker has ended: {worker.communicate()[1].decode()}")
            time.sleep(0.002)

    def await_end(self) -> None:
        """Wait for the workers, whose file system is gone."""
        for worker in self._workers:
            complaint = worker.communicate(timeout=60)[1].decode()
            assert worker.returncode == 0, complaint

    def end(self) -> None:
        """Stop the workers, wherever they are."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
            assert worker.stderr is not None
            worker.stderr.close()


def main() -> int:
    folder, record, number, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    try:
        worker = Worker(folder, record, number)
        worker.dice.seed(f"{seed}/{number}")
        worker.run()
    except (OSError, sqlite3.Error):
        if _is_served(folder):
            raise
    return 0


def _is_served(folder: Path) -> bool:
    try:
        os.statvfs(folder)  # unlike stat(2) never answered from the kernel's caches
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
