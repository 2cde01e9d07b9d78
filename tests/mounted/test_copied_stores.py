"""A store's directory is copied while programs write to the store, by programs and by file systems: what is
made of the copy has all that fsync(2) promised before it.

Once in a run of the suite, and with some of the programs; scripts/backup-tools does all, several times.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounted.disks import Disk
from tests.mounted.load import Load, broken_promises
from tests.mounted.mounts import CASFS, ENVIRONMENT, MODES, ROOT_OPTIONS, Mount, asked, casfs
from tests.mounted.test_power_cut import possible

COPIES = int(os.environ.get("CASFS_COPIES", "0"))
"""So many copies of each kind; 0: one, of some kinds."""

OPTIONS = f"{ROOT_OPTIONS},commit_interval=0.3"


@pytest.fixture
def mode() -> str:
    """Who serves the mount makes no difference to what is below it."""
    return MODES[0]


@contextmanager
def collecting(store: Path) -> Iterator[None]:
    """Meanwhile all that nothing refers to is collected at once."""
    ended = threading.Event()
    failed: list[str] = []

    def collect() -> None:
        while not ended.is_set():
            words = [*CASFS, "gc", "run", str(store), "--grace", "0"]
            done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
            if done.returncode:
                failed.append(done.stderr)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failed


def look_at(copy: Path, record: bytes, *, held: bool) -> None:
    """Open a copy, mount it, and see whether the promises were kept."""
    opened = json.loads(casfs("open-copy", copy, "--json", *([] if held else ["--live"])))
    assert (opened["held"], opened["taken"]["whole"]) == (held, True)
    mount = Mount(copy, copy.with_suffix(".mnt"))
    mount.crashed = True
    try:
        mount.start()
        broken = broken_promises(mount.path / "load", record)
        mount.finish()
    finally:
        mount.clear()
    assert not broken
    assert ": clean" in casfs("fsck", "--deep", copy)


# Under a hold


def rsync(store: Path, place: Path) -> tuple[list[str | Path], Path]:
    return ["rsync", "-a", "--exclude=/staging", f"{store}/", place / "copy"], place / "copy"


def reflink(store: Path, place: Path) -> tuple[list[str | Path], Path]:
    return ["cp", "-a", "--reflink=auto", store, place / "copy"], place / "copy"


def tar(store: Path, place: Path) -> tuple[list[str | Path], Path]:
    script = 'mkdir "$2" && tar -C "$1" --exclude=./staging -cf - . | tar -C "$2" -xpf -'
    return ["sh", "-c", script, "sh", store, place / "copy"], place / "copy"


def restic(store: Path, place: Path) -> tuple[list[str | Path], Path]:
    words: list[str | Path] = ["restic", "--repo", place / "repository", "--no-cache", "--quiet"]
    subprocess.run([*words, "init"], check=True, env=RESTIC)
    script = 'repository=$2; cd "$1" && restic --repo "$2" --no-cache -q backup --exclude staging .'
    return ["sh", "-c", script, "sh", store, place / "repository"], place / "copy"


RESTIC = {**ENVIRONMENT, "RESTIC_PASSWORD": "none", "HOME": "/nonexistent"}
TOOLS = {"rsync": rsync, "cp": reflink, "tar": tar, "restic": restic}
VANISHED = {"rsync": 24, "restic": 3, "tar": 1, "cp": 1}
"""How they end when what they have listed is gone: orphans, and files in staging/."""


@pytest.mark.parametrize("tool", TOOLS if COPIES else ["rsync"])
def test_a_copy_that_is_held_is_as_it_was_when_it_began(
    new_mount: Callable[..., Mount], tmp_path: Path, scratch: Path, tool: str
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    mount = new_mount(tmp_path / "store", options=OPTIONS).start()
    asked("trash", "set", mount.store, "--days", "0")
    load = Load(mount.path / "load", scratch / "record", workers=3)
    try:
        with collecting(mount.store):
            for number in range(max(1, COPIES)):
                load.await_promises(150 * (number + 1))
                place = tmp_path / str(number)
                place.mkdir()
                promised = load.record.read_bytes()
                words, copy = TOOLS[tool](mount.store, place)
                hold = [*CASFS, "hold", mount.store, "--", *words]
                done = subprocess.run(list(map(str, hold)), env=RESTIC, capture_output=True, text=True)
                assert done.returncode in (0, VANISHED[tool]), done.stderr
                record = promised + possible(load.record.read_bytes()[len(promised) :])
                if tool == "restic":
                    words = ["restic", "--repo", place / "repository", "--no-cache", "-q"]
                    restore = [*words, "restore", "latest", "--target", copy]
                    subprocess.run(list(map(str, restore)), env=RESTIC, check=True)
                look_at(copy, record, held=True)
    finally:
        load.end()
    assert json.loads(asked("snapshot", "list", mount.store, "--json")) == []


# By file systems, without any


def test_a_snapshot_of_btrfs_is_what_a_power_cut_leaves(
    new_disk: Callable[..., Disk], new_mount: Callable[..., Mount], scratch: Path
) -> None:
    disk = new_disk("btrfs", 3 << 30)
    subprocess.run(["btrfs", "-q", "subvolume", "create", disk.path / "volume"], check=True)
    mount = new_mount(disk.path / "volume/store", options=OPTIONS).start()
    load = Load(mount.path / "load", scratch / "record", workers=3)
    try:
        for number in range(max(1, COPIES)):
            load.await_promises(150 * (number + 1))
            promised = load.record.read_bytes()
            snapshot = disk.path / f"snapshot{number}"
            command = ["btrfs", "-q", "subvolume", "snapshot", disk.path / "volume", snapshot]
            subprocess.run(command, check=True)
            record = promised + possible(load.record.read_bytes()[len(promised) :])
            look_at(snapshot / "store", record, held=False)
    finally:
        load.end()


@pytest.mark.parametrize("kind", ["ext4", "xfs"] if COPIES else ["ext4"])
def test_a_volume_that_is_copied_frozen_is_what_a_power_cut_leaves(
    new_disk: Callable[..., Disk], new_mount: Callable[..., Mount], scratch: Path, kind: str
) -> None:
    """As LVM does it: it freezes the file system, and takes its blocks. Here they lie in a file on XFS, which
    is cloned."""
    below = new_disk("xfs", 4 << 30)
    disk = new_disk(kind, 1 << 30, below.path)
    mount = new_mount(disk.path / "store", options=OPTIONS).start()
    load = Load(mount.path / "load", scratch / "record", workers=3)
    try:
        for number in range(max(1, COPIES)):
            load.await_promises(150 * (number + 1))
            promised = load.record.read_bytes()
            volume = Disk(below.path / f"volume{number}.{kind}", kind)
            _freeze_and(disk.path, ["cp", "--reflink=always", disk.image, volume.image])
            record = promised + possible(load.record.read_bytes()[len(promised) :])
            try:
                volume.mount()
                look_at(volume.path / "store", record, held=False)
                volume.unmount()
            finally:
                volume.clear()
                volume.image.unlink()
    finally:
        load.end()


def _freeze_and(path: Path, command: list[str | Path]) -> None:
    subprocess.run(["fsfreeze", "--freeze", path], check=True)
    try:
        subprocess.run(command, check=True)
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", path], check=True)


def test_a_snapshot_of_lvm_is_what_a_power_cut_leaves(
    new_mount: Callable[..., Mount], scratch: Path, tmp_path: Path
) -> None:
    if (
        shutil.which("lvcreate") is None
        or subprocess.run(["dmsetup", "version"], capture_output=True).returncode
    ):
        pytest.skip("no LVM, or the kernel has no device mapper")
    with _volume_group(tmp_path) as group:
        subprocess.run(["lvcreate", "-qq", "-y", "-L", "1G", "-n", "store", group], check=True)
        subprocess.run(["mkfs.ext4", "-q", f"/dev/{group}/store"], check=True)
        places = [scratch / "volume", scratch / "snapshot"]
        for place in places:
            place.mkdir()
        subprocess.run(["mount", f"/dev/{group}/store", places[0]], check=True)
        try:
            mount = new_mount(places[0] / "store", options=OPTIONS).start()
            load = Load(mount.path / "load", scratch / "record", workers=3)
            try:
                load.await_promises(200)
                promised = load.record.read_bytes()
                origin = f"{group}/store"
                subprocess.run(["lvcreate", "-qq", "-s", "-L", "1G", "-n", "copy", origin], check=True)
                record = promised + possible(load.record.read_bytes()[len(promised) :])
                subprocess.run(["mount", f"/dev/{group}/copy", places[1]], check=True)
                look_at(places[1] / "store", record, held=False)
            finally:
                load.end()
            mount.finish()
        finally:
            for place in reversed(places):
                subprocess.run(["umount", place], check=False)


@contextmanager
def _volume_group(folder: Path) -> Iterator[str]:
    image, group = folder / "lvm", f"casfs{folder.stat().st_ino}"
    with image.open("wb") as file:
        file.truncate(3 << 30)
    device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
    try:
        subprocess.run(["vgcreate", "-qq", group, device.stdout.strip()], check=True)
        yield group
    finally:
        subprocess.run(["vgremove", "-qq", "-f", group], check=False)
        subprocess.run(["losetup", "-d", device.stdout.strip()], check=True)
