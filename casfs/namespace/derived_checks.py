"""What can be wrong with names that casfs keeps, as far as their rows alone say it, found by queries.

Legal are rows of trees, and below directories, that are still to be followed (`follow`, `noted`): they say
what was. Whether the rows are those that follow from their sources is for `maintenance/check/derived.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from casfs.namespace.derived import DerivedRow
from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table, typed
from casfs.types import COOKIE_BITS, HIGHEST_NUMBER

BATCH = 500
"""Names of a directory that are looked at together."""

_NUMBERS = ("parent", "rank", "cookie", "ino", "type", "hidden", "tree", "source_parent")
_NAMES = ("name", "source_name")

_NO_VALUES = " OR ".join(
    (
        *(f"typeof({column}) <> 'integer'" for column in _NUMBERS),
        *(f"typeof({column}) <> 'blob' OR length({column}) > 255" for column in _NAMES),
        *(f"instr({column}, x'2f') OR instr({column}, x'00')" for column in _NAMES),
        *(f"{column} IN (x'2e', x'2e2e')" for column in _NAMES),
        f"max(parent, cookie, ino, tree, source_parent) > {HIGHEST_NUMBER // 2}",
        "min(parent, cookie, ino, tree, source_parent) < 0 OR rank NOT BETWEEN -1 AND 1000000",
        "type NOT IN (0, 1, 2, 4, 6, 8, 10, 12) OR hidden NOT IN (0, 1)",
    )
)

_NOT_KEPT = "typeof(parent) <> 'integer' OR typeof(name) <> 'blob' OR typeof(tree) <> 'integer'"

# What holds a directory has no name; a directory has no source; everything else has both.
_NO_KIND = """CASE
    WHEN d.name = x'' THEN d.hidden = 0 OR d.ino <> 0 OR d.type <> 0 OR iif(d.rank = -1,
        d.cookie <> 0 OR d.source_parent <> 0 OR d.source_name <> x'', d.source_parent = 0)
    WHEN d.type = 4 THEN d.rank <> -1 OR d.ino < 2 OR d.source_parent <> 0 OR d.source_name <> x''
        OR d.cookie < 3
    ELSE d.type = 0 OR d.rank < 0 OR d.ino < 2 OR d.source_parent = 0 OR d.source_name = x''
        OR d.cookie < 3 END"""

_IS_TREE = "EXISTS (SELECT 1 FROM repository AS r WHERE r.ino = {0} AND r.kind <> 'local')"
_IS_FOLLOWED = "EXISTS (SELECT 1 FROM follow AS f WHERE f.ino = d.tree)"

# (what it says, condition on the row `d`)
_FAULTS = (
    ("it is a row that none can be", _NO_KIND),
    (
        "it belongs to no view or virtual repository",
        f"NOT {_IS_FOLLOWED} AND NOT {_IS_TREE.format('d.tree')}",
    ),
    (
        "it lies in no directory of its view or virtual repository",
        """d.parent <> d.tree AND NOT EXISTS (SELECT 1 FROM derived AS p INDEXED BY derived_directory
            WHERE p.ino = d.parent AND p.type = 4 AND p.tree = d.tree)""",
    ),
    (
        "it is shown, and another one has the name, or the other way",
        f"""d.name <> x'' AND NOT {_IS_FOLLOWED} AND d.hidden <> EXISTS (SELECT 1 FROM derived AS o
            WHERE o.parent = d.parent AND o.name = d.name AND (o.rank, o.cookie) < (d.rank, d.cookie))""",
    ),
    (
        "it names a directory that is missing, or has another name",
        """d.type = 4 AND (NOT EXISTS (SELECT 1 FROM inode AS i WHERE i.ino = d.ino AND i.mode >> 12 = 4)
            OR EXISTS (SELECT 1 FROM dentry AS n WHERE n.ino = d.ino)
            OR (SELECT count(*) FROM derived AS o INDEXED BY derived_directory
                WHERE o.ino = d.ino AND o.type = 4) > 1)""",
    ),
    (
        "it names a directory that nothing is in and nothing holds",
        f"""d.type = 4 AND NOT {_IS_FOLLOWED}
            AND NOT EXISTS (SELECT 1 FROM derived AS o WHERE o.parent = d.ino)""",
    ),
    (
        "another name in its directory has its cookie",
        f"""d.hidden = 0 AND NOT {_IS_FOLLOWED} AND (SELECT count(*) FROM derived AS o
            WHERE o.parent = d.parent AND o.cookie = d.cookie AND o.hidden = 0) > 1""",
    ),
    ("it names a directory in itself", "d.type = 4 AND d.ino NOT IN (SELECT ino FROM below)"),
)

_BELOW = """WITH RECURSIVE below (ino) AS (
    SELECT DISTINCT tree FROM derived
    UNION SELECT d.ino FROM below AS b JOIN derived AS d ON d.parent = b.ino WHERE d.type = 4)"""

HIGHEST_COOKIE = 1 << COOKIE_BITS - 1
"""Of a name that a program has made; with a higher one too few would be left for others."""

_SOURCE_COOKIE = f"cookie & {(1 << COOKIE_BITS) - 1}"

COOKIES = f"SELECT cookie FROM dentry UNION ALL SELECT {_SOURCE_COOKIE} FROM derived"
"""Every cookie that was given."""

NAME_OF = """SELECT parent, name FROM dentry WHERE ino = ?1
    UNION ALL SELECT parent, name FROM derived WHERE ino = ?1 AND type = 4 LIMIT 1"""
"""The name of a directory, of whatever kind."""

LOST = """i.mode >> 12 = 4 AND i.nlink <> 0 AND i.ino <> 1
    AND NOT EXISTS (SELECT 1 FROM dentry AS d WHERE d.ino = i.ino)
    AND NOT EXISTS (SELECT 1 FROM dentry AS d WHERE d.parent = i.ino)
    AND NOT EXISTS (SELECT 1 FROM derived AS d INDEXED BY derived_directory
        WHERE d.ino = i.ino AND d.type = 4)
    AND NOT EXISTS (SELECT 1 FROM xattr AS x WHERE x.ino = i.ino)
    AND (EXISTS (SELECT 1 FROM derived AS d WHERE d.parent = i.ino)
        OR EXISTS (SELECT 1 FROM repository AS r JOIN inode AS t ON t.ino = r.ino
            WHERE r.kind <> 'local' AND (t.mode & 511, t.uid, t.gid) = (i.mode & 511, i.uid, i.gid)))"""
"""Of an inode `i`: a directory that no row names and no name of a program is in, and that derived names are
in, or that is as the directories of a tree are."""


class DerivedFault(NamedTuple):
    """A row that is damaged: where, under which name, and what is wrong."""

    parent: int
    name: bytes
    detail: str


class DerivedChecks(Table):
    """Queries over a namespace, which has to stand still meanwhile, as for `Checks`. Iterators must be used
    up before rows are changed."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _rows(self, sql: str, *bindings: Any) -> Iterator[Any]:
        yield from self._namespace.query(sql, bindings)

    def no_rows(self) -> Iterator[str]:
        """Rows with values that none can have, in words. With any of them nothing below can be asked."""
        for rowid, tree in self._rows(f"SELECT quote(parent), quote(tree) FROM derived WHERE {_NO_VALUES}"):
            yield f"a row in directory {rowid:.40}, of tree {tree:.40}, has values that none can have"

    def faults(self) -> Iterator[DerivedFault]:
        """What is wrong with rows, whatever they follow from."""
        cases = " ".join(f"WHEN {condition} THEN {number}" for number, (_, condition) in enumerate(_FAULTS))
        for parent, name, fault in self._rows(
            f"""{_BELOW} SELECT d.parent, d.name, CASE {cases} END AS fault FROM derived AS d
                WHERE fault IS NOT NULL"""
        ):
            yield DerivedFault(parent, name, _FAULTS[fault][0])

    def lost_directories(self) -> Iterator[int]:
        """Inodes of derived directories that no row names."""
        for (ino,) in self._rows(f"SELECT i.ino FROM inode AS i WHERE {LOST}"):
            yield ino

    def with_entries(self) -> Iterator[int]:
        """Directories of trees in which names of programs are: nobody can see those."""
        for (ino,) in self._rows(
            """SELECT p.parent FROM (SELECT DISTINCT parent FROM dentry) AS p
               WHERE EXISTS (SELECT 1 FROM derived AS d INDEXED BY derived_directory
                WHERE d.ino = p.parent AND d.type = 4
                AND NOT EXISTS (SELECT 1 FROM dentry AS n WHERE n.ino = p.parent))
               OR EXISTS (SELECT 1 FROM repository AS r JOIN dentry AS n ON n.ino = r.ino
                WHERE r.ino = p.parent AND r.kind IN ('virtual', 'view') AND n.parent = 1)"""
        ):
            yield ino

    def stray_kept(self) -> Iterator[tuple[Any, Any, Any]]:
        """Rows of `kept` for what is no name, or no tree."""
        yield from self._rows(
            f"""SELECT k.parent, k.name, k.tree FROM kept AS k WHERE {_NOT_KEPT}
                OR NOT {_IS_TREE.format("k.tree")} AND NOT EXISTS (SELECT 1 FROM follow WHERE ino = k.tree)
                OR NOT EXISTS (SELECT 1 FROM dentry AS d WHERE d.parent = k.parent AND d.name = k.name)
                AND NOT EXISTS (SELECT 1 FROM noted AS n WHERE n.parent = k.parent AND n.name = k.name)"""
        )

    def sourceless(self) -> Iterator[DerivedRow]:
        """Rows whose source is missing, or is another one than they say."""
        for row in self._rows(
            f"""SELECT s.* FROM derived AS s
               LEFT JOIN dentry AS d ON d.parent = s.source_parent AND d.name = s.source_name
               WHERE s.source_parent <> 0 AND (d.ino IS NULL OR s.{_SOURCE_COOKIE} <> d.cookie
                OR s.name <> x'' AND (s.ino <> d.ino OR s.type <> d.type)
                OR s.name = x'' AND d.type <> 4)"""
        ):
            yield DerivedRow(*row)

    def names(self, directory: int) -> Iterator[tuple[list[tuple[bytes, int, int, int]], list[DerivedRow]]]:
        """The names (name, cookie, inode number, type) of a directory of a repository, and what is derived
        from them, some at a time."""
        name = b""
        while True:
            names = list(
                self._rows(
                    """SELECT name, cookie, ino, type FROM dentry WHERE parent = ? AND name > ?
                       ORDER BY name LIMIT ?""",
                    directory,
                    name,
                    BATCH,
                )
            )
            if not names:
                return
            rows = self._rows(
                """SELECT * FROM derived WHERE source_parent = ? AND source_parent <> 0
                   AND source_name > ? AND source_name <= ?""",
                directory,
                name,
                names[-1][0],
            )
            yield names, typed(rows, DerivedRow)
            name = names[-1][0]

    def source_directories(self) -> Iterator[int]:
        """Directories from whose names something is derived, in trees that are not still to be made."""
        for (directory,) in self._rows(
            f"""SELECT DISTINCT d.source_parent FROM derived AS d
                WHERE d.source_parent <> 0 AND NOT {_IS_FOLLOWED}"""
        ):
            yield directory

    def place_of(self, directory: int) -> tuple[int, bytes] | None:
        """(directory, name) that a derived directory has."""
        sql = "SELECT parent, name FROM derived WHERE ino = ? AND type = 4 LIMIT 1"
        return next(self._rows(sql, directory), None)

    def kept_in(self, directory: int) -> set[tuple[bytes, int]]:
        """(name, tree) of names that trees show at the same path."""
        return set(self._rows("SELECT name, tree FROM kept WHERE parent = ?", directory))

    def level(self, ino: int) -> tuple[int, int, int, dict[bytes, bytes]] | None:
        """Permissions, uid, gid and access list of a directory."""
        row = next(self._rows("SELECT mode & 4095, uid, gid FROM inode WHERE ino = ?", ino), None)
        if row is None:
            return None
        lists = self._rows(
            "SELECT name, value FROM xattr WHERE ino = ? AND name = CAST('system.posix_acl_access' AS BLOB)",
            ino,
        )
        return *row, dict(lists)


class DerivedRepairs(Table):
    """Changes that only a repair makes. All inside one write transaction."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _run(self, sql: str, *bindings: Any) -> None:
        self._namespace.query(sql, bindings).fetchall()

    def wipe(self) -> None:
        """Remove all rows, and the inodes of the directories that they name: each tree is made anew. The
        links of what was above those directories are to be counted then."""
        for statement in (
            "DROP TABLE IF EXISTS temp.wiped",
            f"""CREATE TEMP TABLE wiped AS SELECT i.ino FROM inode AS i WHERE {LOST} UNION
                SELECT i.ino FROM derived AS d JOIN inode AS i ON i.ino = d.ino
                WHERE d.type = 4 AND i.ino <> 1 AND i.mode >> 12 = 4
                AND NOT EXISTS (SELECT 1 FROM dentry AS n WHERE n.ino = i.ino)
                AND NOT EXISTS (SELECT 1 FROM dentry AS n WHERE n.parent = i.ino)""",
            "DELETE FROM inode WHERE ino IN (SELECT ino FROM temp.wiped)",
            "DELETE FROM xattr WHERE ino IN (SELECT ino FROM temp.wiped)",
            "DROP TABLE temp.wiped",
            "DELETE FROM derived",
            "INSERT OR REPLACE INTO follow SELECT ino, 0 FROM repository WHERE kind <> 'local'",
        ):
            self._run(statement)

    def remove_no_rows(self) -> None:
        """Remove rows with values that a STRICT table cannot have. What is missing then is found later."""
        self._run(f"DELETE FROM derived WHERE {_NO_VALUES}")
        self._run(f"DELETE FROM kept WHERE {_NOT_KEPT}")

    def forget_kept(self, rows: list[tuple[Any, Any, Any]]) -> None:
        for row in rows:
            self._run("DELETE FROM kept WHERE parent IS ? AND name IS ? AND tree IS ?", *row)
