"""A FUSE file system of one file, whose reads are answered when told to: what holds a program's pages.

    python -m tests.mounted.stalling MOUNTPOINT

A read(2) of `slow`, which is read directly, pins the pages it reads into until the answer is there
(fuse_get_user_pages in fs/fuse/file.c). Answers wait for one line each on the standard input; a line on the
standard output says that a read has come.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pyfuse3
import trio

from tests.mounted.mounts import ENVIRONMENT, unmount_by_force

SLOW = 2
BYTE = b"!"
SIZE = 1 << 20


class Stalling(pyfuse3.Operations):
    def __init__(self) -> None:
        super().__init__()
        self._told = trio.wrap_file(sys.stdin)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(
            stat.S_IFDIR | 0o755 if inode == pyfuse3.ROOT_INODE else stat.S_IFREG | 0o444
        )
        entry.st_size = SIZE
        return entry

    async def lookup(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if name != b"slow":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(SLOW, ctx)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=True)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        sys.stdout.write("read\n")
        sys.stdout.flush()
        await self._told.readline()
        return BYTE * size


class Stall:
    """It, mounted; `slow` is the file."""

    def __init__(self, mountpoint: Path) -> None:
        mountpoint.mkdir()
        self._mountpoint = mountpoint
        self.slow = mountpoint / "slow"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mounted.stalling", str(mountpoint)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self.await_line()

    def await_line(self) -> None:
        """It is mounted, or a read has come."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the stalling file system has ended"

    def answer(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        unmount_by_force(self._mountpoint)


async def serve() -> None:
    pyfuse3.init(Stalling(), sys.argv[1], {"fsname=stalling", "allow_other"})
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    try:
        await pyfuse3.main()
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    assert os.getuid() == 0
    trio.run(serve)
