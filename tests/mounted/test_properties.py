"""Properties in mounts: other programs set and keep them, commands change many at once, or none."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from casfs.control.access import StoreAccess
from casfs.control.messages import Acted, Action, ActOn, CopyInto, MoveInto, RemoveFiles, Target
from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, asked, casfs, sync_directory

QA = "user.casfs.prop.qa"
NOBODY = 65534
MANY = 10_000
SLOWEST = 0.5
"""Seconds that somebody waits for a lookup at the most, on a machine that others use, too."""


def run(*words: str | Path, code: int = 0, **options: object) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]
    assert done.returncode == code, f"{words}: {done.returncode}, {done.stderr}"
    return str(done.stdout)


def test_programs_set_and_keep_them(mount: Mount) -> None:
    asked("trash", "set", mount.path, "--minimal-age", "0")
    top = mount.path
    (top / "dir").mkdir()
    for name in ("dir/file", "empty"):
        (top / name).write_bytes(b"content" * (name != "empty"))
        run("setfattr", "-n", QA, "-v", "passed\nagain", top / name)
    run("setfattr", "-n", QA, "-v", "of a directory", top / "dir")
    run("cp", "-a", top / "dir", top / "archived")
    run("cp", "--preserve=xattr", top / "empty", top / "preserved")
    run("cp", top / "empty", top / "not preserved")
    run("rsync", "-aX", f"{top / 'dir'}/", f"{top / 'synced'}/")
    run("tar", "--xattrs", "-C", top, "-cf", top / "tar", "dir", "empty")
    (top / "extracted").mkdir()
    run("tar", "--xattrs", "--xattrs-include=user.*", "-C", top / "extracted", "-xf", top / "tar")
    run("mv", top / "archived", top / "moved")
    asked("cp", "-r", top / "dir", top / "copied")
    asked("cp", top / "dir" / "file", top / "file")
    asked("mv", top / "file", top / "renamed")
    files = ["dir/file", "empty", "moved/file", "preserved", "synced/file", "copied/file", "renamed"]
    files += ["extracted/dir/file", "extracted/empty"]
    for remounted in (False, True):
        for name in files:
            assert os.getxattr(top / name, QA) == b"passed\nagain", name
            assert run("getfattr", "--only-values", "-n", QA, top / name) == "passed\nagain"
            assert casfs("prop", "get", top / name, "qa") == "passed\nagain\n"
        for name in ("dir", "moved", "synced", "copied", "extracted/dir"):
            assert os.getxattr(top / name, QA) == b"of a directory"
        assert casfs("prop", "get", top / "not preserved") == ""
        if not remounted:
            mount.remount()
    for name in files:
        if not (top / name).stat().st_size:
            continue  # of what is empty nothing is kept in the trash
        (top / name).unlink()
        asked("undelete", top, name)
        assert os.getxattr(top / name, QA) == b"passed\nagain"
    run("setfattr", "-x", QA, top / "renamed")
    assert os.listxattr(top / "renamed") == []


def test_who_may_not_write_a_file_does_not_set_its_properties(mount: Mount) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")
    mount.path.chmod(0o777)
    (mount.path / "roots").write_bytes(b"x")
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    run("touch", mount.path / "own", **user)
    run("setfattr", "-n", QA, "-v", "passed", mount.path / "own", **user)
    assert casfs("prop", "get", mount.path / "own") == "qa=passed\n"
    run("setfattr", "-n", QA, "-v", "passed", mount.path / "roots", code=1, **user)
    run("setfattr", "-n", QA, "-v", "", mount.path / "own", **user)
    command = [*CASFS, "prop", "set", "-p", "qa=failed", "--store", str(mount.store), "/own"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, **user)  # type: ignore[call-overload]
    assert (done.returncode, done.stdout) == (1, "")
    assert "belongs to another user" in done.stderr or "Permission denied" in done.stderr
    assert casfs("prop", "get", mount.path / "own", "qa") == "\n"
    for name in ("user.casfs.blake3", "user.casfs.other", "user.casfs.prop", "user.casfs.prop."):
        run("setfattr", "-n", name, "-v", "x", mount.path / "own", code=1)
    run("setfattr", "-n", QA, "-v", "0xff", mount.path / "own", code=1)
    assert os.listxattr(mount.path / "own") == [QA]


# Many


def make_many(mount: Mount) -> list[str]:
    names = [f"{folder}/{number}" for folder in range(10) for number in range(MANY // 10)]
    for folder in range(10):
        (mount.path / "top" / f"{folder}").mkdir(parents=True)
    for name in names:
        (mount.path / "top" / name).touch()
    sync_directory(mount.path)
    return names


def having(mount: Mount, value: str) -> int:
    """Files with that value, as the store that nobody uses has it."""
    with closing(sqlite3.connect(mount.store / "casfs.db")) as database:
        return int(database.execute("SELECT count(*) FROM property WHERE value = ?", [value]).fetchone()[0])


def test_properties_of_10000_files_are_set_wholly_or_not_at_all(mount: Mount) -> None:
    (mount.path / "beside").touch()
    names = make_many(mount)
    listed = mount.store.with_name("listed")
    listed.write_text("\0".join(f"/top/{name}" for name in names))
    found = set()
    for attempt in range(8):
        words = ["-r", "/top"] if attempt % 2 else ["-0", "--files-from", str(listed)]
        command = [*CASFS, "prop", "set", "-p", f"qa={attempt}", "--store", str(mount.store), *words]
        ended = threading.Event()

        def others(ended: threading.Event = ended) -> None:
            while not ended.wait(0.01):
                os.setxattr(mount.path / "beside", QA, b"beside")

        asked("status", mount.path)
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=-3, stderr=-3) as program:
            thread = threading.Thread(target=others)
            thread.start()
            try:
                if attempt < 7:
                    time.sleep(0.4 + attempt * 0.06)
                else:
                    program.wait(60)
            finally:
                ended.set()
                thread.join()
            mount.kill()
            program.wait(60)
            done = having(mount, f"{attempt}")
            found.add(done)
            assert done in (0, MANY)
            assert program.returncode or done == MANY
            mount.start()
    assert MANY in found
    out = casfs("prop", "rm", "-p", "qa", "-r", mount.path / "top")
    assert out == f"removed: properties of {MANY} files\n"
    mount.stop()
    assert [having(mount, value) for value in ("7", "beside")] == [0, 1]
    mount.start()


def test_others_are_served_while_properties_of_10000_files_are_set(mount: Mount) -> None:
    make_many(mount)
    waits: list[float] = []
    done = threading.Event()

    def look() -> None:
        number = 0
        while not done.wait(0.002):
            number += 1
            began = time.monotonic()
            (mount.path / f"absent{number}").exists()
            (mount.path / "new").write_bytes(b"x")
            waits.append(time.monotonic() - began)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for value in "abc":
            out = asked("prop", "set", "-p", f"qa={value}", "-r", mount.path / "top")
            assert out == f"set: properties of {MANY} files\n"
    finally:
        done.set()
        looking.join()
    assert max(waits) < SLOWEST, sorted(waits)[-10:]


def test_what_is_done_to_many_is_seen_at_once(mount: Mount) -> None:
    access = StoreAccess(str(mount.store))
    files = [mount.path / "top" / f"{number}" for number in range(200)]
    for folder in ("top", "copies", "moved"):
        (mount.path / folder).mkdir()
    for file in files:
        file.write_bytes(file.name.encode())
    before = {file: file.stat() for file in files}

    def act(action: Action, folder: str, numbers: range) -> Acted:
        targets = [Target(f"/{folder}/{number}", before[files[number]].st_ino) for number in numbers]
        return access.perform(ActOn(action, targets))

    assert not (mount.path / "copies" / "7").exists()
    assert not (mount.path / "moved" / "7").exists()
    assert act(CopyInto("/copies"), "top", range(200)).files == 200
    assert act(MoveInto("/moved"), "top", range(100)).files == 100
    with open(files[150], "rb") as file:
        assert act(RemoveFiles(), "top", range(90, 180)) == Acted(80, 240, 10, 0)
        assert file.read() == b"150"
    assert sorted(os.listdir(mount.path / "top"), key=int) == [f"{number}" for number in range(180, 200)]
    assert [file.exists() for file in files] == [number >= 180 for number in range(200)]
    for number in range(200):
        assert (mount.path / "copies" / f"{number}").read_bytes() == b"%d" % number
        assert (mount.path / "moved" / f"{number}").exists() == (number < 100)
    asked("prop", "set", "-p", "qa=passed", "-r", mount.path / "top")
    assert files[190].stat().st_ctime_ns > before[files[190]].st_ctime_ns
    assert mount.status["activity"]["unlinked_open"] == 0


def test_trees_show_at_once_what_is_done_to_many(mount: Mount) -> None:
    asked("repo", "create", mount.path, "libs", "--package-type", "maven")
    asked("repo", "create", mount.path, "ivy", "--view", "libs", "--layout", "ivy-default")
    access = StoreAccess(str(mount.store))
    paths = [f"org/acme/app/1.{number}/app-1.{number}.jar" for number in range(40)]
    shown = [mount.path / f"ivy/org.acme/app/1.{number}/jars/app-1.{number}.jar" for number in range(40)]
    for number, path in enumerate(paths):
        (mount.path / "libs" / path).parent.mkdir(parents=True)
        (mount.path / "libs" / path).write_bytes(b"%d" % number)
        assert shown[number].read_bytes() == b"%d" % number
    asked("prop", "set", "-p", "qa=passed", shown[7])
    assert os.getxattr(mount.path / "libs" / paths[7], QA) == b"passed"
    (mount.path / "kept").mkdir()
    for action, gone in ((RemoveFiles(), range(20)), (MoveInto("/kept"), range(20, 30))):
        targets = [Target(f"/libs/{paths[number]}") for number in gone]
        assert access.perform(ActOn(action, targets)).files == len(gone)
        assert [path.exists() for path in shown] == [number >= gone.stop for number in range(40)]
    targets = [Target(f"/kept/app-1.{number}.jar") for number in range(20, 30)]
    assert access.perform(ActOn(CopyInto("/libs/org/acme/app/1.20"), targets)).files == 10
    assert shown[20].read_bytes() == b"20"
    assert (
        len(list((mount.path / "ivy").rglob("*.jar"))) == 11
    )  # those of another revision have no path there
