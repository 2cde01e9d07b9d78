"""Destinations on disks that are full, fill up, fail, or cannot be written: one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from casfs.maintenance.check.fsck import check
from tests.mounted.disks import Disk
from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, casfs

SIZE = 30 << 20


@pytest.fixture
def disk(new_disk: Callable[..., Disk]) -> Disk:
    return new_disk("ext4")


def fill(mount: Mount, number: int = 60) -> None:
    for each in range(number):
        (mount.path / f"f{each}").write_bytes(os.urandom(SIZE // number))


def assert_sound(*stores: Path) -> None:
    for store in stores:
        assert not check(str(store), deep=True).problems


def test_no_room_is_said_before_anything_is_copied(mount: Mount, disk: Disk) -> None:
    fill(mount)
    destination = disk.path / "destination"
    with (disk.path / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, disk.free() - (SIZE * 2 // 3))
    complaint = casfs("backup", "run", mount.store, destination, code=1)
    assert "has no room" in complaint
    assert "are lacking" in complaint
    assert not [path for path in (destination / "blobs").rglob("*") if path.is_file()]
    assert casfs("backup", "list", destination) == "there are no backups\n"
    (disk.path / "ballast").unlink()
    casfs("backup", "run", mount.store, destination)
    assert_sound(destination)


def test_the_disk_fills_up_meanwhile(mount: Mount, disk: Disk) -> None:
    fill(mount)
    destination = disk.path / "destination"
    process = subprocess.Popen(
        [*CASFS, "backup", "run", mount.store, destination, "--rate", "10M", "--json"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    _await_copying(process)
    with (disk.path / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, max(1 << 20, disk.free() - (4 << 20)))
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 1
    assert complaint.count("\n") == 1
    assert "No space left" in complaint or "full" in complaint
    assert casfs("backup", "list", destination) == "there are no backups\n"
    (disk.path / "ballast").unlink()
    casfs("backup", "run", mount.store, destination)
    assert_sound(destination)
    assert casfs("snapshot", "list", mount.store) == "there are no snapshots\n"


def test_the_disk_fails_meanwhile(mount: Mount, disk: Disk) -> None:
    """It goes read-only, as ext4 does; after it was mounted again the next backup goes on."""
    fill(mount)
    destination = disk.path / "destination"
    process = subprocess.Popen(
        [*CASFS, "backup", "run", mount.store, destination, "--rate", "10M", "--json"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _await_copying(process)
    disk.break_down()
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 1
    assert complaint.count("\n") == 1, complaint
    assert casfs("snapshot", "list", mount.store) == "there are no snapshots\n"
    disk.unmount()
    subprocess.run(["fsck.ext4", "-fy", disk.image], check=False, capture_output=True)
    disk.mount()
    casfs("backup", "run", mount.store, destination)
    assert_sound(destination)


def _await_copying(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("doing") == "copying" and event["done"]:
            return
    raise AssertionError("it was over before it began")


def test_a_disk_that_cannot_be_written(mount: Mount, disk: Disk) -> None:
    (mount.path / "file").write_bytes(b"content")
    destination = disk.path / "destination"
    casfs("backup", "run", mount.store, destination)
    subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
    try:
        complaint = casfs("backup", "run", mount.store, destination, code=1)
        assert "Read-only file system" in complaint
        (made,) = json.loads(casfs("backup", "list", destination, "--json"))
        casfs("backup", "verify", destination)
        out = disk.path.parent / "out"
        casfs("backup", "restore", destination, made["name"], "/", "--to", out)
        assert (out / "file").read_bytes() == b"content"
        casfs("backup", "restore", destination, out / "store")
        assert_sound(out / "store")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk.path], check=True)


def test_a_slow_disk_holds_nobody_up(mount: Mount, scratch: Path) -> None:
    """While a backup is copied slowly, programs write and sync in the mount as ever."""
    fill(mount, 10)
    process = subprocess.Popen(
        [*CASFS, "backup", "run", mount.store, scratch / "destination", "--rate", "3M"],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )
    written = 0
    while process.poll() is None:
        with (mount.path / "new").open("wb") as file:
            file.write(b"%d" % written * 1000)
            file.flush()
            os.fsync(file.fileno())
        written += 1
    assert process.returncode == 0
    assert written > 10
    assert_sound(scratch / "destination")
