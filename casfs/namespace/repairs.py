"""Changes of rows that only a repair makes. All inside one write transaction."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any

from casfs.namespace.checks import BAD_VALUES, NUMBERED, BlobFault, LinkFault
from casfs.namespace.dentries import Dentry
from casfs.namespace.derived_checks import COOKIES, HIGHEST_COOKIE
from casfs.namespace.inodes import InodeRow, directory_row
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table
from casfs.types import HIGHEST_NUMBER, ROOT_INO


class Repairs(Table):
    """Statements by what they mend."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _run(self, sql: str, *bindings: Any) -> list[Any]:
        return self._namespace.query(sql, bindings).fetchall()

    def reindex(self) -> None:
        self._run("REINDEX")

    # meta

    def highest(self) -> tuple[int, int]:
        """The highest inode number and the highest cookie that any row or counter has."""
        inos = self._run(
            """SELECT max(ino) FROM inode WHERE ino <= ?1
               UNION ALL SELECT max(ino) FROM dentry WHERE ino <= ?1
               UNION ALL SELECT max(parent) FROM dentry WHERE parent <= ?1
               UNION ALL SELECT value - 1 FROM meta
                WHERE key = 'next_ino' AND typeof(value) = 'integer' AND value <= ?1""",
            HIGHEST_NUMBER // 2,
        )
        cookies = self._run(
            f"""SELECT max(cookie) FROM ({COOKIES}) WHERE cookie <= ?1
               UNION ALL SELECT value - 1 FROM meta
                WHERE key = 'next_cookie' AND typeof(value) = 'integer' AND value <= ?1""",
            HIGHEST_COOKIE,
        )
        return max(ROOT_INO, *(ino or 0 for (ino,) in inos)), max(2, *(cookie or 0 for (cookie,) in cookies))

    def set_counter(self, key: str, value: int) -> None:
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    def renumber(self, kind: str, old: int, new: int) -> None:
        """Give an inode, or a blob, another number, wherever it is named."""
        for table, column in NUMBERED[kind]:
            self._run(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {column} = ?", new, old)

    def highest_blob(self) -> int:
        """The highest number of a blob that leaves others."""
        return int(
            self._run("SELECT coalesce(max(id), 0) FROM blob WHERE id <= ?", HIGHEST_NUMBER // 2)[0][0]
        )

    def set_sequence(self, table: str, highest: int) -> None:
        self._run("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", highest, table)

    def set_values(self) -> None:
        """Bring what no inode can have into what one can."""
        self._run(
            f"""UPDATE inode SET mode = mode & 65535, size = max(size, 0), allocated = max(allocated, 0),
                nlink = nlink & 4294967295, uid = uid & 4294967295, gid = gid & 4294967295,
                rdev = rdev & 4294967295 WHERE {BAD_VALUES}"""
        )

    def new_uuid(self) -> None:
        self._run("INSERT OR REPLACE INTO meta VALUES ('uuid', ?)", uuid.uuid4().hex)

    # dentry

    def add_name(self, parent: int, cookie: int, name: bytes, ino: int, mode: int) -> bool:
        """A name for an inode; False when it is taken."""
        return self._namespace.dentries.insert(parent, cookie, name, ino, mode >> 12)

    def delete_name(self, dentry: Dentry) -> None:
        self._namespace.dentries.delete(dentry.parent, dentry.name)

    def keep_name(self, ino: int, name: tuple[int, bytes] | None) -> None:
        """Delete every other name of an inode than (parent, name)."""
        kept = name or (0, b"")
        self._run("DELETE FROM dentry WHERE ino = ? AND (parent <> ? OR name <> ?)", ino, *kept)

    def delete_loop_name(self, ino: int, parent: int) -> None:
        """Delete the name a directory has in the next one of its loop."""
        self._run("DELETE FROM dentry WHERE ino = ? AND parent = ?", ino, parent)

    def rename(self, dentry: Dentry, name: bytes) -> bool:
        """False, and nothing is changed, when the directory has the new name already."""
        if self._namespace.dentries.find(dentry.parent, name) is not None:
            return False
        self._change(dentry, "name", name)
        return True

    def set_cookie(self, dentry: Dentry, cookie: int) -> None:
        self._change(dentry, "cookie", cookie)

    def set_types(self, names: Iterable[tuple[Dentry, int]]) -> None:
        for dentry, type_ in names:
            self._change(dentry, "type", type_)

    def _change(self, dentry: Dentry, column: str, value: int | bytes) -> None:
        where = "WHERE parent = ? AND name = ?"
        self._run(f"UPDATE dentry SET {column} = ? {where}", value, dentry.parent, dentry.name)

    def move_entries(self, parent: int, to: int) -> None:
        self._run("UPDATE dentry SET parent = ? WHERE parent = ?", to, parent)

    # inode

    def inode(self, ino: int) -> InodeRow:
        """A row that is there."""
        row = self._namespace.inodes.get(ino)
        assert row is not None
        return InodeRow(*row)

    def insert(self, row: InodeRow) -> None:
        self._namespace.inodes.write([row])

    def make_root(self, uid: int, gid: int) -> None:
        """A root directory where inode 1 is none; nlink is counted later."""
        if self._run("SELECT 1 FROM inode WHERE ino = 1"):
            self._run("UPDATE inode SET mode = ?, size = 0 WHERE ino = 1", 0o40755)
        else:
            self.insert(directory_row(ROOT_INO, 0o755, uid, gid))

    def set_mode(self, ino: int, mode: int) -> None:
        self._run("UPDATE inode SET mode = ? WHERE ino = ?", mode, ino)

    def set_size(self, ino: int, size: int) -> None:
        self._run("UPDATE inode SET size = ? WHERE ino = ?", size, ino)

    def take_content(self, ino: int) -> None:
        self._run("UPDATE inode SET size = 0, blob_id = NULL, staged = NULL WHERE ino = ?", ino)

    def forget_staged(self, ino: int) -> None:
        self._run("UPDATE inode SET staged = NULL WHERE ino = ?", ino)

    def set_links(self, faults: Iterable[LinkFault]) -> None:
        for fault in faults:
            self._run("UPDATE inode SET nlink = ? WHERE ino = ?", fault.counted, fault.ino)

    def delete_xattrs(self, inos: Iterable[int]) -> None:
        for ino in inos:
            self._run("DELETE FROM xattr WHERE ino = ?", ino)

    # blob

    def set_refs(self, faults: Iterable[BlobFault]) -> None:
        now = time.time_ns()
        for fault in faults:
            self._run(
                """UPDATE blob SET refs = ?2, orphaned_ns = iif(?2, NULL, coalesce(orphaned_ns, ?3))
                   WHERE id = ?1""",
                fault.id,
                fault.counted,
                now,
            )

    def set_blob_size(self, blob: int, size: int) -> None:
        self._run("UPDATE blob SET size = ? WHERE id = ?", size, blob)

    def delete_stray_pins(self) -> None:
        self._run(
            """DELETE FROM pinned WHERE pin_id NOT IN (SELECT id FROM pin)
               OR NOT EXISTS (SELECT 1 FROM blob AS b WHERE b.id = blob_id)"""
        )

    def delete_orphan(self, blob: int) -> bool:
        """Delete the row of a blob nobody refers to; False for another."""
        return bool(self._run("DELETE FROM blob WHERE id = ? AND refs = 0 RETURNING id", blob))
