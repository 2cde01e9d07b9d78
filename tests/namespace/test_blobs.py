"""The blob table and its reference counts."""

from __future__ import annotations

import pytest

from casfs.namespace.blobs import BlobRow
from casfs.namespace.connection import DatabaseError
from casfs.namespace.namespace import Namespace

ONE, TWO = b"1" * 32, b"2" * 32


def test_a_new_blob_has_one_reference(writing: Namespace) -> None:
    number = writing.blobs.insert(ONE, 100, 5)
    assert writing.blobs.find(ONE) == number
    assert writing.blobs.digest(number) == ONE
    assert list(writing.blobs.all()) == [BlobRow(number, ONE, 100, 1, 5, None)]
    assert writing.blobs.find(TWO) is None
    assert writing.blobs.digest(number + 1) is None


def test_a_digest_is_there_once(writing: Namespace) -> None:
    writing.blobs.insert(ONE, 100, 5)
    with pytest.raises(DatabaseError, match="UNIQUE"):
        writing.blobs.insert(ONE, 100, 6)


def test_the_last_reference_makes_an_orphan_and_a_new_one_saves_it(writing: Namespace) -> None:
    one, two = writing.blobs.insert(ONE, 100, 5), writing.blobs.insert(TWO, 7, 5)
    writing.blobs.add_refs({one: 2, two: 0}, 10)
    assert [(blob.refs, blob.orphaned_ns) for blob in writing.blobs.all()] == [(3, None), (1, None)]
    writing.blobs.add_refs({one: -3}, 20)
    assert [(blob.refs, blob.orphaned_ns) for blob in writing.blobs.all()] == [(0, 20), (1, None)]
    assert writing.blobs.totals() == (1, 7, 1, 100)
    writing.blobs.add_refs({one: 1, two: -1}, 30)
    assert [(blob.refs, blob.orphaned_ns) for blob in writing.blobs.all()] == [(1, None), (0, 30)]
    assert writing.blobs.totals() == (1, 100, 1, 7)


def test_ids_are_not_used_again(writing: Namespace) -> None:
    one = writing.blobs.insert(ONE, 100, 5)
    writing.query("DELETE FROM blob").fetchall()
    assert writing.blobs.insert(TWO, 100, 5) > one


def test_only_what_nothing_refers_to_is_deleted(writing: Namespace) -> None:
    one, two = writing.blobs.insert(ONE, 100, 5), writing.blobs.insert(TWO, 7, 5)
    writing.blobs.add_refs({one: 1}, 10)
    assert not writing.blobs.delete_unused(one, -1)
    assert writing.blobs.delete_unused(two, -1)
    assert not writing.blobs.delete_unused(two, -1)
    assert [blob.id for blob in writing.blobs.all()] == [one]


def test_totals_of_nothing(writing: Namespace) -> None:
    assert writing.blobs.totals() == (0, 0, 0, 0)
