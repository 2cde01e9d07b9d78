"""Rows of extended attributes."""

from __future__ import annotations

import errno

import pytest

from casfs import properties
from casfs.namespace.connection import DatabaseError
from casfs.namespace.namespace import Namespace

QA = properties.attribute_of("qa")


def table(namespace: Namespace) -> list[tuple[int, str, str]]:
    rows = namespace.query("SELECT ino, key, value FROM property ORDER BY ino, key, value").fetchall()
    return [(ino, key, value) for ino, key, value in rows]


def test_set_replace_and_remove(writing: Namespace) -> None:
    writing.xattrs.set(5, b"user.\xff", b"")
    writing.xattrs.set(5, b"user.x", b"one")
    writing.xattrs.set(5, b"user.x", bytes(65536))
    writing.xattrs.set(6, b"user.x", b"other")
    assert writing.xattrs.of(5) == {b"user.\xff": b"", b"user.x": bytes(65536)}
    writing.xattrs.remove(5, b"user.x")
    writing.xattrs.remove(5, b"user.absent")
    assert writing.xattrs.of(5) == {b"user.\xff": b""}
    assert writing.xattrs.of(6) == {b"user.x": b"other"}


def test_copy_and_remove_all(writing: Namespace) -> None:
    writing.xattrs.set(5, b"user.x", b"one")
    writing.xattrs.set(5, b"user.y", b"two")
    writing.xattrs.copy(5, 6)
    writing.xattrs.remove_all(5)
    assert writing.xattrs.of(5) == {}
    assert writing.xattrs.of(6) == {b"user.x": b"one", b"user.y": b"two"}


def test_a_property_has_a_row_for_each_value(writing: Namespace) -> None:
    writing.xattrs.set(5, QA, "ä\nb\nä".encode())
    writing.xattrs.set(5, b"user.x", b"no property")
    assert table(writing) == [(5, "qa", "b"), (5, "qa", "ä")]
    writing.xattrs.set(5, QA, b"c")
    writing.xattrs.set(5, properties.attribute_of("qb"), b"")
    writing.xattrs.copy(5, 6)
    assert table(writing) == [(ino, *row) for ino in (5, 6) for row in (("qa", "c"), ("qb", ""))]
    writing.xattrs.remove(5, QA)
    assert table(writing) == [(5, "qb", ""), (6, "qa", "c"), (6, "qb", "")]
    writing.xattrs.remove_all(6)
    assert table(writing) == [(5, "qb", "")]
    assert writing.xattrs.of(6) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [(QA, b"\xff"), (QA + b"\xff", b"x"), (properties.PREFIX, b"x"), (b"user.casfs.", b"x")],
)
def test_what_is_no_property_has_no_row(writing: Namespace, name: bytes, value: bytes) -> None:
    """Which only a hand in the database writes: it is kept, copied and removed as any attribute."""
    writing.xattrs.set(5, name, value)
    writing.xattrs.copy(5, 6)
    assert writing.xattrs.of(6) == {name: value}
    assert table(writing) == []
    writing.xattrs.remove(5, name)
    writing.xattrs.remove_all(6)
    assert writing.xattrs.of(5) == writing.xattrs.of(6) == {}


@pytest.mark.parametrize("table_name", ["xattr", "property"])
def test_an_attribute_and_its_rows_change_together_or_not_at_all(writing: Namespace, table_name: str) -> None:
    writing.xattrs.set(5, QA, b"old")
    for event in ("INSERT", "DELETE"):
        writing.query(
            f"CREATE TEMP TRIGGER refuse_{event} BEFORE {event} ON {table_name} "
            "BEGIN SELECT raise(FAIL, 'no'); END"
        )
    writing._connection.config(1003, 1)  # SQLITE_DBCONFIG_ENABLE_TRIGGER
    for change in (
        lambda: writing.xattrs.set(5, QA, b"new"),
        lambda: writing.xattrs.remove(5, QA),
        lambda: writing.xattrs.remove_all(5),
        lambda: writing.xattrs.copy(5, 6),
    ):
        with pytest.raises(DatabaseError) as raised:
            change()
        assert raised.value.errno == errno.EIO
        assert table(writing) == [(5, "qa", "old")]
        assert writing.xattrs.of(5) == {QA: b"old"}
        assert writing.xattrs.of(6) == {}


def test_the_rows_of_an_inode_can_be_written_anew(writing: Namespace) -> None:
    writing.xattrs.set(5, QA, b"a\nb")
    writing.xattrs.set(6, QA, b"c")
    writing.query("UPDATE property SET value = 'wrong' WHERE value = 'a'")
    writing.query("INSERT INTO property VALUES (7, 'qa', 'stray')")
    for ino in (5, 6, 7):
        writing.xattrs.write_properties(ino)
    assert table(writing) == [(5, "qa", "a"), (5, "qa", "b"), (6, "qa", "c")]
