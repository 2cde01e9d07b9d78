"""What comes back out of the trash, and what leaves it for good, in short steps between other requests."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from casfs.errors import FsError, UsageError
from casfs.fs import acl
from casfs.fs.filesystem import STEP, FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.listing import is_name
from casfs.fs.tree import RENAME_NOREPLACE
from casfs.namespace.trash import RuleRow, TrashRow
from casfs.text import is_text
from casfs.trash.attributes import iso_time
from casfs.trash.filesystem import trash_of
from casfs.trash.policy import DAY_NS, NAME_LIMIT, Trash
from casfs.trash.rules import DEFAULT_DAYS
from casfs.types import ROOT_INO

LOOK = 4_000
"""Rows that are looked through before other requests are served again, about 1 ms."""


@dataclass(slots=True)
class Changed:
    """What was restored or emptied: how many files, and their bytes. `skipped`: their names are taken."""

    files: int = 0
    size: int = 0
    skipped: int = 0


async def undelete(fs: FileSystem, path: bytes, since_ns: int, before_ns: int) -> Changed:
    """Restore what had that path, in its newest version removed in [since_ns, before_ns), durable.

    A path of no file stands for all files that were below it, each in its newest version; those whose
    name is taken, or that of a directory on the way, are skipped. Missing directories are made, with mode
    and owner of those that were there.
    Raises FsError ENOENT (nothing of it is in the trash), EEXIST or ENOTDIR (nothing could be restored for
    that reason), OSError.
    """
    trash, changed = trash_of(fs), Changed()
    path = b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
    await fs.group.durable()
    newest = await _newest(fs, path, since_ns, before_ns) if path else {}
    rows = [newest[path]] if path in newest else [newest[each] for each in sorted(newest)]
    if not rows:
        raise FsError(errno.ENOENT, f"{os.fsdecode(path) or '/'}: nothing of that name is in the trash")
    refused = FsError(errno.ENOENT, f"{os.fsdecode(path)}: it left the trash meanwhile")
    for number, row in enumerate(rows):
        if number % STEP == STEP - 1:
            if fs.group.is_long or fs.group.must_wait:
                await fs.group.durable()
            await fs.scheduler.pause()
        try:
            await _restore(fs, trash, row, changed)
        except FsError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTDIR):
                raise
            changed.skipped += 1
            refused = error
    if not changed.files:
        raise refused
    await fs.group.durable()
    return changed


async def _newest(fs: FileSystem, path: bytes, since_ns: int, before_ns: int) -> dict[bytes, TrashRow]:
    """By path, the newest of what had that path, or lay below it."""
    newest: dict[bytes, TrashRow] = {}
    after = 0
    while True:
        rows, after = fs.store.namespace.trash.matching(path, since_ns, before_ns, after, LOOK)
        for row in rows:
            if row.path not in newest or newest[row.path].deleted_ns <= row.deleted_ns:
                newest[row.path] = row
        if not after:
            return newest
        await fs.scheduler.pause()


async def _restore(fs: FileSystem, trash: Trash, row: TrashRow, changed: Changed) -> None:
    """Raises FsError EEXIST, ENOTDIR."""
    await fs.group.begin()
    names = fs.store.namespace.dentries.names_of(row.ino)
    if not names:
        return  # restored or removed by somebody else meanwhile
    origin, there = names[0]
    *parts, name = row.path.split(b"/")
    if not all(map(is_name, (*parts, name))):
        raise FsError(errno.EIO, "the trash says no path of it; see casfs fsck")
    counterparts: list[Inode] = []
    above: int | None = origin
    for _ in parts:
        if above is None:
            raise FsError(errno.EIO, "the trash says another path of it than where it lies; see casfs fsck")
        counterparts.append(fs.inodes.get(above))
        above = fs.store.namespace.dentries.parent_of(above)
    parent = fs.inodes.get(ROOT_INO)
    for part, counterpart in zip(parts, reversed(counterparts), strict=True):
        parent = await _directory(fs, trash, parent, part, counterpart)
    if fs.tree.lookup(parent.ino, name) is not None:
        raise FsError(errno.EEXIST, f"{os.fsdecode(row.path)} exists already; move it away first")
    inode = fs.inodes.get(row.ino)
    trash.given((origin,))
    await fs.tree.rename(origin, there, parent.ino, name, RENAME_NOREPLACE)
    changed.files += 1
    changed.size += inode.size
    _prune(fs, trash, origin)


async def _directory(fs: FileSystem, trash: Trash, parent: Inode, name: bytes, counterpart: Inode) -> Inode:
    """The directory of that name, made like its counterpart in the trash if it is missing."""
    found = fs.tree.lookup(parent.ino, name)
    if found is not None:
        if not found.is_directory:
            raise FsError(errno.ENOTDIR, f"{os.fsdecode(name)} is not a directory any more")
        return found
    made = await fs.tree.make(parent.ino, name, stat.S_IFDIR | 0o700, counterpart.uid, counterpart.gid)
    made.mode, made.gid = counterpart.mode, counterpart.gid
    if fs.xattrs.all(made).pop(acl.ACCESS, None) is not None:  # by the default list of a directory above
        fs.store.namespace.xattrs.remove(made.ino, acl.ACCESS)
    for key, value in fs.xattrs.all(counterpart).items():
        fs.store.namespace.xattrs.set(made.ino, key, value)
        fs.xattrs.all(made)[key] = value
    fs.inodes.mark(made)
    return made


async def expire(
    fs: FileSystem, now_ns: int, older_ns: int | None = None, limit: int | None = None
) -> Changed:
    """Remove for good what the rules keep no longer; with `older_ns`, all that was removed so long ago.

    Of a directory whose rule says 0 days, what came to the trash before is kept as long as without a rule.
    `limit`: the oldest so many. Raises OSError.
    """
    trash, changed = trash_of(fs), Changed()
    if not trash.directory:
        return changed
    if trash.pending:
        await fs.group.committed()
    rules = trash.rules
    kept = min(map(kept_ns, rules)) if older_ns is None else older_ns
    after = (-1, -1)
    while True:
        await fs.group.begin()
        rows = fs.store.namespace.trash.oldest(now_ns - kept, after, STEP)
        if not rows:
            _sweep(fs, trash, now_ns - (max(map(kept_ns, rules)) if older_ns is None else older_ns))
            return changed
        after = (rows[-1].deleted_ns, rows[-1].ino)
        if older_ns is None:
            rows = [row for row in rows if row.deleted_ns < now_ns - kept_ns(trash.rule(row.path))]
        rows = rows if limit is None else rows[: limit - changed.files]
        for row in rows:
            _remove(fs, trash, row, changed)
        fs.group.count(2 * len(rows))
        if changed.files == limit:
            return changed
        if fs.group.is_long or fs.group.must_wait:
            await fs.group.committed()
        await fs.scheduler.pause()


def kept_ns(rule: RuleRow) -> int:
    """How long a rule keeps what lies in the trash."""
    return (rule.days or DEFAULT_DAYS) * DAY_NS


def _remove(fs: FileSystem, trash: Trash, row: TrashRow, changed: Changed) -> None:
    """Remove one file, and the directories it leaves empty. Inside a transaction."""
    names = [(fs.inodes.get(parent), name) for parent, name in fs.store.namespace.dentries.names_of(row.ino)]
    inode = fs.inodes.get(row.ino) if names else None
    with fs.store.namespace.savepoint():
        fs.store.namespace.trash.remove([row.ino])
        if inode is not None:
            fs.directories.remove_all(names, inode)
    for _ in names:
        assert inode is not None
        changed.files += 1
        changed.size += inode.size
        _dropped(fs, trash, inode)
    for directory, _ in names:
        _prune(fs, trash, directory.ino)


def _sweep(fs: FileSystem, trash: Trash, before_ns: int) -> None:
    """Remove what programs have left empty, of the days before: there are no files any more."""
    date = iso_time(max(0, before_ns)).partition("T")[0].encode()
    for _, day, top, _ in fs.store.namespace.dentries.children(trash.directory, 0, 1 << 31):
        if day[: len(date)] < date:
            for ino in fs.store.namespace.trash.directories_below(top):
                _prune(fs, trash, ino)


def _prune(fs: FileSystem, trash: Trash, ino: int) -> None:
    """Remove a directory of the trash if it is empty, then the one it was in, and so on."""
    dentries = fs.store.namespace.dentries
    while ino not in (trash.base, trash.directory) and dentries.is_empty(ino):
        names = dentries.names_of(ino)
        if not names:
            return  # it has gone already
        parent, name = names[0]
        above, inode = fs.inodes.get(parent), fs.inodes.get(ino)
        fs.directories.remove(above, name, inode)
        _dropped(fs, trash, inode)
        ino = parent


def _dropped(fs: FileSystem, trash: Trash, inode: Inode) -> None:
    """A name in the trash has gone: its inode goes, unless the kernel may hold it: then that tells."""
    if trash.holds(inode.ino):
        trash.left(inode.ino)
    elif fs.contents.discard(inode):
        fs.directories.unlinked.discard(inode.ino)


async def change_rule(
    fs: FileSystem,
    directory: bytes,
    days: int | None,
    exclude: list[str] | None,
    minimal_age: int | None = None,
) -> None:
    """Set the rule of a top-level directory, or with b"" of the whole store, durable.

    `minimal_age`: seconds, of the whole store. None leaves as it is; what a directory without a rule has is
    that of the store. Raises UsageError for what no rule can have.
    """
    if b"/" in directory or b"\0" in directory or len(directory) > NAME_LIMIT:
        raise UsageError(f"'{os.fsdecode(directory)}' is no name of a directory in the root")
    if any("\n" in pattern or not is_text(pattern) for pattern in exclude or ()):
        raise UsageError("a pattern has to be one line of UTF-8")
    trash = trash_of(fs)
    rules = {rule.directory: rule for rule in trash.rules}
    old = rules.get(directory, rules[b""])
    await fs.group.begin()
    there = fs.tree.lookup(ROOT_INO, directory) if directory else fs.inodes.get(ROOT_INO)
    if there is not None:
        fs.policy.check_rules(there)
    patterns = old.exclude if exclude is None else tuple(exclude)
    rule = RuleRow(directory, old.days if days is None else days, patterns)
    trash.set_rule(rule, None if minimal_age is None else minimal_age * 10**9)
    await fs.group.durable()
