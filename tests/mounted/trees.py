"""Trees of real files, and what is to be seen of them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

FILES = 5_300
"""Regular files after which a tree is large enough."""

LARGEST = 8 << 20
"""Bytes of the largest file taken along."""

_PLACES = (
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
    "/usr/lib/python3",
    "/usr/share",
    "/usr/include",
    "/usr/lib",
    "/etc",
)

ODD_NAMES = [b"a b", b"\xff\xfe", b"new\nline", "ü€😀".encode(), b"-rf", b"*?[", b"x" * 255, b"\x01\x7f"]


def collect_tree(target: Path) -> None:
    """Copy real files of this machine until there are FILES, and add one of every kind of entry."""
    target.mkdir()
    count = 0
    for place in dict.fromkeys(_PLACES):
        for folder, _, names in os.walk(place):
            if count >= FILES:
                break
            inside = target / folder.lstrip("/")
            for name in names:
                source = os.path.join(folder, name)
                status = os.lstat(source)
                if stat.S_ISREG(status.st_mode) and status.st_size > LARGEST:
                    continue
                if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    inside.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, inside / name, follow_symlinks=False)
                    count += stat.S_ISREG(status.st_mode)
    assert count >= FILES, f"this machine has only {count} files to copy"
    _add_odd_ones(target / "odd")


def _add_odd_ones(odd: Path) -> None:
    """What no library brings: links, devices, attributes, lists, holes, names of any bytes."""
    odd.mkdir()
    for number, name in enumerate(ODD_NAMES):
        with open(os.fsencode(odd) + b"/" + name, "wb") as file:
            file.write(b"content %d" % number)
    file = odd / "linked"
    file.write_bytes(os.urandom(300_000))
    os.link(file, odd / "linked-too")
    (odd / "below").mkdir(mode=0o1777)
    os.link(file, odd / "below" / "linked-as-well")
    os.mkfifo(odd / "fifo")
    with socket.socket(socket.AF_UNIX) as connection:
        place = os.open(odd, os.O_RDONLY)
        connection.bind(f"/proc/self/fd/{place}/socket")
        os.close(place)
    os.symlink("nowhere/at all", odd / "dangling")
    os.symlink("x" * 4_000, odd / "far")
    with open(odd / "sparse", "wb") as sparse:
        sparse.write(b"start")
        sparse.truncate(5 << 20)
    (odd / "empty").touch()
    os.utime(odd / "empty", ns=(1, 123_456_789))
    os.setxattr(odd / "empty", "user.note", b"\0binary\xff")
    os.setxattr(odd / "below", "user.folder", b"")
    if os.getuid() == 0:
        os.mknod(odd / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(odd / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))
        os.setxattr(odd / "empty", "trusted.note", b"kept")
        (odd / "owned").write_text("by others")
        os.chown(odd / "owned", 1234, 4_000_000_000)
        os.lchown(odd / "dangling", 12, 34)
    (odd / "suid").write_text("#!/bin/sh\n")
    (odd / "suid").chmod(0o6755)
    subprocess.run(["setfacl", "-m", "u:12:rw,g:34:r", odd / "owned"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12:rwx", odd / "below"], check=True)


def same_tree(left: Path, right: Path) -> None:
    """Assert that nothing differs: not by diff, nor by rsync with all attributes and checksums."""
    # diff would read from the devices and wait at the fifo.
    special = ["null", "disk", "fifo", "socket"]
    excluded = [f"--exclude={name}" for name in special]
    diff = ["diff", "-r", "--no-dereference", *excluded, left, right]
    done = subprocess.run(diff, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[:4000] + done.stderr[:4000]
    options = ["-aHAX", "--checksum", "--dry-run", "--itemize-changes", "--delete"]
    rsync = ["rsync", *options, f"{left}/", f"{right}/"]
    done = subprocess.run(rsync, capture_output=True, text=True, errors="replace")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stdout[:4000] + done.stderr[:4000]


def walk(root: Path) -> Iterator[bytes]:
    """Every path below `root`, and `root` itself, in a fixed order."""
    yield os.fsencode(root)
    for folder, directories, names in os.walk(os.fsencode(root)):
        for name in sorted((*directories, *names)):
            yield os.path.join(folder, name)


def portrait(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything stat(2) and listxattr(2) show, by path: what must not change over a remount (I7)."""
    seen: dict[bytes, tuple[object, ...]] = {}
    for path in walk(root):
        status = os.lstat(path)
        names = os.listxattr(path, follow_symlinks=False)
        seen[os.path.relpath(path, os.fsencode(root))] = (
            status.st_ino,
            *(status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev),
            *(status.st_size, status.st_blocks),
            *(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns),
            *sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
        )
    return seen
