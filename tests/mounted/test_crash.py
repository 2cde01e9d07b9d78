"""SIGKILL of the daemon under load: what fsync(2) promised holds after the next mount."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.mounted.load import Load, broken_promises
from tests.mounted.mounts import CASFS, ENVIRONMENT, ROOT_OPTIONS, Mount, unmount_by_force
from tests.mounted.published import make_repositories

KILLS = 4


@pytest.mark.parametrize("interval", ["0.2", "1", "30"])
def test_what_fsync_promised_survives_sigkill(mount: Mount, scratch: Path, interval: str) -> None:
    dice = random.Random(interval)
    make_repositories(mount)
    for number in range(KILLS):
        mount.remount(f"{ROOT_OPTIONS},commit_interval={interval}")
        load = Load(mount.path / f"round{number}", scratch / f"record{number}", workers=3, seed=number)
        try:
            load.await_promises(dice.randrange(10, 300))
            mount.kill()
            load.await_end()
        finally:
            load.end()
        mount.start()
        for earlier in range(number + 1):
            record = (scratch / f"record{earlier}").read_bytes()
            assert not broken_promises(mount.path / f"round{earlier}", record)


@pytest.mark.alone
def test_sigkill_while_the_daemon_recovers_and_while_it_unmounts(mount: Mount, scratch: Path) -> None:
    load = Load(mount.path / "load", scratch / "record", workers=3)
    try:
        load.await_promises(150)
        mount.kill()
        load.await_end()
    finally:
        load.end()
    dice = random.Random(1)
    for _ in range(6):
        starting = subprocess.Popen(
            [*CASFS, "mount", "--foreground", mount.store, mount.path],
            env=ENVIRONMENT,
            stderr=subprocess.DEVNULL,
        )
        try:
            starting.wait(timeout=dice.uniform(0.1, 0.6))
        except subprocess.TimeoutExpired:
            starting.send_signal(dice.choice((signal.SIGKILL, signal.SIGTERM)))
        try:
            starting.wait(timeout=dice.uniform(0, 0.05))
        except subprocess.TimeoutExpired:
            starting.kill()
            starting.wait()
        unmount_by_force(mount.path)
    mount.start()
    assert not broken_promises(mount.path / "load", (scratch / "record").read_bytes())


def test_an_unlinked_open_file_is_gone_after_sigkill(mount: Mount) -> None:
    file = os.open(mount.path / "unlinked", os.O_WRONLY | os.O_CREAT)
    os.write(file, bytes(1_000_000))
    os.fsync(file)
    os.unlink(mount.path / "unlinked")
    os.fsync(file)
    mount.kill()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.close(file)
    mount.start()
    assert os.listdir(mount.path) == []
    assert mount.usage()["staged"] == 0


def test_what_was_not_synced_is_lost_whole(mount: Mount) -> None:
    mount.remount(f"{ROOT_OPTIONS},commit_interval=300")
    (mount.path / "synced").write_bytes(b"old" * 100_000)
    place = os.open(mount.path, os.O_RDONLY)
    os.fsync(place)
    os.close(place)
    with open(mount.path / "synced", "r+b") as file:
        file.write(b"NEW" * 50_000)
    (mount.path / "unsynced").write_bytes(b"never promised")
    mount.kill()
    mount.start()
    assert (mount.path / "synced").read_bytes() == b"old" * 100_000
    assert os.listdir(mount.path) == ["synced"]


def test_commit_interval_0_makes_each_operation_durable_by_itself(mount: Mount) -> None:
    mount.remount(f"{ROOT_OPTIONS},commit_interval=0")
    folder = mount.path / "folder"
    folder.mkdir()
    (folder / "small").write_bytes(b"small")
    (folder / "large").write_bytes(b"large" * 200_000)
    os.rename(folder / "small", folder / "renamed")
    os.symlink("somewhere", folder / "symlink")
    os.link(folder / "renamed", folder / "linked")
    (folder / "removed").touch()
    (folder / "removed").unlink()
    os.chmod(folder / "large", 0o604)
    os.utime(folder / "large", ns=(5, 6))
    os.setxattr(folder / "large", "user.note", b"kept")
    os.truncate(folder / "large", 77)
    os.utime(folder, ns=(7, 8))
    mount.kill()
    mount.start()
    assert sorted(os.listdir(folder)) == ["large", "linked", "renamed", "symlink"]
    assert (folder / "large").read_bytes() == (b"large" * 200_000)[:77]
    assert (folder / "linked").read_bytes() == b"small"
    assert os.stat(folder / "linked").st_ino == os.stat(folder / "renamed").st_ino
    assert os.stat(folder / "large").st_mode & 0o7777 == 0o604
    assert os.getxattr(folder / "large", "user.note") == b"kept"
    assert os.readlink(folder / "symlink") == "somewhere"
    assert os.stat(folder).st_mtime_ns == 8
