"""`scripts/bench` runs every workload, and says in one line what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def workload_names() -> list[str]:
    return [line.split()[0] for line in bench("--list").stdout.splitlines()]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    return one, other


def test_every_workload_has_a_rate_on_each_target(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    one, other = folders
    result = tmp_path / "result.json"
    arguments = [f"one={one}", f"plain={other}", "--scale", "0.002", "--rounds", "2", "--work", tmp_path]
    done = bench(*arguments, "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr

    summary: dict[str, Any] = json.loads(result.read_text())
    assert summary["base"] == "plain"
    assert list(summary["workloads"]) == workload_names()
    for name, workload in summary["workloads"].items():
        if workload["skipped"]:  # cold workloads need root
            assert name not in done.stdout.split("Skipped")[0]
            continue
        assert name in done.stdout
        for target in workload["targets"].values():
            assert [sample["round"] for sample in target["samples"]] == [1, 2]
            assert target["min"] <= target["median"] <= target["max"]
        assert workload["targets"]["one"]["ratio"]["plain"]["median"] > 0

    assert list(one.iterdir()) == list(other.iterdir()) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"one", "other", "result.json"}


def test_a_failing_workload_does_not_stop_the_others(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    one, other = folders
    arguments = [f"one={one}", f"other={other}", "--scale", "0.002", "--rounds", "1", "--work", tmp_path]
    done = bench(*arguments, "--workloads", "untar,mkdir", "--timeout", "0.000001", "--json", "-")
    assert done.returncode == 1
    targets = [
        target for one in json.loads(done.stdout)["workloads"].values() for target in one["targets"].values()
    ]
    assert {target["error"] for target in targets} == {"not done within 1e-06 s"}
    assert list(one.iterdir()) == list(other.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no directories to run on"),
        (["one=/nowhere"], "/nowhere is not a directory"),
        (["{one}"], "is not of the form NAME=DIRECTORY"),
        (["one={one}", "one={other}"], "two targets are called one"),
        (["one={one}", "--workloads", "creat"], "no workload is called 'creat'"),
        (["one={one}", "--base", "two"], "--base two: no target of that name (one)"),
        (["one={one}", "--rounds", "0"], "'0' is not a whole number above 0"),
        (["one={one}", "--scale", "nan"], "'nan' is not a number above 0"),
        (["one={one}", "--json", "/nowhere/x.json"], "/nowhere/x.json: there is no such folder to write to"),
        (["--setup", "casfs", "--casfs", "/nowhere/casfs"], "/nowhere/casfs is not installed"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    arguments: list[str], complaint: str, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    one, other = folders
    done = bench(*(argument.format(one=one, other=other) for argument in arguments), "--work", tmp_path)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(("bench: ", "scripts/bench: error: "))
    assert complaint in last
    assert {entry.name for entry in tmp_path.iterdir()} == {"one", "other"}
