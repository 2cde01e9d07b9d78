"""`scripts/bench` runs every workload, and says in one line what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BENCH = CHECKOUT / "scripts" / "bench"


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
    done = bench(*arguments, "--workloads", "*", "--json", result)
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


def test_goals_are_judged_against_peer_targets_and_workloads(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    one, other = folders
    result = tmp_path / "result.json"
    arguments = [f"one={one}", f"bindfs={other}", "--scale", "0.01", "--rounds", "2", "--work", tmp_path]
    workloads = "create,create_4,stat_warm,seq_write"
    done = bench(*arguments, "--goals", "--workloads", workloads, "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr

    summary: dict[str, Any] = json.loads(result.read_text())
    measured = summary["workloads"]
    assert list(measured) == ["create", "create_4", "seq_write"], "stat_warm has no goal"
    assert [one["goal"] for one in measured.values()] == ["1x bindfs", "1.3x create", "0.5x plain"]
    reached = {name: workload["targets"]["one"]["goal"] for name, workload in measured.items()}
    assert reached["create"]["ratio"] == measured["create"]["targets"]["one"]["ratio"]["bindfs"]
    rates = {
        name: [sample["amount"] / sample["seconds"] for sample in measured[name]["targets"]["one"]["samples"]]
        for name in ("create", "create_4")
    }
    ratios = [four / one for one, four in zip(rates["create"], rates["create_4"], strict=True)]
    assert reached["create_4"]["ratio"]["median"] == pytest.approx(sum(ratios) / 2)
    for name in ("create", "create_4"):
        assert reached[name]["met"] == (reached[name]["ratio"]["median"] >= measured[name]["wanted"])
        assert measured[name]["targets"]["bindfs"]["goal"] is None, "a peer is not judged"
    assert reached["seq_write"] is None, "there is no target called plain"

    met = [name for name in ("create", "create_4") if reached[name]["met"]]
    assert f"one met {len(met)} of 2 goals" in done.stdout
    table = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert table["create"].rstrip().endswith("met" if "create" in met else "missed")
    assert table["seq_write"].endswith("-")


def test_figures_are_shown_with_their_limits_and_kept(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    one, other = folders
    result = tmp_path / "result.json"
    arguments = [f"one={one}", f"plain={other}", "--scale", "0.02", "--rounds", "2", "--work", tmp_path]
    done = bench(*arguments, "--workloads", "append_line", "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr

    measured = json.loads(result.read_text())["workloads"]["append_line"]
    figure = "ms of 99 % but the first"
    assert measured["limits"][figure] == 1
    for name in ("one", "plain"):
        value = measured["targets"][name]["figures"][figure]
        samples = [sample["figures"][figure] for sample in measured["targets"][name]["samples"]]
        assert value == pytest.approx(sum(samples) / 2)
    lines = {line.split(":")[0]: line for line in done.stdout.splitlines()}
    within = measured["targets"]["one"]["figures"][figure] <= 1
    assert f"({'within' if within else 'above'} 1)" in lines["append_line on one"]
    assert "(" not in lines["append_line on plain"], "a peer is not judged"
    assert "disk" not in lines["append_line on one"], "nobody knows where a named folder keeps its contents"


def test_what_takes_long_is_only_run_when_it_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    listed = bench("--list").stdout.splitlines()
    slow = [line.split()[0] for line in listed if line.endswith("(only when named)")]
    assert {"git_commit", "tar_append", "append_line_1g"} <= set(slow)
    one, _ = folders
    arguments = [f"one={one}", "--rounds", "1", "--work", tmp_path, "--timeout", "0.000001", "--json", "-"]
    run = json.loads(bench(*arguments).stdout)["workloads"]
    assert list(run) == [name for name in workload_names() if name not in slow]


def command(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.mounted
def test_it_mounts_and_removes_its_own_targets(tmp_path: Path) -> None:
    casfs = command(tmp_path / "casfs", f'PYTHONPATH={CHECKOUT} exec {sys.executable} -m casfs "$@"')
    work, result = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    arguments = ["--setup", "--casfs", casfs, "--work", work, "--scale", "0.002", "--rounds", "1"]
    done = bench(*arguments, "--workloads", "create,cp,cp_tree,git_clone,append_log", "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads(result.read_text())
    kinds = {name: target["file_system"] for name, target in summary["targets"].items()}
    assert kinds["casfs"] == "fuse.casfs"
    assert kinds["bindfs"] == "fuse"
    assert not kinds["plain"].startswith("fuse")
    assert summary["targets"]["casfs"]["daemon"] is not None
    assert summary["targets"]["casfs"]["features"], "what casfs says of itself is kept with the numbers"
    for target in summary["workloads"]["append_log"]["targets"].values():
        assert target["figures"]["disk at rest"] == 1
        assert "disk while hot" in target["figures"]
    assert list(work.iterdir()) == []


def test_casfs_plain_is_mounted_without_the_native_part(tmp_path: Path) -> None:
    casfs = command(tmp_path / "casfs", '[ "$1" = init ] && exec mkdir "$2"; exit 1')
    work = tmp_path / "work"
    work.mkdir()
    done = bench("--setup", "casfs-plain", "--casfs", casfs, "--work", work, "--casfs-mount", "-o x")
    assert done.returncode == 2
    assert f"`{casfs} mount -o x --no-native " in done.stderr
    assert list(work.iterdir()) == []


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
        (["one={one}", "--workloads", "stat_warm", "--goals"], "none of these workloads has a goal"),
        (["--setup", "casfs,ext4"], "'ext4' is none of casfs, plain, bindfs, casfs-plain"),
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


@pytest.mark.mounted
@pytest.mark.parametrize(
    ("workloads", "one", "goal"),
    [
        ("repo_*", "repo_create_trees", "0.7x repo_create_plain"),
        (
            "*stat_cold,*find,*open_read_close*,*seq_read_cold,*random_read,*cp_tree",
            "snapshot_find",
            "0.9x find",
        ),
    ],
)
def test_what_only_casfs_has_is_measured_where_it_is_set_up(
    tmp_path: Path, workloads: str, one: str, goal: str
) -> None:
    casfs = command(tmp_path / "casfs", f'PYTHONPATH={CHECKOUT} exec {sys.executable} -m casfs "$@"')
    work, result = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    arguments = [
        "--setup",
        "casfs,plain",
        "--casfs",
        casfs,
        "--work",
        work,
        "--scale",
        "0.02",
        "--rounds",
        "2",
    ]
    done = bench(*arguments, "--workloads", workloads, "--goals", "--json", result)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(result.read_text())["workloads"]
    assert measured[one]["goal"] == goal
    for name, workload in measured.items():
        if workload["skipped"] or not name.startswith(one.partition("_")[0]):  # cold ones need root
            continue
        target = workload["targets"]["casfs"]
        assert (target["goal"] is not None) == (workload["goal"] is not None), (
            f"{name} has nothing to be compared with"
        )
    assert list(work.iterdir()) == []
