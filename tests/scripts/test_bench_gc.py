"""`scripts/bench-gc` shows how long requests took with and without the collector at work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounted.mounts import ENVIRONMENT

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench-gc"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


@pytest.fixture
def casfs(tmp_path: Path) -> Path:
    """The command of this checkout."""
    command = tmp_path / "casfs"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m casfs "$@"\n')
    command.chmod(0o755)
    return command


@pytest.mark.mounted
def test_both_phases_are_shown_for_every_kind_of_request(scratch: Path, casfs: Path) -> None:
    result = scratch / "result.json"
    done = bench(
        *("--orphans", 200, "--seconds", 3, "--work", scratch),
        *("--casfs", casfs, "--json", result),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(result.read_text())
    assert document["collected"] >= 200
    shown = [(one["request"], one["phase"]) for one in document["latencies"]]
    assert shown == [(r, p) for r in ("stat", "create", "unlink") for p in ("without", "collecting")]
    for one in document["latencies"]:
        assert one["requests"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"] <= one["max_ms"]
        assert (one["ratio"] is None) == (one["phase"] == "without")
        if one["ratio"] is not None:
            assert (one["verdict"] == "ok") == (one["ratio"] < 2)
    assert [entry.name for entry in scratch.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--orphans", "0"], "'0' is not a whole number above 0"),
        (["--json", "/nowhere/x.json"], "/nowhere/x.json: there is no such folder"),
        (["--work", "/nowhere"], "cannot make a work folder in /nowhere"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], complaint: str, casfs: Path) -> None:
    done = bench(*arguments, "--casfs", casfs)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
