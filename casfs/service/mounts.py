"""Which stores are mounted where: what the mount table says, and which of it is true."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from casfs.control.client import Client, DaemonError, NoAnswer, Peer, Unanswered
from casfs.control.messages import Identify
from casfs.control.protocol import SILENCE_SECONDS
from casfs.errors import CasfsError, ExitCode, NotMounted
from casfs.service.mounttable import Entry, mounts_at, read_table
from casfs.service.waiting import within

IDENTIFY_SECONDS = 1.0
"""How long a daemon has to say which mount it serves; then what the kernel knows of it has to do."""

LOCATED = 500
"""Paths that are looked for at a time: some 50 ms, of the seconds for which a file system may be silent."""

ROOT = 0
"""The user who is believed whatever he mounts."""


class NotOurs(CasfsError):
    """A mount of casfs, by its own words, that the store it names knows nothing of."""

    exit_code = ExitCode.NOT_MOUNTED

    def __init__(self, mountpoint: str, claim: str, reason: str) -> None:
        super().__init__(
            f"{mountpoint} is not ours: it says to be a mount of {claim}, but {reason}",
            "umount(8) takes it away",
        )
        self.mountpoint = mountpoint


@dataclass(frozen=True, slots=True)
class MountInfo:
    """A mount that names a store. `pid`: the daemon that serves it, as far as is known; None for none.

    `root`: the directory of the file system that is seen there; "/" for all of it, less for a bind mount.
    `device`: as MAJOR:MINOR; the same for all mounts of one file system. `user`: who has mounted it.
    """

    store: str
    mountpoint: str
    pid: int | None = None
    root: str = "/"
    device: str = ""
    user: int = ROOT


def list_mounts(process: str | int = "self") -> Iterator[MountInfo]:
    """Whatever says to be a casfs mount, of those that a process sees; see `verified`. Raises OSError."""
    return (mount for mount in map(_claimed, read_table(process)) if mount is not None)


def _claimed(entry: Entry) -> MountInfo | None:
    if entry.store is None:
        return None
    return MountInfo(entry.store, entry.mountpoint, None, entry.root, entry.device, entry.user or ROOT)


def verified(mount: MountInfo) -> MountInfo:
    """A mount with its daemon, if the store that it names has to do with it. A dead daemon is none.

    Anybody may mount a file system that names any store. So a mount that neither root nor this user has made
    is one of a store of who made it; the daemon in there is his process, and says that this is its mount.

    Raises NotOurs, PermissionDenied, NoAnswer for a store whose file system does not answer.
    """
    return within(SILENCE_SECONDS, mount.store, partial(_verified, mount))


def _verified(mount: MountInfo) -> MountInfo:
    if not mount.store.startswith("/") or "\0" in mount.store:
        raise _not_ours(mount, "what it names can be no store")
    if mount.user not in (ROOT, os.geteuid()) and _owner(mount) != mount.user:
        raise _not_ours(mount, f"user {mount.user} has mounted it, whose store that is not")
    client = Client(mount.store, IDENTIFY_SECONDS, limit=IDENTIFY_SECONDS)
    try:
        device = client.ask(Identify()).device
    except (NoAnswer, Unanswered, DaemonError):  # busy, stopped, or of an older version
        device = ""
    except NotMounted:
        return mount
    peer = client.peer
    if peer is None:
        raise NoAnswer(f"the daemon of {mount.store} lets nobody in", "it was stopped, or its disk hangs")
    if peer.uid != mount.user:
        raise _not_ours(mount, f"the daemon of that store is one of user {peer.uid}")
    if device != mount.device and (device or not _sees(peer, mount)):
        raise _not_ours(mount, f"the daemon of that store, process {peer.pid}, serves another mount")
    return replace(mount, pid=peer.pid)


def _owner(mount: MountInfo) -> int | None:
    try:
        return os.stat(mount.store).st_uid
    except OSError:
        return None


def _sees(peer: Peer, mount: MountInfo) -> bool:
    """Is the mount one of those that a process sees? Yes, where that cannot be seen."""
    try:
        return any(entry.device == mount.device for entry in read_table(peer.pid))
    except OSError:
        return True


def _not_ours(mount: MountInfo, reason: str) -> NotOurs:
    return NotOurs(mount.mountpoint, mount.store, reason)


def claimed_mount(path: str | bytes) -> tuple[MountInfo, bytes]:
    """What says to be a casfs mount where a path lies; and the path inside it, from its root, with a leading
    slash.

    The last component may be missing or a symbolic link. Raises NotMounted, NoAnswer.
    """
    return next(_claimed_mounts([path]))


def _claimed_mounts(paths: Sequence[str | bytes]) -> Iterator[tuple[MountInfo, bytes]]:
    """As `claimed_mount` of each path, many of them in one helper (service/waiting.py)."""
    for start in range(0, len(paths), LOCATED):
        some = paths[start : start + LOCATED]
        found = within(SILENCE_SECONDS, os.fsdecode(some[0]), partial(mounts_at, some))
        for path, (entry, location) in zip(some, found, strict=True):
            mount = None if entry is None else _claimed(entry)
            if mount is None or mount.root.endswith("//deleted"):  # a bind mount of what has gone
                raise NotMounted(f"{os.fsdecode(path)} is in no casfs mount", "casfs status lists the mounts")
            below = os.path.relpath(location.path, mount.mountpoint)
            inside = os.path.normpath(os.path.join(mount.root, below))
            yield mount, b"/" + os.fsencode(inside).lstrip(b"/")


def find_mount(path: str | bytes) -> tuple[MountInfo, bytes]:
    """As `claimed_mount`, `verified`.

    Raises NotMounted, and as `verified` does; NotOurs for a mount of another user that nothing serves, too:
    his store is whatever he makes of the path.
    """
    return next(find_mounts([path]))


def find_mounts(paths: Sequence[str | bytes]) -> Iterator[tuple[MountInfo, bytes]]:
    """As `find_mount` of each path; a mount is verified once."""
    known: dict[MountInfo, MountInfo] = {}
    for mount, inside in _claimed_mounts(paths):
        found = known.get(mount)
        if found is None:
            found = known[mount] = verified(mount)
        if found.pid is None and found.user not in (ROOT, os.geteuid()):
            raise _not_ours(found, "nothing serves it")
        yield found, inside


def own_device(store: str, mountpoint: str) -> str:
    """Of the mount that this process has made there, by their real paths; "" when it has gone again."""
    wanted = (store, mountpoint, os.getuid())
    mounts = [mount for mount in list_mounts() if (mount.store, mount.mountpoint, mount.user) == wanted]
    return mounts[-1].device if mounts else ""


def mounts_of(store: str) -> list[MountInfo]:
    """The mounts of a store, by its real path, that are `verified`, and those whose daemon is dead. Whoever
    only names the store is no matter."""
    found = []
    for mount in list_mounts():
        if mount.store == store:
            try:
                found.append(verified(mount))
            except NotOurs:
                continue
    return found
