"""A store in use in this process: opened, started, stopped, reopened, or left as a crash leaves it."""

from __future__ import annotations

import os
from pathlib import Path

from casfs.filestore.durable import Durable
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.repositories.filesystem import file_system
from casfs.store import Store
from tests.faults import FaultyDurable
from tests.images import copy_store
from tests.kernel import Kernel


class Session:
    """A `Store`, the `FileSystem` on it, and the `Kernel` that programs would talk to."""

    seals_at_close = False

    def __init__(self, path: Path, durable: Durable | None = None) -> None:
        self.path = path
        self.running = False
        self.start(durable)

    def rest(self) -> None:
        """As if everything had been quiet for long."""
        contents = self.fs.contents
        run_inline(self.fs.group.durable())
        for ino in contents.sealing.resting.everything():
            contents.settling.rest(self.fs.inodes.get(ino))
        run_inline(contents.settling.seal_resting())

    def start(self, durable: Durable | None = None) -> None:
        """As `casfs mount` does. Leaves nothing open when it fails."""
        self.store = Store(str(self.path), durable=durable)
        if isinstance(durable, FaultyDurable):
            durable.watch(self.store.namespace)
        self.fs = file_system(self.store, InlineScheduler())
        self.fs.contents.settling.seals_at_close = self.seals_at_close
        self.kernel = Kernel(self.fs)
        try:
            run_inline(self.fs.start())
        except BaseException:
            self.abandon()
            raise
        self.running = True

    def stop(self) -> None:
        """As a clean unmount does. No descriptor may be left when the last handle was closed."""
        files_open = self.fs.contents.table.handles
        self.running = False
        try:
            run_inline(self.fs.stop())
        finally:
            self.store.close()
            left = close_below(self.path)
        assert files_open or not left, f"descriptors were left open: {left}"

    def reopen(self) -> Kernel:
        self.stop()
        self.start()
        return self.kernel

    def crash(self, copy: Path) -> None:
        """Go on with a copy of the store, made as if the process had been killed here."""
        copy_store(self.path, copy)
        self.abandon()
        self.path = copy
        self.start()

    @property
    def blobs(self) -> int:
        """Blob files there are."""
        return len(list((self.path / "blobs").glob("*/*")))

    @property
    def staged(self) -> int:
        """Staged files that hold something."""
        return self.store.filestore.staging.usage()[0]

    def abandon(self) -> None:
        """Give back descriptors and locks without finishing anything."""
        self.running = False
        self.store.close()
        close_below(self.path)


def close_below(folder: Path) -> list[str]:
    """Close, as the end of a process does, what is open below a folder; which files that was."""
    left = {number: path for number, path in descriptors().items() if path.startswith(f"{folder}/")}
    for number in left:
        os.close(number)
    return sorted(left.values())


def descriptors() -> dict[int, str]:
    """What this process has open: number -> path."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
    return found


async def no_room() -> bool:
    """On a disk on which no room can be made (`Verbs`)."""
    return False
