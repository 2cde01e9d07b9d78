"""Which stores are mounted where, by the kernel's mount table; and taking a mount away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from casfs.control.client import Client, DaemonError, NoAnswer
from casfs.control.messages import Status, Sync
from casfs.errors import MountError, NotMounted
from casfs.fuse.options import REMOUNT, SUBTYPE, remount_options, store_of_source
from casfs.store import config_path
from casfs.syscalls import syncfs

HELD_SECONDS = 2.0
"""How long a daemon that was unmounted may go on before it is asked who holds the mount ..."""

CLOSED_POLL = 0.01
"""... and how often it is looked whether it has ended."""

HOLDERS_TOLD = 4
"""Places that are named of those where a mount is held."""


BUSY_SECONDS, BUSY_STEP = 1.0, 0.1
"""How long unmounting waits for who is just leaving a mount, and how often it tries."""


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One line of a mountinfo, proc_pid_mountinfo(5). `pid` is the daemon's, None when nothing serves it.

    `root`: the directory of the file system that is seen there; "/" for all of it, less for a bind mount.
    `device`: as MAJOR:MINOR; the same for all mounts of one file system.
    """

    store: str
    mountpoint: str
    pid: int | None
    root: str = "/"
    device: str = ""


def list_mounts() -> list[MountInfo]:
    """Every casfs mount this process can see."""
    return [replace(mount, pid=_pid(mount.store)) for mount in read_mounts("self")]


def read_mounts(process: str) -> Iterator[MountInfo]:
    """The casfs mounts that a process sees, without the daemons' ids. Raises OSError."""
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        for line in file:
            fields, _, tail = line.rstrip(b"\n").partition(b" - ")
            kind, source = tail.split(b" ")[:2]
            if kind == f"fuse.{SUBTYPE}".encode():
                device, root, place = fields.split(b" ")[2:5]
                yield MountInfo(
                    store_of_source(os.fsdecode(_unescape(source))),
                    os.fsdecode(_unescape(place)),
                    None,
                    os.fsdecode(_unescape(root)),
                    device.decode(),
                )


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
    mounts = list_mounts()
    absolute = os.path.abspath(os.fsdecode(path))
    place = absolute
    if all(
        absolute != mount.mountpoint for mount in mounts
    ):  # else no stat, which a hung daemon would not answer
        head, tail = os.path.split(absolute)
        place = os.path.join(os.path.realpath(head), tail) if tail else absolute
        if not os.path.islink(place):
            place = os.path.realpath(place)
    found = None
    for mount in mounts:
        root = mount.mountpoint
        inside = place == root or place.startswith(root.rstrip("/") + "/")
        if inside and (found is None or len(root) >= len(found.mountpoint)):
            found = mount
    if found is None:
        raise NotMounted(f"{os.fsdecode(path)} is in no casfs mount", "casfs status lists the mounts")
    below = place[len(found.mountpoint.rstrip("/")) :]
    return found, b"/" + os.fsencode(found.root.rstrip("/") + below).lstrip(b"/")


def unmount(path: str, *, wait: bool = False, tell: Callable[[str], object] = print) -> None:
    """Make everything durable, take the mount away, wait until its store is closed.

    `path`: a mount point, or a store, whose mounts all go. Others may hold the mount (bind mounts, mount
    namespaces): `wait` waits for them, after it was told who they are.

    Raises NotMounted, MountError (busy, held, not allowed), and what the daemon says when it cannot commit.
    """
    mounts = _meant(path, wait)
    store = mounts[0].store if mounts else os.path.realpath(path)
    served, lost = _make_durable(store, mounts)
    for mount in mounts:
        detach(mount.mountpoint)
    if served:
        await_closed(store, mounts[0].device if mounts else "", wait, tell)
    if lost:
        raise MountError(f"{mounts[0].mountpoint} is unmounted, but what was not synced is lost: {lost}")


def _meant(path: str, may_be_gone: bool) -> list[MountInfo]:
    """The mounts to take away; none for a store that is served though this process sees no mount of it, or
    that `may_be_gone`.

    Raises NotMounted.
    """
    place, seen = os.path.abspath(path), list_mounts()
    there = [mount for mount in seen if mount.mountpoint == place]  # no stat: a hung daemon would not answer
    if there:
        return there[-1:]
    place = os.path.realpath(path)
    found = [mount for mount in seen if place in (mount.store, mount.mountpoint)]
    if found or (os.path.isfile(config_path(place)) and (may_be_gone or _pid(place) is not None)):
        return found
    mount, _ = find_mount(path)
    raise NotMounted(f"{path} is not a mount point", f"its mount is {mount.mountpoint}")


def _make_durable(store: str, mounts: list[MountInfo]) -> tuple[bool, str]:
    """Have the daemon commit: is there one, and why would something be lost if the mount went? "" if not."""
    client = Client(store)
    where = mounts[0].mountpoint if mounts else store
    try:
        client.ask(Sync())
    except NotMounted:
        return False, ""
    except NoAnswer as error:
        raise MountError(
            f"{where} stays mounted: {error.message}",
            f"process {_pid(store)} serves it; once it is killed 'umount -l {where}' clears the mount",
        ) from None
    except DaemonError as error:
        if not client.ask(Status())["activity"]["failed"]:
            raise MountError(
                f"{where} stays mounted, its last changes cannot be made durable: {error}",
                "make room on the store's file system, or give them up with umount(8)",
            ) from None
        return True, str(error)
    except OSError as error:  # the store's disk does not answer; its daemon may be there all the same
        return True, error.strerror or str(error)
    return True, ""


def await_closed(store: str, device: str, wait: bool, tell: Callable[[str], object]) -> None:
    """Return when the daemon has given up the store's lock; at once if the disk under it does not answer.

    Raises MountError when others hold the mount, unless they are to be waited for.
    """
    told = False
    since = time.monotonic()
    with contextlib.suppress(OSError), open(f"{store}/run/lock", "rb") as file:
        while not _is_free(file.fileno()):
            time.sleep(CLOSED_POLL)
            if told or time.monotonic() - since < HELD_SECONDS:
                continue
            since = time.monotonic()
            held = holders(store, device)
            if held and not wait:
                raise MountError(
                    f"it is detached, but still served: {held}",
                    f"end or unmount that; 'casfs umount --wait {store}' waits for it",
                )
            if held:
                tell(f"waiting for {held}")
                told = True


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
    own = _namespace("self")
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            namespace = _namespace(process)
            for mount in read_mounts(process):
                if mount.store != store or device not in ("", mount.device):
                    continue
                who = "" if namespace == own else f" for process {process} ({_command(process)})"
                found.setdefault((namespace, mount.mountpoint), f"{mount.mountpoint}{who}")
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
            return _run(command)
        except MountError as error:
            if "busy" not in error.message or time.monotonic() > deadline:
                raise
        time.sleep(BUSY_STEP)


def _run(command: list[str]) -> None:
    """A command of util-linux or fuse3. Raises MountError with its reason."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise MountError(f"{command[0]} is not installed", "install fuse3 and mount") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[:1] or [f"{command[0]} failed"]
        hint = "close the files and leave the directories in it" if "busy" in reason[0] else ""
        raise MountError(reason[0], hint)


def remount(store: str, mountpoint: str, words: list[str]) -> None:
    """Change a mount in place, as `mount -i -o remount`: without -i mount(8) calls a helper, which is this
    command. What was done before is durable when it has become read-only.

    Raises UsageError, NotMounted, MountError (not root, files open for writing), and as the daemon does.
    """
    changed = remount_options(words)
    place = os.path.abspath(mountpoint)
    if all((mount.store, mount.mountpoint) != (os.path.realpath(store), place) for mount in list_mounts()):
        raise NotMounted(f"{store} is not mounted on {mountpoint}")
    _run(["mount", "-i", "-o", ",".join([REMOUNT, *changed]), "--", place])
    if "ro" in changed:
        Client(store).ask(Sync())


def write_back(store: str, paths: Iterable[bytes]) -> None:
    """Have the kernel write the dirty pages of a mount's files. Blocks while the daemon serves it.

    `paths`, below the root: a FUSE daemon is sent dirty pages by syncfs(2), which does not wait for them; for
    those of one file fsync(2) does.
    """
    mount = next((mount for mount in read_mounts("self") if (mount.store, mount.root) == (store, "/")), None)
    if mount is None:
        return
    _sync(os.fsencode(mount.mountpoint), syncfs)
    for path in paths:
        _sync(os.path.join(os.fsencode(mount.mountpoint), path), os.fsync)


def _sync(path: bytes, sync: Callable[[int], object]) -> None:
    with contextlib.suppress(OSError):  # it has gone meanwhile, or the daemon has said why it cannot take it
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            sync(fd)
        finally:
            os.close(fd)


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
