"""Snapshots by a schedule, and what becomes of old ones."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from casfs.config import SNAPSHOTS_JOB, Snapshots
from casfs.control.access import StoreAccess
from casfs.control.messages import CreateSnapshot, Operation
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.snapshots.retention import EVERYTHING, Retention
from casfs.service import last_runs, snapshots
from casfs.service.last_runs import LastRun
from casfs.service.snapshots import RETRY_SECONDS, Snapshotter, drop_expired, drop_unkept, expired
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.store import Store

NEVER = "0 0 29 2 *"
"""A schedule that is not due while a test runs, but on one day in four years."""

PAST = 1


@pytest.fixture
def store(store_path: Path) -> str:
    return str(store_path)


def make(store: str, name: str, *, expires_ns: int | None = None, job: str = "") -> None:
    StoreAccess(store).perform(CreateSnapshot(name, "", expires_ns, job))


def there(store: str) -> list[Manifest]:
    with closing(StoreDirectory(store)) as directory:
        return SnapshotFolder(directory).all()


def names(store: str) -> list[str]:
    return [manifest.name for manifest in there(store)]


def test_what_has_expired_goes_whoever_made_it(store: str) -> None:
    assert drop_expired(store) == []
    make(store, "by-hand", expires_ns=PAST)
    make(store, "by-job", expires_ns=PAST, job="nightly")
    make(store, "later", expires_ns=time.time_ns() + 3600 * 10**9)
    make(store, "never")
    assert expired(store) == ["by-hand", "by-job"]
    assert drop_expired(store) == []
    assert names(store) == ["later", "never"]


def test_what_cannot_be_dropped_is_told_and_keeps_no_other(store: str) -> None:
    make(store, "a", expires_ns=PAST)
    with closing(Store(store)):
        (problem,) = drop_expired(store)
    assert problem.startswith(f"snapshot a could not be dropped: {store} is in use by ")
    assert names(store) == ["a"]


def test_rules_are_for_those_of_the_schedule(store: str) -> None:
    make(store, "hand")
    make(store, "other", job="nightly")
    for number in range(3):
        make(store, f"s{number}", job=SNAPSHOTS_JOB)
    drop_unkept(store, EVERYTHING, SNAPSHOTS_JOB)
    assert len(names(store)) == 5
    drop_unkept(store, Retention(keep_last=1), SNAPSHOTS_JOB)
    assert names(store) == ["hand", "other", "s2"]


def test_one_is_made_and_what_is_kept_no_longer_goes(store: str) -> None:
    section = Snapshots(schedule=NEVER, keep_last=1, reason="hourly", expires=3600)  # type: ignore[arg-type]
    make(store, "old", job=SNAPSHOTS_JOB)
    assert Snapshotter(store, section)._make() is None
    (made,) = there(store)
    assert made.name.startswith(f"{SNAPSHOTS_JOB}-2")
    assert (made.reason, made.job) == ("hourly", SNAPSHOTS_JOB)
    assert made.expires_ns is not None
    assert 3500 * 10**9 < made.expires_ns - made.made_ns <= 3600 * 10**9
    last = last_runs.read(store, SNAPSHOTS_JOB)
    assert last is not None
    assert (last.result, last.snapshot, last.was_cut_off) == ("ok", made.name, False)


def test_while_somebody_else_has_the_store_it_is_tried_again(store: str) -> None:
    snapshotter = Snapshotter(store, Snapshots(schedule=NEVER))  # type: ignore[arg-type]
    with closing(Store(store)):
        assert snapshotter._make() == RETRY_SECONDS
    assert names(store) == []
    assert snapshotter._make() is None
    assert len(names(store)) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("oops")])
def test_one_that_fails_does_not_end_the_daemon(
    store: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def perform(_access: StoreAccess, _operation: Operation[object]) -> object:
        raise error

    monkeypatch.setattr(snapshots.StoreAccess, "perform", perform)
    make_one = Snapshotter(store, Snapshots(schedule=NEVER))._make  # type: ignore[arg-type]
    assert make_one() is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    last = last_runs.read(store, SNAPSHOTS_JOB)
    assert last is not None
    assert last.result == "failed"


# As a program


def casfs(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "casfs", *words], capture_output=True, text=True, check=False
    )


def test_gc_run_drops_what_has_expired(store: str) -> None:
    make(store, "a", expires_ns=PAST)
    looked = casfs("gc", "run", store, "--dry-run")
    assert looked.stdout.splitlines()[0] == "would drop snapshot a, which has expired"
    assert names(store) == ["a"]
    assert casfs("gc", "run", store).returncode == 0
    assert names(store) == []


def daemon_until(store: str, config: Path | None, state: str, *, also: str = "") -> str:
    """Run `casfs gc daemon` until it tells systemd so, and `also` is in its log; the log."""
    address = Path(store).parent / "notify"
    address.unlink(missing_ok=True)
    words = [] if config is None else ["--config", str(config)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(address))
        told.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-m", "casfs", "gc", "daemon", store, "--schedule", NEVER, *words],
            env=os.environ | {"NOTIFY_SOCKET": str(address)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while not told.recv(4096).decode().startswith(state):
                continue
            log = ""
            assert process.stderr is not None
            while also not in log:
                log += process.stderr.readline()
            process.terminate()
            log += process.communicate(timeout=60)[1]
            assert process.returncode == 0
        finally:
            process.kill()
            process.communicate()
    assert "Traceback" not in log
    return log


@pytest.fixture
def config(scratch: Path) -> Path:
    path = scratch / "store.toml"
    path.write_text(f'[snapshots]\nschedule = "{NEVER}"\nkeep_last = 2\n')
    path.chmod(0o600)
    return path


def test_the_daemon_makes_one_that_was_missed_once(store: str, config: Path) -> None:
    daemon_until(store, config, "STATUS=the next collection", also="snapshots by the schedule")
    assert names(store) == []  # the schedule is new
    last_runs.change(store, SNAPSHOTS_JOB, lambda _: LastRun(seen_ns=1, began_ns=2, ended_ns=3))
    daemon_until(store, config, "READY=1", also="made snapshot ")
    assert len(names(store)) == 1
    daemon_until(store, config, "STATUS=the next collection", also="snapshots by the schedule")
    assert len(names(store)) == 1


def test_the_daemon_drops_what_has_expired_without_any_configuration(store: str) -> None:
    make(store, "a", expires_ns=PAST)
    make(store, "b")
    log = daemon_until(store, None, "STATUS=the next collection")
    assert "dropped snapshot a: it has expired" in log
    assert names(store) == ["b"]


def test_a_configuration_that_is_wrong_is_one_line(store: str, config: Path) -> None:
    config.write_text('[snapshots]\nschedule = "x"\n')
    done = casfs("gc", "daemon", store, "--config", str(config))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"casfs: error: {config}: [snapshots] schedule: 'x' is no cron expression")
