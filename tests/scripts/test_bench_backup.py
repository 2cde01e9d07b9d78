"""`scripts/bench-backup` shows how long backups take beside rsync."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BACKUP = CHECKOUT / "scripts" / "bench-backup"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BACKUP), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(shutil.which("rsync") is None, reason="there is no rsync")
def test_each_step_is_shown(tmp_path: Path) -> None:
    casfs = tmp_path / "casfs"
    casfs.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m casfs "$@"\n')
    casfs.chmod(0o755)
    work, result = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    sizes = ("--files", "600", "--bytes", "2M", "--rounds", "1")
    done = bench(*sizes, "--casfs", casfs, "--work", work, "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["what"]: row for row in json.loads(result.read_text())["rows"]}
    assert {"rsync -a", "first backup", "second backup", "nothing new", "verify", "restore"} <= rows.keys()
    assert all(row["seconds"] > 0 and row["mib"] > 5 for row in rows.values())
    assert rows["first backup"]["goal"] == pytest.approx(1.2 * rows["rsync -a"]["seconds"])
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
