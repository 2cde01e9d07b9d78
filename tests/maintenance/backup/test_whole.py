"""A backup becomes a store again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from casfs.errors import CasfsError, FormatError, StoreExists
from casfs.maintenance.offline import opened
from tests.maintenance.backup.backups import (
    add_files,
    assert_sound,
    back_up,
    backups_of,
    made,
    restored,
    stop_after,
)
from tests.maintenance.cut_off import CutOff, cut_at
from tests.maintenance.stores import ONE, TWO, Damaged, add_views


@pytest.fixture
def copy(store: Damaged) -> Damaged:
    destination = store.path.parent / "destination"
    add_views(store)
    back_up(store, destination)
    return Damaged(destination)


@pytest.fixture
def target(store: Damaged) -> Path:
    return store.path.parent / "restored"


def test_it_is_the_same_store(store: Damaged, copy: Damaged, target: Path) -> None:
    done = restored(copy, target)
    assert (done.blobs, done.copied, done.lost, done.complete) == (2, 2, (), True)
    again = Damaged(target)
    assert again.files() == store.files()
    everything = "SELECT ino, mode, nlink, uid, gid, size, target, mtime_ns FROM inode ORDER BY ino"
    assert again.sql(everything) == store.sql(everything)
    for table in ("dentry", "xattr", "property", "repository", "member", "derived", "artifact"):
        order = "SELECT * FROM {} ORDER BY 1, 2, 3".format(table)  # noqa: UP032
        assert again.sql(order) == store.sql(order), table
    assert again.sql("SELECT value FROM meta WHERE key = 'uuid'") == store.sql(
        "SELECT value FROM meta WHERE key = 'uuid'"
    )
    assert_sound(target)
    with opened(str(target)) as fs:
        assert fs.tree.lookup(1, b"view") is not None
    assert made(back_up(target, copy)).new_blobs == 0
    assert_sound(target, copy)


def test_only_an_empty_place_is_taken(store: Damaged, copy: Damaged, target: Path) -> None:
    with pytest.raises(StoreExists, match="a casfs store already"):
        restored(copy, store)
    target.mkdir()
    (target / "file").touch()
    with pytest.raises(StoreExists, match="not empty"):
        restored(copy, target)
    assert os.listdir(target) == ["file"]
    with pytest.raises(StoreExists, match="not a directory"):
        restored(copy, target / "file")
    assert restored(copy, target / "new", dry_run=True).blobs == 2
    assert not (target / "new").exists()


def test_a_stop_is_gone_on_with(store: Damaged, copy: Damaged, target: Path) -> None:
    add_files(store, {b"f%d" % number: b"%d" % number * 50 for number in range(300)})
    back_up(store, copy)
    first = restored(copy, target, stop=stop_after(150))
    assert not first.complete
    assert not (target / "casfs.toml").exists()
    other = backups_of(copy)[0].name
    with pytest.raises(StoreExists, match="begun as"):
        restored(copy, target, other)
    second = restored(copy, target)
    assert second.complete
    assert second.blobs == 302
    assert second.copied <= 302 - first.copied
    assert_sound(target)


def test_cut_off_at_each_step_it_goes_on(
    copy: Damaged, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = 0
    while True:
        place = target.with_name(f"restored{last}")
        with monkeypatch.context() as patch:
            cut_at(patch, last)
            try:
                restored(copy, place)
                break
            except CutOff:
                pass
        if not (place / "casfs.toml").exists():
            restored(copy, place)
        assert_sound(place)
        last += 1
    assert last > 15


def test_what_is_damaged_is_lost_and_the_rest_is_there(copy: Damaged, target: Path) -> None:
    copy.overwrite(copy.blob(TWO), TWO[:-1] + b"!")
    done = restored(copy, target)
    (lost,) = done.lost
    assert sorted(lost.paths) == [b"/a/deep/two", b"/b/two again"]
    again = Damaged(target)
    assert again.sql("SELECT count(*) FROM damage") == [(1,)]
    assert again.files() == {b"/a/one": ONE, b"/b/link": ONE, b"/b/empty": b""}


def test_a_torn_file_is_copied_anew(copy: Damaged, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored(copy, target, stop=stop_after(0))
    torn = Damaged(target).blob(ONE)
    torn.parent.mkdir(exist_ok=True)
    torn.write_bytes(bytes(len(ONE)))
    restored(copy, target)
    assert_sound(target)


@pytest.mark.parametrize("what", ["casfs.db", "uuid", "link"])
def test_a_database_that_is_none_is_refused(store: Damaged, copy: Damaged, target: Path, what: str) -> None:
    folder = copy.path / "snapshots" / backups_of(copy)[0].name
    match what:
        case "casfs.db":
            (folder / "casfs.db").write_bytes(os.urandom(100_000))
        case "uuid":
            manifest = (folder / "manifest.json").read_text()
            uuid = backups_of(copy)[0].uuid
            (folder / "manifest.json").write_text(manifest.replace(uuid, "f" * 32))
        case _:
            (folder / "casfs.db").unlink()
            (folder / "casfs.db").symlink_to(store.path / "casfs.db")
    with pytest.raises((FormatError, CasfsError)):
        restored(copy, target)
    assert not target.exists()
