"""Searches over what paths say of files (schema.sql, artifact)."""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw

from casfs.namespace.artifacts import ArtifactRow
from casfs.namespace.table import Table, typed

WILD = "*?["
"""A text with one of these is a pattern, as in glob(7); `*` stands for any text."""

# By module alone: the index begins with the organisation, of which there are far fewer than artifacts: each
# is looked up.
_ORGANISATIONS = """
WITH RECURSIVE known (organisation) AS (
    SELECT min(organisation) FROM artifact
    UNION ALL
    SELECT (SELECT min(organisation) FROM artifact WHERE organisation > k.organisation)
    FROM known AS k WHERE k.organisation IS NOT NULL)
"""


class Wanted(NamedTuple):
    """What is looked for: texts, or patterns (WILD); None for any. `repositories`: inode numbers; () for any.
    `companions`: also what accompanies an artifact and is none, checksums and signatures."""

    repositories: tuple[int, ...] = ()
    organisation: str | None = None
    module: str | None = None
    revision: str | None = None
    classifier: str | None = None
    extension: str | None = None
    type: str | None = None
    companions: bool = False


class Searches(Table):
    """Of a namespace of which each query sees the last commit. No transaction is open between them: who reads
    slowly what was found keeps nobody from anything."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def directories(self, wanted: Wanted) -> list[int]:
        """Directories that have names of artifacts like that, and maybe others."""
        sql, values = directories_query(wanted)
        rows: Any = self._execute(sql, values).fetchall()
        return [row[0] for row in rows]

    def in_directory(self, directory: int, wanted: Wanted) -> list[ArtifactRow]:
        """By name; not what somebody has removed and nothing has followed yet."""
        terms = _terms(wanted)
        where = "".join(f" AND {term.condition}" for term in terms)
        rows = self._execute(
            f"""SELECT * FROM artifact AS a WHERE parent = ?{where} AND EXISTS (SELECT 1 FROM dentry AS d
                WHERE d.parent = a.parent AND d.name = a.name AND d.type = 8) ORDER BY name""",
            (directory, *_values(terms)),
        )
        return typed(rows, ArtifactRow)


def directories_query(wanted: Wanted) -> tuple[str, tuple[int | str, ...]]:
    """The statement of `Searches.directories`, and its values."""
    terms = _terms(wanted)
    exact = {term.column for term in terms if term.is_exact}
    start, source = "SELECT DISTINCT a.parent", "FROM artifact AS a"
    if "module" in exact and "organisation" not in exact:
        start = f"{_ORGANISATIONS} {start}"
        source = "FROM known AS k CROSS JOIN artifact AS a ON a.organisation = k.organisation"
    # A plus keeps SQLite from an index: that of the module leaves less than that of the repository.
    ignored = "repository" if exact & {"module", "organisation"} else ""
    where = " AND ".join(f"{'+' * (term.column == ignored)}a.{term.condition}" for term in terms)
    return f"{start} {source}{' WHERE ' * bool(terms)}{where}", _values(terms)


def is_pattern(text: str) -> bool:
    return any(character in text for character in WILD)


class _Term(NamedTuple):
    """What a column has to be: `condition` begins with its name."""

    column: str
    condition: str
    values: tuple[int | str, ...]
    is_exact: bool


def _terms(wanted: Wanted) -> list[_Term]:
    terms: list[_Term] = []
    if wanted.repositories:
        marks = ", ".join("?" * len(wanted.repositories))
        terms.append(_Term("repository", f"repository IN ({marks})", wanted.repositories, True))
    for column in ("organisation", "module", "revision", "classifier", "extension", "type"):
        value = getattr(wanted, column)
        if value is not None:
            exact = not is_pattern(value)
            terms.append(_Term(column, f"{column} {'=' if exact else 'GLOB'} ?", (value,), exact))
    if not wanted.companions:
        terms.append(_Term("companion", "companion = ''", (), True))
    return terms


def _values(terms: list[_Term]) -> tuple[int | str, ...]:
    return tuple(value for term in terms for value in term.values)
