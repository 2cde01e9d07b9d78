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
from collections.abc import Callable
from datetime import UTC, datetime

from casfs.errors import FsError
from casfs.fs import acl
from casfs.fs.changes import Changes
from casfs.fs.commit import GroupCommit
from casfs.fs.directories import Directories
from casfs.fs.inodes import Inode, InodeTable
from casfs.namespace.trash import RuleRow, TrashRow
from casfs.store import Store
from casfs.types import ROOT_INO

CASFS = b".casfs"
"""The directory in the root that is not listed."""

TRASH = b"trash"

MINIMAL_AGE_NS = 60 * 10**9
"""What was there for less is a temporary file, and is not kept, if nothing else is set."""

DEFAULT_DAYS = 14

DAY_NS = 86400 * 10**9

STEP = 128
"""Files that come to the trash, or leave it, before other requests are served again: about 3 ms."""

PLACES = 1000
"""Directories whose path is remembered."""

ROW_BYTES = 1536
"""What one file in the trash may take on disk, rows and indexes, roughly and rather more."""

NAME_LIMIT = 255

_BLOB = 11
"""Where a `_Removed` has the id of its blob."""

_FILE = stat.S_IFREG >> 12


class Reason:
    """Why a file is in the trash (maintenance.sql)."""

    REMOVED = "removed"
    REPLACED = "replaced"
    TRUNCATED = "truncated"


_Level = tuple[bytes, int, int, int, dict[bytes, bytes]]
"""A directory on the way to a file as it was when the file went: name, mode, uid, gid, access list."""


class _Place:
    """A directory files are removed from: the directories that lead there."""

    __slots__ = ("chain", "excluded", "keeps", "path")

    def __init__(self, chain: tuple[_Level, ...], rule: RuleRow, *, inside: bool) -> None:
        self.chain = chain
        self.path = b"".join(level[0] + b"/" for level in chain)
        self.keeps = rule.days > 0 and not inside
        patterns = "|".join(fnmatch.translate(pattern) for pattern in rule.exclude)
        self.excluded = re.compile(patterns).match if patterns else None


_Removed = tuple[
    _Place, bytes, int, int, str, dict[bytes, bytes], int, int, int, int, int, int | None, int, int, int
]
"""A file as it was: place, name, time of removal, uid of who did it, reason, attributes; then as in the row
of an inode mode, uid, gid, size, allocated, blob, atime, mtime, btime. Plain: made while others wait."""


class Trash:
    """The trash of a mounted store. Owned by the thread that runs the file system.

    `off`: why there is none; "" when there is. `known`: inodes in the trash, directories and files, that the
    kernel may hold: it was given them by a lookup or a listing.
    """

    def __init__(
        self,
        store: Store,
        inodes: InodeTable,
        group: GroupCommit,
        directories: Directories,
        changes: Changes,
    ) -> None:
        self._directories = directories
        self._changes = changes
        self._filestore = store.filestore
        self._rows = store.namespace.trash
        self._dentries = store.namespace.dentries
        self._inode_rows = store.namespace.inodes
        self._xattrs = store.namespace.xattrs
        self._savepoint = store.namespace.savepoint
        self._inodes = inodes
        self._group = group
        self._removed: list[_Removed] = []
        self._places: dict[int, _Place] = {}
        self._copies: dict[tuple[int, bytes], int] = {}
        self._rules: dict[bytes, RuleRow] = {}
        self.minimal_age_ns = MINIMAL_AGE_NS
        self.known: set[int] = set()
        self.off = ""
        self.base = 0
        self.directory = 0
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
        self.base = there
        self.directory = self._dentries.find(there, TRASH) or 0
        self.known |= {self.base, self.directory} - {0}

    # Rules

    def read_rules(self) -> None:
        """Somebody has changed the rules."""
        self._rules = {rule.directory: rule for rule in self._rows.rules()}
        self._rules.setdefault(b"", RuleRow(b"", DEFAULT_DAYS, ()))
        age = self._rows.minimal_age()
        self.minimal_age_ns = self.minimal_age_ns if age is None else age
        self._places.clear()

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

    def keep(self, inode: Inode, parent: int, name: bytes, uid: int, reason: str) -> None:
        """Note a file that is about to lose its last name, or its content. Inside a transaction.

        `name` in `parent`: where it was. `uid`: who does it.
        """
        content = inode.content
        blob = inode.blob
        size = inode.size
        if blob is None or inode.staged is not None or self.off:
            return
        if content is not None and content.dirty:
            if reason == Reason.TRUNCATED:
                return
            size = content.row_size  # what was sealed before
        now = time.time_ns()
        if not self.is_old_enough(
            inode.btime if reason != Reason.TRUNCATED else max(inode.btime, inode.mtime)
        ):
            return
        place = self._places.get(parent) or self._place(parent)
        if not place.keeps or (place.excluded and place.excluded(os.fsdecode(place.path + name))):
            return
        try:
            self._filestore.claim_rows(ROW_BYTES)
        except OSError:
            return  # on a full disk what is removed must go
        if inode.xattrs is None:
            inode.xattrs = self._xattrs.of(inode.ino)
        xattrs = inode.xattrs
        self._inodes.add_refs(blob, 1)
        self._removed.append(
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
                inode.atime,
                inode.mtime,
                inode.btime,
            )
        )

    def noted(self) -> int:
        """How much is noted of what goes now; see `forget_since`."""
        return len(self._removed)

    def forget_since(self, noted: int) -> None:
        """What was noted since then is forgotten: its removal has failed."""
        for removed in self._removed[noted:]:
            self._inodes.add_refs(removed[_BLOB], -1)  # type: ignore[arg-type]
        del self._removed[noted:]

    def is_old_enough(self, since_ns: int) -> bool:
        """May what is there since then be kept?"""
        return not self.off and time.time_ns() - since_ns >= self.minimal_age_ns

    def keep_truncated(self, inode: Inode, uid: int) -> None:
        """As `keep`, for a file that is cut to nothing: under the oldest of its names."""
        if inode.blob is None or inode.ino in self.known or not inode.nlink:
            return
        names = self._dentries.names_of(inode.ino)
        if names:
            self.keep(inode, *names[0], uid, Reason.TRUNCATED)

    def _place(self, ino: int) -> _Place:
        chain: list[_Level] = []
        above, seen = ino, set[int]()
        while above != ROOT_INO and above not in seen:
            seen.add(above)
            names = self._dentries.names_of(above)
            if not names:
                break
            found = self._inodes.get(above)
            mode = found.mode & 0o7777
            chain.append((names[0][1], mode, found.uid, found.gid, self._access(found)))
            above = names[0][0]
        chain.reverse()
        path = b"/".join(level[0] for level in chain) + b"/"
        if len(self._places) >= PLACES:
            self._places.clear()
        inside = bool(chain) and chain[0][0] == CASFS
        place = self._places[ino] = _Place(tuple(chain), self.rule(path if chain else b""), inside=inside)
        return place

    def directory_gone(self, ino: int) -> None:
        """A directory was removed."""
        self._places.pop(ino, None)
        self.known.discard(ino)

    def directory_changed(self) -> None:
        """A directory has another name, mode, owner or access list: what goes to the trash from below it is
        not reached as what went before."""
        self._places.clear()

    # Writing the rows

    @property
    def pending(self) -> int:
        """Files that are noted and not written yet."""
        return len(self._removed)

    def flush(self, limit: int | None = None) -> None:
        """Write the rows of what was noted, of the first `limit` only. Inside a transaction, the one in which
        it was noted or a later one. Raises DatabaseError."""
        batch = self._removed[:limit]
        if not batch:
            return
        directories: dict[tuple[int, int], Inode] = {}
        inodes: list[tuple[object, ...]] = []
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
                (ino, mode, 1, uid, gid, 0, size, allocated, blob, None, None, atime, mtime, at, btime)
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
        del self._removed[: len(batch)]
        self._group.count(len(batch))
        for directory in directories.values():
            self._touch(directory)

    def _add_name(self, directory: int, cookie: int, name: bytes, ino: int, type_: int) -> None:
        """Give an inode a name in the trash that is taken, with ~2, ~3, ... behind it."""
        key = directory, name
        number = self._copies.get(key, 1) + 1
        while not self._directories.try_add((directory, cookie, _numbered(name, number), ino, type_)):
            number += 1
        if len(self._copies) >= PLACES:
            self._copies.clear()
        self._copies[key] = number

    def _touch(self, directory: Inode) -> None:
        self._directories.touch(directory)
        self._has_new_names(directory)

    def _has_new_names(self, directory: Inode) -> None:
        if directory.ino in self.known:
            self._changes.names_later(directory.ino)

    def _counterpart(self, date: bytes, place: _Place) -> Inode:
        """The directory of the trash for that day and place: it allows nothing that the original forbade."""
        root = self._inodes.get(ROOT_INO)
        if not self.base:
            base = self._new_directory(root, CASFS, 0o755, root.uid, root.gid, {})
            self.base = base.ino
            self.known.add(base.ino)
        directory = self._inodes.get(self.base)
        for name in (TRASH, date):
            directory = self._subdirectory(directory, name, 0o755, root.uid, root.gid, {})
            if name == TRASH:
                self.directory = directory.ino
                self.known.add(directory.ino)
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
            if above.ino == self.base or (same and self._access(found) == access):
                return found
            number += 1
        made = self._new_directory(above, _numbered(name, number), mode, uid, gid, access)
        self._has_new_names(above)
        return made

    def _access(self, inode: Inode) -> dict[bytes, bytes]:
        if inode.xattrs is None:
            inode.xattrs = self._xattrs.of(inode.ino)
        return {key: value for key, value in inode.xattrs.items() if key == acl.ACCESS}

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

    # What leaves the trash, and who asks for it

    def check_name(self, parent: int, name: bytes) -> None:
        """Raises FsError EPERM for a new name in the trash, and for the name of its own directory."""
        if parent in self.known or (parent == ROOT_INO and name == CASFS and not self.off):
            raise FsError(errno.EPERM)

    def check_own(self, ino: int) -> None:
        """Raises FsError EPERM for the directories that hold the trash: they stay."""
        if ino in (self.base, self.directory):
            raise FsError(errno.EPERM)

    def check_unchanged(self, ino: int) -> None:
        """Raises FsError EPERM for a file in the trash: nobody writes there."""
        if ino in self.known:
            raise FsError(errno.EPERM)

    def gone(self, inode: Inode) -> None:
        """A file was removed from the trash by a program."""
        self._rows.remove([inode.ino])
        self.known.discard(inode.ino)

    def restored(self, inode: Inode) -> None:
        """Something was moved out of the trash, a directory with all that is below."""
        if not inode.is_directory:
            self.gone(inode)
            return
        self._rows.remove_below(inode.ino)
        for directory in self._rows.directories_below(inode.ino):
            self.known.discard(directory)
            self.known.difference_update(row[2] for row in self._dentries.children(directory, 0, 1 << 62))

    def attribute(self, ino: int, name: bytes) -> bytes | None:
        """The value of one of `ATTRIBUTES`; None for what is not in the trash."""
        row = self._rows.get(ino)
        return None if row is None else ATTRIBUTES[name](row)


def _numbered(name: bytes, number: int) -> bytes:
    if number < 2:
        return name
    suffix = b"~%d" % number
    return name[: NAME_LIMIT - len(suffix)] + suffix


def iso_time(ns: int) -> str:
    """ISO 8601, UTC, in seconds."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ATTRIBUTES: dict[bytes, Callable[[TrashRow], bytes]] = {
    b"user.casfs.trash.deleted": lambda row: iso_time(row.deleted_ns).encode(),
    b"user.casfs.trash.uid": lambda row: b"%d" % row.uid,
    b"user.casfs.trash.path": lambda row: row.path,
    b"user.casfs.trash.reason": lambda row: row.reason.encode(),
}
"""Read-only attributes of a file in the trash. Not listed: no tool shall copy them."""
