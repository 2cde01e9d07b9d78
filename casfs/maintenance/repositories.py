"""Which repositories and layouts a store has, in use or not, as its last commit left it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from casfs.fs.listing import DT_DIR
from casfs.layouts.builtin import DEFINITIONS
from casfs.layouts.layout import Layout, prepare
from casfs.namespace.namespace import Namespace
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories.registry import RepositoryKind, stored_layouts
from casfs.repositories.rules import Rules, decode
from casfs.store import Store
from casfs.trash.policy import CASFS
from casfs.types import ROOT_INO

EVERYTHING = 1 << 62


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """A directory in the root. `members`: what a virtual one shows, in order, or the source of a view;
    `deploy`: where what is written to it goes. `trash_days`: by the trash's rule for it, or for all. `plain`:
    it is a local one only because it is a directory."""

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
        return _repositories(opened.namespace)


def _repositories(namespace: Namespace) -> list[RepositoryFacts]:
    rows = {row.ino: row for row in namespace.repositories.all()}
    members: dict[int, list[int]] = {}
    for member in namespace.repositories.members():
        members.setdefault(member.repository, []).append(member.member)
    days = {rule.directory: rule.days for rule in namespace.trash.rules()}
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
                name,
                row.kind,
                row.layout,
                tuple(names[member] for member in members.get(ino, ()) if member in names),
                None if row.deploy is None else names.get(row.deploy),
                decode(row.rules),
                days.get(name, days[b""]),
                namespace.artifacts.count(ino) if row.layout else 0,
                ino not in rows,
            )
        )
    return found


def takes_plain_directories(store: str) -> bool:
    """May programs make directories in the root? Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return opened.namespace.repositories.takes_plain_directories()


def built_in_layouts() -> list[Layout]:
    return [prepare(definition) for definition in DEFINITIONS]


def layouts(store: str) -> list[Layout]:
    """Those of the store's own. Raises as `Store` does, and LayoutError for a damaged row."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return list(stored_layouts(opened.namespace.repositories).values())
