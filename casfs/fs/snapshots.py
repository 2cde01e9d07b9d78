"""Snapshots as they are looked into: /.casfs/snapshots/NAME is the whole tree as it was.

All inodes in it are generated (nodes.py): the number of each is the one that it had, with that of the
snapshot above it. They are made from the rows of the snapshot's own database, which is opened when somebody
looks. Their contents are blobs of this store, which it keeps as long as there is the snapshot. Nothing can be
changed; what a snapshot shows never changes by itself, so the kernel remembers all of it, but for the names
of the snapshots. Modes, owners and access lists are as they were.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
from collections.abc import Callable
from typing import Any

from casfs.errors import CasfsError, FormatError, FsError
from casfs.fs.content.content import Content, Handle
from casfs.fs.content.contents import Contents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.nodes import SNAPSHOT, SNAPSHOT_BITS, SNAPSHOTS
from casfs.namespace.snapshot_rows import NUMBERS, SnapshotRows
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import SERIALS, Manifest
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

NAME = b"snapshots"

OPEN_LIMIT = 24
"""Databases of snapshots that are kept open."""

_DOTS = 2
"""Cookies of "." and ".."."""


class _Shown:
    """A snapshot that somebody has looked for. `rows`: None while its database is not open. `base`: what its
    inode numbers are added to."""

    __slots__ = ("base", "manifest", "rows")

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.base = SNAPSHOTS + (manifest.serial << SNAPSHOT_BITS)
        self.rows: SnapshotRows | None = None


class Snapshots:
    """As `nodes.Past`. Owned by the thread that runs the file system.

    `revoke`: have handles of files with numbers in a range be kept open no more for the next open(2).
    `_shown`: by their bases. `_opened`: those whose database is open, the first of them the longest.
    """

    def __init__(self, core: Core, contents: Contents) -> None:
        self._core = core
        self._inodes = core.inodes
        self._memory = core.inodes.in_memory
        self._blob_rows = core.store.namespace.blobs
        self._contents = contents
        self._directory = core.store.directory
        self._folder = SnapshotFolder(core.store.directory)
        self.revoke: Callable[[int, int], object] = lambda low, high: None
        self._shown: dict[int, _Shown] = {}
        self._opened: dict[int, _Shown] = {}
        core.nodes.makers[SNAPSHOT] = self._make
        core.nodes.past = self
        core.nodes.base_names[NAME] = SNAPSHOTS
        core.store.close_before.append(self._close_all)

    # Which there are

    def appeared(self, name: str) -> None:
        """A snapshot has been made."""
        log.debug("snapshot %s can be looked into", name)
        self._core.kernel.forget_attributes(SNAPSHOTS)  # by whose times it knows whether its listing is true

    def dropped(self, name: str) -> None:
        """A snapshot is there no more, nor its folder. Who has a file of it open reads it as before; all
        else is ESTALE."""
        self._core.kernel.forget_attributes(SNAPSHOTS)
        self._drop_named(name)

    def _drop_named(self, name: str) -> None:
        for shown in [each for each in self._shown.values() if each.manifest.name == name]:
            self._drop(shown)

    def _drop(self, shown: _Shown) -> None:
        low, high = shown.base, shown.base + NUMBERS
        self.revoke(low, high)
        del self._shown[low]
        for content in [each for each in self._contents.table if low < each.inode.ino < high]:
            self._keep(content)
        self._close(shown)
        self._contents.passthrough.drop_idle_of(low, high)
        self._inodes.forget_generated(low, high)
        self._core.remembered.names.add((SNAPSHOTS, shown.manifest.name.encode()))
        self._core.changes.names_later(SNAPSHOTS)

    def _keep(self, content: Content) -> None:
        """Have the file of an open content, which may be collected from now on."""
        if not content.backing and content.inode.blob is not None:
            try:
                self._contents.blobs.open_now(content)
            except OSError as error:
                log.warning("inode %d of a snapshot cannot be read any more: %s", content.inode.ino, error)

    def _find_snapshot(self, name: bytes) -> _Shown | None:
        """Looked for each time: others make and drop snapshots, too. Raises OSError."""
        text = name.decode(errors="replace")
        try:
            return self._show(self._folder.find(text))
        except FormatError as error:
            log.error("snapshot %s cannot be shown: %s", text, error)
            raise FsError(errno.EIO) from None
        except CasfsError:
            self._drop_named(text)
            return None

    def _show(self, manifest: Manifest) -> _Shown:
        """Raises FsError EOVERFLOW where another one has its number."""
        fresh = _Shown(manifest)
        shown = self._shown.get(fresh.base)
        if shown is not None and shown.manifest == manifest:
            return shown
        for other in [each for each in self._shown.values() if each.manifest.name == manifest.name]:
            self._drop(other)
        shown = self._shown.get(fresh.base)
        if shown is not None and not self._is_there(shown):
            self._drop(shown)
        elif shown is not None:
            log.error("snapshot %s cannot be shown beside %s", manifest.name, shown.manifest.name)
            raise FsError(errno.EOVERFLOW)
        self._inodes.forget_generated(fresh.base, fresh.base + NUMBERS)
        self._shown[fresh.base] = fresh
        return fresh

    def _is_there(self, shown: _Shown) -> bool:
        try:
            return self._folder.find(shown.manifest.name).serial == shown.manifest.serial
        except CasfsError:
            return False

    def _all(self) -> list[_Shown]:
        """By their numbers, those that can be shown."""
        found = {manifest.name: manifest for manifest in self._folder.all()}
        for shown in [each for each in self._shown.values() if each.manifest.name not in found]:
            self._drop(shown)
        shown_all = []
        for manifest in found.values():
            with contextlib.suppress(FsError):
                shown_all.append(self._show(manifest))
        return sorted(shown_all, key=lambda shown: shown.base)

    # Their rows

    def _at(self, number: int) -> tuple[_Shown, int]:
        """The snapshot of an inode, and the number that this had. Raises FsError ESTALE."""
        ino = number - SNAPSHOTS & NUMBERS - 1
        shown = self._shown.get(number - ino)
        if shown is None:  # of a mount before this one (open_by_handle_at(2)), or it is gone
            shown = next((each for each in self._all() if each.base == number - ino), None)
        if shown is None or not ino:
            raise FsError(errno.ESTALE)
        return shown, ino

    def _rows(self, shown: _Shown) -> SnapshotRows:
        """Raises FsError EIO for a database that cannot be opened, ESTALE."""
        if shown.rows is None:
            name = shown.manifest.name
            try:
                shown.rows = SnapshotRows(self._folder.database(name), shown.base)
            except (CasfsError, OSError) as error:
                if not self._is_there(shown):
                    self._drop(shown)
                    raise FsError(errno.ESTALE) from None
                log.error("snapshot %s cannot be shown: %s", name, error)
                raise FsError(errno.EIO) from None
            self._opened[shown.base] = shown
            if len(self._opened) > OPEN_LIMIT:
                self._close(next(iter(self._opened.values())))
        return shown.rows

    def _close(self, shown: _Shown) -> None:
        self._opened.pop(shown.base, None)
        if shown.rows is not None:
            shown.rows.close()
            shown.rows = None

    def _close_all(self) -> None:
        for shown in list(self._opened.values()):
            self._close(shown)

    # Names

    def find(self, directory: int, name: bytes) -> Inode | None:
        """The inode under a name. Raises FsError ESTALE, EIO, ENAMETOOLONG, EOVERFLOW."""
        if len(name) > 255:
            raise FsError(errno.ENAMETOOLONG)
        if directory == SNAPSHOTS:
            found = self._find_snapshot(name)
            return None if found is None else self._inodes.get(found.base + ROOT_INO)
        shown, directory = self._at(directory)
        rows = shown.rows or self._rows(shown)
        ino = rows.find(directory, name)
        if ino is None:
            return None
        if ino.__class__ is not int or not 0 < ino < NUMBERS:
            log.warning("%r in snapshot %s has a number that cannot be shown", name, shown.manifest.name)
            raise FsError(errno.EOVERFLOW)
        known = self._memory.get(shown.base + ino)
        if known is not None:
            return known
        row = rows.inode(ino)
        if row is None:
            raise FsError(errno.ESTALE)
        return self._remember(shown, row)

    def parent_of(self, directory: int) -> int:
        """The directory above one. Raises FsError ESTALE."""
        shown, ino = self._at(directory)
        if ino == ROOT_INO:
            return SNAPSHOTS
        above = self._rows(shown).parent_of(ino)
        if above is None or not 0 < above < NUMBERS:
            raise FsError(errno.ESTALE)
        return shown.base + above

    # Inodes

    def _make(self, number: int) -> Inode | None:
        if number == SNAPSHOTS:
            return self._make_directory()
        shown, ino = self._at(number)
        row = self._rows(shown).inode(ino)
        return None if row is None else self._remember(shown, row)

    def _make_directory(self) -> Inode:
        """Anybody may look which there are, who may come to it; what is in each is as it was."""
        root = self._inodes.get(ROOT_INO)
        inode = Inode(
            *(SNAPSHOTS, stat.S_IFDIR | 0o755, 2, root.uid, root.gid, 0, 0, 0, None, None, None),
            *(root.btime, root.btime, root.btime, root.btime),
        )
        with contextlib.suppress(OSError):  # none was ever made
            status = self._directory.status(NAME.decode())
            inode.mtime, inode.ctime = status.st_mtime_ns, status.st_ctime_ns
        inode.xattrs = {}
        return inode

    def _remember(self, shown: _Shown, row: tuple[Any, ...]) -> Inode:
        inode = Inode(*row)
        inode.ino += shown.base
        inode.nlink = max(inode.nlink, 1)
        inode.staged = None
        if inode.blob is not None and not shown.manifest.here:
            digest = self._rows(shown).digest(inode.blob)
            inode.blob = None if digest is None else self._blob_rows.find(digest)
        self._inodes.remember(inode)
        return inode

    def attributes(self, ino: int) -> dict[bytes, bytes]:
        """The extended attributes of an inode. Raises FsError ESTALE, EIO."""
        if ino <= SNAPSHOTS:
            return {}
        shown, number = self._at(ino)
        return self._rows(shown).attributes(number)

    def opened(self, handle: Handle) -> None:
        """Somebody has opened a file. Raises FsError ESTALE; EIO where the store has not got its content."""
        inode = handle.inode
        shown, ino = self._at(inode.ino)
        if inode.blob is None and not inode.size:
            return
        if inode.blob is None or not self._contents.blobs.is_there(inode.blob):
            if not self._is_there(shown):
                self._drop(shown)
                raise FsError(errno.ESTALE)
            name = shown.manifest.name
            log.error("snapshot %s: the store has not got the content of inode %d", name, ino)
            raise FsError(errno.EIO)

    # Listing

    def children(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.children`."""
        if directory == SNAPSHOTS:
            return self._children_of_all(after, limit)
        shown, ino = self._at(directory)
        return self._rows(shown).children(ino, after, limit)

    def list_attributes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.list_attributes`, but of the snapshots themselves only the names: none is opened."""
        if directory == SNAPSHOTS:
            return self._children_of_all(after, limit)
        shown, ino = self._at(directory)
        return self._rows(shown).list_attributes(ino, after, limit)

    def list_inodes(self, directory: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """As `Dentries.list_inodes`. A snapshot that cannot be opened is left out."""
        if directory != SNAPSHOTS:
            shown, ino = self._at(directory)
            return self._rows(shown).list_inodes(ino, after, limit)
        found: list[tuple[Any, ...]] = []
        for row in self._children_of_all(after, SERIALS):
            with contextlib.suppress(OSError):
                self._inodes.get(row[2])
                found.append((*row[:3], None))
        return found[:limit]

    def _children_of_all(self, after: int, limit: int) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for shown in self._all():
            cookie = _DOTS + 1 + (shown.base - SNAPSHOTS >> SNAPSHOT_BITS)
            if cookie > after and len(rows) < limit:
                name = shown.manifest.name.encode()
                rows.append((cookie, name, shown.base + ROOT_INO, stat.S_IFDIR >> 12))
        return rows
