"""Who may not list the root of a mount does not learn from the trash what was in it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from casfs.store import Store
from tests.mounted.conftest import mode, new_mount, readable  # noqa: F401 (fixtures)
from tests.mounted.mounts import Mount, casfs
from tests.security.neighbour import AS_NEIGHBOUR, NEIGHBOUR

pytestmark = pytest.mark.mounted


@pytest.fixture
def mount(new_mount: Callable[..., Mount]) -> Mount:  # noqa: F811
    """For everybody, with a root that others may not list, and a file in the trash."""
    mount = new_mount(options="allow_other").start()
    casfs("trash", "set", mount.store, "--minimal-age", "0")
    mount.path.chmod(0o711)
    remove(mount.path / "secret-name")
    return mount


def remove(path: Path) -> None:
    path.write_text("content")
    for _ in range(2):
        fd = os.open(path.parent, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        path.unlink(missing_ok=True)


def day(mount: Mount) -> Path:
    return next((mount.path / ".casfs" / "trash").iterdir())


def neighbour_lists(path: Path) -> bool:
    """Does he learn what is in there? He is asked for nothing that the kernel has cached for him."""
    command = [*AS_NEIGHBOUR, "ls", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 or "Permission denied" in done.stderr, done.stderr
    return done.returncode == 0


def places(mount: Mount) -> list[Path]:
    own = mount.path / ".casfs"
    return [mount.path, own, own / "trash", day(mount)]


def test_the_trash_of_a_root_that_is_not_listed_is_not_listed(mount: Mount) -> None:
    assert "secret-name" in os.listdir(day(mount))
    assert [neighbour_lists(place) for place in places(mount)] == [False] * 4


def test_it_follows_the_mode_of_the_root_at_once(mount: Mount) -> None:
    for mode_ in (0o755, 0o700, 0o1777, 0o711):
        mount.path.chmod(mode_)
        expected = [bool(mode_ & 0o004)] * 4
        assert [neighbour_lists(place) for place in places(mount)] == expected
        assert {place.stat().st_mode & 0o7777 for place in places(mount)} == {mode_}
    remove(mount.path / "another")
    assert len(os.listdir(mount.path / ".casfs" / "trash")) == 1


def test_it_follows_the_owner_and_the_access_list_of_the_root(mount: Mount) -> None:
    os.chown(mount.path, NEIGHBOUR, -1)
    assert [neighbour_lists(place) for place in places(mount)] == [True] * 4
    os.chown(mount.path, 0, -1)
    assert [neighbour_lists(place) for place in places(mount)] == [False] * 4
    subprocess.run(["setfacl", "-m", f"u:{NEIGHBOUR}:rx", mount.path], check=True)
    assert [neighbour_lists(place) for place in places(mount)] == [True] * 4
    subprocess.run(["setfacl", "-b", mount.path], check=True)
    assert [neighbour_lists(place) for place in places(mount)] == [False] * 4
    subprocess.run(["setfacl", "-m", f"u:{NEIGHBOUR}:rx,m::x", mount.path], check=True)
    assert [neighbour_lists(place) for place in places(mount)] == [False] * 4
    mount.remount()
    assert [neighbour_lists(place) for place in places(mount)] == [False] * 4
    remove(mount.path / "another")
    assert len(os.listdir(mount.path / ".casfs" / "trash")) == 1


def test_a_store_of_before_is_closed_when_it_is_mounted(mount: Mount) -> None:
    mount.stop()
    with closing(Store(str(mount.store))) as store:
        rows = store.namespace
        base = rows.trash.directory()
        assert base is not None
        directories = [base, *rows.trash.directories_below(base)]
        cursor = store.namespace._connection.cursor()
        for ino in directories:
            cursor.execute("UPDATE inode SET mode = 16877 WHERE ino = ?", (ino,))
    mount.start()
    assert [neighbour_lists(place) for place in places(mount)] == [False] * 4
    mount.remount()
    assert [neighbour_lists(place) for place in places(mount)] == [False] * 4


def test_whoever_may_write_into_the_root_may_take_his_own_out_of_its_trash(mount: Mount) -> None:
    """And, where the root is sticky, nothing of others."""
    mount.path.chmod(0o1777)
    mine, others = mount.path / "mine", mount.path / "others"
    mine.write_text("mine")
    os.chown(mine, NEIGHBOUR, NEIGHBOUR)
    remove(others)
    time.sleep(0.1)
    remove(mine)
    os.chown(day(mount) / "mine", NEIGHBOUR, NEIGHBOUR)
    for name, code in (("mine", 0), ("others", 1)):
        done = subprocess.run([*AS_NEIGHBOUR, "mv", day(mount) / name, mount.path], capture_output=True)
        assert (name, done.returncode) == (name, code)
    for move in (["mv", day(mount), mount.path / "all"], ["rmdir", day(mount)], ["touch", day(mount) / "x"]):
        assert subprocess.run([*AS_NEIGHBOUR, *move], capture_output=True).returncode
