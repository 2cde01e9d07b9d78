"""Claims on the room of the store's file system."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from casfs import space as module
from casfs.space import Left, Space


class Disk:
    """statvfs(3) of a disk with so many free bytes, and inodes."""

    def __init__(self, total: int, free: int) -> None:
        self.total, self.free, self.asked = total, free, 0
        self.files, self.free_files = 1_000_000, 500_000

    def __call__(self) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(
            f_frsize=1,
            f_blocks=self.total,
            f_bfree=self.free,
            f_bavail=self.free,
            f_files=self.files,
            f_favail=self.free_files,
        )


@pytest.fixture
def disk() -> Disk:
    return Disk(100 << 30, 50 << 30)


@pytest.fixture
def space(disk: Disk) -> Space:
    space = Space(disk, lambda: Left(0, 0))
    disk.asked = 0
    return space


def test_claims_look_at_the_disk_now_and_then(space: Space, disk: Disk) -> None:
    for _ in range(1000):
        space.claim(4096)
    assert disk.asked == 1
    space.claim(100 << 20)
    assert disk.asked == 2


def test_a_claim_on_a_full_disk_is_refused_and_granted_when_there_is_room(space: Space, disk: Disk) -> None:
    disk.free = 10 << 20
    for _ in range(2):
        with pytest.raises(OSError, match="full") as raised:
            space.claim(4096)
        assert raised.value.errno == errno.ENOSPC
    disk.free = 100 << 20
    space.claim(4096)


def test_a_file_that_is_made_later_is_refused_when_others_have_filled_the_disk(
    space: Space, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its close was told that all is well, on the ground of a look at the disk long before."""
    monkeypatch.setattr(module, "CLAIM_SECONDS", -1.0)
    space.claim(4096)
    disk.free = 10 << 20
    space.claim(4096)
    with pytest.raises(OSError, match="full"):
        space.promise(4096)


def test_what_was_promised_may_be_written_when_the_log_has_grown(
    space: Space, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of what was closed long ago had no room, beside half of a reserve that the log had not taken."""
    monkeypatch.setattr(module, "CLAIM_SECONDS", -1.0)
    disk.free = module.RESERVE + 8192
    space.promise(8192, 1)
    disk.free -= module.RESERVE // 3
    space.promise(0)
    with pytest.raises(OSError, match="full"):
        space.promise(4096, 1)
    disk.free = module.RESERVE // 3
    with pytest.raises(OSError, match="full"):
        space.promise(0)


def test_some_room_is_always_kept_for_the_log(space: Space, disk: Disk) -> None:
    disk.free = 20 << 20
    space.claim(1 << 20)
    with pytest.raises(OSError, match="full"):
        space.claim(10 << 20)


def test_inodes_run_out_before_close(space: Space, disk: Disk) -> None:
    """1,500 small files were accepted, closed without an error, and lost."""
    disk.free_files = module.FILE_RESERVE + 100
    for _ in range(100):
        space.promise(4096, 1)
    with pytest.raises(OSError, match="no inodes left") as raised:
        space.promise(4096, 1)
    assert raised.value.errno == errno.ENOSPC
    space.promise(-4096, -1)
    space.promise(4096, 1)


def test_a_file_system_that_makes_inodes_as_it_needs_them_has_enough(space: Space, disk: Disk) -> None:
    disk.files = disk.free_files = 0
    space.promise(4096, 1)


def test_a_write_takes_what_is_left(space: Space, disk: Disk) -> None:
    disk.free = module.RESERVE + 10_000
    assert space.claim_some(100_000) == 8192
    disk.free = module.RESERVE + 1_000
    with pytest.raises(OSError, match="full"):
        space.claim_some(100_000)
    assert space.refused == 100_000


def test_a_small_disk_keeps_less(disk: Disk) -> None:
    disk.total, disk.free = 32 << 20, 2 << 20
    Space(disk, lambda: Left(0, 0)).claim(512 << 10)


def test_rows_that_wait_for_their_commit_count_against_new_data(space: Space, disk: Disk) -> None:
    disk.free = 30 << 20
    space.claim_rows(8 << 20)
    with pytest.raises(OSError, match="full"):
        space.claim(10 << 20)
    space.rows_committed()
    space.claim(10 << 20)


def test_many_rows_ask_for_a_commit(space: Space, disk: Disk) -> None:
    while not space.rows_are_many:
        space.claim_rows(1 << 20)
    assert disk.free > 0
    space.rows_committed()
    assert not space.rows_are_many


def test_room(space: Space, disk: Disk) -> None:
    room = space.room()
    assert (room.total, room.free, room.available) == (100 << 30, 50 << 30, 50 << 30)
