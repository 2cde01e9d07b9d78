"""The inode table."""

from __future__ import annotations

import errno
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apsw

from casfs.namespace.connection import DatabaseError
from casfs.namespace.table import Table

S_IFMT = 0o170000
"""Of a mode, inode(7): the bits that say what it is."""


class InodeRow(NamedTuple):
    """A row as schema.sql documents it. Every statement gives and takes its columns in this order."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    allocated: int
    blob_id: int | None
    staged: str | None
    target: bytes | None
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int

    @property
    def kind(self) -> int:
        """S_IFMT of the mode. The functions of `stat` raise OverflowError for one that none can have."""
        return self.mode & S_IFMT


CONSTANT = frozenset({"ino", "rdev", "target", "btime_ns"})
"""Columns that never change."""

COLUMNS = ", ".join(InodeRow._fields)

_SELECT = f"SELECT {COLUMNS} FROM inode"
_SELECT_ONE = f"{_SELECT} WHERE ino = ?"

_UPSERT = f"""
INSERT INTO inode ({COLUMNS}) VALUES ({", ".join("?" * len(InodeRow._fields))})
ON CONFLICT (ino) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in InodeRow._fields if name not in CONSTANT)}
"""


def empty_row(ino: int, mode: int, nlink: int, uid: int, gid: int, now_ns: int) -> InodeRow:
    """Something without content that was made at that time."""
    return InodeRow(
        ino=ino,
        mode=mode,
        nlink=nlink,
        uid=uid,
        gid=gid,
        rdev=0,
        size=0,
        allocated=0,
        blob_id=None,
        staged=None,
        target=None,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        btime_ns=now_ns,
    )


def directory_row(ino: int, permissions: int, uid: int, gid: int, now_ns: int | None = None) -> InodeRow:
    """An empty directory with one name, made at that time or now."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    return empty_row(ino, stat.S_IFDIR | permissions, 2, uid, gid, now_ns)


_pack_numbers = struct.Struct("=QHIIIIQQqqqq").pack
"""What the numbers of a row have to fit into, ino to allocated and the times."""

_OPTIONAL = ((8, int), (9, str), (10, bytes))


def checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row in the order of `InodeRow`, if it is one: whoever writes the file writes what he likes, also what
    a STRICT table cannot have. Raises DatabaseError EIO."""
    try:
        _pack_numbers(*row[:8], *row[11:])
    except struct.error:
        raise _no_row(row[0]) from None
    for column, kind in _OPTIONAL:
        if row[column] is not None and row[column].__class__ is not kind:
            raise _no_row(row[0])
    return row


def _no_row(ino: object) -> DatabaseError:
    return DatabaseError(errno.EIO, f"database: the row of inode {ino} is damaged")


class Inodes(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def get(self, ino: int) -> tuple[Any, ...] | None:
        """The row in the order of `InodeRow`, or None. Raises DatabaseError EIO as `checked`."""
        row: tuple[Any, ...] | None = self._execute(_SELECT_ONE, (ino,)).get
        return row if row is None else checked(row)

    def write(self, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert or update rows in the order of `InodeRow`; an update leaves `CONSTANT` as it was."""
        self._cursor.executemany(_UPSERT, rows)

    def delete(self, inos: Iterable[int]) -> None:
        self._cursor.executemany("DELETE FROM inode WHERE ino = ?", [(ino,) for ino in inos])

    def unlinked(self) -> list[int]:
        """Inodes without a name: of files that were open, or of a tree copy that was cut off. Not one whose
        row only says so: that is damage, and what has a name is not removed for it."""
        rows: Any = self._execute(
            """SELECT ino FROM inode WHERE nlink = 0 AND ino > 1
               AND NOT EXISTS (SELECT 1 FROM dentry AS d WHERE d.ino = inode.ino)"""
        ).fetchall()
        return [row[0] for row in rows]

    def with_staged(self) -> list[InodeRow]:
        rows: Any = self._execute(f"{_SELECT} WHERE staged IS NOT NULL").fetchall()
        return [InodeRow(*row) for row in rows]

    def count(self) -> int:
        return int(self._execute("SELECT count(*) FROM inode").get)

    def all(self) -> Iterator[InodeRow]:
        """Every row by inode number."""
        for row in self._execute(f"{_SELECT} ORDER BY ino"):
            yield InodeRow(*row)
