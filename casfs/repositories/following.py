"""Rows that follow from names: what the path of a file says of it, and its names in views.

Whoever changes a name does not wait for that. The name is noted in memory, and its rows are written in bulk
in the same group, at the latest before its COMMIT. A row is made of what is there by then, whatever has
happened to the name meanwhile, so that to follow a name twice, or one that was not changed, changes nothing.

Where a directory is another one's, or has another layout, everything below it is followed, in steps: what is
still to be done is in the table `follow`, committed together with the change.
"""

from __future__ import annotations

import logging
from itertools import islice

import msgspec

from casfs.fs.core import Core
from casfs.layouts.coordinates import Coordinates
from casfs.namespace.artifacts import ArtifactRow
from casfs.namespace.derived import DIRECTORY
from casfs.repositories.derived import FILE, DerivedNames, Entry
from casfs.repositories.registry import Registry, Repository

log = logging.getLogger(__name__)

STEP = 256
"""Names that are followed before other requests are served: about 5 ms."""

Name = tuple[int, bytes]
"""(directory, name)."""


class Follower:
    """Owned by the thread that runs the file system.

    `_names`: what has happened to them is not in the rows yet. `_directories`: those of the table `follow`,
    the last one first, with the cookie of the last name that was followed.
    """

    def __init__(self, core: Core, registry: Registry, derived: DerivedNames) -> None:
        namespace = core.store.namespace
        self._core = core
        self._registry = registry
        self._places = core.places
        self._dentries = namespace.dentries
        self._artifacts = namespace.artifacts
        self._derived = derived
        self._derived_rows = namespace.derived
        self._rows = namespace.repositories
        self._savepoint = namespace.savepoint
        self._names: dict[Name, None] = {}
        self._moved: set[int] = set()
        self._more = core.scheduler.event()
        self._directories: dict[int, int] = dict(self._rows.to_follow())
        self._started = False
        registry.subscribe(self._repositories_changed)

    def _repositories_changed(self) -> None:
        """A tree that is another one is made anew: its rows go, and what it shows is followed."""
        started = self._started
        new, old = self._derived.read()
        if started:
            for tree in (*old, *new):
                self.follow(tree.ino)
        self._started = True
        self._watch()

    def _watch(self) -> None:
        """Names are only noted while there is something that follows from them."""
        wanted = self._derived.trees or any(
            repository.layout for repository in self._registry.repositories.values()
        )
        self._core.directories.follower = self if wanted or self._directories else None

    # What happens to names: called inside the transaction of it

    def named(self, directory: int, name: bytes) -> None:
        """A name was given, was taken away, or stands for another inode."""
        self._names[directory, name] = None

    def moved(self, directory: int) -> None:
        """A directory has another place."""
        self._moved.add(directory)

    def emptied(self, directory: int) -> None:
        """Names of a directory that has none itself are gone."""
        self._artifacts.remove_below(directory)
        self._derived.remove_sources(directory)
        self._derived.prune()

    def access_changed(self, ino: int) -> None:
        """A directory has another mode, owner or access list. Inside the transaction of that."""
        tree = self._derived.trees.get(ino)
        if tree is not None:
            self._derived.invalidate()
            for source in tree.sources:
                self.follow(source.repository)
        elif self._derived.trees and self._derived.may_show_otherwise(ino):
            self.follow(ino)

    def follow(self, directory: int) -> None:
        """Follow everything below a directory anew; of a tree, make it anew. Inside a transaction."""
        self._rows.follow(directory)
        self._directories.pop(directory, None)
        self._directories[directory] = 0
        self._more.set()
        self._core.group.count()
        self._watch()

    # Writing the rows

    @property
    def pending(self) -> int:
        """Names that have to be followed before the next COMMIT."""
        return len(self._names) + len(self._moved)

    def flush(self, limit: int | None = None) -> None:
        """Follow what was noted, up to `limit` names of it. Inside a transaction. Raises DatabaseError."""
        if self._moved:
            for directory in list(self._moved):
                self.follow(directory)
                self._moved.discard(directory)
        if self._names:
            names = list(islice(self._names, limit))
            self._write([(*name, self._dentries.entry(*name)) for name in names])
            for name in names:
                del self._names[name]

    @property
    def is_behind(self) -> bool:
        """Is there a directory whose names are still to be followed?"""
        return bool(self._directories)

    def step(self, limit: int = STEP) -> None:
        """Follow some names of such a directory. Inside a transaction. Raises DatabaseError."""
        if not self._directories:
            return
        directory, after = next(reversed(self._directories.items()))
        if self._derived.wipe(directory, limit):
            self._core.group.count(limit)
            return
        tree = self._derived.trees.get(directory)
        if tree is not None:
            self._has_followed(directory)
            for source in tree.sources:
                self.follow(source.repository)
            return
        names = self._dentries.children(directory, after, limit)
        below = [ino for _, _, ino, type_ in names if type_ == DIRECTORY]
        self._write([(directory, name, (cookie, ino, type_)) for cookie, name, ino, type_ in names])
        if len(names) < limit:
            self._has_followed(directory)
        else:
            self._rows.follow(directory, names[-1][0])
            self._directories[directory] = names[-1][0]
        for ino in below:
            self.follow(ino)
        self._core.group.count(len(names))

    def _has_followed(self, directory: int) -> None:
        self._rows.followed(directory)
        del self._directories[directory]
        self._watch()

    async def drain(self) -> None:
        """Follow everything that is noted or behind, in steps. Raises OSError."""
        while self.pending or self._directories:
            await self._core.group.begin()
            self.flush(STEP)
            self.step()
            if self._core.group.must_wait:
                await self._core.group.durable()
            await self._core.scheduler.pause()

    def catch_up(self) -> bool:
        """Follow what is noted; False when there is more to be followed, in steps. What is noted is part of
        the open transaction: there is nothing to wait for. Raises DatabaseError."""
        if self._names or self._moved:
            self.flush()
        return not self._directories

    async def run(self) -> None:
        """Follow what is behind, whenever there is something. For one task, until it is cancelled."""
        while True:
            try:
                await self.drain()
            except OSError as error:  # the next commit says it too
                log.warning("what follows from %d directories has to wait: %s", len(self._directories), error)
            else:
                self._more = self._core.scheduler.event()
            await self._more.wait()

    def _write(self, names: list[tuple[int, bytes, Entry | None]]) -> None:
        """The rows of names: (directory, name, what it stands for)."""
        rows: list[ArtifactRow] = []
        without: list[Name] = []
        for directory, name, entry in names:
            row = self._artifact(directory, name) if entry and entry[2] == FILE else None
            if row is None:
                without.append((directory, name))
            else:
                rows.append(row)
        with self._savepoint():
            self._artifacts.remove_all(without)
            self._artifacts.set_all(rows)
            if self._derived.trees:
                self._derived_rows.keep_no_more(
                    [(parent, name) for parent, name, entry in names if not entry]
                )
                for directory, name, entry in names:
                    self._derived.update(directory, name, self._places.of(directory), entry)
                self._derived.prune()

    def _artifact(self, directory: int, name: bytes) -> ArtifactRow | None:
        """What the path of a file says of it."""
        place = self._places.of(directory)
        repository = place and self._registry.repositories.get(place.top)
        if not place or not repository or repository.layout is None:
            return None
        coordinates = repository.layout.parse(place.within + name)
        return None if coordinates is None else _row(directory, name, repository, coordinates)


def _row(directory: int, name: bytes, repository: Repository, found: Coordinates) -> ArtifactRow:
    return ArtifactRow(
        directory,
        name,
        repository.ino,
        found.org,
        found.module,
        found.revision,
        found.base_revision,
        found.file_integration or found.folder_integration,
        int(found.integration),
        found.classifier,
        found.extension,
        found.kind,
        found.companion,
        msgspec.json.encode(dict(found.further)).decode() if found.further else "{}",
    )
