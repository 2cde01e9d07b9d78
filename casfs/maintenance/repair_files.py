"""Repair of the files of a store. A file is never deleted unless it is empty: it gets its right place, a name
in lost+found, or goes to STORE/quarantine/, which casfs itself never looks into again.
"""

from __future__ import annotations

import os
import stat

from casfs.filestore.filestore import BLOB_MODE, FileStore
from casfs.filestore.hashing import hash_descriptor
from casfs.maintenance.files import PRIVATE, BlobScan, FileFault, Tell, layout_faults
from casfs.maintenance.problems import Kind
from casfs.maintenance.repair_rows import RowRepair
from casfs.maintenance.verify import MEDIUM_ERRORS, NO_FILE, READ_ONLY
from casfs.namespace.checks import Checks
from casfs.types import Digest


class Quarantine:
    """STORE/quarantine/, made when it is needed."""

    def __init__(self, root: str, filestore: FileStore) -> None:
        self.root = f"{root}/quarantine"
        self._durable = filestore.durable

    def take(self, path: str) -> str:
        """Move a file or folder in, durable, with a number behind a name that is taken. Its new path."""
        if not os.path.isdir(self.root):
            os.mkdir(self.root, 0o700)
            self._durable.fsync_path(os.path.dirname(self.root))
        name = target = f"{self.root}/{os.path.basename(path)}"
        number = 1
        while os.path.lexists(target):
            number += 1
            target = f"{name}.{number}"
        self._durable.rename(path, target)
        self._durable.fsync_path(self.root)
        return target


def repair_layout(root: str, filestore: FileStore) -> None:
    """Make missing folders and take permissions from others. Raises OSError."""
    quarantine = Quarantine(root, filestore)
    for fault in list(layout_faults(root, filestore)):
        if fault.kind is Kind.MISSING_FOLDER:
            if os.path.lexists(fault.path):
                quarantine.take(fault.path)
            os.mkdir(fault.path, 0o700)
            filestore.durable.fsync_path(os.path.dirname(fault.path))
        else:
            os.chmod(fault.path, stat.S_IMODE(os.stat(fault.path).st_mode) & ~PRIVATE)


class FileRepair:
    """One repair of blobs/, inside the write transaction of a `RowRepair`.

    What rows will refer to is put in place and made durable before that is committed (I1); what no row
    refers to any more goes afterwards (I3): `finish`.
    """

    def __init__(self, root: str, filestore: FileStore, checks: Checks, rows: RowRepair) -> None:
        self._filestore = filestore
        self._paths = filestore.paths
        self._durable = filestore.durable
        self._checks = checks
        self._rows = rows
        self._quarantine = Quarantine(root, filestore)
        self._placed: list[bytes] = []
        self._bad: list[str] = []
        self._empty: list[str] = []

    def blobs(self, corrupt: tuple[bytes, ...], tell: Tell) -> None:
        """Mend what a scan finds, and the blobs that a scrub has found to be corrupt. Raises OSError."""
        for fault in BlobScan(self._filestore, self._checks, in_use=False, tell=tell).faults():
            self._mend(fault)
        for digest in corrupt:
            path, blob = self._paths.blob(digest), self._checks.blob_id(digest)
            if blob is not None and os.path.exists(path) and self._digest_of(path) != digest:
                self._condemn(path, blob)
        for blob, (digest, _, _) in self._checks.damage().items():
            path = self._paths.blob(digest)
            if path not in self._bad and os.path.exists(path):
                if self._digest_of(path) == digest:
                    self._rows.clear_damage(blob)
                else:
                    self._condemn(path, blob)
        for blob in list(self._checks.bad_digests()):
            self._rows.repairs.delete_orphan(blob)

    def _mend(self, fault: FileFault) -> None:
        match fault:
            case FileFault(Kind.BLOB_MODE, path):
                os.chmod(path, BLOB_MODE)
            case FileFault(Kind.BLOB_SIZE, path, _, digest, int(blob)):
                if self._digest_of(path) == digest:
                    self._rows.repairs.set_blob_size(blob, os.stat(path).st_size)
                else:
                    self._condemn(path, blob)
            case FileFault(Kind.MISSING_BLOB, _, _, _, int(blob)):
                self._rows.repairs.delete_orphan(blob)
            case FileFault(Kind.STRAY_BLOB, path, _, bytes(digest)):
                self._adopt(path, digest)
            case FileFault(Kind.MISPLACED_BLOB, path, _, bytes(digest)):
                self._place(path, digest)
            case _:
                self._bad.append(fault.path)

    def _condemn(self, path: str, blob: int) -> None:
        """A blob file with the wrong bytes. Its row stays while somebody refers to it. Raises OSError."""
        if self._rows.repairs.delete_orphan(blob):
            self._bad.append(path)
            return
        # Not after COMMIT: a heal may have put a whole file there by then, and a crash would leave bad bytes
        # to be read. What ends here leaves a missing blob, which the next repair finds.
        self._quarantine.take(path)
        self._durable.fsync_path(os.path.dirname(path))
        self._rows.note_damage(blob, "its bytes are not what its name says")

    def _adopt(self, path: str, digest: bytes) -> None:
        status = os.stat(path)
        if not status.st_size:
            self._empty.append(path)
        elif self._checks.blob_id(digest) is None:
            if self._digest_of(path) != digest:
                self._bad.append(path)
                return
            os.chmod(path, BLOB_MODE)
            self._rows.adopt(digest, status.st_size, status.st_mtime_ns)
            self._placed.append(digest)

    def _place(self, path: str, digest: bytes) -> None:
        """A blob in the wrong shard: since it is whole it may take the place of what is in the right one."""
        if self._digest_of(path) != digest:
            self._bad.append(path)
            return
        target = self._paths.blob(digest)
        os.chmod(path, BLOB_MODE)
        self._durable.rename(path, target)
        self._placed.append(digest)
        self._adopt(target, digest)

    def _digest_of(self, path: str) -> Digest | None:
        """None when it is no file, or the disk cannot read it. Raises OSError for what is not its fault."""
        try:
            fd = os.open(path, READ_ONLY)
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
        for path in self._bad:
            self._quarantine.take(path)
        for path in self._empty:
            self._durable.unlink(path)
