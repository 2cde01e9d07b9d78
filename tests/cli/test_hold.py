"""`casfs hold`: a snapshot for as long as a command runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mounted.mounts import CASFS, ENVIRONMENT, casfs

WAITS = "echo ready; exec sleep 60"


def held(store: Path) -> list[str]:
    return [each["name"] for each in json.loads(casfs("snapshot", "list", store, "--json"))]


def started(store: Path, script: str) -> subprocess.Popen[str]:
    """`casfs hold` of a shell that has said something."""
    words = [*CASFS, "hold", str(store), "--", "sh", "-c", script]
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_there_is_a_snapshot_while_the_command_runs(store_path: Path) -> None:
    said = casfs("hold", store_path, "--", "sh", "-c", f'echo "$CASFS_SNAPSHOT"; ls "{store_path}/snapshots"')
    first, second = said.split()
    assert first == second
    assert re.fullmatch(r"hold-\d{8}T\d{6}Z-[0-9a-f]{6}", first)
    assert held(store_path) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -USR1 $$"], 128 + signal.SIGUSR1),
        (["/nothing/there"], 127),
        (["/dev/null"], 126),
        (["true", "--", "--begin"], 0),
    ],
)
def test_it_ends_as_the_command_does(store_path: Path, command: list[str], code: int) -> None:
    done = subprocess.run([*CASFS, "hold", store_path, "--", *command], env=ENVIRONMENT, capture_output=True)
    assert done.returncode == code
    assert held(store_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_command_first(store_path: Path, number: signal.Signals) -> None:
    process = started(store_path, WAITS)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert held(store_path) == []


def test_the_command_may_end_in_its_own_way(store_path: Path) -> None:
    script = 'trap "echo cleaned; exit 3" TERM; echo ready; while :; do sleep 0.05; done'
    process = started(store_path, script)
    process.terminate()
    assert process.communicate(timeout=30)[0] == "cleaned\n"
    assert process.returncode == 3
    assert held(store_path) == []


def test_a_signal_before_the_command_runs_leaves_nothing(store_path: Path) -> None:
    script = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.kill(os.getpid(), signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:], "--", "false"])
"""
    words = [sys.executable, "-c", script, *CASFS[1:], "hold", str(store_path)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert held(store_path) == []


def test_what_a_killed_one_has_left_expires(store_path: Path) -> None:
    words = [*CASFS, "hold", str(store_path), "--expires", "1s", "--", "sh", "-c", "echo ready; sleep 1"]
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    [left] = json.loads(casfs("snapshot", "list", store_path, "--json"))
    time.sleep(max(0.0, left["expires_ns"] / 1e9 - time.time()))
    casfs("hold", store_path, "--", "true")
    assert held(store_path) == []


def test_it_expires_after_a_week_if_nothing_else_is_said(store_path: Path) -> None:
    name = casfs("hold", store_path, "--begin").strip()
    [left] = json.loads(casfs("snapshot", "list", store_path, "--json"))
    assert left["name"] == name
    assert abs(left["expires_ns"] / 1e9 - time.time() - 7 * 86400) < 3600
    casfs("hold", store_path, "--end", name)
    assert held(store_path) == []
    assert "there is no snapshot" in casfs("hold", store_path, "--end", name, code=1)


def test_a_snapshot_that_somebody_else_has_made_is_not_ended(store_path: Path) -> None:
    casfs("snapshot", "create", store_path, "mine")
    assert "was not made here" in casfs("hold", store_path, "--end", "mine", code=2)
    assert held(store_path) == ["mine"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["true"],
        ["--begin", "--", "true"],
        ["--begin", "--end", "hold-1"],
        ["--expires", "0s", "--", "true"],
    ],
)
def test_what_cannot_be_meant_is_refused(store_path: Path, words: list[str]) -> None:
    casfs("hold", store_path, *words, code=2)
    assert held(store_path) == []


def test_what_is_no_store_is_not_held(scratch: Path) -> None:
    assert "does not exist" in casfs("hold", scratch / "absent", "--", "touch", scratch / "ran", code=3)
    assert os.listdir(scratch) == []


def test_a_snapshot_by_hand_that_the_next_backup_would_remove_is_refused(store_path: Path) -> None:
    said = casfs("snapshot", "create", store_path, "for-backup-mine", code=2)
    assert "the next backup removes what is called so" in said
