"""`scripts/bench-stall` shows how long each kind of request took in each phase."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

STALL = Path(__file__).resolve().parents[2] / "scripts" / "bench-stall"
PHASES = ["idle", "write", "close", "sync"]


def stall(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STALL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "one"
    made.mkdir()
    return made


def test_every_phase_is_shown_for_every_kind_of_request(tmp_path: Path, folder: Path) -> None:
    result = tmp_path / "result.json"
    done = stall(f"one={folder}", "--size", "0.01", "--rounds", "1", "--rewrite", "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr

    latencies: Sequence[dict[str, Any]] = json.loads(result.read_text())["latencies"]
    kinds = ["stat cold", "create"] if os.geteuid() == 0 else ["create"]
    assert [(one["phase"], one["request"]) for one in latencies] == [(p, k) for p in PHASES for k in kinds]
    for one in latencies:
        assert (one["verdict"] != "") == (one["phase"] != "idle")
        if one["verdict"] and one["requests"]:
            assert (one["verdict"] == "ok") == (one["p99_ms"] < 20)
        if one["requests"]:
            assert 0 < one["p50_ms"] <= one["p99_ms"] <= one["max_ms"]
    assert all(one["requests"] for one in latencies if one["phase"] == "idle")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no directories to run on"),
        (["one={folder}", "--size", "0"], "'0' is not a number above 0"),
        (["one={folder}", "--json", "/nowhere/x.json"], "/nowhere/x.json: there is no such folder"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], complaint: str, folder: Path) -> None:
    done = stall(*(argument.format(folder=folder) for argument in arguments))
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert list(folder.iterdir()) == []
