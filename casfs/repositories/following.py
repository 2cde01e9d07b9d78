"""Rows that follow from names: what the path of a file says of it, and its names in views.

Whoever changes a name does not wait for that. The name is noted in memory, and its rows are written when
nobody else has anything to do, or somebody is going to look at them. A row is made of what is there by then,
whatever has happened to the name meanwhile, so that to follow a name twice, or one that was not changed,
changes nothing. Names that are left at a COMMIT are committed with what was done to them, in `noted`.

Where a directory is another one's, or has another layout, everything below it is followed, in steps: what is
still to be done is in the table `follow`, committed together with the change.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import msgspec

from casfs.fs.core import Core
from casfs.fs.scheduler import Mutex
from casfs.layouts.coordinates import Coordinates
from casfs.namespace.artifacts import ArtifactRow
from casfs.namespace.derived import DIRECTORY
from casfs.repositories.derived import FILE, DerivedNames, Entry
from casfs.repositories.registry import Registry
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

STEP = 64
"""Names that are followed at a time, up to 5 ms, where somebody waits for them or for the COMMIT."""

SMALL_STEP = 16
STEP_SECONDS = 0.003
"""Names at a time, and about how long, where others have to be served meanwhile."""

QUIET_SECONDS = 0.02
"""So long nothing must have been changed before names are followed that nobody has asked for."""

LAG_SECONDS = 5.0
"""So long names wait for a quiet moment; then they are followed beside what others do."""

REST_SECONDS = 0.1
RETRY_RESTS = 50
"""What could not be followed is tried again after so many rests."""

LAG_LIMIT = 50_000
"""So many; then who changes more waits for some of them."""

DAMAGE = frozenset({errno.EIO, errno.ESTALE})
"""What rows that cannot be are answered with: they must not keep others from being followed, or committed."""

Name = tuple[int, bytes]
"""(directory, name)."""


class Rows(NamedTuple):
    """What follows from the names of one directory: their artifacts, and those with names in trees."""

    artifacts: dict[bytes, ArtifactRow]
    derived: set[bytes]


class Follower:
    """Owned by the thread that runs the file system.

    `_names`: what has happened to them is not in the rows yet; what one stands for that is new. Of them
    `_saved` are in the table `noted`, and `_unsaved` have to be there at the next COMMIT. `_watched`:
    repositories from whose names anything follows. `_directories`: those of the table `follow`, the last one
    first, with the cookie of the last name that was followed; `_walked`: those that were, since others have
    asked for one: in a damaged database directories may lie in each other. `_runs`: is there a task that
    follows; `_hurried`: somebody waits for `_done`, which it sets at its end, whether by an `_error` or not.
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
        self._stepping = Mutex(core.scheduler)
        self._runs = False
        self._hurried = False
        self._error: OSError | None = None
        self._done = core.scheduler.event()
        self._saved = set(self._rows.noted())
        self._unsaved: dict[Name, None] = {}
        self._names: dict[Name, Entry | None] = dict.fromkeys(self._saved)
        self._watched: set[int] = set()
        self._moved: set[int] = set()
        self._walked: set[int] = set()
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
            for tree in old:
                if tree.ino not in self._derived.trees:
                    self._derived_rows.keep_none(tree.ino)
        self._started = True
        self._watch()

    def _watch(self) -> None:
        """Names are only noted while there is something that follows from them."""
        repositories = self._registry.repositories.values()
        self._watched = self._derived.shown | {found.ino for found in repositories if found.layout}
        self._core.directories.follower = self if self._watched or self.is_behind else None

    # What happens to names: called inside the transaction of it

    def added(self, directory: int, name: bytes, entry: Entry) -> None:
        """A name was given that was not there."""
        key = directory, name
        self._names[key] = None if key in self._names else entry
        self._unsaved[key] = None

    def named(self, directory: int, name: bytes) -> None:
        """A name was given, was taken away, or stands for another inode."""
        self._names[directory, name] = None
        self._unsaved[directory, name] = None

    def moved(self, directory: int) -> None:
        """A directory has another place."""
        self._moved.add(directory)

    def emptied(self, directory: int) -> None:
        """Names of a directory that has none itself are gone."""
        self._artifacts.remove_below(directory)
        self._derived.remove_sources(directory)
        self._derived.finish()

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
        self._walked.clear()
        self._queue(directory)

    def _queue(self, directory: int) -> None:
        self._rows.follow(directory)
        self._directories.pop(directory, None)
        self._directories[directory] = 0
        self._more.set()
        self._core.group.count()
        self._watch()

    # Writing the rows

    @property
    def pending(self) -> int:
        """Rows that have to be written before the next COMMIT, at the most."""
        return len(self._unsaved) + len(self._moved)

    def flush(self, limit: int | None = None) -> None:
        """Have what is noted in rows, for the COMMIT. Inside a transaction. Raises DatabaseError."""
        for directory in list(self._moved):
            self.follow(directory)
            self._moved.discard(directory)
        if len(self._names) <= STEP:
            self.follow_names()
        elif len(self._names) > LAG_LIMIT:
            self.follow_names(STEP)
        if self._names or self._directories:
            self._more.set()
        if self._unsaved:
            names = list(islice(self._unsaved, limit))
            self._rows.note(names)
            for name in names:
                self._saved.add(name)
                del self._unsaved[name]

    def follow_names(self, limit: int | None = None) -> None:
        """Write the rows of up to `limit` names. Inside a transaction. Raises DatabaseError."""
        if not self._names:
            return
        self._follow(list(islice(self._names.items(), limit)))

    def _follow(self, names: list[tuple[Name, Entry | None]]) -> None:
        saved = [name for name, _ in names if name in self._saved]
        with self._savepoint():
            self._write(names, follows=not self._directories and not self._moved)
            if saved:
                self._rows.note_no_more(saved)
        self._saved.difference_update(saved)
        for name, _ in names:
            del self._names[name]
            self._unsaved.pop(name, None)

    def follow_at_once(self, names: Iterable[Name]) -> None:
        """Write the rows of names, if they are noted. Raises DatabaseError."""
        noted = [(name, self._names[name]) for name in names if name in self._names]
        if noted and self._core.group.active:
            self._follow(noted)

    @property
    def is_behind_directories(self) -> bool:
        """Is there a directory below which names are still to be followed?"""
        return bool(self._directories or self._moved)

    @property
    def is_behind(self) -> bool:
        """Is there anything that has not been followed?"""
        return bool(self._names or self._directories or self._moved)

    def step(self, limit: int = STEP) -> None:
        """Follow some names of such a directory. Inside a transaction. Raises DatabaseError."""
        if not self._directories:
            return
        directory, after = next(reversed(self._directories.items()))
        place = self._places.of(directory)
        may_be_tree = place is None or place.top in (0, directory)
        if may_be_tree and self._derived.wipe(directory, limit):
            self._core.group.count(limit)
            return
        tree = self._derived.trees.get(directory)
        if tree is not None:
            self._has_followed(directory)
            for source in tree.sources:
                self.follow(source.repository)
            return
        try:
            names = self._dentries.children(directory, after, limit)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            log.error("names in directory %d are not followed: %s", directory, error)
            self._has_followed(directory)
            return
        below = [ino for _, _, ino, type_ in names if type_ == DIRECTORY]
        is_all = not after and len(names) < limit
        self._write(
            [((directory, name), (cookie, ino, type_)) for cookie, name, ino, type_ in names],
            there=self._rows_of(directory) if is_all else None,
        )
        if len(names) < limit:
            self._has_followed(directory)
        else:
            self._rows.follow(directory, names[-1][0])
            self._directories[directory] = names[-1][0]
        for ino in below:
            if ino not in self._walked:
                self._queue(ino)
        self._core.group.count(len(names))

    def _has_followed(self, directory: int) -> None:
        self._rows.followed(directory)
        del self._directories[directory]
        self._walked.add(directory)
        self._watch()

    async def drain(self) -> None:
        """Follow everything, in steps; by `run`, where it runs: whoever waits here may be a request, between
        whose steps the event loop does nothing else. Raises OSError."""
        while self.is_behind:
            if not self._runs:
                await self._step()
                continue
            self._hurried = True
            self._more.set()
            await self._done.wait()
            if self._error is not None:
                raise self._error

    async def _step(self) -> tuple[int, int]:
        """One step, and let others run; of all who want one, one after the other. `_changes` before that."""
        async with self._stepping:
            group, scheduler = self._core.group, self._core.scheduler
            if group.must_wait:
                await group.durable()
            await group.begin()
            until = scheduler.now() + STEP_SECONDS
            self.flush(STEP)
            while self.is_behind and scheduler.now() < until:
                if self._names:  # before directories: a name may have left rows where it was
                    self.follow_names(SMALL_STEP)
                else:
                    self.step(SMALL_STEP)
            if remembered := self._core.remembered.names:
                self._core.changes.names_later(next(iter(remembered))[0])
            changes = self._changes()
            await scheduler.give_way()
            return changes

    def catch_up(self) -> bool:
        """Follow what is noted, if that takes a moment; False when there is more. Raises DatabaseError."""
        if not self._names and not self._moved:
            return not self._directories
        if not self._core.group.active or len(self._names) > STEP:
            return False
        self.flush()
        return not self._directories

    async def run(self) -> None:
        """Follow what is left, whenever nothing else is done, and at once when somebody waits for it. For one
        task, until it is cancelled."""
        self._runs = True
        try:
            while True:
                if not self.is_behind:
                    self._more = self._core.scheduler.event()
                    await self._more.wait()
                try:
                    await self._follow_all()
                except OSError as error:  # the next commit says it too
                    log.warning("what follows from names has to wait: %s", error)
                    self._end(error)
                    for _ in range(RETRY_RESTS):
                        await self._rest(REST_SECONDS)
                else:
                    self._end(None)
        finally:
            self._runs = False
            self._end(None)

    async def _rest(self, seconds: float) -> None:
        """A thread is waited for to its end: only the pause lets the task be cancelled."""
        await self._core.scheduler.run(time.sleep, seconds)
        await self._core.scheduler.pause()

    def _end(self, error: OSError | None) -> None:
        """Let those go on who wait."""
        self._hurried = False
        self._error = error
        done, self._done = self._done, self._core.scheduler.event()
        done.set()

    async def _follow_all(self) -> None:
        scheduler = self._core.scheduler
        since = scheduler.now()
        while self.is_behind:
            if self._hurried:
                await self._step()
                continue
            before = self._changes()
            await self._rest(QUIET_SECONDS)
            if before == self._changes():
                await self._follow_while_quiet()
            elif scheduler.now() - since > LAG_SECONDS:
                await self._step()

    def _changes(self) -> tuple[int, int]:
        """Another one when anything has been changed."""
        return self._core.group.number, self._core.group.operations

    async def _follow_while_quiet(self) -> None:
        while self.is_behind and await self._step() == self._changes():
            pass

    def _rows_of(self, directory: int) -> Rows:
        return Rows(
            {row.name: row for row in self._artifacts.below(directory)},
            {row.source_name for row in self._derived_rows.of_source_directory(directory)},
        )

    def _write(
        self, names: list[tuple[Name, Entry | None]], *, follows: bool = False, there: Rows | None = None
    ) -> None:
        """The rows of names. With an entry it is a name that had no rows before, if all that is not noted
        `follows`; or else a row may be left of it. `there`: the rows of all names, if they are known."""
        rows: list[ArtifactRow] = []
        without: list[Name] = []
        gone: list[Name] = []
        repositories = self._registry.repositories
        with self._savepoint():
            for (directory, name), entry in names:
                place = self._places.of(directory)
                top = 0 if place is None else place.top
                if follows and top not in self._watched and (top or directory == ROOT_INO):
                    continue  # a directory that is gone, with no place, may have left rows
                is_new = follows and entry is not None
                if entry is None:
                    entry = self._dentries.entry(directory, name)
                    if entry is None:
                        gone.append((directory, name))
                repository = repositories.get(top)
                coordinates = None
                if place and entry and entry[2] == FILE and repository and repository.layout:
                    coordinates = repository.layout.parse(place.within + name)
                if coordinates is not None:
                    row = artifact_row(directory, name, top, coordinates)
                    if there is None or there.artifacts.get(name) != row:
                        rows.append(row)
                elif not is_new and (there is None or name in there.artifacts):
                    without.append((directory, name))
                if self._derived.trees:
                    try:
                        is_new = is_new or (there is not None and name not in there.derived)
                        self._derived.update(directory, name, place, entry, coordinates, is_new=is_new)
                    except OSError as error:
                        if error.errno not in DAMAGE:
                            raise
                        log.error("what trees show of directory %d is not known: %s", directory, error)
            self._artifacts.remove_all(without)
            self._artifacts.set_all(rows)
            if self._derived.trees:
                self._derived_rows.keep_no_more(gone)
                self._derived.finish()


def artifact_row(directory: int, name: bytes, repository: int, found: Coordinates) -> ArtifactRow:
    """The row of a name whose path says that."""
    return ArtifactRow(
        directory,
        name,
        repository,
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
