"""The store's disk fills up or fails: programs get the errno, the daemon lives, what is committed is safe."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from casfs.errors import ExitCode
from tests.mounted.disks import Disk
from tests.mounted.mounts import CASFS, ENVIRONMENT, ROOT_OPTIONS, Mount, await_exit, casfs

FULL = r"(commit failed, will be tried again|stays staged|still not sealed|put off): .*(No space left|full)"
BROKEN = r"the store cannot be written|commit failed|stays staged|is left behind|unlinked inodes are kept"
BALLAST = 20 << 20


class Stage:
    """A mounted store on a small disk, with something committed in it and ballast beside it."""

    def __init__(self, disk: Disk, mount: Mount) -> None:
        self.disk = disk
        self.mount = mount
        self.path = mount.path
        self.ballast = disk.path / "ballast"
        with open(self.ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST)
        self.committed = {f"committed{number}": os.urandom(number * 3_000) for number in range(40)}
        for name, content in self.committed.items():
            (self.path / name).write_bytes(content)
        self.sync()

    def sync(self) -> None:
        place = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)

    def check(self) -> None:
        """Everything that was committed at the start is there, whole."""
        for name, content in self.committed.items():
            assert (self.path / name).read_bytes() == content

    def make_room(self) -> None:
        self.remove(self.ballast)

    def remove(self, path: Path) -> None:
        """XFS frees the blocks of a removed file in the background."""
        wanted = self.disk.free() + path.stat().st_blocks * 512 // 2
        path.unlink()
        deadline = time.monotonic() + 60
        while self.disk.free() < wanted:
            assert time.monotonic() < deadline, f"the blocks of {path} are not freed"
            time.sleep(0.01)

    def check_work_goes_on(self) -> None:
        """Without a remount; and afterwards it is all there."""
        (self.path / "afterwards").write_bytes(b"new" * 100_000)
        self.sync()
        os.rename(self.path / "afterwards", self.path / "after")
        self.sync()
        self.check()
        self.mount.remount()
        assert (self.path / "after").read_bytes() == b"new" * 100_000
        self.check()


@pytest.fixture(params=["ext4", "xfs"])
def stage(
    request: pytest.FixtureRequest, new_disk: Callable[..., Disk], new_mount: Callable[..., Mount]
) -> Stage:
    disk = new_disk(request.param)
    mount = new_mount(disk.path / "store", options=f"{ROOT_OPTIONS},commit_interval=0.1")
    mount.expect(FULL)
    return Stage(disk, mount.start())


def room_is_missing(error: OSError) -> bool:
    """Whether it is ENOSPC. Anything else is raised on."""
    if error.errno != errno.ENOSPC:
        raise error
    return True


def until_full(step: Callable[[int], None], most: int = 1_000_000) -> int:
    """Repeat `step` until it ends with ENOSPC; how often it went well."""
    for number in range(most):
        try:
            step(number)
        except OSError as error:
            if room_is_missing(error):
                return number
    raise AssertionError(f"the disk took {most} steps and is not full")


def write_or_complain(path: Path, content: bytes) -> None:
    """write and close, of which either may fail; the program then removes what is there of it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
    except OSError:
        os.unlink(path)
        raise


def test_one_large_file_fills_the_disk(stage: Stage) -> None:
    piece = os.urandom(1 << 20)
    fd = os.open(stage.path / "large", os.O_WRONLY | os.O_CREAT)
    written = 0

    def write(_: int) -> None:
        nonlocal written
        written += os.write(fd, piece)

    until_full(write)
    # What fitted may be kept or not: close says.
    attempt(lambda: os.close(fd))
    assert written > 5 << 20
    stage.check()
    os.unlink(stage.path / "large")
    stage.sync()
    stage.make_room()
    stage.check_work_goes_on()


def test_many_small_files_fill_the_disk(stage: Stage) -> None:
    (stage.path / "many").mkdir()
    kept: dict[str, bytes] = {}

    def write(number: int) -> None:
        content = os.urandom(40_000)
        write_or_complain(stage.path / "many" / f"{number}", content)
        kept[f"{number}"] = content

    until_full(write)
    assert len(kept) > 100
    stage.check()
    for name, content in kept.items():
        assert (stage.path / "many" / name).read_bytes() == content
    stage.make_room()
    stage.sync()
    for name, content in kept.items():
        assert (stage.path / "many" / name).read_bytes() == content
    stage.check_work_goes_on()


def test_names_alone_fill_the_disk(stage: Stage) -> None:
    def make(number: int) -> None:
        os.symlink("x" * 3_000, stage.path / f"symlink{number}")

    done = until_full(make)
    assert done > 1_000
    stage.check()
    assert sum(name.startswith("symlink") for name in os.listdir(stage.path)) == done
    for number in range(0, done, 2):
        os.unlink(stage.path / f"symlink{number}")
    stage.make_room()
    stage.sync()
    assert sum(name.startswith("symlink") for name in os.listdir(stage.path)) == done // 2
    stage.check_work_goes_on()
    assert sum(name.startswith("symlink") for name in os.listdir(stage.path)) == done // 2


def fill_below(disk: Disk) -> Path:
    """Somebody else takes what is left of the disk, to the last block."""
    others = disk.path / "others"
    with open(others, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            until_full(lambda _, size=size: file.write(bytes(size)))
        os.fsync(file.fileno())
    return others


def attempt(step: Callable[[], object]) -> bool:
    """Do something that may fail for want of room, and for nothing else."""
    try:
        step()
    except OSError as error:
        return not room_is_missing(error)
    return True


def test_others_fill_the_disk_to_the_last_block(stage: Stage) -> None:
    small, large = os.urandom(5_000), os.urandom(3 << 20)
    unsealed = os.open(stage.path / "unsealed", os.O_RDWR | os.O_CREAT)
    os.write(unsealed, small)
    others = fill_below(stage.disk)

    assert not attempt(lambda: os.fsync(unsealed))
    assert os.pread(unsealed, 10_000, 0) == small
    assert not attempt(lambda: write_or_complain(stage.path / "large", large))
    attempt(lambda: os.truncate(stage.path / "committed39", 100_000))
    for number in range(300):
        attempt(lambda number=number: os.mkdir(stage.path / f"folder{number}"))
        if number % 100 == 0:
            attempt(stage.sync)
    made = {name for name in os.listdir(stage.path) if name.startswith("folder")}
    os.unlink(stage.path / "committed38")
    os.rename(stage.path / "committed37", stage.path / "renamed")
    attempt(stage.sync)
    assert stage.mount.status["serving"]
    stage.committed["renamed"] = stage.committed.pop("committed37")
    del stage.committed["committed38"], stage.committed["committed39"]
    stage.check()

    stage.remove(others)
    os.fsync(unsealed)
    os.close(unsealed)
    stage.check_work_goes_on()
    assert {name for name in os.listdir(stage.path) if name.startswith("folder")} == made
    assert not (stage.path / "committed38").exists()
    assert (stage.path / "unsealed").read_bytes() == small


def test_a_file_that_could_not_be_closed_is_whole_when_there_is_room(stage: Stage) -> None:
    content = {"small": os.urandom(5_000), "medium": os.urandom(200_000)}
    files = {name: os.open(stage.path / name, os.O_WRONLY | os.O_CREAT) for name in content}
    for name, fd in files.items():
        os.write(fd, content[name])
    others = fill_below(stage.disk)
    for name, fd in files.items():
        assert not attempt(lambda fd=fd: os.close(fd)), f"{name} was closed"
        assert (stage.path / name).read_bytes() == content[name]
    stage.remove(others)
    stage.sync()
    stage.check_work_goes_on()
    for name, whole in content.items():
        assert (stage.path / name).read_bytes() == whole


def test_sigkill_on_a_full_disk(stage: Stage) -> None:
    until_full(lambda number: write_or_complain(stage.path / f"file{number}", os.urandom(60_000)))
    fill_below(stage.disk)
    attempt(stage.sync)
    stage.mount.kill()
    stage.make_room()
    stage.mount.start()
    stage.check_work_goes_on()


def test_a_full_disk_can_be_mounted_read_and_emptied(stage: Stage) -> None:
    until_full(lambda number: write_or_complain(stage.path / f"file{number}", os.urandom(60_000)))
    stage.sync()
    names = [name for name in os.listdir(stage.path) if name.startswith("file")]
    stage.mount.remount()
    stage.check()
    for name in names:
        os.unlink(stage.path / name)
    stage.sync()
    stage.make_room()
    stage.check_work_goes_on()


def refused(step: Callable[[], object]) -> bool:
    """Does a step end as it does on a disk that has failed?"""
    try:
        step()
    except OSError as error:
        return error.errno in (errno.EIO, errno.EROFS)
    return False


def test_the_disk_fails_under_work(stage: Stage) -> None:
    """ext4 turns read-only, XFS answers EIO: nothing is written any more, what is there is not harmed."""
    stage.mount.expect(BROKEN)
    file = os.open(stage.path / "open", os.O_RDWR | os.O_CREAT)
    os.write(file, b"never synced")
    daemon = os.pidfd_open(stage.mount.pid)
    stage.disk.break_down()
    assert refused(lambda: os.fsync(file))
    assert refused(lambda: os.fsync(file)), "the second fsync must not succeed after the first has failed"
    assert refused(lambda: os.write(file, b"more"))
    assert refused((stage.path / "new").mkdir)
    assert refused((stage.path / "new").touch)
    assert refused((stage.path / "committed7").unlink)
    assert refused(lambda: os.truncate(stage.path / "committed7", 5))
    assert stage.mount.status["activity"]["failed"] in (errno.EIO, errno.EROFS)
    os.close(file)
    stage.mount.crashed = True
    if stage.disk.kind == "ext4":
        stage.check()
        assert "is unmounted, but what was not synced is lost" in casfs("umount", stage.path, code=32)
    else:  # not even the store's lock file can be read
        subprocess.run(["umount", stage.path], check=True)
    await_exit(daemon)
    stage.disk.unmount()

    stage.disk.mount()
    stage.mount.start()
    assert sorted(os.listdir(stage.path)) == sorted(stage.committed)
    stage.check_work_goes_on()


def test_digests_that_find_no_room_come_later(stage: Stage) -> None:
    def fill(_number: int) -> None:
        with open(stage.disk.path / "more ballast", "ab") as file:
            file.write(bytes(4096))

    for number in range(1_500):
        (stage.path / f"small{number}").write_bytes(b"%d" % number)
    stage.sync()
    until_full(fill)
    command = [*CASFS, "digests", stage.mount.store, "--add", "sha512,sha256,sha1,md5", "--fast"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode in (ExitCode.OK, ExitCode.FAILED), done.stderr
    assert "Traceback" not in done.stderr
    stage.check()
    stage.make_room()
    casfs(*command[len(CASFS) :])
    state = json.loads(casfs("digests", stage.mount.store, "--status", "--json"))
    assert (state["left"], state["wanted"]) == (0, ["md5", "sha1", "sha256", "sha512"])
    for number in range(0, 1_500, 100):
        found = os.getxattr(stage.path / f"small{number}", "user.casfs.sha256").decode()
        assert found == hashlib.sha256(b"%d" % number).hexdigest()
    stage.check_work_goes_on()
