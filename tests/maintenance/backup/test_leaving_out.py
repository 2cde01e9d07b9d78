"""Backups of a part: what is left out is nowhere, and the rest is as a check wants it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from casfs.errors import CasfsError
from casfs.fs.scheduler import run_inline
from casfs.maintenance.backup.verify import verify
from casfs.maintenance.collect import gc
from casfs.maintenance.offline import opened
from casfs.trash.undelete import change_rule
from tests.maintenance.backup.backups import (
    ACCESS,
    add_files,
    assert_sound,
    back_up,
    backups_of,
    made,
    restored,
)
from tests.maintenance.stores import ONE, TWO, Damaged, add_repositories, add_views, make_file


@pytest.fixture
def destination(store: Damaged) -> Path:
    return store.path.parent / "destination"


def database(destination: Path) -> Path:
    return destination / "snapshots" / backups_of(destination)[-1].name / "casfs.db"


def rows(destination: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{database(destination)}?immutable=1", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def test_a_repository_is_left_out(store: Damaged, destination: Path) -> None:
    add_repositories(store)
    manifest = made(back_up(store, destination, exclude=("b",)))
    assert manifest.left_out == ("b",)
    assert manifest.new_blobs == 2
    restored(destination, destination.parent / "restored")
    assert_sound(destination, destination.parent / "restored")
    copy = Damaged(destination.parent / "restored")
    assert copy.files() == {b"/a/one": ONE, b"/a/deep/two": TWO}
    assert copy.sql("SELECT nlink FROM inode WHERE ino = ?", copy.ino("/a/one")) == [(1,)]
    assert copy.sql("SELECT count(*) FROM repository") == [(1,)]


def test_nothing_of_it_is_in_the_file(store: Damaged, destination: Path) -> None:
    """Neither names nor digests, not even in pages that SQLite does not use any more."""
    with opened(str(store)) as fs:
        secret = fs.tree.lookup(1, b"b")
        assert secret is not None
        for number in range(200):
            make_file(fs, secret.ino, b"very secret name %d" % number, b"%d" % number)
    back_up(store, destination, include=("a",))
    assert b"secret name" not in database(destination).read_bytes()
    assert rows(destination, "SELECT count(*) FROM blob") == [(2,)]


def test_views_of_it_are_left_out_too(store: Damaged, destination: Path) -> None:
    add_views(store)
    manifest = made(back_up(store, destination, exclude=("b",)))
    assert manifest.left_out == ("all", "b")
    restored(destination, destination.parent / "restored")
    assert_sound(destination.parent / "restored")
    with opened(str(destination.parent / "restored")) as fs:
        view = fs.tree.lookup(1, b"view")
        assert view is not None
    assert_sound(destination.parent / "restored")


def test_a_view_alone_is_left_out(store: Damaged, destination: Path) -> None:
    add_views(store)
    assert made(back_up(store, destination, exclude=("view", "all"))).left_out == ("all", "view")
    restored(destination, destination.parent / "restored")
    assert_sound(destination.parent / "restored")
    assert Damaged(destination.parent / "restored").sql("SELECT count(*) FROM derived") == [(0,)]


def test_the_trash_is_left_out_with_anything(store: Damaged, destination: Path) -> None:
    with opened(str(store)) as fs:
        run_inline(change_rule(fs, b"", 14, None, 0))
        run_inline(fs.tree.unlink(store.ino("/a/deep"), b"two"))
        run_inline(fs.group.durable())
    assert store.sql("SELECT count(*) FROM trash") == [(1,)]
    back_up(store, destination, exclude=("b",))
    assert rows(destination, "SELECT count(*) FROM trash") == [(0,)]
    restored(destination, destination.parent / "restored")
    assert_sound(destination.parent / "restored")
    back_up(store, destination)
    assert rows(destination, "SELECT count(*) FROM trash") == [(1,)]


def test_files_in_the_root_are_chosen_by_their_names(store: Damaged, destination: Path) -> None:
    add_files(store, {b"x": b"x", b"y": b"y", b"\xff": b"z"})
    manifest = made(back_up(store, destination, include=("x", "a")))
    assert manifest.left_out == ("b", "y", "?")
    restored(destination, destination.parent / "restored")
    assert_sound(destination.parent / "restored")


def test_new_ones_are_left_out_until_they_are_named(store: Damaged, destination: Path) -> None:
    assert made(back_up(store, destination, exclude_new_known=("a",))).left_out == ("b",)
    assert made(back_up(store, destination, exclude_new_known=("a",), include=("a", "b"))).left_out == ()


def test_a_skeleton_has_and_holds_no_contents(store: Damaged, destination: Path) -> None:
    first = made(back_up(store, destination))
    manifest = made(back_up(store, destination, content=False))
    assert not manifest.content
    assert manifest.new_blobs == 0
    assert rows(destination, "SELECT count(*) FROM blob") == [(2,)]
    ACCESS.drop_snapshot(str(destination), first.name)
    with gc.opened(str(destination)) as store_:
        assert gc.execute(store_, gc.plan(store_, grace_ns=0)).blobs == 2
    assert verify(str(destination), access=ACCESS).bad == ()
    assert_sound(destination)
    with pytest.raises(CasfsError, match="has no contents"):
        restored(destination, destination.parent / "restored")
