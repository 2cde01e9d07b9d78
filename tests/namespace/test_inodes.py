"""Rows of the inode table."""

from __future__ import annotations

from casfs.namespace.inodes import InodeRow
from casfs.namespace.namespace import Namespace


def row(ino: int, **values: object) -> InodeRow:
    """A regular file's row with some values."""
    base = dict.fromkeys(InodeRow._fields, 0) | {"mode": 0o100644, "nlink": 1}
    return InodeRow(**base | {"blob_id": None, "staged": None, "target": None, "ino": ino} | values)  # type: ignore[arg-type]


def test_a_row_has_the_columns_of_the_table_in_their_order(namespace: Namespace) -> None:
    assert InodeRow._fields == tuple(name for _, name, *_ in namespace.query("PRAGMA table_info(inode)"))


def test_a_row_comes_back_as_it_was_written(writing: Namespace) -> None:
    values = dict(zip(InodeRow._fields, range(100, 200), strict=False))
    written = InodeRow(**values | {"staged": "name", "target": b"\xff", "mtime_ns": 2**62})  # type: ignore[arg-type]
    writing.inodes.write([written])
    assert writing.inodes.get(100) == written
    assert writing.inodes.get(101) is None


def test_rewriting_keeps_what_never_changes(writing: Namespace) -> None:
    writing.inodes.write([row(5, rdev=7, target=b"t", btime_ns=8)])
    writing.inodes.write([row(5, rdev=1, target=None, btime_ns=1, size=9, nlink=3, mode=0o100600, uid=4)])
    assert writing.inodes.get(5) == row(
        5, rdev=7, target=b"t", btime_ns=8, size=9, nlink=3, mode=0o100600, uid=4
    )


def test_what_recovery_asks_for(writing: Namespace) -> None:
    writing.inodes.write([row(5), row(6, nlink=0), row(7, staged="s", size=3), row(8, nlink=0, staged="u")])
    assert sorted(writing.inodes.unlinked()) == [6, 8]
    assert [found.ino for found in writing.inodes.with_staged()] == [7, 8]
    assert writing.inodes.with_staged()[0] == row(7, staged="s", size=3)


def test_deleting_counting_and_walking(writing: Namespace) -> None:
    writing.inodes.write([row(ino) for ino in (9, 5, 7)])
    assert writing.inodes.count() == 4
    writing.inodes.delete({5, 6})
    assert [found.ino for found in writing.inodes.all()] == [1, 7, 9]
