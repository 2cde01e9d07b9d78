"""Orphans, pins and the record of runs, as rows."""

from __future__ import annotations

import stat

import pytest

from casfs.namespace import collecting
from casfs.namespace.collecting import Collecting, Record
from casfs.namespace.namespace import Namespace

NOW = 1_000
START = (-1, 0)


@pytest.fixture
def rows(writing: Namespace) -> Collecting:
    """In a transaction."""
    return Collecting(writing)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def add_blob(namespace: Namespace, number: int, orphaned_ns: int | None) -> int:
    """A blob of `number` bytes; an orphan since `orphaned_ns`, or one with a count of 1."""
    blob = namespace.blobs.insert(digest(number), number, 1)
    if orphaned_ns is not None:
        namespace.blobs.add_refs({blob: -1}, orphaned_ns)
    return blob


def add_inode(namespace: Namespace, ino: int, blob: int | None, kind: int = stat.S_IFREG) -> None:
    row = (ino, kind | 0o644, 1, 0, 0, 0, 0, 0, blob, None, None, 1, 1, 1, 1)
    namespace.inodes.write([row])


def add_name(namespace: Namespace, parent: int, name: bytes, ino: int, kind: int = stat.S_IFREG) -> None:
    namespace.dentries.insert(parent, 100 + ino, name, ino, kind >> 12)


def drop_expired_pins(rows: Collecting, now_ns: int) -> None:
    while rows.drop_expired_pin(now_ns):
        pass


def due(rows: Collecting, cutoff_ns: int = NOW, now_ns: int = NOW) -> list[int]:
    return [orphan.id for orphan in rows.due(cutoff_ns, now_ns, START, 100)]


# Due


def test_due_are_the_orphans_up_to_the_cutoff_oldest_first(writing: Namespace, rows: Collecting) -> None:
    young, old, older = [add_blob(writing, size, at) for size, at in ((1, 31), (2, 30), (4, 10))]
    add_blob(writing, 8, None)
    assert due(rows, 30) == [older, old]
    assert rows.amount_due(30, NOW) == (2, 6)
    assert rows.amount_orphaned() == (3, 7)
    assert due(rows, 31) == [older, old, young]
    (first,) = rows.due(30, NOW, START, 1)
    assert first == (older, digest(4), 4, 10)


def test_due_goes_on_behind_the_last_one(writing: Namespace, rows: Collecting) -> None:
    blobs = [add_blob(writing, size, 10) for size in range(1, 6)]
    found, after = [], START
    while batch := rows.due(NOW, NOW, after, 2):
        assert len(batch) <= 2
        found += [orphan.id for orphan in batch]
        after = (batch[-1].orphaned_ns, batch[-1].id)
    assert found == blobs


def test_one_that_an_inode_has_is_not_due_whatever_its_count_says(
    writing: Namespace, rows: Collecting
) -> None:
    blob = add_blob(writing, 1, 10)
    add_inode(writing, 7, blob)
    assert due(rows) == []
    assert rows.amount_due(NOW, NOW) == (0, 0)
    assert rows.still_due([blob], NOW, NOW) == []
    assert rows.miscounted([blob]) == 1


def test_one_without_a_time_is_not_due(writing: Namespace, rows: Collecting) -> None:
    """It is fsck's."""
    add_blob(writing, 1, 10)
    writing.query("UPDATE blob SET orphaned_ns = NULL")
    assert due(rows) == []


def test_still_due_looks_again_at_everything(writing: Namespace, rows: Collecting) -> None:
    stays, again, pinned, younger = [add_blob(writing, size, 10) for size in (1, 2, 3, 4)]
    ids = due(rows)
    assert ids == [stays, again, pinned, younger]
    writing.blobs.add_refs({again: 1}, 20)
    rows.pin_blobs(rows.add_pin("", everything=False, now_ns=20, expires_ns=None), [pinned])
    writing.blobs.add_refs({younger: 1}, 20)
    writing.blobs.add_refs({younger: -1}, 50)
    assert [orphan.id for orphan in rows.still_due([*ids, 99], 40, NOW)] == [stays]


def test_what_is_said_of_a_blob_goes_with_it(writing: Namespace, rows: Collecting) -> None:
    gone, kept = add_blob(writing, 1, 10), add_blob(writing, 2, 10)
    pin = rows.add_pin("", everything=False, now_ns=1, expires_ns=2)
    for blob in (gone, kept):
        rows.pin_blobs(pin, [blob])
        writing.query("INSERT INTO damage VALUES (?, 1, 'why')", (blob,))
    rows.delete([gone])
    for table, column in (("blob", "id"), ("pinned", "blob_id"), ("damage", "blob_id")):
        assert writing.query(f"SELECT {column} FROM {table}").fetchall() == [(kept,)]
    assert rows.known([digest(1), digest(2)]) == {digest(2)}


def test_an_id_is_not_given_again(writing: Namespace, rows: Collecting) -> None:
    """Who has the id of a collected blob in memory must not find another content behind it."""
    gone = add_blob(writing, 1, 10)
    rows.delete([gone])
    assert add_blob(writing, 1, None) > gone


def test_orphans_from_the_future_are_found_and_dated(writing: Namespace, rows: Collecting) -> None:
    now, future = add_blob(writing, 1, NOW), add_blob(writing, 2, NOW + 1)
    in_use = add_blob(writing, 3, None)
    assert rows.orphaned_after(NOW, 10) == [future]
    assert rows.orphaned_after(0, 1) == [now]
    rows.set_orphaned([future, in_use], 5)
    assert due(rows, 5) == [future]
    assert writing.query("SELECT orphaned_ns FROM blob WHERE id = ?", (in_use,)).get is None


def test_a_wrong_count_is_counted_once(writing: Namespace, rows: Collecting) -> None:
    """However many of the sample's numbers, whose blobs are gone, lead to it."""
    wrong = add_blob(writing, 1, None)
    right = add_blob(writing, 2, 10)
    assert rows.miscounted(range(wrong + 1)) == 1
    assert rows.miscounted([right, right + 1]) == 0
    assert rows.highest_id() == right


def test_there_may_be_no_blob_at_all(rows: Collecting) -> None:
    assert rows.highest_id() == 0
    assert rows.miscounted([1]) == 0
    assert rows.amount_due(NOW, NOW) == rows.amount_orphaned() == (0, 0)


# Pins


def test_a_pin_without_an_end_holds_for_ever(writing: Namespace, rows: Collecting) -> None:
    held, other = add_blob(writing, 1, 10), add_blob(writing, 2, 10)
    pin = rows.add_pin("why", everything=False, now_ns=5, expires_ns=None)
    rows.pin_blobs(pin, [held])
    rows.pin_blobs(pin, [held])
    assert due(rows, NOW, 1 << 62) == [other]
    drop_expired_pins(rows, 1 << 62)
    assert list(rows.pins()) == [(pin, "why", False, 5, None, 1, 1)]


def test_a_pin_with_an_end_holds_until_then(writing: Namespace, rows: Collecting) -> None:
    held = add_blob(writing, 1, 10)
    rows.pin_blobs(rows.add_pin("", everything=False, now_ns=5, expires_ns=500), [held])
    assert due(rows, NOW, 499) == []
    assert due(rows, NOW, 500) == [held]


def test_of_two_pins_the_longer_one_counts(writing: Namespace, rows: Collecting) -> None:
    held = add_blob(writing, 1, 10)
    for expires in (100, 500):
        rows.pin_blobs(rows.add_pin("", everything=False, now_ns=5, expires_ns=expires), [held])
    drop_expired_pins(rows, 200)
    assert [pin.expires_ns for pin in rows.pins()] == [500]
    assert due(rows, NOW, 200) == []
    assert due(rows, NOW, 500) == [held]


def test_a_pin_of_everything_holds_everything(writing: Namespace, rows: Collecting) -> None:
    pin = rows.add_pin("", everything=True, now_ns=5, expires_ns=500)
    blobs = [add_blob(writing, 1, 10), add_blob(writing, 2, 600)]
    assert due(rows, NOW, 499) == []
    assert rows.still_due(blobs, NOW, 499) == []
    assert rows.amount_due(NOW, 499) == (0, 0)
    assert list(rows.pins()) == [(pin, "", True, 5, 500, 0, 0)]
    assert due(rows, NOW, 500) == blobs
    assert rows.expire_pin(pin)
    assert due(rows, NOW, 499) == blobs


def test_a_pin_of_everything_may_hold_only_what_it_names_from_then_on(
    writing: Namespace, rows: Collecting
) -> None:
    named, other = add_blob(writing, 1, 10), add_blob(writing, 2, 10)
    pin = rows.add_pin("", everything=True, now_ns=5, expires_ns=None)
    rows.pin_blobs(pin, [named, named])
    assert due(rows) == []
    rows.only_named(pin)
    assert due(rows) == [other]


def test_expired_pins_go_with_what_they_held(writing: Namespace, rows: Collecting) -> None:
    blob = add_blob(writing, 1, 10)
    for expires in (99, 100, 101, None):
        rows.pin_blobs(rows.add_pin("", everything=False, now_ns=5, expires_ns=expires), [blob])
    drop_expired_pins(rows, 100)
    assert [pin.expires_ns for pin in rows.pins()] == [101, None]
    assert writing.query("SELECT count(*) FROM pinned").get == 2


def test_a_pin_is_removed_once(writing: Namespace, rows: Collecting) -> None:
    pin = rows.add_pin("", everything=False, now_ns=5, expires_ns=None)
    rows.pin_blobs(pin, [add_blob(writing, 1, 10)])
    assert rows.expire_pin(pin)
    assert not rows.remove_pin(pin)
    assert not rows.expire_pin(pin)
    assert writing.query("SELECT count(*) FROM pinned").get == 0
    assert rows.add_pin("", everything=False, now_ns=5, expires_ns=None) > pin


def test_blobs_below_are_those_of_a_file_or_of_a_tree(writing: Namespace, rows: Collecting) -> None:
    top, inside, outside = [add_blob(writing, size, None) for size in (1, 2, 4)]
    for ino, parent, kind, blob in (
        (2, 1, stat.S_IFDIR, None),
        (3, 2, stat.S_IFDIR, None),
        (4, 2, stat.S_IFREG, top),
        (5, 3, stat.S_IFREG, inside),
        (6, 3, stat.S_IFREG, inside),
        (7, 3, stat.S_IFREG, None),
        (8, 1, stat.S_IFREG, outside),
    ):
        add_inode(writing, ino, blob, kind)
        add_name(writing, parent, b"%d" % ino, ino, kind)
    assert set(rows.blobs_below(2)) == {top, inside}
    assert set(rows.blobs_below(5)) == {inside}
    assert set(rows.blobs_below(7)) == set()
    assert set(rows.blobs_below(1)) == {top, inside, outside}


# Runs


def test_a_run_is_written_down_as_it_goes(rows: Collecting) -> None:
    number = rows.start_run("full", 10)
    assert rows.runs(5) == [(number, "full", 10, None, 0, 0, 0, 0, None)]
    assert rows.last_ended() is None
    rows.update_run(Record(number, 1, 2, 3, 4))
    assert rows.runs(5) == [(number, "full", 10, None, 1, 2, 3, 4, None)]
    rows.update_run(Record(number, 5, 6, 7, 8), 20, "why")
    assert rows.last_ended() == (number, "full", 10, 20, 5, 6, 7, 8, "why")


def test_the_newest_thousand_runs_are_kept(rows: Collecting) -> None:
    assert collecting.RUNS_KEPT == 1_000
    numbers = [rows.start_run("regular", at) for at in range(1_003)]
    kept = [run.id for run in rows.runs(2_000)]
    assert kept == numbers[:2:-1]
    assert [run.started_ns for run in rows.runs(2)] == [1_002, 1_001]


def test_runs_since_full(rows: Collecting) -> None:
    """Only a full run that came to its end, and not early, counts as one."""

    def run(kind: str, ended_ns: int | None = 1, error: str | None = None) -> None:
        number = rows.start_run(kind, 1)
        rows.update_run(Record(number, 0, 0, 0, 0), ended_ns, error)

    assert rows.runs_since_full() == 0
    run("regular")
    run("regular", None)
    run("regular")
    assert rows.runs_since_full() == 2
    run("full", None)
    run("full", 1, "stopped")
    assert rows.runs_since_full() == 3
    run("full")
    assert rows.runs_since_full() == 0
    run("regular")
    assert rows.runs_since_full() == 1


def test_what_expired_pins_held_goes_bit_by_bit(writing: Namespace, rows: Collecting) -> None:
    """Others wait meanwhile."""
    lasting = rows.add_pin("", everything=False, now_ns=5, expires_ns=None)
    pin = rows.add_pin("", everything=False, now_ns=5, expires_ns=6)
    for size in range(1, 6):
        for each in (pin, lasting):
            rows.pin_blobs(each, [add_blob(writing, size + 10 * each, 10)])
    assert [rows.drop_expired_pin(6, limit=2) for _ in range(4)] == [True, True, True, False]
    assert [(left.id, left.blobs) for left in rows.pins()] == [(lasting, 5)]
    assert writing.query("SELECT count(*) FROM pinned").get == 5
