"""Little room is left: what nobody needs is given back, and who writes does not notice."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.disks import Disk
from tests.mounted.mounts import ROOT_OPTIONS, Mount, casfs, sync_directory
from tests.mounted.small_disk import DISK, work_on_both
from tests.mounted.test_disk_full import attempt, fill_below, until_full, write_or_complain

MIB = 1 << 20
EMPTIES = "leave the trash before their time"


class Place:
    """A mounted store on a disk of its own."""

    def __init__(self, disk: Disk, mount: Mount) -> None:
        self.disk = disk
        self.mount = mount
        self.path = mount.path

    @property
    def room(self) -> dict[str, int]:
        room = self.mount.status["room"]
        assert isinstance(room, dict)
        return room

    def fill(self, size: int, prefix: str = "f") -> int:
        """Files of that size until there is no room."""
        return until_full(lambda number: write_or_complain(self.path / f"{prefix}{number}", os.urandom(size)))


@pytest.fixture
def place(new_disk: Callable[..., Disk], new_mount: Callable[..., Mount]) -> Place:
    disk = new_disk("ext4", 128 * MIB)
    mount = new_mount(disk.path / "store", options=ROOT_OPTIONS)
    mount.expect(r"No space left", r"is full", EMPTIES)
    return Place(disk, mount.start())


def test_what_is_removed_makes_room_for_the_next_file_at_once(place: Place) -> None:
    """40 of 64 files of 2 MiB were removed, and not one more could be written, not even after a remount."""
    made = place.fill(2 * MIB)
    gone = made * 40 // 64
    for number in range(gone):
        (place.path / f"f{number}").unlink()
    contents = {f"g{number}": os.urandom(2 * MIB) for number in range(gone - 2)}
    for name, content in contents.items():
        (place.path / name).write_bytes(content)
    for name, content in contents.items():
        assert (place.path / name).read_bytes() == content
    assert place.room["blobs_removed"] > 0


def test_how_much_is_little_room_can_be_chosen(place: Place) -> None:
    for low, removed in (("5", 0), ("50", 8)):
        place.mount.remount(f"{ROOT_OPTIONS},low_room={low}")
        for number in range(16):
            (place.path / f"f{number}").write_bytes(os.urandom(4 * MIB))
        sync_directory(place.path)
        for number in range(8):
            (place.path / f"f{number}").unlink()
        sync_directory(place.path)
        deadline = time.monotonic() + (3 if removed == 0 else 30)
        while place.room["blobs_removed"] < max(removed, 1) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert place.room["blobs_removed"] >= removed
        assert (place.room["blobs_removed"] == 0) == (removed == 0)


def test_the_trash_goes_before_anybody_is_refused_and_a_pin_holds(place: Place) -> None:
    casfs("trash", "set", place.mount.store, "--minimal-age", "0")
    (place.path / "pinned").write_bytes(os.urandom(5 * MIB))
    casfs("pin", "add", place.mount.store, place.path / "pinned")
    (place.path / "pinned").unlink()
    for number in range(12):
        (place.path / f"old{number}").write_bytes(os.urandom(5 * MIB))
        sync_directory(place.path)
        (place.path / f"old{number}").unlink()
    assert place.mount.usage()["trash_files"] == 13
    for number in range(13):
        (place.path / f"new{number}").write_bytes(os.urandom(5 * MIB))
    room = place.room
    assert room["trash_files_removed"] > 0
    assert room["requests_refused"] == 0
    place.fill(MIB)
    assert place.mount.usage()["orphan_bytes"] >= 5 * MIB, "what is pinned is gone"
    assert place.mount.usage()["trash_files"] == 0


def test_a_log_that_is_closed_after_each_line_does_not_fill_the_disk(place: Place) -> None:
    """The 251st append to a log of 2 MiB had no room, beside 216 MiB that nobody needed."""
    place.fill(2 * MIB)
    for number in range(8):
        (place.path / f"f{number}").unlink()
    for _ in range(300):
        with (place.path / "log").open("ab") as log:
            log.write(os.urandom(4096))
    assert (place.path / "log").stat().st_size == 300 * 4096


def test_what_df_shows_can_be_had_and_then_it_shows_nothing(place: Place) -> None:
    if place.mount.mode == "native":
        available = available_in(place.path)
        with (place.path / "all").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, available - 512 * 1024)
        (place.path / "all").unlink()
        sync_directory(place.path)
    with (place.path / "fills").open("wb", buffering=0) as file:
        piece = os.urandom(MIB)
        until_full(lambda _: file.write(piece))
        assert available_in(place.path) < 64 * 1024
    assert os.statvfs(place.path).f_blocks == os.statvfs(place.disk.path).f_blocks


def available_in(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


@pytest.fixture
def few_inodes(new_disk: Callable[..., Disk], new_mount: Callable[..., Mount]) -> Place:
    disk = new_disk("ext4", 64 * MIB, inodes=800)
    casfs("init", disk.path / "store", "--fan-out", "1")
    mount = new_mount(disk.path / "store", options=ROOT_OPTIONS)
    mount.expect("has no inodes left", "No space left", "is full")
    return Place(disk, mount.start())


def test_no_file_is_accepted_for_which_there_is_no_inode(few_inodes: Place) -> None:
    """1,500 small files were accepted, closed without an error, and lost."""
    place, kept = few_inodes, {}
    assert os.statvfs(place.path).f_favail <= place.disk.free_inodes()
    for number in range(1_500):
        content = os.urandom(100)
        if attempt(lambda n=number, c=content: write_or_complain(place.path / f"s{n}", c)):
            kept[f"s{number}"] = content
    assert 300 < len(kept) < 800
    assert os.statvfs(place.path).f_favail == 0
    sync_directory(place.path)
    place.mount.remount()
    for name, content in kept.items():
        assert (place.path / name).read_bytes() == content
    for name in list(kept)[:100]:
        (place.path / name).unlink()
    for number in range(90):
        (place.path / f"again{number}").write_bytes(os.urandom(100))


def test_a_store_opens_checks_and_deletes_with_neither_bytes_nor_inodes(few_inodes: Place) -> None:
    place = few_inodes
    names = [place.path / f"f{number}" for number in range(40)]
    for name in names:
        name.write_bytes(os.urandom(200_000))
    sync_directory(place.path)
    others = place.disk.path / "others"
    others.mkdir()
    (others / "bytes").touch()
    until_full(lambda number: (others / str(number)).touch())
    with (others / "bytes").open("r+b", buffering=0) as file:
        for size in (MIB, 4096):
            until_full(lambda _, size=size: file.write(bytes(size)))
        os.fsync(file.fileno())
    assert place.disk.free_inodes() == 0
    place.mount.remount()
    place.mount.stop()
    assert casfs("fsck", place.mount.store).endswith("clean\n")
    place.mount.start()
    for name in names[:20]:
        name.unlink()
    sync_directory(place.path)
    deadline = time.monotonic() + 30
    while free_blocks(place) < 4 * MIB and time.monotonic() < deadline:
        time.sleep(0.1)
    assert free_blocks(place) > 3 * MIB, "what was removed is not given back"
    for name in names[20:]:
        assert len(name.read_bytes()) == 200_000


def free_blocks(place: Place) -> int:
    """Those included that are root's, which has filled the disk."""
    room = os.statvfs(place.disk.path)
    return room.f_bfree * room.f_frsize


def test_a_mount_collects_by_itself_and_says_so(place: Place) -> None:
    collection = place.mount.status["collection"]
    assert (collection["by"], collection["schedule"]) == ("this mount", "0 */4 * * *")


def test_the_log_does_not_say_a_thousand_times_that_a_file_stays_staged(place: Place) -> None:
    files = [os.open(place.path / f"open{number}", os.O_WRONLY | os.O_CREAT) for number in range(20)]
    for fd in files:
        os.write(fd, os.urandom(3_000))
    others = fill_below(place.disk)
    for fd in files:
        attempt(lambda fd=fd: os.close(fd))
    for _ in range(20):
        attempt(lambda: sync_directory(place.path))
    lines = (place.mount.store / "run" / "mount.log").read_text().splitlines()
    assert sum("stays staged" in line for line in lines) <= 2
    assert len(lines) == len({line.partition(" ")[2].partition(" ")[2] for line in lines}), lines
    others.unlink()
    sync_directory(place.path)


def test_no_descriptor_is_left_for_a_moment(new_mount: Callable[..., Mount]) -> None:
    """EMFILE made the mount read-only, and open files were lost."""
    mount = new_mount().start()
    mount.expect("Too many open files")
    contents = {f"f{number}": os.urandom(300_000) for number in range(40)}
    files = {name: os.open(mount.path / name, os.O_WRONLY | os.O_CREAT) for name in contents}
    before = resource.prlimit(mount.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(mount.pid, resource.RLIMIT_NOFILE, (mount.descriptors + 10, before[1]))
    try:
        refused = {}
        for name, fd in files.items():
            try:
                os.write(fd, contents[name])
                os.fsync(fd)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                refused[name] = fd
    finally:
        resource.prlimit(mount.pid, resource.RLIMIT_NOFILE, before)
    assert refused
    assert not mount.status["activity"]["failed"]
    for name, fd in refused.items():
        os.pwrite(fd, contents[name], 0)
        os.fsync(fd)
    for fd in files.values():
        os.close(fd)
    mount.remount()
    for name, content in contents.items():
        assert (mount.path / name).read_bytes() == content


@pytest.mark.slow
@pytest.mark.alone
def test_daily_work_on_a_small_disk_is_refused_nothing_that_ext4_gives(
    new_disk: Callable[..., Disk], new_mount: Callable[..., Mount], tmp_path: Path
) -> None:
    """A short form of scripts/soak-disk."""
    disks = [new_disk("ext4", DISK, tmp_path) for _ in range(2)]
    mount = new_mount(disks[0].path / "store")
    mount.expect(EMPTIES)
    casfs("trash", "set", mount.store, "--minimal-age", "1s")
    mount.start()
    report = work_on_both(mount.path, disks[1].path, 20.0, 7)
    assert (report.refused, report.different) == ([], [])
    assert report.written > DISK // 4
    assert mount.status["room"]["requests_refused"] == 0
