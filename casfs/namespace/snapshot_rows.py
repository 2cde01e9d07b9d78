"""The rows of a snapshot, as they are shown: read-only, and with inode numbers of their own."""

from __future__ import annotations

import errno
import logging
from typing import Any

import apsw

from casfs.errors import FormatError
from casfs.namespace.blobs import Blobs
from casfs.namespace.connection import DatabaseError, connect, translate
from casfs.namespace.inodes import COLUMNS, InodeRow, checked
from casfs.namespace.schema import SCHEMA_VERSION, check_schema, check_version
from casfs.namespace.table import Table
from casfs.namespace.xattrs import Xattrs
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

NUMBERS = 1 << 40
"""Inodes with a higher number cannot be shown."""

CACHE_KIB = 16_000
"""What is kept of one snapshot's database in memory, at the most. The kernel keeps all that it was told."""

HIDDEN = b".casfs"
"""Of what the root had the directory that is not shown."""

_INODE = f"SELECT {COLUMNS} FROM inode WHERE ino = ?"

_ATTRIBUTES = ["mode", "nlink", "uid", "gid", "rdev", "size", "allocated", "atime_ns", "mtime_ns", "ctime_ns"]


def _lists(columns: str, join: str = "", where: str = "") -> tuple[str, str]:
    """Statements that list a directory: its dentries, and names that were kept in it."""
    return tuple(  # type: ignore[return-value]
        f"""SELECT d.cookie, d.name, d.ino + ?4, {columns} FROM {table} AS d {join}
            WHERE d.parent = ?1 AND d.cookie > ?2 {shown} {where} ORDER BY d.cookie LIMIT ?3"""
        for table, shown in (("dentry", ""), ("derived", "AND d.hidden = 0"))
    )


_JOIN = "LEFT JOIN inode AS i ON i.ino = d.ino"
_CHILDREN = _lists("d.type")
_LIST_INODES = _lists(
    ", ".join(f"i.{name} + ?4" if name == "ino" else f"i.{name}" for name in InodeRow._fields),
    _JOIN,
    f"AND d.ino > 0 AND d.ino < {NUMBERS}",
)
_LIST_ATTRIBUTES = _lists(", ".join(f"i.{name}" for name in _ATTRIBUTES), _JOIN)


class SnapshotRows(Table):
    """The database of a snapshot, which nobody changes. Owned by one thread.

    Inode numbers that go in are those of its rows; those that come out of listings have `base` added. The
    directory HIDDEN of the root is left out.
    """

    def __init__(self, path: str, base: int) -> None:
        """Raises FormatError, FormatTooNew, DatabaseError."""
        self._base = base
        self._connection = connect(path, readonly=True, frozen=True, cache_kib=CACHE_KIB)
        try:
            if check_version(self._connection, path) < SCHEMA_VERSION:
                raise FormatError(
                    f"{path} has an older format", hint="restore it with the casfs that made it"
                )
            check_schema(self._connection, path)
            self._execute = self._connection.cursor().execute
            self._has_derived = self._execute("SELECT 1 FROM derived LIMIT 1").get is not None
        except BaseException as error:
            self._connection.close()
            if isinstance(error, apsw.Error):
                raise translate(error) from error
            raise
        self._blobs = Blobs(self._connection)
        self._xattrs = Xattrs(self._connection)

    def close(self) -> None:
        self._connection.close()

    def inode(self, ino: int) -> tuple[Any, ...] | None:
        """The row in the order of `InodeRow`, or None. Raises DatabaseError EIO."""
        row: tuple[Any, ...] | None = self._execute(_INODE, (ino,)).get
        return row if row is None else checked(row)

    def find(self, parent: int, name: bytes) -> int | None:
        """The inode number under a name, or None."""
        ino: int | None = self._execute(
            "SELECT ino FROM dentry WHERE parent = ? AND name = ?", (parent, name)
        ).get
        if ino is None and self._has_derived:
            ino = self._execute(
                """SELECT ino FROM derived WHERE parent = ? AND name = ? AND hidden = 0
                   ORDER BY rank, cookie LIMIT 1""",
                (parent, name),
            ).get
        return None if parent == ROOT_INO and name == HIDDEN else ino

    def parent_of(self, directory: int) -> int | None:
        """The directory that names another one."""
        parent: int | None = self._execute(
            "SELECT parent FROM dentry WHERE ino = ? LIMIT 1", (directory,)
        ).get
        if parent is None and self._has_derived:
            parent = self._execute(
                "SELECT parent FROM derived WHERE ino = ? AND type = 4 LIMIT 1", (directory,)
            ).get
        return parent

    def attributes(self, ino: int) -> dict[bytes, bytes]:
        """All extended attributes of an inode. Raises DatabaseError EIO."""
        return self._xattrs.of(ino)

    def digest(self, blob_id: int) -> bytes | None:
        """The digest of a blob."""
        return self._blobs.digest(blob_id)

    # Listing. What has a number that cannot be shown is listed by name, where that can be done alone.

    def children(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.children`."""
        found = self._list(_CHILDREN, parent, after, limit)
        return [row if self._can_show(row) else self._named(row, row[3]) for row in found]

    def list_attributes(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.list_attributes`; of what cannot be shown as `children`."""
        found = self._list(_LIST_ATTRIBUTES, parent, after, limit)
        low, high = self._base, self._base + NUMBERS
        if all(low < row[2] < high for row in found):
            return found
        return [row if self._can_show(row) else self._named(row, (row[3] or 0) >> 12) for row in found]

    def list_inodes(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.list_inodes`; what cannot be shown is left out."""
        found = self._list(_LIST_INODES, parent, after, limit)
        for row in found:
            if row[3] is not None:
                checked(row[3:])
        return found

    def _list(self, statements: tuple[str, str], parent: int, after: int, limit: int) -> list[Any]:
        """One more of the root, of which one is left out: fewer than were asked for are the last ones."""
        is_root = parent == ROOT_INO
        bindings = (parent, after, limit + is_root, self._base)
        found: list[Any] = self._execute(statements[0], bindings).fetchall()
        if not found and self._has_derived:
            found = self._execute(statements[1], bindings).fetchall()
        return [row for row in found if row[1] != HIDDEN][:limit] if is_root else found

    def _can_show(self, row: tuple[Any, ...]) -> bool:
        return row[2].__class__ is int and self._base < row[2] < self._base + NUMBERS

    def _named(self, row: tuple[Any, ...], type_: object) -> tuple[Any, ...]:
        """A row of `children` for what has a number that cannot be shown."""
        if row[1].__class__ is not bytes:
            raise DatabaseError(errno.EIO, "database: a name that is none")
        log.warning("%r in a snapshot has a number that cannot be shown", row[1])
        return row[0], row[1], self._base, type_
