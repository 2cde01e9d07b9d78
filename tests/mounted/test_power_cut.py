"""The power goes while programs work: the block image at one instant, opened somewhere else.

The image of the store's disk lies on an XFS with shared extents. A clone of it there (FICLONE) holds the
image's lock, so it is the disk at one instant: what the store's file system had sent to it by then, and
nothing that it still kept in memory.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.disks import SMALLEST, Disk
from tests.mounted.load import Load, broken_promises
from tests.mounted.mounts import ROOT_OPTIONS, Mount

CUTS = 4

_POSSIBLE = re.compile(rb"dying |store |floor \S+ 0\n")
"""Names that are going, blocks that are being stored, logs that begin anew."""


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_fsync_promised_survives_a_power_cut(
    new_disk: Callable[..., Disk], new_mount: Callable[..., Mount], scratch: Path, kind: str
) -> None:
    below = new_disk("xfs", 4 << 30)
    disk = new_disk(kind, 3 * SMALLEST["xfs"], below.path)
    mount = new_mount(disk.path / "store", options=f"{ROOT_OPTIONS},commit_interval=0.3").start()
    load = Load(mount.path / "load", scratch / "record", workers=3)
    try:
        for number in range(CUTS):
            load.await_promises(150 * (number + 1))
            promised = load.record.read_bytes()
            cut = Disk(below.path / f"cut{number}.{kind}", kind)
            subprocess.run(["cp", "--reflink=always", disk.image, cut.image], check=True)
            record = promised + possible(load.record.read_bytes()[len(promised) :])
            try:
                _look_at(cut, record)
            finally:
                cut.clear()
                cut.image.unlink()
    finally:
        load.end()


def possible(record: bytes) -> bytes:
    """Of what was recorded while the copy was made: what may have happened before it, and need not have."""
    lines = [line for line in record.splitlines(keepends=True) if line.endswith(b"\n")]
    return b"".join(line for line in lines if _POSSIBLE.match(line))


def _look_at(cut: Disk, record: bytes) -> None:
    cut.mount()
    mountpoint = cut.image.with_suffix(".casfs")
    copy = Mount(cut.path / "store", mountpoint)
    copy.crashed = True
    try:
        copy.start()
        broken = broken_promises(mountpoint / "load", record)
        copy.finish()
    finally:
        copy.clear()
    assert not broken
    cut.unmount()
