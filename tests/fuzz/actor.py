"""Who performs steps: a process with some open files and mappings in one directory.

A `Step` says all there is to say as plain numbers and words, so that the same steps can be performed in two
directories, be written to a log, and be performed again. Open files and mappings are named by their places;
a step on an empty place does nothing.
"""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from tests.fuzz import calls
from tests.mounted.sides import Mapping, fallocate, outcome, pattern

PLACES = 8
"""For open files; as many for mappings."""

NOTHING = "nothing"
"""The outcome of a step on an empty place."""

DURABLY = os.O_SYNC | os.O_DSYNC
"""What is not asked of a model."""
SETID = stat.S_ISUID | stat.S_ISGID
SGID_MARK = stat.S_ISGID | stat.S_IXGRP
"""Without the latter, the former is a mark for mandatory locks: who clears it when is not compared."""

OWN_ATTRIBUTES = "user.casfs."


class Step(NamedTuple):
    """`user` performs `name` with `args`."""

    user: int
    name: str
    args: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"({self.user}, {self.name!r}, {self.args!r})"


def told(data: bytes) -> tuple[int, str]:
    """Bytes, for comparison and for a log."""
    return len(data), str(blake3(data).hexdigest(length=8))


class Actor:
    """Performs steps below `root`.

    `model`: it is what the other one is compared with, so nothing has to be durable there. `setid`: are the
    set-id bits of files looked at?
    """

    def __init__(self, root: Path, *, model: bool = False, setid: bool = True) -> None:
        self.root = root
        self._setid = setid
        self.model = model
        self.fds: dict[int, int] = {}
        self.maps: dict[int, Mapping] = {}
        self.handle = b""
        self._children: list[int] = []
        self._flight: list[int] = []
        self._sockets = socket.socketpair()

    def perform(self, step: Step) -> Any:
        """What came of it, without what differs between file systems by right; or the errno's name."""
        call: Callable[..., Any] = getattr(self, f"do_{step.name}")
        with calls.acting_as(step.user):
            return outcome(lambda: call(*step.args))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _put(self, place: int, fd: int) -> None:
        old = self.fds.get(place)
        self.fds[place] = fd
        if old is not None:
            os.close(old)

    # Opening and closing

    def _flags(self, words: str) -> int:
        flags = os.O_NONBLOCK  # fifos
        for word in words.split("|"):
            flags |= getattr(os, f"O_{word}")
        return flags & ~DURABLY if self.model else flags

    def do_open(self, place: int, name: str, flags: str, mode: str) -> None:
        self._put(place, self._buffered(os.open(self._path(name), self._flags(flags), int(mode, 8))))

    def _buffered(self, fd: int) -> int:
        """On the disk O_DIRECT is for whole sectors only."""
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if self.model and flags & os.O_DIRECT:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return fd

    def do_unnamed(self, place: int, name: str, flags: str, mode: str) -> None:
        """O_TMPFILE: a file without a name, which `link_open` may give it."""
        self.do_open(place, name, f"TMPFILE|{flags}", mode)

    def do_link_open(self, place: int, new: str) -> Any:
        """linkat(2) of an open file, by its name in /proc."""
        if place not in self.fds:
            return NOTHING
        return calls.link_followed(f"/proc/self/fd/{self.fds[place]}", self._path(new))

    def do_reopen(self, place: int, source: int, flags: str) -> Any:
        """Through /proc: whatever has become of its name."""
        if source not in self.fds:
            return NOTHING
        self._put(place, self._buffered(os.open(f"/proc/self/fd/{self.fds[source]}", self._flags(flags))))
        return None

    def do_dup(self, place: int, source: int) -> Any:
        return NOTHING if source not in self.fds else self._put(place, os.dup(self.fds[source]))

    def do_close(self, place: int) -> Any:
        return os.close(self.fds.pop(place)) if place in self.fds else NOTHING

    def do_handle(self, name: str) -> None:
        self.handle = calls.name_to_handle(self._path(name))

    def do_open_handle(self, place: int, flags: str) -> Any:
        if not self.handle:
            return NOTHING
        root = os.open(self.root, os.O_RDONLY)
        try:
            self._put(place, self._buffered(calls.open_by_handle(root, self.handle, self._flags(flags))))
        finally:
            os.close(root)
        return None

    def do_send(self, place: int) -> Any:
        """Away over a socket: the descriptor is closed here, and in flight."""
        if place not in self.fds or len(self._flight) > 3:
            return NOTHING
        socket.send_fds(self._sockets[0], [b"x"], [self.fds[place]])
        self._flight.append(place)
        os.close(self.fds.pop(place))
        return None

    def do_receive(self, place: int) -> Any:
        if not self._flight:
            return NOTHING
        self._flight.pop(0)
        _, ancillary, _, _ = self._sockets[1].recvmsg(1, socket.CMSG_SPACE(4))
        self._put(place, array.array("i", ancillary[0][2])[0])
        return None

    def do_fork(self) -> Any:
        """A child that has all of them too, until it is ended, whatever the parent does."""
        if len(self._children) > 1:
            return NOTHING
        child = os.fork()
        if not child:
            calls.die_with_parent()
            while True:
                signal.pause()
        self._children.append(child)
        return None

    def do_end_child(self) -> Any:
        if not self._children:
            return NOTHING
        child = self._children.pop(0)
        with calls.acting_as(0):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    # Bytes

    def do_pread(self, place: int, offset: int, size: int) -> Any:
        if place not in self.fds:
            return NOTHING
        with mmap.mmap(-1, max(size, 1)) as buffer, memoryview(buffer) as view:
            count = os.preadv(self.fds[place], [view[:size]], offset)
            return told(bytes(view[:count]))

    def do_pwrite(self, place: int, offset: int, seed: int, size: int, flags: int) -> Any:
        """pwritev2(2), from pages of their own, which O_DIRECT likes."""
        if place not in self.fds:
            return NOTHING
        with mmap.mmap(-1, max(size, 1)) as buffer, memoryview(buffer) as view:
            view[:size] = pattern(seed, size)
            return os.pwritev(self.fds[place], [view[:size]], offset, flags)

    def do_write(self, place: int, seed: int, size: int) -> Any:
        return NOTHING if place not in self.fds else os.write(self.fds[place], pattern(seed, size))

    def do_ftruncate(self, place: int, size: int) -> Any:
        return NOTHING if place not in self.fds else os.ftruncate(self.fds[place], size)

    def do_fallocate(self, place: int, mode: int, offset: int, size: int) -> Any:
        return NOTHING if place not in self.fds else fallocate(self.fds[place], mode, offset, size)

    def do_copy_range(self, source: int, target: int, start: int, end: int, size: int) -> Any:
        if source not in self.fds or target not in self.fds:
            return NOTHING
        return os.copy_file_range(self.fds[source], self.fds[target], size, start, end)

    def do_seek(self, place: int, offset: int, whence: int) -> Any:
        """Where the holes are is the file system's choice; that nothing but zeros is in them is not."""
        if place not in self.fds:
            return NOTHING
        fd = self.fds[place]
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            return os.lseek(fd, offset, whence)
        try:
            found = os.lseek(fd, offset, whence)
            os.lseek(fd, 0, os.SEEK_SET)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            found = -1
        if not self.alone:
            return None
        size = os.fstat(fd).st_size
        with suppress(OSError):  # not open for reading: then it cannot be said
            end = size if found < 0 else found
            passed = os.pread(fd, end - offset, offset) if whence == os.SEEK_DATA else b""
            assert not passed.strip(b"\0"), f"SEEK_DATA passes over data between {offset} and {end}"
            if whence == os.SEEK_HOLE and 0 <= found < size:
                assert not os.pread(fd, 1, found).strip(b"\0"), f"SEEK_HOLE shows data at {found}"
        return None

    def do_fsync(self, place: int, how: int) -> Any:
        if place not in self.fds:
            return NOTHING
        kind = stat.S_IFMT(os.fstat(self.fds[place]).st_mode)
        if self.model and kind in (stat.S_IFREG, stat.S_IFDIR):
            os.lseek(self.fds[place], 0, os.SEEK_CUR)  # EBADF with O_PATH
            return None
        (os.fsync, os.fdatasync, calls.syncfs)[how](self.fds[place])
        return None

    # Mappings

    def do_map(self, place: int, source: int, size: int, write: bool, private: bool) -> Any:
        if source not in self.fds:
            return NOTHING
        made = Mapping(self.fds[source], size, write=write, private=private)
        old = self.maps.get(place)
        self.maps[place] = made
        if old is not None:
            old.close()
        return None

    def do_map_read(self, place: int, offset: int, size: int) -> Any:
        return NOTHING if place not in self.maps else told(self.maps[place].read(offset, size))

    def do_map_write(self, place: int, offset: int, seed: int, size: int) -> Any:
        if place not in self.maps:
            return NOTHING
        return self.maps[place].write(offset, pattern(seed, size))

    def do_poke(self, place: int, offset: int, seed: int, size: int) -> Any:
        """A store from outside, as a debugger does it."""
        if place not in self.maps:
            return NOTHING
        mapping = self.maps[place]
        data = pattern(seed, size)[: max(mapping.length - offset, 0)]
        return calls.process_vm_writev(os.getpid(), mapping.address + offset, data) if data else 0

    def do_msync(self, place: int) -> Any:
        return NOTHING if place not in self.maps else self.maps[place].sync()

    def do_unmap(self, place: int) -> Any:
        return self.maps.pop(place).close() if place in self.maps else NOTHING

    # Names

    def do_rename(self, old: str, new: str, flags: int) -> None:
        calls.renameat2(self._path(old), self._path(new), flags)

    def do_link(self, old: str, new: str) -> None:
        os.link(self._path(old), self._path(new), follow_symlinks=False)

    def do_symlink(self, target: str, new: str) -> None:
        os.symlink(target, self._path(new))

    def do_readlink(self, name: str) -> str:
        return os.readlink(self._path(name))

    def do_unlink(self, name: str) -> None:
        os.unlink(self._path(name))

    def do_mkdir(self, name: str, mode: str) -> None:
        os.mkdir(self._path(name), int(mode, 8))

    def do_rmdir(self, name: str) -> None:
        os.rmdir(self._path(name))

    def do_mknod(self, name: str, kind: int, mode: str) -> None:
        device = os.makedev(1, 3) if calls.KINDS[kind] == stat.S_IFCHR else 0
        os.mknod(self._path(name), calls.KINDS[kind] | int(mode, 8), device)

    def do_list(self, name: str, size: int, back: int) -> Any:
        """Read a directory, then again from the position after one of its entries on."""
        fd = os.open(self._path(name), os.O_RDONLY | os.O_DIRECTORY)
        try:
            entries = list(calls.directory(fd, size))
            if self.alone and entries:
                back %= len(entries)
                os.lseek(fd, entries[back][1], os.SEEK_SET)
                rest = [entry[0] for entry in calls.directory(fd, size)]
                assert rest == [entry[0] for entry in entries[back + 1 :]], f"seekdir in {name}: {rest}"
            return sorted(entry[0] for entry in entries)
        finally:
            os.close(fd)

    alone = True
    """Does nobody else change anything meanwhile?"""

    # Attributes

    def do_truncate(self, name: str, size: int) -> None:
        os.truncate(self._path(name), size)

    def do_chmod(self, name: str, mode: str) -> None:
        os.chmod(self._path(name), int(mode, 8))

    def do_fchmod(self, place: int, mode: str) -> Any:
        return NOTHING if place not in self.fds else os.fchmod(self.fds[place], int(mode, 8))

    def do_chown(self, name: str, user: int, group: int) -> None:
        os.chown(self._path(name), user, group, follow_symlinks=False)

    def do_fchown(self, place: int, user: int, group: int) -> Any:
        return NOTHING if place not in self.fds else os.fchown(self.fds[place], user, group)

    def do_times(self, name: str, access: tuple[int, int], modification: tuple[int, int]) -> Any:
        calls.utimensat(self._path(name), access, modification)
        return self._time(os.lstat(self._path(name)), modification)

    def do_ftimes(self, place: int, access: tuple[int, int], modification: tuple[int, int]) -> Any:
        if place not in self.fds:
            return NOTHING
        calls.futimens(self.fds[place], access, modification)
        return self._time(os.fstat(self.fds[place]), modification)

    @staticmethod
    def _time(status: os.stat_result, asked: tuple[int, int]) -> int | None:
        """What was asked for, if it was a time that both can keep."""
        present = asked[1] in (calls.UTIME_NOW, calls.UTIME_OMIT)
        return None if present or not FIRST_YEAR <= asked[0] <= LAST_YEAR else status.st_mtime_ns

    def do_setxattr(self, name: str, key: str, seed: int, size: int, flags: int) -> None:
        os.setxattr(self._path(name), key, pattern(seed, size), flags, follow_symlinks=False)

    def do_getxattr(self, name: str, key: str) -> Any:
        return told(os.getxattr(self._path(name), key, follow_symlinks=False))

    def do_removexattr(self, name: str, key: str) -> None:
        os.removexattr(self._path(name), key, follow_symlinks=False)

    def do_setacl(self, name: str, which: str, number: int) -> None:
        path = self._path(name)
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) and mode & SGID_MARK == stat.S_ISGID:
            os.chmod(path, stat.S_IMODE(mode) & ~stat.S_ISGID)  # with the list it could become a set-id bit
        os.setxattr(path, f"system.posix_acl_{which}", calls.ACLS[number])

    def do_digest(self, name: str) -> None:
        """Asking seals. A model has none."""
        with suppress(OSError):
            os.getxattr(self._path(name), "user.casfs.blake3")

    def do_statfs(self, name: str) -> int:
        return os.statvfs(self._path(name)).f_namemax

    def do_access(self, name: str, mode: int) -> bool:
        return os.access(self._path(name), mode, effective_ids=True)

    # The look at what there is

    def do_stat(self, name: str) -> Any:
        return self._portrait(os.lstat(self._path(name)))

    def do_fstat(self, place: int) -> Any:
        return NOTHING if place not in self.fds else self._portrait(os.fstat(self.fds[place]))

    def do_read_all(self, name: str) -> Any:
        fd = os.open(self._path(name), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return told(read_all(fd)) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def do_tree(self) -> Any:
        """Everything below the root."""
        seen = {}
        for folder, directories, names in os.walk(self.root):
            for name in (*directories, *names):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                seen[os.path.relpath(path, self.root)] = (
                    *self._portrait(status),
                    self.do_read_all(os.path.relpath(path, self.root)) if stat.S_ISREG(status.st_mode) else 0,
                    os.readlink(path) if stat.S_ISLNK(status.st_mode) else "",
                    *sorted(
                        (key, told(os.getxattr(path, key, follow_symlinks=False)))
                        for key in os.listxattr(path, follow_symlinks=False)
                        if not key.startswith(OWN_ATTRIBUTES)
                    ),
                )
        return seen

    def _portrait(self, status: os.stat_result) -> tuple[int, ...]:
        kind, mode = stat.S_IFMT(status.st_mode), status.st_mode
        if kind == stat.S_IFREG and not self._setid:
            mode &= ~SETID
        if not mode & stat.S_IXGRP:
            mode &= ~stat.S_ISGID
        size = 0 if kind == stat.S_IFDIR else status.st_size
        return mode, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev, size

    def size_mapped(self, place: int) -> int:
        return self.maps[place].length if place in self.maps else 0

    def end(self) -> None:
        """Let go of everything."""
        while self._children:
            self.do_end_child()
        for mapping in self.maps.values():
            mapping.close()
        for fd in self.fds.values():
            os.close(fd)
        for end in self._sockets:
            end.close()
        self.maps, self.fds, self._flight = {}, {}, []


FIRST_YEAR, LAST_YEAR = -(1 << 31), 9_000_000_000
"""Seconds: 1901 and 2255. ext4 keeps times until 2446, casfs until 2262."""


def read_all(fd: int) -> bytes:
    data = bytearray()
    while piece := os.pread(fd, 8 << 20, len(data)):
        data += piece
    return bytes(data)
