"""The table of derived names (schema.sql): names that casfs keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from casfs.namespace.inodes import InodeRow, checked
from casfs.namespace.table import Table, typed

DIRECTORY = 4
"""`type` of a directory."""

_LIST_INODES = f"""
SELECT d.cookie, d.name, d.ino, {", ".join(f"i.{name}" for name in InodeRow._fields)}
FROM derived AS d LEFT JOIN inode AS i ON i.ino = d.ino
WHERE d.parent = ? AND d.cookie > ? AND d.hidden = 0 ORDER BY d.cookie LIMIT ?
"""


class DerivedRow(NamedTuple):
    """A row as schema.sql documents it."""

    parent: int
    name: bytes
    rank: int
    cookie: int
    ino: int
    type: int
    hidden: int
    tree: int
    source_parent: int
    source_name: bytes


class Derived(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    # Looking

    def first(self, parent: int, name: bytes) -> DerivedRow | None:
        """The row that has a name."""
        rows = self._execute(
            "SELECT * FROM derived WHERE parent = ? AND name = ? ORDER BY rank, cookie LIMIT 1",
            (parent, name),
        )
        found = typed(rows, DerivedRow)
        return found[0] if found else None

    def candidates(self, parent: int, name: bytes) -> list[DerivedRow]:
        """All that want a name; the first one has it."""
        rows = self._execute(
            "SELECT * FROM derived WHERE parent = ? AND name = ? ORDER BY rank, cookie", (parent, name)
        )
        return typed(rows, DerivedRow)

    def children(self, parent: int, after: int, limit: int) -> list[tuple[int, bytes, int, int]]:
        """As `Dentries.children`."""
        rows: Any = self._execute(
            """SELECT cookie, name, ino, type FROM derived WHERE parent = ? AND cookie > ? AND hidden = 0
               ORDER BY cookie LIMIT ?""",
            (parent, after, limit),
        ).fetchall()
        return list(rows)

    def list_inodes(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.list_inodes`."""
        rows: Any = self._execute(_LIST_INODES, (parent, after, limit)).fetchall()
        for row in rows:
            if row[3] is not None:
                checked(row[3:])
        return list(rows)

    def list_attributes(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.list_attributes`."""
        rows: list[tuple[Any, ...]] = self._execute(
            """SELECT d.cookie, d.name, d.ino, i.mode, i.nlink, i.uid, i.gid, i.rdev, i.size, i.allocated,
                   i.atime_ns, i.mtime_ns, i.ctime_ns
               FROM derived AS d LEFT JOIN inode AS i ON i.ino = d.ino
               WHERE d.parent = ? AND d.cookie > ? AND d.hidden = 0 ORDER BY d.cookie LIMIT ?""",
            (parent, after, limit),
        ).fetchall()
        return rows

    def place_of(self, directory: int) -> DerivedRow | None:
        """The row that names a derived directory."""
        rows = self._execute("SELECT * FROM derived WHERE ino = ? AND type = 4 LIMIT 1", (directory,))
        found = typed(rows, DerivedRow)
        return found[0] if found else None

    def parent_of(self, directory: int) -> int | None:
        """The directory that has the name of a derived one."""
        above: int | None = self._execute(
            "SELECT parent FROM derived WHERE ino = ? AND type = 4 LIMIT 1", (directory,)
        ).get
        return above

    def of_source(self, parent: int, name: bytes) -> list[DerivedRow]:
        """What is derived from a dentry."""
        rows = self._execute(
            "SELECT * FROM derived WHERE source_parent = ? AND source_name = ? AND source_parent <> 0",
            (parent, name),
        )
        return typed(rows, DerivedRow)

    def of_source_directory(self, parent: int) -> list[DerivedRow]:
        """What is derived from any dentry of a directory."""
        rows = self._execute(
            "SELECT * FROM derived WHERE source_parent = ? AND source_parent <> 0", (parent,)
        )
        return typed(rows, DerivedRow)

    def of_tree(self, tree: int, limit: int) -> list[DerivedRow]:
        """Some rows of a tree, those of directories last, and of them the deepest first."""
        rows = self._execute(
            """SELECT * FROM derived WHERE tree = ? AND type IN (0, 1, 2, 6, 8, 10, 12)
               ORDER BY type LIMIT ?""",
            (tree, limit),
        ).fetchall()
        if not rows:
            rows = self._execute(
                "SELECT * FROM derived WHERE tree = ? AND type = 4 ORDER BY parent DESC LIMIT ?",
                (tree, limit),
            ).fetchall()
        return typed(rows, DerivedRow)

    def is_empty(self, parent: int) -> bool:
        """Has a directory no rows at all, hidden ones included?"""
        return self._execute("SELECT 1 FROM derived WHERE parent = ? LIMIT 1", (parent,)).get is None

    def has_names(self, parent: int) -> bool:
        """Is anything shown in a directory?"""
        found = self._execute("SELECT 1 FROM derived WHERE parent = ? AND hidden = 0 LIMIT 1", (parent,)).get
        return found is not None

    def holders(self, directory: int) -> list[DerivedRow]:
        """The rows that hold a directory, whether anything is in it or not."""
        rows = self._execute("SELECT * FROM derived WHERE parent = ? AND name = x''", (directory,))
        return typed(rows, DerivedRow)

    def counts(self, tree: int) -> tuple[int, int]:
        """(files shown in a tree, those that another one hides)."""
        row: tuple[int, int] = self._execute(
            """SELECT coalesce(sum(hidden = 0), 0), coalesce(sum(hidden), 0) FROM derived
               WHERE tree = ? AND type NOT IN (0, 4)""",
            (tree,),
        ).get
        return row

    def artifacts(self, tree: int) -> int:
        """Of the files shown in a tree those that are artifacts where they lie, as `Artifacts.count`."""
        count: int = self._execute(
            """SELECT count(*) FROM derived AS d
               JOIN artifact AS a ON a.parent = d.source_parent AND a.name = d.source_name
               WHERE d.tree = ? AND d.hidden = 0 AND d.type NOT IN (0, 4) AND a.companion = ''""",
            (tree,),
        ).get
        return count

    # Changing

    def insert(self, row: DerivedRow) -> None:
        self._execute("INSERT OR REPLACE INTO derived VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def add(self, row: DerivedRow) -> bool:
        """A row that wants a name, which it has when it comes before all others. Has it taken the name from
        another one?"""
        first: Any = self._execute(
            "SELECT rank, cookie FROM derived WHERE parent = ? AND name = ? ORDER BY rank, cookie LIMIT 1",
            (row.parent, row.name),
        ).get
        if first is not None and first < (row.rank, row.cookie):
            row = row._replace(hidden=1)
        elif first is not None:
            self._hide(1, row.parent, row.name, *first)
        self.insert(row)
        return first is not None and not row.hidden

    def remove(self, row: DerivedRow) -> bool:
        """Take a row away; of those who want the name the next one has it. As `delete`."""
        was_there = self.delete(row)
        if row.hidden:
            return was_there
        following: Any = self._execute(
            "SELECT rank, cookie FROM derived WHERE parent = ? AND name = ? ORDER BY rank, cookie LIMIT 1",
            (row.parent, row.name),
        ).get
        if following is not None:
            self._hide(0, row.parent, row.name, *following)
        return was_there

    def delete(self, row: DerivedRow) -> bool:
        """Was it there? Only an index that is damaged has rows that are not."""
        self._execute(
            "DELETE FROM derived WHERE parent = ? AND name = ? AND rank = ? AND cookie = ?",
            (row.parent, row.name, row.rank, row.cookie),
        )
        return self._connection.changes() > 0

    def _hide(self, hidden: int, parent: int, name: bytes, rank: int, cookie: int) -> None:
        self._execute(
            "UPDATE derived SET hidden = ? WHERE parent = ? AND name = ? AND rank = ? AND cookie = ?",
            (hidden, parent, name, rank, cookie),
        )

    # Names at paths that the layout of a view does not know

    def keep(self, parent: int, name: bytes, tree: int) -> None:
        self._execute("INSERT OR IGNORE INTO kept VALUES (?, ?, ?)", (parent, name, tree))

    def kept(self, parent: int, name: bytes) -> set[int]:
        """The trees that show it at its own path."""
        rows: Any = self._execute(
            "SELECT tree FROM kept WHERE parent = ? AND name = ?", (parent, name)
        ).fetchall()
        return {tree for (tree,) in rows}

    def keep_no_more(self, names: Iterable[tuple[int, bytes]]) -> None:
        self._cursor.executemany("DELETE FROM kept WHERE parent = ? AND name = ?", names)

    def keep_none(self, tree: int) -> None:
        """A tree is gone."""
        self._execute("DELETE FROM kept WHERE tree = ?", (tree,))
