"""Backups: what they have, what is refused, what becomes of those that are cut off."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import CasfsError, StoreExists, StoreLocked, StoreNotFound, UsageError
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.backup import copying, send, source
from casfs.maintenance.collect import gc
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import create_store, read_config
from tests.maintenance.backup.backups import (
    ACCESS,
    add_files,
    assert_sound,
    assert_unharmed,
    back_up,
    backups_of,
    made,
    restored,
    stop_after,
    unfinished,
)
from tests.maintenance.cut_off import CutOff, cut_at
from tests.maintenance.stores import ONE, TWO, Damaged


@pytest.fixture
def destination(store: Damaged) -> Path:
    return store.path.parent / "destination"


def collect(path: object) -> gc.Outcome:
    """With nothing spared."""
    with gc.opened(str(path)) as opened:
        return gc.execute(opened, gc.plan(opened, grace_ns=0, full=True))


def test_a_backup_is_a_store_with_all_that_it_refers_to(store: Damaged, destination: Path) -> None:
    result = back_up(store, destination, job="nightly", reason="why", expires_ns=1 << 60)
    manifest = made(result)
    assert manifest.new_blobs == 2
    assert manifest.new_bytes == len(ONE) + len(TWO)
    assert result.counts is not None
    assert result.counts.files == 4
    assert not result.lost
    assert manifest.name.startswith("nightly-")
    assert not manifest.here
    assert (manifest.job, manifest.reason, manifest.expires_ns) == ("nightly", "why", 1 << 60)
    assert (manifest.uuid,) == store.sql("SELECT value FROM meta WHERE key = 'uuid'")[0]
    assert backups_of(destination) == [manifest]
    assert read_config(str(destination)).fan_out == 1
    assert backups_of(store) == []
    assert unfinished(store) == []
    assert collect(destination).blobs == 0
    assert_sound(store, destination)


def test_the_next_one_brings_what_is_new(store: Damaged, destination: Path) -> None:
    back_up(store, destination)
    add_files(store, {b"new": b"new" * 100, b"same": ONE, b"none": b""})
    manifest = made(back_up(store, destination))
    assert (manifest.new_blobs, manifest.new_bytes) == (1, 300)
    assert len(backups_of(destination)) == 2
    assert_sound(destination)


def test_what_was_removed_goes_with_the_last_backup_of_it(store: Damaged, destination: Path) -> None:
    first = made(back_up(store, destination))
    store.sql("DELETE FROM inode WHERE ino = ?", store.ino("/a/deep/two"))
    ACCESS.drop_snapshot(str(destination), first.name)
    assert collect(destination).blobs == 2


def test_two_stores_share_what_both_have(store: Damaged, destination: Path, tmp_path: Path) -> None:
    create_store(str(tmp_path / "other"))
    add_files(tmp_path / "other", {b"one": ONE, b"own": b"own"})
    back_up(store, destination)
    assert made(back_up(tmp_path / "other", destination)).new_blobs == 1
    assert len({manifest.uuid for manifest in backups_of(destination)}) == 2
    assert_sound(destination)


@pytest.mark.parametrize("sources", [1, 2])
def test_two_at_once(store: Damaged, destination: Path, tmp_path: Path, sources: int) -> None:
    stores: list[object] = [store, store]
    if sources == 2:
        create_store(str(tmp_path / "other"))
        stores[1] = tmp_path / "other"
    for each in set(stores):
        add_files(each, {b"f%d" % number: b"%d" % number * 500 for number in range(100)})
    failures: list[BaseException] = []

    def run(each: object) -> None:
        try:
            back_up(each, destination)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(backups_of(destination)) == 2
    assert unfinished(destination) == []
    collect(destination)
    assert_sound(destination, *stores)
    for number, manifest in enumerate(backups_of(destination)):
        restored(destination, tmp_path / f"restored{number}", manifest.name)
        assert_sound(tmp_path / f"restored{number}")


def test_a_content_that_was_published_meanwhile_is_not_taken_for_ours(
    store: Damaged, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount of the destination may have begun to write the same content in its place, and have died."""
    create_store(str(destination), fan_out=1)
    real, done = send.Sender._insert, []

    def insert(self: send.Sender, copied: list[send.Copied]) -> list[send.Content]:
        if not done:
            done.append(True)
            path = Path(self._target.filestore.blobs.path(copied[0].content.digest))
            path.unlink()
            path.write_bytes(b"torn")
        return real(self, copied)

    monkeypatch.setattr(send.Sender, "_insert", insert)
    assert made(back_up(store, destination)).new_blobs == 2
    assert_sound(destination)


# What is refused


def test_places_that_cannot_be_one(store: Damaged, destination: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one in the other"):
        back_up(store, store)
    with pytest.raises(UsageError, match="one in the other"):
        back_up(store, store.path / "below")
    with pytest.raises(UsageError, match="one in the other"):
        back_up(store, store.path.parent)
    (tmp_path / "link").symlink_to(store.path)
    with pytest.raises(UsageError, match="one in the other"):
        back_up(store, tmp_path / "link" / "below")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StoreExists, match="not empty"):
        back_up(store, tmp_path / "full")
    (tmp_path / "file").touch()
    with pytest.raises((StoreExists, OSError)):
        back_up(store, tmp_path / "file")
    with pytest.raises(StoreNotFound):
        back_up(tmp_path / "nothing", destination)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "link"]
    assert backups_of(store) == []


def test_a_disk_that_is_not_mounted_is_not_taken_for_a_new_one(store: Damaged, destination: Path) -> None:
    with pytest.raises(StoreNotFound, match="one has to be there"):
        back_up(store, destination, existing=True)
    back_up(store, destination)
    destination.rename(destination.with_name("elsewhere"))
    destination.mkdir()
    with pytest.raises(StoreNotFound, match="is its disk mounted"):
        back_up(store, destination)
    assert os.listdir(destination) == []
    back_up(store, destination, new=True)
    assert len(backups_of(destination)) == 1


def test_a_destination_without_room(
    store: Damaged, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_store(str(destination), fan_out=1)
    from casfs.filestore.filestore import Space
    from casfs.space import Left

    room = 100 * 4096 + 256
    monkeypatch.setattr(Space, "left", lambda self: Left(room, 100))
    add_files(store, {b"more": b"x" * 97 * 4096})
    assert made(back_up(store, destination)).new_blobs == 3
    add_files(store, {b"too many": b"y" * (100 * 4096 + 1)})
    lacking = f"{room + 4096} bytes are needed, 4096 of them are lacking"
    with pytest.raises(CasfsError, match=lacking):
        back_up(store, destination)
    assert unfinished(destination) == []
    assert len(backups_of(destination)) == 1


# Damage at the source


def test_what_cannot_be_read_is_told_and_the_rest_is_backed_up(store: Damaged, destination: Path) -> None:
    store.overwrite(store.blob(TWO), TWO[:-1] + b"!")
    result = back_up(store, destination)
    (lost,) = result.lost
    assert lost.size == len(TWO)
    assert sorted(lost.paths) == [b"/a/deep/two", b"/b/two again"]
    assert made(result).lacking == (lost.digest.hex(),)
    assert made(result).new_blobs == 1
    store.add_blob_file(TWO)
    assert made(back_up(store, destination)).lacking == ()
    assert_sound(destination)


def test_what_is_missing_is_told(store: Damaged, destination: Path) -> None:
    store.blob(ONE).unlink()
    (lost,) = back_up(store, destination).lost
    assert sorted(lost.paths) == [b"/a/one", b"/b/link"]


def test_what_the_destination_has_heals_the_source(store: Damaged, destination: Path) -> None:
    back_up(store, destination)
    store.overwrite(store.blob(TWO), b"x" * len(TWO))
    from tests.maintenance.scrub.test_scrub import run as scrub

    scrub(store)
    assert not store.blob(TWO).exists()
    result = back_up(store, destination)
    assert result.healed == 1
    assert not result.lost
    assert store.blob(TWO).read_bytes() == TWO
    assert_sound(store, destination)


def test_a_file_that_is_there_without_a_row_heals_the_source(store: Damaged, destination: Path) -> None:
    """What a killed backup has published, or the destination of another store has."""
    back_up(store, destination)
    name = store.blob(TWO).name
    kept = destination / "blobs" / name[0] / name
    digest = bytes.fromhex(name)
    Damaged(destination).sql("DELETE FROM blob WHERE blake3 = ?", digest)
    store.overwrite(store.blob(TWO), b"x" * len(TWO))
    assert kept.exists()
    result = back_up(store, destination)
    assert result.healed == 1
    assert made(result).lacking == ()
    assert_sound(store, destination)


def test_damage_at_the_destination_is_mended_by_the_next(store: Damaged, destination: Path) -> None:
    from tests.maintenance.scrub.test_scrub import run as scrub

    back_up(store, destination)
    copy = Damaged(destination)
    copy.overwrite(copy.blob(ONE), b"y" * len(ONE))
    scrub(copy)
    assert made(back_up(store, destination)).new_blobs == 1
    assert copy.sql("SELECT count(*) FROM damage") == [(0,)]
    assert_sound(destination)


# Cut off


def test_a_stop_keeps_what_was_copied(
    store: Damaged, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_files(store, {b"f%d" % number: b"%d" % number * 500 for number in range(40)})
    monkeypatch.setattr(send, "BATCH_FILES", 4)
    result = back_up(store, destination, stop=stop_after(40))
    assert result.manifest is None
    assert 0 < result.copied_blobs < 42
    assert backups_of(destination) == []
    assert len(unfinished(destination)) == 1
    assert backups_of(store) == []
    assert collect(destination).blobs == 0
    manifest = made(back_up(store, destination))
    assert manifest.new_blobs == 42 - result.copied_blobs
    assert unfinished(destination) == []
    assert_sound(store, destination)


def test_cut_off_at_each_step_the_next_goes_on(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power, or SIGKILL: neither store is harmed, and the next backup is whole."""
    last, completed = 0, False
    monkeypatch.setattr(source, "_drop", lambda *_: None)  # who is killed drops nothing
    while not completed:
        destination = store.path.parent / f"destination{last}"
        with monkeypatch.context() as patch:
            cut_at(patch, last)
            try:
                back_up(store, destination, new=True)
                completed = True
            except CutOff:
                pass
        monkeypatch.setattr("casfs.maintenance.backup.destination.MAKING_SECONDS", 0)
        assert_unharmed(store)
        if (destination / "casfs.toml").exists():
            assert_unharmed(destination)
        made(back_up(store, destination, new=True))
        collect(destination)
        assert_sound(store, destination)
        assert len(backups_of(destination)) == (2 if completed else 1) or last
        last += 1
    assert last > 50
    monkeypatch.undo()
    back_up(store, destination)
    assert backups_of(store) == []


# The shape of it


def test_a_rate_is_kept(store: Damaged, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_files(store, {b"large": os.urandom(300_000)})
    waited: list[float] = []
    from casfs.maintenance.backup import pace

    monkeypatch.setattr(pace.threading.Event, "wait", lambda self, seconds=None: waited.append(seconds or 0))
    result = back_up(store, destination, rate=100_000)
    assert not result.lost
    assert sum(waited) > 2


def test_holes_stay_holes(store: Damaged, destination: Path) -> None:
    add_files(store, {b"sparse": b"x" + bytes(8 << 20)})
    back_up(store, destination)
    assert_sound(destination)
    sizes = [path.stat() for path in (destination / "blobs").rglob("*") if path.is_file()]
    (large,) = [status for status in sizes if status.st_size > 8 << 20]
    assert large.st_blocks * 512 <= 2 << 20


def test_the_snapshot_of_a_backup_that_takes_long_expired_under_it(store: Damaged) -> None:
    with source.source_of(str(store), ACCESS, "a test") as used:
        with pytest.raises(StoreLocked, match="in use"):
            ACCESS.drop_snapshot(str(store), used.manifest.name)
        assert used.is_held()
        with closing(StoreDirectory(str(store))) as directory:
            assert SnapshotFolder(directory).names() == [used.manifest.name]
    with closing(StoreDirectory(str(store))) as directory:
        assert not SnapshotFolder(directory).names()


@pytest.mark.parametrize("published", [False, True], ids=["by nobody", "by another one"])
def test_who_could_not_write_a_content_removed_the_file_that_another_one_had_published_meanwhile(
    store: Damaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    destination = tmp_path / "destination"
    create_store(str(destination))
    write, other = copying._write, tmp_path / "other"

    def fail(fd: int, data: memoryview, offset: int) -> None:
        if len(data) == len(ONE):
            if published:
                monkeypatch.setattr(copying, "_write", write)
                create_store(str(other))
                add_files(other, {b"file": ONE})
                back_up(other, destination)
            raise OSError(28, "no room")
        write(fd, data, offset)

    monkeypatch.setattr(copying, "_write", fail)
    with pytest.raises(OSError, match="no room"):
        back_up(store, destination)
    monkeypatch.undo()
    file = destination / "blobs" / (digest := blake3(ONE).hexdigest())[:2] / digest
    assert file.exists() == published
    back_up(store, destination)
    assert_sound(destination)
