"""Names in directories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.namespace.dentries import Dentries
from casfs.namespace.namespace import Namespace

FILE, DIRECTORY = 8, 4


@pytest.fixture
def dentries(writing: Namespace) -> Dentries:
    return writing.dentries


def insert_all(dentries: Dentries, rows: list[tuple[int, int, bytes, int, int]]) -> None:
    for row in rows:
        assert dentries.insert(*row)


def test_a_name_is_found_by_its_bytes(dentries: Dentries) -> None:
    names = [b"a", b"A", b"\xff\xfe", "é".encode(), "e\u0301".encode(), b"a\nb", b" ", b"x" * 255]
    for number, name in enumerate(names):
        assert dentries.insert(1, number + 3, name, number + 10, FILE)
    for number, name in enumerate(names):
        assert dentries.find(1, name) == number + 10
    assert dentries.find(2, b"a") is None
    assert dentries.find(1, b"b") is None


def test_a_taken_name_stays_as_it_is(dentries: Dentries) -> None:
    assert dentries.insert(1, 3, b"a", 10, FILE)
    assert not dentries.insert(1, 4, b"a", 11, DIRECTORY)
    assert dentries.children(1, 0, 10) == [(3, b"a", 10, FILE)]


def test_renaming_within_a_directory_keeps_the_cookie(dentries: Dentries) -> None:
    dentries.insert(1, 3, b"a", 10, FILE)
    dentries.rename(1, b"a", 1, 99, b"b")
    assert dentries.children(1, 0, 10) == [(3, b"b", 10, FILE)]
    dentries.rename(1, b"b", 2, 99, b"b")
    assert dentries.children(1, 0, 10) == []
    assert dentries.children(2, 0, 10) == [(99, b"b", 10, FILE)]


def test_a_name_may_point_elsewhere(dentries: Dentries) -> None:
    dentries.insert(1, 3, b"a", 10, FILE)
    dentries.point(1, b"a", 20, DIRECTORY)
    assert dentries.children(1, 0, 10) == [(3, b"a", 20, DIRECTORY)]
    dentries.delete(1, b"a")
    assert dentries.is_empty(1)


def test_a_listing_goes_on_behind_a_cookie(dentries: Dentries) -> None:
    insert_all(dentries, [(1, cookie, b"%d" % cookie, cookie, FILE) for cookie in range(3, 13)])
    dentries.insert(2, 13, b"other", 50, FILE)
    found = []
    after = 0
    while rows := dentries.children(1, after, 3):
        after = rows[-1][0]
        found += [cookie for cookie, *_ in rows]
        dentries.delete(1, rows[0][1])
    assert found == list(range(3, 13))
    assert len(dentries.children(1, 0, 100)) == 6


def test_children_are_removed_in_batches(dentries: Dentries) -> None:
    insert_all(dentries, [(1, cookie, b"%d" % cookie, cookie + 100, FILE) for cookie in range(3, 8)])
    dentries.insert(2, 50, b"other", 1, FILE)
    assert sorted(dentries.delete_children(1, 3)) == [(103, FILE), (104, FILE), (105, FILE)]
    assert sorted(dentries.delete_children(1, 3)) == [(106, FILE), (107, FILE)]
    assert dentries.delete_children(1, 3) == []
    assert not dentries.is_empty(2)


def test_the_paths_of_an_inode(dentries: Dentries) -> None:
    dentries.insert(1, 3, b"usr", 10, DIRECTORY)
    dentries.insert(10, 4, b"lib", 11, DIRECTORY)
    dentries.insert(11, 5, b"file", 12, FILE)
    dentries.insert(1, 6, b"link\xff", 12, FILE)
    assert sorted(dentries.paths_of(12)) == [b"link\xff", b"usr/lib/file"]
    assert dentries.paths_of(11) == [b"usr/lib"]
    assert dentries.paths_of(1) == [b""]
    assert dentries.paths_of(99) == []
    assert dentries.parent_of(11) == 10
    assert dentries.parent_of(1) is None
    assert dentries.names_of(12) == [(1, b"link\xff"), (11, b"file")]


def test_paths_of_a_loop_come_to_an_end(dentries: Dentries) -> None:
    """A damaged tree must not hang fsck."""
    dentries.insert(10, 3, b"a", 11, DIRECTORY)
    dentries.insert(11, 4, b"b", 10, DIRECTORY)
    assert len(dentries.paths_of(10)) == 1


@given(names=st.lists(st.binary(min_size=1, max_size=20), unique=True, max_size=20), limit=st.integers(1, 7))
def test_listing_in_chunks_gives_every_name_once(names: list[bytes], limit: int) -> None:
    import apsw

    database = apsw.Connection(":memory:")
    database.execute("CREATE TABLE dentry (parent, cookie, name, ino, type, PRIMARY KEY (parent, name))")
    dentries = Dentries(database)
    insert_all(dentries, [(1, number + 3, name, number, FILE) for number, name in enumerate(names)])
    found: list[bytes] = []
    after = 2
    while rows := dentries.children(1, after, limit):
        assert len(rows) <= limit
        found += [name for _, name, *_ in rows]
        after = rows[-1][0]
    database.close()
    assert found == names
