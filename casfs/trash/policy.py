"""The trash can: what is removed, replaced or cut to nothing stays reachable below /.casfs/trash for a while.

A regular file whose last name goes, or that is truncated to nothing, leaves a new inode with the same
blob in /.casfs/trash/YYYY-MM-DD/<path it had>, if its content was sealed, it was there for a while, and no
rule is against it (`trash_rule`). The inode that was removed dies as it would without the trash.

Whoever removes does not wait for that: it is noted in memory, with a reference to the blob (I4), and the rows
are written in bulk before the COMMIT of the same group: the file is where it was, or in the trash (I5).
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Container, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from casfs.errors import FsError
from casfs.fs.commit import OPERATION_BYTES
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.places import Place
from casfs.fs.policy import Reason
from casfs.namespace.inodes import InodeRow
from casfs.namespace.trash import RuleRow
from casfs.trash.access import RootAccess
from casfs.trash.attributes import ATTRIBUTES
from casfs.trash.removals import BLOB, Removals, Removed
from casfs.trash.rules import DEFAULT_DAYS, rename_rules
from casfs.types import ROOT_INO

CASFS = b".casfs"
"""The directory in the root that is not listed."""

TRASH = b"trash"

MINIMAL_AGE_NS = 60 * 10**9
"""What was there for less is a temporary file, and is not kept, if nothing else is set."""

DAY_NS = 86400 * 10**9

DECISIONS = 1000
"""Places for which it is remembered what the rules say, and names that were taken."""

ROW_BYTES = 1536
"""What one file in the trash may take on disk, rows and indexes, roughly and rather more."""

NAME_LIMIT = 255

_FILE = stat.S_IFREG >> 12


class _Decision(NamedTuple):
    """What the rules say of files in a directory."""

    keeps: bool
    excluded: Callable[[str], object] | None


class Trash:
    """The trash of a mounted store: a policy, and a kind of directory. Owned by the thread that runs the file
    system.

    `off`: why there is none; "" when there is. Of its inodes, directories and files, `Nodes.kinds` has those
    that the kernel may hold.
    """

    names_appear = True
    """A file that is removed gets a name here, which the kernel did not ask for."""

    def __init__(self, core: Core) -> None:
        store = core.store
        self._directories = core.directories
        self._changes, self._remembered = core.changes, core.remembered
        self._nodes, self._kinds = core.nodes, core.nodes.kinds
        self._access = RootAccess(core)
        self._kernel = core.kernel
        self._places = core.places
        self._filestore = store.filestore
        self._rows = store.namespace.trash
        self._dentries = store.namespace.dentries
        self._inode_rows = store.namespace.inodes
        self._xattrs = store.namespace.xattrs
        self._savepoint = store.namespace.savepoint
        self._inodes, self._group = core.inodes, core.group
        self._removed = Removals()
        self.noted_since = self._removed.since
        self._decisions: dict[Place, _Decision] = {}
        self._version = core.places.version
        self._copies: dict[tuple[int, bytes], int] = {}
        self._rules: dict[bytes, RuleRow] = {}
        self.minimal_age_ns = MINIMAL_AGE_NS
        self.off = ""
        self.base = 0
        self.directory = 0
        self._nodes.reserved.add((ROOT_INO, CASFS))
        self._open()
        self.read_rules()

    def _open(self) -> None:
        """Find the directories, if there are any already."""
        there = self._dentries.find(ROOT_INO, CASFS)
        if there is None:
            return
        if there != self._rows.directory():
            self.off = f"the root has a {CASFS.decode()} of its own"
            return
        self._has_base(there)
        if directory := self._dentries.find(there, TRASH):
            self.directory = directory
            self.given((directory,))

    def _has_base(self, ino: int) -> None:
        self.base = ino
        self._nodes.has_base(ino)
        self.given((ino,))

    # A kind of directory

    def given(self, inos: Iterable[int]) -> None:
        """The kernel gets to know inodes in the trash."""
        for ino in inos:
            self._kinds[ino] = self

    def holds(self, ino: int) -> bool:
        """Is that an inode in the trash that the kernel may hold?"""
        return self._kinds.get(ino) is self

    def left(self, ino: int) -> None:
        """An inode is not in the trash any more."""
        self._kinds.pop(ino, None)

    # Rules

    def read_rules(self) -> None:
        """Somebody has changed the rules."""
        self._rules = {rule.directory: rule for rule in self._rows.rules()}
        self._rules.setdefault(b"", RuleRow(b"", DEFAULT_DAYS, ()))
        age = self._rows.minimal_age()
        self.minimal_age_ns = self.minimal_age_ns if age is None else age
        self._decisions.clear()

    @property
    def rules(self) -> list[RuleRow]:
        return list(self._rules.values())

    def rule(self, path: bytes) -> RuleRow:
        """The rule for a path below the root."""
        top, slash, _ = path.partition(b"/")
        return (self._rules.get(top) if slash else None) or self._rules[b""]

    def set_rule(self, rule: RuleRow, minimal_age_ns: int | None = None) -> None:
        """Inside a transaction. `minimal_age_ns`: of the whole store; None leaves it as it is."""
        self._rows.set_rule(rule)
        if minimal_age_ns is not None:
            self._rows.set_minimal_age(minimal_age_ns)
        self._group.count()
        self.read_rules()

    # What goes to the trash

    def leaves(self, inode: Inode, directory: int, name: bytes, uid: int, reason: Reason) -> None:
        """As `Policy.leaves`: the last name brings it to the trash, or out of it."""
        if directory in self._kinds and self.holds(directory):
            self._gone(inode)
        elif inode.nlink == 1:
            self._keep(inode, directory, name, uid, reason)

    def _keep(self, inode: Inode, parent: int, name: bytes, uid: int, reason: Reason) -> None:
        """Note a file that is about to lose its last name, or its content: `name` in `parent`."""
        content = inode.content
        blob = inode.blob
        size = inode.size
        if blob is None or inode.staged is not None or self.off:
            return
        if content is not None and content.dirty:
            if reason is Reason.TRUNCATED:
                return
            size = content.row_size  # what was sealed before
        now = time.time_ns()
        if not self.keeps(inode.btime if reason is not Reason.TRUNCATED else max(inode.btime, inode.mtime)):
            return
        place = self._places.of(parent)
        if place is None:
            return
        keeps, excluded = self._decisions.get(place) or self._decide(place)
        if not keeps or (excluded and excluded(os.fsdecode(place.path + name))):
            return
        try:
            self._filestore.space.claim_rows(ROW_BYTES)
        except OSError:
            return  # on a full disk what is removed must go
        xattrs = self._inodes.attributes(inode)
        if xattrs:
            self._group.count(sum(map(len, xattrs.values())) // OPERATION_BYTES)
        self._inodes.add_refs(blob, 1)
        self._removed.add(
            (
                place,
                name,
                now,
                uid,
                reason,
                xattrs.copy() if xattrs else xattrs,
                inode.mode,
                inode.uid,
                inode.gid,
                size,
                inode.allocated,
                blob,
                *(inode.atime, inode.mtime, inode.btime),
            )
        )

    def noted(self) -> int:
        """How much is noted of what goes now; see `forget_since`."""
        return len(self._removed)

    def forget_since(self, noted: int) -> None:
        """What was noted since then is forgotten: its removal has failed."""
        self.forget(self._removed.since(noted))

    def forget(self, noted: list[Removed]) -> None:
        """As `Policy.forget`."""
        for removed in self._removed.take(noted):
            self._inodes.add_refs(removed[BLOB], -1)  # type: ignore[arg-type]

    def keeps(self, since_ns: int) -> bool:
        """May what is there since then be kept?"""
        return not self.off and time.time_ns() - since_ns >= self.minimal_age_ns

    def truncates(self, inode: Inode, uid: int) -> None:
        """As `Policy.truncates`: it is kept under the oldest of its names."""
        if inode.blob is None or self.holds(inode.ino) or not inode.nlink:
            return
        names = self._dentries.names_of(inode.ino)
        if names:
            self._keep(inode, *names[0], uid, Reason.TRUNCATED)

    def _decide(self, place: Place) -> _Decision:
        if self._version != self._places.version or len(self._decisions) >= DECISIONS:
            self._version = self._places.version
            self._decisions.clear()
        rule = self.rule(place.path)
        patterns = "|".join(fnmatch.translate(pattern) for pattern in rule.exclude)
        excluded = re.compile(patterns).match if patterns else None
        decision = _Decision(rule.days > 0 and place.repository != CASFS, excluded)
        self._decisions[place] = decision
        return decision

    # Writing the rows

    @property
    def pending(self) -> int:
        """Rows to be written, at the most, for what is noted."""
        return self._removed.rows

    def flush(self, limit: int | None = None) -> None:
        """Write the rows of what was noted, about the first `limit` only. Inside a transaction, the one in
        which it was noted or a later one. Raises DatabaseError."""
        batch = self._removed.first(limit)
        if not batch:
            return
        directories: dict[tuple[int, int], Inode] = {}
        inodes: list[InodeRow] = []
        names: list[tuple[int, int, bytes, int, int]] = []
        rows: list[tuple[int, int, int, str, bytes]] = []
        attributes: list[tuple[int, dict[bytes, bytes]]] = []
        cookie, number = self._inodes.next_cookie, self._inodes.next_number
        for place, name, at, by, reason, xattrs, mode, uid, gid, size, allocated, blob, *times in batch:
            key = at // DAY_NS, id(place)
            directory = directories.get(key)
            if directory is None:
                date = datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%d")
                directory = directories[key] = self._counterpart(date.encode(), place)
            ino = number()
            atime, mtime, btime = times
            inodes.append(
                InodeRow(
                    ino=ino,
                    mode=mode,
                    nlink=1,
                    uid=uid,
                    gid=gid,
                    rdev=0,
                    size=size,
                    allocated=allocated,
                    blob_id=blob,
                    staged=None,
                    target=None,
                    atime_ns=atime,
                    mtime_ns=mtime,
                    ctime_ns=at,
                    btime_ns=btime,
                )
            )
            names.append((directory.ino, cookie(), name, ino, _FILE))
            rows.append((ino, at, by, reason, place.path + name))
            if xattrs:
                attributes.append((ino, xattrs))
        with self._savepoint():  # or the next attempt would leave two of each
            for row in self._directories.add_new(names):
                self._add_name(*row)
            self._inode_rows.write(inodes)
            self._rows.add(rows)
            for ino, xattrs in attributes:
                for name, value in xattrs.items():
                    self._xattrs.set(ino, name, value)
        self._group.count(len(batch))
        self._removed.written(len(batch))
        for directory in directories.values():
            self._touch(directory)

    def _add_name(self, directory: int, cookie: int, name: bytes, ino: int, type_: int) -> None:
        """Give an inode a name in the trash that is taken, with ~2, ~3, ... behind it."""
        key = directory, name
        number = self._copies.get(key, 1) + 1
        while not self._directories.try_add((directory, cookie, _numbered(name, number), ino, type_)):
            number += 1
        if len(self._copies) >= DECISIONS:
            self._copies.clear()
        self._copies[key] = number

    def _touch(self, directory: Inode) -> None:
        self._directories.touch(directory)
        self._has_new_names(directory)

    def _has_new_names(self, directory: Inode) -> None:
        if self.holds(directory.ino):
            self._changes.names_later(directory.ino)

    def _counterpart(self, date: bytes, place: Place) -> Inode:
        """The directory of the trash for that day and place: it allows nothing that the original forbade."""
        root = self._inodes.get(ROOT_INO)
        access = self._access.of_root()
        if not self.base:
            self._has_base(self._new_directory(root, CASFS, *access).ino)
            self._remembered.names.add((ROOT_INO, CASFS))  # the kernel may know the generated one
            self._changes.names_later(ROOT_INO)
        directory = self._inodes.get(self.base)
        for name in (TRASH, date):
            directory = self._subdirectory(directory, name, *access)
            if name == TRASH:
                self.directory = directory.ino
                self.given((directory.ino,))
        for level in place.chain:
            directory = self._subdirectory(directory, *level)
        return directory

    def _subdirectory(
        self, above: Inode, name: bytes, mode: int, uid: int, gid: int, access: dict[bytes, bytes]
    ) -> Inode:
        """The directory of that name, or of that name with a number, that has just these attributes."""
        number = 1
        while (ino := self._dentries.find(above.ino, _numbered(name, number))) is not None:
            found = self._inodes.get(ino)
            same = (found.mode, found.uid, found.gid) == (stat.S_IFDIR | mode, uid, gid)
            if above.ino == self.base or (same and self._places.access(found) == access):
                return found
            number += 1
        made = self._new_directory(above, _numbered(name, number), mode, uid, gid, access)
        self._has_new_names(above)
        return made

    def _new_directory(
        self, above: Inode, name: bytes, mode: int, uid: int, gid: int, xattrs: dict[bytes, bytes]
    ) -> Inode:
        inode = self._inodes.create(stat.S_IFDIR | mode, uid, gid)
        inode.nlink = 2
        try:
            with self._savepoint():
                for key, value in xattrs.items():
                    self._xattrs.set(inode.ino, key, value)
                if above.ino == ROOT_INO:
                    self._rows.set_directory(inode.ino)
                    self._directories.add_hidden(above, name, inode)
                else:
                    self._directories.add(above, name, inode)
        except BaseException:
            self._inodes.remove(inode)
            raise
        inode.xattrs = dict(xattrs)
        return inode

    # Who may look into it

    def _own(self) -> list[Inode]:
        """The directories that are the trash's own, not those of what is in it."""
        if not self.base or self.off:
            return []
        days = [row[2] for row in self._dentries.children(self.directory, 0, 1 << 62)]
        return [self._inodes.get(ino) for ino in (self.base, self.directory, *days) if ino]

    @property
    def lags(self) -> bool:
        """As `Policy.lags`: there were own directories that allow more than the root."""
        return bool(self._access.others(self._own()))

    def catch_up(self) -> None:
        self._access.follow(self._own())

    def access_changed(self, ino: int) -> None:
        """As `Policy.access_changed`: its own directories follow the root."""
        if ino == ROOT_INO:
            for changed in self._access.follow(self._own()):
                self._kernel.forget_attributes(changed)

    # What may be done in the trash, and what leaves it

    resizes = digests = claims = access_times = None

    def check_add(self, directory: int, name: bytes, _mode: int, _inode: Inode | None) -> None:
        """Raises FsError EPERM for a new name in the trash, and for the name of its own directory."""
        if self._kinds.get(directory) is self or (directory == ROOT_INO and name == CASFS and not self.off):
            raise FsError(errno.EPERM)

    def check_remove(self, _directory: int, _name: bytes, inode: Inode) -> None:
        """Raises FsError EPERM for the directories that hold the trash."""
        if inode.ino in (self.base, self.directory):
            raise FsError(errno.EPERM)

    check_replace = check_remove

    def check_move(self, directory: int, name: bytes, inode: Inode, _to: int) -> None:
        """As `check_remove`."""
        self.check_remove(directory, name, inode)

    def check_write(self, inode: Inode) -> None:
        """Raises FsError EPERM for a file in the trash: nobody writes there."""
        if self.holds(inode.ino):
            raise FsError(errno.EPERM)

    check_link = check_write

    def check_attributes(self, _inode: Inode) -> None:
        """Whoever may, as anywhere else."""

    def removed(self, _directory: int, _inode: Inode) -> None:
        """Nothing belongs to it."""

    def check_swap(self, directory: int) -> None:
        """Raises FsError EPERM for a directory of the trash."""
        if self.holds(directory):
            raise FsError(errno.EPERM)

    def check_directory(self, above: int) -> None:
        """`check_add` has said it."""

    def moves(
        self, inode: Inode, directory: int, name: bytes, to: int, new_name: bytes, other: Inode | None
    ) -> Callable[[], object] | None:
        """As `Policy.moves`: whoever moves something out of the trash restores it, and the rule of a
        directory in the root goes with it."""
        if self._kinds.get(directory) is self:
            return partial(self._restored, inode)
        if directory == to == ROOT_INO and len(self._rules) > 1:
            return partial(self._rename_rules, inode, name, new_name, other)
        return None

    def _rename_rules(self, inode: Inode, name: bytes, new_name: bytes, other: Inode | None) -> None:
        if rename_rules(self._rows, self._rules, inode, name, new_name, other):
            self.read_rules()

    def _gone(self, inode: Inode) -> None:
        """A file was removed from the trash by a program."""
        self._rows.remove([inode.ino])
        self.left(inode.ino)

    def _restored(self, inode: Inode) -> None:
        """Something was moved out of the trash, a directory with all that is below."""
        if not inode.is_directory:
            self._gone(inode)
            return
        self._rows.remove_below(inode.ino)
        for directory in self._rows.directories_below(inode.ino):
            self.left(directory)
            for row in self._dentries.children(directory, 0, 1 << 62):
                self.left(row[2])

    @property
    def attributes(self) -> Container[bytes]:
        return ATTRIBUTES

    def attribute(self, ino: int, name: bytes) -> bytes | None:
        """The value of one of `attributes`; None for what is not in the trash."""
        row = self._rows.get(ino)
        return None if row is None else ATTRIBUTES[name](row)


def _numbered(name: bytes, number: int) -> bytes:
    if number < 2:
        return name
    suffix = b"~%d" % number
    return name[: NAME_LIMIT - len(suffix)] + suffix
