"""The daemon of backups, as a program: schedules, hooks, signals, what it remembers."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from casfs import cron
from casfs.errors import UsageError
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.offline import opened
from casfs.maintenance.progress import Progress
from casfs.maintenance.snapshots.retention import Retention
from casfs.service import backupd, last_runs
from casfs.service.backup_runs import OK, Outcome, check
from casfs.service.last_runs import LastRun
from casfs.store import create_store
from tests.maintenance.stores import make_directory

NEVER = "0 0 29 2 *"
"""A schedule that is not due while a test runs, but on one day in four years."""

FAKE = """
import json, os, sys, time
from dataclasses import asdict
from pathlib import Path
from casfs.errors import CasfsError
from casfs.service.backup_runs import Outcome
from casfs.service.backupd import serve

folder = Path(sys.argv[3])

def note(**what):
    with open(folder / "done", "a") as file:
        file.write(json.dumps(what) + "\\n")

class Fake:
    def run(self, store, destination, options, *, progress, stop):
        progress("copying", 1, 4)
        note(job=options.job, options=asdict(options), destination=destination)
        while (folder / "block").exists():
            if stop():
                return Outcome("interrupted", code=130)
            time.sleep(0.01)
        if (folder / "fail").exists():
            raise CasfsError("the disk is on fire", "call for help")
        if (folder / "bug").exists():
            raise ValueError("oops")
        damaged = (folder / "damage").exists()
        return Outcome(
            "damaged" if damaged else "ok", snapshot=f"{options.job}-1", uuid="u", new_blobs=2, new_bytes=30,
            error="1 contents could not be read" if damaged else "", code=5 if damaged else 0,
        )

    def prune(self, destination, policy, *, job, source_uuid):
        note(pruned=job, uuid=source_uuid, policy=asdict(policy))
        return 1

serve(sys.argv[1], sys.argv[2], Fake())
"""

HOOK = """#!/bin/sh
env | grep ^CASFS_ | sort > {folder}/$1.env
echo $1 >> {folder}/hooks
{more}
"""


class Daemon:
    """A store, a destination, a configuration, and the daemon with a backup that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.destination = folder / "destination"
        self.config = folder / "store.toml"
        for path in (self.store, self.destination):
            create_store(str(path))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(60)
        self.process: subprocess.Popen[str] | None = None
        self.log = ""

    def write(self, *sections: str, name: str = "x", schedule: str = NEVER) -> None:
        """The configuration: one backup with these keys, or none."""
        lines = [f"[backup.{name}]", f'destination = "{self.destination}"', f'schedule = "{schedule}"']
        self.config.write_text("\n".join([*lines, *sections]) + "\n")
        self.config.chmod(0o600)

    def hook(self, more: str = "") -> str:
        path = self.folder / f"hook{len(list(self.folder.glob('hook*')))}"
        path.write_text(HOOK.format(folder=self.folder, more=more))
        path.chmod(0o700)
        return str(path)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FAKE, str(self.store), str(self.config), str(self.folder)],
            env=os.environ | {"NOTIFY_SOCKET": str(self.folder / "notify")},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.await_state("READY=1")

    def await_state(self, wanted: str) -> str:
        while not (state := self._socket.recv(4096).decode()).startswith(wanted):
            continue
        return state

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> str:
        """End it; what it has logged."""
        assert self.process is not None
        self.process.terminate()
        _, self.log = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        assert "Traceback" not in self.log
        return self.log

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def clear(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._socket.close()

    # What it has done

    @property
    def done(self) -> list[dict[str, Any]]:
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.folder / "done").read_text().splitlines()]
        return []

    @property
    def jobs(self) -> list[str]:
        return [done["job"] for done in self.done if "job" in done]

    @property
    def hooks(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self.folder / "hooks").read_text().split()
        return []

    def environment(self, which: str) -> dict[str, str]:
        lines = (self.folder / f"{which}.env").read_text().splitlines()
        return dict(line.removeprefix("CASFS_BACKUP_").split("=", 1) for line in lines)

    def reports(self) -> list[dict[str, Any]]:
        lines = [line.partition("backup run: ")[2] for line in self.log.splitlines()]
        return [json.loads(line) for line in lines if line]

    def last(self, name: str = "x") -> LastRun:
        run = last_runs.read(str(self.store), name)
        assert run is not None
        return run

    def wait(self, for_what: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not for_what():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def run_once(self, name: str = "x") -> None:
        """Start it, have it run all, and end it."""
        before = last_runs.read(str(self.store), name)
        self.start()
        self.send(signal.SIGUSR1)
        self.wait(lambda: self.last(name).ended_ns > (before.ended_ns if before else 0))
        self.end()


@pytest.fixture
def daemon(scratch: Path) -> Iterator[Daemon]:
    daemon = Daemon(scratch)
    yield daemon
    daemon.clear()


# Runs


def test_a_new_schedule_waits_for_its_time_and_sigusr1_runs_it(daemon: Daemon) -> None:
    daemon.write("keep_daily = 3", 'exclude = ["tmp*"]', 'rate = "1M"', 'expires = "2d"', "content = false")
    before = time.time_ns()
    daemon.start()
    daemon.await_state("STATUS=the next backup is due at ")
    assert daemon.jobs == []
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.last().ended_ns)
    daemon.end()
    ran, pruned = daemon.done
    expires = ran["options"].pop("expires_ns")
    assert before + 2 * 86_400 * 10**9 < expires < time.time_ns() + 2 * 86_400 * 10**9
    assert ran["options"] == {
        "job": "x",
        "reason": "",
        "include": [],
        "exclude": ["tmp*"],
        "exclude_new_known": None,
        "content": False,
        "rate": 1 << 20,
    }
    assert (ran["destination"], pruned["pruned"], pruned["uuid"]) == (str(daemon.destination), "x", "u")
    assert pruned["policy"]["keep_daily"] == 3
    (report,) = daemon.reports()
    assert (report["backup"], report["result"], report["snapshot"]) == ("x", "ok", "x-1")
    assert (report["new_blobs"], report["new_bytes"], report["exit"]) == (2, 30, 0)
    assert (daemon.last().result, daemon.last().snapshot) == ("ok", "x-1")


def test_without_a_rule_nothing_is_pruned(daemon: Daemon) -> None:
    daemon.write()
    daemon.run_once()
    assert [next(iter(done)) for done in daemon.done] == ["job"]


def test_a_missed_run_is_caught_up_once(daemon: Daemon) -> None:
    daemon.write()
    years = 9 * 365 * 86_400 * 10**9
    now = time.time_ns()
    last_runs.change(str(daemon.store), "x", lambda _: LastRun(seen_ns=1, began_ns=now - years, ended_ns=1))
    for _ in range(2):
        daemon.start()
        daemon.await_state("STATUS=the next backup is due at ")
        daemon.wait(lambda: daemon.last().ended_ns > now)
        daemon.end()
    assert daemon.jobs == ["x"]


def test_a_clock_that_was_ahead_makes_no_run_missed(daemon: Daemon) -> None:
    daemon.write()
    ahead = time.time_ns() + 9 * 365 * 86_400 * 10**9
    last_runs.change(str(daemon.store), "x", lambda _: LastRun(seen_ns=1, began_ns=ahead, ended_ns=ahead))
    daemon.start()
    due = daemon.await_state("STATUS=the next backup is due at ").split()[-2]
    daemon.end()
    assert daemon.jobs == []
    assert int(due[:4]) <= time.localtime().tm_year + 8  # the 29th of February, leap years' gap included


def test_schedules_do_not_wait_for_each_other(daemon: Daemon) -> None:
    daemon.write()
    with daemon.config.open("a") as file:
        file.write(f'[backup.y]\ndestination = "{daemon.destination}"\nschedule = "{NEVER}"\n')
    (daemon.folder / "block").touch()
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: sorted(daemon.jobs) == ["x", "y"])
    (daemon.folder / "block").unlink()
    daemon.wait(lambda: daemon.last("x").ended_ns and daemon.last("y").ended_ns)
    daemon.end()


def test_sigterm_interrupts_a_run_and_the_next_start_goes_on_with_it(daemon: Daemon) -> None:
    daemon.write(f'after = ["{daemon.hook()}", "after"]', f'on_failure = ["{daemon.hook()}", "failure"]')
    (daemon.folder / "block").touch()
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.jobs)
    daemon.end()
    assert [report["result"] for report in daemon.reports()] == ["interrupted"]
    assert daemon.hooks == ["after"]
    assert daemon.environment("after")["RESULT"] == "interrupted"
    assert daemon.last().was_cut_off
    (daemon.folder / "block").unlink()
    daemon.start()
    daemon.wait(lambda: daemon.last().ended_ns)
    assert "at once since a run was missed" in daemon.end()
    assert daemon.jobs == ["x", "x"]
    assert daemon.last().result == "ok"


def test_killed_in_the_midst_the_next_start_goes_on_with_it(daemon: Daemon) -> None:
    daemon.write()
    (daemon.folder / "block").touch()
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.jobs)
    daemon.kill()
    (daemon.folder / "block").unlink()
    daemon.start()
    daemon.wait(lambda: daemon.last().ended_ns)
    daemon.end()
    assert daemon.jobs == ["x", "x"]


# Hooks


def hooked(daemon: Daemon, *, before: str = "", after: str = "", **keys: str) -> None:
    daemon.write(
        f'before = ["{daemon.hook(before)}", "before"]',
        f'after = "{daemon.hook(after)} after"',
        f'on_failure = ["{daemon.hook()}", "failure"]',
        *(f"{key} = {value}" for key, value in keys.items()),
    )


def test_hooks_are_told_what_came_of_it(daemon: Daemon) -> None:
    hooked(daemon)
    daemon.run_once()
    assert daemon.hooks == ["before", "after"]
    first = {"NAME": "x", "STORE": str(daemon.store), "DESTINATION": str(daemon.destination)}
    assert daemon.environment("before") == first
    after = daemon.environment("after")
    assert float(after.pop("SECONDS")) >= 0
    assert after == first | {
        "RESULT": "ok",
        "SNAPSHOT": "x-1",
        "NEW_BLOBS": "2",
        "NEW_BYTES": "30",
        "ERROR": "",
        "EXIT": "0",
    }


@pytest.mark.parametrize(
    ("flag", "result", "error", "code"),
    [
        ("fail", "failed", "the disk is on fire; call for help", "1"),
        ("damage", "damaged", "1 contents could not be read", "5"),
    ],
)
def test_a_run_that_fails_is_told(daemon: Daemon, flag: str, result: str, error: str, code: str) -> None:
    hooked(daemon, keep_last="1")
    (daemon.folder / flag).touch()
    daemon.run_once()
    assert daemon.hooks == ["before", "after", "failure"]
    told = daemon.environment("failure")
    assert (told["RESULT"], told["ERROR"], told["EXIT"]) == (result, error, code)
    (report,) = daemon.reports()
    assert (report["result"], report["error"], report["exit"]) == (result, error, int(code))
    assert (daemon.last().result, daemon.last().error) == (result, error)
    assert "ERROR: backup run: " in daemon.log
    assert not any("pruned" in done for done in daemon.done)


def test_without_its_hook_before_there_is_no_backup(daemon: Daemon) -> None:
    hooked(daemon, before="exit 7")
    daemon.run_once()
    assert daemon.jobs == []
    assert daemon.hooks == ["before", "after", "failure"]
    assert daemon.environment("failure")["ERROR"].endswith(" failed with exit status 7")


def test_a_hook_that_hangs_is_ended(daemon: Daemon) -> None:
    hooked(daemon, before="exec sleep 600", hook_timeout='"1s"')
    daemon.run_once()
    assert daemon.jobs == []
    assert daemon.environment("failure")["ERROR"].endswith(" has not ended for 1 s")


def test_a_hook_after_that_fails_makes_the_run_fail_though_the_backup_is_there(daemon: Daemon) -> None:
    hooked(daemon, after="exit 1")
    daemon.run_once()
    assert daemon.hooks == ["before", "after", "failure"]
    told = daemon.environment("failure")
    assert (told["RESULT"], told["SNAPSHOT"], told["EXIT"]) == ("failed", "x-1", "1")


def test_sigterm_does_not_wait_for_a_hook_before(daemon: Daemon) -> None:
    hooked(daemon, before="exec sleep 600")
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.hooks)
    daemon.end()
    assert [report["result"] for report in daemon.reports()] == ["interrupted"]
    assert daemon.hooks == ["before", "after"]


def test_an_error_nobody_expected_does_not_end_the_daemon(daemon: Daemon) -> None:
    daemon.write()
    (daemon.folder / "bug").touch()
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.last().ended_ns)
    assert daemon.process is not None
    assert daemon.process.poll() is None
    daemon.process.terminate()
    _, log = daemon.process.communicate(timeout=60)
    assert "ValueError: oops" in log
    assert daemon.last().error == "internal error: ValueError: oops"


# The destination


def test_where_no_disk_is_mounted_nothing_is_written(daemon: Daemon) -> None:
    daemon.destination = daemon.folder / "absent"
    daemon.write()
    daemon.run_once()
    assert daemon.jobs == []
    assert not daemon.destination.exists()
    assert daemon.last().error.startswith(f"{daemon.destination} does not exist")
    daemon.write("create = true")
    daemon.run_once()
    assert daemon.jobs == ["x"]


@pytest.mark.parametrize("inner", ["store", "store/x", ".", "link"])
def test_a_store_is_not_backed_up_into_itself(daemon: Daemon, inner: str) -> None:
    (daemon.folder / "link").symlink_to(daemon.store)
    daemon.destination = daemon.folder / inner
    daemon.write("create = true")
    if inner != "link":
        with pytest.raises(UsageError, match="lie one in the other"):
            check(str(daemon.store), str(daemon.destination))
        return
    daemon.run_once()
    assert daemon.jobs == []
    assert "lie one in the other" in daemon.last().error


def test_what_cannot_be_remembered_is_backed_up_all_the_same(daemon: Daemon) -> None:
    """As on a full disk: a run that is not noted is better than none."""
    daemon.write("exclude_new = true")
    (daemon.store / "schedules").write_text("")
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.jobs)
    log = daemon.end()
    assert "backup x: what the daemon knows of it cannot be kept: " in log
    assert [report["result"] for report in daemon.reports()] == ["ok"]


# New repositories


def add_directory(store: Path, name: bytes) -> None:
    with opened(str(store)) as fs:
        make_directory(fs, 1, name)


def test_what_is_new_is_told_and_stays_out(daemon: Daemon) -> None:
    add_directory(daemon.store, b"old")
    add_directory(daemon.store, b"caf\xe9")
    daemon.write("exclude_new = true")
    daemon.start()
    daemon.end()
    add_directory(daemon.store, b"new")
    daemon.run_once()
    assert sorted(daemon.done[0]["options"]["exclude_new_known"]) == ["caf\udce9", "old"]
    assert "backup x: 'new' is new, and left out until 'include' names it" in daemon.log
    daemon.write()
    daemon.start()
    daemon.end()
    assert daemon.last().known is None
    daemon.write("exclude_new = true")
    daemon.run_once()
    assert "is new" not in daemon.log


# Signals and the configuration


def test_sighup_reads_the_configuration_again(daemon: Daemon) -> None:
    daemon.write()
    daemon.start()
    daemon.write(name="y")
    daemon.send(signal.SIGHUP)
    state = daemon.await_state("RELOADING=1")
    assert "\nMONOTONIC_USEC=" in state
    daemon.await_state("READY=1")
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.jobs == ["y"])
    daemon.config.write_text("[backup.z]\n")
    daemon.send(signal.SIGHUP)
    daemon.await_state("READY=1")
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.jobs == ["y", "y"])
    log = daemon.end()
    assert "backup x is not made any more" in log
    assert "the configuration is as it was before: " in log
    assert "[backup.z] has no 'destination'" in log


def test_sighup_lets_what_runs_go_on_and_then_goes_by_the_new_one(daemon: Daemon) -> None:
    daemon.write()
    (daemon.folder / "block").touch()
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.jobs)
    daemon.write('reason = "other"')
    daemon.send(signal.SIGHUP)
    daemon.await_state("RELOADING=1")
    daemon.await_state("READY=1")
    (daemon.folder / "block").unlink()
    daemon.wait(lambda: daemon.last().ended_ns)
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: len(daemon.jobs) == 2)
    daemon.end()
    assert [done["options"]["reason"] for done in daemon.done] == ["", "other"]


def test_one_that_is_taken_out_while_it_runs_is_ended_with_the_daemon(daemon: Daemon) -> None:
    hooked(daemon)
    (daemon.folder / "block").touch()
    daemon.start()
    daemon.send(signal.SIGUSR1)
    daemon.wait(lambda: daemon.jobs)
    daemon.config.write_text("")
    daemon.send(signal.SIGHUP)
    daemon.await_state("RELOADING=1")
    daemon.await_state("READY=1")
    daemon.end()
    assert daemon.hooks == ["before", "after"]
    assert daemon.last().was_cut_off


def test_a_second_one_is_refused(daemon: Daemon) -> None:
    daemon.write()
    daemon.start()
    done = casfs("backup", "daemon", str(daemon.store), "--config", str(daemon.config))
    assert done.returncode == 4
    assert done.stderr.startswith(f"casfs: error: {daemon.store} has a daemon for backups already, process ")
    assert done.stderr.count("\n") == 1
    daemon.end()


def test_what_is_wrong_with_the_configuration_is_one_line(daemon: Daemon) -> None:
    absent = casfs("backup", "daemon", str(daemon.store), "--config", str(daemon.config))
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)
    daemon.write("destnation = 1")
    wrong = casfs("backup", "daemon", str(daemon.store), "--config", str(daemon.config))
    assert wrong.returncode == 2
    assert wrong.stderr == (
        f"casfs: error: {daemon.config}: [backup.x] unknown key 'destnation'; did you mean 'destination'?\n"
    )
    daemon.destination = daemon.store
    daemon.write()
    same = casfs("backup", "daemon", str(daemon.store), "--config", str(daemon.config))
    assert same.returncode == 2
    assert same.stderr.startswith(f"casfs: error: {daemon.config}: [backup.x] destination: ")


def casfs(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "casfs", *words], capture_output=True, text=True, check=False
    )


# By the clock


class Slow:
    """A backup that takes as long as it is told by a clock of its own."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = trio.Event()

    def run(
        self,
        store: str,
        destination: str,
        options: BackupOptions,
        *,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> Outcome:
        self.begun.append(options.job)
        trio.from_thread.run(self.go_on.wait)
        return Outcome(OK)

    def prune(self, destination: str, policy: Retention, *, job: str, source_uuid: str) -> int:
        return 0


def test_a_run_that_takes_too_long_has_the_next_ones_skipped(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run of ten takes until half past twelve; those of eleven and twelve do not come."""
    monkeypatch.setattr(backupd, "notify", lambda _state: None)
    caplog.set_level(logging.INFO)
    start = cron.next_run("0 10 * * *", 1_800_000_000.0)
    now = start - 1
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "time_ns", lambda: int(now * 1e9))
    monkeypatch.setattr(backupd, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr("casfs.service.schedule.LOOK_SECONDS", 0.01)
    daemon.write(schedule="0 * * * *")
    work = Slow()

    async def main() -> None:
        nonlocal now
        work.go_on = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backupd.Daemon(str(daemon.store), str(daemon.config), work).run)
            with trio.fail_after(60):
                await until(lambda: "by the schedule" in caplog.text)
                now = start + 1
                await until(lambda: work.begun)
                for hour in (1, 2):
                    now = start + hour * 3600 + 1
                    await until(lambda hour=hour: caplog.text.count("is skipped") == hour)
                now = start + 9_000
                work.go_on.set()
                await until(lambda: last_runs.read(str(daemon.store), "x").ended_ns)
                await trio.sleep(0.1)
                assert work.begun == ["x"]
                now = start + 3 * 3600 + 1
                await until(lambda: len(work.begun) == 2)
                os.kill(os.getpid(), signal.SIGTERM)

    async def until(what: Callable[[], object]) -> None:
        while not what():  # noqa: ASYNC110 - a thread and files are waited for
            await trio.sleep(0.005)

    trio.run(main)
    skipped = [record.getMessage() for record in caplog.records if "is skipped" in record.getMessage()]
    assert [line.split(" is ")[0][-8:] for line in skipped] == ["11:00:00", "12:00:00"]
    assert all(line.endswith("10:00:01 goes on") for line in skipped)


# What is remembered


def test_what_is_remembered_survives_and_what_is_damaged_begins_anew(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    store = str(daemon.store)
    run = LastRun(seen_ns=1, began_ns=2, ended_ns=3, result="ok", known=("caf\udce9", "b"), error="\udcff")
    assert last_runs.change(store, "x", lambda _: run) == last_runs.read(store, "x") == run
    assert last_runs.read(store, "y") is None
    for text in (b"", b"{", b"[]", b'{"seen_ns": "x"}', b"\xff", b"[" * 100_000):
        (daemon.store / "schedules" / "x.json").write_bytes(text)
        assert last_runs.read(store, "x") is None
    assert caplog.text.count("is damaged, and begins anew") == 6


def test_nothing_is_written_where_a_link_leads_to(daemon: Daemon) -> None:
    (daemon.folder / "elsewhere").mkdir()
    (daemon.store / "schedules").symlink_to(daemon.folder / "elsewhere")
    with pytest.raises(OSError, match=r"is no directory|loop|cross-device|Too many"):
        last_runs.change(str(daemon.store), "x", lambda run: run)
    assert list((daemon.folder / "elsewhere").iterdir()) == []
