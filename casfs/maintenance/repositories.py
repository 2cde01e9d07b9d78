"""Which repositories and layouts a store has, in use or not, as its last commit left it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from casfs.errors import FormatError
from casfs.fs.listing import DT_DIR
from casfs.layouts.builtin import DEFINITIONS
from casfs.layouts.layout import Layout, prepare
from casfs.namespace.namespace import Namespace
from casfs.namespace.repositories import RepositoryRow
from casfs.namespace.usage import below
from casfs.repositories.damaged import layouts_of
from casfs.repositories.registry import RepositoryKind
from casfs.repositories.rules import Rules, decode
from casfs.store import Store
from casfs.trash.policy import CASFS
from casfs.trash.rules import DEFAULT_DAYS
from casfs.types import ROOT_INO

EVERYTHING = 1 << 62


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """A directory in the root. `members`: what a virtual one shows, in order, or the source of a view;
    `deploy`: where what is written to it goes. `trash_days`: by the trash's rule for it, or for all. `plain`:
    it is a local one only because it is a directory. `artifacts`: files that the layout of the local
    repository where they lie has coordinates for, but for those that accompany others; of one that holds
    none, those of them that it shows.
    """

    ino: int
    name: bytes
    kind: str
    layout: str | None
    members: tuple[bytes, ...]
    deploy: bytes | None
    rules: Rules
    trash_days: int
    artifacts: int
    plain: bool


def repositories(store: str) -> list[RepositoryFacts]:
    """By name. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return described(opened.namespace)


def described(namespace: Namespace) -> list[RepositoryFacts]:
    """As `repositories`. Raises DatabaseError, FormatError."""
    rows = {row.ino: row for row in namespace.repositories.all()}
    members: dict[int, list[int]] = {}
    for member in namespace.repositories.members():
        members.setdefault(member.repository, []).append(member.member)
    days = {b"": DEFAULT_DAYS} | {rule.directory: rule.days for rule in namespace.trash.rules()}
    names = {
        ino: name
        for _, name, ino, type_ in namespace.dentries.children(ROOT_INO, 0, EVERYTHING)
        if type_ == DT_DIR and name != CASFS
    }
    found = []
    for ino, name in sorted(names.items(), key=lambda item: item[1]):
        row = rows.get(ino) or RepositoryRow(ino, RepositoryKind.LOCAL, None, None, "{}")
        found.append(
            RepositoryFacts(
                ino,
                name,
                row.kind,
                row.layout,
                tuple(names[member] for member in members.get(ino, ()) if member in names),
                None if row.deploy is None else names.get(row.deploy),
                _rules(row),
                days.get(name, days[b""]),
                namespace.artifacts.count(ino)
                if row.kind == RepositoryKind.LOCAL
                else namespace.derived.artifacts(ino),
                ino not in rows,
            )
        )
    return found


def _rules(row: RepositoryRow) -> Rules:
    """Those that it has; where they are damaged, it is not written to (repositories/damaged.py)."""
    try:
        return decode(row.rules)
    except FormatError:
        return Rules(read_only=True)


@dataclass(frozen=True, slots=True)
class Contents:
    """What one repository has. `files`: names of files that it holds, or shows; `bytes`: the sizes of those
    that it holds. Of one that shows others, `hidden`: names that one before has, `left_out`: files that its
    layout has no path for, or that lie in a directory which allows less than it does."""

    files: int
    bytes: int
    hidden: int
    left_out: int


def contents(store: str, repository: RepositoryFacts) -> Contents:
    """As of the last commit. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        namespace = opened.namespace
        if repository.kind == RepositoryKind.LOCAL:
            figures = below(namespace, [repository.ino])[repository.ino]
            return Contents(figures.files, figures.bytes, 0, 0)
        found = {each.name: each for each in described(namespace)}
        sources = _held(found, repository)
        files = sum(figures.files for figures in below(namespace, sources).values())
        shown, hidden = namespace.derived.counts(repository.ino)
        return Contents(shown, 0, hidden, max(0, files - shown - hidden))


def _held(found: dict[bytes, RepositoryFacts], repository: RepositoryFacts) -> set[int]:
    """The local repositories that one shows in the end."""
    sources: set[int] = set()
    seen: set[bytes] = set()
    waiting = [repository.name]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in found:
            continue
        seen.add(name)
        if found[name].kind == RepositoryKind.LOCAL:
            sources.add(found[name].ino)
        waiting += found[name].members
    return sources


def takes_plain_directories(store: str) -> bool:
    """May programs make directories in the root? Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return opened.namespace.repositories.takes_plain_directories()


def built_in_layouts() -> list[Layout]:
    return [prepare(definition) for definition in DEFINITIONS]


def layouts(store: str) -> list[Layout]:
    """Those of the store's own; not those that are damaged, which fsck tells of. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return list(layouts_of(opened.namespace.repositories.layouts())[0].values())
