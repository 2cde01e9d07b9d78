"""Verifying backups: what is missing or damaged is named, and mended by the next one."""

from __future__ import annotations

import pytest

from casfs.errors import CasfsError, StoreNotFound
from casfs.maintenance.backup.verify import VerifyReport, verify
from tests.maintenance.backup.backups import ACCESS, add_files, assert_sound, back_up, made, stop_after
from tests.maintenance.stores import ONE, TWO, Damaged


@pytest.fixture
def copy(store: Damaged) -> Damaged:
    """A destination with one backup."""
    destination = store.path.parent / "destination"
    back_up(store, destination)
    return Damaged(destination)


def verified(copy: Damaged, *names: str, **options: float) -> VerifyReport:
    return verify(str(copy), names, access=ACCESS, **options)  # type: ignore[arg-type]


def test_what_is_whole(store: Damaged, copy: Damaged) -> None:
    back_up(store, copy)
    report = verified(copy)
    assert (len(report.backups), report.blobs, report.read) == (2, 2, 2)
    assert report.read_bytes == len(ONE) + len(TWO)
    assert report.complete
    assert not (report.bad)
    assert not (report.problems)


@pytest.mark.parametrize("how", ["changed", "short", "missing", "row", "size"])
def test_what_is_not(store: Damaged, copy: Damaged, how: str) -> None:
    path = copy.blob(TWO)
    match how:
        case "changed":
            copy.overwrite(path, TWO[:-1] + b"!")
        case "short":
            copy.overwrite(path, TWO[:-1])
        case "missing":
            path.unlink()
        case "row":
            copy.sql("DELETE FROM blob WHERE blake3 = ?", bytes.fromhex(path.name))
        case _:
            copy.set_blob(TWO, "size", 7)
    report = verified(copy)
    (bad,) = report.bad
    assert bad.digest.hex() == path.name
    assert sorted(bad.paths) == [b"/a/deep/two", b"/b/two again"]
    assert report.bad_contents == 1
    if how != "size":
        assert made(back_up(store, copy)).new_blobs == 1
        assert verified(copy).bad == ()
        assert_sound(copy)


def test_a_sample_looks_at_all_and_reads_some(store: Damaged, copy: Damaged) -> None:
    add_files(store, {b"f%d" % number: b"%d" % number * 50 for number in range(200)})
    back_up(store, copy)
    report = verified(copy, share=0.2)
    assert report.blobs == 202
    assert 0 < report.read < 200
    copy.blob(ONE).unlink()
    assert [bad.digest.hex() for bad in verified(copy, share=1e-9).bad] == [copy.blob(ONE).name]


def test_some_by_their_names(store: Damaged, copy: Damaged) -> None:
    add_files(store, {b"more": b"more"})
    second = made(back_up(store, copy))
    copy.blob(b"more").unlink()
    (first,) = {path.name for path in (copy.path / "snapshots").glob("b*")} - {second.name}
    assert verified(copy, first).bad == ()
    assert [bad.backup for bad in verified(copy, second.name).bad] == [second.name]
    with pytest.raises(CasfsError, match="there is no snapshot"):
        verified(copy, "none")
    with pytest.raises(StoreNotFound):
        verify(str(store.path.parent), access=ACCESS)


def test_what_was_lacking_is_told_again(store: Damaged, copy: Damaged) -> None:
    add_files(store, {b"more": b"more"})
    store.blob(b"more").unlink()
    made(back_up(store, copy))
    assert [bad.paths for bad in verified(copy).bad] == [(b"/more",)]


def test_backups_that_cannot_be_read_are_told(store: Damaged, copy: Damaged) -> None:
    for what, content in (("manifest.json", b"{}"), ("casfs.db", b"nonsense" * 1000)):
        manifest = made(back_up(store, copy))
        (copy.path / "snapshots" / manifest.name / what).write_bytes(content)
    report = verified(copy)
    assert len(report.problems) == 2
    assert report.read == 2


def test_it_can_be_stopped(copy: Damaged) -> None:
    report = verify(str(copy), access=ACCESS, stop=stop_after(1))
    assert not report.complete
