"""What a user may do much of, to be in the way of others, and how long the others wait meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.mounted.mounts import Mount, casfs
from tests.mounted.sides import Fallocate, fallocate
from tests.security.users import OTHER, OWNER, become

INTERVAL = 0.005
"""Seconds between the requests of the user who is watched."""

SETTLE_SECONDS = 1.0
"""So long he is watched after the flood: what it leaves is committed then."""

Flood = Callable[[Path, int], object]


@dataclass(frozen=True)
class Wait:
    """How others fared: milliseconds of their requests, MiB the daemon had at the most."""

    requests: int
    p50: float
    p99: float
    longest: float
    memory: int


def trash(place: Path, count: int) -> None:
    for number in range(count):
        (place / f"{number}").write_bytes(b"%d" % number)
    for number in range(count):
        (place / f"{number}").unlink()


def attributes(place: Path, count: int) -> None:
    """A million bytes on each of `count` / 50 files."""
    for number in range(count // 50):
        file = place / f"{number}"
        file.touch()
        for name in range(15):
            os.setxattr(file, f"user.{name}", bytes(65536))
    for number in range(count // 50):
        (place / f"{number}").unlink()


def handles(place: Path, count: int) -> None:
    """As many as the user's limit lets him have, most of them writing."""
    held = []
    with contextlib.suppress(OSError):
        for number in range(count):
            held.append(os.open(place / f"{number % (count // 2)}", os.O_CREAT | os.O_RDWR))
            os.write(held[-1], b"content")
    for fd in held:
        os.close(fd)


def holes(place: Path, count: int) -> None:
    fd = os.open(place / "holes", os.O_CREAT | os.O_RDWR)
    for size in ((1 << 63) - 1, 1 << 62, 1 << 60, 1 << 43):
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
    for number in range(count // 10):
        os.pwrite(fd, b"x", number << 30)
    offset = 0
    with contextlib.suppress(OSError):
        while True:
            offset = os.lseek(fd, os.lseek(fd, offset, os.SEEK_DATA), os.SEEK_HOLE)
    os.close(fd)


def room(place: Path, count: int) -> None:
    """fallocate(2) of an EiB, and of what there may be, again and again."""
    fd = os.open(place / "room", os.O_CREAT | os.O_RDWR)
    for number in range(count // 50):
        for size in (1 << 62, 1 << 60, 1 << 44, 1 << 28):
            for mode in (Fallocate.ALLOCATE, Fallocate.KEEP_SIZE, Fallocate.PUNCH_HOLE | Fallocate.KEEP_SIZE):
                with contextlib.suppress(OSError):
                    fallocate(fd, mode, number << 12, size)
    os.ftruncate(fd, 0)
    os.close(fd)


def watchers(place: Path, count: int) -> None:
    libc = ctypes.CDLL(None)
    notifier = libc.inotify_init1(0)
    for number in range(count // 2):
        (place / f"{number}").mkdir()
        libc.inotify_add_watch(notifier, os.fsencode(place / f"{number}"), 0xFFF)
    for number in range(count // 2):
        (place / f"{number}").rmdir()
    os.close(notifier)


def renames(place: Path, count: int) -> None:
    """Of a directory with `count` * 5 names, which is listed as well."""
    (place / "large").mkdir()
    for number in range(count * 5):
        os.mknod(place / "large" / f"{number}")
    (place / "beside").mkdir()
    for _ in range(20):
        os.rename(place / "large", place / "beside" / "large")
        os.chmod(place / "beside", 0o711)
        os.rename(place / "beside" / "large", place / "large")
    assert len([entry.stat() for entry in os.scandir(place / "large")]) == count * 5


def depth(place: Path, count: int) -> None:
    """Directories in directories: moved, and files removed at the bottom."""
    os.chdir(place)
    for _ in range(count):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    os.makedirs("a/x")
    os.mkdir("b")
    for number in range(20):
        with contextlib.suppress(OSError):
            os.rename("a/x", "b/x")
            os.rename("b/x", "a/x")
        Path(f"{number}").write_bytes(b"%d" % number)
    fd = os.open("0", os.O_RDONLY)
    os.fsync(fd)
    for number in range(20):
        os.unlink(f"{number}")
        os.chmod("a", 0o700 + number)


def places(place: Path, count: int) -> None:
    """Files removed in turns in many deep directories: the trash has to make each of these."""
    bottoms = []
    for top in range(max(2, count // 300)):
        path = place / f"{top}" / "/".join("d" * 240)
        path.mkdir(parents=True)
        bottoms.append(os.open(path, os.O_RDONLY))
        for number in range(20):
            (path / f"{number}").write_bytes(b"%d %d" % (top, number))
    os.fsync(bottoms[0])
    for number in range(20):
        for bottom in bottoms:
            os.unlink(f"{number}", dir_fd=bottom)
        os.chmod(place / "0", 0o700 + number)


def syncs(place: Path, count: int) -> None:
    fd = os.open(place / "file", os.O_CREAT | os.O_WRONLY)
    for _ in range(count // 40):
        os.write(fd, os.urandom(4096))
        os.fsync(fd)
    os.close(fd)


def writes(place: Path, count: int) -> None:
    """Of `count` / 20 MiB, hashed again and again."""
    content = os.urandom(1 << 20)
    with open(place / "file", "wb") as file:
        file.writelines(content for _ in range(count // 20))
    for number in range(5):
        fd = os.open(place / "file", os.O_RDWR)
        os.pwrite(fd, b"x", number << 12)
        os.close(fd)
        os.getxattr(place / "file", "user.casfs.blake3")


def mappings(place: Path, count: int) -> None:
    held = []
    for number in range(count // 100):
        fd = os.open(place / f"{number}", os.O_CREAT | os.O_RDWR)
        os.ftruncate(fd, 1 << 20)
        held.append((fd, mmap.mmap(fd, 1 << 20)))
        held[-1][1][:4] = b"some"
    for _ in range(5):
        for fd, _mapping in held:
            os.fstat(fd)
            os.utime(fd)


def links(place: Path, count: int) -> None:
    (place / "file").write_bytes(b"content")
    for number in range(count):
        os.link(place / "file", place / f"{number}")
        os.symlink("x" * 4000, place / f"symlink {number}")
    for _ in range(20):
        (place / "file").write_bytes(b"")


def lookups(place: Path, count: int) -> None:
    for number in range(count * 10):
        with contextlib.suppress(FileNotFoundError):
            os.stat(place / f"{number}")


FLOODS: dict[str, Flood] = {
    flood.__name__: flood
    for flood in (
        *(trash, attributes, handles, holes, room, watchers, renames, depth, places),
        *(syncs, writes, mappings, links, lookups),
    )
}


def _work(folder: Path, pipe: Connection) -> None:
    """As another user: look up, make, read, remove, until told to stop."""
    become(OTHER)
    spent = []
    number = 0
    while not pipe.poll():
        file, times = folder / f"{number % 100}", [time.perf_counter()]
        with contextlib.suppress(FileNotFoundError):
            os.stat(folder / f"absent {number}")
        times.append(time.perf_counter())
        file.write_bytes(bytes(4096))
        times.append(time.perf_counter())
        assert file.read_bytes() == bytes(4096)
        times.append(time.perf_counter())
        file.unlink()
        times.append(time.perf_counter())
        spent += [after - before for before, after in itertools.pairwise(times)]
        number += 1
        time.sleep(INTERVAL)
    pipe.send(spent)


def _flood(flood: Flood, place: Path, count: int) -> None:
    become(OWNER)
    flood(place, count)


def measure(mount: Mount, name: str, count: int) -> Wait:
    """Let OWNER flood a mount, whose trash takes everything, while OTHER works there."""
    casfs("trash", "set", mount.store, "--minimal-age", "0")
    context = multiprocessing.get_context("fork")
    for who in (OWNER, OTHER):
        (mount.path / f"{name} {who}").mkdir()
        os.chown(mount.path / f"{name} {who}", who, who)
    Path(f"/proc/{mount.pid}/clear_refs").write_text("5")  # VmHWM begins anew
    pipe, end = context.Pipe()
    worker = context.Process(target=_work, args=(mount.path / f"{name} {OTHER}", end))
    flood = context.Process(target=_flood, args=(FLOODS[name], mount.path / f"{name} {OWNER}", count))
    worker.start()
    flood.start()
    flood.join()
    time.sleep(SETTLE_SECONDS)
    pipe.send("stop")
    spent = sorted(pipe.recv())
    worker.join()
    assert (flood.exitcode, worker.exitcode) == (0, 0), name
    status = Path(f"/proc/{mount.pid}/status").read_text()
    (most,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    at = [spent[int(len(spent) * share)] * 1000 for share in (0.5, 0.99)]
    return Wait(len(spent), *at, longest=spent[-1] * 1000, memory=most >> 10)
