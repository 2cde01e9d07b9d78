"""Stores with views and virtual repositories: names there are no names of a file, and no content."""

from __future__ import annotations

from contextlib import closing

import pytest

from casfs.fs.scheduler import run_inline
from casfs.maintenance.check.fsck import check
from casfs.maintenance.collect import gc, pins
from casfs.maintenance.offline import opened
from casfs.maintenance.progress import unwatched
from casfs.maintenance.scrub.heal import heal
from casfs.maintenance.scrub.scrub import scrub
from casfs.maintenance.usage import summarize
from casfs.store import Store
from casfs.trash.undelete import undelete
from tests.invariants import assert_clean
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, add_views


@pytest.fixture
def views(store: Damaged) -> Damaged:
    add_views(store)
    return store


def test_the_summary_counts_the_names_of_programs(views: Damaged) -> None:
    usage = summarize(str(views))
    one, two = len(ONE), len(TWO)
    found = {row.name: (row.files, row.bytes, row.blobs, row.blob_bytes) for row in usage.rows}
    assert found == {
        b"a": (2, one + two, 2, one + two),
        b"all": (0, 0, 0, 0),
        b"b": (3, one + two, 2, one + two),
        b"view": (0, 0, 0, 0),
    }
    assert (usage.total.files, usage.total.blobs, usage.orphans) == (5, 2, 1)


def test_a_full_collection_takes_what_nobody_has(views: Damaged) -> None:
    with gc.opened(str(views)) as used:
        outcome = gc.execute(used, gc.plan(used, grace_ns=0, full=True))
    assert (outcome.blobs, outcome.strays) == (1, 0)
    assert_clean(views.path)


def test_scrub_and_heal_name_the_paths_in_repositories(views: Damaged) -> None:
    views.overwrite(views.blob(TWO), b"!" * len(TWO))
    sound = views.path.parent / "sound"
    told: list[object] = []
    with closing(Store(str(views), shared=True)) as used:
        report = scrub(used, progress=unwatched, damaged=told.extend)
    assert len(told) == 1
    assert report.bytes == len(ONE) + len(TWO) + len(ORPHAN)
    (problem,) = [problem for problem in check(str(views)).problems if problem.kind == "missing-blob"]
    assert set(problem.paths) == {b"/a/deep/two", b"/b/two again"}
    sound.mkdir()
    (sound / "two").write_bytes(TWO)
    with closing(Store(str(views), shared=True)) as used:
        heal(used, str(sound), progress=unwatched, damaged=told.extend)
    assert_clean(views.path)


def test_what_is_removed_through_a_view_comes_back_where_it_was(views: Damaged) -> None:
    views.sql("INSERT INTO meta VALUES ('trash_minimal_age_ns', 0)")
    ((deep,),) = views.sql(
        "SELECT ino FROM derived WHERE parent = ? AND name = CAST('deep' AS BLOB)", views.ino("/all")
    )
    with opened(str(views)) as fs:
        assert fs.tree.lookup(views.ino("/all"), b"deep") is not None
        run_inline(fs.tree.unlink(deep, b"two"))
    assert views.sql("SELECT path FROM trash") == [(b"a/deep/two",)]
    assert b"/a/deep/two" not in views.files()
    assert_clean(views.path)
    with opened(str(views)) as fs:
        run_inline(undelete(fs, b"a/deep/two", 0, 1 << 62))
    assert views.files()[b"/a/deep/two"] == TWO
    assert views.sql("SELECT 1 FROM derived WHERE parent = ? AND name = CAST('two' AS BLOB)", deep)
    assert_clean(views.path)


@pytest.mark.parametrize("path", [b"view", b"view/wo", b"view/wo/deep/t", b"all/deep"])
def test_what_a_view_shows_can_be_pinned(views: Damaged, path: bytes) -> None:
    """It held nothing."""
    pin = pins.add_pin(str(views), [path], reason="kept", seconds=None)
    (two,) = views.sql("SELECT id FROM blob WHERE size = ?", len(TWO))
    assert views.sql("SELECT blob_id FROM pinned WHERE pin_id = ?", pin.id) == [two]
