"""The one transaction of a restore: names change for what was made before, and all of it or nothing stays.

What goes is put under a directory without a name first, what is to be elsewhere as well, so that no place is
taken and no directory ever lies below itself. While it lasts others are served, and nothing is committed
(`GroupCommit.kept_open`). What fails is undone, the last first; what others have changed since it was looked
at is left as it is, and counted.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from casfs.errors import FsError
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.policy import Reason
from casfs.maintenance.snapshots.building import STEP, Builder
from casfs.maintenance.snapshots.repositories import bring_back
from casfs.namespace.differences import Difference, Parts, Spot, What
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

FLUSH = 256
"""Changes after which the rows of inodes are written, and counts of references."""


class Trashing(NamedTuple):
    """Who removes what goes, and does it go to the trash? `since_ns`: what has changed from then on goes
    there in any case, since the snapshot that was made before has not got it."""

    uid: int
    trashes: bool
    since_ns: int = 1 << 62


class Switch:
    """Of one restore. `changed`: what others have changed meanwhile. On the thread that runs the file
    system."""

    def __init__(self, fs: FileSystem, builder: Builder, trashing: Trashing) -> None:
        self._fs = fs
        self._builder = builder
        self._trashing = trashing
        self._undo: list[Callable[[], object]] = []
        self._kept: set[int] = set()
        self._steps = 0
        self._parked: dict[int, tuple[Inode, bytes]] = {}
        self._touched: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self.limbo: Inode | None = None
        self.changed = 0

    async def run(
        self,
        differences: list[Difference],
        tops: Iterable[tuple[Difference, Inode]],
        kept: Iterable[int],
    ) -> None:
        """`tops`: what was made. `kept`: of inodes, those that only lack names. Raises OSError; then nothing
        has changed, but for what others have done."""
        fs, made = self._fs, {id(each): inode for each, inode in tops}
        async with fs.group.kept_open():
            try:
                self.limbo = fs.inodes.create(stat.S_IFDIR | 0o700, 0, 0)
                self.limbo.nlink = 0
                fs.inodes.mark(self.limbo)
                await self._take_away(differences)
                await self._place(differences, made, set(kept))
                await self._attributes(differences)
                self._set_times()
            except BaseException as error:
                await self._take_back(in_steps=isinstance(error, Exception))
                if fs.group.active and self.limbo is not None:
                    fs.contents.discard(self.limbo)
                raise
            finally:
                fs.tree.kept -= self._kept

    async def _step(self) -> None:
        self._steps += 1
        if self._steps % STEP == 0:
            await self._fs.scheduler.pause()
        if self._steps % FLUSH == 0:
            self._fs.inodes.flush()
        if not self._fs.group.active:
            raise FsError(self._fs.group.failed or errno.EROFS)

    async def _take_back(self, *, in_steps: bool) -> None:
        try:
            while self._undo and in_steps:
                self._undo_last()
                if len(self._undo) % STEP == 0:
                    await self._fs.scheduler.pause()
        finally:
            while self._undo:
                self._undo_last()
            for ino, mtime in self._times.items() if self._fs.group.active else ():
                directory = self._fs.inodes.get(ino)
                directory.mtime = mtime  # its ctime says that something was there meanwhile
                self._fs.inodes.mark(directory)

    def _changes(self, *directories: Inode) -> None:
        """Names of these are about to change."""
        for directory in directories:
            self._times.setdefault(directory.ino, directory.mtime)

    def _undo_last(self) -> None:
        if not self._fs.group.active:  # SQLite has undone it, and the file system only reads
            self._undo.clear()
            return
        try:
            self._undo.pop()()
        except Exception as error:
            log.exception("what was restored in part cannot be undone")
            self._fs.group.stop(error if isinstance(error, OSError) else OSError(errno.EIO, str(error)))

    # What is there

    def _still(self, spot: Spot) -> Inode | None:
        """What has that name, if it is what was found."""
        if self._fs.store.namespace.dentries.find(spot.parent, spot.name) != spot.ino:
            return None
        inode = self._fs.inodes.get(spot.ino)
        return inode if inode.nlink else None

    def _directory(self, each: Difference) -> Inode | None:
        """Where something of the snapshot is to be; None when others have removed that."""
        assert each.old is not None
        made = self._builder.directories.get(each.old.parent)
        if made is not None:
            return made
        try:
            found = self._fs.inodes.get(each.beside)
        except FsError:
            return None
        return found if found.nlink and found.is_directory else None

    def _touch(self, directory: Inode, like: int) -> None:
        """It gets the times that it had, when all is done."""
        if like:
            self._touched[directory.ino] = like

    # What goes

    async def _take_away(self, differences: list[Difference]) -> None:
        gone: dict[int, bytes] = {}
        known: set[tuple[int, bytes, int]] = set()
        parked: list[tuple[Difference, Spot]] = []
        for each in differences:
            spot = each.new
            if spot is None or each.what is What.CHANGED:
                continue
            await self._step()
            inode = self._still(spot)
            if each.what is What.ADDED:
                known.add((spot.parent, spot.name, spot.ino))
                if spot.is_directory:
                    gone[spot.ino] = each.path
            below = each.what is What.ADDED and spot.parent in gone
            if inode is None:
                self.changed += not below
            elif inode.is_directory or (each.what is What.RENAMED and not each.parts & Parts.CONTENT):
                if not below:
                    parked.append((each, spot))
            elif below:
                self._note(inode, spot, Reason.REMOVED)
            else:
                self._remove(spot, inode)
                self._touch(self._fs.inodes.get(spot.parent), each.beside * (each.what is What.ADDED))
        # What moves first: it may lie in a directory that goes.
        for what in (What.RENAMED, What.ADDED):
            for each, spot in parked:
                if each.what is what:
                    await self._step()
                    self._park(each, spot)
                    self._touch(self._fs.inodes.get(spot.parent), each.beside * (what is What.ADDED))
        await self._check_gone(gone, known)

    async def _check_gone(self, gone: dict[int, bytes], known: set[tuple[int, bytes, int]]) -> None:
        """With a directory goes what was looked at: nobody can put anything there any more, but what others
        have put there before would go without a word. Raises FsError EBUSY."""
        for directory, path in gone.items():
            after = 0
            while rows := self._fs.store.namespace.dentries.children(directory, after, STEP):
                await self._step()
                after = rows[-1][0]
                if any((directory, name, ino) not in known for _, name, ino, _ in rows):
                    raise FsError(errno.EBUSY, f"{_text(path)}: others have changed it; try it again")

    def _note(self, inode: Inode, spot: Spot, reason: Reason) -> list[Any]:
        """Have the trash keep a file that loses a name."""
        policy = self._fs.policy
        before = policy.noted()
        if inode.content is not None:
            inode.content.observe()
        if self._trashing.trashes or inode.ctime >= self._trashing.since_ns:
            policy.leaves(inode, spot.parent, spot.name, self._trashing.uid, reason)
        noted = policy.noted_since(before)
        if noted and reason is Reason.REMOVED:
            self._undo.append(partial(policy.forget, noted))
        return noted

    def _park(self, each: Difference, spot: Spot) -> None:
        """Put it out of the way. A directory in the root stays there: it may be a repository."""
        fs, inode = self._fs, self._fs.inodes.get(spot.ino)
        if each.what is What.ADDED:  # there may be other rules since, or a lock
            fs.policy.check_remove(spot.parent, spot.name, inode)
        else:
            fs.policy.check_move(spot.parent, spot.name, inode, each.beside)
        assert self.limbo is not None
        to, name = self.limbo, b"%d" % inode.ino
        if spot.parent == ROOT_INO and inode.ino in self._repositories():
            to, name = fs.inodes.get(ROOT_INO), b".restoring-" + secrets.token_hex(8).encode()
        self._parked[inode.ino] = to, name
        self._move(spot.parent, spot.name, to, name, inode)

    def _repositories(self) -> set[int]:
        return {row.ino for row in self._fs.store.namespace.repositories.all()}

    def _move(self, parent: int, name: bytes, to: Inode, new_name: bytes, inode: Inode) -> None:
        fs, origin, ctime = self._fs, self._fs.inodes.get(parent), inode.ctime
        self._changes(origin, to)
        beside = fs.policy.moves(inode, parent, name, to.ino, new_name, None)
        fs.directories.move(origin, name, to, new_name, inode, None, beside)
        self._hide()
        self._undo.append(partial(self._move_back, origin, name, to, new_name, inode, ctime))

    def _hide(self) -> None:
        """What is put away has no name, so that the next start removes it."""
        assert self.limbo is not None
        self.limbo.nlink = 0
        self._fs.inodes.mark(self.limbo)

    def _move_back(
        self, origin: Inode, name: bytes, to: Inode, new_name: bytes, inode: Inode, ctime: int
    ) -> None:
        beside = self._fs.policy.moves(inode, to.ino, new_name, origin.ino, name, None)
        self._fs.directories.move(to, new_name, origin, name, inode, None, beside)
        self._hide()
        inode.ctime = ctime
        self._fs.inodes.mark(inode)

    def _remove(self, spot: Spot, inode: Inode) -> None:
        fs, ctime = self._fs, inode.ctime
        directory = fs.inodes.get(spot.parent)
        fs.policy.check_remove(spot.parent, spot.name, inode)  # there may be other rules since
        self._changes(directory)
        self._keep(inode)
        before = len(self._undo)
        self._note(inode, spot, Reason.REMOVED)
        try:
            fs.directories.remove(directory, spot.name, inode)
        except BaseException:
            while len(self._undo) > before:
                self._undo.pop()()
            raise
        self._undo.append(partial(self._bring_back, directory, spot.name, inode, ctime))

    def _bring_back(self, directory: Inode, name: bytes, inode: Inode, ctime: int) -> None:
        self._fs.tree.bring_back(directory, name, inode)
        inode.ctime = ctime
        self._fs.inodes.mark(inode)

    def _keep(self, inode: Inode) -> None:
        """It may get its name back."""
        if inode.ino not in self._fs.tree.kept:
            self._fs.tree.kept.add(inode.ino)
            self._kept.add(inode.ino)

    # What comes

    async def _place(self, differences: list[Difference], made: dict[int, Inode], kept: set[int]) -> None:
        for each in differences:
            if each.old is None:
                continue
            if each.what is What.CHANGED and not each.parts & Parts.CONTENT:
                continue
            renamed = each.what is What.RENAMED
            inode = made.get(id(each))
            if inode is None and not renamed and each.old.ino in kept:
                inode = self._fs.inodes.get(each.old.ino)
            if inode is None and not (renamed and each.old.ino in self._parked):
                continue
            await self._step()
            if each.what is What.CHANGED:
                assert each.new is not None
                assert inode is not None
                self._replace(each.new, inode)
                continue
            directory = self._directory(each)
            name = each.old.name
            if directory is None or self._fs.store.namespace.dentries.find(directory.ino, name) is not None:
                if inode is None:
                    raise FsError(errno.EBUSY, f"{_text(each.path)}: others have changed it; try it again")
                self.changed += 1
                continue
            self._fs.policy.check_attributes(directory)
            self._changes(directory)
            if inode is None:
                parked, parked_name = self._parked[each.old.ino]
                inode = self._fs.inodes.get(each.old.ino)
                self._move(parked.ino, parked_name, directory, name, inode)
            elif each.old.ino in kept and id(each) not in made:
                self._fs.policy.check_link(inode)
                self._fs.directories.link(directory, name, inode, None)
                self._undo.append(partial(self._fs.directories.remove, directory, name, inode))
            else:
                self._attach(directory, name, inode, each.old)
            self._touch(directory, each.old.parent)

    def _attach(self, directory: Inode, name: bytes, inode: Inode, old: Spot) -> None:
        fs, links = self._fs, inode.nlink
        inode.nlink = self._builder.links(inode)
        try:
            fs.directories.add(directory, name, inode)
        except BaseException:
            inode.nlink = links
            raise
        fs.inodes.mark(inode)
        self._undo.append(partial(fs.directories.remove, directory, name, inode))
        if inode.is_directory:
            fs.places.invalidate()
            if fs.directories.follower is not None:
                fs.directories.follower.moved(inode.ino)
            undo = self._bring_repository(directory, old, inode)
            if undo is not None:
                self._undo.append(undo)

    def _bring_repository(self, directory: Inode, old: Spot, inode: Inode) -> Callable[[], object] | None:
        if directory.ino != ROOT_INO or old.parent != ROOT_INO:
            return None
        return bring_back(self._fs, self._builder.rows, old.ino, inode.ino)

    def _replace(self, spot: Spot, inode: Inode) -> None:
        """A name stands for another file."""
        fs = self._fs
        there = self._still(spot)
        if there is None:
            self.changed += 1
            return
        if there is inode:
            return
        directory, ctime = fs.inodes.get(spot.parent), there.ctime
        fs.policy.check_replace(spot.parent, spot.name, there)
        self._keep(there)
        noted = self._note(there, spot, Reason.REPLACED)
        inode.nlink += 1
        try:
            fs.directories.point(directory, spot.name, inode, there)
        except BaseException:
            inode.nlink -= 1
            fs.policy.forget(noted)
            raise
        self._undo.append(partial(self._replace_back, directory, spot.name, inode, there, ctime, noted))

    def _replace_back(
        self, directory: Inode, name: bytes, inode: Inode, there: Inode, ctime: int, noted: list[Any]
    ) -> None:
        there.nlink += 1
        self._fs.directories.unlinked.discard(there.ino)
        self._fs.directories.point(directory, name, there, inode)
        there.ctime = ctime
        self._fs.inodes.mark(there)
        self._fs.policy.forget(noted)

    # What is there, with other attributes

    async def _attributes(self, differences: list[Difference]) -> None:
        for each in differences:
            if each.old is None or each.new is None or not each.parts & (Parts.ATTRIBUTES | Parts.TIMES):
                continue
            if each.parts & Parts.CONTENT and not each.old.is_directory:
                continue  # it was made anew
            await self._step()
            try:
                inode = self._fs.inodes.get(each.new.ino)
            except FsError:
                self.changed += 1
                continue
            if inode.nlink:
                if each.parts & Parts.ATTRIBUTES:
                    self._fs.policy.check_attributes(inode)
                self._set(inode, each.old)
                if inode.is_directory:
                    self._touch(inode, each.old.ino)

    def _set(self, inode: Inode, old: Spot) -> None:
        row, attributes = self._builder.row(old), self._builder.attributes(old)
        before = (inode.mode, inode.uid, inode.gid, inode.atime, inode.mtime, inode.ctime)
        held = dict(self._fs.xattrs.all(inode))
        now = time.time_ns()
        wanted = (row.mode, row.uid, row.gid, inode.atime, row.mtime_ns, now)
        self._fs.store.filestore.space.claim_rows(512 + sum(map(len, attributes.values())))
        self._write(inode, wanted, attributes)
        self._undo.append(partial(self._write, inode, before, held))

    def _write(
        self, inode: Inode, fields: tuple[int, int, int, int, int, int], attributes: dict[bytes, bytes]
    ) -> None:
        fs, rows = self._fs, self._fs.store.namespace.xattrs
        access = fields[:3] != (inode.mode, inode.uid, inode.gid) or attributes != fs.xattrs.all(inode)
        if inode.content is not None:
            inode.content.observe()  # what a mapping has written before moves its time no more
        with fs.xattrs.whole(inode):
            there = fs.xattrs.all(inode)
            for name in there.keys() - attributes.keys():
                rows.remove(inode.ino, name)
            for name, value in attributes.items():
                if there.get(name) != value:
                    rows.set(inode.ino, name, value)
            inode.xattrs = None  # the rows have them
            inode.mode, inode.uid, inode.gid, inode.atime, inode.mtime, inode.ctime = fields
            if inode.is_directory and access:
                fs.places.invalidate()
                fs.policy.access_changed(inode.ino)
        fs.inodes.mark(inode)
        fs.group.count(1 + sum(map(len, attributes.values())) // 4096)
        if fs.changes.collecting:
            fs.changes.inode(inode.ino)

    def _set_times(self) -> None:
        """Directories have the times of the snapshot, whatever names they have got since."""
        fs = self._fs
        for ino, like in self._touched.items():
            self._set_time(ino, like)
        for like, inode in self._builder.directories.items():
            if inode.nlink:
                self._set_time(inode.ino, like)
        fs.inodes.flush()

    def _set_time(self, ino: int, like: int) -> None:
        row = self._builder.row(Spot(0, b"", like, 0))
        inode = self._fs.inodes.get(ino)
        if stat.S_ISDIR(row.mode) and inode.mtime != row.mtime_ns:
            inode.mtime = row.mtime_ns
            self._fs.inodes.mark(inode)
            if self._fs.changes.collecting:
                self._fs.changes.inode(ino)

    # Afterwards

    async def sweep(self) -> None:
        """What was put away goes, in steps. Raises OSError: then it goes at the next start."""
        fs, limbo = self._fs, self.limbo
        if limbo is None:
            return
        levels = [limbo]
        while levels:
            await fs.group.begin()
            directory = levels[-1]
            rows = fs.store.namespace.dentries.children(directory.ino, 0, STEP)
            below = None
            for _, name, ino, _ in rows:
                inode = fs.inodes.get(ino)
                if inode.is_directory and not fs.store.namespace.dentries.is_empty(ino):
                    below = inode
                    break
                fs.directories.remove(directory, name, inode)
                self._hide()
            if below is not None:
                levels.append(below)
            elif not rows:
                levels.pop()
            if fs.group.is_long or fs.group.must_wait:
                await fs.group.durable()
            await fs.scheduler.pause()
        await fs.group.begin()
        fs.contents.discard(limbo)
        self.limbo = None


def _text(path: bytes) -> str:
    return os.fsdecode(path) or "/"
