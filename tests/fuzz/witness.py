"""Who looks at directories all the time, so that the kernel remembers much of them, and if that is so."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blake3 import blake3

from tests.fuzz.actor import NOTHING
from tests.mounted.sides import shown

Sight = dict[str, tuple[Any, ...]]
"""Path -> what is seen there."""

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Witness:
    """Looks at everything below `tops`, and at `names` in each directory whether they are there or not."""

    def __init__(self, tops: Iterable[Path], names: Iterable[str]) -> None:
        self.tops = tuple(tops)
        self.names = tuple(sorted(names))

    def look(self, *, content: bool = False) -> Sight:
        """With the contents of files, or without."""
        seen: Sight = {}
        for top in self.tops:
            self._look(os.fspath(top), seen, content)
        return seen

    def _look(self, folder: str, seen: Sight, content: bool) -> None:
        below: list[str] = []
        listed: set[str] = set()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    listed.add(entry.name)
                    kind = entry.is_dir(follow_symlinks=False), entry.is_symlink(), entry.inode()
                    seen[entry.path] = kind + _seen(entry.path, content)
                    if kind[0]:
                        below.append(entry.path)
        except OSError as error:
            seen[folder] = (_name(error),)
        for name in self.names:
            if name not in listed:
                path = f"{folder}/{name}"
                found = _seen(path, content)
                if found != ("ENOENT",):
                    seen[path] = ("not listed", *found)
        for path in below:
            self._look(path, seen, content)

    def forgetful(self) -> str:
        """What the kernel remembers and is not so; "" when there is nothing. Nobody may change anything
        meanwhile. Without root nothing is forgotten."""
        seen = self.look(content=True)
        forget()
        return differing(self.look(content=True), seen)


def differing(fresh: Sight, seen: Sight) -> str:
    """ "" when it is the same."""
    return "" if fresh == seen else different(seen, fresh, "afterwards")


def different(found: Any, expected: Any, other: str = "the disk says") -> str:
    """Only what differs, if it is a tree. `other`: what comes before what was expected."""
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return f"{shown(found)}, {other} {shown(expected)}"
    return "; ".join(
        f"{name}: {found.get(name, NOTHING)}, {other} {expected.get(name, NOTHING)}"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    )


def forget() -> None:
    """Have the kernel forget what nobody uses."""
    if os.getuid() == 0:
        DROP_CACHES.write_text("2")


def _seen(path: str, content: bool) -> tuple[Any, ...]:
    try:
        status = os.lstat(path)
        told: Any = None
        if stat.S_ISLNK(status.st_mode):
            told = os.readlink(path)
        elif content and stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                told = blake3(file.read()).hexdigest(length=8)
    except OSError as error:
        return (_name(error),)
    return (
        *(status.st_mode, status.st_ino, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev),
        *(status.st_size, status.st_mtime_ns, status.st_ctime_ns, told),
    )


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


class Looks(threading.Thread):
    """A witness who looks again and again, until he is told to stop."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(daemon=True)
        self._witness = witness
        self._ended = threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self._witness.look()
            self.count += 1

    def stop(self, seconds: float) -> None:
        self._ended.set()
        self.join(seconds)
