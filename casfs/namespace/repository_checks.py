"""What can be wrong with the rows of repositories, and with those that follow from names, found by queries.

Legal are rows of names that are still to be followed (`noted`), or lie below a directory that is (`follow`):
they say what was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from casfs.namespace.namespace import Namespace
from casfs.namespace.table import Table

BATCH = 500
"""Files of a directory that are looked at together."""

# A directory in the root, but for that of the trash.
_IS_REPOSITORY = """EXISTS (SELECT 1 FROM dentry AS d WHERE d.ino = {0} AND d.parent = 1 AND d.type = 4)
    AND {0} IS NOT (SELECT value FROM meta WHERE key = 'casfs_directory')"""


class StrayMember(NamedTuple):
    """A row of `member` that says nothing that can be."""

    repository: int
    position: int
    member: int


class RepositoryChecks(Table):
    """Queries over a namespace, which has to stand still meanwhile, as for `Checks`. Iterators must be used
    up before rows are changed."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _rows(self, sql: str, *bindings: Any) -> Iterator[Any]:
        yield from self._namespace.query(sql, bindings)

    # Repositories

    def stray_repositories(self) -> list[int]:
        """Rows for what is no directory in the root."""
        sql = f"SELECT ino FROM repository WHERE NOT ({_IS_REPOSITORY.format('repository.ino')})"
        return [ino for (ino,) in self._rows(sql)]

    def stray_members(self) -> list[StrayMember]:
        """Members that are no repository, or of what shows none."""
        sql = f"""SELECT repository, position, member FROM member
            WHERE repository NOT IN (SELECT ino FROM repository WHERE kind <> 'local')
            OR NOT ({_IS_REPOSITORY.format("member")})"""
        return [StrayMember(*row) for row in self._rows(sql)]

    def stray_deploys(self) -> list[tuple[int, int]]:
        """(repository, what shall take what is written into it) where that is no repository."""
        sql = f"""SELECT ino, deploy FROM repository
            WHERE deploy IS NOT NULL AND NOT ({_IS_REPOSITORY.format("deploy")})"""
        return list(self._rows(sql))

    # What follows from names

    def followed(self) -> set[int]:
        """Directories that are still to be followed."""
        return {ino for (ino,) in self._rows("SELECT ino FROM follow")}

    def noted(self) -> set[tuple[int, bytes]]:
        """Names that are still to be followed."""
        return set(self._rows("SELECT parent, name FROM noted"))

    def stray_follow(self) -> list[int]:
        """Rows of `follow` for what is no directory. One that has gone is no fault: nothing is below it."""
        sql = "SELECT f.ino FROM follow AS f JOIN inode AS i ON i.ino = f.ino WHERE i.mode >> 12 <> 4"
        return [ino for (ino,) in self._rows(sql)]

    def stray_artifacts(self) -> Iterator[tuple[int, bytes]]:
        """Rows for names that stand for no file."""
        yield from self._rows(
            """SELECT parent, name FROM artifact AS a WHERE NOT EXISTS
                (SELECT 1 FROM dentry AS d WHERE d.parent = a.parent AND d.name = a.name AND d.type = 8)"""
        )

    def artifact_directories(self) -> Iterator[int]:
        """Directories that have names with rows."""
        for (parent,) in self._rows("SELECT DISTINCT parent FROM artifact"):
            yield parent

    def artifacts_in(self, directory: int) -> Iterator[bytes]:
        """Names of files in a directory that have a row."""
        for (name,) in self._rows(
            """SELECT a.name FROM artifact AS a JOIN dentry AS d ON d.parent = a.parent AND d.name = a.name
               WHERE a.parent = ? AND d.type = 8""",
            directory,
        ):
            yield name

    def files(self, directory: int) -> Iterator[tuple[bytes, tuple[Any, ...] | None]]:
        """Names of files in a directory, and the row that each has, with whatever values."""
        name = b""
        while True:
            rows = list(
                self._rows(
                    """SELECT d.name, a.* FROM dentry AS d
                       LEFT JOIN artifact AS a ON a.parent = d.parent AND a.name = d.name
                       WHERE d.parent = ? AND d.name > ? AND d.type = 8 ORDER BY d.name LIMIT ?""",
                    directory,
                    name,
                    BATCH,
                )
            )
            for name, *row in rows:
                yield name, None if row[0] is None else tuple(row)
            if len(rows) < BATCH:
                return

    def directories(self, directory: int) -> list[tuple[int, bytes]]:
        """(inode number, name) of the directories in a directory."""
        return list(self._rows("SELECT ino, name FROM dentry WHERE parent = ? AND type = 4", directory))

    def name_of(self, directory: int) -> tuple[int, bytes] | None:
        """(parent, name) of a directory."""
        return next(self._rows("SELECT parent, name FROM dentry WHERE ino = ? LIMIT 1", directory), None)

    def access_bytes(self, ino: int) -> int:
        """Of the access list of an inode."""
        sql = (
            "SELECT length(value) FROM xattr WHERE ino = ? AND name = CAST('system.posix_acl_access' AS BLOB)"
        )
        return int(next(self._rows(sql, ino), (0,))[0])


class RepositoryRepairs(Table):
    """Changes that only a repair makes. All inside one write transaction."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def _run(self, sql: str, *bindings: Any) -> None:
        self._namespace.query(sql, bindings).fetchall()

    def set_kind(self, ino: int, kind: str) -> None:
        self._run("UPDATE repository SET kind = ? WHERE ino = ?", kind, ino)

    def set_rules(self, ino: int, rules: str) -> None:
        self._run("UPDATE repository SET rules = ? WHERE ino = ?", rules, ino)

    def take_layout(self, ino: int) -> None:
        self._run("UPDATE repository SET layout = NULL WHERE ino = ?", ino)

    def take_deploy(self, ino: int) -> None:
        self._run("UPDATE repository SET deploy = NULL WHERE ino = ?", ino)

    def remove_member(self, repository: int, member: int) -> None:
        self._run("DELETE FROM member WHERE repository = ? AND member = ?", repository, member)

    def forget_artifacts(self) -> None:
        """All rows that follow from names: they are written anew, where `follow` says so."""
        self._run("DELETE FROM artifact")
