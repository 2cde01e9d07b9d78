"""What can be wrong with the rows of a namespace, found by queries over whole tables.

Each method finds one kind of fault and gives the rows that have it, so that memory is needed for what is
wrong, and for the directories. Every fault is found by one method only, as far as that can be. Legal are
inodes without a name and with nlink 0, and what lies below one that is a directory: they are removed at the
next start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from casfs.namespace.collecting import NUMBERED_BLOBS
from casfs.namespace.dentries import Dentry
from casfs.namespace.derived_checks import COOKIES, HIGHEST_COOKIE, LOST, NAME_OF
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table
from casfs.types import DIGEST_SIZE, HIGHEST_NUMBER, ROOT_INO

INTEGRITY_LINES = 20
"""This many lines of SQLite's integrity check are enough to know that a database is damaged."""

TYPES = "(1, 2, 4, 6, 8, 10, 12)"
"""mode >> 12 of a fifo, character device, directory, block device, regular file, symbolic link, socket."""

# directory: every directory. edge: every name of one, derived ones too, and those that are of a directory by
# their type and of no inode. headless: directories nobody names. reached: those below the root, a headless
# one, and something that is no directory, a fault of its own. unlinked: below a headless one that waits for
# its removal. casfs_directory: the one row is /.casfs, if there is one that is not somebody's own.
_TREE = """
DROP TABLE IF EXISTS temp.directory;
DROP TABLE IF EXISTS temp.edge;
DROP TABLE IF EXISTS temp.headless;
DROP TABLE IF EXISTS temp.reached;
DROP TABLE IF EXISTS temp.unlinked;
DROP TABLE IF EXISTS temp.casfs_directory;
CREATE TEMP TABLE directory (ino INTEGER PRIMARY KEY, nlink INTEGER);
INSERT INTO directory SELECT ino, nlink FROM inode WHERE mode >> 12 = 4;
CREATE TEMP TABLE edge (parent INTEGER, ino INTEGER);
INSERT INTO edge SELECT d.parent, d.ino
    FROM directory AS i CROSS JOIN dentry AS d INDEXED BY dentry_ino ON d.ino = i.ino;
INSERT INTO edge SELECT d.parent, d.ino FROM dentry AS d
    WHERE d.type = 4 AND NOT EXISTS (SELECT 1 FROM inode AS i WHERE i.ino = d.ino);
INSERT INTO edge SELECT parent, ino FROM derived WHERE type = 4;
CREATE INDEX temp.edge_parent ON edge (parent, ino);
CREATE INDEX temp.edge_ino ON edge (ino, parent);
CREATE TEMP TABLE headless (ino INTEGER PRIMARY KEY, nlink INTEGER);
INSERT INTO headless SELECT ino, nlink FROM directory AS i
    WHERE ino <> 1 AND NOT EXISTS (SELECT 1 FROM edge AS e WHERE e.ino = i.ino);
CREATE TEMP TABLE reached (ino INTEGER PRIMARY KEY);
INSERT INTO reached
    WITH RECURSIVE below (ino) AS (
        SELECT 1
        UNION SELECT ino FROM headless
        UNION SELECT e.parent FROM edge AS e
            WHERE NOT EXISTS (SELECT 1 FROM directory AS i WHERE i.ino = e.parent)
            AND NOT EXISTS (SELECT 1 FROM edge AS above WHERE above.ino = e.parent)
        UNION SELECT e.ino FROM below AS b JOIN edge AS e ON e.parent = b.ino)
    SELECT ino FROM below;
CREATE TEMP TABLE unlinked (ino INTEGER PRIMARY KEY);
INSERT INTO unlinked
    WITH RECURSIVE below (ino) AS (
        SELECT ino FROM headless WHERE nlink = 0
        UNION SELECT e.ino FROM below AS b JOIN edge AS e ON e.parent = b.ino)
    SELECT ino FROM below;
CREATE TEMP TABLE casfs_directory (ino INTEGER PRIMARY KEY);
INSERT INTO casfs_directory SELECT d.ino FROM dentry AS d JOIN meta AS m ON m.value = d.ino
    WHERE m.key = 'casfs_directory' AND d.parent = 1 AND d.name = CAST('.casfs' AS BLOB) AND d.type = 4;
"""

_TRASH = """WITH RECURSIVE below (ino) AS (
    SELECT ino FROM casfs_directory UNION SELECT e.ino FROM below AS b JOIN edge AS e ON e.parent = b.ino)
"""

NUMBERED = {
    "inode": (
        *((table, "ino") for table in ("inode", "dentry", "xattr", "property", "trash")),
        *((table, "ino") for table in ("repository", "locked")),
        *(("repository", "deploy"), ("member", "repository"), ("member", "member")),
        *(("dentry", "parent"), ("kept", "parent"), ("kept", "tree")),
    ),
    "blob": (*NUMBERED_BLOBS, ("inode", "blob_id")),
}
"""Where the numbers of inodes and of blobs are."""

SEQUENCES = (("blob", "id"), ("collection", "id"), ("pin", "id"))
"""Tables whose numbers SQLite gives (AUTOINCREMENT)."""

BAD_VALUES = """mode NOT BETWEEN 0 AND 65535 OR size < 0 OR allocated < 0
    OR max(nlink, uid, gid, rdev) > 4294967295 OR min(nlink, uid, gid, rdev) < 0"""


class NameFault(NamedTuple):
    """A name and what its inode says: `mode_type` is mode >> 12, None when there is no inode."""

    dentry: Dentry
    mode_type: int | None


class LinkFault(NamedTuple):
    ino: int
    nlink: int
    counted: int


class ContentFault(NamedTuple):
    """An inode whose content cannot be what the row says.

    `fault`: staged (a name no file in staging/ can have), mode (of no known type), stray (content of
    something that is no regular file), target (symbolic link without one), row (its blob has none), size,
    nothing (neither blob nor staged file for its bytes). `expected`: the size it should have, if known.
    """

    ino: int
    fault: str
    size: int
    expected: int | None


class BlobFault(NamedTuple):
    """A blob row whose counts are wrong. `counted`: inodes that refer to it."""

    id: int
    digest: bytes
    refs: int
    counted: int
    orphaned_ns: int | None


class Affected(NamedTuple):
    """Paths in the namespace, from the root with a leading slash: the first ones, and how many in all."""

    paths: tuple[bytes, ...] = ()
    total: int = 0


class Checks(Table):
    """Queries over a namespace, which has to stand still meanwhile: `snapshot`, or a write transaction.

    Iterators must be used up before rows are changed.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _rows(self, sql: str, *bindings: Any) -> Iterator[Any]:
        yield from self._namespace.query(sql, bindings)

    def _value(self, sql: str, *bindings: Any) -> Any:
        return next(self._rows(sql, *bindings), (None,))[0]

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """One commit of a store that may be in use; nobody waits for it. Temporary tables go at its end."""
        list(self._rows("BEGIN"))
        try:
            yield
        finally:
            self._namespace.rollback()

    # The database as such

    def integrity(self, *, deep: bool) -> list[str]:
        """What SQLite has to say against the database; `deep` compares the indexes with the tables too."""
        check = "integrity_check" if deep else "quick_check"
        lines = [row[0] for row in self._rows(f"PRAGMA {check}({INTEGRITY_LINES})")]
        return [] if lines == ["ok"] else lines

    def counters(self) -> Iterator[tuple[str, Any, int]]:
        """Counters in meta that are missing or too low (I7): (key, what it says, least that is right)."""
        for key, first, highest, used in (
            ("next_ino", 2, HIGHEST_NUMBER // 2, "SELECT max(ino) FROM inode"),
            ("next_cookie", 3, HIGHEST_COOKIE, f"SELECT max(cookie) FROM ({COOKIES})"),
        ):
            least = max(first, (self._value(f"{used} WHERE {key[5:]} <= {highest}") or 0) + 1)
            value = self._value("SELECT value FROM meta WHERE key = ?", key)
            if not isinstance(value, int) or not least <= value < 2 * highest:
                yield key, value, least

    def huge_numbers(self) -> list[tuple[str, int]]:
        """Numbers that leave none for others, or are none, by what they number: "inode", "blob"."""
        return [
            (kind, number)
            for kind, columns in NUMBERED.items()
            for (number,) in self._rows(
                " UNION ".join(
                    f"SELECT {column} FROM {table} WHERE {column} NOT BETWEEN 1 AND {HIGHEST_NUMBER // 2}"
                    for table, column in columns
                )
            )
        ]

    def sequences(self) -> Iterator[tuple[str, int]]:
        """Tables whose next number is taken from one that leaves no others: (table, the highest it has)."""
        for table, column in SEQUENCES:
            if self._value(
                f"SELECT 1 FROM sqlite_sequence WHERE name = ? AND "
                f"(typeof(seq) <> 'integer' OR seq NOT BETWEEN 0 AND {HIGHEST_NUMBER // 2})",
                table,
            ):
                yield table, self._value(f"SELECT coalesce(max({column}), 0) FROM {table}")

    def bad_values(self) -> Iterator[int]:
        """Inodes with a mode, owner, size or count that none can have."""
        yield from (ino for (ino,) in self._rows(f"SELECT ino FROM inode WHERE {BAD_VALUES}"))

    def has_uuid(self) -> bool:
        return isinstance(self._value("SELECT value FROM meta WHERE key = 'uuid'"), str)

    # Names

    def bad_names(self) -> Iterator[Dentry]:
        """Names no file can have."""
        for row in self._rows(
            """SELECT * FROM dentry WHERE length(name) NOT BETWEEN 1 AND 255 OR name IN (x'2e', x'2e2e')
               OR instr(name, x'2f') OR instr(name, x'00')"""
        ):
            yield Dentry(*row)

    def bad_cookies(self) -> Iterator[Dentry]:
        """Names whose cookie a listing would skip, or that another name has: all but one of those."""
        seen = 0
        for row in self._rows(
            """WITH fault AS (SELECT cookie FROM dentry GROUP BY cookie HAVING count(*) > 1
                    OR cookie NOT BETWEEN 3 AND ?)
               SELECT d.* FROM fault AS f JOIN dentry AS d ON d.cookie = f.cookie
               ORDER BY d.cookie, d.parent, d.name""",
            HIGHEST_COOKIE,
        ):
            dentry = Dentry(*row)
            if not 2 < dentry.cookie <= HIGHEST_COOKIE or dentry.cookie == seen:
                yield dentry
            seen = dentry.cookie

    def name_faults(self) -> Iterator[NameFault]:
        """Names whose inode is missing, or of another type than the name says."""
        for *row, mode_type in self._rows(
            f"""SELECT d.*, i.mode >> 12 FROM dentry AS d LEFT JOIN inode AS i ON i.ino = d.ino
                WHERE i.ino IS NULL OR (i.mode >> 12 <> d.type AND i.mode >> 12 IN {TYPES})"""
        ):
            yield NameFault(Dentry(*row), mode_type)

    def has_children(self, ino: int) -> bool:
        return self._value("SELECT 1 FROM dentry WHERE parent = ? LIMIT 1", ino) is not None

    # The tree of directories

    def read_tree(self) -> None:
        """Collect the directories for the methods below; again after each change of them."""
        for statement in _TREE.split(";"):
            list(self._rows(statement))

    def has_root(self) -> bool:
        return self._value("SELECT 1 FROM directory WHERE ino = 1") is not None

    def lost_parents(self) -> Iterator[tuple[int, bool]]:
        """What has entries and is no directory: (inode number, is there an inode of another type).

        Not those that a name stands for, but no inode is there: `name_faults` has them.
        """
        yield from self._rows(
            """SELECT p.parent, i.ino IS NOT NULL FROM (SELECT DISTINCT parent FROM dentry) AS p
               LEFT JOIN inode AS i ON i.ino = p.parent
               WHERE p.parent <> 1 AND coalesce(i.mode >> 12, 0) <> 4 AND
                (i.ino IS NOT NULL OR NOT EXISTS (SELECT 1 FROM dentry AS d WHERE d.ino = p.parent))"""
        )

    def many_names(self) -> Iterator[int]:
        """Directories with more than one name; the root has none."""
        for (ino,) in self._rows(
            """SELECT i.ino FROM directory AS i JOIN edge AS e ON e.ino = i.ino
               GROUP BY i.ino HAVING count(*) > (i.ino <> 1)"""
        ):
            yield ino

    def best_name(self, ino: int) -> tuple[int, bytes] | None:
        """The name, (parent, name), under which a directory is reached from the root without passing
        through itself: the oldest such, else the oldest; None for the root."""
        if ino == ROOT_INO:
            return None
        names: list[tuple[int, bytes]] = list(
            self._rows("SELECT parent, name FROM dentry WHERE ino = ? ORDER BY cookie", ino)
        )
        for parent, name in names:
            if self._value(
                """WITH RECURSIVE below (ino) AS (
                    SELECT 1
                    UNION SELECT e.ino FROM below AS b JOIN edge AS e ON e.parent = b.ino AND e.ino <> ?1)
                   SELECT 1 FROM below WHERE ino = ?2""",
                ino,
                parent,
            ):
                return parent, name
        return names[0]

    def keep_edge(self, ino: int, name: tuple[int, bytes] | None) -> None:
        """A directory has only that name now: what `best_name` needs to know of it."""
        list(self._rows("DELETE FROM temp.edge WHERE ino = ?", ino))
        if name is not None:
            list(self._rows("INSERT INTO temp.edge VALUES (?, ?)", name[0], ino))

    def nameless(self) -> Iterator[int]:
        """Inodes that have links and no name, but for directories that casfs keeps."""
        for (ino,) in self._rows(
            f"""SELECT i.ino FROM headless JOIN inode AS i USING (ino) WHERE i.nlink <> 0 AND NOT ({LOST})
               UNION ALL
               SELECT i.ino FROM inode AS i WHERE i.mode >> 12 <> 4 AND i.nlink <> 0 AND i.ino <> 1
                AND NOT EXISTS (SELECT 1 FROM dentry AS d WHERE d.ino = i.ino)"""
        ):
            yield ino

    def loops(self) -> list[list[int]]:
        """Directories that lie below each other, and so not below the root: each loop upwards."""
        lost = {ino for (ino,) in self._rows("SELECT ino FROM directory EXCEPT SELECT ino FROM reached")}
        found = []
        while lost:
            way: list[int] = []
            above = min(lost)
            while above not in way:
                way.append(above)
                above = self._value("SELECT parent FROM edge WHERE ino = ? LIMIT 1", above)
            loop = way[way.index(above) :]
            found.append(loop)
            lost -= set(self._below(loop[0]))
        return found

    def _below(self, ino: int) -> Iterator[int]:
        for (below,) in self._rows(
            """WITH RECURSIVE below (ino) AS (
                SELECT ?1 UNION SELECT e.ino FROM below AS b JOIN edge AS e ON e.parent = b.ino)
               SELECT ino FROM below""",
            ino,
        ):
            yield below

    # Inodes

    def link_faults(self) -> Iterator[LinkFault]:
        """Inodes with a name, and the root, whose nlink is wrong."""
        for row in self._rows(
            """SELECT i.ino, i.nlink, 2 + (SELECT count(*) FROM edge AS e WHERE e.parent = i.ino)
                - (i.ino = 1 AND EXISTS (SELECT 1 FROM casfs_directory)) AS counted
               FROM directory AS i
               WHERE i.nlink <> counted AND NOT EXISTS (SELECT 1 FROM unlinked AS u WHERE u.ino = i.ino)
               UNION ALL
               SELECT i.ino, i.nlink, count(d.ino) FROM inode AS i
               LEFT JOIN dentry AS d INDEXED BY dentry_ino ON d.ino = i.ino
               WHERE i.mode >> 12 <> 4 GROUP BY i.ino HAVING count(d.ino) > 0 AND i.nlink <> count(d.ino)"""
        ):
            yield LinkFault(*row)

    def stray_trash(self) -> Iterator[int]:
        """Inode numbers of rows of the trash that stand for no file in it. After `read_tree`."""
        for (ino,) in self._rows(
            f"""{_TRASH} SELECT t.ino FROM trash AS t WHERE NOT EXISTS (
                SELECT 1 FROM dentry AS d INDEXED BY dentry_ino
                WHERE d.ino = t.ino AND d.type <> 4 AND d.parent IN (SELECT ino FROM below))"""
        ):
            yield ino

    def untold_trash(self) -> Iterator[int]:
        """Inode numbers of files in the trash that have no row there. After `read_tree`."""
        for (ino,) in self._rows(
            f"""{_TRASH} SELECT DISTINCT d.ino FROM below AS b JOIN dentry AS d ON d.parent = b.ino
                WHERE d.type <> 4 AND NOT EXISTS (SELECT 1 FROM trash AS t WHERE t.ino = d.ino)"""
        ):
            yield ino

    def unlinked(self) -> int:
        """How many inodes wait for their removal at the next start."""
        return int(
            self._value(
                """SELECT count(*) FROM inode AS i WHERE i.nlink = 0
                   AND NOT EXISTS (SELECT 1 FROM dentry AS d WHERE d.ino = i.ino)"""
            )
        )

    def content_faults(self) -> Iterator[ContentFault]:
        for row in self._rows(
            f"""SELECT i.ino, CASE
                WHEN i.staged IN ('', '-lent') OR octet_length(i.staged) NOT BETWEEN 1 AND 64
                    OR instr(i.staged, char(0)) OR substr(i.staged, 1, length(i.staged)
                    - 5 * (substr(i.staged, -5) = '-lent')) GLOB '*[^0-9a-f]*' THEN 'staged'
                WHEN i.mode >> 12 NOT IN {TYPES} THEN 'mode'
                WHEN i.mode >> 12 = 10 AND coalesce(length(i.target), 0) = 0 THEN 'target'
                WHEN i.mode >> 12 <> 8 AND (i.blob_id IS NOT NULL OR i.staged IS NOT NULL) THEN 'stray'
                WHEN i.mode >> 12 = 10 THEN iif(i.size <> length(i.target), 'size', NULL)
                WHEN i.mode >> 12 <> 8 THEN iif(i.size <> 0, 'size', NULL)
                WHEN i.staged IS NOT NULL THEN NULL
                WHEN i.blob_id IS NULL THEN iif(i.size <> 0, 'nothing', NULL)
                WHEN b.id IS NULL THEN 'row'
                WHEN b.size <> i.size THEN 'size'
                END AS fault,
                i.size, CASE i.mode >> 12 WHEN 10 THEN length(i.target) WHEN 8 THEN b.size ELSE 0 END
               FROM inode AS i LEFT JOIN blob AS b ON b.id = i.blob_id WHERE fault IS NOT NULL"""
        ):
            yield ContentFault(*row)

    def staged(self) -> Iterator[tuple[int, str, int]]:
        """(inode number, name in staging/, bytes of it that count) of content that is fsynced, not sealed."""
        yield from self._rows("SELECT ino, staged, size FROM inode WHERE staged IS NOT NULL")

    def is_staged(self, ino: int, name: str) -> bool:
        """Does the last commit still name that staged file?"""
        return bool(self._value("SELECT staged FROM inode WHERE ino = ?", ino) == name)

    # Blobs

    def blob_faults(self) -> Iterator[BlobFault]:
        """Blobs whose count of references (I4), or the time since when it is 0, is wrong."""
        for row in self._rows(
            """SELECT b.id, b.blake3, b.refs,
                (SELECT count(*) FROM inode AS i WHERE i.blob_id = b.id) AS counted, b.orphaned_ns
               FROM blob AS b WHERE b.refs <> counted OR (b.refs = 0) <> (b.orphaned_ns IS NOT NULL)"""
        ):
            yield BlobFault(*row)

    def bad_digests(self) -> Iterator[int]:
        """Ids of blob rows whose digest is none."""
        for (blob_id,) in self._rows("SELECT id FROM blob WHERE length(blake3) <> 32"):
            yield blob_id

    def shard(self, prefix: str) -> dict[bytes, tuple[int, int]]:
        """The blobs whose digest begins with these hex characters: digest -> (id, size)."""
        low, high = bytes.fromhex(prefix.ljust(64, "0")), bytes.fromhex(prefix.ljust(64, "f"))
        rows = self._rows("SELECT blake3, id, size FROM blob WHERE blake3 BETWEEN ? AND ?", low, high)
        return {digest: (blob_id, size) for digest, blob_id, size in rows if len(digest) == DIGEST_SIZE}

    def blob_id(self, digest: bytes) -> int | None:
        blob_id: int | None = self._value("SELECT id FROM blob WHERE blake3 = ?", digest)
        return blob_id

    def digest(self, blob_id: int) -> bytes | None:
        digest = self._value("SELECT blake3 FROM blob WHERE id = ?", blob_id)
        return digest if isinstance(digest, bytes) else None

    def blob_bytes(self) -> int:
        return int(self._value("SELECT coalesce(sum(size), 0) FROM blob"))

    # What is said about blobs

    def damage(self) -> dict[int, tuple[bytes, int, str]]:
        """The blobs that are known to be damaged: id -> (digest, when that was found, reason)."""
        rows = self._rows("SELECT id, blake3, found_ns, reason FROM damage JOIN blob ON id = blob_id")
        return {row[0]: (row[1], row[2], row[3]) for row in rows if isinstance(row[1], bytes)}

    def stray_damage(self) -> Iterator[int]:
        """Ids of blobs that are known to be damaged, and are in no row any more."""
        for (blob_id,) in self._rows("SELECT blob_id FROM damage WHERE blob_id NOT IN (SELECT id FROM blob)"):
            yield blob_id

    def stray_pins(self) -> Iterator[tuple[int, int, bool]]:
        """What holds a blob that is gone, or is of a pin that is: (blob, pin, is there the pin?)."""
        for blob_id, pin_id, pinned in self._rows(
            """SELECT p.blob_id, p.pin_id, EXISTS (SELECT 1 FROM pin WHERE id = p.pin_id) AS pinned
               FROM pinned AS p
               WHERE NOT pinned OR NOT EXISTS (SELECT 1 FROM blob AS b WHERE b.id = p.blob_id)"""
        ):
            yield blob_id, pin_id, bool(pinned)

    # Paths

    def path(self, parent: int, name: bytes) -> bytes:
        """The path of a name; it begins with `(inode N)` when directory N has none."""
        parts = [_shown(name)]
        seen: set[int] = set()
        while parent != ROOT_INO:
            seen.add(parent)
            row = next(self._rows(NAME_OF, parent), None)
            if row is None or row[0] in seen:
                parts.append(b"(inode %d)" % parent)
                return b"/".join(reversed(parts))
            parent, name = row
            parts.append(_shown(name))
        return b"/" + b"/".join(reversed(parts))

    def paths_of_inode(self, ino: int, limit: int) -> Affected:
        if ino == ROOT_INO:
            return Affected((b"/",), 1)
        count = self._value("SELECT count(*) FROM dentry WHERE ino = ?", ino)
        if not count:
            return Affected((b"(inode %d)" % ino,), 1)
        names = list(self._rows("SELECT parent, name FROM dentry WHERE ino = ? LIMIT ?", ino, limit))
        return Affected(tuple(self.path(*name) for name in names), count)

    def paths_of_blob(self, blob_id: int, limit: int) -> Affected:
        shown = "FROM inode AS i JOIN dentry AS d ON d.ino = i.ino WHERE i.blob_id = ?"
        names = list(self._rows(f"SELECT d.parent, d.name {shown} LIMIT ?", blob_id, limit))
        return Affected(
            tuple(self.path(*name) for name in names), self._value(f"SELECT count(*) {shown}", blob_id)
        )


def _shown(name: object) -> bytes:
    """A name as part of a path, also one that a STRICT table cannot have."""
    return name if isinstance(name, bytes) else str(name).encode(errors="replace")
