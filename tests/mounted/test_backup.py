"""Backups of a mounted store in use, by the real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from casfs.maintenance.check.fsck import check
from tests.mounted.backing_up import SECOND, Storm, wait_for
from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, casfs


def test_a_backup_under_load_is_of_one_moment(mount: Mount, scratch: Path) -> None:
    """With collectors that spare nothing at both ends, and backups that are killed."""
    storm = Storm(mount, scratch, seed=14)
    with storm.blowing():
        wait_for(mount.path / SECOND)
        first = storm.back_up()
        for _ in range(10):
            storm.kill_one(longest=1.2)
        assert storm.killed > 3
        last = storm.back_up()
        assert storm.assert_restorable(first) < storm.assert_restorable(last)
    storm.assert_over()


def test_it_is_restored_into_the_mount(mount: Mount, scratch: Path) -> None:
    folder = mount.path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 300_000)
    (folder / "other").write_bytes(b"other")
    casfs("backup", "run", mount.store, scratch / "destination")
    number = (folder / "file").stat().st_ino
    (folder / "file").unlink()
    (folder / "other").write_bytes(b"changed")
    casfs("trash", "empty", mount.store)
    casfs("gc", "run", mount.store, "--grace", "0")
    restore = ("backup", "restore", scratch / "destination", "/folder", "--into", mount.store)
    assert "1 brought back, 1 replaced" in casfs(*restore, "--dry-run")
    assert not (folder / "file").exists()
    assert "--force" in casfs(*restore, code=1)
    assert not (folder / "file").exists()
    casfs(*restore, "--force")
    assert (folder / "file").read_bytes() == b"x" * 300_000
    assert (folder / "other").read_bytes() == b"other"
    assert (folder / "file").stat().st_ino != 0 != number
    casfs("backup", "restore", scratch / "destination", "/folder/file", "--into", f"{mount.store}:/copy")
    assert (mount.path / "copy").read_bytes() == b"x" * 300_000
    assert casfs("backup", "restore", scratch / "destination", "/", "--to", scratch / "out")
    assert (scratch / "out" / "folder" / "other").read_bytes() == b"other"
    assert not [path for path in (mount.store / "snapshots").iterdir() if not path.name.startswith(".")]


def test_a_mounted_destination_takes_backups(new_mount: type[Mount], scratch: Path) -> None:
    source, destination = new_mount(), new_mount()
    source.start()
    destination.start()
    for number in range(50):
        (source.path / f"f{number}").write_bytes(b"%d" % number * 3_000)
        (destination.path / f"g{number}").write_bytes(b"%d" % (number + 25) * 3_000)
    storm = Storm(source, scratch, seed=1)
    storm.destination = destination.store
    name = storm.back_up()
    for number in range(50):
        (destination.path / f"g{number}").unlink()
    casfs("gc", "run", destination.store, "--grace", "0")
    assert json.loads(casfs("backup", "list", destination.store, "--json"))[0]["result"] == "ok"
    assert casfs("backup", "verify", destination.store)
    shown = destination.path / ".casfs" / "snapshots" / name / "f49"
    assert shown.read_bytes() == b"49" * 3_000
    casfs("backup", "prune", destination.store, "--keep-last", "1")
    assert storm.assert_restorable(name) == 0


def test_backups_are_shown_read_only(mount: Mount, scratch: Path) -> None:
    (mount.path / "file").write_bytes(b"content")
    casfs("backup", "run", mount.store, scratch / "destination", "--job", "nightly")
    (scratch / "look").mkdir()
    out = casfs("backup", "mount", scratch / "destination", scratch / "look")
    folder = scratch / "look" / ".casfs" / "snapshots"
    assert str(folder) in out
    try:
        (name,) = os.listdir(folder)
        assert name.startswith("nightly-")
        assert (folder / name / "file").read_bytes() == b"content"
    finally:
        casfs("umount", scratch / "look")


def test_ctrl_c_keeps_what_was_copied(mount: Mount, scratch: Path) -> None:
    for number in range(300):
        (mount.path / f"f{number}").write_bytes(os.urandom(20_000))
    process = subprocess.Popen(
        [*CASFS, "backup", "run", mount.store, scratch / "destination", "--rate", "1M", "--json"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("doing") == "copying" and event["done"]:
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(rest.splitlines()[-1])["event"] == "interrupted"
    assert casfs("backup", "list", scratch / "destination") == "there are no backups\n"
    casfs("backup", "run", mount.store, scratch / "destination")
    assert not check(str(scratch / "destination"), deep=True).problems


def test_a_clock_that_was_set_back(mount: Mount, scratch: Path) -> None:
    """The names and times of backups are then older than those of others; each is whole."""
    (mount.path / "file").write_bytes(b"1")
    casfs("backup", "run", mount.store, scratch / "destination")
    for manifest in (scratch / "destination" / "snapshots").glob("*/manifest.json"):
        facts = json.loads(manifest.read_text())
        facts["made_ns"] = time.time_ns() + 10**18
        manifest.write_text(json.dumps(facts))
    (mount.path / "file").write_bytes(b"2")
    casfs("backup", "run", mount.store, scratch / "destination")
    made = json.loads(casfs("backup", "list", scratch / "destination", "--json"))
    assert len(made) == 2
    for each in made:
        casfs("backup", "restore", scratch / "destination", each["name"], "/", "--to", scratch / each["name"])
    assert {(scratch / each["name"] / "file").read_bytes() for each in made} == {b"1", b"2"}
