"""`casfs rm`, and what --force does to immutable releases, in mounts that programs use meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from casfs.cli import rm
from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, asked, casfs

VERSION = "org/acme/app/1.0"
JAR = f"{VERSION}/app-1.0.jar"
IVY_JAR = "org.acme/app/1.0/jars/app-1.0.jar"
FORCED = "goes, though releases are immutable: uid"
SLOWEST = 0.5
"""Seconds that somebody waits for a lookup at the most, on a machine that others use, too."""


@pytest.fixture
def releases(mount: Mount) -> Path:
    """An immutable repository with a release, shown by a view and a virtual one."""
    mount.expect("repository (libs|ivy): ")
    asked("repo", "create", mount.path, "libs", "--package-type", "maven", "--immutable")
    asked("repo", "create", mount.path, "ivy", "--view", "libs", "--layout", "ivy-default")
    asked("repo", "create", mount.path, "all", "--virtual", "libs", "--deploy", "libs")
    libs = mount.path / "libs"
    (libs / VERSION).mkdir(parents=True)
    (libs / JAR).write_bytes(b"by mistake")
    return libs


def log_of(mount: Mount) -> str:
    return (mount.store / "run" / "mount.log").read_text()


def test_what_is_removed_is_gone_at_once_whatever_the_kernel_had_cached(mount: Mount) -> None:
    top = mount.path / "top"
    for number in range(3):
        (top / "a" / f"{number}").mkdir(parents=True)
        (top / "a" / f"{number}" / "file").write_bytes(b"x" * 100_000)
    assert len(list(top.rglob("*"))) == 7
    with open(top / "a" / "0" / "file", "rb", buffering=0) as file:
        assert casfs("rm", top / "a" / "0" / "file") == "removed 1 file, 97.7 KiB\n"
        assert not (top / "a" / "0" / "file").exists()
        assert os.pread(file.fileno(), 1, 99_999) == b"x"
    assert "is a directory; remove it with -r" in casfs("rm", top, code=1)
    assert casfs("rm", "-r", "-n", top) == "would remove 2 files, 195 KiB, and 5 directories\n"
    assert len(list(top.rglob("*"))) == 6
    assert casfs("rm", "-r", top) == "removed 2 files, 195 KiB, and 5 directories\n"
    assert os.listdir(mount.path) == []
    assert mount.status["activity"]["unlinked_open"] == 0
    mount.remount()
    assert os.listdir(mount.path) == []


@pytest.mark.parametrize(
    "place", [JAR, f"../ivy/{IVY_JAR}", f"../all/{JAR}"], ids=["source", "view", "virtual"]
)
def test_a_release_goes_by_force_only(mount: Mount, releases: Path, place: str) -> None:
    shown = releases / place
    shown.stat()
    for words in (("rm",), ("rm", "-n")):
        complaint = casfs(*words, shown, code=1)
        what = f"libs/{JAR}: it is a release, which is immutable; see --force of casfs rm, cp and mv"
        assert complaint == f"casfs: error: {what}\n"
    assert casfs("rm", "-n", "--force", shown).endswith("; 1 of them immutable releases\n")
    assert FORCED not in log_of(mount)
    casfs("rm", "--force", shown)
    assert not shown.exists()
    assert not (releases / JAR).exists()
    assert f"libs: {JAR} {FORCED} {os.getuid()} forces 'rm " in log_of(mount)


@pytest.mark.parametrize("place", [JAR, f"../ivy/{IVY_JAR}"], ids=["source", "view"])
@pytest.mark.parametrize("verb", ["cp", "mv"])
def test_a_release_is_replaced_by_force_only(mount: Mount, releases: Path, verb: str, place: str) -> None:
    (mount.path / "right").write_bytes(b"as it shall be")
    assert (releases / place).read_bytes() == b"by mistake"
    assert "release, which is immutable" in casfs(verb, mount.path / "right", releases / place, code=1)
    casfs(verb, "--force", mount.path / "right", releases / place)
    assert (releases / place).read_bytes() == (releases / JAR).read_bytes() == b"as it shall be"
    assert f"{FORCED} {os.getuid()} forces '{verb} /right " in log_of(mount)
    with pytest.raises(PermissionError):
        (releases / JAR).write_bytes(b"by a program")


def test_a_release_is_moved_out_by_force(mount: Mount, releases: Path) -> None:
    assert "release, which is immutable" in casfs("mv", releases / "org", mount.path / "out", code=1)
    casfs("mv", "--force", releases / "org", mount.path / "out")
    assert (mount.path / "out" / "acme" / "app" / "1.0" / "app-1.0.jar").exists()
    assert not (mount.path / "all" / "org").exists()


def test_a_whole_view_of_releases_goes_by_force(mount: Mount, releases: Path) -> None:
    casfs("rm", "-r", "--force", mount.path / "ivy" / "org.acme")
    assert os.listdir(mount.path / "ivy") == os.listdir(releases) == []
    assert "a view repository, which casfs repo rm removes" in casfs("rm", "-r", mount.path / "ivy", code=1)


def test_nobody_else_forces_anything(mount: Mount, releases: Path) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")
    user = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
    done = subprocess.run(
        [*user, *CASFS, "rm", "--force", "--store", str(mount.store), f"/libs/{JAR}"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "belongs to another user" in done.stderr or "Permission denied" in done.stderr
    assert (releases / JAR).exists()


def test_paths_that_cannot_be_removed_are_told_and_the_others_go(mount: Mount, releases: Path) -> None:
    for name in ("a", "b"):
        (mount.path / name).write_bytes(b"x")
    words = [str(mount.path / name) for name in ("a", "absent", "b")]
    done = subprocess.run(
        [*CASFS, "rm", *words, str(releases / JAR)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "removed 2 files, 2 B\n")
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == ["/absent", f"libs/{JAR}"]
    assert (releases / JAR).exists()


def test_others_are_served_while_thousands_of_versions_go(
    mount: Mount, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script does that removes what is too old: every path by itself."""
    paths = []
    for number in range(1, 1_001):
        folder = releases / "org" / "acme" / "app" / f"1.{number}"
        folder.mkdir(exist_ok=True)
        paths.append(folder / f"app-1.{number}.jar")
        paths[-1].write_bytes(b"%d" % number)
    waits: list[float] = []
    done = threading.Event()

    def look() -> None:
        number = 0
        while not done.wait(0.005):
            number += 1
            began = time.monotonic()
            (mount.path / f"absent{number}").exists()
            waits.append(time.monotonic() - began)

    looking = threading.Thread(target=look)
    looking.start()
    monkeypatch.setattr(rm, "BATCH_BYTES", 20_000)
    try:
        text = asked("rm", "--force", *paths)
        text += asked("rm", "-r", "--force", releases / "org")
    finally:
        done.set()
        looking.join()
    assert text.startswith("removed 1000 files, ")
    assert os.listdir(mount.path / "ivy") == os.listdir(releases) == []
    assert max(waits) < SLOWEST, sorted(waits)[-10:]


def test_a_removal_that_is_cut_off_leaves_the_rest_as_it_was(mount: Mount) -> None:
    top = mount.path / "top"
    for folder in range(40):
        (top / f"{folder}").mkdir(parents=True)
        for number in range(100):
            (top / f"{folder}" / f"{number}").write_bytes(b"%d %d" % (folder, number))
    subprocess.run(["sync", top], check=True)
    asked("status", mount.path)
    command = subprocess.Popen(
        [*CASFS, "rm", "-r", str(top)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while len(os.listdir(top)) == 40 and time.monotonic() < deadline:
        time.sleep(0.005)
    mount.kill()
    command.wait(60)
    mount.start()
    for file in top.rglob("*/*"):
        assert file.read_bytes() == b"%s %s" % (os.fsencode(file.parent.name), os.fsencode(file.name))
    if top.exists():
        casfs("rm", "-r", top)
    assert os.listdir(mount.path) == []


def test_two_stores_and_a_store_that_is_not_mounted(new_mount: Callable[..., Mount]) -> None:
    one, two = new_mount().start(), new_mount().start()
    for mount in (one, two):
        (mount.path / "file").write_bytes(b"x")
        (mount.path / "kept").write_bytes(b"x")
    assert casfs("rm", one.path / "file", two.path / "file") == "removed 2 files, 2 B\n"
    assert os.listdir(one.path) == os.listdir(two.path) == ["kept"]
    shutil.rmtree(one.path / "none", ignore_errors=True)
    assert "in no casfs mount" in casfs("rm", one.path / "kept", one.store, code=6)
    assert (one.path / "kept").exists()
    two.stop()
    assert casfs("rm", "--store", two.store, "/kept") == "removed 1 file, 1 B\n"
    assert "begin it with /" in casfs("rm", "--store", two.store, "kept", code=2)
    two.start()
    assert os.listdir(two.path) == []
