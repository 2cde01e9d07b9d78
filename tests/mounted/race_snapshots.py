"""Who makes snapshots while contents die and are reborn (race.py), reads all that each has, and drops them.

    python -m tests.mounted.race_snapshots FOLDER RECORD STORE

Runs until it is killed, or the file system under FOLDER has lost its daemon. Its RECORD is an auditor's. What
a dead one left is dropped by the next, or read again by it.
"""

from __future__ import annotations

import contextlib
import os
import random
import stat
import sys
from pathlib import Path

from casfs.control.access import StoreAccess
from casfs.control.client import NoAnswer, Unanswered
from casfs.control.messages import CreateSnapshot, DropSnapshot
from casfs.errors import CasfsError, NotMounted
from casfs.filestore.hashing import hash_bytes
from casfs.namespace.copies import Copies, open_copy
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import Store
from tests.mounted.race import is_served, number_of

KEPT = 3
"""Snapshots at a time."""


class Snapshots:
    """Makes them, reads them, drops them."""

    def __init__(self, folder: Path, record: Path, store: Path) -> None:
        self.folder = folder
        self.store = store
        self.dice = random.Random()
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._access = StoreAccess(str(store), mounted=True)
        self._read = 0

    def run(self) -> None:
        with contextlib.closing(Store(str(self.store), readonly=True)) as opened:
            snapshots = SnapshotFolder(opened.directory)
            while True:
                self._access.perform(CreateSnapshot(f"s{self.dice.randrange(10**9)}"))
                for name in snapshots.names():
                    self._look_at(opened, snapshots, name)
                    self._browse(name)
                    os.write(self._record, f"read {self._read}\n".encode())
                    self._read = 0
                while len(names := snapshots.names()) > self.dice.randrange(KEPT + 1):
                    self._access.perform(DropSnapshot(self.dice.choice(names)))

    def _look_at(self, store: Store, snapshots: SnapshotFolder, name: str) -> None:
        """Each content it refers to has its file, whole; no inode refers to another one."""
        with contextlib.closing(open_copy(snapshots.database(name))) as rows:
            known = {content.id: content for content in Copies(rows).all_contents()}
            for row in rows.inodes.all():
                if row.staged is not None or (stat.S_ISREG(row.mode) and row.size and row.blob_id is None):
                    self._bad(f"snapshot {name}: inode {row.ino} has no blob")
                if row.blob_id is not None and row.blob_id not in known:
                    self._bad(f"snapshot {name}: inode {row.ino} has blob {row.blob_id}, which is not there")
            for content in known.values():
                try:
                    fd = store.filestore.open(content.digest)
                except OSError as error:
                    self._bad(f"snapshot {name}: {content.digest.hex()}: {error}")
                    continue
                with os.fdopen(fd, "rb") as file:
                    data = file.read()
                if len(data) != content.size or hash_bytes(data) != content.digest:
                    self._bad(f"snapshot {name}: {content.digest.hex()} is another content")
                self._read += 1

    def _browse(self, name: str) -> None:
        """By its files in the mount: what has been renamed over a name is whole."""
        top = self.folder.parent / ".casfs" / "snapshots" / name / self.folder.name
        for path in top.glob("writer*/name*"):
            data = path.read_bytes()
            if number_of(data) is None:
                self._bad(f"{path} holds {len(data)} bytes that are no content: {data[:40]!r}")
            self._read += 1

    def _bad(self, what: str) -> None:
        os.write(self._record, f"bad {what}\n".encode())


def main() -> int:
    folder = Path(sys.argv[1])
    try:
        Snapshots(folder, Path(sys.argv[2]), Path(sys.argv[3])).run()
    except (OSError, NotMounted, Unanswered, NoAnswer, CasfsError):
        if is_served(folder):
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
