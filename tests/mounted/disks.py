"""File systems on loop devices: small ones that fill up, and ones that can be cut off."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from tests.mounted.mounts import is_mounted, unmount_by_force

SMALLEST = {"ext4": 64 << 20, "xfs": 300 << 20, "btrfs": 256 << 20}
"""Bytes: what is quick to fill, and for XFS the least that mkfs.xfs makes."""

MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}

NO_UUID = {"ext4": "loop", "xfs": "loop,nouuid", "btrfs": "loop"}
"""XFS refuses a second mount of one UUID, which a copy of an image is."""


class Disk:
    """An image file with a file system, mounted through a loop device that goes with the mount."""

    def __init__(self, image: Path, kind: str) -> None:
        self.image = image
        self.kind = kind
        self.path = image.with_suffix(".mnt")
        self.path.mkdir()

    def make(self, size: int, inodes: int = 0) -> Disk:
        """`inodes`: so many on ext4; 0: as mkfs likes."""
        with open(self.image, "wb") as file:
            file.truncate(size)
        number = ["-N", str(inodes)] if inodes else []
        subprocess.run([*MKFS[self.kind], *number, self.image], check=True)
        return self

    def mount(self) -> Disk:
        subprocess.run(["mount", "-o", NO_UUID[self.kind], self.image, self.path], check=True)
        return self

    def unmount(self) -> None:
        subprocess.run(["umount", self.path], check=True)

    def break_down(self) -> None:
        """The file system stops as it does when its disk fails: ext4 turns read-only, XFS answers EIO."""
        if self.kind == "ext4":
            subprocess.run(["mount", "-o", "remount,abort", self.path], check=True)
        else:
            subprocess.run(["xfs_io", "-x", "-c", "shutdown", self.path], check=True)

    def free(self) -> int:
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def free_inodes(self) -> int:
        return os.statvfs(self.path).f_favail

    def clear(self) -> None:
        if is_mounted(self.path):
            unmount_by_force(self.path)


class ThinDisk:
    """An ext4 whose free blocks have no room behind them yet, as on a thin volume: when what lies below is
    `exhausted`, blocks that are new to it cannot be written, and all others can."""

    def __init__(self, folder: Path) -> None:
        self.below = folder / "below"
        self.below.mkdir()
        self.disk = Disk(self.below / "disk.ext4", "ext4")
        self.filler = self.below / "filler"

    def mount(self) -> ThinDisk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", self.below], check=True)
        self.disk.path.mkdir()
        self.disk.make(100 << 20)
        image = self.disk.image
        content = image.read_bytes()
        with open(image, "r+b") as file:  # mkfs leaves holes in the place of its own blocks
            file.write(content)
        self.disk.mount()
        return self

    def trim(self) -> None:
        """From now on nothing is behind blocks that are free."""
        os.sync()
        subprocess.run(["fstrim", self.disk.path], check=True)

    def exhaust(self) -> None:
        with open(self.filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 20)):
                pass

    def relax(self) -> None:
        self.filler.unlink()

    def clear(self) -> None:
        self.disk.clear()
        unmount_by_force(self.below)
