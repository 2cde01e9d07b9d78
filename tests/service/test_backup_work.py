"""The daemon of backups with real ones: what it makes, drops, interrupts and goes on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.offline import opened
from casfs.service import last_runs
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.store import create_store
from tests.invariants import assert_clean
from tests.maintenance.stores import make_directory, make_file

NEVER = "0 0 29 2 *"
"""A schedule that is not due while a test runs, but on one day in four years."""


class Daemon:
    """`casfs backup daemon` of a store with two repositories."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.destination = folder / "destination"
        self.config = folder / "store.toml"
        self.process: subprocess.Popen[str] | None = None
        for path in (self.store, self.destination):
            create_store(str(path), fan_out=1)
        with opened(str(self.store)) as fs:
            for name in (b"libs", b"npm-cache"):
                ino = make_directory(fs, 1, name)
                for number in range(3):
                    make_file(fs, ino, b"%d" % number, name * (1000 + number))

    def write(self, *keys: str) -> None:
        lines = ["[backup.x]", f'destination = "{self.destination}"', f'schedule = "{NEVER}"', *keys]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "casfs",
                "backup",
                "daemon",
                str(self.store),
                "--config",
                str(self.config),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        while "by the schedule" not in self.process.stderr.readline():
            continue

    def run(self) -> dict[str, Any]:
        """Have it make one backup, and end; what the log says of it."""
        before = self.last()
        self.start()
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)
        self.wait(lambda: self.last() > before)
        return self.end()

    def end(self) -> dict[str, Any]:
        assert self.process is not None
        self.process.terminate()
        _, log = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        assert "Traceback" not in log
        (line,) = [line for line in log.splitlines() if "backup run: " in line]
        self.log = log
        found: dict[str, Any] = json.loads(line.partition("backup run: ")[2])
        return found

    def last(self) -> int:
        """When the last run ended."""
        run = last_runs.read(str(self.store), "x")
        return 0 if run is None else run.ended_ns

    def wait(self, for_what: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not for_what():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def backups(self, store: Path | None = None) -> list[Manifest]:
        with closing(StoreDirectory(str(store or self.destination))) as directory:
            return SnapshotFolder(directory).all()

    def blob(self, content: bytes) -> Path:
        from blake3 import blake3

        digest = blake3(content).hexdigest()
        return self.store / "blobs" / digest[:1] / digest


@pytest.fixture
def daemon(scratch: Path) -> Iterator[Daemon]:
    daemon = Daemon(scratch)
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.communicate()
    assert_clean(daemon.destination)


def test_backups_are_made_and_dropped_as_the_schedule_says(daemon: Daemon) -> None:
    daemon.write("keep_last = 2", 'exclude = ["*-cache"]', 'reason = "each night"')
    reports = [daemon.run() for _ in range(3)]
    assert [report["new_blobs"] for report in reports] == [3, 0, 0]
    made = daemon.backups()
    assert [manifest.name for manifest in made] == [report["snapshot"] for report in reports[1:]]
    assert {(manifest.job, manifest.reason, manifest.left_out) for manifest in made} == {
        ("x", "each night", ("npm-cache",))
    }
    assert daemon.backups(daemon.store) == []
    assert "dropped 1 that are kept no longer" in daemon.log


def test_damage_at_the_source_is_told_with_its_paths(daemon: Daemon) -> None:
    damaged = daemon.blob(b"libs" * 1001)
    damaged.chmod(0o600)
    damaged.write_bytes(b"x" * 4004)
    daemon.write("keep_last = 1")
    report = daemon.run()
    assert (report["result"], report["exit"], report["new_blobs"]) == ("damaged", 5, 5)
    assert "the source is damaged: " in daemon.log
    assert "libs/1" in daemon.log


def test_where_no_disk_is_mounted_nothing_is_made(daemon: Daemon) -> None:
    daemon.write()
    shutil.move(daemon.destination, f"{daemon.destination}.away")
    daemon.destination.mkdir()
    report = daemon.run()
    assert (report["result"], report["exit"]) == ("failed", 3)
    assert list(daemon.destination.iterdir()) == []
    daemon.destination.rmdir()
    shutil.move(f"{daemon.destination}.away", daemon.destination)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_cut_off_is_gone_on_with_at_the_next_start(daemon: Daemon, number: int) -> None:
    with opened(str(daemon.store)) as fs:
        for count in range(8):
            make_file(fs, 1, b"big%d" % count, os.urandom(1 << 20))
    daemon.write('rate = "2M"')
    daemon.start()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGUSR1)
    daemon.wait(lambda: list(daemon.destination.glob("snapshots/.new-*/casfs.db")))
    time.sleep(0.5)
    daemon.process.send_signal(number)
    if number == signal.SIGTERM:
        assert daemon.end()["result"] == "interrupted"
    else:
        daemon.process.communicate(timeout=60)
    assert daemon.backups() == []
    daemon.write()
    daemon.start()
    daemon.wait(daemon.last)
    assert daemon.end()["result"] == "ok"
    (manifest,) = daemon.backups()
    assert manifest.name.startswith("x-")
