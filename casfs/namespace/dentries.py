"""The dentry table: names in directories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from casfs.namespace.inodes import InodeRow, checked
from casfs.namespace.table import Table


class Dentry(NamedTuple):
    """A row as schema.sql documents it."""

    parent: int
    cookie: int
    name: bytes
    ino: int
    type: int


Names = list[tuple[int, bytes]]
"""(parent, name) pairs."""


_LIST_INODES = f"""
SELECT d.cookie, d.name, d.ino, {", ".join(f"i.{name}" for name in InodeRow._fields)}
FROM dentry AS d LEFT JOIN inode AS i ON i.ino = d.ino
WHERE d.parent = ? AND d.cookie > ? ORDER BY d.cookie LIMIT ?
"""


class Dentries(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def find(self, parent: int, name: bytes) -> int | None:
        """The inode number under a name, or None."""
        ino: int | None = self._execute(
            "SELECT ino FROM dentry WHERE parent = ? AND name = ?", (parent, name)
        ).get
        return ino

    def list_inodes(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `children`, but (cookie, name, inode number) and then the row of the inode in the order of
        `InodeRow`, which is all NULL for one that is not written yet."""
        rows: Any = self._execute(
            _LIST_INODES,
            (parent, after, limit),
        ).fetchall()
        for row in rows:
            if row[3] is not None:
                checked(row[3:])
        return list(rows)

    def list_attributes(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `list_inodes`, but of the inode's row only mode, nlink, uid, gid, rdev, size, allocated, and
        the times but for btime."""
        rows: list[tuple[Any, ...]] = self._execute(
            """SELECT d.cookie, d.name, d.ino, i.mode, i.nlink, i.uid, i.gid, i.rdev, i.size, i.allocated,
                   i.atime_ns, i.mtime_ns, i.ctime_ns
               FROM dentry AS d LEFT JOIN inode AS i ON i.ino = d.ino
               WHERE d.parent = ? AND d.cookie > ? ORDER BY d.cookie LIMIT ?""",
            (parent, after, limit),
        ).fetchall()
        return rows

    def entry(self, parent: int, name: bytes) -> tuple[int, int, int] | None:
        """(cookie, inode number, type) of a name; None where there is none."""
        row: tuple[int, int, int] | None = self._execute(
            "SELECT cookie, ino, type FROM dentry WHERE parent = ? AND name = ?", (parent, name)
        ).get
        return row

    def insert(self, parent: int, cookie: int, name: bytes, ino: int, type_: int) -> bool:
        """Add a name; False, and nothing is changed, when the directory has it already."""
        self._execute(
            "INSERT INTO dentry VALUES (?, ?, ?, ?, ?) ON CONFLICT (parent, name) DO NOTHING",
            (parent, cookie, name, ino, type_),
        )
        return self._connection.changes() == 1

    def insert_new(
        self, rows: list[tuple[int, int, bytes, int, int]]
    ) -> list[tuple[int, int, bytes, int, int]]:
        """As `insert` for many at once; gives those whose name their directory had already."""
        before = self._connection.total_changes()
        self._cursor.executemany(
            "INSERT INTO dentry VALUES (?, ?, ?, ?, ?) ON CONFLICT (parent, name) DO NOTHING", rows
        )
        if self._connection.total_changes() - before == len(rows):
            return []
        return [row for row in rows if self.find(row[0], row[2]) != row[3]]

    def delete(self, parent: int, name: bytes) -> None:
        self._execute("DELETE FROM dentry WHERE parent = ? AND name = ?", (parent, name))

    def delete_children(self, parent: int, limit: int) -> list[tuple[int, int]]:
        """Remove up to `limit` names of a directory; gives their (ino, type)."""
        rows: Any = self._execute(
            """DELETE FROM dentry WHERE parent = ?1 AND name IN
                (SELECT name FROM dentry WHERE parent = ?1 LIMIT ?2)
               RETURNING ino, type""",
            (parent, limit),
        ).fetchall()
        return list(rows)

    def rename(self, parent: int, name: bytes, new_parent: int, cookie: int, new_name: bytes) -> None:
        """Move a name. Within one directory it keeps its cookie: a running listing shows it once."""
        if parent == new_parent:
            self._execute(
                "UPDATE dentry SET name = ? WHERE parent = ? AND name = ?", (new_name, parent, name)
            )
        else:
            self._execute(
                "UPDATE dentry SET parent = ?, cookie = ?, name = ? WHERE parent = ? AND name = ?",
                (new_parent, cookie, new_name, parent, name),
            )

    def replace(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """Move a name to the place of another one, which goes, in one statement. A running listing shows the
        name that stays once: it keeps its cookie."""
        self._execute(
            """UPDATE OR REPLACE dentry SET (parent, name, cookie) =
                   (SELECT parent, name, cookie FROM dentry WHERE parent = ?3 AND name = ?4)
               WHERE parent = ?1 AND name = ?2""",
            (parent, name, new_parent, new_name),
        )

    def point(self, parent: int, name: bytes, ino: int, type_: int) -> None:
        """Let an existing name stand for another inode, without a moment in which it is gone (I6)."""
        self._execute(
            "UPDATE dentry SET ino = ?, type = ? WHERE parent = ? AND name = ?", (ino, type_, parent, name)
        )

    def children(self, parent: int, after: int, limit: int) -> list[tuple[int, bytes, int, int]]:
        """Up to `limit` entries with a cookie above `after`: (cookie, name, ino, type) by cookie."""
        rows: Any = self._execute(
            """SELECT cookie, name, ino, type FROM dentry WHERE parent = ? AND cookie > ?
               ORDER BY cookie LIMIT ?""",
            (parent, after, limit),
        ).fetchall()
        _check_names(row[1] for row in rows)
        return list(rows)

    def is_empty(self, parent: int) -> bool:
        return self._execute("SELECT 1 FROM dentry WHERE parent = ? LIMIT 1", (parent,)).get is None

    def parent_of(self, ino: int) -> int | None:
        """A directory that names the inode; a directory has exactly one, the root and unlinked ones none."""
        parent: int | None = self._execute("SELECT parent FROM dentry WHERE ino = ? LIMIT 1", (ino,)).get
        return parent

    def is_below(self, ino: int, directory: int) -> bool:
        """Is a directory another one, or below it? Ends, too, where rows lead round in a circle."""
        above: int | None = ino
        seen: set[int] = set()
        while above is not None and above != 1 and above not in seen:
            if above == directory:
                return True
            seen.add(above)
            above = self.parent_of(above)
        return False

    def names_of(self, ino: int) -> Names:
        """Every (parent, name) of an inode."""
        rows: Any = self._execute(
            "SELECT parent, name FROM dentry WHERE ino = ? ORDER BY parent, cookie", (ino,)
        ).fetchall()
        _check_names(row[1] for row in rows)
        return list(rows)

    def parents_of(self, ino: int) -> list[int]:
        """Every directory that names the inode."""
        rows: Any = self._execute("SELECT DISTINCT parent FROM dentry WHERE ino = ?", (ino,)).fetchall()
        return [parent for (parent,) in rows]

    def paths_of(self, ino: int) -> list[bytes]:
        """Every path of an inode below the root, without the leading slash; the root's own is b''."""
        if ino == 1:
            return [b""]
        paths = []
        for parent, name in self.names_of(ino):
            parts = [name]
            seen = {ino}
            while parent != 1 and parent not in seen:
                seen.add(parent)
                above = self.names_of(parent)
                if not above:
                    break
                parent, name = above[0]
                parts.append(name)
            paths.append(b"/".join(reversed(parts)))
        return paths


def _check_names(names: Iterable[object]) -> None:
    """Raises TypeError: only who writes the database himself has others (I9)."""
    for name in names:
        if type(name) is not bytes:
            raise TypeError("a name that is none")
