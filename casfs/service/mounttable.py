"""The kernel's mount table, proc_pid_mountinfo(5), and the mount that a path lies in.

What a mount says of itself is not to be believed: whoever may mount a FUSE file system chooses its type and
its source. The kernel's own words are the ids, the device, and `user_id`: who has mounted it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from casfs.fuse.options import SUBTYPE, store_of_source


class Entry(NamedTuple):
    """One line. `mountpoint` and `root` (of the file system, what is seen there) are absolute paths.

    `device`: MAJOR:MINOR, the same for all mounts of one file system. `user`: who has mounted a FUSE file
    system, None for another one.
    """

    id: int
    device: str
    root: str
    mountpoint: str
    type: str
    source: str
    user: int | None

    @property
    def store(self) -> str | None:
        """The store that it claims to show; None when it does not claim to be a casfs mount."""
        return store_of_source(self.source) if self.type == f"fuse.{SUBTYPE}" else None

    @property
    def is_fuse(self) -> bool:
        return self.user is not None


def read_table(process: str | int = "self") -> Iterator[Entry]:
    """The mounts that a process sees. Raises OSError."""
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        for line in file:
            fields, _, tail = line.rstrip(b"\n").partition(b" - ")
            number, _, device, root, place = fields.split(b" ")[:5]
            kind, source, options = tail.split(b" ")[:3]
            yield Entry(
                int(number),
                device.decode(),
                _unescape(root),
                _unescape(place),
                _unescape(kind),
                _unescape(source),
                _user(kind, options),
            )


def _unescape(field: bytes) -> str:
    """Octal escapes of mountinfo: space, tab, newline, backslash."""
    parts = field.split(b"\\")
    return os.fsdecode(parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:]))


def _user(kind: bytes, options: bytes) -> int | None:
    """The kernel writes `user_id` before anything that can be chosen (fuse_show_options, fs/fuse/inode.c)."""
    if kind.partition(b".")[0] not in (b"fuse", b"fuseblk"):
        return None
    found = (word for word in options.split(b",") if word.startswith(b"user_id="))
    return int(next(found, b"user_id=0")[8:])


class Location(NamedTuple):
    """`mount`: the id of the mount that a path lies in. `path`: absolute, without symbolic links but for the
    last component."""

    mount: int
    path: str


def locate(path: str | bytes) -> Location:
    """Where a path lies, whatever is missing at its end. Raises OSError.

    By the kernel's own walk, so mounts that are covered by others do not count. The root of a mount is found
    without its file system, which may be dead or hang; below it, this waits for its answer.
    """
    head, rest = os.path.abspath(os.fsdecode(path)), ""
    while True:
        try:
            fd = os.open(head, os.O_PATH | os.O_CLOEXEC | (0 if rest else os.O_NOFOLLOW))
            break
        except OSError:
            if head == "/":
                raise
            head, name = os.path.split(head)
            rest = os.path.join(name, rest) if rest else name
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            facts = dict(line.split(":", 1) for line in file if ":" in line)
        place = os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return Location(int(facts["mnt_id"]), os.path.join(place, rest) if rest else place)


def mount_at(path: str | bytes) -> tuple[Entry | None, Location]:
    """The mount that a path lies in, None when it is gone already. Raises OSError, waits as `locate` does."""
    (found,) = mounts_at([path])
    return found


def mounts_at(paths: Sequence[str | bytes]) -> list[tuple[Entry | None, Location]]:
    """As `mount_at` of each path."""
    locations = list(map(locate, paths))
    entries = {entry.id: entry for entry in read_table()}
    return [(entries.get(location.mount), location) for location in locations]
