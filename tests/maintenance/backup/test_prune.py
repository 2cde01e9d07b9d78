"""Pruning: of each source and schedule by itself, and what only those had is collected."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from casfs.errors import CasfsError, StoreNotFound
from casfs.filestore.directory import StoreDirectory
from casfs.maintenance.backup.listing import backups, choose
from casfs.maintenance.backup.prune import prune
from casfs.maintenance.collect import gc
from casfs.maintenance.snapshots.retention import EVERYTHING, Retention
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import create_store
from tests.maintenance.backup.backups import ACCESS, add_files, assert_sound, back_up, backups_of, made
from tests.maintenance.stores import Damaged

DAY = 86_400 * 10**9


@pytest.fixture
def destination(store: Damaged) -> Path:
    """Four backups, a day apart, of which the newest two have one content more."""
    destination = store.path.parent / "destination"
    for number in range(4):
        if number == 2:
            add_files(store, {b"more": b"more"})
        age(destination, made(back_up(store, destination, job="nightly")).name, 10 - number)
    return destination


def age(destination: Path, name: str, days: int, **changes: object) -> None:
    path = destination / "snapshots" / name / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["made_ns"] -= days * DAY
    path.write_text(json.dumps(manifest | changes))


def test_what_is_kept_no_longer_goes(store: Damaged, destination: Path) -> None:
    hand = made(back_up(store, destination))
    names = [manifest.name for manifest in backups_of(destination)]
    plan = prune(str(destination), Retention(keep_last=1), access=ACCESS, dry_run=True)
    assert [manifest.name for manifest, _ in plan.dropped] == names[2::-1]
    assert len(backups_of(destination)) == 5
    pruned = prune(str(destination), Retention(keep_last=1), access=ACCESS)
    assert pruned == plan
    assert {manifest.name for manifest in backups_of(destination)} == {names[3], hand.name}
    with gc.opened(str(destination)) as opened:
        assert gc.execute(opened, gc.plan(opened, grace_ns=0)).blobs == 0
    for manifest in backups_of(destination):
        ACCESS.drop_snapshot(str(destination), manifest.name)
    with gc.opened(str(destination)) as opened:
        assert gc.execute(opened, gc.plan(opened, grace_ns=0)).blobs == 3
    assert_sound(destination)


def test_other_schedules_and_sources_have_their_own(
    store: Damaged, destination: Path, tmp_path: Path
) -> None:
    create_store(str(tmp_path / "other"))
    other = made(back_up(tmp_path / "other", destination, job="nightly"))
    weekly = made(back_up(store, destination, job="weekly"))
    pruned = prune(str(destination), Retention(keep_last=1), access=ACCESS, job="nightly", dry_run=True)
    assert {manifest.job for manifest, _ in (*pruned.kept, *pruned.dropped)} == {"nightly"}
    prune(str(destination), Retention(keep_last=1), access=ACCESS, source_uuid=weekly.uuid)
    left = backups_of(destination)
    assert {(each.job, each.uuid) for each in left} == {
        ("nightly", other.uuid),
        ("nightly", weekly.uuid),
        ("weekly", weekly.uuid),
    }


def test_without_rules_only_what_has_expired_goes(store: Damaged, destination: Path) -> None:
    first = backups_of(destination)[0].name
    age(destination, first, 0, expires_ns=1)
    pruned = prune(str(destination), EVERYTHING, access=ACCESS)
    assert [manifest.name for manifest, _ in pruned.dropped] == [first]


def test_what_cannot_be_read_stays(store: Damaged, destination: Path) -> None:
    first = backups_of(destination)[0].name
    (destination / "snapshots" / first / "manifest.json").write_text("{}")
    pruned = prune(str(destination), Retention(keep_last=1), access=ACCESS)
    assert len(pruned.problems) == 1
    assert (destination / "snapshots" / first).exists()
    assert len(backups(str(destination)).problems) == 1
    with pytest.raises(StoreNotFound):
        prune(str(destination.parent), EVERYTHING, access=ACCESS)


def test_the_newest_of_a_time_is_chosen(store: Damaged, destination: Path, tmp_path: Path) -> None:
    directory = StoreDirectory(str(destination))
    manifests = backups_of(destination)
    assert choose(directory, None) == manifests[3]
    assert choose(directory, None, manifests[2].made_ns) == manifests[2]
    assert choose(directory, manifests[1].name) == manifests[1]
    with pytest.raises(CasfsError, match="that is so old"):
        choose(directory, None, manifests[0].made_ns - 1)
    create_store(str(tmp_path / "other"))
    back_up(tmp_path / "other", destination)
    with pytest.raises(CasfsError, match="several stores"):
        choose(directory, None)
    directory.close()
    assert len(backups(str(destination)).snapshots) == 5


def test_snapshots_of_the_destination_itself_are_no_backups(store: Damaged, destination: Path) -> None:
    ACCESS.create_snapshot(str(destination), "own", "", 1 << 60)
    assert len(backups(str(destination)).snapshots) == 4
    assert all(each.name != "own" for each, _ in prune(str(destination), EVERYTHING, access=ACCESS).kept)


def test_one_that_is_being_restored_from_keeps_no_others_from_going(store: Damaged, tmp_path: Path) -> None:
    destination = tmp_path / "destination"
    names = [made(back_up(store, destination)).name for _ in range(3)]
    with closing(StoreDirectory(str(destination))) as directory, SnapshotFolder(directory).using(names[0]):
        pruned = prune(str(destination), Retention(keep_last=1), access=ACCESS)
    assert [manifest.name for manifest, _ in pruned.dropped] == [names[1]]
    assert {manifest.name for manifest in backups_of(destination)} == {names[0], names[2]}
    assert f"backup {names[0]} could not be dropped" in pruned.problems[0]
