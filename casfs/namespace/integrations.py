"""Integrations (to Maven: snapshots) of which there are many: what their clean-up asks of the rows."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from casfs.namespace.table import Table, typed


class Series(NamedTuple):
    """What counts together: snapshots of one base revision, for one classifier and extension."""

    repository: int
    organisation: str
    module: str
    base: str
    classifier: str
    extension: str


class IntegrationFile(NamedTuple):
    """A name in a series, and times of its inode; None where that is not committed yet."""

    parent: int
    name: bytes
    revision: str
    integration: str
    companion: str
    mtime_ns: int | None
    ctime_ns: int | None


_SERIES = "repository = ?1 AND snapshot = 1 AND integration <> ''"


class IntegrationRows(Table):
    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def crowded(self, repository: int, most: int) -> list[Series]:
        """Series of a repository with more than `most` snapshots."""
        rows = self._execute(
            f"""SELECT repository, organisation, module, base, classifier, extension FROM artifact
                WHERE {_SERIES} AND companion = ''
                GROUP BY organisation, module, base, classifier, extension
                HAVING count(DISTINCT revision) > ?2""",
            (repository, most),
        )
        return typed(rows, Series)

    def files(self, series: Series) -> list[IntegrationFile]:
        """All of a series, with what accompanies them."""
        rows = self._execute(
            f"""SELECT a.parent, a.name, a.revision, a.integration, a.companion, i.mtime_ns, i.ctime_ns
                FROM artifact AS a JOIN dentry AS d ON d.parent = a.parent AND d.name = a.name
                LEFT JOIN inode AS i ON i.ino = d.ino
                WHERE a.organisation = ?2 AND a.module = ?3 AND +a.{_SERIES}
                AND a.base = ?4 AND a.classifier = ?5 AND a.extension = ?6""",
            series,
        )
        return typed(rows, IntegrationFile)

    def last_change_ns(self, series: Series) -> int | None:
        """When a file of the module was made, or changed, last; None when that is not committed yet."""
        newest: int | None
        uncommitted: int
        newest, uncommitted = self._execute(
            """SELECT max(i.ctime_ns), coalesce(sum(i.ino IS NULL), 0) FROM artifact AS a
               JOIN dentry AS d ON d.parent = a.parent AND d.name = a.name
               LEFT JOIN inode AS i ON i.ino = d.ino
               WHERE a.organisation = ?2 AND a.module = ?3 AND +a.repository = ?1""",
            series[:3],
        ).get
        return None if uncommitted else newest
