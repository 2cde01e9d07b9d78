"""Backups under load: programs write, collectors spare nothing in either store, and backups are killed.

    python -m tests.mounted.backing_up FOLDER SEED

writes until it is killed: two files in step, the second one after the first is durable, and others of few
contents, which come and go.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from casfs.maintenance.check.fsck import check
from tests.mounted.mounts import CASFS, CHECKOUT, ENVIRONMENT, Mount, casfs

FIRST, SECOND = "first", "second"

FILES = 30


def write_in_step(folder: Path, seed: int) -> None:
    """Never ends. What is in the first file is never older than what is in the second one, nor newer by more
    than one step."""
    dice = random.Random(seed)
    step = 0
    while True:
        for name in (FIRST, SECOND):
            _replace(folder / name, b"%d\n" % step + dice.randbytes(dice.randrange(200_000)))
        for _ in range(5):
            path = folder / f"f{dice.randrange(FILES)}"
            if dice.random() < 0.3:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(b"%d" % dice.randrange(10) * dice.choice((10, 5_000, 300_000)))
        step += 1


def _replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    fd = os.open(path.parent, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def assert_in_step(folder: Path) -> int:
    """The step that the first file has come to."""
    if not (folder / SECOND).exists():
        return 0
    first, second = (int((folder / name).read_bytes().split(b"\n")[0]) for name in (FIRST, SECOND))
    assert first - 1 <= second <= first, f"{FIRST} has come to {first}, {SECOND} to {second}"
    return first


class Storm:
    """A mount with writers, and a destination; `dice` says when what is killed."""

    def __init__(self, mount: Mount, folder: Path, seed: int) -> None:
        self.mount = mount
        self.folder = folder
        self.destination = folder / "destination"
        self.dice = random.Random(seed)
        self.killed = self.finished = 0

    @contextlib.contextmanager
    def blowing(self) -> Iterator[None]:
        """Writers write, and both stores are collected, again and again."""
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.mounted.backing_up", self.mount.path, "1"],
                env=ENVIRONMENT,
                cwd=CHECKOUT,
            )
        ]
        loop = 'while :; do "$@" gc run "$STORE" --grace 0 >/dev/null 2>&1; sleep 0.1; done'
        processes += [
            subprocess.Popen(
                ["/bin/sh", "-c", loop, "sh", *CASFS],
                env=ENVIRONMENT | {"STORE": str(store)},
                start_new_session=True,
            )
            for store in (self.mount.store, self.destination)
        ]
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    if os.getpgid(process.pid) == process.pid:
                        os.killpg(process.pid, signal.SIGTERM)
                    else:
                        process.kill()
                process.wait()

    def kill_one(self, longest: float) -> None:
        """Begin a backup, and kill it within so many seconds, if it lasts so long."""
        process = self._start("backup", "run", self.mount.store, self.destination)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.dice.uniform(0.1, longest))
        if process.poll() is None:
            process.kill()
            self.killed += 1
        else:
            assert process.returncode == 0, f"a backup ended with {process.returncode}"
            self.finished += 1
        process.wait()

    def kill_restore(self, longest: float) -> None:
        """As `kill_one`, of a restore; what it has begun is gone on with, and sound."""
        target = self.folder / "restored"
        backups = json.loads(casfs("backup", "list", self.destination, "--json"))
        if not backups:
            return
        words = ("backup", "restore", self.destination, backups[-1]["name"], target)
        process = self._start(*words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.dice.uniform(0.1, longest))
        if process.poll() is None:
            process.kill()
            process.wait()
            self.killed += 1
            if not (target / "casfs.toml").exists():
                casfs(*words)
        self._check(target)

    def _start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*CASFS, *words], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def back_up(self) -> str:
        """A whole backup; its name."""
        out = casfs("backup", "run", self.mount.store, self.destination, "--json")
        done = json.loads(out.splitlines()[-1])
        assert done["event"] == "done"
        assert done["lacking"] == []
        return str(done["name"])

    def assert_restorable(self, name: str) -> int:
        """The backup is a sound store, in which the two files are in step; how far they have come."""
        target = self.folder / "restored"
        casfs("backup", "restore", self.destination, name, target)
        return self._check(target)

    def _check(self, target: Path) -> int:
        assert not check(str(target), deep=True).problems
        plain = self.folder / "plain"
        mountpoint = self.folder / "look"
        mountpoint.mkdir(exist_ok=True)
        with contextlib.closing(_Looked(target, mountpoint)) as look:
            step = assert_in_step(look.path)
        shutil.rmtree(target)
        shutil.rmtree(plain, ignore_errors=True)
        return step

    def assert_over(self) -> None:
        """Nothing is left of what was killed, in either store, after the last backup."""
        assert self.back_up()
        for store in (self.mount.store, self.destination):
            left = [path.name for path in (store / "snapshots").iterdir() if path.name.startswith(".new-")]
            assert left == []
        assert not list((self.mount.store / "snapshots").glob("for-backup-*"))
        casfs("backup", "verify", self.destination)
        assert not check(str(self.destination), deep=True).problems


class _Looked:
    """A store mounted to be looked at."""

    def __init__(self, store: Path, mountpoint: Path) -> None:
        casfs("mount", store, mountpoint, "-o", "ro")
        self.path = mountpoint

    def close(self) -> None:
        casfs("umount", self.path)


def wait_for(path: Path) -> None:
    """Until a program has made it."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


if __name__ == "__main__":
    write_in_step(Path(sys.argv[1]), int(sys.argv[2]))
