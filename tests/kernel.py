"""What the Linux VFS does between a program and the file system, as far as in-process tests need it.

Path walk, the checks made before a request is sent, open files with their flush and release, and lookup
counts: an inode without names and open files is forgotten at once. One process, root, no caches.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from casfs.errors import FsError
from casfs.fs.attributes import Changes
from casfs.fs.content.content import Handle
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.scheduler import run_inline
from casfs.fs.xattrs import DIGEST
from casfs.types import ROOT_INO

Path = bytes | str
MAX_LINKS = 40


class OpenFile:
    """A file descriptor."""

    def __init__(self, kernel: Kernel, handle: Handle, flags: int) -> None:
        self._kernel = kernel
        self._append = flags & os.O_APPEND
        self.readable = flags & os.O_ACCMODE != os.O_WRONLY
        self.handle = handle
        self.closed = False

    @property
    def ino(self) -> int:
        return self.handle.inode.ino

    def read(self, size: int = 1 << 20, offset: int = 0) -> bytes:
        return bytes(run_inline(self._kernel.fs.files.read(self.handle, offset, size)))

    def write(self, data: bytes, offset: int = 0) -> int:
        if not self.handle.writable:
            raise FsError(errno.EBADF)
        if self._append:
            offset = self.handle.inode.size
        return run_inline(self._kernel.fs.files.write(self.handle, offset, data))

    def truncate(self, size: int) -> None:
        if not self.handle.writable:
            raise FsError(errno.EINVAL)
        self._kernel.set(self.handle.inode, Changes(size=size), self.handle)

    def stat(self) -> Inode:
        return self._kernel.fs.inodes.get(self.ino)

    def fsync(self) -> None:
        run_inline(self._kernel.fs.files.fsync(self.handle))

    def flush(self) -> None:
        run_inline(self._kernel.fs.files.flush(self.handle))

    def close(self) -> None:
        """close(2): the flush may fail, the descriptor is gone all the same."""
        self.closed = True
        try:
            self.flush()
        finally:
            self._kernel.release(self)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; the first error is the one that counts."""
        if kind is None:
            self.close()
        else:
            with suppress(OSError):
                self.close()


class Kernel:
    """System calls, with paths relative to the root, on a started `FileSystem`."""

    def __init__(self, fs: FileSystem, uid: int = 0, gid: int = 0) -> None:
        self.fs = fs
        self.uid = uid
        self.gid = gid
        self._open: Counter[int] = Counter()

    def answer_to(self, answered: Callable[[object], object]) -> None:
        """Have `answered` called with what a request is answered with before its verb has ended."""
        self.fs.kernel.answer = answered  # type: ignore[method-assign]

    # Walking

    def inode(self, path: Path, *, follow: bool = True) -> Inode:
        parent, name = self._walk(os.fsencode(path), follow=follow)
        found = self._lookup(parent, name)
        if found is None:
            raise FsError(errno.ENOENT)
        return found

    def _walk(self, path: bytes, *, follow: bool, start: int = ROOT_INO, links: int = 0) -> tuple[int, bytes]:
        """(directory, last name) of a path; an empty name is the directory itself."""
        parts = [part for part in path.split(b"/") if part and part != b"."]
        if not parts:
            return start, b""
        for number, name in enumerate(parts):
            directory = self.fs.inodes.get(start)
            if not directory.is_directory:
                raise FsError(errno.ENOTDIR)
            last = number == len(parts) - 1
            inode = self._lookup(start, name)
            if inode is not None and inode.target is not None and (follow or not last):
                if links >= MAX_LINKS:
                    raise FsError(errno.ELOOP)
                start, name = self._walk(inode.target, follow=True, start=start, links=links + 1)
                inode = self._lookup(start, name)
                if inode is not None and inode.target is not None:
                    raise FsError(errno.ELOOP)
            if last:
                return start, name
            if inode is None:
                raise FsError(errno.ENOENT)
            start = inode.ino
        raise AssertionError("a path has a last part")

    def _lookup(self, parent: int, name: bytes) -> Inode | None:
        return self.fs.tree.lookup(parent, name) if name else self.fs.inodes.get(parent)

    def _new(self, path: Path) -> tuple[int, bytes]:
        """Where something new is to be made. Raises EEXIST."""
        parent, name = self._walk(os.fsencode(path), follow=False)
        if self._lookup(parent, name) is not None:
            raise FsError(errno.EEXIST)
        return parent, name

    def _forget(self) -> None:
        tree = self.fs.tree
        inos = [ino for ino in tree.unlinked if not self._open[ino]]
        run_inline(tree.forget(inos))

    # Names

    def make(self, path: Path, mode: int, rdev: int = 0, target: bytes | None = None) -> Inode:
        parent, name = self._new(path)
        return run_inline(self.fs.tree.make(parent, name, mode, self.uid, self.gid, rdev=rdev, target=target))

    def mkdir(self, path: Path, mode: int = 0o755) -> None:
        self.make(path, stat.S_IFDIR | mode)

    def symlink(self, target: Path, path: Path) -> None:
        self.make(path, stat.S_IFLNK | 0o777, target=os.fsencode(target))

    def readlink(self, path: Path) -> bytes:
        target = self.inode(path, follow=False).target
        if target is None:
            raise FsError(errno.EINVAL)
        return target

    def link(self, source: Path, path: Path) -> None:
        inode = self.inode(source, follow=False)
        parent, name = self._new(path)
        run_inline(self.fs.tree.link(inode.ino, parent, name))

    def unlink(self, path: Path) -> None:
        parent, name = self._walk(os.fsencode(path), follow=False)
        run_inline(self.fs.tree.unlink(parent, name))
        self._forget()

    def rmdir(self, path: Path) -> None:
        parent, name = self._walk(os.fsencode(path), follow=False)
        run_inline(self.fs.tree.rmdir(parent, name))
        self._forget()

    def rename(self, source: Path, target: Path, flags: int = 0) -> None:
        parent, name = self._walk(os.fsencode(source), follow=False)
        new_parent, new_name = self._walk(os.fsencode(target), follow=False)
        old, new = self._lookup(parent, name), self._lookup(new_parent, new_name)
        if old is not None and new is not None and not flags & 1 and self._is_above(new.ino, parent):
            raise FsError(errno.EINVAL if flags & 2 else errno.ENOTEMPTY)
        run_inline(self.fs.tree.rename(parent, name, new_parent, new_name, flags))
        self._forget()

    def _is_above(self, ino: int, directory: int) -> bool:
        """As lock_rename(9) finds out before it asks the file system."""
        while directory not in (ino, ROOT_INO):
            directory = self.fs.tree.lookup(directory, b"..").ino  # type: ignore[union-attr]
        return directory == ino

    def list(self, path: Path = b"", after: int = 2) -> Iterator[tuple[int, bytes, Inode]]:
        """(cookie, name, inode) without "." and ".."."""
        inode = self.inode(path)
        if not inode.is_directory:
            raise FsError(errno.ENOTDIR)
        return self.fs.listing.list(inode.ino, after)

    def names(self, path: Path = b"") -> list[bytes]:
        return sorted(name for _, name, _ in self.list(path))

    # Attributes

    def set(self, inode: Inode, changes: Changes, handle: Handle | None = None) -> Inode:
        return run_inline(self.fs.attributes.set(inode.ino, changes, handle, self.uid))

    def chmod(self, path: Path, mode: int) -> None:
        self.set(self.inode(path), Changes(mode=mode))

    def chown(self, path: Path, uid: int | None, gid: int | None) -> None:
        self.set(self.inode(path), Changes(uid=uid, gid=gid))

    def truncate(self, path: Path, size: int) -> None:
        self.set(self.inode(path), Changes(size=size))

    def utime(self, path: Path, atime: int, mtime: int, *, follow: bool = True) -> None:
        self.set(self.inode(path, follow=follow), Changes(atime=atime, mtime=mtime))

    def setxattr(self, path: Path, name: bytes, value: bytes) -> None:
        ino = self.inode(path, follow=False).ino
        run_inline(self.fs.xattrs.set(ino, name, value, lambda gid: gid == self.gid or not self.uid))

    def getxattr(self, path: Path, name: bytes) -> bytes:
        inode = self.inode(path, follow=False)
        if name == DIGEST:
            run_inline(self.fs.contents.settling.seal_closed(inode))
        return self.fs.xattrs.get(inode.ino, name)

    def removexattr(self, path: Path, name: bytes) -> None:
        run_inline(self.fs.xattrs.remove(self.inode(path, follow=False).ino, name))

    def listxattr(self, path: Path) -> list[bytes]:
        return self.fs.xattrs.list(self.inode(path, follow=False).ino)

    # Files

    def open(self, path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> OpenFile:
        create, exclusive = flags & os.O_CREAT, flags & os.O_CREAT and flags & os.O_EXCL
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        parent, name = self._walk(os.fsencode(path), follow=not exclusive)
        inode = self._lookup(parent, name)
        made = inode is None
        if inode is None:
            if not create:
                raise FsError(errno.ENOENT)
            inode = run_inline(self.fs.tree.make(parent, name, stat.S_IFREG | mode, self.uid, self.gid))
        elif exclusive:
            raise FsError(errno.EEXIST)
        elif inode.is_directory:
            raise FsError(errno.EISDIR)  # one that is opened for reading is no file of the file system's
        handle = self.fs.files.open(inode, writable, self.uid)
        self._open[inode.ino] += 1
        file = OpenFile(self, handle, flags)
        if flags & os.O_TRUNC and not made:
            try:
                run_inline(self.fs.files.truncate_at_open(handle))
            except OSError:
                self.release(file)
                raise
        return file

    def open_unnamed(self, directory: Path = b"", mode: int = 0o644) -> OpenFile:
        """O_TMPFILE of open(2)."""
        parent = self.inode(directory).ino
        inode = run_inline(self.fs.tree.make(parent, None, stat.S_IFREG | mode, self.uid, self.gid))
        self._open[inode.ino] += 1
        return OpenFile(self, self.fs.files.open(inode, True, self.uid), os.O_RDWR)

    def link_file(self, file: OpenFile, path: Path) -> None:
        """linkat(2) with AT_EMPTY_PATH."""
        run_inline(self.fs.tree.link(file.ino, *self._new(path)))

    def release(self, file: OpenFile) -> None:
        file.closed = True
        self._open[file.ino] -= 1
        run_inline(self.fs.files.release(file.handle))
        with suppress(OSError):
            run_inline(self.fs.tree.released(file.handle.inode))
            self._forget()

    def write_file(self, path: Path, content: bytes, *, flags: int = os.O_TRUNC, sync: bool = False) -> None:
        """What `open(path, "wb").write(content)` does."""
        with self.open(path, os.O_WRONLY | os.O_CREAT | flags) as file:
            file.write(content)
            if sync:
                file.fsync()

    def read_file(self, path: Path) -> bytes:
        with self.open(path) as file:
            return file.read(file.stat().size)

    def sync(self) -> None:
        """Commit what has been applied; content that is not sealed is not part of it."""
        run_inline(self.fs.group.durable())

    # Everything at once

    def tree(self) -> dict[bytes, Entry]:
        """Everything below the root, by path."""
        found: dict[bytes, Entry] = {}
        pending = [(b"", ROOT_INO)]
        while pending:
            prefix, ino = pending.pop()
            for _, name, listed in list(self.fs.listing.list(ino, 2)):
                path = prefix + name
                inode = self.fs.inodes.get(listed.ino)
                assert inode.row() == listed.row()
                found[path] = self._entry(inode)
                if inode.is_directory:
                    pending.append((path + b"/", inode.ino))
        return found

    def _entry(self, inode: Inode) -> Entry:
        content = inode.target
        if inode.is_regular:
            handle = self.fs.files.open(inode, False, 0)
            content = bytes(run_inline(self.fs.files.read(handle, 0, inode.size + 1)))
            run_inline(self.fs.files.release(handle))
        return Entry(inode, content, dict(self.fs.xattrs.all(inode)))


class Entry:
    """One name with what stat(2) shows and what is in it."""

    def __init__(self, inode: Inode, content: bytes | None, xattrs: dict[bytes, bytes]) -> None:
        self.ino = inode.ino
        self.mode = inode.mode
        self.nlink = inode.nlink
        self.owner = (inode.uid, inode.gid)
        self.rdev = inode.rdev
        self.size = inode.size
        self.times = (inode.atime, inode.mtime, inode.ctime, inode.btime)
        self.mtime = inode.mtime
        self.content = content
        self.xattrs = xattrs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Entry({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"
