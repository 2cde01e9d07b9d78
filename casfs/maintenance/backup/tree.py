"""What a snapshot has below a path, restored to a plain directory: names, contents, attributes.

The rows come from who knows where, and others may change the directory meanwhile: each name is one, each
directory is opened by its name in the one above, and no link is followed. A file gets its name when it is
whole, and nothing is replaced that was not to be.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from casfs.errors import CasfsError, FormatError
from casfs.filestore.directory import LIST, NO_FILE, READ
from casfs.filestore.hashing import hash_descriptor
from casfs.filestore.local import LocalBlobs
from casfs.maintenance.backup.attributes import Attributes
from casfs.maintenance.backup.copying import CHUNK, stream
from casfs.maintenance.backup.pace import Pace
from casfs.maintenance.collect.batch import Stopped, never
from casfs.maintenance.progress import Progress, unwatched
from casfs.maintenance.scrub.verify import MEDIUM_ERRORS
from casfs.namespace.copies import Content
from casfs.namespace.inodes import InodeRow
from casfs.namespace.namespace import Namespace
from casfs.syscalls import syncfs
from casfs.text import printable
from casfs.types import DIGEST_SIZE, ROOT_INO

STEP = 1_000
"""Names that are read at a time."""

PART = ".casfs-restoring-"
"""How a file is called until it is whole; 16 hex digits follow."""

TOLD = 1_000

DEEPEST = 2_000
"""Directories in one another, at the most; a path of linux/limits.h has not more."""


class LostFile(NamedTuple):
    """A file that could not be restored, from the root of the store, and why."""

    path: bytes
    reason: str


@dataclass(slots=True)
class RestoredTree:
    """`files` (and all that is no directory) and `directories` that were made, or would be; `copied_bytes` of
    them; `same`: there already; `replaced` of `files` were something else before. `differ`: names that stand
    for something else and stay, the first ones. `lost`; `unset`: attributes that could not be set.
    `privileged` of `files` are device nodes, or give who runs them rights of others.
    `complete`: it was not interrupted."""

    files: int = 0
    directories: int = 0
    copied_bytes: int = 0
    same: int = 0
    replaced: int = 0
    differ: list[bytes] = field(default_factory=list)
    lost: list[LostFile] = field(default_factory=list)
    unset: int = 0
    privileged: int = 0
    complete: bool = True


def find(namespace: Namespace, path: bytes) -> tuple[bytes, InodeRow]:
    """The name and the inode at a path from the root. Raises CasfsError when there is none."""
    ino, name = ROOT_INO, b""
    for name in [part for part in path.split(b"/") if part not in (b"", b".")]:
        found = namespace.dentries.find(ino, name) if name != b".." else None
        if found is None:
            raise CasfsError(f"{printable(os.fsdecode(path))} is not in the snapshot")
        ino = found
    return name, _row(namespace, ino)


def _row(namespace: Namespace, ino: int) -> InodeRow:
    row = namespace.inodes.get(ino)
    if row is None:
        raise FormatError(f"the snapshot has a name of inode {ino}, which it does not have")
    return InodeRow(*row)


def restore_tree(
    namespace: Namespace,
    blobs: LocalBlobs,
    path: bytes,
    directory: str,
    *,
    force: bool = False,
    dry_run: bool = False,
    rate: int = 0,
    progress: Progress = unwatched,
    stop: Callable[[], bool] = never,
) -> RestoredTree:
    """Restore what is at a path: into `directory`, under its name, or of the root what is in it.

    `force`: what stands there under the same names, and is something else, is replaced; else nothing is done
    if there is such a thing. Raises CasfsError for that, and for a path that there is not, FormatError,
    OSError; what was done until then stays, and is not done again.
    """
    name, top = find(namespace, path)
    plan = _Walk(namespace, blobs, path, force, None, unwatched, stop).run(name, top, directory)
    if dry_run or not plan.complete:
        return plan
    if plan.differ and not force:
        raise CasfsError(
            f"{directory} has something else as {printable(os.fsdecode(plan.differ[0]))}, "
            f"and {len(plan.differ) - 1} more",
            "--force replaces it",
        )
    os.makedirs(directory, exist_ok=True)
    done = _Walk(namespace, blobs, path, force, Pace(rate, stop), progress, stop)
    done.total = plan.copied_bytes
    return done.run(name, top, directory)


class _Walk:
    """One pass over a tree: without `pace` it only looks."""

    def __init__(
        self,
        namespace: Namespace,
        blobs: LocalBlobs,
        path: bytes,
        force: bool,
        pace: Pace | None,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._namespace = namespace
        self._blobs = blobs
        self._path = b"/".join([b"", *[part for part in path.split(b"/") if part][:-1]])
        self._force = force
        self._pace = pace
        self._progress = progress
        self._stop = stop
        self._buffer = memoryview(bytearray(CHUNK + 1))
        self._base = -1
        self._links: dict[int, tuple[bytes, ...]] = {}
        self._above: set[int] = set()
        self._counted: set[int] = set()
        self._attributes = Attributes(namespace)
        self._trash = namespace.meta("casfs_directory")
        self.total = 0
        self.result = RestoredTree()

    def run(self, name: bytes, top: InodeRow, directory: str) -> RestoredTree:
        with contextlib.suppress(FileNotFoundError):
            self._base = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, 5 * DEEPEST))
        try:
            if self._pace is not None:
                _remove_parts(self._base)
            if top.ino == ROOT_INO:
                self._children(top, self._base, (), b"")
            else:
                self._entry(name, top, self._base, (), self._path)
            if self._pace is not None:
                syncfs(self._base)
        except Stopped:
            self.result.complete = False
        finally:
            self.result.unset = self._attributes.unset
            sys.setrecursionlimit(limit)
            if self._base >= 0:
                os.close(self._base)
        return self.result

    # Directories

    def _names(self, ino: int) -> Iterator[tuple[bytes, int]]:
        after = -1
        while found := self._namespace.dentries.children(ino, after, STEP):
            for _, name, child, _ in found:
                if child != self._trash or ino != ROOT_INO:
                    yield name, child
            after = found[-1][0]

    def _children(self, row: InodeRow, fd: int, above: tuple[bytes, ...], path: bytes) -> None:
        if len(self._above) > DEEPEST:
            raise CasfsError(
                f"there are more than {DEEPEST} directories in one another", "restore parts of it"
            )
        if row.ino in self._above:
            raise FormatError("the snapshot has a directory that lies in itself", "casfs fsck says more")
        self._above.add(row.ino)
        for name, ino in self._names(row.ino):
            if self._stop():
                raise Stopped
            self._entry(name, _row(self._namespace, ino), fd, above, path)
        self._above.discard(row.ino)

    def _entry(self, name: bytes, row: InodeRow, fd: int, above: tuple[bytes, ...], path: bytes) -> None:
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > 255:
            raise FormatError(f"the snapshot has the name {name!r:.100}, which is none")
        path = path + b"/" + name
        there = _status(name, fd)
        try:
            if stat.S_ISDIR(row.mode):
                self._directory(name, row, fd, there, above, path)
            else:
                self._other(name, row, fd, there, above, path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE):
                raise
            self._lose(path, error.strerror or str(error))

    def _directory(
        self,
        name: bytes,
        row: InodeRow,
        fd: int,
        there: os.stat_result | None,
        above: tuple[bytes, ...],
        path: bytes,
    ) -> None:
        if there is not None and not stat.S_ISDIR(there.st_mode):
            if not self._may_replace(path):
                return
            if self._pace is not None:
                os.unlink(name, dir_fd=fd)
            there = None
        if there is None:
            self.result.directories += 1
            if self._pace is not None:
                os.mkdir(name, 0o700, dir_fd=fd)
        if self._pace is None and there is None:
            self._children(row, -1, (*above, name), path)
            return
        child = os.open(name, LIST, dir_fd=fd)
        try:
            if there is not None and self._pace is not None:
                _remove_parts(child)
            self._children(row, child, (*above, name), path)
            if self._pace is not None:
                self._attributes.set(child, row)
        finally:
            os.close(child)

    # All else

    def _other(
        self,
        name: bytes,
        row: InodeRow,
        fd: int,
        there: os.stat_result | None,
        above: tuple[bytes, ...],
        path: bytes,
    ) -> None:
        if there is not None and stat.S_ISDIR(there.st_mode):
            self._note_different(path)
            return
        first = self._links.get(row.ino)
        if there is not None:
            if self._is_same(name, row, fd, there) and (first is None or self._is_first(first, there)):
                self.result.same += 1
                self._links.setdefault(row.ino, (*above, name))
                if self._pace is not None and stat.S_ISREG(row.mode):
                    self._mend_attributes(name, row, fd)
                return
            if not self._may_replace(path):
                return
            self.result.replaced += 1
        self.result.files += 1
        if self._pace is None:
            if row.ino not in self._counted:
                self.result.copied_bytes += row.size if stat.S_ISREG(row.mode) else 0
            if row.nlink > 1:
                self._counted.add(row.ino)
            return
        part = f"{PART}{secrets.token_hex(8)}".encode()
        try:
            if first is not None and self._link(first, part, fd):
                pass
            elif not self._make(part, row, fd, path):
                self.result.files -= 1
                return
            self._name(part, name, fd, replace=there is not None)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=fd)
            raise
        if row.nlink > 1:
            self._links.setdefault(row.ino, (*above, name))

    def _is_same(self, name: bytes, row: InodeRow, fd: int, there: os.stat_result) -> bool:
        if stat.S_IFMT(row.mode) != stat.S_IFMT(there.st_mode):
            return False
        if stat.S_ISLNK(row.mode):
            return os.readlink(name, dir_fd=fd) == row.target
        if not stat.S_ISREG(row.mode):
            return row.rdev == there.st_rdev
        if row.size != there.st_size:
            return False
        content = self._content(row)
        if content is None or not row.size:
            return not row.size
        try:
            file = os.open(name, READ | os.O_NONBLOCK, dir_fd=fd)
        except OSError as error:
            if error.errno not in NO_FILE | {errno.EACCES}:
                raise
            return False
        try:
            return hash_descriptor(file, row.size) == content.digest
        finally:
            os.close(file)

    def _is_first(self, first: tuple[bytes, ...], there: os.stat_result) -> bool:
        with self._parent(first) as folder:
            found = _status(first[-1], folder)
        return found is not None and os.path.samestat(found, there)

    @contextlib.contextmanager
    def _parent(self, path: tuple[bytes, ...]) -> Iterator[int]:
        fd = os.dup(self._base)
        try:
            for name in path[:-1]:
                below = os.open(name, LIST, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _link(self, first: tuple[bytes, ...], part: bytes, fd: int) -> bool:
        """A further name of what was restored before; False where it cannot have one."""
        try:
            with self._parent(first) as folder:
                os.link(first[-1], part, src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _make(self, part: bytes, row: InodeRow, fd: int, path: bytes) -> bool:
        kind = stat.S_IFMT(row.mode)
        if kind == stat.S_IFREG:
            return self._make_file(part, row, fd, path)
        if kind == stat.S_IFLNK:
            if b"\0" in (row.target or b""):
                raise FormatError(f"the snapshot has a link to {row.target!r:.100}, which is no path")
            os.symlink(row.target or b"", part, dir_fd=fd)
        elif kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
            os.mknod(part, kind | 0o600, row.rdev, dir_fd=fd)
        else:
            raise FormatError(f"the snapshot has something of no kind, mode {row.mode:o}")
        self._attributes.set_of(part, row, fd)
        self.result.privileged += kind in (stat.S_IFCHR, stat.S_IFBLK)
        return True

    def _make_file(self, part: bytes, row: InodeRow, fd: int, path: bytes) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(part, flags, 0o600, dir_fd=fd)
        try:
            wrong = self._fill(file, row) if row.size else ""
            if not wrong:
                self._attributes.set(file, row)
                self.result.privileged += self._is_privileged(file)
        finally:
            os.close(file)
        if wrong:
            os.unlink(part, dir_fd=fd)
            self._lose(path, wrong)
        return not wrong

    @staticmethod
    def _is_privileged(file: int) -> bool:
        if os.fstat(file).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return True
        with contextlib.suppress(OSError):
            return "security.capability" in os.listxattr(file)
        return False

    def _fill(self, file: int, row: InodeRow) -> str:
        """What is wrong with the content, in words."""
        assert self._pace is not None
        content = self._content(row)
        if content is None:
            return "has no content that could be its"
        try:
            blob = self._blobs.open(content.digest)
        except FileNotFoundError:
            return f"its content {content.digest.hex()} is missing"
        except OSError as error:
            if error.errno not in NO_FILE | MEDIUM_ERRORS:
                raise
            return f"its content {content.digest.hex()} cannot be read: {error.strerror}"
        try:
            wrong = stream(blob, file, content, self._buffer, self._pace)
        finally:
            os.close(blob)
        self.result.copied_bytes += content.size
        self._progress("restoring", min(self.result.copied_bytes, self.total), self.total)
        return wrong and f"its content {content.digest.hex()} {wrong}"

    def _content(self, row: InodeRow) -> Content | None:
        blob = self._namespace.blobs.get(row.blob_id) if row.blob_id is not None else None
        if blob is None or len(blob.blake3) != DIGEST_SIZE or blob.size != row.size:
            return None
        return Content(blob.blake3, blob.id, blob.size)

    def _name(self, part: bytes, name: bytes, fd: int, *, replace: bool) -> None:
        if replace:
            os.rename(part, name, src_dir_fd=fd, dst_dir_fd=fd)
            return
        try:
            os.link(part, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            if _status(name, fd) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(part, name, src_dir_fd=fd, dst_dir_fd=fd)
            return
        os.unlink(part, dir_fd=fd)

    # Attributes

    def _mend_attributes(self, name: bytes, row: InodeRow, fd: int) -> None:
        """Of a file that is there already, by whoever."""
        file = os.open(name, READ | os.O_NONBLOCK, dir_fd=fd)
        try:
            there = os.fstat(file)
            mine = there.st_uid == os.geteuid() or not os.geteuid()
            same = (stat.S_IMODE(there.st_mode), there.st_mtime_ns) == (stat.S_IMODE(row.mode), row.mtime_ns)
            if mine and not same:
                self._attributes.set(file, row)
        finally:
            os.close(file)

    # What is told

    def _may_replace(self, path: bytes) -> bool:
        if not self._force:
            self._note_different(path)
        return self._force

    def _note_different(self, path: bytes) -> None:
        if len(self.result.differ) < TOLD:
            self.result.differ.append(path)

    def _lose(self, path: bytes, reason: str) -> None:
        if len(self.result.lost) < TOLD:
            self.result.lost.append(LostFile(path, reason))


def _status(name: bytes, fd: int) -> os.stat_result | None:
    if fd < 0:
        return None
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _remove_parts(fd: int) -> None:
    """What somebody has left who was killed."""
    for name in os.listdir(fd):
        if name.startswith(PART) and len(name) == len(PART) + 16:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=fd)
