"""Stores that are made of copies of others."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from casfs.control.messages import CreateSnapshot, DropSnapshot
from casfs.control.unmounted import perform
from casfs.errors import CasfsError, FormatError, StoreLocked, StoreNotFound, UsageError
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.check.fsck import check
from casfs.maintenance.open_copy import ASIDE, open_copied
from casfs.snapshots.folder import SnapshotFolder
from tests.repositories.making import make_directories
from tests.session import Session

HELD = "hold-20261129T000000Z-000000"
CONTENTS = {b"a/one": b"one" * 100_000, b"a/two": b"two", b"b/three": b"one" * 100_000, b"b/four": b"four"}


@pytest.fixture
def source(store_path: Path) -> Path:
    """A store that nobody uses."""
    session = Session(store_path)
    for folder in ("a", "b"):
        make_directories(session, folder)
    for path, content in CONTENTS.items():
        session.kernel.write_file(path, content)
    session.stop()
    return store_path


def write(store: Path, path: str, content: bytes) -> None:
    session = Session(store)
    session.kernel.write_file(path, content)
    session.stop()


def copy(source: Path, target: Path) -> Path:
    """As any tool makes it, of a store with something in run/."""
    with closing(socket.socket(socket.AF_UNIX)) as unix:
        (source / "run").mkdir(exist_ok=True)
        unix.bind(str(source / "run/control"))
    os.mkfifo(source / "run/fifo")
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("control", "fifo"))
    os.mkfifo(target / "run/control")
    for name in ("control", "fifo"):
        (source / "run" / name).unlink()
    return target


def contents(store: Path) -> dict[bytes, bytes | None]:
    session = Session(store)
    found = {path: entry.content for path, entry in session.kernel.tree().items()}
    session.stop()
    return {path: content for path, content in found.items() if content is not None}


def image(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Names with their modes, times and contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        regular = path.is_file() and not path.is_symlink()
        found[str(path)] = status.st_mode, status.st_mtime_ns, path.read_bytes() if regular else None
    return found


def assert_clean(store: Path, *kinds: str) -> None:
    report = check(str(store), deep=True)
    assert {problem.kind for problem in report.problems} <= {"stray-blob", "stray-staged", *kinds}
    assert report.clean or kinds


@pytest.fixture
def held(source: Path, scratch: Path) -> Path:
    """A copy that was made under a hold, while the store changed: the database is torn."""
    perform(str(source), CreateSnapshot(HELD, "", None))
    write(source, "later", b"later" * 100)
    target = copy(source, scratch / "copy")
    for path in target.glob("blobs/*/*"):
        if path.read_bytes() == b"later" * 100:
            path.unlink()
    with (target / "casfs.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"torn" * 2048)
    perform(str(source), DropSnapshot(HELD))
    return target


def test_what_was_held_is_as_it_was_then(held: Path) -> None:
    opened = open_copied(str(held))
    assert (opened.taken.snapshot, opened.aside, opened.done) == (HELD, ASIDE, True)
    assert contents(held) == CONTENTS
    assert_clean(held)
    assert (held / ASIDE).read_bytes()[4096:4100] == b"torn"
    assert stat_mode(held / "casfs.db") == 0o600
    assert not (held / "run/control").exists()


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_dry_run_changes_nothing(held: Path) -> None:
    before = image(held)
    opened = open_copied(str(held), dry_run=True)
    assert (opened.taken.snapshot, opened.done) == (HELD, False)
    assert image(held) == before


def test_it_may_be_done_again(held: Path) -> None:
    open_copied(str(held))
    write(held, "more", b"more")
    assert open_copied(str(held)).aside == f"{ASIDE}.2"
    assert contents(held) == CONTENTS


@pytest.mark.parametrize("at", range(1, 12))
def test_cut_off_in_between_it_is_done_again(held: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    steps = 0

    def step(name: str):  # type: ignore[no-untyped-def]
        real = getattr(StoreDirectory, name)

        def cut(*args: object) -> object:
            nonlocal steps
            steps += 1
            if steps == at:
                raise KeyboardInterrupt
            return real(*args)

        return cut

    for name in ("rename", "sync", "create", "unlink"):
        monkeypatch.setattr(StoreDirectory, name, step(name))
    try:
        open_copied(str(held))
    except KeyboardInterrupt:
        monkeypatch.undo()
        open_copied(str(held))
    monkeypatch.undo()
    assert contents(held) == CONTENTS
    assert_clean(held)
    assert any(path.read_bytes()[4096:4100] == b"torn" for path in held.glob(f"{ASIDE}*"))


def test_a_copy_of_one_moment_is_what_a_power_cut_leaves(source: Path, scratch: Path) -> None:
    session = Session(source)
    session.kernel.write_file("synced", b"synced", sync=True)
    session.kernel.write_file("not synced", b"x" * 1000)
    target = copy(source, scratch / "copy")
    session.stop()
    opened = open_copied(str(target))
    assert (opened.taken.snapshot, opened.taken.is_whole, opened.aside) == (None, True, "")
    found = contents(target)
    assert found.items() >= {**CONTENTS, b"synced": b"synced"}.items()
    assert_clean(target)


def test_what_is_missing_is_named(source: Path, scratch: Path) -> None:
    target = copy(source, scratch / "copy")
    for path in target.glob("blobs/*/*"):
        if len(path.read_bytes()) == 300_000:
            path.unlink()
        elif path.read_bytes() == b"four":
            path.chmod(0o600)
            path.write_bytes(b"fou")
    before = image(target)
    with pytest.raises(CasfsError, match=r"lacks 2 contents, of /.* and 2 more"):
        open_copied(str(target))
    assert image(target) == before
    opened = open_copied(str(target), force=True)
    assert sorted(opened.taken.paths) == [b"/a/one", b"/b/four", b"/b/three"]
    assert_clean(target, "missing-blob", "blob-size", "blob-mode", "healed-damage")


def test_more_is_counted_than_named(source: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casfs.maintenance.open_copy.LISTED", 1)
    target = copy(source, scratch / "copy")
    shutil.rmtree(target / "blobs")
    taken = open_copied(str(target), dry_run=True, force=True).taken
    assert (taken.missing, taken.paths_total, len(taken.paths)) == (3, 4, 1)


def test_between_a_snapshot_and_a_newer_database_somebody_has_to_choose(source: Path, scratch: Path) -> None:
    perform(str(source), CreateSnapshot("daily", "", None))
    write(source, "later", b"later")
    target = copy(source, scratch / "copy")
    with pytest.raises(CasfsError, match=r"--live if .* else --snapshot daily"):
        open_copied(str(target))
    assert open_copied(str(target), dry_run=True).taken.snapshot == "daily"
    live = copy(source, scratch / "live")
    open_copied(str(live), live=True)
    assert contents(live) == {**CONTENTS, b"later": b"later"}
    open_copied(str(target), snapshot="daily")
    assert contents(target) == CONTENTS
    for store in (live, target):
        assert_clean(store)


def test_snapshots_newer_than_the_live_database_of_a_copy_showed_other_contents(
    source: Path, scratch: Path
) -> None:
    target = copy(source, scratch / "copy")  # the database first ...
    write(source, "later", b"later" * 100)
    perform(str(source), CreateSnapshot("daily", "", None))
    for name in ("blobs", "snapshots"):  # ... and the rest when there is more
        shutil.copytree(source / name, target / name, dirs_exist_ok=True, copy_function=_unless_there)
    open_copied(str(target), live=True)
    write(target, "other", b"other" * 100)
    session = Session(target)
    assert session.kernel.read_file(".casfs/snapshots/daily/later") == b"later" * 100
    session.kernel.unlink("other")
    session.stop()
    assert_clean(target)


def _unless_there(source: str, target: str) -> None:
    if not os.path.exists(target):
        shutil.copy2(source, target)


def test_the_newest_snapshot_is_taken_that_is_whole(source: Path, scratch: Path) -> None:
    perform(str(source), CreateSnapshot("first", "", None))
    write(source, "later", b"later" * 100)
    perform(str(source), CreateSnapshot("second", "", None))
    target = copy(source, scratch / "copy")
    for path in target.glob("blobs/*/*"):
        if path.read_bytes() == b"later" * 100:
            path.unlink()
    opened = open_copied(str(target))
    assert opened.taken.snapshot == "first"
    assert [(each.snapshot, each.missing) for each in opened.candidates] == [
        ("second", 1),
        ("first", 0),
        (None, 1),
    ]
    with pytest.raises(CasfsError, match="there is no snapshot third"):
        open_copied(str(target), snapshot="third")


def test_blobs_of_other_snapshots_are_told_from_new_ones(source: Path, scratch: Path) -> None:
    """The store gives numbers of blobs again that a newer snapshot has."""
    perform(str(source), CreateSnapshot("old", "", None))
    write(source, "later", b"later" * 100)
    perform(str(source), CreateSnapshot("new", "", None))
    target = copy(source, scratch / "copy")
    open_copied(str(target), snapshot="old")
    with closing(StoreDirectory(str(target))) as directory:
        manifests = {each.name: each.here for each in SnapshotFolder(directory).all()}
    assert manifests == {"old": True, "new": False}
    write(target, "another", b"another" * 100)
    with closing(sqlite3.connect(target / "casfs.db")) as database:
        rows = database.execute("SELECT refs FROM blob WHERE size = 500").fetchall()
    assert rows == [(0,)]
    assert_clean(target)


# What is no copy


def test_the_store_itself_is_left_alone(source: Path) -> None:
    session = Session(source)
    with pytest.raises(StoreLocked, match="in use"):
        open_copied(str(source))
    session.stop()


def test_a_copy_without_its_configuration_is_told_of(held: Path) -> None:
    (held / "casfs.toml").unlink()
    with pytest.raises(FormatError, match=r"has no casfs\.toml; copy that of the store"):
        open_copied(str(held))
    (held / "casfs.toml").write_text("format = [")
    with pytest.raises(FormatError, match="damaged"):
        open_copied(str(held))


def test_what_is_no_copy_is_refused(scratch: Path) -> None:
    with pytest.raises(StoreNotFound, match="does not exist"):
        open_copied(str(scratch / "absent"))
    with pytest.raises(StoreNotFound, match="is not a casfs store"):
        open_copied(str(scratch))


@pytest.mark.parametrize("what", ["link", "foreign", "garbage", "empty", "fifo", "absent", "folder"])
@pytest.mark.parametrize("place", ["casfs.db", f"snapshots/{HELD}/casfs.db"])
def test_a_hostile_database_is_refused(held: Path, scratch: Path, what: str, place: str) -> None:
    """Of the one it says so; a snapshot that is whole is taken all the same."""
    path = held / place
    precious = scratch / "precious"
    precious.write_bytes(b"precious")
    path.unlink()
    if what == "link":
        path.symlink_to(precious)
    elif what == "foreign":
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE a (b)")
    elif what in ("garbage", "empty"):
        path.write_bytes(b"" if what == "empty" else b"SQLite format 3\0" + b"\xff" * 8192)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    if place == "casfs.db":
        opened = open_copied(str(held))
        assert opened.taken.snapshot == HELD
        assert opened.candidates[-1].why
        assert contents(held) == CONTENTS
    else:
        with pytest.raises(CasfsError) as raised:
            open_copied(str(held), force=True)
        assert "\n" not in str(raised.value)
    assert precious.read_bytes() == b"precious"


def test_links_in_the_place_of_folders_are_not_followed(held: Path, scratch: Path) -> None:
    (scratch / "elsewhere").mkdir()
    (scratch / "elsewhere/lock").write_text("precious")
    shutil.rmtree(held / "run")
    (held / "run").symlink_to(scratch / "elsewhere")
    with pytest.raises(FormatError, match="run is no directory"):
        open_copied(str(held))
    (held / "run").unlink()
    shutil.rmtree(held / "staging")
    (held / "staging").symlink_to(scratch / "elsewhere")
    open_copied(str(held))
    assert contents(held) == CONTENTS
    assert (scratch / "elsewhere/lock").read_text() == "precious"


def test_a_name_that_leads_elsewhere_is_none_of_a_snapshot(held: Path) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        open_copied(str(held), snapshot="../..")
    manifest = held / f"snapshots/{HELD}/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": "../.."}))
    with pytest.raises(CasfsError):
        open_copied(str(held))
