"""An overlayfs whose upper layer is in a mount, and files without a name, open(2) with O_TMPFILE."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount, is_mounted
from tests.mounted.sides import LARGE, SMALL, Sides, digest, hexdigest, outcome

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may mount an overlay")

_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source: Path, target: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def give_name(fd: int, path: Path) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW, as the manual page of open(2) shows it."""
    if _libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(path), 0x400):
        raise OSError(ctypes.get_errno(), "linkat")


# overlayfs


@contextmanager
def overlay(lower: Path, upper: Path, work: Path, place: Path) -> Iterator[Path]:
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place], check=True)
    try:
        yield place
    finally:
        if is_mounted(place):
            subprocess.run(["umount", place], check=True)


@as_root
def test_an_overlay_has_its_upper_layer_in_a_mount(mount: Mount, scratch: Path) -> None:
    lower, place = scratch / "lower", scratch / "merged"
    layers = lower, mount.path / "upper", mount.path / "work", place
    for folder in layers:
        folder.mkdir()
    (lower / "folder" / "sub").mkdir(parents=True)
    for name in ("removed", "moved", "replaced", "appended", "folder/sub/file"):
        (lower / name).write_bytes(SMALL)
    with overlay(*layers):
        (place / "removed").unlink()
        (place / "moved").rename(place / "there")
        (place / "new").write_bytes(LARGE)
        (place / "new").rename(place / "replaced")
        with open(place / "appended", "ab") as file:
            file.write(b"more")
        shutil.rmtree(place / "folder")
        (place / "folder").mkdir()
        (place / "folder" / "new").write_text("new")
    mount.remount()
    left = os.stat(mount.path / "upper" / "moved")
    assert (left.st_mode, left.st_rdev) == (stat.S_IFCHR, 0)
    with overlay(*layers):
        assert sorted(os.listdir(place)) == ["appended", "folder", "replaced", "there"]
        assert (place / "there").read_bytes() == SMALL
        assert (place / "replaced").read_bytes() == LARGE
        assert (place / "appended").read_bytes() == SMALL + b"more"
        assert os.listdir(place / "folder") == ["new"]


@as_root
def test_a_whiteout_is_left_as_on_the_disk(sides: Sides) -> None:
    for name in ("file", "target"):
        sides.make(name, SMALL)

    def move(side: Path, flags: int) -> object:
        renameat2(side / "file", side / "target", flags)
        left = os.stat(side / "file")
        return left.st_mode, left.st_rdev, left.st_uid, left.st_gid, sorted(os.listdir(side))

    for flags in (4 | 1, 4 | 2, 4):
        sides.both(f"rename with flags {flags}", lambda side, flags=flags: move(side, flags))
    sides.both("its content", lambda side: (side / "target").read_bytes())


@as_root
def test_a_whiteout_has_the_access_list_that_its_directory_gives(sides: Sides) -> None:
    sides.make("file", SMALL)

    def move(side: Path) -> object:
        subprocess.run(["setfacl", "-d", "-m", "u:12:rwx", side], check=True)
        renameat2(side / "file", side / "target", 4)
        return os.stat(side / "file").st_mode, os.getxattr(side / "file", "system.posix_acl_access")

    assert isinstance(sides.both("rename", move), tuple)


# Files without a name


def are_refused(folder: Path, mode: str) -> bool:
    """Without the accelerator there are no such files: pyfuse3 has no such request."""
    if mode == "native":
        return False
    assert outcome(lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR)) == "ENOTSUP"
    return True


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_file_without_a_name_is_given_one_as_on_the_disk(sides: Sides, content: bytes) -> None:
    if are_refused(sides.tested, sides.mount.mode):
        return

    def use(side: Path) -> object:
        fd = os.open(side, os.O_TMPFILE | os.O_RDWR, 0o640)
        try:
            os.write(fd, content)
            first = os.fstat(fd)
            listed = os.listdir(side)
            give_name(fd, side / "file")
            again = outcome(lambda: give_name(fd, side / "file"))
            give_name(fd, side / "second")
            os.write(fd, b"more")
            named = os.fstat(fd)
        finally:
            os.close(fd)
        return first.st_mode, first.st_nlink, first.st_size, listed, again, named.st_nlink, named.st_size

    sides.both("a file without a name", use)
    sides.assert_same()
    assert digest(sides.tested / "file") == hexdigest(content + b"more")


def test_a_file_without_a_name_that_is_exclusive_gets_none(sides: Sides) -> None:
    if are_refused(sides.tested, sides.mount.mode):
        return

    def use(side: Path) -> object:
        fd = os.open(side, os.O_TMPFILE | os.O_RDWR | os.O_EXCL)
        try:
            os.write(fd, SMALL)
            refused = outcome(lambda: give_name(fd, side / "file"))
            return refused, os.pread(fd, len(SMALL), 0), outcome(lambda: os.open(side, os.O_TMPFILE))
        finally:
            os.close(fd)

    assert sides.both("O_EXCL", use)[0] == "ENOENT"
    assert os.listdir(sides.tested) == []


def test_what_never_got_a_name_leaves_no_inode_and_no_file(mount: Mount) -> None:
    if are_refused(mount.path, mount.mode):
        return
    before = mount.status["inodes"]
    fds = [os.open(mount.path, os.O_TMPFILE | os.O_RDWR) for _ in range(8)]
    for number, fd in enumerate(fds):
        os.write(fd, LARGE[: 1 + number * 200_000])
        os.fsync(fd)
    for fd in fds[:4]:
        os.close(fd)
    # The others are cut off, as in a crash.
    mount.kill()
    for fd in fds[4:]:
        with pytest.raises(OSError, match="not connected"):
            os.close(fd)
    mount.start()
    assert mount.status["inodes"] == before
    mount.stop()
    assert not os.listdir(mount.store / "staging")
    assert not list((mount.store / "blobs").glob("*/*"))


def test_what_was_synced_and_named_survives_a_kill(mount: Mount) -> None:
    if are_refused(mount.path, mount.mode):
        return
    fds = []
    for name, content in (("small", SMALL), ("large", LARGE)):
        fd = os.open(mount.path, os.O_TMPFILE | os.O_RDWR)
        os.write(fd, content)
        os.fsync(fd)
        give_name(fd, mount.path / name)
        folder = os.open(mount.path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        fds.append(fd)
    mount.kill()
    for fd in fds:
        with pytest.raises(OSError, match="not connected"):
            os.close(fd)
    mount.start()
    assert (mount.path / "small").read_bytes() == SMALL
    assert (mount.path / "large").read_bytes() == LARGE


def test_what_was_removed_without_a_name_is_not_in_the_trash(mount: Mount) -> None:
    if are_refused(mount.path, mount.mode):
        return
    fd = os.open(mount.path, os.O_TMPFILE | os.O_RDWR)
    os.write(fd, SMALL)
    os.close(fd)
    mount.remount()
    assert not list((mount.path / ".casfs" / "trash").glob("**/*"))
