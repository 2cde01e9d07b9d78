"""Searches: for files by their contents, properties, sizes and times, and by what paths say of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from casfs.namespace.artifacts import ArtifactRow
from casfs.namespace.digests import DigestRow
from casfs.namespace.table import Table, typed

WILD = "*?["
"""A text with one of these is a pattern, as in glob(7); `*` stands for any text."""

SAMPLE = 100
"""Contents that are looked at, to say something of all."""

BLAKE3 = "blake3"
"""Of this one the digest is in the blob's own row."""


class DigestRange(NamedTuple):
    """Digests of an algorithm from `low` to `high`; `empty`: that of the empty content, which is no blob, is
    one of them."""

    algorithm: str
    low: bytes
    high: bytes
    empty: bool = False
    negated: bool = False


class PropertyMatch(NamedTuple):
    """A property: with that value, or one of that pattern; None for any."""

    key: str
    value: str | None = None
    negated: bool = False


class TokenMatch(NamedTuple):
    """A column of `artifact`, and what it has to be: a text, or a pattern (WILD)."""

    column: str
    value: str
    negated: bool = False


class Wanted(NamedTuple):
    """What is looked for: all of it has to hold. `repositories`: inode numbers; () for any. `artifacts`: only
    what is one; `companions`: what accompanies an artifact is one too, as checksums and signatures do.
    Bytes, and nanoseconds of the last modification: `larger` and `smaller`, `before_ns` and `since_ns`."""

    digests: tuple[DigestRange, ...] = ()
    properties: tuple[PropertyMatch, ...] = ()
    tokens: tuple[TokenMatch, ...] = ()
    repositories: tuple[int, ...] = ()
    artifacts: bool = False
    companions: bool = False
    larger: int | None = None
    smaller: int | None = None
    before_ns: int | None = None
    since_ns: int | None = None


class FileRow(NamedTuple):
    """A name of a regular file, and what its inode says (schema.sql)."""

    parent: int
    name: bytes
    ino: int
    size: int
    blob_id: int | None
    atime_ns: int
    mtime_ns: int
    btime_ns: int


class Content(NamedTuple):
    """A blob."""

    id: int
    digest: bytes
    size: int


class Digested(NamedTuple):
    """A digest, and a blob that has it."""

    value: bytes
    blob: int


class Owner(NamedTuple):
    """A value of a property, and the inode that has it."""

    value: str
    ino: int


class Subdirectory(NamedTuple):
    name: bytes
    ino: int


class Value(NamedTuple):
    """Of a property."""

    key: str
    value: str


class Revision(NamedTuple):
    """Of a module in a repository. `snapshot`: 1 where a path says that it is one."""

    revision: str
    snapshot: int


Hit = tuple[FileRow, ArtifactRow | None]
"""`ArtifactRow` where artifacts are looked for."""

Statement = tuple[str, tuple[int | str | bytes, ...]]
"""SQL, and its values."""

_FILE = "d.parent, d.name, d.ino, i.size, i.blob_id, i.atime_ns, i.mtime_ns, i.btime_ns"
_ARTIFACT = "CROSS JOIN artifact AS a ON a.parent = d.parent AND a.name = d.name"

# By module alone: the index begins with the organisation, of which there are far fewer than artifacts: each
# is looked up.
_ORGANISATIONS = """
WITH RECURSIVE known (organisation) AS (
    SELECT min(organisation) FROM artifact
    UNION ALL
    SELECT (SELECT min(organisation) FROM artifact WHERE organisation > k.organisation)
    FROM known AS k WHERE k.organisation IS NOT NULL)
"""


class Searches(Table):
    """Of a namespace of which each query sees the last commit. No transaction is open between them: who reads
    slowly what was found keeps nobody from anything. What may be long comes in parts: of no more than
    `limit`, behind `after`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    # Files that are as wanted

    def in_directory(self, directory: int, wanted: Wanted, after: bytes, limit: int) -> list[Hit]:
        """Those in a directory, by name, behind the name `after`."""
        return self._hits(directory_query(directory, wanted, after, limit), wanted)

    def of_inodes(self, inos: Iterable[int], wanted: Wanted) -> list[Hit]:
        """Those that have these inode numbers, in that order: each name of them."""
        return self._hits(inodes_query(inos, wanted), wanted)

    def _hits(self, statement: Statement, wanted: Wanted) -> list[Hit]:
        rows: Any = self._execute(*statement).fetchall()
        if not wanted.artifacts:
            return [(row, None) for row in typed(rows, FileRow)]
        width = len(FileRow._fields)
        files = typed([row[:width] for row in rows], FileRow)
        return list(zip(files, typed([row[width:] for row in rows], ArtifactRow), strict=True))

    # Where they may be found: what an index says

    def directories(self, wanted: Wanted) -> list[int]:
        """Directories that have names of artifacts like that, and maybe others."""
        return self._numbers(directories_query(wanted))

    def contents(self, wanted: DigestRange, after: Digested, limit: int) -> list[Digested]:
        """In order."""
        return typed(self._execute(*contents_query(wanted, after, limit)), Digested)

    def inodes_of_blob(self, blob: int, after: int, limit: int) -> list[int]:
        """Files with a content, by inode number."""
        return self._numbers(inodes_of_blob_query(blob, after, limit))

    def inodes_of_blobs(self, blobs: Iterable[int]) -> list[int]:
        """Files with one of these contents, in their order."""
        return self._numbers(inodes_of_blobs_query(blobs))

    def inodes_with_property(self, wanted: PropertyMatch, after: Owner, limit: int) -> list[Owner]:
        """By value and inode number, those that have a property; each once."""
        return typed(self._execute(*property_query(wanted, after, limit)), Owner)

    def count_property(self, wanted: PropertyMatch, limit: int) -> int:
        """How many rows an index has to be asked for; up to `limit`."""
        exact = wanted.value is not None and not is_pattern(wanted.value)
        where, values = ("key = ? AND value = ?", wanted[:2]) if exact else ("key = ?", wanted[:1])
        count: int = self._execute(
            f"SELECT count(*) FROM (SELECT 1 FROM property WHERE {where} LIMIT ?)", (*values, limit)
        ).get
        return count

    def count_artifacts(self, wanted: Wanted, limit: int) -> int:
        """As `count_property`, of what `directories` has to look at."""
        sql, values = directories_query(wanted)
        sql = sql.replace("SELECT DISTINCT a.parent", "SELECT count(*) FROM (SELECT 1")
        count: int = self._execute(f"{sql} LIMIT ?)", (*values, limit)).get
        return count

    def subdirectories(self, directory: int) -> list[Subdirectory]:
        """By no order."""
        rows = self._execute(
            "SELECT name, ino FROM dentry INDEXED BY dentry_directory WHERE parent = ? AND type = 4",
            (directory,),
        )
        return typed(rows, Subdirectory)

    # More of what was found

    def shared_contents(self, after: int, limit: int) -> list[Content]:
        """Blobs that several files have, or one with several names, by id."""
        rows = self._execute(
            """SELECT id, blake3, size FROM blob AS b WHERE id > ? AND (refs > 1 OR EXISTS
                   (SELECT 1 FROM inode AS i WHERE i.blob_id = b.id AND i.nlink > 1)) ORDER BY id LIMIT ?""",
            (after, limit),
        )
        return typed(rows, Content)

    def revisions(self, repository: int, organisation: str, module: str, wanted: Wanted) -> list[Revision]:
        """Of one module in one repository, as far as they are wanted."""
        return typed(self._execute(*revisions_query(repository, organisation, module, wanted)), Revision)

    def properties_of(self, ino: int) -> dict[str, list[str]]:
        """Their values, by key."""
        rows = self._execute("SELECT key, value FROM property WHERE ino = ?", (ino,))
        found: dict[str, list[str]] = {}
        for key, value in typed(rows, Value):
            found.setdefault(key, []).append(value)
        return found

    def digests_of(self, blob: int) -> dict[str, bytes]:
        """All that are known of a content, by algorithm."""
        rows = self._execute(
            """SELECT ?1, 'blake3', blake3 FROM blob WHERE id = ?1
               UNION ALL SELECT blob_id, algorithm, value FROM blob_digest WHERE blob_id = ?1""",
            (blob,),
        )
        return {row.algorithm: row.value for row in typed(rows, DigestRow)}

    def has_digests(self, algorithm: str) -> bool:
        """Does any content have that one?"""
        return algorithm == BLAKE3 or bool(
            self._execute("SELECT 1 FROM blob_digest WHERE algorithm = ? LIMIT 1", (algorithm,)).get
        )

    def lacks_digests(self, algorithm: str) -> bool:
        """Is there a content without that one, among the oldest and the newest? One that is computed later is
        so of all contents in order."""
        return algorithm != BLAKE3 and any(
            self._execute(
                f"""SELECT 1 FROM (SELECT id FROM blob ORDER BY id {order} LIMIT {SAMPLE}) AS b
                    WHERE NOT EXISTS (SELECT 1 FROM blob_digest AS g
                        WHERE g.blob_id = b.id AND g.algorithm = ?) LIMIT 1""",
                (algorithm,),
            ).get
            for order in ("ASC", "DESC")
        )

    def _numbers(self, statement: Statement) -> list[int]:
        rows: Any = self._execute(*statement).fetchall()
        return [row[0] for row in rows]


def is_pattern(text: str) -> bool:
    return any(character in text for character in WILD)


# The statements


def directory_query(directory: int, wanted: Wanted, after: bytes, limit: int) -> Statement:
    where, values = _where(wanted)
    sql = f"""SELECT {_columns(wanted)} FROM dentry AS d CROSS JOIN inode AS i ON i.ino = d.ino
        {_ARTIFACT * wanted.artifacts}
        WHERE d.parent = ? AND d.name > ? AND d.type = 8{where} ORDER BY d.name LIMIT ?"""
    return sql, (directory, after, *values, limit)


def inodes_query(inos: Iterable[int], wanted: Wanted) -> Statement:
    where, values = _where(wanted)
    sql = f"""SELECT {_columns(wanted)} FROM json_each(?) AS s CROSS JOIN inode AS i ON i.ino = s.value
        CROSS JOIN dentry AS d ON d.ino = i.ino {_ARTIFACT * wanted.artifacts} WHERE d.type = 8{where}"""
    return sql, (json.dumps(list(inos)), *values)


def directories_query(wanted: Wanted) -> Statement:
    conditions = _tokens(wanted)
    exact = {column for column, *_, is_exact in conditions if is_exact}
    start, source = "SELECT DISTINCT a.parent", "FROM artifact AS a"
    if "module" in exact and "organisation" not in exact:
        start = f"{_ORGANISATIONS} {start}"
        source = "FROM known AS k CROSS JOIN artifact AS a ON a.organisation = k.organisation"
    # A plus keeps SQLite from an index: that of the module leaves less than that of the repository.
    ignored = "repository" if exact & {"module", "organisation"} else ""
    terms = [
        condition.replace("a.", "+a.", 1) if column == ignored else condition
        for column, condition, *_ in conditions
    ]
    values = tuple(value for _, _, values, _ in conditions for value in values)
    return f"{start} {source}{' WHERE ' * bool(terms)}{' AND '.join(terms)}", values


def contents_query(wanted: DigestRange, after: Digested, limit: int) -> Statement:
    if wanted.algorithm == BLAKE3:
        sql = (
            "SELECT blake3, id FROM blob WHERE blake3 BETWEEN ? AND ? AND blake3 > ? ORDER BY blake3 LIMIT ?"
        )
        return sql, (wanted.low, wanted.high, after[0], limit)
    sql = """SELECT value, blob_id FROM blob_digest
        WHERE algorithm = ? AND value BETWEEN ? AND ? AND (value, blob_id) > (?, ?)
        ORDER BY value, blob_id LIMIT ?"""
    return sql, (wanted.algorithm, max(wanted.low, after[0]), wanted.high, *after, limit)


def inodes_of_blob_query(blob: int, after: int, limit: int) -> Statement:
    sql = "SELECT ino FROM inode WHERE blob_id = ? AND ino > ? ORDER BY ino LIMIT ?"
    return sql, (blob, after, limit)


def inodes_of_blobs_query(blobs: Iterable[int]) -> Statement:
    sql = "SELECT i.ino FROM json_each(?) AS s CROSS JOIN inode AS i ON i.blob_id = s.value"
    return sql, (json.dumps(list(blobs)),)


def property_query(wanted: PropertyMatch, after: Owner, limit: int) -> Statement:
    key, value, _ = wanted
    if value is not None and not is_pattern(value):
        sql = "SELECT value, ino FROM property WHERE key = ? AND value = ? AND ino > ? ORDER BY ino LIMIT ?"
        return sql, (key, value, after[1], limit)
    # Of several values of one file the first counts.
    like, values = ("", ()) if value is None else (" AND {}.value GLOB ?", (value,))
    sql = f"""SELECT p.value, p.ino FROM property AS p WHERE p.key = ? AND (p.value, p.ino) > (?, ?)
        {like.format("p")} AND NOT EXISTS (SELECT 1 FROM property AS q WHERE q.ino = p.ino AND q.key = p.key
            AND q.value < p.value{like.format("q")}) ORDER BY p.value, p.ino LIMIT ?"""
    return sql, (key, *after, *values, *values, limit)


def revisions_query(repository: int, organisation: str, module: str, wanted: Wanted) -> Statement:
    conditions = [each for each in _tokens(wanted) if each[0] == "revision"]
    where = "".join(f" AND {condition}" for _, condition, *_ in conditions)
    sql = f"""SELECT revision, max(snapshot) FROM artifact AS a
        WHERE organisation = ? AND module = ? AND +repository = ? AND companion = ''{where}
        AND EXISTS (SELECT 1 FROM dentry AS d WHERE d.parent = a.parent AND d.name = a.name AND d.type = 8)
        GROUP BY revision"""
    values = tuple(value for _, _, values, _ in conditions for value in values)
    return sql, (organisation, module, repository, *values)


# Their parts

_Condition = tuple[str, str, tuple[int | str, ...], bool]
"""Column, condition, values, and whether an index can answer it."""


def _columns(wanted: Wanted) -> str:
    return f"{_FILE}, a.*" if wanted.artifacts else _FILE


@functools.lru_cache(maxsize=64)
def _where(wanted: Wanted) -> Statement:
    """Conditions on d, i, and on a where artifacts are looked for; each after an AND."""
    parts = [(*_has_digest(digest), False) for digest in wanted.digests]
    parts += [(*_has_property(key, value), negated) for key, value, negated in wanted.properties]
    for condition, number in (
        ("i.size > ?", wanted.larger),
        ("i.size < ?", wanted.smaller),
        ("i.mtime_ns < ?", wanted.before_ns),
        ("i.mtime_ns >= ?", wanted.since_ns),
    ):
        if number is not None:
            parts.append((condition, (number,), False))
    if wanted.artifacts:
        parts += [(f"+{condition}", values, False) for _, condition, values, _ in _tokens(wanted)]
    where = "".join(f" AND {'NOT ' * negated}({condition})" for condition, _, negated in parts)
    return where, tuple(value for _, values, _ in parts for value in values)


def _has_digest(wanted: DigestRange) -> Statement:
    """Of a content whose digest is not known nothing holds, negated or not."""
    between = f"{'NOT ' * wanted.negated}BETWEEN ? AND ?"
    empty = " OR i.size = 0" * (wanted.empty != wanted.negated)
    if wanted.algorithm == BLAKE3:
        sql = f"EXISTS (SELECT 1 FROM blob AS b WHERE b.id = i.blob_id AND +b.blake3 {between}){empty}"
        return sql, (wanted.low, wanted.high)
    sql = f"""EXISTS (SELECT 1 FROM blob_digest AS g WHERE g.blob_id = i.blob_id AND g.algorithm = ?
        AND +g.value {between}){empty}"""
    return sql, (wanted.algorithm, wanted.low, wanted.high)


def _has_property(key: str, value: str | None) -> Statement:
    sql = "EXISTS (SELECT 1 FROM property AS p WHERE p.ino = d.ino AND p.key = ?"
    if value is None:
        return f"{sql})", (key,)
    return f"{sql} AND +p.value {'GLOB' if is_pattern(value) else '='} ?)", (key, value)


def _tokens(wanted: Wanted) -> list[_Condition]:
    conditions: list[_Condition] = []
    if wanted.repositories:
        marks = ", ".join("?" * len(wanted.repositories))
        conditions.append(("repository", f"a.repository IN ({marks})", wanted.repositories, True))
    for column, value, negated in wanted.tokens:
        exact = not is_pattern(value)
        operator = ("<>" if negated else "=") if exact else ("NOT GLOB" if negated else "GLOB")
        conditions.append((column, f"a.{column} {operator} ?", (value,), exact and not negated))
    if not wanted.companions:
        conditions.append(("companion", "a.companion = ''", (), True))
    return conditions
