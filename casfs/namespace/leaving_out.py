"""A snapshot's database without some of what is in the root, as if that had been removed.

What goes with it: the names below, inodes that have no others, what is said of those anywhere, views and
virtual repositories of what is left out, and the trash, which has files of all. Contents that are referred to
no more have no rows. The rest is as a check wants it (maintenance/check).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from casfs.namespace.connection import connect, run_script
from casfs.namespace.opening import name_database
from casfs.namespace.table import Table
from casfs.types import ROOT_INO

Has = Callable[[bytes, bool], bool]
"""Is what has this name in the root to be kept? Is it a directory?"""

_DIRECTORY = 4

_TREES = """
CREATE TEMP TABLE top (ino INTEGER PRIMARY KEY, name BLOB);
CREATE TEMP TABLE folder (ino INTEGER PRIMARY KEY);
CREATE TEMP TABLE lost (ino INTEGER PRIMARY KEY, names INTEGER);
CREATE TEMP TABLE left_file (name BLOB, ino INTEGER);
CREATE TEMP TABLE unused (id INTEGER PRIMARY KEY, refs INTEGER);
"""

_REMOVE = """
INSERT INTO folder WITH RECURSIVE below (ino) AS (
    SELECT ino FROM top
    UNION SELECT d.ino FROM below AS b JOIN dentry AS d ON d.parent = b.ino AND d.type = 4)
    SELECT ino FROM below;
INSERT OR IGNORE INTO folder SELECT ino FROM derived WHERE type = 4 AND tree IN (SELECT ino FROM top);
INSERT INTO lost SELECT d.ino, count(*) FROM folder AS f CROSS JOIN dentry AS d ON d.parent = f.ino
    WHERE d.type <> 4 GROUP BY d.ino;
INSERT INTO lost SELECT ino, count(*) FROM left_file GROUP BY ino
    ON CONFLICT (ino) DO UPDATE SET names = names + excluded.names;
DELETE FROM dentry WHERE parent IN (SELECT ino FROM folder);
DELETE FROM dentry WHERE parent = 1 AND name IN (SELECT name FROM top UNION SELECT name FROM left_file);
UPDATE inode SET nlink = nlink - (SELECT names FROM lost AS l WHERE l.ino = inode.ino)
    WHERE ino IN (SELECT ino FROM lost);
UPDATE inode SET nlink = nlink - (SELECT count(*) FROM top WHERE name <> CAST('.casfs' AS BLOB))
    WHERE ino = 1;
DELETE FROM lost WHERE ino IN (SELECT ino FROM inode WHERE nlink > 0);
INSERT OR IGNORE INTO lost SELECT ino, 0 FROM folder;
INSERT INTO unused SELECT i.blob_id, count(*) FROM lost AS l CROSS JOIN inode AS i ON i.ino = l.ino
    WHERE i.blob_id IS NOT NULL GROUP BY i.blob_id;
UPDATE blob SET refs = refs - (SELECT u.refs FROM unused AS u WHERE u.id = blob.id)
    WHERE id IN (SELECT id FROM unused);
DELETE FROM inode WHERE ino IN (SELECT ino FROM lost);
DELETE FROM xattr WHERE ino IN (SELECT ino FROM lost);
DELETE FROM property WHERE ino IN (SELECT ino FROM lost);
DELETE FROM locked WHERE ino IN (SELECT ino FROM lost);
DELETE FROM trash WHERE ino IN (SELECT ino FROM lost);
DELETE FROM unused WHERE id IN (SELECT id FROM blob WHERE refs > 0);
DELETE FROM blob_digest WHERE blob_id IN (SELECT id FROM unused);
DELETE FROM blob WHERE id IN (SELECT id FROM unused);
DELETE FROM artifact WHERE parent IN (SELECT ino FROM folder) OR repository IN (SELECT ino FROM top);
DELETE FROM kept WHERE parent IN (SELECT ino FROM folder) OR tree IN (SELECT ino FROM top);
DELETE FROM derived WHERE tree IN (SELECT ino FROM top) OR source_parent IN (SELECT ino FROM folder);
DELETE FROM member WHERE repository IN (SELECT ino FROM top);
DELETE FROM repository WHERE ino IN (SELECT ino FROM top);
DELETE FROM follow WHERE ino IN (SELECT ino FROM folder);
DELETE FROM noted WHERE parent IN (SELECT ino FROM folder);
DELETE FROM trash_rule WHERE directory <> x'' AND directory IN (SELECT name FROM top);
DELETE FROM meta WHERE key = 'casfs_directory' AND value IN (SELECT ino FROM top);
"""

_SHOWS = """SELECT ino FROM repository WHERE kind IN ('view', 'virtual') AND ino NOT IN (SELECT ino FROM top)
    AND (deploy IN (SELECT ino FROM top)
         OR ino IN (SELECT repository FROM member WHERE member IN (SELECT ino FROM top)))"""


class Leaving(Table):
    """A database that nobody else has, without a log: that of a snapshot in the making."""

    def __init__(self, path: str) -> None:
        """Raises FormatError, DatabaseError."""
        self._path = path
        self._connection = connect(path)
        for pragma in ("synchronous = OFF", "journal_mode = MEMORY", "locking_mode = EXCLUSIVE"):
            run_script(self._connection, f"PRAGMA {pragma}")

    def leave_out(self, has: Has) -> list[bytes]:
        """Remove what is not kept; gives its names in the root."""
        run_script(self._connection, _TREES)
        names = self._choose(has)
        if names:
            self._connection.execute("BEGIN IMMEDIATE")
            run_script(self._connection, _REMOVE)
            self._connection.execute("COMMIT")
        return sorted(names)

    def _choose(self, has: Has) -> list[bytes]:
        rows: Any = self._connection.execute(
            "SELECT name, ino, type FROM dentry WHERE parent = ?", (ROOT_INO,)
        ).fetchall()
        names: dict[tuple[int, bytes], bool] = {}
        trash = {ino for (ino,) in self._all("SELECT value FROM meta WHERE key = 'casfs_directory'")}
        for name, ino, type_ in rows:
            directory = type_ == _DIRECTORY
            if ino in trash or has(name, directory):
                continue
            names[ino, name] = directory
        left = [name for _, name in names]
        if not left:
            return []
        for name, ino, _ in rows:
            if ino in trash:
                names[ino, name] = True
        for (ino, name), directory in names.items():
            table = "top (name, ino)" if directory else "left_file (name, ino)"
            self._connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (name, ino))
        while shows := self._all(_SHOWS):
            for (ino,) in shows:
                found = [name for name, number, _ in rows if number == ino]
                left += found
                self._connection.execute("INSERT INTO top VALUES (?, ?)", (ino, found[0] if found else None))
        return left

    def _all(self, sql: str) -> list[tuple[int]]:
        rows: Any = self._connection.execute(sql).fetchall()
        return list(rows)

    def without_contents(self) -> None:
        """Note that there are no contents: this database holds none (copies.py, HeldDigests)."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('contents', 'no')")

    def write_to(self, path: str) -> None:
        """Write all that is left, and nothing of what was removed, into an empty file."""
        name_database(path)
        self._connection.execute("VACUUM INTO ?", (os.path.abspath(path),))

    def close(self) -> None:
        self._connection.close()
