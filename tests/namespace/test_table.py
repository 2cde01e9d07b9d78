"""SQLite's errors leave the namespace as errno values, whatever method they come out of."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import apsw
import pytest

from casfs.namespace.connection import DatabaseError
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table


class Failing(Table):
    """Fails in each way."""

    @property
    def simple(self) -> int:
        return 5

    def call(self) -> None:
        raise apsw.IOError("why")

    def rows(self, count: int) -> Iterator[int]:
        yield from range(count)
        raise apsw.FullError("why")

    def other(self) -> None:
        raise KeyError("no error of SQLite's")


def test_a_method_tells_what_it_is_of_a_database_as_an_errno() -> None:
    with pytest.raises(DatabaseError, match="why") as raised:
        Failing().call()
    assert raised.value.errno == errno.EIO
    with pytest.raises(KeyError):
        Failing().other()
    assert Failing().simple == 5


def test_an_iterator_does_so_in_the_middle() -> None:
    rows = Failing().rows(2)
    assert [next(rows), next(rows)] == [0, 1]
    with pytest.raises(DatabaseError, match="why") as raised:
        next(rows)
    assert raised.value.errno == errno.ENOSPC


TABLES = {
    "inodes": ("inode", lambda group: group.get(1)),
    "dentries": ("dentry", lambda group: group.find(1, b"a")),
    "blobs": ("blob", lambda group: list(group.all())),
    "xattrs": ("xattr", lambda group: group.of(1)),
    "damage": ("damage", lambda group: group.known()),
    "trash": ("trash", lambda group: list(group.sized())),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_groups_of_a_namespace_are_tables(writing: Namespace, name: str) -> None:
    table, use = TABLES[name]
    writing.query(f"DROP TABLE {table}")
    with pytest.raises(DatabaseError, match="no such table"):
        use(getattr(writing, name))
