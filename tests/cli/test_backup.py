"""`casfs backup`, as a program sees it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from casfs.cli.main import main
from casfs.store import create_store
from tests.maintenance.backup.backups import add_files

Out = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    create_store(str(tmp_path / "store"))
    add_files(tmp_path / "store", {b"file": b"content", b"other": b"x" * 5_000})
    return tmp_path / "store"


@pytest.fixture
def destination(store: Path, tmp_path: Path, capfd: Out) -> Path:
    assert main(["backup", "run", str(store), str(tmp_path / "destination"), "--job", "nightly"]) == 0
    capfd.readouterr()
    return tmp_path / "destination"


def complaint(capfd: Out, *words: str | Path, code: int) -> str:
    assert main(list(map(str, words))) == code
    _out, error = capfd.readouterr()
    assert error.count("\n") == 1, error
    assert error.startswith("casfs: error: ")
    return error


def output(capfd: Out, *words: str | Path, code: int = 0) -> str:
    assert main(list(map(str, words))) == code
    out, error = capfd.readouterr()
    assert error == ""
    return out


def test_run_says_what_is_new(store: Path, destination: Path, capfd: Out) -> None:
    assert "2 files, 4.89 KiB; 0 contents, 0 B, are new" in output(capfd, "backup", "run", store, destination)
    add_files(store, {b"new": b"new"})
    out = output(capfd, "backup", "run", store, destination, "--exclude", "other")
    assert "1 contents, 3 B, are new" in out
    assert "left out: other" in out


def test_events_are_one_json_object_a_line(store: Path, destination: Path, capfd: Out) -> None:
    lines = output(capfd, "backup", "run", store, destination, "--json").splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["event"] for event in events} == {"progress", "done"}
    assert events[-1]["event"] == "done"
    assert events[-1]["counts"]["files"] == 2
    assert all(event["doing"] for event in events[:-1])


def test_list(store: Path, destination: Path, capfd: Out) -> None:
    headers, line = output(capfd, "backup", "list", destination).splitlines()
    assert headers.split() == ["backup", "made", "source", "job", "files", "size", "new", "took", "result"]
    assert line.endswith("ok")
    assert "nightly" in line
    (made,) = json.loads(output(capfd, "backup", "list", destination, "--json"))
    assert made["new_blobs"] == made["files"] == 2
    assert made["result"] == "ok"


def test_damage_is_exit_code_5_with_the_paths(store: Path, destination: Path, capfd: Out) -> None:
    add_files(store, {b"bad": b"bad" * 100})
    (path,) = [path for path in (store / "blobs").rglob("*") if path.is_file() and path.stat().st_size == 300]
    path.chmod(0o600)
    path.write_bytes(b"BAD" * 100)
    out = output(capfd, "backup", "run", store, destination, code=5)
    assert "/bad" in out
    assert "1 contents could not be read" in out
    lines = output(capfd, "backup", "run", store, destination, "--json", code=5).splitlines()
    lost = [event for event in map(json.loads, lines) if event["event"] == "lost"]
    assert [event["paths"] for event in lost] == [["/bad"]]
    assert "1 contents are lacking" in output(capfd, "backup", "list", destination)
    assert "/bad" in output(capfd, "backup", "verify", destination, code=5)


def test_verify_and_prune(store: Path, destination: Path, capfd: Out) -> None:
    assert "2 of 2 contents read" in output(capfd, "backup", "verify", destination)
    events = output(capfd, "backup", "verify", destination, "--sample", "50%", "--json").splitlines()
    assert json.loads(events[-1])["blobs"] == 2
    output(capfd, "backup", "run", store, destination, "--job", "nightly")
    plan = output(capfd, "backup", "prune", destination, "--keep-last", "1", "--dry-run")
    assert plan.splitlines()[-1] == "would drop 1 of 2 backups"
    assert "would free 0 contents" in output(
        capfd, "backup", "prune", destination, "--keep-last", "1", "--no-gc"
    )
    done = json.loads(output(capfd, "backup", "prune", destination, "--keep-last", "all", "--json"))
    assert (len(done["kept"]), done["dropped"], done["freed_blobs"]) == (1, [], 0)


def test_restore_in_its_forms(store: Path, destination: Path, tmp_path: Path, capfd: Out) -> None:
    (name,) = [path.name for path in (destination / "snapshots").glob("nightly*")]
    assert "would restore 2 contents" in output(
        capfd, "backup", "restore", destination, tmp_path / "new", "--dry-run"
    )
    assert not (tmp_path / "new").exists()
    assert "2 contents" in output(capfd, "backup", "restore", destination, name, tmp_path / "new")
    assert "clean" in output(capfd, "fsck", "--deep", tmp_path / "new")
    output(capfd, "backup", "restore", destination, "/file", "--to", tmp_path / "out")
    assert (tmp_path / "out" / "file").read_bytes() == b"content"
    into = output(capfd, "backup", "restore", destination, "/other", "--into", f"{store}:/copy")
    assert "1 brought back" in into
    again = output(capfd, "backup", "restore", destination, "/", "--into", tmp_path / "new", "--at", "0s")
    assert "as they are" in again
    os.truncate(tmp_path / "out" / "file", 3)
    assert "--force" in complaint(
        capfd, "backup", "restore", destination, "/file", "--to", tmp_path / "out", code=1
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "STORE", "STORE"], 2),
        (["run", "STORE", "nowhere/../STORE/x"], 2),
        (["run", "nothing", "DEST"], 3),
        (["run", "STORE", "DEST", "--expires", "0"], 2),
        (["run", "STORE", "DEST", "--job", "../x"], 2),
        (["run", "STORE", "DEST", "--init", "--require-existing"], 2),
        (["run", "STORE", "fresh", "--require-existing"], 3),
        (["list", "nothing"], 3),
        (["verify", "DEST", "none"], 1),
        (["verify", "DEST", "../x"], 2),
        (["verify", "DEST", "--sample", "0%"], 2),
        (["restore", "DEST"], 2),
        (["restore", "DEST", "a", "b", "c"], 2),
        (["restore", "DEST", "none", "new"], 1),
        (["restore", "DEST", "new", "--at", "2000-01-01"], 1),
        (["restore", "DEST", "file", "--to", "new"], 2),
        (["restore", "DEST", "/none", "--to", "new"], 1),
        (["restore", "DEST", "STORE"], 3),
        (["prune", "DEST", "--job", "nightly"], 2),
        (["prune", "nothing"], 3),
        (["mount", "DEST", "nothing"], 32),
    ],
)
def test_bad_input_is_one_clear_line(
    store: Path,
    destination: Path,
    tmp_path: Path,
    capfd: Out,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"STORE": "store", "DEST": "destination", "nowhere/../STORE/x": "store/x"}
    complaint(capfd, "backup", *(places.get(word, word) for word in words), code=code)
    assert sorted(os.listdir(tmp_path)) == ["destination", "store"]
