"""Quotas: how many regular files a repository has, and their bytes, as stat(2) shows them.

A file counts once, whatever names it has in the repository, and in each repository in which it has one; not
while it has no name. Equal contents count for each file, links, devices and directories for nothing.

What is there is counted by one query, at the mount and when a quota is set. From then on each inode in
memory has with it in which repositories it was counted, and with how many bytes; whatever has changed, the
difference to what is there now is counted (`Inode.counted`). So no verb has to tell what it has done, and to
count an inode twice changes nothing. What is not in memory has not changed, and was counted as its row is.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Room
from casfs.namespace.usage import files_below
from casfs.repositories.refusals import refuse
from casfs.repositories.rules import Rules
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

DEEPEST = 4_000
"""Directories above another one that are looked at: 10 ms, in which others wait. Nothing is made so deep in a
repository with rules (guard.py), but it may have been there."""

Counted = tuple[tuple[int, ...], int]
"""Of an inode: the repositories in which it counts, and its bytes."""

NOTHING: Counted = ((), 0)


@dataclass(slots=True)
class Quota:
    """Of one repository. `warned`: the log has been told that the soft level is passed."""

    repository: int
    rules: Rules
    files: int = 0
    bytes: int = 0
    warned: bool = False

    @property
    def _levels(self) -> tuple[tuple[int, int, str], ...]:
        """(limit, what there is of it, unit)."""
        return (
            (self.rules.quota_bytes, self.bytes, "bytes"),
            (self.rules.quota_files, self.files, "files"),
        )

    def exceeded(self, files: int, size: int) -> str:
        """The rule that so many files and bytes more are against; "" when they fit."""
        rules = self.rules
        if size > 0 and rules.quota_bytes and self.bytes + size > rules.quota_bytes:
            return f"the quota is {rules.quota_bytes} bytes"
        if files > 0 and rules.quota_files and self.files + files > rules.quota_files:
            return f"the quota is {rules.quota_files} files"
        return ""

    def passed(self) -> str:
        """What the soft level has to say; "" where nothing is passed."""
        soft = self.rules.soft_percent
        for limit, used, unit in self._levels:
            if soft and limit and used * 100 >= limit * soft:
                return f"{used} {unit} are {soft} % or more of the quota, {limit}"
        return ""


class Quotas:
    """A watcher of inodes (fs/inodes.py). Owned by the thread that runs the file system.

    `_resized`: what has, or is going to have, another size than it counts with; `_moving`: of a directory
    that may get another place, all files below it.
    """

    def __init__(self, core: Core) -> None:
        self._namespace = core.store.namespace
        self._dentries = core.store.namespace.dentries
        self._inodes = core.inodes
        self._places = core.places
        self._group = core.group
        self._quotas: dict[int, Quota] = {}
        self._resized: dict[int, Inode] = {}
        self._moving: dict[int, list[Inode]] = {}
        self._unsure = False

    # Which there are

    def set(self, rules: Mapping[int, Rules]) -> None:
        """Those of repositories with a quota. Raises DatabaseError."""
        if rules.keys() == self._quotas.keys():
            for quota in self._quotas.values():
                if quota.rules != rules[quota.repository]:
                    quota.rules = rules[quota.repository]
                    quota.warned = False
                    self._warn(quota)
            return
        self._quotas = {top: Quota(top, rules[top]) for top in rules}
        self._inodes.watcher = self if rules else None
        self._resized.clear()
        self._moving.clear()
        self.recount()

    def recount(self) -> None:
        """Count what is there. Raises DatabaseError."""
        if not self._quotas:
            return
        if self._group.active:  # what is new has no row yet
            self._inodes.flush_rows()
        for quota in self._quotas.values():
            quota.files, quota.bytes = files_below(self._namespace, quota.repository)
        for inode in list(self._inodes.in_memory.values()):
            if inode.is_regular:
                content = inode.content
                row_size = content.row_size if content is not None and content.dirty else inode.size
                inode.counted = (self._repositories(inode), row_size)
                self._count(inode)
        self._unsure = False
        for quota in self._quotas.values():
            self._warn(quota)

    def __bool__(self) -> bool:
        """Are there any?"""
        return bool(self._quotas)

    def has(self, top: int) -> bool:
        return top in self._quotas

    def used(self, top: int) -> tuple[int, int]:
        """Files of a repository with a quota, and their bytes."""
        self._measure()
        quota = self._quotas[top]
        return quota.files, quota.bytes

    def room(self, inode: Inode) -> Room | None:
        """What the quota of the repository in which something lies has, and what is left of it."""
        found = [inode.ino] if inode.is_directory else self._dentries.parents_of(inode.ino)
        quota = self._quotas.get(self.top(found[0])) if found else None
        if quota is None:
            return None
        self._measure()
        rules = quota.rules
        return Room(
            rules.quota_bytes,
            max(0, rules.quota_bytes - quota.bytes),
            rules.quota_files,
            max(0, rules.quota_files - quota.files),
        )

    def top(self, directory: int) -> int:
        """The directory in the root that a directory is, or lies in; 0 for none."""
        place = self._places.of(directory)
        if place is not None:
            return place.top
        above: int | None = directory
        for _ in range(DEEPEST):
            over = None if above is None else self._dentries.parent_of(above)
            if over == ROOT_INO:
                return above or 0
            above = over
        return 0

    # Counting

    def loaded(self, inode: Inode) -> None:
        if inode.is_regular:
            try:
                inode.counted = (self._repositories(inode), inode.size)
            except OSError:
                self._unsure = True

    def changed(self, inode: Inode) -> None:
        """Raises nothing: what cannot be counted now is counted with the next commit."""
        try:
            if inode.is_regular:
                self._count(inode)
            elif inode.ino in self._moving:
                self._places.invalidate()
                for moved in self._moving.pop(inode.ino):
                    self._count(moved)
        except OSError:
            self._unsure = True

    def _repositories(self, inode: Inode) -> tuple[int, ...]:
        """Those with a quota in which a file has a name."""
        found = {self.top(parent) for parent in self._dentries.parents_of(inode.ino)}
        return tuple(sorted(found & self._quotas.keys()))

    def _count(self, inode: Inode) -> None:
        self._set(inode, (self._repositories(inode), inode.size))

    def _set(self, inode: Inode, now: Counted) -> None:
        before = _counted(inode)
        if before == now:
            return
        inode.counted = now
        for (repositories, size), sign in ((before, -1), (now, 1)):
            for top in repositories:
                if top in self._quotas:
                    self._quotas[top].files += sign
                    self._quotas[top].bytes += sign * size
        for top in now[0]:
            self._warn(self._quotas[top])

    def _warn(self, quota: Quota) -> None:
        passed = quota.passed()
        if passed and not quota.warned:
            log.warning("repository %s: %s", self._name(quota.repository), passed)
        quota.warned = bool(passed)

    def _name(self, top: int) -> str:
        return os.fsdecode(self._dentries.paths_of(top)[0])

    def settle(self) -> None:
        """Before a commit: count again what could not be counted. Raises DatabaseError."""
        self._measure()
        if self._unsure:
            self.recount()

    # Checking

    def _measure(self) -> None:
        """What was resized counts with the size that it has, when that is done."""
        for inode in list(self._resized.values()):
            if inode.content is None or not inode.content.is_busy:
                del self._resized[inode.ino]
                self._set(inode, (_counted(inode)[0], inode.size))

    def resizes(self, inode: Inode, size: int) -> None:
        """As `Policy.resizes`. What becomes larger counts so from then on, before it is."""
        repositories, before = _counted(inode)
        if not repositories:
            return
        self._measure()
        self._resized[inode.ino] = inode
        if size <= before:
            return
        for top in repositories:
            if exceeded := self._quotas[top].exceeded(0, size - before):
                self._refuse(top, self._dentries.paths_of(inode.ino)[0], exceeded)
        self._set(inode, (repositories, size))

    def check_new(self, top: int, path: bytes) -> None:
        """One more file in a repository, empty so far. Raises FsError EDQUOT."""
        self._measure()
        if exceeded := self._quotas[top].exceeded(1, 0):
            self._refuse(top, path, exceeded)

    def check_arrival(
        self, top: int, path: bytes, inode: Inode, below: list[Inode], replaced: Inode | None
    ) -> None:
        """A file, or a directory with files below, gets a name in a repository, which `replaced` loses.
        Raises FsError EDQUOT."""
        self._measure()
        coming = {each.ino: each for each in (below if inode.is_directory else [inode]) if each.is_regular}
        sizes = [each.size for each in coming.values() if top not in _counted(each)[0]]
        if replaced is not None and replaced.nlink == 1 and top in _counted(replaced)[0]:
            sizes.append(-replaced.size)
            files = len(sizes) - 2
        else:
            files = len(sizes)
        if sizes and (exceeded := self._quotas[top].exceeded(files, sum(sizes))):
            self._refuse(top, path, exceeded)

    def will_move(self, directory: Inode, below: list[Inode]) -> None:
        """A directory may get another place next, and with it all files below."""
        self._moving.pop(directory.ino, None)
        if len(self._moving) >= 2:  # an exchange moves two, and those before have failed
            del self._moving[next(iter(self._moving))]
        self._moving[directory.ino] = below

    def _refuse(self, top: int, path: bytes, exceeded: str) -> None:
        name = self._dentries.paths_of(top)[0]
        refuse(errno.EDQUOT, name, path.removeprefix(name + b"/"), exceeded)


def _counted(inode: Inode) -> Counted:
    counted: Counted = inode.counted or NOTHING  # type: ignore[assignment]
    return counted
