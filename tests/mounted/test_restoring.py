"""`casfs snapshot restore` as programs meet it: what the kernel remembers of names and contents is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount, asked, casfs

OLD, NEW = "old\n" * 10, "new\n" * 20


def run(*words: str | Path, code: int = 0) -> str:
    done = subprocess.run(words, capture_output=True, text=True, errors="surrogateescape")
    assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def seen(path: Path) -> dict[str, tuple[int, int, str | None]]:
    """Everything below, by the kernel's word: mode, links, content."""
    found = {}
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            each = Path(folder, name)
            status = each.lstat()
            content = each.read_text(errors="replace") if each.is_file() and not each.is_symlink() else None
            found[str(each.relative_to(path))] = status.st_mode, status.st_nlink, content
    return found


@pytest.fixture
def filled(mount: Mount) -> Mount:
    for name in ("libs/deep/one", "libs/two", "top"):
        (mount.path / name).parent.mkdir(parents=True, exist_ok=True)
        (mount.path / name).write_text(OLD)
    os.link(mount.path / "top", mount.path / "libs/linked")
    asked("snapshot", "create", mount.store, "a")
    return mount


def change(path: Path) -> None:
    (path / "libs/deep").rename(path / "moved")
    (path / "libs/two").write_text(NEW)
    (path / "libs/two").chmod(0o600)
    (path / "top").unlink()
    (path / "libs/deep").write_text("a file")
    (path / "made").mkdir()
    (path / "made/file").write_text(NEW)


@pytest.mark.parametrize("words", [(), ("libs", "moved", "made", "top")])
def test_programs_see_at_once_what_is_restored(filled: Mount, words: tuple[str, ...]) -> None:
    path = filled.path
    before = seen(path)
    inode = (path / "libs/deep").stat().st_ino
    change(path)
    seen(path)  # the kernel remembers it
    assert not (path / "libs/deep/one").exists()
    if words:
        done = subprocess.run(
            [sys.executable, "-m", "casfs", "snapshot", "restore", filled.store, "a", *words],
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0  # `moved` is not in it: then nothing is done
        assert "does not have it" in done.stderr
        assert (path / "moved/one").read_text() == OLD
        return
    asked("snapshot", "restore", filled.store, "a")
    assert seen(path) == before
    assert (path / "libs/deep").stat().st_ino == inode
    assert asked("snapshot", "diff", filled.store, "a") == ""


def test_paths_may_be_those_of_the_mount(filled: Mount) -> None:
    path = filled.path
    (path / "libs/two").unlink()
    asked("snapshot", "restore", path, "a", path / "libs/two")
    assert (path / "libs/two").read_text() == OLD
    asked("snapshot", "restore", path, "a", path / "libs", "--to", path / "copy")
    assert (path / "copy/deep/one").read_text() == OLD


def test_a_dry_run_lists_and_changes_nothing(filled: Mount) -> None:
    change(filled.path)
    before = seen(filled.path)
    lines = asked("snapshot", "restore", "--dry-run", filled.store, "a").splitlines()
    assert lines[:-1] == [
        "R moved/ -> libs/deep/",
        "- libs/deep",
        "M libs/two",
        "- made/",
        "- made/file",
        "+ top",
    ]
    assert lines[-1].startswith("would be: 1 brought back, 1 replaced, 1 moved back, 3 removed")
    assert seen(filled.path) == before
    found = json.loads(asked("snapshot", "diff", filled.store, "a", "--json"))
    assert [each["change"] for each in found] == ["renamed", "added", "changed", "added", "added", "removed"]


def test_who_has_a_file_open_keeps_it(filled: Mount) -> None:
    path = filled.path / "libs/two"
    path.write_text(NEW)
    with path.open("r+") as reader, path.open("a") as writer:
        writer.write("more")
        writer.flush()
        asked("snapshot", "restore", filled.store, "a", "libs")
        assert path.read_text() == OLD
        writer.write("!")
        writer.flush()
        assert reader.read() == NEW + "more!"


def test_others_go_on_meanwhile(filled: Mount) -> None:
    path = filled.path
    folder = path / "libs/many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"{number:04}").write_text(str(number))
    asked("snapshot", "create", filled.store, "b")
    subprocess.run(["rm", "-r", str(folder)], check=True)
    stop, failures = threading.Event(), list[str]()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                (path / "busy").write_text(f"{number}")
                if (path / "busy").read_text() != f"{number}":
                    failures.append(f"{number} was lost")
                (path / "busy").rename(path / "other")
                (path / "other").unlink()
            except OSError as error:
                failures.append(str(error))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        asked("snapshot", "restore", filled.store, "b", "/libs")
    finally:
        stop.set()
        worker.join()
    assert failures == []
    assert {each.name: each.read_text() for each in folder.iterdir()} == {
        f"{number:04}": str(number) for number in range(1500)
    }


def test_killed_in_the_middle_it_is_done_or_not(filled: Mount) -> None:
    path = filled.path
    folder = path / "libs/many"
    folder.mkdir()
    for number in range(1000):
        (folder / f"{number:04}").write_text(str(number))
    asked("snapshot", "create", filled.store, "b")
    subprocess.run(["rm", "-r", str(folder)], check=True)
    os.sync()
    before, outcomes = seen(path), set()
    for wait in (0.02, 0.1, 0.2, 0.3, 0.5):
        with subprocess.Popen(
            [sys.executable, "-m", "casfs", "snapshot", "restore", filled.store, "b", "/libs"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(wait + 0.2)
            filled.kill()
            process.wait()
        filled.start()
        found = seen(path)
        whole = len(list(folder.iterdir())) if folder.exists() else 0
        assert whole in (0, 1000)
        if not whole:
            assert found == before
        outcomes.add(whole)
        casfs("fsck", filled.store, "--deep")
        if whole:
            subprocess.run(["rm", "-r", str(folder)], check=True)
            os.sync()
            before = seen(path)
    assert outcomes
