"""`scripts/bench-snapshots` shows how long snapshots take, and how long others wait for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SNAPSHOTS = CHECKOUT / "scripts" / "bench-snapshots"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SNAPSHOTS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.mounted
def test_snapshots_and_requests_are_shown(tmp_path: Path) -> None:
    casfs = tmp_path / "casfs"
    casfs.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m casfs "$@"\n')
    casfs.chmod(0o755)
    work, result = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    sizes = ("--files", "3000", "--rounds", "2", "--disk", "xfs")
    done = bench(*sizes, "--casfs", casfs, "--work", work, "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(result.read_text())["disks"]
    assert len(row["snapshots"]) == 2
    assert all(ms > 0 for ms in row["snapshots"])
    assert row["max_ms"].keys() == row["usual_max_ms"].keys() == {"create", "fsync"}
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--files", "0"], "'0' is not a whole number above 0"),
        (["--json", "/nowhere/x.json"], "/nowhere/x.json: there is no such folder"),
        (["--casfs", "/nowhere/casfs"], "/nowhere/casfs is not installed"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = bench(*arguments, "--work", tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
