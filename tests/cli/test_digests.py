"""`casfs digests` on a store that is there: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from casfs.errors import ExitCode
from casfs.maintenance.digests.migration import digests_lock
from casfs.maintenance.offline import opened
from casfs.namespace.digests import DigestRun
from casfs.store import collector_lock, create_store
from tests.maintenance.stores import ONE, Damaged, fill, make_file


@pytest.fixture
def store(tmp_path: Path) -> Damaged:
    create_store(str(tmp_path / "store"), fan_out=1)
    with opened(str(tmp_path / "store")) as fs:
        fill(fs)
    return Damaged(tmp_path / "store")


def test_it_is_added_computed_and_shown(casfs, store: Damaged) -> None:
    outcome = casfs("digests", str(store), "--add", "sha256,md5", "--fast")
    assert (outcome.code, outcome.err) == (ExitCode.OK, "")
    first, second = outcome.out.splitlines()
    assert first == "every content gets beside BLAKE3: md5, sha256"
    assert second.startswith(f"{store}: computed 6 digests of 3 blobs, 4.41 KiB in 0.")
    shown = casfs("digests", str(store)).out.splitlines()
    assert [line.split()[:3] for line in shown[1:4]] == [
        ["blake3", "yes", "3"],
        ["sha256", "yes", "3"],
        ["md5", "yes", "3"],
    ]
    assert shown[4].startswith("last run: begun ")
    assert shown[4].endswith(": 3 blobs, 4.41 KiB")
    assert shown[5] == "lacking: nothing that is wanted (md5, sha256)"
    log = (store.path / "run" / "digests.log").read_text().splitlines()
    assert [line.split(" ", 3)[3] for line in log] == [
        "begun: computing md5 sha256",
        "done: 3 blobs, 4513 bytes, 0 damaged",
    ]
    assert casfs("digests", str(store), "--remove", "md5").out == "every content gets beside BLAKE3: sha256\n"
    assert "md5           no      3" in casfs("digests", str(store)).out


def test_for_programs(casfs, store: Damaged) -> None:
    report = json.loads(casfs("digests", str(store), "--add", "sha1", "--fast", "--json").out)
    assert (report["wanted"], report["blobs"], report["complete"]) == (["sha1"], 3, True)
    facts = json.loads(casfs("digests", str(store), "--json").out)
    assert [(one["name"], one["wanted"], one["lacking"]) for one in facts["algorithms"]] == [
        ("sha1", True, 0)
    ]
    state = json.loads(casfs("digests", str(store), "--status", "--json").out)
    assert state == facts["state"]
    assert state["run"].keys() == set(DigestRun._fields)


def test_garbage_is_collected_first(casfs, store: Damaged) -> None:
    store.sql("UPDATE blob SET orphaned_ns = 1 WHERE refs = 0")
    assert "of 3 blobs" in casfs("digests", str(store), "--add", "sha1", "--fast", "--no-gc").out
    outcome = casfs("digests", str(store), "--add", "md5", "--fast").out
    assert "removed 1 blobs, 13 B, that nothing refers to\n" in outcome
    assert "of 2 blobs" in outcome
    lock = collector_lock(str(store))
    assert lock.acquire()
    try:
        outcome = casfs("digests", str(store), "--run")
    finally:
        lock.release()
    assert outcome.code == ExitCode.OK
    assert outcome.err.startswith("casfs: nothing is collected: ")


def test_damage_is_told_and_is_the_exit_code(casfs, store: Damaged) -> None:
    store.overwrite(store.blob(ONE), ONE[:-1] + b"!")
    outcome = casfs("digests", str(store), "--add", "sha256", "--fast")
    assert outcome.code == ExitCode.PROBLEMS
    assert "corrupt-blob " in outcome.out
    assert ", 1 damaged\n" in outcome.out
    assert casfs("digests", str(store), "--run").code == ExitCode.PROBLEMS
    assert "1 blobs are known to be damaged or missing, and get none" in casfs("digests", str(store)).out
    assert " is damaged: " in (store.path / "run" / "digests.log").read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--add", "sha265"], "unknown algorithm 'sha265'; did you mean 'sha256'?"),
        (["--add", "blake3"], "unknown algorithm 'blake3'; known: "),
        (["--fast"], "--fast is for a run; "),
        (["--sleep", "0", "--status"], "--sleep is for a run; "),
        (["--status", "--add", "md5"], "--status changes nothing; "),
        (["--add", "md5", "--remove", "md5"], "md5 cannot be both "),
        (["--run", "--workers", "0"], "argument --workers: 0 is too few; "),
        (["--add", "md5", "--background"], "no daemon collects "),
    ],
)
def test_wrong_usage(casfs, store: Damaged, words: list[str], complaint: str) -> None:
    outcome = casfs("digests", str(store), *words)
    assert outcome.code != ExitCode.OK
    assert outcome.complaint.startswith(complaint)
    assert store.sql("SELECT * FROM meta WHERE key = 'digests'") == []


def test_while_another_process_is_at_it_an_algorithm_can_be_added(casfs, store: Damaged) -> None:
    lock = digests_lock(str(store))
    try:
        outcome = casfs("digests", str(store), "--add", "sha1")
        assert "computed by process " in casfs("digests", str(store), "--status").out
    finally:
        lock.release()
    assert outcome.code == ExitCode.LOCKED
    assert re.match(
        r"digests of .* are being computed by process \d+ \(.*\); it computes all", outcome.complaint
    )
    assert store.sql("SELECT value FROM meta WHERE key = 'digests'") == [("sha1",)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_run_goes_on(casfs, store: Damaged, number: int) -> None:
    with opened(str(store)) as fs:
        for name in range(300):
            make_file(fs, 1, b"%d" % name, b"%d" % name)
    command = [sys.executable, "-m", "casfs", "digests", str(store), "--add", "sha1", "--batch", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not store.sql("SELECT * FROM blob_digest") and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (ExitCode.INTERRUPTED, "")
    assert "stopped: 'casfs digests --run' goes on here" in out
    status = casfs("digests", str(store), "--status").out
    assert "cut off after" in status
    assert "; 'casfs digests --run' computes them" in status
    outcome = casfs("digests", str(store), "--run", "--fast")
    assert outcome.code == ExitCode.OK
    assert "went on with a run that was cut off" in outcome.out
    assert len(store.sql("SELECT * FROM blob_digest")) == 303


def test_a_new_store_has_them_from_the_first_on(casfs, tmp_path: Path) -> None:
    outcome = casfs("init", str(tmp_path / "new"), "--digests", "sha256, md5", "--json")
    assert json.loads(outcome.out)["digests"] == ["sha256", "md5"]
    assert "lacking: nothing that is wanted (md5, sha256)" in casfs("digests", str(tmp_path / "new")).out
    outcome = casfs("init", str(tmp_path / "other"), "--digests", "sha3")
    assert outcome.complaint.startswith("unknown algorithm 'sha3'")
    assert not (tmp_path / "other").exists()


def test_what_lies_in_the_place_of_its_log_is_not_written_to(casfs, store: Damaged, tmp_path: Path) -> None:
    (store.path / "run" / "digests.log").symlink_to(tmp_path / "elsewhere")
    outcome = casfs("digests", str(store), "--add", "sha256", "--fast")
    assert outcome.code != ExitCode.OK
    assert "digests.log cannot be written" in outcome.err
    assert not (tmp_path / "elsewhere").exists()
