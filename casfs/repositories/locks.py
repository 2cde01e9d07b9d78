"""Locked trees: what nothing changes until it is unlocked, by command.

A lock is on a directory, with all that is below it, or on a file. What is locked keeps its content, its
attributes and its names, those outside of the tree as well; and the directories above it keep theirs. Whoever
would change any of that gets EPERM, root too, by whatever way he comes: a lock is a policy (fs/policy.py) in
front of all others.

Nobody has a file open for writing when it becomes locked (locking.py), and nobody gets it open for writing
afterwards. So writing itself asks nothing of a lock, and a store without one asks nothing at all.

Nothing comes into a locked tree and nothing leaves it. So what is known of a directory stays true until there
is another lock, wherever directories go meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from casfs.errors import FsError
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.namespace.locked import LockedRow
from casfs.types import ROOT_INO

KNOWN = 100_000
"""Directories of which it is remembered whether they are locked: about 10 MB."""

LINKS = 1_000
"""Names of a file, all of which are looked at: as many as a store with locks lets it have."""

CHECKS = (
    "check_add",
    "check_write",
    "check_link",
    "check_attributes",
    "check_remove",
    "check_replace",
    "check_move",
)
"""What a lock has a say in."""

UNLOCK = "casfs unlock"


class Locks:
    """Those of a store. Owned by the thread that runs the file system.

    `roots`: what is locked, by inode number. `_above`: the directories that lead to those. `_known`:
    directory -> the root that locks it, or 0.
    """

    def __init__(self, core: Core) -> None:
        namespace = core.store.namespace
        self._rows = namespace.locked
        self._dentries = namespace.dentries
        self._derived = namespace.derived
        self._nodes = core.nodes
        self.roots: dict[int, LockedRow] = {}
        self._above: set[int] = set()
        self._known: dict[int, int] = {}
        self._subscribers: list[Callable[[], object]] = []
        self._read()

    def __bool__(self) -> bool:
        return bool(self.roots)

    def subscribe(self, changed: Callable[[], object]) -> None:
        """`changed` is called now, and whenever there are other locks."""
        self._subscribers.append(changed)
        changed()

    def read(self) -> None:
        """The rows have changed. Raises DatabaseError."""
        self._read()
        for changed in self._subscribers:
            changed()

    def _read(self) -> None:
        self.roots = {row.ino: row for row in self._rows.all()}
        self._known.clear()
        self._above.clear()
        todo = [parent for ino in self.roots for parent, _ in self._dentries.names_of(ino)]
        while todo:
            ino = todo.pop()
            if ino not in self._above:
                self._above.add(ino)
                todo += (parent for parent, _ in self._dentries.names_of(ino))

    # What is locked

    def of(self, inode: Inode) -> int:
        """The number of the inode that has the lock on this one; 0 where there is none."""
        if inode.is_directory:
            return self.of_directory(inode.ino)
        if inode.ino in self.roots:
            return inode.ino
        if not inode.is_generated:
            for parent, _ in self._dentries.names_of(inode.ino):
                if root := self.of_directory(parent):
                    return root
        return 0

    def of_directory(self, directory: int) -> int:
        """As `of`. The directory of the trash, and what is below it, is never locked."""
        known = self._known.get(directory)
        return self._find(directory) if known is None else known

    def _find(self, directory: int) -> int:
        way: list[int] = []
        passed: set[int] = set()
        ino: int | None = directory
        root = 0
        while ino is not None and ino not in passed:
            if ino in self._known:
                root = self._known[ino]
                break
            if ino in self.roots:
                root = ino
                break
            if ino in (ROOT_INO, self._nodes.base):
                break
            way.append(ino)
            passed.add(ino)
            ino = self._parent_of(ino)
        if ino is not None:  # what has no name yet may get one anywhere
            if len(self._known) + len(way) > KNOWN:
                self._known.clear()
            self._known.update(dict.fromkeys(way, root))
        return root

    def _parent_of(self, directory: int) -> int | None:
        names = self._dentries.names_of(directory)
        return names[0][0] if names else self._derived.parent_of(directory)

    # The checks

    def before(self, name: str, check: Callable[..., object]) -> Callable[..., object]:
        """One of CHECKS, with that of another policy behind it."""
        own: Callable[..., None] = getattr(self, f"_{name}")

        def both(*args: Any) -> object:
            own(*args)
            return check(*args)

        return both

    def check_directory(self, directory: int) -> None:
        """May there be another name in a directory? Raises FsError EPERM."""
        if self.roots and (root := self.of_directory(directory)):
            self._refuse(root)

    def check(self, inode: Inode) -> None:
        """May it be changed? Raises FsError EPERM."""
        if self.roots and (root := self.of(inode)):
            self._refuse(root)

    def _refuse(self, root: int) -> None:
        row = self.roots[root]
        path = os.fsdecode(next(iter(self._dentries.paths_of(root)), b"")) or "/"
        why = f" ({row.reason})" if row.reason else ""
        raise FsError(errno.EPERM, f"{path} is locked{why}; see {UNLOCK}")

    def _check_add(self, directory: int, _name: bytes, _mode: int, _inode: Inode | None) -> None:
        self.check_directory(directory)

    def _check_write(self, inode: Inode) -> None:
        self.check(inode)

    _check_attributes = _check_write

    def _check_link(self, inode: Inode) -> None:
        self.check(inode)
        if inode.nlink >= LINKS:
            raise FsError(errno.EMLINK)

    def _check_remove(self, directory: int, _name: bytes, inode: Inode) -> None:
        """The name is one of what is locked, or of a directory above."""
        self.check_directory(directory)
        if inode.nlink > 1 or inode.ino in self.roots:
            self.check(inode)
        if inode.ino in self._above:
            self._refuse(self._one_below(inode.ino))

    _check_replace = _check_remove

    def _check_move(self, directory: int, name: bytes, inode: Inode, _to: int) -> None:
        self._check_remove(directory, name, inode)

    def _one_below(self, directory: int) -> int:
        """A lock that a directory leads to."""
        for root in self.roots:
            todo = [parent for parent, _ in self._dentries.names_of(root)]
            while todo:
                above = todo.pop()
                if above == directory:
                    return root
                todo += (parent for parent, _ in self._dentries.names_of(above))
        return next(iter(self.roots))
