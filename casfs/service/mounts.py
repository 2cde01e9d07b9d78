"""Which stores are mounted where, by the kernel's mount table; and taking a mount away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from dataclasses import dataclass

from casfs.control.client import Client, DaemonError
from casfs.errors import MountError, NotMounted
from casfs.fuse.options import SUBTYPE, store_of_source


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One line of /proc/self/mountinfo. `pid` is the daemon's, None when nothing serves the mount."""

    store: str
    mountpoint: str
    pid: int | None


def list_mounts() -> list[MountInfo]:
    """Every casfs mount this process can see."""
    mounts = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, tail = line.rstrip(b"\n").partition(b" - ")
            kind, source = tail.split(b" ")[:2]
            if kind == f"fuse.{SUBTYPE}".encode():
                store = store_of_source(os.fsdecode(_unescape(source)))
                mounts.append(MountInfo(store, os.fsdecode(_unescape(fields.split(b" ")[4])), _pid(store)))
    return mounts


def _unescape(field: bytes) -> bytes:
    """Octal escapes of mountinfo, proc_pid_mountinfo(5): space, tab, newline, backslash."""
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])


def _pid(store: str) -> int | None:
    try:
        with open(f"{store}/run/lock", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read(4096).split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return None


def find_mount(path: str | bytes) -> tuple[MountInfo, bytes]:
    """The mount a path lies in, and the path inside it, from its root, with a leading slash.

    The last component may be missing or a symbolic link. Raises NotMounted.
    """
    absolute = os.path.abspath(os.fsdecode(path))
    head, tail = os.path.split(absolute)
    place = os.path.join(os.path.realpath(head), tail) if tail else absolute
    if not os.path.islink(place):
        place = os.path.realpath(place)
    found = None
    for mount in list_mounts():
        root = mount.mountpoint
        inside = place == root or place.startswith(root.rstrip("/") + "/")
        if inside and (found is None or len(root) >= len(found.mountpoint)):
            found = mount
    if found is None:
        raise NotMounted(f"{os.fsdecode(path)} is in no casfs mount", "casfs status lists the mounts")
    return found, b"/" + os.fsencode(place[len(found.mountpoint.rstrip("/")) :]).lstrip(b"/")


def unmount(mountpoint: str) -> None:
    """Make everything durable, take the mount away, wait until its store is closed.

    Raises NotMounted, MountError (busy, not allowed), and what the daemon says when it cannot commit.
    """
    mount, inside = find_mount(mountpoint)
    if inside != b"/":
        raise NotMounted(f"{mountpoint} is not a mount point", f"its mount is {mount.mountpoint}")
    served, lost = True, ""
    client = Client(mount.store)
    try:
        client.call("sync")
    except NotMounted:
        served = False
    except DaemonError as error:
        lost = str(error)
        if not client.call("status")["activity"]["failed"]:
            raise MountError(
                f"{mount.mountpoint} stays mounted, its last changes cannot be made durable: {lost}",
                "make room on the store's file system, or give them up with umount(8)",
            ) from None
    except OSError as error:  # the store's disk does not answer; its daemon may be there all the same
        lost = error.strerror or str(error)
    detach(mount.mountpoint)
    if served:
        _wait_until_closed(mount.store)
    if lost:
        raise MountError(f"{mount.mountpoint} is unmounted, but what was not synced is lost: {lost}")


def _wait_until_closed(store: str) -> None:
    """Until its daemon gives up the lock; not at all if the disk under it does not answer."""
    try:
        with open(f"{store}/run/lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return


def detach(mountpoint: str) -> None:
    """umount(2) by umount(8) or fusermount3(1). Raises MountError with their reason."""
    command = ["umount", "--", mountpoint] if os.getuid() == 0 else ["fusermount3", "-u", "--", mountpoint]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise MountError(f"{command[0]} is not installed", "install fuse3") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"{command[0]} failed"]
        hint = "close the files and leave the directories in it" if "busy" in reason[0] else ""
        raise MountError(reason[0], hint)


def is_dead(mountpoint: str) -> bool:
    """Is it the mount of a daemon that died? statfs(2) then fails with ENOTCONN; stat(2) may be answered by
    the kernel's cache."""
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def read_ahead(mountpoint: str, kib: int) -> None:
    """Set how much the kernel reads ahead in a mount. Only root may; for others it stays as it is.

    Blocks until the daemon has answered a first request: the kernel sets it itself with INIT.
    linux/Documentation/ABI/testing/sysfs-class-bdi: /sys/class/bdi/MAJOR:MINOR/read_ahead_kb.
    """
    with contextlib.suppress(OSError):
        os.statvfs(mountpoint)
    wanted = os.fsencode(mountpoint)
    with open("/proc/self/mountinfo", "rb") as file:
        devices = [fields[2] for fields in map(bytes.split, file) if _unescape(fields[4]) == wanted]
    for device in devices[-1:]:
        with (
            contextlib.suppress(OSError),
            open(f"/sys/class/bdi/{device.decode()}/read_ahead_kb", "w") as file,
        ):
            file.write(str(kib))
