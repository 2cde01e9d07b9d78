"""Collection beside a mount in use, through real programs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.mounted.mounts import CASFS, ENVIRONMENT, ROOT_OPTIONS, Mount, casfs


def contents(round_: int) -> dict[str, bytes]:
    """Few contents, so that blobs die and are born again."""
    return {f"f{number}": b"%d\n" % ((number + round_) % 7) * 5_000 for number in range(20)}


def write(folder: Path, round_: int) -> None:
    for name, data in contents(round_).items():
        temporary = folder / "temporary"
        temporary.write_bytes(data)
        temporary.rename(folder / name)


def test_programs_go_on_while_it_collects(mount: Mount) -> None:
    """Again and again, with nothing spared, while contents are written, replaced, removed and come again."""
    for round_ in range(12):
        collector = subprocess.Popen(
            [*CASFS, "gc", "run", mount.store, "--grace", "0", "--json"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
        )
        write(mount.path, round_)
        if round_ % 3 == 2:
            casfs("fsck", mount.store)
            for name in contents(round_):
                (mount.path / name).unlink()
        collector.communicate(timeout=120)
        assert collector.returncode == 0
        if round_ % 3 != 2:
            for name, data in contents(round_).items():
                assert (mount.path / name).read_bytes() == data
    mount.remount()
    casfs("gc", "run", mount.store, "--grace", "0", "--full")
    assert json.loads(casfs("df", mount.store, "--json"))["last_collection"]["kind"] == "full"
    assert json.loads(casfs("df", mount.store, "--json"))["orphans"] == 0
    assert sum(run["blobs"] for run in json.loads(casfs("gc", "history", mount.store, "--json"))) >= 7


def test_a_pin_takes_what_was_just_written(mount: Mount) -> None:
    (mount.path / "file").write_bytes(b"pinned")
    pin = json.loads(casfs("pin", "add", mount.store, "--reason", "why", mount.path / "file", "--json"))
    assert pin["blobs"] == 1
    (mount.path / "file").unlink()
    mount.remount()
    assert casfs("gc", "run", mount.store, "--grace", "0").startswith("removed 0 blobs")
    casfs("pin", "rm", mount.store, str(pin["id"]))
    assert casfs("gc", "run", mount.store, "--grace", "0").startswith("removed 1 blobs")
    casfs("pin", "rm", mount.store, str(pin["id"]), code=1)
    assert casfs("pin", "list", mount.store) == "nothing is pinned\n"


def test_a_snapshot_that_has_expired_holds_nothing_back(mount: Mount) -> None:
    (mount.path / "file").write_bytes(b"x" * 300_000)
    casfs("snapshot", "create", mount.store, "brief", "--expires", "1s")
    casfs("snapshot", "create", mount.store, "other")
    (mount.path / "file").unlink()
    casfs("snapshot", "rm", mount.store, "other")
    time.sleep(1)
    assert casfs("gc", "run", mount.store, "--grace", "0").startswith("removed 1 blobs")
    assert casfs("snapshot", "list", mount.store) == "there are no snapshots\n"


def test_an_older_reader_keeps_its_file(mount: Mount) -> None:
    """An open file outlives its name, and the collector."""
    (mount.path / "file").write_bytes(b"x" * 300_000)
    with (mount.path / "file").open("rb") as file:
        assert file.read(1) == b"x"
        (mount.path / "file").unlink()
        casfs("gc", "run", mount.store, "--grace", "0")
        assert file.read() == b"x" * 299_999


def test_a_collector_gets_its_turn_long_before_the_commit_is_due(new_mount: Callable[..., Mount]) -> None:
    """It would give up after a minute, with an error, if the mount did not commit for it."""
    mount = new_mount().start(f"{ROOT_OPTIONS},commit_interval=300")
    for round_ in range(3):
        (mount.path / "file").write_bytes(b"%d" % round_)
        assert casfs("gc", "run", mount.store, "--grace", "0").startswith("removed ")
    (mount.path / "late").write_bytes(b"late")
    casfs("gc", "run", mount.store, "--grace", "0", "--full")
    assert (mount.path / "file").read_bytes() == b"2"
    runs = json.loads(casfs("gc", "history", mount.store, "--json"))
    assert [run["error"] for run in runs] == [None] * 4
    assert sum(run["blobs"] for run in runs) >= 1


def test_a_pin_takes_what_is_written_so_far(mount: Mount) -> None:
    """Of a file that is open; what comes later is another content."""
    with (mount.path / "file").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert casfs("pin", "add", mount.store, mount.path / "file").endswith("holds 1 blobs, 4 B\n")
        file.write(b", and whole")
    assert mount.usage()["orphans"] == 1
    assert casfs("gc", "run", mount.store, "--grace", "0").startswith("removed 0 blobs")
    assert casfs("pin", "add", mount.store, mount.path).startswith("pin 2 holds 1 blobs, 15 B")
    assert casfs("pin", "add", mount.store, mount.path / "none", code=1).endswith("is not in the store\n")
