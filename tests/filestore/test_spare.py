"""Room that is held for the day on which there is none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from casfs.filestore import spare as module
from casfs.filestore.spare import SPARE_FILES, Spare


@pytest.fixture
def spare(tmp_path: Path) -> Spare:
    (tmp_path / "run").mkdir()
    return Spare(str(tmp_path))


def held(store: Path) -> list[int]:
    """Bytes on disk of each file."""
    return sorted(path.stat().st_blocks * 512 for path in (store / "run").glob("spare*"))


def test_it_holds_bytes_and_inodes_and_gives_them_up(spare: Spare, tmp_path: Path) -> None:
    assert not spare.give_up()
    assert spare.hold()
    *empty, full = held(tmp_path)
    assert (len(empty), set(empty), full >= module.SPARE_BYTES) == (SPARE_FILES - 1, {0}, True)
    assert spare.give_up()
    assert held(tmp_path) == []
    assert spare.hold(), "it is not taken back"
    assert len(held(tmp_path)) == SPARE_FILES


def test_what_a_killed_daemon_held_is_found_again(spare: Spare, tmp_path: Path) -> None:
    assert spare.hold()
    (tmp_path / "run" / "spare3").unlink()
    assert Spare(str(tmp_path)).hold()
    assert len(held(tmp_path)) == SPARE_FILES
    assert Spare(str(tmp_path)).give_up()


def stat_of(tmp_path: Path, **fields: int) -> os.statvfs_result:
    stat = os.statvfs(tmp_path)
    names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "flag", "namemax")
    values = [fields.get(name, getattr(stat, f"f_{name}")) for name in names]
    return os.statvfs_result((*values, stat.f_fsid))


@pytest.mark.parametrize("field", ["bavail", "favail"])
def test_a_full_disk_is_not_asked_for_more(
    spare: Spare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    few = stat_of(tmp_path, **({"files": 1_000, "favail": 1_000} | {field: 5}))
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    assert spare.is_needed()
    assert not spare.hold()
    assert held(tmp_path) == []


def test_a_disk_without_a_number_of_inodes_has_enough(
    spare: Spare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """btrfs says that it has 0."""
    none = stat_of(tmp_path, files=0, favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: none)
    assert not spare.is_needed()
    assert spare.hold()


def test_what_cannot_be_held_fails_nobody(
    spare: Spare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(module, "fallocate", full)
    assert not spare.hold()
    monkeypatch.undo()
    assert spare.hold()
