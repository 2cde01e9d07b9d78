"""What the rules of repositories allow. Every refusal is a line of the log (refusals.py).

Patterns and kinds are about files, links and devices; a directory is refused where no path is left below it.
A file that is being made is no release yet: not while whoever makes it has it open, and not while it is
empty. So programs write a release in place, or under a temporary name and rename it, but to no name that is
taken.

Who has a file open goes on writing to it, whatever rules are set meanwhile.

Of a directory that is moved, everything below it has to be looked at: where that is more than LIMIT names, or
takes more than SECONDS, the rename is refused with EXDEV, as between file systems, and programs go on name by
name. Of a file that is written, or counted (quota.py), all names are looked at: a store with such rules gives
a file no more than LINKS.
"""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from casfs.errors import FsError
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.places import DEEPEST, LONGEST, Place
from casfs.namespace.derived import DIRECTORY
from casfs.namespace.inodes import S_IFMT
from casfs.repositories import forcing
from casfs.repositories.patterns import EVERYTHING, Patterns
from casfs.repositories.quota import Quotas
from casfs.repositories.refusals import refuse
from casfs.repositories.registry import Registry, Repository, RepositoryKind
from casfs.repositories.releases import Kind, kind_of
from casfs.trash.policy import Trash
from casfs.types import ROOT_INO

LIMIT = 2_000
SECONDS = 0.1
"""Names below a directory that are looked at when it is moved, and how long, of the processor's time: others
wait, and a layout takes its time for names that were made for that."""

LINKS = 1_000
"""Names of a file: to look at all of them takes 20 ms at most."""

DECISIONS = 1000
"""Directories of which it is remembered what the rules say."""

T = TypeVar("T")

FORCE = "see --force of casfs rm, cp and mv"

TOO_MUCH = "too many files, or names, for a rule to look at in one step; move them one by one"

_ALL = (EVERYTHING, f"{EVERYTHING}/*")


class Ruled:
    """A repository that does not allow everything, with its rules made ready. Immutable."""

    def __init__(self, repository: Repository) -> None:
        rules = repository.rules
        self.ino = repository.ino
        self.rules = rules
        self.include = None if any(text in _ALL for text in rules.include) else Patterns(rules.include)
        self.exclude = Patterns(rules.exclude) if rules.exclude else None
        self.layout = repository.layout
        self.kinds = None if rules.releases and rules.snapshots else repository.layout
        self.fixed = repository.layout if rules.immutable else None
        self.has_quota = bool(rules.quota_bytes or rules.quota_files)
        self.looks_at_names = (self.include, self.exclude, self.kinds) != (None, None, None)

    @property
    def allows_everything(self) -> bool:
        unruled = self.fixed is None and not self.has_quota and not self.looks_at_names
        return unruled and not self.rules.read_only


class Here(NamedTuple):
    """What holds in a directory. `place`: None where it lies too deep to say; the last two are the states of
    the patterns there."""

    ruled: Ruled
    place: Place | None
    included: int
    excluded: int

    def path(self, name: bytes) -> bytes:
        """In the repository."""
        return name if self.place is None else self.place.within + name


class Below(NamedTuple):
    """A name below a directory: its path there, its type as in a mode."""

    path: bytes
    mode: int
    ino: int


class Guard:
    """The checks of a policy (fs/policy.py), those of the trash first. Owned by the thread that runs the file
    system.

    `ruled`, `digested`: repositories that have rules, and of which contents get further digests.
    """

    def __init__(self, core: Core, registry: Registry, trash: Trash) -> None:
        self._registry = registry
        self._trash = trash
        self._places = core.places
        self._inodes = core.inodes
        self._group = core.group
        self._dentries = core.store.namespace.dentries
        self._rows = core.store.namespace.repositories
        self.quotas = Quotas(core)
        self.ruled: dict[int, Ruled] = {}
        self.digested: dict[int, tuple[str, ...]] = {}
        self._reads_only = False
        self._fixes = False
        self._known: dict[Place, Here | None] = {}
        self._version = core.places.version

    def read_rules(self) -> None:
        """The rules have changed. Raises DatabaseError."""
        ruled = map(Ruled, self._registry.repositories.values())
        self.ruled = {each.ino: each for each in ruled if not each.allows_everything}
        self._reads_only = any(each.rules.read_only for each in self.ruled.values())
        self._fixes = any(each.fixed is not None for each in self.ruled.values())
        self.digested = {
            each.ino: each.rules.digests
            for each in self._registry.repositories.values()
            if each.rules.digests
        }
        self._known.clear()
        self.quotas.set({each.ino: each.rules for each in self.ruled.values() if each.has_quota})

    def _here(self, directory: int) -> Here | None:
        """What the rules say of a directory; None if it is in no repository that has any."""
        place = self._places.of(directory)
        if place is None:
            deep = self.ruled.get(self.quotas.top(directory))
            return None if deep is None else Here(deep, None, 0, 0)
        try:
            return self._known[place]
        except KeyError:
            return self._look(place)

    def _look(self, place: Place) -> Here | None:
        if self._version != self._places.version or len(self._known) >= DECISIONS:
            self._version = self._places.version
            self._known.clear()
        ruled = self.ruled.get(place.top)
        here = None
        if ruled is not None:
            states = [
                0 if patterns is None else patterns.after(patterns.start, place.within)
                for patterns in (ruled.include, ruled.exclude)
            ]
            here = Here(ruled, place, *states)
        self._known[place] = here
        return here

    def _refuse(self, number: int, here: Here, name: bytes, rule: str, hint: str = "") -> None:
        refuse(number, self._repository(here), here.path(name), rule, hint)

    def _repository(self, here: Here) -> bytes:
        return self._dentries.paths_of(here.ruled.ino)[0]

    # What comes

    def check_add(self, directory: int, name: bytes, mode: int, inode: Inode | None) -> None:
        """As `Policy.check_add`. Raises FsError EROFS, EACCES, EDQUOT, EXDEV, ENAMETOOLONG."""
        self._trash.check_add(directory, name, mode, inode)
        here = self._here(directory)
        if here is not None:
            self._check_writable(here, name)
            if here.place is None:
                self._refuse(errno.ENAMETOOLONG, here, name, "it lies too deep for the rules")
            self._check_name(here, name, mode)
        if inode is not None and inode.is_directory:
            self._check_tree(here, directory, name, inode)
        elif here is not None and here.ruled.has_quota and stat.S_ISREG(mode):
            if inode is None:
                self.quotas.check_new(here.ruled.ino, here.path(name))
            else:
                self._check_arrival(here, directory, name, inode, [])

    def _check_writable(self, here: Here, name: bytes) -> None:
        if here.ruled.rules.read_only:
            self._refuse(errno.EROFS, here, name, "the repository is read-only")

    def _check_name(self, here: Here, path: bytes, mode: int) -> None:
        """May something of that type have a path below a directory? Raises FsError EACCES."""
        ruled = here.ruled
        if not mode or not ruled.looks_at_names:
            return
        include, exclude = ruled.include, ruled.exclude
        if stat.S_ISDIR(mode):
            if exclude is not None and exclude.takes_all(exclude.after(here.excluded, path + b"/")):
                self._refuse(errno.EACCES, here, path, "everything below it is excluded")
            if include is not None and include.takes_none(include.after(here.included, path + b"/")):
                self._refuse(errno.EACCES, here, path, "nothing below it is included")
            return
        if exclude is not None and (pattern := exclude.match(exclude.after(here.excluded, path))):
            self._refuse(errno.EACCES, here, path, f"it is excluded by '{pattern}'")
        if include is not None and not include.match(include.after(here.included, path)):
            self._refuse(errno.EACCES, here, path, "it is included by no pattern")
        if ruled.kinds is not None:
            kind = kind_of(ruled.kinds, here.path(path))
            if kind is Kind.RELEASE and not ruled.rules.releases:
                self._refuse(errno.EACCES, here, path, "releases are not handled")
            if kind is Kind.SNAPSHOT and not ruled.rules.snapshots:
                self._refuse(errno.EACCES, here, path, "snapshots are not handled")

    def _check_tree(self, here: Here | None, directory: int, name: bytes, inode: Inode) -> None:
        """A directory comes, with everything below it."""
        if inode.ino in self._registry.repositories:
            return  # it stays in the root (`check_move`)
        looks = here is not None and here.ruled.looks_at_names
        origin, top = self.quotas.top(inode.ino), self.quotas.top(directory)
        counts = origin != top and (self.quotas.has(origin) or self.quotas.has(top))
        if not looks and not counts:
            return
        below = self._below(inode, self._places.of(directory))
        if looks and here is not None:
            for each in _in_time(below):
                self._check_name(here, name + b"/" + each.path, each.mode)
        if counts:
            files = [self._inodes.get(each.ino) for each in below if stat.S_ISREG(each.mode)]
            if self.quotas.has(top) and here is not None:
                self._check_arrival(here, directory, name, inode, files)
            self.quotas.will_move(inode, files)

    def _check_arrival(
        self, here: Here, directory: int, name: bytes, inode: Inode, below: list[Inode]
    ) -> None:
        there = self._dentries.find(directory, name)
        replaced = None if there is None else self._inodes.get(there)
        self.quotas.check_arrival(here.ruled.ino, here.path(name), inode, below, replaced)

    def _below(self, directory: Inode, to: Place | None) -> list[Below]:
        """Everything below a directory that is in, or is to come to, that place. Raises FsError EXDEV,
        ENAMETOOLONG."""
        found: list[Below] = []
        level = len(to.chain) + 1 if to else 1
        todo = [(b"", directory.ino, level)]
        while todo:
            path, ino, level = todo.pop()
            if level > DEEPEST or len(path) + (len(to.path) if to else 0) > LONGEST:
                raise FsError(errno.ENAMETOOLONG)
            for _, name, child, type_ in self._dentries.children(ino, 0, LIMIT + 1 - len(found)):
                found.append(Below(path + name, type_ << 12 & S_IFMT, child))
                if type_ == DIRECTORY:
                    todo.append((path + name + b"/", child, level + 1))
            if len(found) > LIMIT:
                raise FsError(errno.EXDEV, TOO_MUCH)
        return found

    def digests(self, inode: Inode) -> tuple[str, ...]:
        """As `Policy.digests`."""
        tops = {self.quotas.top(parent) for parent, _ in self._dentries.names_of(inode.ino)}
        return tuple({name for top in tops for name in self.digested.get(top, ())})

    # What changes where it is

    def check_write(self, inode: Inode) -> None:
        """As `Policy.check_write`. Raises FsError EROFS, EPERM."""
        self._trash.check_write(inode)
        self._check_read_only(inode)
        if self._fixes and is_finished(inode):
            for parent, name in _in_time(self._dentries.names_of(inode.ino), errno.EPERM):
                here = self._here(parent)
                if here is not None:
                    self._check_fixed(here, name, inode)

    def check_link(self, inode: Inode) -> None:
        """As `Policy.check_link`. Raises FsError EROFS, EMLINK."""
        self._trash.check_link(inode)
        self._check_read_only(inode)
        if inode.nlink >= LINKS and (self._reads_only or self._fixes or self.quotas):
            raise FsError(errno.EMLINK)

    def check_attributes(self, inode: Inode) -> None:
        """As `Policy.check_attributes`. Raises FsError EROFS."""
        self._check_read_only(inode)

    def _check_read_only(self, inode: Inode) -> None:
        """Raises FsError EROFS for what has a name in a repository that is read-only."""
        if not self._reads_only:
            return
        if inode.is_directory:
            here = self._here(inode.ino)
            if here is not None:
                self._check_writable(here, b"")
            return
        for parent, name in self._dentries.names_of(inode.ino):
            here = self._here(parent)
            if here is not None:
                self._check_writable(here, name)

    def _check_fixed(self, here: Here, path: bytes, inode: Inode) -> None:
        """A file below a directory is going to lose its content, or its name. Raises FsError EPERM."""
        layout = here.ruled.fixed
        if layout is None or not is_finished(inode):
            return
        if kind_of(layout, here.path(path)) is not Kind.RELEASE:
            return
        if (forced := forcing.current()) is None:
            self._refuse(errno.EPERM, here, path, "it is a release, which is immutable", FORCE)
        else:
            forced.release(self._repository(here), here.path(path))

    # What goes

    def _check_loss(self, directory: int, name: bytes, inode: Inode) -> Here | None:
        """A name is going to stand for something else, or for nothing; of a directory that is not empty
        `_check_leave` says the rest. Raises FsError EROFS, EPERM."""
        here = self._here(directory)
        if here is None:
            return None
        self._check_writable(here, name)
        if here.place is not None and not inode.is_directory:
            self._check_fixed(here, name, inode)
        return here

    def _check_leave(self, here: Here, name: bytes, inode: Inode) -> None:
        """A directory goes elsewhere, with everything below it. Raises FsError EPERM, EXDEV."""
        if here.ruled.fixed is None or here.place is None:
            return
        if (forced := forcing.current()) is not None:
            forced.release(self._repository(here), here.path(name) + b"/")
            return
        for each in _in_time(self._below(inode, here.place)):
            if not stat.S_ISDIR(each.mode):
                self._check_fixed(here, name + b"/" + each.path, self._inodes.get(each.ino))

    def check_remove(self, directory: int, name: bytes, inode: Inode) -> None:
        """As `Policy.check_remove`. Raises FsError EROFS, EPERM, EBUSY for a repository that others need."""
        self._trash.check_remove(directory, name, inode)
        if directory == ROOT_INO:
            self._check_unused(name, inode)
        self._check_loss(directory, name, inode)

    def check_replace(self, directory: int, name: bytes, inode: Inode) -> None:
        """As `Policy.check_replace`. Raises FsError EROFS, EPERM, EXDEV, EBUSY for a repository."""
        self._trash.check_replace(directory, name, inode)
        if inode.ino in self._registry.repositories:
            refuse(errno.EBUSY, name, b"", "a repository is not replaced")
        self._check_loss(directory, name, inode)

    def check_move(self, directory: int, name: bytes, inode: Inode, to: int) -> None:
        """As `Policy.check_move`. Raises FsError EROFS, EPERM, EXDEV, EBUSY for a repository."""
        self._trash.check_move(directory, name, inode, to)
        if to != ROOT_INO and inode.ino in self._registry.repositories:
            refuse(errno.EBUSY, name, b"", "a repository does not leave the root")
        here = self._check_loss(directory, name, inode)
        if here is not None and inode.is_directory:
            self._check_leave(here, name, inode)

    def _check_unused(self, name: bytes, inode: Inode) -> None:
        """Raises FsError EBUSY."""
        repositories = self._registry.repositories
        found = repositories.get(inode.ino)
        if found is None:
            return
        if found.kind is not RepositoryKind.LOCAL:
            refuse(errno.EBUSY, name, b"", f"it is a {found.kind} repository, which casfs repo rm removes")
        if any(inode.ino in (*other.members, other.deploy) for other in repositories.values()):
            refuse(errno.EBUSY, name, b"", "other repositories show it")

    def removed(self, directory: int, inode: Inode) -> None:
        """As `Policy.removed`: with its directory a repository goes. Inside the transaction of that."""
        if directory == ROOT_INO and inode.ino in self._registry.repositories:
            self._rows.remove(inode.ino)
            self._group.count()
            self._registry.read()


def _in_time(things: Iterable[T], number: int = errno.EXDEV) -> Iterator[T]:
    """What is looked at, one after the other. Raises FsError `number` when that takes too long."""
    end = time.thread_time() + SECONDS
    for thing in things:
        yield thing
        if time.thread_time() > end:
            raise FsError(number, TOO_MUCH)


def is_finished(inode: Inode) -> bool:
    """Is a file more than one that is being made?"""
    return inode.size > 0 and not (inode.content is not None and inode.content.writers)
