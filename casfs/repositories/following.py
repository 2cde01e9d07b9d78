"""Rows that follow from names: what the path of a file says of it.

Whoever changes a name does not wait for that. The name is noted in memory, and its rows are written in bulk
in the same group, at the latest before its COMMIT. A row is made of what is there by then, whatever has
happened to the name meanwhile, so that to follow a name twice, or one that was not changed, changes nothing.

Where a directory is another one's, or has another layout, everything below it is followed, in steps: what is
still to be done is in the table `follow`, committed together with the change.
"""

from __future__ import annotations

import logging
import stat
from itertools import islice

import msgspec

from casfs.fs.core import Core
from casfs.layouts.coordinates import Coordinates
from casfs.namespace.artifacts import ArtifactRow
from casfs.repositories.registry import Registry, Repository

log = logging.getLogger(__name__)

STEP = 256
"""Names that are followed before other requests are served: about 5 ms."""

Name = tuple[int, bytes]
"""(directory, name)."""

_FILE = stat.S_IFREG >> 12
_DIRECTORY = stat.S_IFDIR >> 12


class Follower:
    """Owned by the thread that runs the file system.

    `_names`: what has happened to them is not in the rows yet. `_directories`: those of the table `follow`,
    the last one first, with the cookie of the last name that was followed.
    """

    def __init__(self, core: Core, registry: Registry) -> None:
        namespace = core.store.namespace
        self._core = core
        self._registry = registry
        self._places = core.places
        self._dentries = namespace.dentries
        self._artifacts = namespace.artifacts
        self._rows = namespace.repositories
        self._savepoint = namespace.savepoint
        self._names: dict[Name, None] = {}
        self._moved: set[int] = set()
        self._more = core.scheduler.event()
        self._directories: dict[int, int] = dict(self._rows.to_follow())
        registry.subscribe(self._repositories_changed)

    def _repositories_changed(self) -> None:
        """Names are only noted while there is something that follows from them."""
        wanted = any(repository.layout for repository in self._registry.repositories.values())
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

    def access_changed(self, ino: int) -> None:
        """A directory has another mode, owner or access list."""

    def follow(self, directory: int) -> None:
        """Follow everything below a directory anew. Inside a transaction."""
        self._rows.follow(directory)
        self._directories.pop(directory, None)
        self._directories[directory] = 0
        self._more.set()
        self._core.group.count()
        self._repositories_changed()

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
            found = {name: self._dentries.entry(*name) for name in names}
            self._write([(*name, entry is not None and entry[2] == _FILE) for name, entry in found.items()])
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
        names = self._dentries.children(directory, after, limit)
        below = [ino for _, _, ino, type_ in names if type_ == _DIRECTORY]
        self._write([(directory, name, type_ == _FILE) for _, name, _, type_ in names])
        done = len(names) < limit
        with self._savepoint():
            if done:
                self._rows.followed(directory)
            else:
                self._rows.follow(directory, names[-1][0])
            for ino in below:
                self._rows.follow(ino)
        if done:
            del self._directories[directory]
        else:
            self._directories[directory] = names[-1][0]
        self._directories.update(dict.fromkeys(below, 0))
        self._core.group.count(len(names))
        if not self._directories:
            self._repositories_changed()

    async def drain(self) -> None:
        """Follow everything that is noted or behind, in steps. Raises OSError."""
        while self.pending or self._directories:
            await self._core.group.begin()
            self.flush(STEP)
            self.step()
            if self._core.group.must_wait:
                await self._core.group.durable()
            await self._core.scheduler.pause()

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

    def _write(self, names: list[tuple[int, bytes, bool]]) -> None:
        """The rows of names: (directory, name, does it stand for a file?)."""
        rows: list[ArtifactRow] = []
        without: list[Name] = []
        for directory, name, is_file in names:
            row = self._artifact(directory, name) if is_file else None
            if row is None:
                without.append((directory, name))
            else:
                rows.append(row)
        with self._savepoint():
            self._artifacts.remove_all(without)
            self._artifacts.set_all(rows)

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
