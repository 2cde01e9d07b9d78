"""`scripts/bench-find` shows how long each kind of search took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FIND = CHECKOUT / "scripts" / "bench-find"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FIND), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_every_search_is_shown_and_finds_what_is_there(tmp_path: Path) -> None:
    casfs = tmp_path / "casfs"
    casfs.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m casfs "$@"\n')
    casfs.chmod(0o755)
    work, result = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    done = bench("--files", "400", "--casfs", casfs, "--work", work, "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["query"]: row for row in json.loads(result.read_text())["queries"]}
    found = {name: row["found"] for name, row in rows.items()}
    assert found["sha256"] == found["property and value"] == 1
    assert (found["everything"], found["common property"], found["duplicates"]) == (400, 20, 40)
    assert found["name"] == 100
    assert found["organisation and module"] == found["module"] == 30
    assert {name for name, row in rows.items() if row["by"] == "scan"} >= {"name", "unused", "duplicates"}
    assert rows["sha256"]["by"] == "digest"
    for name, row in rows.items():
        assert name in done.stdout
        assert 0 < row["p50_ms"] <= row["max_ms"]
        assert row["command_ms"] > row["p50_ms"]
        assert row["command_mib"] > 5
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
