"""Destinations that are damaged, or were made by somebody who means harm: one clear line, and nothing is
written, or lost, anywhere else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from casfs.errors import CasfsError
from tests.maintenance.backup.backups import (
    add_files,
    assert_sound,
    back_up,
    backups_of,
    listing,
    made,
    restored,
    stop_after,
    tree_restored,
    unfinished,
)
from tests.maintenance.stores import ONE, TWO, Damaged


@pytest.fixture
def copy(store: Damaged) -> Damaged:
    destination = store.path.parent / "destination"
    back_up(store, destination)
    return Damaged(destination)


def ruin_database(copy: Damaged) -> None:
    (copy.path / "casfs.db").write_bytes(os.urandom(50_000))


def other_database(copy: Damaged) -> None:
    copy.sql("CREATE TABLE other (x)")


def trigger(copy: Damaged) -> None:
    copy.sql("CREATE TRIGGER evil AFTER INSERT ON blob BEGIN DELETE FROM inode; END")


def link_database(copy: Damaged) -> None:
    (copy.path / "casfs.db").rename(copy.path.parent / "elsewhere.db")
    (copy.path / "casfs.db").symlink_to(copy.path.parent / "elsewhere.db")


def ruin_config(copy: Damaged) -> None:
    (copy.path / "casfs.toml").write_text("format = 99")


def link_blobs(copy: Damaged) -> None:
    shutil.rmtree(copy.path / "blobs")
    (copy.path.parent / "outside").mkdir()
    (copy.path / "blobs").symlink_to(copy.path.parent / "outside")
    copy.sql("DELETE FROM blob")


def link_snapshots(copy: Damaged) -> None:
    shutil.rmtree(copy.path / "snapshots")
    (copy.path.parent / "outside").mkdir()
    (copy.path / "snapshots").symlink_to(copy.path.parent / "outside")


@pytest.mark.parametrize(
    "ruin",
    [ruin_database, other_database, trigger, link_database, ruin_config, link_blobs, link_snapshots],
)
def test_a_backup_is_refused(store: Damaged, copy: Damaged, ruin: object) -> None:
    assert callable(ruin)
    ruin(copy)
    files = store.files()
    with pytest.raises((CasfsError, OSError)):
        back_up(store, copy)
    outside = store.path.parent / "outside"
    assert not outside.exists() or os.listdir(outside) == []
    assert store.files() == files
    assert backups_of(store) == []
    assert_sound(store)


def test_leftovers_that_are_none_stay_out_of_the_way(store: Damaged, copy: Damaged) -> None:
    """Of an unfinished backup: a database that is none, that is a link, a folder in its place."""
    snapshots = copy.path / "snapshots"
    for name, make in (
        ("a", lambda path: path.write_bytes(b"nonsense" * 1000)),
        ("b", lambda path: path.symlink_to(store.path / "casfs.db")),
        ("c", lambda path: path.mkdir()),
    ):
        (snapshots / f".new-{name}").mkdir()
        make(snapshots / f".new-{name}" / "casfs.db")
    files = store.files()
    made(back_up(store, copy))
    assert store.files() == files
    assert_sound(store)


def test_a_leftover_of_another_store_stays(store: Damaged, copy: Damaged) -> None:
    add_files(store, {b"new": b"new"})
    assert back_up(store, copy, stop=stop_after(1)).manifest is None
    (left,) = unfinished(copy)
    other = Damaged(copy.path / "snapshots" / f".new-{left}")
    other.sql("UPDATE meta SET value = ? WHERE key = 'uuid'", "f" * 32)
    made(back_up(store, copy))
    assert unfinished(copy) == [left]


def test_blobs_that_are_others_are_never_restored(store: Damaged, copy: Damaged, tmp_path: Path) -> None:
    """As are links to what lies outside, and rows that say something else."""
    copy.overwrite(copy.blob(ONE), b"z" * len(ONE))
    copy.blob(TWO).unlink()
    copy.blob(TWO).symlink_to("/etc/passwd")
    done = restored(copy, store.path.parent / "restored")
    assert len(done.lost) == 2
    assert Damaged(store.path.parent / "restored").files() == {b"/b/empty": b""}
    tree = tree_restored(copy, b"/", tmp_path / "out")
    assert len(tree.lost) == 4
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {
        "a",
        "deep",
        "b",
        "empty",
        "fifo",
        "symlink",
    }


@pytest.mark.parametrize("field", ["name", "serial", "made_ns", "lacking", "uuid", "job"])
def test_a_manifest_of_nonsense(store: Damaged, copy: Damaged, field: str, tmp_path: Path) -> None:
    (path,) = (copy.path / "snapshots").glob("*/manifest.json")
    facts = json.loads(path.read_text())
    nonsense = {"name": "../../x", "uuid": "../x", "lacking": 7}.get(field, ["x" * 99])
    path.write_text(json.dumps(facts | {field: nonsense}))
    before = listing(tmp_path)
    with pytest.raises((CasfsError, OSError, IndexError)):
        restored(copy, store.path.parent / "restored")
    assert not (store.path.parent / "restored").exists()
    assert listing(tmp_path) == before
    made(back_up(store, copy))
    assert_sound(store)
