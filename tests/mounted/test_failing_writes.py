"""The disk cannot write what it was given: nobody gets other bytes, nobody is told that it is durable."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from casfs.syscalls import start_writeback
from tests.mounted.disks import ThinDisk
from tests.mounted.mounts import ROOT_OPTIONS, Mount, await_exit, casfs

CONTENT = os.urandom(8 << 20)
DIGEST = "user.casfs.blake3"
PATIENCE = 20


@pytest.fixture
def thin(scratch: Path) -> Iterator[ThinDisk]:
    disk = ThinDisk(scratch)
    try:
        yield disk.mount()
    finally:
        disk.clear()


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("3")


def sync(mount: Mount) -> None:
    directory = os.open(mount.path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_back(path: Path) -> None:
    """As the kernel does it by itself after a while: what goes wrong is noted for whoever syncs."""
    fd = os.open(path, os.O_RDWR)
    try:
        start_writeback(fd, 0, 0)
    finally:
        os.close(fd)


def test_a_blob_that_could_not_be_written_is_not_read_as_something_else(
    thin: ThinDisk, new_mount: Callable[..., Mount]
) -> None:
    """Its pages count as clean then, and are read from the disk again, where they never came: as zeros."""
    mount = new_mount(thin.disk.path / "store", options=f"{ROOT_OPTIONS},commit_interval=300").start()
    mount.expect(r"the store cannot be written", r"what was not synced before is lost")
    before, file = mount.path / "before", mount.path / "file"
    before.write_bytes(CONTENT[:1000])
    sync(mount)
    thin.trim()
    file.write_bytes(CONTENT)
    digest = os.getxattr(file, DIGEST).decode()
    blob = mount.store / "blobs" / digest[:2] / digest
    thin.exhaust()
    write_back(blob)
    deadline = time.monotonic() + PATIENCE
    while blob.read_bytes() == CONTENT:
        assert time.monotonic() < deadline, "the disk has it all the same"
        time.sleep(0.2)
        drop_caches()
    thin.relax()
    with pytest.raises(OSError, match="No space left on device"):
        sync(mount)
    drop_caches()
    with pytest.raises(OSError, match="Input/output error") as raised:
        file.read_bytes()
    assert raised.value.errno == errno.EIO
    assert before.read_bytes() == CONTENT[:1000]
    daemon = os.pidfd_open(mount.pid)
    assert "what was not synced is lost" in casfs("umount", mount.path, code=32)
    await_exit(daemon)
    mount.crashed = True
    complaint = casfs("mount", mount.store, mount.path, code=1)
    assert (
        "could not write all that it was given: No space left on device; what was never synced" in complaint
    )
    mount.start()
    assert before.read_bytes() == CONTENT[:1000]
    assert not file.exists(), "it was never promised"
