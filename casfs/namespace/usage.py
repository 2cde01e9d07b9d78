"""What the files below each top-level directory hold, for the storage summary."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw
import msgspec

from casfs.namespace.connection import DatabaseError, translate
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import typed
from casfs.types import ROOT_INO

MAPPED = 1 << 40
"""Map the whole database: to copy each page takes a third longer."""

# UNION, not UNION ALL: a damaged tree may have loops.
#
# One row for each directory: its names of files, their bytes, {blob: size}. The distinct blobs of a tree are
# found in a dictionary, since GROUP BY would sort them, and that takes more time than all the rest.
_BELOW = """
WITH RECURSIVE directory (ino) AS (
    VALUES (?1)
    UNION SELECT d.ino FROM directory AS p JOIN dentry AS d ON d.parent = p.ino AND d.type = 4
    WHERE p.ino <> 1)
SELECT (SELECT json_array(count(*), coalesce(sum(i.size), 0),
                          json_group_object(i.blob_id, i.size) FILTER (WHERE i.blob_id IS NOT NULL))
        FROM dentry AS d CROSS JOIN inode AS i ON i.ino = d.ino
        WHERE d.parent = directory.ino AND d.type = 8)
FROM directory
"""

# What is written above of loops holds here as well. Those with one name need no look at the others.
_FILES = """
WITH RECURSIVE directory (ino) AS (
    VALUES (?1)
    UNION SELECT d.ino FROM directory AS p JOIN dentry AS d ON d.parent = p.ino AND d.type = 4)
SELECT count(*), coalesce(sum(size), 0) FROM (
    SELECT i.size FROM directory CROSS JOIN dentry AS d ON d.parent = directory.ino AND d.type = 8
    CROSS JOIN inode AS i ON i.ino = d.ino WHERE i.nlink < 2
    UNION ALL SELECT size FROM (
        SELECT DISTINCT i.ino, i.size FROM directory CROSS JOIN dentry AS d
        ON d.parent = directory.ino AND d.type = 8 CROSS JOIN inode AS i ON i.ino = d.ino WHERE i.nlink > 1))
"""

_decode = msgspec.json.Decoder(tuple[int, int, dict[int, int]]).decode


class Top(NamedTuple):
    """A directory in the root."""

    name: bytes
    ino: int


class Figures(NamedTuple):
    """Names of regular files, the bytes they show, their distinct blobs, the bytes of those."""

    files: int
    bytes: int
    blobs: int
    blob_bytes: int


def usage(
    namespace: Namespace,
) -> tuple[dict[bytes, Figures], Figures, tuple[int, int, int, int], tuple[int, int, int, int]]:
    """All of one commit: the figures of each directory in the root by name, those of the files in the root
    itself, (blobs in use, their bytes, orphans, their bytes), and (files in the trash, their bytes, blobs
    only they have, their bytes). Takes a read-only namespace of its own.

    Raises DatabaseError.
    """
    try:
        namespace.query(f"PRAGMA mmap_size = {MAPPED}").fetchall()
        namespace.query("BEGIN")
        found: Any = namespace.query(
            "SELECT name, ino FROM dentry WHERE parent = 1 AND type = 4 ORDER BY name"
        ).fetchall()
        trash = namespace.trash.directory()
        tops = typed(found, Top)
        rows = {top.name: _below(namespace, top.ino) for top in tops if top.ino != trash}
        totals = namespace.blobs.totals(), namespace.trash.totals()
        return rows, _below(namespace, ROOT_INO), *totals
    except apsw.Error as error:
        raise translate(error) from error
    except msgspec.MsgspecError as error:
        raise DatabaseError(errno.EIO, f"database: the row of an inode is damaged: {error}") from error


def below(namespace: Namespace, inos: Iterable[int]) -> dict[int, Figures]:
    """The figures of directories, by inode number. Raises DatabaseError."""
    try:
        return {ino: _below(namespace, ino) for ino in inos}
    except apsw.Error as error:
        raise translate(error) from error
    except msgspec.MsgspecError as error:
        raise DatabaseError(errno.EIO, f"database: the row of an inode is damaged: {error}") from error


def files_below(namespace: Namespace, ino: int) -> tuple[int, int]:
    """Regular files below a directory, and their bytes, each counted once whatever names it has there: as
    the rows say it. Raises DatabaseError."""
    try:
        rows: Any = namespace.query(_FILES, (ino,)).fetchall()
    except apsw.Error as error:
        raise translate(error) from error
    files, size = rows[0]
    return files, size


def _below(namespace: Namespace, ino: int) -> Figures:
    """The files below a directory; of the root only those directly in it."""
    files = shown = 0
    blobs: dict[int, int] = {}
    for (text,) in namespace.query(_BELOW, (ino,)):
        count, size, found = _decode(text)
        files += count
        shown += size
        blobs.update(found)
    return Figures(files, shown, len(blobs), sum(blobs.values()))
