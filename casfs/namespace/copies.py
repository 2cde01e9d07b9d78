"""Copies of the database: taking one of a database in use, making it that of a snapshot, asking one.

The database of a snapshot has the schema of schema.sql, without a log (journal_mode=DELETE), and never
changes. Each inode of it that has content has a blob: none is staged. `blob` has just what its own inodes
refer to, and what was said of the store's blobs and runs (pin, pinned, damage, collection) is not in it. A
release that raises SCHEMA_VERSION has to bring the snapshots to it, too.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apsw

from casfs.namespace.connection import CACHE_KIB, connect, run_script
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table, typed

COPIED_PAGES = 20_000
"""Pages of the database that are copied in one step, about 80 MiB."""

NO_LOG = b"\x01\x01"
"""Bytes 18 and 19 of a database that has no write-ahead log (sqlite.org/fileformat2.html)."""


class StagedRow(NamedTuple):
    """An inode whose content is a staged file: its first `size` bytes."""

    ino: int
    staged: str
    size: int


class SealedRow(NamedTuple):
    """What becomes of one in a snapshot: a blob, by its number in the store and its digest; None: it is
    empty. `allocated`: its bytes on disk."""

    ino: int
    blob_id: int | None
    digest: bytes
    size: int
    allocated: int


class LiveRows(Table):
    """The rows of a database in use as they were when this was made, whatever is committed meanwhile; the log
    grows as long as this is open. For one thread at a time."""

    def __init__(self, path: str) -> None:
        """Raises FormatError, DatabaseError."""
        self._connection = connect(path, readonly=True)
        self._connection.execute("BEGIN")
        run_script(self._connection, "SELECT count(*) FROM meta")

    def staged(self) -> list[StagedRow]:
        """Those that have a name, or a handle maybe: nlink > 0."""
        rows = self._connection.execute(
            "SELECT ino, staged, size FROM inode WHERE staged IS NOT NULL AND nlink > 0"
        ).fetchall()
        return typed(rows, StagedRow)

    def copy_to(self, path: str) -> None:
        """Write a copy into the empty file at `path`. Blocks. By SQLite's backup API, which takes the pages
        that this reader sees (sqlite.org/backup.html)."""
        target = connect(path)
        try:
            # Else all pages are kept in memory until the end: as much as the database has.
            for pragma in ("synchronous = OFF", "cache_spill = ON", "cache_size = -8000"):
                run_script(target, f"PRAGMA {pragma}")
            with target.backup("main", self._connection, "main") as backup:
                while not backup.done:
                    backup.step(COPIED_PAGES)
        finally:
            target.close()
        take_log_away(path)

    def close(self) -> None:
        self._connection.close()


def fold_log(path: str) -> None:
    """Bring what the log beside a copy has into it; there is no log afterwards. Raises OSError,
    FormatError."""
    connection = connect(path)
    try:
        run_script(connection, "PRAGMA synchronous = OFF")
        run_script(connection, "SELECT count(*) FROM meta")
    finally:
        connection.close()  # the last one: SQLite moves the log into the database, and removes it
    take_log_away(path)


def take_log_away(path: str) -> None:
    """A database that nobody uses, of which all is in its file, has no log any more."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(fd, NO_LOG, 18)
    finally:
        os.close(fd)


_UNKEPT = ("pin", "pinned", "damage", "collection")
"""Tables whose rows say something of the store, not of what is in it."""


def make_snapshot(path: str, sealed: Sequence[SealedRow]) -> None:
    """Make a copy without a log the database of a snapshot. `sealed`: for each inode that was staged and has
    a name what its content is. Not durable. Blocks. Raises OSError, FormatError."""
    connection = connect(path)
    try:
        for pragma in ("synchronous = OFF", "journal_mode = MEMORY", "locking_mode = EXCLUSIVE"):
            run_script(connection, f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        for table in _UNKEPT:
            connection.execute(f"DELETE FROM {table}")
        _drop_unlinked(connection)
        for row in sealed:
            _set_sealed(connection, row)
        connection.execute("UPDATE inode SET staged = NULL, size = 0, allocated = 0 WHERE staged IS NOT NULL")
        connection.execute(
            """DELETE FROM blob_digest WHERE blob_id IN
               (SELECT id FROM blob INDEXED BY blob_orphan WHERE refs = 0)"""
        )
        connection.execute("DELETE FROM blob WHERE refs = 0")
        connection.execute("COMMIT")
    finally:
        connection.close()


def _drop_unlinked(connection: apsw.Connection) -> None:
    """Inodes that only handles had are in no snapshot."""
    gone = connection.execute("SELECT ino, blob_id FROM inode WHERE nlink = 0").fetchall()
    for ino, blob_id in gone:
        if blob_id is not None:
            connection.execute("UPDATE blob SET refs = max(refs - 1, 0) WHERE id = ?", (blob_id,))
        for table in ("xattr", "property", "inode"):
            connection.execute(f"DELETE FROM {table} WHERE ino = ?", (ino,))


def _set_sealed(connection: apsw.Connection, row: SealedRow) -> None:
    changed = connection.execute(
        """UPDATE inode SET blob_id = ?, size = ?, allocated = ?, staged = NULL
           WHERE ino = ? AND staged IS NOT NULL RETURNING 1""",
        (row.blob_id, row.size, row.allocated, row.ino),
    ).fetchall()
    if changed and row.blob_id is not None:
        connection.execute(
            """INSERT INTO blob (id, blake3, size, refs, created_ns)
               VALUES (?, ?, ?, 1, strftime('%s', 'now') * 1000000000)
               ON CONFLICT (id) DO UPDATE SET refs = refs + 1, orphaned_ns = NULL""",
            (row.blob_id, row.digest, row.size),
        )


def make_live(path: str, damaged: Iterable[tuple[bytes, str]], now_ns: int) -> None:
    """Make a copy of a snapshot's database that of a store, with a log, left cleanly. `damaged`: digests of
    contents that are not there, and why. Not durable. Blocks. Raises FormatError, OSError."""
    connection = connect(path)
    try:
        run_script(connection, "PRAGMA journal_mode = WAL")
        run_script(connection, "PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        for digest, reason in damaged:
            connection.execute(
                "INSERT OR REPLACE INTO damage SELECT id, ?, ? FROM blob WHERE blake3 = ?",
                (now_ns, reason, digest),
            )
        connection.execute("DELETE FROM meta WHERE key IN ('contents', 'strays_since_ns')")
        connection.execute(
            "INSERT OR REPLACE INTO meta SELECT 'clean_end', value FROM meta WHERE key = 'next_ino'"
        )
        connection.execute("COMMIT")
    finally:
        connection.close()


HELD_CACHE_KIB = 1_000
"""What is kept of the database of a snapshot that is only asked for digests, at the most: its index above the
leaves, of a million contents. There may be hundreds."""


def open_copy(path: str, cache_kib: int = CACHE_KIB) -> Namespace:
    """The rows of a snapshot's database, to be read only; it never changes, and is not locked. Raises
    FormatError, FormatTooNew, DatabaseError."""
    return Namespace(path, readonly=True, frozen=True, cache_kib=cache_kib)


class HeldDigests(Table):
    """Asks the database of a snapshot which contents it refers to. For one thread at a time."""

    def __init__(self, path: str) -> None:
        """Raises FormatError, DatabaseError."""
        self._namespace = open_copy(path, HELD_CACHE_KIB)
        self._holds = self._namespace.meta("contents") != "no"

    def held(self, digests: Collection[bytes]) -> set[bytes]:
        """Those of the digests that it refers to; none where there are to be no contents."""
        if not self._holds:
            return set()
        query = self._namespace.query
        return {
            digest
            for digest in digests
            if query("SELECT 1 FROM blob WHERE blake3 = ?", (digest,)).get is not None
        }

    def close(self) -> None:
        self._namespace.close()


class Content(NamedTuple):
    """A content that a database refers to, or knows: its number there, its bytes."""

    digest: bytes
    id: int
    size: int


class Figures(NamedTuple):
    """What a database has: `bytes` of its files, `blob_bytes` of their distinct contents."""

    files: int
    directories: int
    bytes: int
    blobs: int
    blob_bytes: int


class Copies(Table):
    """What a snapshot has, asked of its rows."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def contents(self, after: bytes, limit: int) -> list[Content]:
        """The contents with the lowest digests behind `after`, in their order."""
        rows = self._namespace.query(
            "SELECT blake3, id, size FROM blob WHERE blake3 > ? ORDER BY blake3 LIMIT ?", (after, limit)
        ).fetchall()
        return typed(rows, Content)

    def all_contents(self, step: int = 10_000) -> Iterator[Content]:
        """Every content, by its digest; nothing is left half read."""
        after = b""
        while found := self.contents(after, step):
            yield from found
            after = found[-1].digest

    def used(self, digests: Collection[bytes]) -> list[bytes]:
        """Those of the digests that an inode refers to."""
        query = self._namespace.query
        return [
            digest
            for digest in digests
            if query("SELECT 1 FROM blob WHERE blake3 = ? AND refs > 0", (digest,)).get is not None
        ]

    def below(self, ino: int) -> list[Content]:
        """The contents of an inode and of all below it, by their digests."""
        rows = self._namespace.query(
            """WITH RECURSIVE below (ino) AS (
                   VALUES (?) UNION SELECT d.ino FROM below AS b JOIN dentry AS d ON d.parent = b.ino)
               SELECT DISTINCT o.blake3, o.id, o.size FROM below AS b CROSS JOIN inode AS i ON i.ino = b.ino
                   CROSS JOIN blob AS o ON o.id = i.blob_id ORDER BY o.blake3""",
            (ino,),
        ).fetchall()
        return typed(rows, Content)

    def content(self, digest: bytes) -> Content | None:
        """The one of that digest, if it is there."""
        rows = self._namespace.query(
            "SELECT blake3, id, size FROM blob WHERE blake3 = ?", (digest,)
        ).fetchall()
        return typed(rows, Content)[0] if rows else None

    def paths_of(self, blob: int, limit: int) -> list[bytes]:
        """Paths of the files that have a content, by its number here, without a leading slash: up to
        `limit` of them."""
        rows: Any = self._namespace.query(
            "SELECT ino FROM inode INDEXED BY inode_blob WHERE blob_id = ? LIMIT ?", (blob, limit)
        ).fetchall()
        return [path for (ino,) in rows for path in self._namespace.dentries.paths_of(ino)][:limit]

    def figures(self) -> Figures:
        """How much it has. Reads all inodes: 0.3 s for a million."""
        inodes = self._namespace.query(
            """SELECT count(*) FILTER (WHERE mode & 61440 = 32768), count(*) FILTER (WHERE mode & 61440 =
            16384),
                   coalesce(sum(size) FILTER (WHERE mode & 61440 = 32768), 0) FROM inode"""
        ).fetchall()
        blobs = self._namespace.query("SELECT count(*), coalesce(sum(size), 0) FROM blob").fetchall()
        return typed([(*inodes[0], *blobs[0])], Figures)[0]
