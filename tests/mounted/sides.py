"""The same calls on a mount and on a directory of the disk below it, which have to come to the same end."""

from __future__ import annotations

import ctypes
import enum
import errno
import functools
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from tests.mounted.mounts import Mount

T = TypeVar("T")

MIB = 1 << 20
PAGE = mmap.PAGESIZE

DIGEST = "user.casfs.blake3"


@functools.cache
def pattern(seed: int, size: int) -> bytes:
    """Content in which every 16 bytes say where they are from, so that a misplaced page is seen."""
    return b"".join(b"%5d:%9d\n" % (seed, offset) for offset in range(0, size, 16))[:size]


LARGE = pattern(0, 2 * MIB)
"""More than what stays in memory while it is written, and more than a request takes."""

SMALL = pattern(0, 100_000)


def outcome(call: Callable[[], T]) -> T | str:
    """What a call returns, or the name of the errno it ends with."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or errno.EIO]


class Fallocate(enum.IntFlag):
    """`mode` of fallocate(2), as in linux/falloc.h."""

    ALLOCATE = 0
    KEEP_SIZE = 0x01
    PUNCH_HOLE = 0x02
    COLLAPSE_RANGE = 0x08
    ZERO_RANGE = 0x10
    INSERT_RANGE = 0x20
    UNSHARE_RANGE = 0x40


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p

MS_SYNC = 4
"""msync(2): wait until it is written."""


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which os.posix_fallocate replaces by writes where the file system has none."""
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


class Sides:
    """`tested` is a directory of a mount, `model` one of the disk."""

    def __init__(self, mount: Mount, tested: Path, model: Path) -> None:
        self.mount = mount
        self.tested = tested
        self.model = model

    @property
    def native(self) -> bool:
        return self.mount.mode == "native"

    def both(self, what: str, call: Callable[[Path], Any]) -> Any:
        """Do it on both sides; the outcome, which is the same."""
        expected = outcome(lambda: call(self.model))
        found = outcome(lambda: call(self.tested))
        assert found == expected, f"{what}: {shown(found)}, the disk says {shown(expected)}"
        return found

    def make(self, name: str, content: bytes) -> None:
        self.both(f"make {name}", lambda side: (side / name).write_bytes(content))

    def assert_same(self) -> None:
        """Names, sizes and bytes."""
        self.both("names", lambda side: sorted(os.listdir(side)))
        for name in sorted(os.listdir(self.model)):
            self.both(f"size of {name}", lambda side, name=name: (side / name).stat().st_size)
            self.both(f"content of {name}", lambda side, name=name: (side / name).read_bytes())


def shown(value: object) -> str:
    """A value for a failure's message."""
    text = repr(value)
    return text if len(text) < 200 else f"{text[:80]}… ({len(text)} characters, hash {hash(value):x})"


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file descriptor, closed afterwards."""
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


class Mapping:
    """mmap(2) of a file, read and written by system calls: a page that is gone is EFAULT, not SIGBUS.

    Python's own mmap keeps a duplicate of the descriptor until the end. This one does not: what closes its
    descriptor has closed it, and the mapping lives on.
    """

    def __init__(self, fd: int, length: int, *, write: bool = False, private: bool = False) -> None:
        flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
        address = _libc.mmap(None, ctypes.c_size_t(length), prot, flags, fd, ctypes.c_int64(0))
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")
        self.address: int = address
        self.length = length
        self._bytes = (ctypes.c_char * length).from_address(address)
        self._through = os.memfd_create("through")

    def read(self, offset: int, size: int) -> bytes:
        """Raises OSError EFAULT where the file has no page. Short when that is so for a part."""
        with memoryview(self._bytes) as view:
            count = os.pwrite(self._through, view[offset : offset + size], 0)
        return os.pread(self._through, count, 0)

    def write(self, offset: int, data: bytes) -> int:
        """As `read`."""
        os.pwrite(self._through, data, 0)
        with memoryview(self._bytes).cast("B") as view:
            return os.preadv(self._through, [view[offset : offset + len(data)]], 0)

    def sync(self) -> None:
        if _libc.msync(ctypes.c_void_p(self.address), ctypes.c_size_t(self.length), MS_SYNC):
            raise OSError(ctypes.get_errno(), "msync")

    def close(self) -> None:
        """Unmap it. Raises OSError."""
        os.close(self._through)
        if _libc.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.length)):
            raise OSError(ctypes.get_errno(), "munmap")

    def __enter__(self) -> Mapping:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reader:
    """A program that reads a file with read(2) and through a map."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.map = Mapping(self.fd, os.fstat(self.fd).st_size)

    def see(self, offset: int = 0, size: int = 4 * MIB) -> tuple[int, bytes, bytes | str]:
        """The size of the file, and what is read there in both ways."""
        mapped = outcome(lambda: self.map.read(offset, min(size, self.map.length - offset)))
        return os.fstat(self.fd).st_size, os.pread(self.fd, size, offset), mapped

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def digest(path: Path) -> str:
    """What casfs says; nothing for a file that is not sealed."""
    return os.getxattr(path, DIGEST).decode()


def hexdigest(content: bytes | bytearray) -> str:
    return str(blake3(content).hexdigest())
