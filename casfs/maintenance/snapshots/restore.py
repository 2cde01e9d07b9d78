"""Bringing back what a snapshot has: a file, a tree, or everything, all or nothing.

    settle     what was done is durable, and has its contents
    compare    the snapshot with that, in a thread; others are served (namespace/differences.py)
    look       are the contents there, and do the rules allow it? Or else nothing is done
    before     of everything, or of more than the trash takes in one step, a snapshot is made first
    build      what is missing is made, in any number of commits, where nobody sees it (building.py)
    switch     names change, in one transaction (switch.py); from here on it is done
    sweep      what went is removed, in steps

What is the same stays as it is, under its inode number. What is in another place goes back to its own; a
directory, and so a repository, is known by its number. What is not in the snapshot goes, to the trash as its
rules have it. A repository that was made since stays, with what is in it; views and virtual ones follow.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from casfs.errors import CasfsError, FsError
from casfs.fs.batch import LOG_BYTES, shown
from casfs.fs.copy import find
from casfs.fs.filesystem import FileSystem
from casfs.maintenance.snapshots.building import Builder
from casfs.maintenance.snapshots.create import create
from casfs.maintenance.snapshots.diff import comparing, differences_below, parent_in, parts_of
from casfs.maintenance.snapshots.repositories import left_out
from casfs.maintenance.snapshots.switch import Switch, Trashing
from casfs.namespace.copies import open_copy
from casfs.namespace.differences import NEW, OLD, Difference, Differences, Parts, What
from casfs.namespace.namespace import Namespace
from casfs.repositories import forcing
from casfs.repositories.filesystem import follower_of, policy_of, registry_of
from casfs.repositories.registry import RepositoryKind
from casfs.snapshots.folder import SnapshotFolder, name_at
from casfs.snapshots.manifest import Manifest
from casfs.store import Store
from casfs.text import printable
from casfs.types import ROOT_INO

log = logging.getLogger(__name__)

TRASHED = 100_000
"""Files that go to the trash in one transaction, at the most; for more a snapshot is made first."""

KEPT_NS = 30 * 86_400 * 10**9
"""So long a snapshot is kept that is made before."""

STEP = 32
NAMED = 5
"""Paths that are named where something is wrong with many."""


@dataclass(slots=True)
class Restored:
    """What was done, or would be: names that came back, and bytes of their files; that went; that stand for
    another content, or have other attributes; that went back to their place. `changed`: left as they are,
    since others have changed them meanwhile. `left`: repositories that the snapshot does not have; `unmade`:
    views and virtual ones that it has. `releases`: immutable ones that are replaced or removed.
    `before`: the snapshot that was made first; "" for none."""

    restored: int = 0
    bytes: int = 0
    removed: int = 0
    replaced: int = 0
    attributes: int = 0
    renamed: int = 0
    changed: int = 0
    left: list[str] = field(default_factory=list)
    unmade: list[str] = field(default_factory=list)
    releases: int = 0
    before: str = ""


@dataclass(slots=True)
class _Plan:
    differences: list[Difference] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    lacking: list[bytes] = field(default_factory=list)
    bytes: int = 0

    def wanted(self) -> list[Difference]:
        """What has to be made anew."""
        return [each for each in self.differences if _is_made(each) and not self._is_kept(each)]

    def _is_kept(self, each: Difference) -> bool:
        return each.old is not None and each.what is not What.RENAMED and each.old.ino in self.kept

    @property
    def goes(self) -> int:
        """Files that lose a name, at the most."""
        return sum(
            each.what is What.ADDED or bool(each.what is not What.REMOVED and each.parts & Parts.CONTENT)
            for each in self.differences
        )


def _is_made(each: Difference) -> bool:
    if each.old is None:
        return False
    return each.what is What.REMOVED or (bool(each.parts & Parts.CONTENT) and not each.old.is_directory)


async def restore(
    fs: FileSystem,
    name: str,
    paths: Sequence[bytes] = (),
    *,
    to: bytes | None = None,
    uid: int = 0,
    dry_run: bool = False,
) -> Restored:
    """Bring back these paths, without any everything, as they are in a snapshot; durable. `to`: one of them,
    to another path, where nothing is. `uid`: who does it. `dry_run`: only look.

    Raises CasfsError (no such snapshot, contents that are damaged), FsError with a path: ENOENT (the snapshot
    has it not), EXDEV (it follows from another path), EEXIST, ENOTDIR, as the rules have it, ENOSPC. Then
    nothing is changed.
    """
    folder = SnapshotFolder(fs.store.directory)
    manifest = await fs.scheduler.run(folder.find, name)
    if not manifest.content:
        raise CasfsError(f"snapshot {name} has no contents", "it was made without; restore from another one")
    for path in paths:
        _check_source(fs, path)
    everything = not any(parts_of(path) for path in paths)
    await _settle(fs)
    target = None if to is None else _target(fs, to, paths)
    plan = await fs.scheduler.run(_plan, fs.store, name, list(paths), target, _written(fs))
    if plan.lacking:
        raise CasfsError(
            f"{len(plan.lacking)} contents that snapshot {name} refers to are missing or damaged: "
            + _listed(plan.lacking),
            "nothing was restored; see casfs fsck --deep and casfs heal",
        )
    done = Restored(bytes=plan.bytes)
    with contextlib.closing(open_copy(folder.database(name))) as rows:
        plan.differences, done.left, done.unmade = left_out(fs, rows, plan.differences)
        await _look(fs, plan)
        done.releases = forced.releases if (forced := forcing.current()) else 0
        _count(plan, done)
        if dry_run or not plan.differences:
            return done
        if len(plan.differences) * LOG_BYTES > fs.store.filestore.space.log_room():
            raise FsError(errno.ENOSPC, "the disk has no room for so much in one transaction")
        trashes = not everything and plan.goes <= TRASHED
        trashing = Trashing(uid, trashes)
        if not trashes and plan.goes:
            made = await _snapshot(fs, folder, name)
            done.before, trashing = made.name, Trashing(uid, trashes, made.made_ns)
        await _act(fs, plan, rows, done, trashing)
    log.info("snapshot %s: %d names restored, %d removed", name, done.restored, done.removed)
    return done


async def _act(fs: FileSystem, plan: _Plan, rows: Namespace, done: Restored, trashing: Trashing) -> None:
    builder = Builder(fs, rows)
    switch = Switch(fs, builder, trashing)
    try:
        tops = await builder.build(plan.wanted())
        await fs.contents.settling.seal_all_closed()  # what was written meanwhile: the trash keeps blobs
        try:
            await switch.run(plan.differences, tops, plan.kept)
            done.changed = switch.changed
        finally:
            if policy_of(fs).quotas:
                policy_of(fs).quotas.recount()
        await fs.group.durable()
    finally:
        await _clean(builder, switch)
    await fs.group.durable()


async def _clean(builder: Builder, switch: Switch) -> None:
    try:
        await builder.remove()
        await switch.sweep()
    except OSError as error:
        log.warning("what a restore left is removed at the next start: %s", error)


async def _settle(fs: FileSystem) -> None:
    await fs.contents.settling.write_back()
    await fs.contents.settling.seal_all_closed()
    await follower_of(fs).drain()
    await fs.group.durable()


async def _snapshot(fs: FileSystem, folder: SnapshotFolder, name: str) -> Manifest:
    wanted = before = name_at("before-restore")
    number = 1
    while folder.exists(before):
        number += 1
        before = f"{wanted}-{number}"
    return await create(fs, before, reason=f"before {name} was restored", expires_ns=time.time_ns() + KEPT_NS)


# Looking


def _check_source(fs: FileSystem, path: bytes) -> None:
    """Raises FsError EXDEV for what follows from other names."""
    parts = parts_of(path)
    found = fs.tree.lookup(ROOT_INO, parts[0]) if parts else None
    registry = registry_of(fs)
    repository = None if found is None else registry.repositories.get(found.ino)
    if repository is None or repository.kind is RepositoryKind.LOCAL:
        return
    names = [
        name for member in repository.members for _, name in fs.store.namespace.dentries.names_of(member)
    ]
    sources = ", ".join(printable(os.fsdecode(name)) for name in names) or "nothing"
    raise FsError(errno.EXDEV, f"{shown(path)}: it follows from {sources}; restore it there")


def _target(fs: FileSystem, to: bytes, paths: Sequence[bytes]) -> tuple[int, bytes]:
    """The directory and the name to which something is restored. Raises FsError EEXIST, EINVAL, EXDEV."""
    if len(paths) != 1 or not parts_of(paths[0]):
        raise FsError(errno.EINVAL, "one path, no more, can be restored to another one")
    _check_source(fs, to)
    place = find(fs, to)
    if place.inode is not None and place.inode.is_directory:
        inside, name = place.inode.ino, parts_of(paths[0])[-1]
        if fs.tree.lookup(inside, name) is not None:
            raise FsError(errno.EEXIST, f"{shown(to)} has a {printable(os.fsdecode(name))} already")
        return inside, name
    if place.inode is not None:
        raise FsError(errno.EEXIST, f"{shown(to)}: {os.strerror(errno.EEXIST)}")
    return place.parent, place.name


def _written(fs: FileSystem) -> list[int]:
    """Inodes that have another content than their rows say."""
    return [
        inode.ino
        for inode in fs.inodes.in_memory.values()
        if inode.content is not None and (inode.content.dirty or inode.content.is_staged)
    ]


def _plan(
    store: Store, name: str, paths: list[bytes], target: tuple[int, bytes] | None, written: list[int]
) -> _Plan:
    """In a thread. Raises FsError ENOENT, ENOTDIR, CasfsError, OSError."""
    plan = _Plan()
    with comparing(store.path, name, None, written) as differences:
        if target is not None:
            plan.differences = _elsewhere(differences, parts_of(paths[0]), target)
        elif not any(map(parts_of, paths)):
            plan.differences = list(differences.everything())
        else:
            plan.differences = _of_paths(differences, paths)
        if target is None and differences.numbers:
            plan.kept = _kept(differences, plan.differences)
        sizes: dict[bytes, bool] = {}
        for each in plan.wanted():
            assert each.old is not None
            content = differences.content(each.old.ino)
            if content is None:
                continue
            plan.bytes += content.size
            if content.digest not in sizes:
                there = content.blob is not None
                sizes[content.digest] = there and (store.filestore.blobs.size(content.digest) == content.size)
            if not sizes[content.digest]:
                plan.lacking.append(each.path)
    return plan


def _of_paths(differences: Differences, paths: Iterable[bytes]) -> list[Difference]:
    """Of all these paths, with the directories on the way that are not there. One that lies below another
    one is part of that."""
    found: list[Difference] = []
    taken: list[list[bytes]] = []
    above: set[int] = set()
    for parts in sorted(map(parts_of, set(paths)), key=len):
        if any(parts[: len(other)] == other for other in taken):
            continue
        taken.append(parts)
        old, new = differences.way(OLD, parts), differences.way(NEW, parts)
        path = b"/".join(parts)
        if len(old) <= len(parts):
            raise FsError(errno.ENOENT, f"{shown(path)}: the snapshot does not have it")
        if len(new) < len(parts):
            for depth in range(len(new), len(parts)):
                if old[depth].ino not in above:
                    above.add(old[depth].ino)
                    beside = new[-1].ino if depth == len(new) else 0
                    at = b"/".join(parts[:depth])
                    found.append(Difference(What.REMOVED, at, Parts.NONE, old[depth], None, b"", beside))
        if len(new) <= len(parts) and not new[-1].is_directory:
            raise FsError(errno.ENOTDIR, f"{shown(path)}: there is a file on the way to it")
        found += list(differences_below(differences, path))
    return found


def _elsewhere(differences: Differences, parts: list[bytes], target: tuple[int, bytes]) -> list[Difference]:
    """All of a path, for another place."""
    old = differences.way(OLD, parts)
    if len(old) <= len(parts):
        raise FsError(errno.ENOENT, f"{shown(b'/'.join(parts))}: the snapshot does not have it")
    above = b"".join(part + b"/" for part in parts[:-1])
    found = list(differences.below(parent_in(old, parts), None, parts[-1], above))
    top = found[0]
    assert top.old is not None
    found[0] = top._replace(old=top.old._replace(name=target[1]), beside=target[0])
    return found


def _kept(differences: Differences, found: list[Difference]) -> set[int]:
    """Files of which only some names are missing: the others stay, and are names that the snapshot has."""
    going = {(each.new.parent, each.new.name) for each in found if each.what is What.ADDED and each.new}
    kept = set()
    for ino in {each.old.ino for each in found if _is_made(each) and each.old and not each.old.is_directory}:
        names = differences.names(NEW, ino)
        staying = names - going
        if not staying or staying - differences.names(OLD, ino):
            continue
        if not differences.parts(ino, ino) & (Parts.CONTENT | Parts.TYPE):
            kept.add(ino)
    return kept


async def _look(fs: FileSystem, plan: _Plan) -> None:
    """Do the rules allow it? Raises FsError with the path."""
    policy = fs.policy
    for number, each in enumerate(plan.differences):
        if number % STEP == STEP - 1:
            await fs.scheduler.pause()
        try:
            if each.beside and each.what is not What.ADDED:
                policy.check_attributes(fs.inodes.get(each.beside))
            if each.what is What.REMOVED:
                continue
            assert each.new is not None
            inode = fs.inodes.get(each.new.ino)
            if each.what is What.ADDED:
                policy.check_remove(each.new.parent, each.new.name, inode)
            elif each.what is What.RENAMED:
                policy.check_move(each.new.parent, each.new.name, inode, each.beside)
            elif each.parts & Parts.CONTENT and not inode.is_directory:
                policy.check_replace(each.new.parent, each.new.name, inode)
            elif each.parts & Parts.ATTRIBUTES:
                policy.check_attributes(inode)
        except FsError as error:
            if error.errno == errno.ESTALE:
                continue  # it went meanwhile
            if error.strerror != os.strerror(error.errno or 0):
                raise
            raise FsError(error.errno or errno.EIO, f"{shown(each.path)}: {error.strerror}") from None


def _count(plan: _Plan, done: Restored) -> None:
    for each in plan.differences:
        if each.what is What.REMOVED:
            done.restored += 1
        elif each.what is What.ADDED:
            done.removed += 1
        elif each.what is What.RENAMED:
            done.renamed += 1
        elif each.parts & Parts.CONTENT:
            done.replaced += 1
        elif each.parts & Parts.ATTRIBUTES:
            done.attributes += 1


def _listed(paths: Sequence[bytes]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(printable(os.fsdecode(path)) for path in paths[:NAMED]) + more
