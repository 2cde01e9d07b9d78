"""Taking a mount away, changing one, and what the daemon asks of the kernel for its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from casfs.control.client import Client, DaemonError, NoAnswer
from casfs.control.messages import Identify, Status, Sync
from casfs.control.protocol import SILENCE_SECONDS
from casfs.errors import MountError, NotMounted
from casfs.fuse.options import REMOUNT, remount_options
from casfs.service.commands import run
from casfs.service.killed import end_killed
from casfs.service.mounts import MountInfo, NotOurs, find_mount, mounts_of
from casfs.service.mounttable import locate, read_table
from casfs.service.waiting import within
from casfs.store import config_path
from casfs.syscalls import syncfs

HELD_SECONDS = 2.0
"""How long a daemon that was unmounted may go on before it is asked who holds the mount ..."""

CLOSED_POLL = 0.01
"""... and how often it is looked whether it has ended."""

CLOSING_SECONDS = 600.0
"""How long a daemon may take to write what it has after its mount has gone."""

HOLDERS_TOLD = 4
"""Places that are named of those where a mount is held."""

BUSY_SECONDS, BUSY_STEP = 1.0, 0.1
"""How long unmounting waits for who is just leaving a mount, and how often it tries."""

HOLDERS_SECONDS = 5.0
"""How long it is looked for who holds a mount: others may have as many mount namespaces as they like."""


def unmount(path: str, *, wait: bool = False, tell: Callable[[str], object] = print) -> None:
    """Make everything durable, take the mount away, wait until its store is closed.

    `path`: a mount point, or a store, whose mounts all go. Others may hold the mount (bind mounts, mount
    namespaces): `wait` waits for them, after it was told who they are.

    Raises NotMounted, NotOurs, MountError (busy, held, not allowed), and what the daemon says when it cannot
    commit.
    """
    try:
        mounts = _meant(path, wait)
    except NotOurs as error:
        if not is_dead(error.mountpoint) or locate(path).path != error.mountpoint:
            raise
        return detach(error.mountpoint)
    store = mounts[0].store if mounts else os.path.realpath(path)
    if end_killed(store):
        mounts = [mount for mount in mounts if mount.device in {entry.device for entry in read_table()}]
    served, device, lost = _make_durable(store, mounts)
    for mount in mounts:
        detach(mount.mountpoint)
    if served:
        await_closed(store, device, wait, tell)
    if lost:
        raise MountError(f"{mounts[0].mountpoint} is unmounted, but what was not synced is lost: {lost}")
    return None


def _meant(path: str, may_be_gone: bool) -> list[MountInfo]:
    """The mounts to take away; none for a store that is served though this process sees no mount of it, or
    that `may_be_gone`.

    Raises NotMounted, and as `verified` does.
    """
    mount = _mounted_at(path)
    if mount is not None:
        return [mount]
    place = within(SILENCE_SECONDS, path, partial(os.path.realpath, path))
    mount = _mounted_at(place)  # by a symbolic link
    found = [mount] if mount is not None else mounts_of(place)
    if found or (os.path.isfile(config_path(place)) and (may_be_gone or _is_locked(place))):
        return found
    mount, _ = find_mount(path)
    raise NotMounted(f"{path} is not a mount point", f"its mount is {mount.mountpoint}")


def _mounted_at(path: str) -> MountInfo | None:
    """The mount of a store that has just that mount point. Raises as `verified` does."""
    try:
        mount, inside = find_mount(path)
    except NotMounted:
        return None
    return mount if os.fsencode(mount.root) == inside else None


def _is_locked(store: str) -> bool:
    with _lock_of(store) as lock:
        return lock is not None and not _is_free(lock)


def _make_durable(store: str, mounts: list[MountInfo]) -> tuple[bool, str, str]:
    """Have the daemon commit: is there one, which device has its mount ("" if that is not known), and why
    would something be lost if the mount went? "" if not."""
    if mounts and mounts[0].pid is None:
        return False, "", ""
    client = Client(store, pid=mounts[0].pid if mounts else None)
    where, device = (mounts[0].mountpoint, mounts[0].device) if mounts else (store, "")
    try:
        client.ask(Sync())
        if not mounts:
            with contextlib.suppress(DaemonError):  # one of before an update
                device = client.ask(Identify()).device
    except NotMounted:
        return False, "", ""
    except NoAnswer as error:
        daemon = client.peer.pid if client.peer is not None else 0
        raise MountError(
            f"{where} stays mounted: {error.message}",
            f"process {daemon} serves it; once it is killed 'umount -l {where}' clears the mount",
        ) from None
    except DaemonError as error:
        if not _has_failed(client):
            raise MountError(
                f"{where} stays mounted, its last changes cannot be made durable: {error}",
                "make room on the store's file system, or give them up with umount(8)",
            ) from None
        return True, device, str(error)
    except OSError as error:  # the store's disk does not answer; its daemon may be there all the same
        return True, device, error.strerror or str(error)
    return True, device, ""


def _has_failed(client: Client) -> bool:
    """Does the daemon only read, since the disk has failed?"""
    activity = client.ask(Status()).get("activity")
    return isinstance(activity, dict) and bool(activity.get("failed"))


def await_closed(store: str, device: str, wait: bool, tell: Callable[[str], object]) -> None:
    """Return when the daemon has given up the store's lock; at once if the disk under it does not answer.

    Raises MountError when others hold the mount, unless they are to be waited for, and when the daemon does
    not come to an end.
    """
    told = False
    begun = since = time.monotonic()
    with _lock_of(store) as lock:
        while lock is not None and not _is_free(lock):
            time.sleep(CLOSED_POLL)
            now = time.monotonic()
            if now - begun > CLOSING_SECONDS and not wait:
                raise MountError(f"it is detached, but {store} was not closed for {CLOSING_SECONDS:.0f} s")
            if told or now - since < HELD_SECONDS:
                continue
            since = now
            held = holders(store, device)
            if held and not wait:
                raise MountError(
                    f"it is detached, but still served: {held}",
                    f"end or unmount that; 'casfs umount --wait {store}' waits for it",
                )
            if held:
                tell(f"waiting for {held}")
                told = True


@contextlib.contextmanager
def _lock_of(store: str) -> Iterator[int | None]:
    """A descriptor of a store's lock; None where there is none, or something else.

    The store may be anybody's: links are not followed, and a fifo is not waited for.
    """
    found: list[int] = []
    try:
        with contextlib.suppress(OSError):
            found.append(os.open(f"{store}/run", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            found.append(os.open("lock", flags, dir_fd=found[0]))
        lock = found[1] if len(found) > 1 else None
        yield lock if lock is not None and stat.S_ISREG(os.fstat(lock).st_mode) else None
    finally:
        for fd in found:
            os.close(fd)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holders(store: str, device: str = "") -> str:
    """Who sees a mount of the store, and where, in words; "" for nobody. Processes of others, too.

    `device`: of the mount that is meant, "" when that is not known. One process is named for each mount
    namespace, mount_namespaces(7). Blocks for some ms.
    """
    found: dict[tuple[str, str], str] = {}
    own, seen = _namespace("self"), set[str]()
    deadline = time.monotonic() + HOLDERS_SECONDS
    for process in filter(str.isdecimal, os.listdir("/proc")):
        namespace = _namespace(process)
        if namespace in seen or time.monotonic() > deadline:
            continue
        with contextlib.suppress(OSError):
            for entry in read_table(process):
                if entry.device != device if device else entry.store != store:
                    continue
                who = "" if namespace == own else f" for process {process} ({_command(process)})"
                found.setdefault((namespace, entry.mountpoint), f"{entry.mountpoint}{who}")
            seen.add(namespace)
    told = list(found.values())
    more = f" and {len(told) - HOLDERS_TOLD} more" if len(told) > HOLDERS_TOLD else ""
    return f"it is mounted at {', '.join(told[:HOLDERS_TOLD])}{more}" if told else ""


def _namespace(process: str) -> str:
    """The mount namespace of a process; of another user's, which does not show it, something of its own."""
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return process


def _command(process: str) -> str:
    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def detach(mountpoint: str) -> None:
    """umount(2) by umount(8) or fusermount3(1). A mount that somebody uses just for a moment is tried again.
    Raises MountError with their reason."""
    command = ["umount", "--", mountpoint] if os.getuid() == 0 else ["fusermount3", "-u", "--", mountpoint]
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return run(command)
        except MountError as error:
            if "busy" not in error.message or time.monotonic() > deadline:
                raise
        time.sleep(BUSY_STEP)


def remount(store: str, mountpoint: str, words: list[str]) -> None:
    """Change a mount in place, as `mount -i -o remount`: without -i mount(8) calls a helper, which is this
    command. What was done before is durable when it has become read-only.

    Raises UsageError, NotMounted, MountError (not root, files open for writing), and as the daemon does.
    """
    changed = remount_options(words)
    mount = _mounted_at(mountpoint)
    if mount is None or mount.store != os.path.realpath(store):
        raise NotMounted(f"{store} is not mounted on {mountpoint}")
    run(["mount", "-i", "-o", ",".join([REMOUNT, *changed]), "--", mount.mountpoint])
    if "ro" in changed:
        Client(store, pid=mount.pid).ask(Sync())


# What a daemon does with its own mount


def write_back(device: str, paths: Iterable[bytes]) -> None:
    """Have the kernel write the dirty pages of a mount's files. Blocks while the daemon serves it.

    `paths`, below the root: a FUSE daemon is sent dirty pages by syncfs(2), which does not wait for them; for
    those of one file fsync(2) does.
    """
    entry = next((entry for entry in read_table() if (entry.device, entry.root) == (device, "/")), None)
    if entry is None:
        return
    _sync(os.fsencode(entry.mountpoint), syncfs)
    for path in paths:
        _sync(os.path.join(os.fsencode(entry.mountpoint), path), os.fsync)


def _sync(path: bytes, sync: Callable[[int], object]) -> None:
    with contextlib.suppress(OSError):  # it has gone meanwhile, or the daemon has said why it cannot take it
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            sync(fd)
        finally:
            os.close(fd)


def is_dead(mountpoint: str) -> bool:
    """Is it the mount of a daemon that died? statfs(2) then fails with ENOTCONN; stat(2) may be answered by
    the kernel's cache. One that does not answer is not dead."""
    try:
        within(SILENCE_SECONDS, mountpoint, partial(os.statvfs, mountpoint))
    except NoAnswer:
        return False
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def read_ahead(mountpoint: str, device: str, kib: int) -> None:
    """Set how much the kernel reads ahead in a mount. Only root may; for others it stays as it is.

    Blocks until the daemon has answered a first request: the kernel sets it itself with INIT.
    linux/Documentation/ABI/testing/sysfs-class-bdi: /sys/class/bdi/MAJOR:MINOR/read_ahead_kb.
    """
    with contextlib.suppress(OSError):
        os.statvfs(mountpoint)
        with open(f"/sys/class/bdi/{device}/read_ahead_kb", "w") as file:
            file.write(str(kib))
