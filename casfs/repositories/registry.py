"""Which repositories there are: the rows, in memory."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from enum import StrEnum

import msgspec

from casfs.errors import CasfsError, FsError
from casfs.fs.core import Core
from casfs.layouts.builtin import DEFINITIONS, builtin
from casfs.layouts.layout import Layout
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories import rules
from casfs.repositories.damaged import circles, layouts_of
from casfs.repositories.rules import Rules

log = logging.getLogger(__name__)

TOLD = 1000
"""Characters that are logged of what is damaged, at the most."""


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


class Registry:
    """Owned by the thread that runs the file system.

    `repositories`: by the inode number of their directory. A directory in the root that is not among them is
    a local one without a layout. `layouts`: those that are not built in, by name. `damaged`: why a repository
    is not as its row says, which is not written to therefore.
    `takes_plain`: may programs make directories in the root?
    `changed` is called after each change of them.
    """

    def __init__(self, core: Core) -> None:
        self._rows = core.store.namespace.repositories
        self._places = core.places
        self.repositories: dict[int, Repository] = {}
        self.layouts: dict[str, Layout] = {}
        self.damaged: dict[int, str] = {}
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
        self.layouts, bad_layouts = layouts_of(self._rows.layouts())
        self.takes_plain = self._rows.takes_plain_directories()
        members: dict[int, list[int]] = {}
        for member in self._rows.members():
            members.setdefault(member.repository, []).append(member.member)
        damaged = {
            ino: "it shows itself, by way of its members" for circle in circles(members) for ino in circle
        }
        self.repositories = {}
        for row in self._rows.all():
            try:
                if row.ino not in damaged:
                    self.repositories[row.ino] = self._repository(row, members.get(row.ino, []))
                    continue
            except (CasfsError, ValueError) as error:
                damaged[row.ino] = error.message if isinstance(error, CasfsError) else str(error)
            self.repositories[row.ino] = Repository(
                row.ino, RepositoryKind.LOCAL, None, Rules(read_only=True)
            )
        self._tell(damaged, bad_layouts)

    def _tell(self, damaged: dict[int, str], layouts: dict[str, str]) -> None:
        if damaged != self.damaged or layouts:
            what = [f"layout {name}: {why}" for name, why in layouts.items()]
            what += [f"repository {ino} (inode number) is read-only: {why}" for ino, why in damaged.items()]
            if what:
                log.error("%d damaged; see casfs fsck; %s", len(what), "; ".join(what)[:TOLD])
        self.damaged = damaged

    def _repository(self, row: RepositoryRow, members: list[int]) -> Repository:
        """Raises CasfsError, ValueError (an unknown kind)."""
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
