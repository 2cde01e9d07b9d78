"""What differs between two databases, or between a snapshot's and that of the store: name by name, in order.

Both trees are walked at once, directory by directory, in the order of their names; SQLite compares, so that
only what differs comes out, and the directories. Memory is bounded by the number of directories.

Names are paired by their path. Of databases of one store, directories are paired by their inode number before
that, and files that have one name in each by theirs after it: such a pair is a rename. Equal is what has the
same content, by digest, and the same attributes: mode, owner, extended attributes. Of an inode of one store
whose ctime is the same nothing differs.

The directory /.casfs is not compared. Rows may be hostile (I9): who is in two places is no tree.
"""

from __future__ import annotations

import errno
import heapq
import stat
import urllib.parse
from collections.abc import Iterable, Iterator
from enum import IntFlag, StrEnum
from typing import Any, NamedTuple, TypeVar

from casfs.namespace.connection import DatabaseError, connect, run_script
from casfs.namespace.difference_queries import OF_BOTH, OF_INODES, OF_NEW, PAGE
from casfs.namespace.inodes import S_IFMT
from casfs.namespace.table import Table, typed
from casfs.types import ROOT_INO

REMEMBERED = 100_000
"""Directories of which it is remembered what they are paired with, and whether they are looked at."""

OLD, NEW = "main", "other"
"""What SQLite calls the two."""


class What(StrEnum):
    """What became of something: it is only in the first, only in the second, in both, or elsewhere."""

    REMOVED = "removed"
    ADDED = "added"
    CHANGED = "changed"
    RENAMED = "renamed"


class Parts(IntFlag):
    """What of it differs. TIMES: that of the last modification."""

    NONE = 0
    CONTENT = 1
    ATTRIBUTES = 2
    TIMES = 4
    TYPE = 8


class Spot(NamedTuple):
    """A name and what it stands for. `mode`: of the inode. The root has no name, and is its own parent."""

    parent: int
    name: bytes
    ino: int
    mode: int

    @property
    def is_directory(self) -> bool:
        return self.mode & S_IFMT == stat.S_IFDIR

    @property
    def kind(self) -> int:
        return self.mode & S_IFMT


class Difference(NamedTuple):
    """`old`, `new`: in the first and the second database, with the path in it; None where it is not.
    `beside`: of something that is in one only, the directory of the other that its directory is paired with;
    0 for none."""

    what: What
    path: bytes
    parts: Parts
    old: Spot | None
    new: Spot | None
    new_path: bytes = b""
    beside: int = 0


class Wanted(NamedTuple):
    """A content of the first: `blob` is its number in the second, None if that does not know it."""

    digest: bytes
    size: int
    blob: int | None


class _Both(NamedTuple):
    """A name of the first, what stands for it in the second, and how they differ."""

    name: bytes
    ino: int
    mode: int
    other: int | None
    other_mode: int | None
    parts: int


class _One(NamedTuple):
    name: bytes
    ino: int
    mode: int


class _Pair(NamedTuple):
    """Directories that are compared; None: there is none. Their paths end with a slash."""

    old: int | None
    new: int | None
    old_path: bytes
    new_path: bytes


_Row = TypeVar("_Row", _Both, _One)


class Differences(Table):
    """Of two databases as they are now. For one thread at a time; the log of one that is in use grows until
    it is closed.

    `numbers`: both are of one store, so that an inode number means one inode. `ids`: the numbers of blobs
    are those of one store.
    """

    def __init__(
        self,
        old: str,
        new: str,
        *,
        frozen: bool,
        numbers: bool = True,
        ids: bool = True,
        written: Iterable[int] = (),
    ) -> None:
        """`old`: of a snapshot; `new`: of another one if `frozen`, else that of the store, as its last commit
        is. Both have been looked at (copies.open_copy, Namespace). `written`: inodes of the second that have
        another content than their rows say. Raises FormatError, DatabaseError."""
        connect(new, readonly=True, frozen=frozen).close()  # or its problem would be said to be the first's
        self._connection = connect(old, readonly=True, frozen=True)
        self.numbers = numbers
        among = ", ".join(map(str, written))
        words = {
            "ids": "i.blob_id IS NOT j.blob_id AND" if ids else "",
            "numbers": "i.ino = j.ino AND i.ctime_ns = j.ctime_ns" if numbers else "0",
            "written": f"j.ino IN ({among})" if among else "0",
        }
        self._sql = {
            (compared, sql): sql.format(compared=compared, **words)
            for compared in ("=", ">")
            for sql in (OF_BOTH, OF_NEW, OF_INODES)
        }
        try:
            name = f"file:{urllib.parse.quote(new)}?immutable=1" if frozen else new
            self._connection.execute("ATTACH DATABASE ? AS other", (name,))
            self._connection.execute("BEGIN")
            self._hidden = {side: self._casfs_directory(side) for side in (OLD, NEW)}
            run_script(self._connection, "SELECT count(*) FROM main.meta")
        except BaseException:
            self._connection.close()
            raise
        self._roots = {OLD: ROOT_INO, NEW: ROOT_INO}
        self._scope: dict[tuple[str, int], bool] = {}
        self._partners: dict[tuple[str, int], int | None] = {}

    def _casfs_directory(self, side: str) -> int:
        value = self._connection.execute(f"SELECT value FROM {side}.meta WHERE key = 'casfs_directory'").get
        return value if isinstance(value, int) else 0

    def close(self) -> None:
        self._connection.close()

    # Looking

    def spot(self, side: str, parent: int, name: bytes) -> Spot | None:
        """What has that name."""
        rows = self._connection.execute(
            f"""SELECT d.parent, d.name, d.ino, i.mode FROM {side}.dentry AS d
                CROSS JOIN {side}.inode AS i ON i.ino = d.ino WHERE d.parent = ? AND d.name = ?""",
            (parent, name),
        ).fetchall()
        found = typed(rows, Spot)
        return found[0] if found and found[0].ino != self._hidden[side] else None

    def root(self, side: str) -> Spot:
        mode = self._mode(side, ROOT_INO)
        if mode is None or mode & S_IFMT != stat.S_IFDIR:
            raise DatabaseError(errno.EIO, "database: it has no root directory; see casfs fsck")
        return Spot(ROOT_INO, b"", ROOT_INO, mode)

    def way(self, side: str, parts: list[bytes]) -> list[Spot]:
        """The root and what is on the way to a path, as far as there is something."""
        found = [self.root(side)]
        for part in parts:
            below = self.spot(side, found[-1].ino, part) if found[-1].is_directory else None
            if below is None:
                break
            found.append(below)
        return found

    def _mode(self, side: str, ino: int) -> int | None:
        mode: int | None = self._connection.execute(
            f"SELECT mode FROM {side}.inode WHERE ino = ?", (ino,)
        ).get
        return mode

    def _only_name(self, side: str, ino: int, kind: int) -> tuple[int, bytes] | None:
        """The name of what has but one."""
        query = f"SELECT parent, name FROM {side}.dentry WHERE ino = ? LIMIT 2"
        rows: Any = self._connection.execute(query, (ino,)).fetchall()
        mode = self._mode(side, ino) if len(rows) == 1 else None
        return rows[0] if mode is not None and mode & S_IFMT == kind else None

    # Pairs of directories

    def _is_looked_at(self, side: str, ino: int) -> bool:
        """Is a directory the one that is compared, or below it?"""
        chain: list[int] = []
        above: int | None = ino
        known: bool | None = None
        while known is None:
            if above == self._roots[side]:
                known = True
            elif above is None or above == self._hidden[side] or above == ROOT_INO or len(chain) > 10_000:
                known = False
            else:
                known = self._scope.get((side, above))
                if known is None:
                    chain.append(above)
                    above = self._connection.execute(
                        f"SELECT parent FROM {side}.dentry WHERE ino = ? LIMIT 1", (above,)
                    ).get
        if len(self._scope) > REMEMBERED:
            self._scope.clear()
        for each in chain:
            self._scope[side, each] = known
        return known

    def _is_there(self, side: str, ino: int) -> bool:
        """Is there a directory of that number among those that are compared?"""
        mode = self._mode(side, ino)
        return mode is not None and mode & S_IFMT == stat.S_IFDIR and self._is_looked_at(side, ino)

    def _partner(self, side: str, ino: int) -> int | None:
        """The directory of the other side that one of `side` is compared with."""
        other = NEW if side == OLD else OLD
        chain: list[tuple[int, bytes]] = []
        at, found = ino, None
        while True:
            if at == self._roots[side]:
                found = self._roots[other] or None
                break
            if (side, at) in self._partners:
                found = self._partners[side, at]
                break
            if self.numbers and self._is_there(other, at):
                found = at
                break
            name = self._only_name(side, at, stat.S_IFDIR)
            if name is None or len(chain) > 10_000:
                break
            chain.append((at, name[1]))
            at = name[0]
        if len(self._partners) > REMEMBERED:
            self._partners.clear()
        for each, part in reversed(chain):
            below = None if found is None else self.spot(other, found, part)
            found = None
            if below is not None and below.is_directory:
                found = None if self.numbers and self._is_there(side, below.ino) else below.ino
            self._partners[side, each] = found
        return found

    def _is_paired(self, side: str, parent: int, name: bytes, kind: int) -> bool:
        """Is a name, of no directory, compared with one of the other side?"""
        partner = self._partner(side, parent)
        if partner is None:
            return False
        there = self.spot(NEW if side == OLD else OLD, partner, name)
        return there is not None and there.kind == kind

    def _moved_file(self, side: str, ino: int, kind: int) -> tuple[int, bytes] | None:
        """Where a file of `side` whose name there is paired with nothing is on the other side, if its name
        there is paired with nothing either."""
        if not self.numbers:
            return None
        other = NEW if side == OLD else OLD
        if self._only_name(side, ino, kind) is None:
            return None
        there = self._only_name(other, ino, kind)
        if there is None or not self._is_looked_at(other, there[0]) or self._is_paired(other, *there, kind):
            return None
        return there

    # Walking

    def everything(self) -> Iterator[Difference]:
        """From the root. Raises FormatError, DatabaseError."""
        old, new = self.root(OLD), self.root(NEW)
        parts = self.parts(ROOT_INO, ROOT_INO)
        if parts:
            yield Difference(What.CHANGED, b"", parts, old, new)
        self._roots = {OLD: ROOT_INO, NEW: ROOT_INO}
        yield from self._walk(self._names(_Pair(ROOT_INO, ROOT_INO, b"", b"")))

    def below(self, old: int | None, new: int | None, name: bytes, path: bytes) -> Iterator[Difference]:
        """Of what is called `name` in a directory of the first and one of the second, which have that path,
        with a slash behind it. None: there is no such directory."""
        spots = [
            None if parent is None else self.spot(side, parent, name)
            for side, parent in ((OLD, old), (NEW, new))
        ]
        self._roots = {
            side: spot.ino if spot is not None and spot.is_directory else 0
            for side, spot in zip((OLD, NEW), spots, strict=True)
        }
        self._scope.clear()
        self._partners.clear()
        yield from self._walk(self._names(_Pair(old, new, path, path), name))

    def parts(self, old: int, new: int) -> Parts:
        """How two inodes differ."""
        rows: Any = self._connection.execute(self._sql[">", OF_INODES], (old, new)).fetchall()
        return Parts(rows[0][0])

    def content(self, ino: int) -> Wanted | None:
        """What an inode of the first has; None for one that is empty, or has none."""
        rows = self._connection.execute(
            """SELECT b.blake3, b.size, k.id FROM main.inode AS i
               CROSS JOIN main.blob AS b ON b.id = i.blob_id
               LEFT JOIN other.blob AS k ON k.blake3 = b.blake3 WHERE i.ino = ?""",
            (ino,),
        ).fetchall()
        found = typed(rows, Wanted)
        return found[0] if found else None

    def names(self, side: str, ino: int) -> set[tuple[int, bytes]]:
        """All names of an inode."""
        query = f"SELECT parent, name FROM {side}.dentry WHERE ino = ?"
        rows: Any = self._connection.execute(query, (ino,)).fetchall()
        return set(rows)

    def _walk(self, names: Iterator[Difference | _Pair]) -> Iterator[Difference]:
        todo = [names]
        seen: dict[str, set[int]] = {OLD: set(), NEW: set()}
        while todo:
            found = next(todo[-1], None)
            if found is None:
                todo.pop()
            elif isinstance(found, Difference):
                yield found
            else:
                for side, ino in ((OLD, found.old), (NEW, found.new)):
                    if ino is not None and ino in seen[side]:
                        raise DatabaseError(errno.EIO, f"database: directory {ino} is in two places")
                    if ino is not None:
                        seen[side].add(ino)
                todo.append(self._names(found))

    def _names(self, pair: _Pair, only: bytes | None = None) -> Iterator[Difference | _Pair]:
        """What differs in two directories, and which directories are to be compared then."""
        both: Iterator[_Both | _One] = self._rows(OF_BOTH, _Both, pair, only)
        new: Iterator[_Both | _One] = self._rows(OF_NEW, _One, pair, only)
        for row in heapq.merge(both, new, key=lambda row: row.name):
            if isinstance(row, _Both):
                yield from self._of_both(pair, row)
            elif row.ino != self._hidden[NEW]:
                yield from self._of_new(pair, row)

    def _rows(self, sql: str, kind: type[_Row], pair: _Pair, only: bytes | None) -> Iterator[_Row]:
        after = b"" if only is None else only
        query = self._sql["=" if only is not None else ">", sql]
        while True:
            found = typed(self._connection.execute(query, (pair.old, pair.new, after)).fetchall(), kind)
            yield from found
            if only is not None or len(found) < PAGE:
                return
            after = found[-1].name

    def _of_both(self, pair: _Pair, row: _Both) -> Iterator[Difference | _Pair]:
        """Of a name of the first."""
        assert pair.old is not None
        if row.ino == self._hidden[OLD]:
            return
        old = Spot(pair.old, row.name, row.ino, row.mode)
        new = None
        if row.other is not None and row.other_mode is not None and row.other != self._hidden[NEW]:
            assert pair.new is not None
            new = Spot(pair.new, row.name, row.other, row.other_mode)
        parts = Parts(row.parts)
        if old.is_directory:
            yield from self._of_directory(pair, old, new, parts)
            return
        if new is not None and new.kind == old.kind:
            yield Difference(
                What.CHANGED, pair.old_path + old.name, parts, old, new, pair.new_path + new.name
            )
            return
        path = pair.old_path + old.name
        there = self._moved_file(OLD, old.ino, old.kind)
        if there is None:
            yield Difference(What.REMOVED, path, Parts.NONE, old, None, b"", pair.new or 0)
        else:
            moved = Spot(*there, old.ino, old.mode)
            parts = self.parts(old.ino, old.ino)
            yield Difference(What.RENAMED, path, parts, old, moved, self._path(NEW, moved), pair.new or 0)
        if new is not None:
            yield from self._of_new(pair, _One(new.name, new.ino, new.mode))

    def _of_directory(
        self, pair: _Pair, old: Spot, new: Spot | None, parts: Parts
    ) -> Iterator[Difference | _Pair]:
        path = pair.old_path + old.name
        partner = self._partner(OLD, old.ino) if new is None or new.ino != old.ino else old.ino
        if partner is None:
            yield Difference(What.REMOVED, path, Parts.NONE, old, None, b"", pair.new or 0)
            yield _Pair(old.ino, None, path + b"/", b"")
        elif new is not None and partner == new.ino:
            if parts:
                yield Difference(What.CHANGED, path, parts, old, new, pair.new_path + new.name)
            yield _Pair(old.ino, partner, path + b"/", pair.new_path + new.name + b"/")
            return
        else:
            there = self._only_name(NEW, partner, stat.S_IFDIR)
            if there is None:
                raise DatabaseError(errno.EIO, f"database: directory {partner} has several names, or none")
            moved = Spot(*there, partner, self._mode(NEW, partner) or 0)
            moved_path = self._path(NEW, moved)
            parts = self.parts(old.ino, partner)
            yield Difference(What.RENAMED, path, parts, old, moved, moved_path, pair.new or 0)
            yield _Pair(old.ino, partner, path + b"/", moved_path + b"/")
        if new is not None:
            yield from self._of_new(pair, _One(new.name, new.ino, new.mode))

    def _of_new(self, pair: _Pair, row: _One) -> Iterator[Difference | _Pair]:
        """Of a name of the second that is paired with nothing of the same path."""
        assert pair.new is not None
        new = Spot(pair.new, row.name, row.ino, row.mode)
        path = pair.new_path + row.name
        if new.is_directory:
            if self._partner(NEW, new.ino) is None:
                yield Difference(What.ADDED, path, Parts.NONE, None, new, path, pair.old or 0)
                yield _Pair(None, new.ino, b"", path + b"/")
        elif self._moved_file(NEW, new.ino, new.kind) is None:
            yield Difference(What.ADDED, path, Parts.NONE, None, new, path, pair.old or 0)

    def _path(self, side: str, spot: Spot) -> bytes:
        parts, parent = [spot.name], spot.parent
        for _ in range(10_000):
            if parent == ROOT_INO:
                return b"/".join(reversed(parts))
            query = f"SELECT parent, name FROM {side}.dentry WHERE ino = ? LIMIT 1"
            rows: Any = self._connection.execute(query, (parent,)).fetchall()
            if not rows:
                break
            parent = rows[0][0]
            parts.append(rows[0][1])
        raise DatabaseError(errno.EIO, f"database: inode {spot.ino} is in no directory")
