"""The inode table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from casfs.namespace.table import Table


class InodeRow(NamedTuple):
    """A row as schema.sql documents it."""

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


_UPSERT = """
INSERT INTO inode VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (ino) DO UPDATE SET mode = excluded.mode, nlink = excluded.nlink, uid = excluded.uid,
    gid = excluded.gid, size = excluded.size,
    allocated = excluded.allocated, blob_id = excluded.blob_id, staged = excluded.staged,
    atime_ns = excluded.atime_ns, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns
"""


class Inodes(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def get(self, ino: int) -> tuple[object, ...] | None:
        """The row in the order of `InodeRow`, or None."""
        row: tuple[object, ...] | None = self._execute("SELECT * FROM inode WHERE ino = ?", (ino,)).get
        return row

    def write(self, rows: list[tuple[object, ...]]) -> None:
        """Insert or update rows in the order of `InodeRow`; rdev, target and btime never change."""
        self._cursor.executemany(_UPSERT, rows)

    def delete(self, inos: Iterable[int]) -> None:
        self._cursor.executemany("DELETE FROM inode WHERE ino = ?", [(ino,) for ino in inos])

    def unlinked(self) -> list[int]:
        """Inodes without a name: of files that were open, or of a tree copy that was cut off."""
        rows: Any = self._execute("SELECT ino FROM inode WHERE nlink = 0").fetchall()
        return [row[0] for row in rows]

    def with_staged(self) -> list[InodeRow]:
        rows: Any = self._execute("SELECT * FROM inode WHERE staged IS NOT NULL").fetchall()
        return [InodeRow(*row) for row in rows]

    def count(self) -> int:
        return int(self._execute("SELECT count(*) FROM inode").get)

    def all(self) -> Iterator[InodeRow]:
        """Every row by inode number."""
        for row in self._execute("SELECT * FROM inode ORDER BY ino"):
            yield InodeRow(*row)
