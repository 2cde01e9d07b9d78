"""Copies that share their blocks, where the file system can: ioctl_ficlone(2)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess

from casfs.filestore.directory import StoreDirectory
from casfs.filestore.staging import Staging

_FICLONE = 0x40049409
"""linux/fs.h."""

CLONE_SECONDS = 60.0


def clone_range(source: int, target: int) -> None:
    """Let a file have the content of another one. Raises OSError EOPNOTSUPP, EXDEV, EINVAL where that cannot
    be."""
    fcntl.ioctl(target, _FICLONE, source)


def can_clone(directory: StoreDirectory) -> bool:
    """Does the store's file system share blocks?"""
    names = [f"staging/{Staging.new_name()}" for _ in range(2)]
    fds: list[int] = []
    try:
        fds += (directory.create(name, 0o600) for name in names)
        os.pwrite(fds[0], bytes(4096), 0)
        clone_range(*fds)
    except OSError:
        return False
    finally:
        for fd, name in zip(fds, names, strict=False):
            os.close(fd)
            with contextlib.suppress(OSError):
                directory.unlink(name)
    return True


def clone_database(directory: StoreDirectory, name: str, target: str) -> None:
    """Clone a file that SQLite has open in this process: by another one, cp(1), since closing a descriptor of
    it here would give up the locks that SQLite has on it (fcntl_locking(2)). Both are names below STORE;
    there is no `target` yet. Blocks. Raises OSError."""
    place = f"/proc/self/fd/{directory.fd}"
    done = subprocess.run(
        ["cp", "--no-dereference", "--reflink=always", "--", f"{place}/{name}", f"{place}/{target}"],
        check=False,
        pass_fds=[directory.fd],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=CLONE_SECONDS,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    if done.returncode:
        raise OSError(f"{name} cannot be cloned: {done.stderr.decode(errors='replace').strip()[:200]}")
