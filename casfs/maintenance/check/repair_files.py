"""Repair of the files of a store. A file is never deleted unless it is empty: it gets its right place, a name
in lost+found, or goes to STORE/quarantine/, which casfs itself never looks into again.
"""

from __future__ import annotations

import os
import stat

from casfs.errors import FormatError
from casfs.filestore.directory import StoreDirectory, folder_of
from casfs.filestore.filestore import FileStore, copy_range
from casfs.filestore.hashing import hash_descriptor
from casfs.filestore.local import BLOB_MODE
from casfs.maintenance.check.files import PRIVATE, BlobScan, FileFault, foreign_folders, layout_faults
from casfs.maintenance.check.problems import Kind
from casfs.maintenance.check.repair_rows import RowRepair
from casfs.maintenance.check.snapshots import folder_faults
from casfs.maintenance.progress import Progress
from casfs.maintenance.scrub.verify import MEDIUM_ERRORS, NO_FILE
from casfs.namespace.checks import Checks
from casfs.snapshots.holding import Holds
from casfs.types import Digest

QUARANTINE = "quarantine"


class Quarantine:
    """STORE/quarantine/, made when it is needed."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._directory = directory

    def take(self, name: str) -> str:
        """Move a file or folder in, durable, with a number behind a name that is taken. Names are below
        STORE; gives the new one."""
        if not self._directory.exists(QUARANTINE):
            self._directory.make_folder(QUARANTINE)
            self._directory.sync(".")
        elif not self._directory.is_folder(QUARANTINE):
            raise FormatError(f"{self._directory.path}/{QUARANTINE} is no directory", hint="move it away")
        free = target = f"{QUARANTINE}/{os.path.basename(name)}"
        number = 1
        while self._directory.exists(target):
            number += 1
            target = f"{free}.{number}"
        self._directory.rename(name, target)
        self._directory.sync(QUARANTINE)
        return target


def repair_layout(filestore: FileStore) -> None:
    """Make missing folders and take permissions from others. Raises OSError."""
    directory = filestore.directory
    quarantine = Quarantine(directory)
    for fault in [*layout_faults(filestore), *folder_faults(directory)]:
        if fault.kind is Kind.FOREIGN_FILE:
            quarantine.take(fault.name)
        elif fault.kind is Kind.LEFT_SNAPSHOT:
            continue  # SnapshotFolder.remove_leftovers
        elif fault.kind is Kind.MISSING_FOLDER:
            if directory.exists(fault.name):
                quarantine.take(fault.name)
            directory.make_folder(fault.name)
            directory.sync(folder_of(fault.name))
        else:
            mode = directory.status(fault.name).st_mode
            directory.set_mode(fault.name, stat.S_IMODE(mode) & ~PRIVATE)
    for name in foreign_folders(filestore.staging):
        quarantine.take(name)


class FileRepair:
    """One repair of blobs/, inside the write transaction of a `RowRepair`.

    What rows will refer to is put in place and made durable before that is committed (I1); what no row
    refers to any more goes afterwards (I3): `finish`.
    """

    def __init__(self, filestore: FileStore, checks: Checks, rows: RowRepair, holds: Holds) -> None:
        self._filestore = filestore
        self._blobs = filestore.blobs
        self._directory = filestore.directory
        self._checks = checks
        self._rows = rows
        self._holds = holds
        self._quarantine = Quarantine(filestore.directory)
        self._placed: list[bytes] = []
        self._bad: list[str] = []
        self._empty: list[str] = []

    def blobs(self, corrupt: tuple[bytes, ...], progress: Progress) -> None:
        """Mend what a scan finds, and the blobs that a scrub has found to be corrupt. Raises OSError."""
        for fault in BlobScan(self._filestore, self._checks, in_use=False, progress=progress).faults():
            self._mend(fault)
        for digest in corrupt:
            name, blob = self._blobs.name(digest), self._checks.blob_id(digest)
            if blob is not None and self._is_left(name) and self._digest_of(name) != digest:
                self._condemn(name, blob)
        for blob, (digest, _, _) in self._checks.damage().items():
            name = self._blobs.name(digest)
            if self._is_left(name):
                if self._digest_of(name) == digest:
                    self._rows.clear_damage(blob)
                else:
                    self._condemn(name, blob)
        for blob in list(self._checks.bad_digests()):
            self._rows.repairs.delete_orphan(blob)

    def _mend(self, fault: FileFault) -> None:
        match fault:
            case FileFault(Kind.BLOB_MODE, name):
                self._make_private(name)
            case FileFault(Kind.BLOB_SIZE, name, _, digest, int(blob)):
                if self._digest_of(name) == digest:
                    self._rows.repairs.set_blob_size(blob, self._directory.status(name).st_size)
                else:
                    self._condemn(name, blob)
            case FileFault(Kind.MISSING_BLOB, _, _, _, int(blob)):
                self._delete_orphan(blob)
            case FileFault(Kind.STRAY_BLOB, name, _, bytes(digest)):
                self._adopt(name, digest)
            case FileFault(Kind.MISPLACED_BLOB, name, _, bytes(digest)):
                self._place(name, digest)
            case _:
                self._bad.append(fault.name)

    def _is_left(self, name: str) -> bool:
        """Is there something that is not going to be quarantined anyway?"""
        return name not in self._bad and self._directory.exists(name)

    def _condemn(self, name: str, blob: int) -> None:
        """A blob file with the wrong bytes. Its row stays while somebody refers to it. Raises OSError."""
        if self._delete_orphan(blob):
            self._bad.append(name)
            return
        # Not after COMMIT: a heal may have put a whole file there by then, and a crash would leave bad bytes
        # to be read. What ends here leaves a missing blob, which the next repair finds.
        self._quarantine.take(name)
        self._directory.sync(folder_of(name))
        self._rows.note_damage(blob, "its bytes are not what its name says")

    def _delete_orphan(self, blob: int) -> bool:
        """The row of one that no file refers to goes; not while a snapshot does: it may be healed."""
        return not self._is_held(blob) and self._rows.repairs.delete_orphan(blob)

    def _is_held(self, blob: int) -> bool:
        digest = self._checks.digest(blob)
        try:
            return digest is not None and bool(self._holds.held([digest]))
        except (FormatError, OSError):
            return True  # a snapshot that cannot be asked

    def _adopt(self, name: str, digest: bytes) -> None:
        status = self._directory.status(name)
        if not status.st_size:
            self._empty.append(name)
        elif self._checks.blob_id(digest) is None:
            if self._digest_of(name) != digest:
                self._bad.append(name)
                return
            self._make_private(name)
            self._rows.adopt(digest, status.st_size, status.st_mtime_ns)
            self._placed.append(digest)

    def _place(self, name: str, digest: bytes) -> None:
        """A blob in the wrong shard: since it is whole it may take the place of what is in the right one."""
        if self._digest_of(name) != digest:
            self._bad.append(name)
            return
        target = self._blobs.name(digest)
        self._make_private(name)
        self._directory.rename(name, target)
        self._placed.append(digest)
        self._adopt(target, digest)

    def _make_private(self, name: str) -> None:
        """Give the file of a blob its mode: a copy of it, if it has a name elsewhere, whose file is not
        changed. Raises OSError."""
        fd = self._directory.open(name)
        try:
            if os.fstat(fd).st_nlink == 1:
                os.fchmod(fd, BLOB_MODE)
                return
            staged = self._filestore.staging.create()
            try:
                copy_range(fd, staged.fd, os.fstat(fd).st_size)
                os.fchmod(staged.fd, BLOB_MODE)
                self._filestore.durable.fdatasync(staged.fd)
                self._directory.rename(staged.path, name)
            finally:
                os.close(staged.fd)
            self._directory.sync(folder_of(name))
        finally:
            os.close(fd)

    def _digest_of(self, name: str) -> Digest | None:
        """None when it is no file, or the disk cannot read it. Raises OSError for what is not its fault."""
        try:
            fd = self._directory.open(name)
            try:
                return hash_descriptor(fd, os.fstat(fd).st_size)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in MEDIUM_ERRORS | NO_FILE:
                raise
            return None

    def sync(self) -> None:
        """Before COMMIT. Raises OSError."""
        if self._placed:
            self._filestore.sync_all()

    def finish(self) -> None:
        """After COMMIT. Raises OSError."""
        for name in self._bad:
            self._quarantine.take(name)
        for name in self._empty:
            self._directory.unlink(name)
