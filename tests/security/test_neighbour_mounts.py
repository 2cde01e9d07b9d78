"""Mounts of another user, whatever they say to be, do nothing to the commands of root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from casfs.cli.places import pair
from casfs.control.messages import Move
from casfs.errors import NotMounted
from casfs.service.mounttable import read_table
from tests.mounted.conftest import new_mount, readable  # noqa: F401 (fixtures)
from tests.mounted.mounts import CASFS, ENVIRONMENT, MODES, Mount, await_exit, casfs, is_mounted
from tests.security.neighbour import DAEMON, give, mounted, own_store, running

pytestmark = pytest.mark.mounted


@pytest.fixture
def mode() -> str:
    """How requests are served makes no difference to commands."""
    return MODES[0]


@pytest.fixture
def mount(new_mount: Callable[..., Mount]) -> Mount:  # noqa: F811
    """Root's, with a file in it."""
    mount = new_mount(options="allow_other").start()
    (mount.path / "file").write_text("content")
    return mount


@pytest.fixture
def home(scratch: Path) -> Path:
    """A folder of the neighbour's, with one that he mounts on."""
    home = give(scratch / "home")
    give(home / "mnt")
    return home


def statuses() -> dict[str, dict[str, object]]:
    """By mount point."""
    return {each["mountpoint"]: each for each in json.loads(casfs("status", "--json"))["mounts"]}


def assert_commands_work(mount: Mount) -> None:
    """Those of root on his own mount."""
    casfs("cp", mount.path / "file", mount.path / "copy")
    casfs("mv", mount.path / "copy", mount.path / "moved")
    assert (mount.path / "moved").read_text() == "content"
    (mount.path / "moved").unlink()


# What a mount says to be


def test_a_mount_that_names_roots_store_is_not_taken_for_one_of_it(mount: Mount, home: Path) -> None:
    with mounted(home / "mnt", mount.store):
        found = statuses()
        assert "is not ours" in str(found[str(home / "mnt")]["error"])
        assert found[str(home / "mnt")]["serving"] is False
        assert found[str(mount.path)]["serving"] is True
        for words in (
            ("mv", home / "mnt" / "file", home / "mnt" / "stolen"),
            ("cp", mount.path / "file", home / "mnt" / "stolen"),
            ("umount", home / "mnt"),
            ("trash", "empty", home / "mnt"),
            ("df", home / "mnt" / "file"),
        ):
            assert "is not ours" in casfs(*words, code=6)
        done = subprocess.run(
            [*CASFS, "status", home / "mnt"], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert (done.returncode, "is not ours" in done.stdout) == (6, True)
        assert os.listdir(mount.path) == ["file"]
        assert_commands_work(mount)
        assert mount.status["serving"]
        mount.remount()
        casfs("umount", mount.store)
        assert not is_mounted(mount.path)
        assert is_mounted(home / "mnt")
    mount.start()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/srv/a%00b", "/srv/a\\x00b"),
        ("%00", "\\x00"),
        ("../store", "../store"),
        ("%0aserving: yes%1b[2J", "\\nserving: yes\\x1b[2J"),
        ("/srv/%ff%zz", "/srv/\\xff%zz"),
        ("/" + "x" * 2000, "/xxx"),
    ],
)
def test_names_that_no_store_has_are_shown_and_nothing_more(home: Path, name: str, shown: str) -> None:
    with mounted(home / "mnt", name):
        printed = casfs("status")
        assert "\x1b" not in printed
        (about,) = [part for part in printed.split("\n\n") if f"mountpoint: {home / 'mnt'}\n" in part]
        lines = about.splitlines()
        assert lines[1].startswith(f"store: {shown}")
        assert lines[3] == "serving: no"
        assert "is not ours" in lines[4]
        assert len(lines) == 5
        casfs("mv", home / "mnt" / "a", home / "mnt" / "b", code=6)
        casfs("umount", home / "mnt", code=6)


def test_a_mount_of_a_store_of_his_that_nothing_serves_is_left_alone(mount: Mount, home: Path) -> None:
    with mounted(home / "mnt", own_store(home / "store")):
        found = statuses()[str(home / "mnt")]
        assert (found["serving"], found["pid"]) == (False, None)
        assert "nothing serves it" in casfs("mv", home / "mnt" / "a", home / "mnt" / "b", code=6)
        assert_commands_work(mount)


def test_a_fifo_for_a_lock_keeps_nobody_waiting(mount: Mount, home: Path) -> None:
    store = own_store(home / "store")
    os.mkfifo(store / "run" / "lock")
    with mounted(home / "mnt", store), running(DAEMON, store / "run" / "control", "wait:100"):
        statuses()
        assert_commands_work(mount)
        mount.remount()
    casfs("umount", store, code=6)


@pytest.mark.alone  # mkfs(8) and others look at the sources of all mounts, and would wait with it
def test_file_systems_that_hang_are_given_up(mount: Mount, home: Path, scratch: Path) -> None:
    """Root may look into them, and waits for ever: with allow_other those of others are such."""
    hanging = scratch / "hanging"
    hanging.mkdir()
    with (
        mounted(hanging, "x", subtype="x", prefix=()),
        mounted(home / "mnt", hanging / "store"),
    ):
        started = time.monotonic()
        found = statuses()
        assert time.monotonic() - started < 40
        assert found[str(mount.path)]["serving"] is True
        assert "does not answer" in str(found[str(home / "mnt")]["error"])
        assert "does not answer" in casfs("mv", home / "mnt" / "a", home / "mnt" / "b", code=6)
        assert "does not answer" in casfs("cp", hanging / "a", mount.path / "b", code=6)
        assert "is mounted already, with x (fuse.x)" in casfs("mount", mount.store, hanging, code=32)
        assert_commands_work(mount)


@pytest.mark.alone
def test_commands_end_though_others_wait_for_the_same_name_where_nothing_answers(
    mount: Mount, home: Path, scratch: Path
) -> None:
    """Who looks up a name that somebody else looks up already cannot be killed (d_alloc_parallel in the
    kernel's fs/dcache.c): a thread that waited like that kept the command itself from ending."""
    hanging = scratch / "hanging"
    hanging.mkdir()
    with (
        mounted(hanging, "x", subtype="x", prefix=()),
        mounted(home / "mnt", hanging / "store"),
        subprocess.Popen(["stat", hanging / "store"], stderr=subprocess.DEVNULL) as first,
    ):
        try:
            while not Path(f"/proc/{first.pid}/wchan").read_text().startswith(("fuse_", "request_wait")):
                time.sleep(0.01)
            assert "does not answer" in str(statuses()[str(home / "mnt")]["error"])
            assert "does not answer" in casfs("mv", home / "mnt" / "a", home / "mnt" / "b", code=6)
            assert "does not answer" in casfs("umount", hanging / "store", code=6)
            assert_commands_work(mount)
        finally:
            first.kill()


# Mounts that cover others


def test_a_path_in_what_covers_a_folder_of_the_mount_is_none_in_the_store(mount: Mount, home: Path) -> None:
    folder = give(mount.path / "folder")
    (folder / "file").write_text("below")
    with mounted(folder, "/srv/anything"):
        casfs("mv", folder / "file", mount.path / "stolen", code=6)
        casfs("cp", mount.path / "file", folder / "new", code=6)
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        assert "in no casfs mount" in casfs("mv", folder / "file", mount.path / "stolen", code=6)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert sorted(os.listdir(mount.path)) == ["file", "folder"]
    assert os.listdir(folder) == ["file"]


def test_a_path_in_what_covers_the_mount_is_none_in_the_store(
    new_mount: Callable[..., Mount],  # noqa: F811
    scratch: Path,
    home: Path,
) -> None:
    give(home / "inner")
    mount = new_mount(scratch / "store")
    mount.path = home / "inner" / "mnt"
    mount.path.mkdir()
    mount.start()
    (mount.path / "file").write_text("content")
    with mounted(home / "inner", mount.store):
        assert "is not ours" in casfs("mv", mount.path / "file", mount.path / "moved", code=6)
    assert os.listdir(mount.path) == ["file"]


# Daemons


@pytest.mark.parametrize(
    "answers",
    [
        ["wait:100"],
        ["deaf"],
        ["for-ever:x"],
        ["for-ever:"],
        ["nested:60000"],
        ["result:" + '{"device": ' + "[" * 300 + "]" * 300 + "}"],
        ['result:{"device": 5}'],
        ['result:{"device": NaN}'],
        ["result:[]"],
        [],
    ],
    ids=lambda answers: (answers or ["closes"])[0][:12],
)
def test_a_daemon_of_his_that_talks_nonsense_delays_nobody(
    mount: Mount, home: Path, answers: list[str]
) -> None:
    store = own_store(home / "store")
    with mounted(home / "mnt", store), running(DAEMON, store / "run" / "control", *answers):
        started = time.monotonic()
        found = statuses()
        assert time.monotonic() - started < 30
        assert found[str(mount.path)]["serving"] is True
        done = subprocess.run([*CASFS, "status", home / "mnt"], env=ENVIRONMENT, capture_output=True)
        assert done.returncode in (0, 6)  # it is a store of his own, whatever his daemon says of it
        assert_commands_work(mount)


def test_many_daemons_that_say_nothing_are_waited_for_at_once(mount: Mount, home: Path) -> None:
    store = own_store(home / "store")
    places = [give(home / f"mnt{number}") for number in range(12)]
    with ExitStack() as stack:
        stack.enter_context(running(DAEMON, store / "run" / "control", "wait:100"))
        for place in places:
            stack.enter_context(mounted(place, store))
        started = time.monotonic()
        found = statuses()
        assert time.monotonic() - started < 30
        assert found[str(mount.path)]["serving"] is True
        assert {str(place) for place in places} <= {*found}


def test_a_daemon_of_his_with_a_status_of_a_thousand_levels_or_odd_names(mount: Mount, home: Path) -> None:
    store = own_store(home / "store")
    answer = '{"device": "0:1", "\\u001b[2J": "\\u001b[2J", "error_bytes": -5, "inodes": 1e999}'
    with mounted(home / "mnt", store), running(DAEMON, store / "run" / "control", f"result:{answer}"):
        printed = casfs("status")
        assert "\x1b" not in printed
        assert "serves another mount" in printed


@pytest.mark.parametrize("link", ["run", "control"])
def test_a_store_that_leads_to_roots_daemon_by_links_does_not_reach_it(
    mount: Mount, home: Path, link: str
) -> None:
    store = home / "store"
    give(store)
    if link == "run":
        (store / "run").symlink_to(mount.store / "run")
    else:
        give(store / "run")
        (store / "run" / "control").symlink_to(mount.store / "run" / "control")
    (mount.path / "file").rename(mount.path / "kept")
    with mounted(home / "mnt", store):
        casfs("mv", home / "mnt" / "kept", home / "mnt" / "moved", code=6)
        assert statuses()[str(home / "mnt")]["serving"] is False
    subprocess.run([*CASFS, "mv", "--store", store, "/kept", "/moved"], env=ENVIRONMENT, capture_output=True)
    assert os.listdir(mount.path) == ["kept"]


def test_a_store_that_becomes_roots_once_it_was_looked_at_is_not_asked(mount: Mount, home: Path) -> None:
    store = own_store(home / "store")
    with mounted(home / "mnt", store):
        (device,) = [entry.device for entry in read_table() if entry.mountpoint == str(home / "mnt")]
        with running(DAEMON, store / "run" / "control", f'result:{{"device": "{device}"}}'):
            place = pair(None, str(home / "mnt" / "file"), str(home / "mnt" / "moved"))
            store.rename(home / "away")
            store.symlink_to(mount.store)
            with pytest.raises(NotMounted, match="any more"):
                place.access.perform(Move("/file", "/moved"))
    assert os.listdir(mount.path) == ["file"]


# Mounting


def test_a_second_mount_on_a_mount_point_is_refused(
    mount: Mount,
    new_mount: Callable[..., Mount],  # noqa: F811
    scratch: Path,
    home: Path,
) -> None:
    other = new_mount()
    (scratch / "link").symlink_to(mount.path)
    for place in (mount.path, scratch / "link"):
        complaint = casfs("mount", other.store, place, code=32)
        assert f"is mounted already, with {mount.store}" in complaint
    with mounted(home / "mnt", "/srv/anything"):
        assert "is mounted already, with /srv/anything" in casfs("mount", other.store, home / "mnt", code=32)
    assert "is mounted on" in casfs("mount", mount.store, mount.path, code=4)
    assert os.listdir(mount.path) == ["file"]


def test_a_disk_may_be_mounted_upon(new_mount: Callable[..., Mount]) -> None:  # noqa: F811
    mount = new_mount()
    subprocess.run(["mount", "-t", "tmpfs", "none", mount.path], check=True)
    try:
        mount.start()
        (mount.path / "file").write_text("content")
        mount.stop()
    finally:
        subprocess.run(["umount", mount.path], check=True)


def test_the_log_is_private_whatever_the_umask(new_mount: Callable[..., Mount]) -> None:  # noqa: F811
    mount = new_mount()
    before = os.umask(0)
    try:
        mount.start()
    finally:
        os.umask(before)
    for name in ("mount.log", "control"):
        assert (mount.store / "run" / name).stat().st_mode & 0o777 == 0o600
    mount.stop()
    (mount.store / "run" / "mount.log").chmod(0o644)
    mount.start()
    assert (mount.store / "run" / "mount.log").stat().st_mode & 0o777 == 0o600


# A mount whose daemon is dead


def test_the_mount_of_a_daemon_that_died_is_not_that_of_the_next_one(mount: Mount, scratch: Path) -> None:
    daemon = os.pidfd_open(mount.pid)
    os.kill(mount.pid, signal.SIGKILL)
    await_exit(daemon)
    mount.crashed = True
    dead, mount.path = mount.path, scratch / "other"
    mount.path.mkdir()
    mount.start()
    (mount.path / "file").write_text("content")
    assert "serves another mount" in casfs("mv", dead / "file", dead / "moved", code=6)
    casfs("umount", dead)
    assert not is_mounted(dead)
    assert_commands_work(mount)
