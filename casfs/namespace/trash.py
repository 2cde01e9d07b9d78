"""The tables of the trash (schema.sql): what lies there, and what goes there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from casfs.namespace.table import Table, typed

_BELOW = """
WITH RECURSIVE below (ino) AS (
    VALUES (?)
    UNION SELECT d.ino FROM below AS b JOIN dentry AS d ON d.parent = b.ino AND d.type = 4)
"""


class TrashRow(NamedTuple):
    """A row as schema.sql documents it."""

    ino: int
    deleted_ns: int
    uid: int
    reason: str
    path: bytes


class RuleRow(NamedTuple):
    """A row of `trash_rule`; `exclude` as its lines."""

    directory: bytes
    days: int
    exclude: tuple[str, ...]


class TrashRows(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    # Where it is

    def directory(self) -> int | None:
        """The inode number of the `.casfs` that this program has made; None before it has."""
        ino: int | None = self._execute("SELECT value FROM meta WHERE key = 'casfs_directory'").get
        return ino

    def set_directory(self, ino: int) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES ('casfs_directory', ?)", (ino,))

    def directories_below(self, ino: int) -> set[int]:
        """A directory and every one below it."""
        rows: Any = self._execute(f"{_BELOW} SELECT ino FROM below", (ino,)).fetchall()
        return {row[0] for row in rows}

    # What lies there

    def add(self, rows: Iterable[tuple[int, int, int, str, bytes]]) -> None:
        self._cursor.executemany("INSERT INTO trash VALUES (?, ?, ?, ?, ?)", rows)

    def get(self, ino: int) -> TrashRow | None:
        rows: Any = self._execute("SELECT * FROM trash WHERE ino = ?", (ino,)).fetchall()
        return typed(rows[:1], TrashRow)[0] if rows else None

    def remove(self, inos: Iterable[int]) -> None:
        self._cursor.executemany("DELETE FROM trash WHERE ino = ?", [(ino,) for ino in inos])

    def remove_below(self, ino: int) -> None:
        """What is below that directory is in the trash no more."""
        self._execute(
            f"""{_BELOW} DELETE FROM trash WHERE ino IN
                (SELECT d.ino FROM below AS b JOIN dentry AS d ON d.parent = b.ino AND d.type <> 4)""",
            (ino,),
        )

    def oldest(self, before_ns: int, after: tuple[int, int], limit: int) -> list[TrashRow]:
        """Up to `limit` rows of what was removed before `before_ns`, by (deleted_ns, ino), behind `after`."""
        rows: Any = self._execute(
            """SELECT * FROM trash WHERE deleted_ns < ? AND (deleted_ns, ino) > (?, ?)
               ORDER BY deleted_ns, ino LIMIT ?""",
            (before_ns, *after, limit),
        ).fetchall()
        return typed(rows, TrashRow)

    def oldest_sizes(self, limit: int) -> list[int]:
        """Sizes of the files that came to the trash first, the oldest first."""
        rows: Any = self._execute(
            """SELECT i.size FROM (SELECT ino, deleted_ns FROM trash ORDER BY deleted_ns, ino LIMIT ?) AS t
               CROSS JOIN inode AS i ON i.ino = t.ino ORDER BY t.deleted_ns, t.ino""",
            (limit,),
        ).fetchall()
        return [row[0] for row in rows]

    def matching(
        self, path: bytes, since_ns: int, before_ns: int, after: int, limit: int
    ) -> tuple[list[TrashRow], int]:
        """Of the next `limit` rows behind the inode number `after`: those of what had that path, or lay below
        it, and was removed in that time; and the number to go on behind, 0 when those were the last."""
        last: int | None = self._execute(
            "SELECT max(ino) FROM (SELECT ino FROM trash WHERE ino > ? ORDER BY ino LIMIT ?)", (after, limit)
        ).get
        rows: Any = self._execute(
            """SELECT * FROM trash WHERE ino > ? AND ino <= ?
               AND (path = ?3 OR substr(path, 1, length(?3) + 1) = CAST(?3 || '/' AS BLOB))
               AND deleted_ns >= ?4 AND deleted_ns < ?5""",
            (after, last or 0, path, since_ns, before_ns),
        ).fetchall()
        return typed(rows, TrashRow), last or 0

    def sized(self) -> Iterator[tuple[TrashRow, int]]:
        """Every row with the size of its file, the newest first."""
        for *row, size in self._execute(
            """SELECT t.*, i.size FROM trash AS t JOIN inode AS i ON i.ino = t.ino
               ORDER BY t.deleted_ns DESC, t.ino DESC"""
        ):
            yield typed([row], TrashRow)[0], size

    def totals(self) -> tuple[int, int, int, int]:
        """(files in the trash, their bytes, blobs that nothing else has, their bytes)."""
        row: tuple[int, int, int, int] = self._execute(
            """SELECT (SELECT count(*) FROM trash),
                (SELECT coalesce(sum(i.size), 0) FROM trash AS t JOIN inode AS i ON i.ino = t.ino),
                count(*), coalesce(sum(size), 0)
               FROM (SELECT b.size FROM trash AS t JOIN inode AS i ON i.ino = t.ino
                     JOIN blob AS b ON b.id = i.blob_id GROUP BY b.id HAVING count(*) = b.refs)"""
        ).get
        return row

    # What goes there

    def rules(self) -> list[RuleRow]:
        rows: Any = self._execute("SELECT * FROM trash_rule ORDER BY directory").fetchall()
        return [
            RuleRow(directory, days, tuple(filter(None, text.split("\n")))) for directory, days, text in rows
        ]

    def minimal_age(self) -> int | None:
        """Nanoseconds that a file has to be there to be kept; None when nobody has said."""
        age: int | None = self._execute("SELECT value FROM meta WHERE key = 'trash_minimal_age_ns'").get
        if age is not None and type(age) is not int:
            raise TypeError("trash_minimal_age_ns is no number")
        return age

    def set_minimal_age(self, age_ns: int) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES ('trash_minimal_age_ns', ?)", (age_ns,))

    def set_rule(self, rule: RuleRow) -> None:
        self._execute(
            "INSERT OR REPLACE INTO trash_rule VALUES (?, ?, ?)",
            (rule.directory, rule.days, "\n".join(rule.exclude)),
        )

    def remove_rule(self, directory: bytes) -> None:
        self._execute("DELETE FROM trash_rule WHERE directory = ?", (directory,))
