"""What the files below each top-level directory hold, for the storage summary."""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

import apsw

from casfs.namespace.blobs import Blobs
from casfs.namespace.connection import connect, translate
from casfs.types import ROOT_INO

BUSY_MILLISECONDS = 10_000
"""How long to wait while another process opens or closes the database; writers never block a reader."""

MAPPED = 1 << 40
"""Map the whole database: saves a copy of each page, a third of the time (measured)."""


class TopDirectory(NamedTuple):
    """A directory in the root, and how many directories it has, itself included."""

    name: bytes
    ino: int
    directories: int


class Figures(NamedTuple):
    """Names of regular files, the bytes they show, their distinct blobs, the bytes of those."""

    files: int
    bytes: int
    blobs: int
    blob_bytes: int

    def plus(self, other: Figures) -> Figures:
        """The sum, for disjoint sets of blobs."""
        return Figures(*(one + two for one, two in zip(self, other, strict=True)))


# UNION, not UNION ALL: a damaged tree may have loops.
_TOPS = """
WITH RECURSIVE place (ino, top) AS (
    SELECT ino, ino FROM dentry WHERE parent = 1 AND type = 4
    UNION SELECT d.ino, p.top FROM place AS p JOIN dentry AS d ON d.parent = p.ino AND d.type = 4)
SELECT d.name, d.ino, count(*)
FROM place AS p JOIN dentry AS d ON d.parent = 1 AND d.ino = p.top AND d.type = 4
GROUP BY p.top ORDER BY d.name
"""

# A walk in the order of the tables. The one thing that is sorted is the distinct blobs, whose size is taken
# from the inode at hand: to look up each blob's row would take as long as all the rest.
_BELOW = """
WITH RECURSIVE directory (ino) AS (
    VALUES (?1)
    UNION SELECT d.ino FROM directory AS p JOIN dentry AS d ON d.parent = p.ino AND d.type = 4
    WHERE p.ino <> 1)
SELECT coalesce(sum(names), 0), coalesce(sum(bytes), 0), count(blob_id),
       coalesce(sum(size) FILTER (WHERE blob_id IS NOT NULL), 0)
FROM (SELECT i.blob_id AS blob_id, count(*) AS names, sum(i.size) AS bytes, max(i.size) AS size
      FROM directory CROSS JOIN dentry AS d ON d.parent = directory.ino CROSS JOIN inode AS i ON i.ino = d.ino
      WHERE d.type = 8 AND coalesce(i.blob_id, 0) % ?3 = ?2
      GROUP BY i.blob_id)
"""


class UsageReader:
    """One read-only connection: what it sees is the last commit. Used by one thread at a time."""

    def __init__(self, path: str) -> None:
        """Raises DatabaseError, FormatError."""
        self.path = path
        self._connection = connect(path, readonly=True)
        self._connection.set_busy_timeout(BUSY_MILLISECONDS)
        self._connection.execute(f"PRAGMA mmap_size = {MAPPED}").fetchall()

    def tops(self) -> list[TopDirectory]:
        """The directories in the root, by name."""
        try:
            return [TopDirectory(*row) for row in self._connection.execute(_TOPS)]
        except apsw.Error as error:
            raise translate(error) from error

    def below(self, ino: int, part: int, parts: int) -> Figures:
        """The files below a directory; of the root only those directly in it.

        Only blobs whose id leaves `part` when divided by `parts`: the figures of all parts add up to those
        of the directory, and several threads can share a large one. Releases the GIL.
        """
        try:
            row: Any = self._connection.execute(_BELOW, (ino, part, parts)).fetchall()[0]
        except apsw.Error as error:
            raise translate(error) from error
        return Figures(*row)

    def in_root(self) -> Figures:
        return self.below(ROOT_INO, 0, 1)

    def blob_totals(self) -> tuple[int, int, int, int]:
        """(blobs in use, their bytes, orphans, their bytes)."""
        try:
            return Blobs(self._connection).totals()
        except apsw.Error as error:
            raise translate(error) from error

    def database_bytes(self) -> int:
        """Size of the database with its log, on disk."""
        size = os.stat(self.path).st_size
        with contextlib.suppress(FileNotFoundError):
            size += os.stat(f"{self.path}-wal").st_size
        return size

    def close(self) -> None:
        self._connection.close()
