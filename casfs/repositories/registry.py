"""Which repositories there are: the rows, in memory."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from enum import StrEnum

import msgspec

from casfs.errors import FsError
from casfs.fs.core import Core
from casfs.layouts.builtin import DEFINITIONS, builtin
from casfs.layouts.files import from_toml
from casfs.layouts.layout import Layout, prepare
from casfs.namespace.repositories import RepositoryRow, RepositoryRows
from casfs.repositories import rules
from casfs.repositories.rules import Rules

log = logging.getLogger(__name__)


class RepositoryKind(StrEnum):
    """What a repository shows (schema.sql)."""

    LOCAL = "local"
    VIRTUAL = "virtual"
    VIEW = "view"


class Repository(msgspec.Struct, frozen=True):
    """As its row. `ino` is the directory in the root; `members` are those it shows, in order."""

    ino: int
    kind: RepositoryKind
    layout: Layout | None
    rules: Rules
    members: tuple[int, ...] = ()
    deploy: int | None = None


def stored_layouts(rows: RepositoryRows) -> dict[str, Layout]:
    """Those that are not built in, by name. Raises LayoutError for a damaged row."""
    return {
        definition.name: prepare(definition)
        for row in rows.layouts()
        for definition in from_toml(row.definition)
    }


class Registry:
    """Owned by the thread that runs the file system.

    `repositories`: by the inode number of their directory. A directory in the root that is not among them is
    a local one without a layout. `layouts`: those that are not built in, by name.
    `takes_plain`: may programs make directories in the root?
    `changed` is called after each change of them.
    """

    def __init__(self, core: Core) -> None:
        self._rows = core.store.namespace.repositories
        self._places = core.places
        self.repositories: dict[int, Repository] = {}
        self.layouts: dict[str, Layout] = {}
        self.takes_plain = True
        self._subscribers: list[Callable[[], object]] = []
        self._read()

    def subscribe(self, changed: Callable[[], object]) -> None:
        """`changed` is called now, and whenever repositories or layouts have changed."""
        self._subscribers.append(changed)
        changed()

    def read(self) -> None:
        """The rows have changed."""
        self._read()
        for changed in self._subscribers:
            changed()

    def _read(self) -> None:
        self.layouts = stored_layouts(self._rows)
        self.takes_plain = self._rows.takes_plain_directories()
        members: dict[int, list[int]] = {}
        for member in self._rows.members():
            members.setdefault(member.repository, []).append(member.member)
        self.repositories = {
            row.ino: self._repository(row, members.get(row.ino, [])) for row in self._rows.all()
        }

    def _repository(self, row: RepositoryRow, members: list[int]) -> Repository:
        return Repository(
            row.ino,
            RepositoryKind(row.kind),
            None if row.layout is None else self.layout(row.layout),
            rules.decode(row.rules),
            tuple(members),
            row.deploy,
        )

    def layout(self, name: str) -> Layout:
        """A layout of the store, or a built-in one. Raises LayoutError for an unknown name."""
        return self.layouts.get(name) or builtin(name)

    def layout_names(self) -> list[str]:
        return [*(definition.name for definition in DEFINITIONS), *self.layouts]

    def at(self, directory: int) -> Repository | None:
        """The repository that a directory lies in, or is; None for one that has no row."""
        if not self.repositories:
            return None
        place = self._places.of(directory)
        return None if place is None else self.repositories.get(place.top)

    def check_plain_directory(self) -> None:
        """May a program make a directory in the root? Raises FsError EACCES."""
        if not self.takes_plain:
            log.warning("a directory in the root is refused, EACCES: the store takes repositories only")
            raise FsError(errno.EACCES, "the root takes no plain directories; see casfs repo create")
