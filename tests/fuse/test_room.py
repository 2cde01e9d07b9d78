"""What statfs(2) shows."""

from __future__ import annotations

import pytest

from casfs.fs.policy import Room as Quota
from casfs.fuse.room import room_of
from casfs.repositories.filesystem import policy_of
from casfs.repositories.rules import Rules
from tests.repositories.making import make_repository
from tests.session import Session


@pytest.fixture
def quota(session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    make_repository(session, "libs", None, Rules(quota_bytes=10_000, quota_files=3))
    session.kernel.write_file("libs/a", bytes(5_000))
    return session


def test_a_quota_is_the_size_of_its_repository(quota: Session) -> None:
    inode = quota.kernel.inode
    unit = room_of(quota.fs, None, 0).frsize
    for path in ("libs", "libs/a"):
        room = room_of(quota.fs, inode(path), 0)
        assert (room.blocks, room.bavail, room.bfree) == (-(-10_000 // unit), 5_000 // unit, 5_000 // unit)
        assert (room.files, room.favail, room.ffree) == (3, 2, 2)
        assert len(room.packed()) == 80
    assert room_of(quota.fs, inode(""), 0).blocks == room_of(quota.fs, None, 0).blocks > room.blocks


def test_no_more_is_free_than_on_the_disk(quota: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Quota(1 << 60, 1 << 60, 1 << 60, 1 << 60)
    monkeypatch.setattr(policy_of(quota.fs), "room", lambda _: everything)
    room, store = room_of(quota.fs, quota.kernel.inode("libs"), 0), room_of(quota.fs, None, 0)
    assert room.bavail <= store.blocks
    assert room.favail <= store.files
    assert (room.blocks, room.files) == ((1 << 60) // room.frsize, 1 << 60)


def test_free_space_is_shown_in_steps(quota: Session) -> None:
    step = 64 << 20
    room = room_of(quota.fs, None, step)
    assert room.bavail * room.frsize % step == room.bfree * room.frsize % step == 0
    assert (room.files, room.ffree, room.favail) == (0, 0, 0)
    assert room_of(quota.fs, quota.kernel.inode("libs"), step).files == 3
