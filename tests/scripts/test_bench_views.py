"""`scripts/bench-views` shows how long each step took, and how long others waited in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
VIEWS = CHECKOUT / "scripts" / "bench-views"


def views(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(VIEWS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.mounted
def test_every_step_is_shown_and_nothing_is_left(tmp_path: Path) -> None:
    casfs = tmp_path / "casfs"
    casfs.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m casfs "$@"\n')
    casfs.chmod(0o755)
    work, result = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    done = views("--artifacts", "100", "--casfs", casfs, "--work", work, "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(result.read_text())
    assert document["artifacts"] == 100
    assert len(document["steps"]) == 13
    for step in document["steps"]:
        assert step["step"] in done.stdout
        if step["requests"]:
            assert 0 < step["p50_ms"] <= step["p99_ms"] <= step["max_ms"]
    assert document["steps"][0]["requests"] > 10
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--artifacts", "0"], "'0' is not a whole number above 0"),
        (["--json", "/nowhere/x.json"], "/nowhere/x.json: there is no such folder"),
        (["--casfs", "/nowhere/casfs"], "/nowhere/casfs is not installed"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = views(*arguments, "--work", tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
