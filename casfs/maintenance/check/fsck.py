"""Checking a store, and repairing it.

`check` changes nothing. While nobody uses the store it keeps others from using it, and sees everything. A
store in use is read as its last commit left it, and what cannot be judged soundly then is left out and said
to be (`Report.unchecked`). What a crash may leave is legal: unlinked inodes, staged files that a row names,
and garbage.

`repair` never deletes the only copy of a content. Its changes of rows are one durable transaction; then it
does what every start does (fs/recovery.py), and checks again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from casfs.errors import StoreLocked
from casfs.filestore.locks import make_run_folder
from casfs.maintenance import offline
from casfs.maintenance.check.derived import check_derived, mend_derived, mend_rows
from casfs.maintenance.check.digests import check_digests, digest_checks, mend_digests, sample
from casfs.maintenance.check.files import BlobScan, layout_faults, run_faults, staged_faults
from casfs.maintenance.check.problems import PATHS, Findings, Kind, Problem, Report
from casfs.maintenance.check.properties import check_properties, mend_properties
from casfs.maintenance.check.repair_files import FileRepair, repair_layout
from casfs.maintenance.check.repair_rows import RowRepair
from casfs.maintenance.check.repositories import check_repositories, mend_repositories
from casfs.maintenance.check.rows import check_locks, check_rows
from casfs.maintenance.check.snapshots import check_snapshots, folder_faults, mend_held
from casfs.maintenance.collect.batch import transaction
from casfs.maintenance.progress import Progress, unwatched
from casfs.maintenance.scrub.scrub import scrub_lock
from casfs.maintenance.scrub.verify import Bad, Batch, Verifier
from casfs.namespace.checks import Affected, Checks
from casfs.namespace.connection import DatabaseError
from casfs.namespace.damage import BlobToRead
from casfs.namespace.derived_checks import DerivedRepairs
from casfs.namespace.digests import DigestRow
from casfs.namespace.repairs import Repairs
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.holding import Holds
from casfs.store import Store, collector_lock, store_lock
from casfs.types import DIGEST_SIZE

__all__ = ["Problem", "Report", "check", "repair"]

_IN_USE = (
    "files in staging/ that no inode names, and the length of the others: programs write them",
    "blob files without a row that are younger than an hour: the next commit may want them",
    "what was done since the last commit",
)


def check(
    path: str, deep: bool = False, progress: Progress = unwatched, *, exclusive: bool = False
) -> Report:
    """Compare rows and files with each other; `deep`: and every blob with its digests.

    `exclusive`: nobody else may use the store, since it shall be repaired. `progress` may be called by
    several threads. Raises StoreNotFound, FormatError, FormatTooNew, StoreLocked (exclusive), OSError.
    """
    store = Store(path, readonly=True)
    findings = Findings()
    try:
        if exclusive:
            make_run_folder(store.directory)
        with _alone(store) as in_use:
            if in_use is not None and exclusive:
                raise _locked(store, in_use)
            if in_use is not None:
                findings.unchecked += _IN_USE
            _check_layout(store, findings)
            _check_database(store, findings, deep=deep, in_use=in_use is not None, progress=progress)
        return findings.report(store.path, deep=deep, in_use=in_use)
    finally:
        store.close()


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[str | None]:
    """Hold the store's lock, and the collector's. Gives None, or who has one, when it is not to be had."""
    holder = None
    with contextlib.ExitStack() as held:
        for lock in (store_lock(store.path), collector_lock(store.path)):
            held.callback(lock.release)
            try:
                holder = holder or (None if lock.acquire() else lock.holder())
            except OSError as error:
                holder = f"nobody who is known: its lock in run/ cannot be taken ({error.strerror})"
            if holder is not None:
                break
        yield holder


def _locked(store: Store, holder: str) -> StoreLocked:
    return StoreLocked(
        f"{store.path} is in use by {holder}",
        hint="unmount it first (casfs umount MOUNTPOINT): a store in use is checked, but not repaired",
    )


def _check_layout(store: Store, findings: Findings) -> None:
    for fault in (
        *layout_faults(store.filestore),
        *run_faults(store.directory),
        *folder_faults(store.directory),
    ):
        findings.add(fault.kind, f"{_shown(fault.name)} {fault.detail}")


def _check_database(
    store: Store, findings: Findings, *, deep: bool, in_use: bool, progress: Progress
) -> None:
    checks = Checks(store.namespace)
    progress("checking the database", 0, 1)
    try:
        with checks.snapshot():
            damage = checks.integrity(deep=deep)
            for line in damage:
                findings.add(Kind.DATABASE, line)
            if not damage:
                progress("checking rows", 0, 1)
                check_rows(checks, findings)
                check_locks(store.namespace.locked, findings)
                check_properties(store.namespace, checks, findings)
                check_repositories(store.namespace, checks, findings)
                check_derived(store.namespace, checks, findings)
                check_digests(store.namespace, checks, findings)
        if not damage:
            check_snapshots(store, findings, deep=deep)
            _check_files(store, checks, findings, deep=deep, in_use=in_use, progress=progress)
    except DatabaseError as error:
        damage = [str(error)]
        findings.add(Kind.DATABASE, error.strerror or str(error))
    if damage:
        findings.unchecked.append("what the database says: it is damaged itself")


def _check_files(
    store: Store, checks: Checks, findings: Findings, *, deep: bool, in_use: bool, progress: Progress
) -> None:
    reported: set[bytes] = set()
    known = checks.damage()
    healed = {blob: digest for blob, (digest, _, _) in known.items() if len(digest) == DIGEST_SIZE}
    for fault in BlobScan(store.filestore, checks, in_use=in_use, progress=progress).faults():
        detail = f"{_shown(fault.name)} {fault.detail}"
        if fault.blob is not None and fault.kind is not Kind.BLOB_MODE and fault.blob in healed:
            del healed[fault.blob]
            detail += _known_since(known[fault.blob][1])
        findings.add(fault.kind, detail, _paths_of_blob, checks, fault.blob)
        if fault.kind is Kind.BLOB_SIZE and fault.digest is not None:
            reported.add(fault.digest)
    for fault, ino in staged_faults(store.filestore, checks, in_use=in_use):
        detail = f"{_shown(fault.name)} {fault.detail}"
        findings.add(fault.kind, detail, _paths_of_inode, checks, ino)
    if not in_use and (unlinked := checks.unlinked()):
        findings.add(Kind.UNLINKED, f"{unlinked} inodes were unlinked and open, and wait for their removal")
    for bad in _bad_blobs(store, checks, findings, progress, deep=deep):
        if bad.kind is Kind.MISSING_BLOB or bad.blob.digest in reported:
            continue  # that is told of already
        findings.corrupt.append(bad.blob.digest)
        detail = f"{store.filestore.blobs.name(bad.blob.digest)}: {bad.reason}"
        if bad.blob.id in healed:
            del healed[bad.blob.id]
            detail += _known_since(known[bad.blob.id][1])
        findings.add(Kind.CORRUPT_BLOB, detail, _paths_of_blob, checks, bad.blob.id)
    for blob, digest in healed.items():
        if store.filestore.blobs.size(digest) is not None:
            name = store.filestore.blobs.name(digest)
            detail = f"{name} is there again, noted as damaged: {known[blob][2]}"
            findings.add(Kind.HEALED_DAMAGE, detail, _paths_of_blob, checks, blob)


def _known_since(found_ns: int) -> str:
    return f", known since {time.strftime('%Y-%m-%d', time.gmtime(found_ns // 10**9))}"


def _bad_blobs(
    store: Store, checks: Checks, findings: Findings, progress: Progress, *, deep: bool
) -> Iterator[Bad]:
    """Compare each with its digest, shard by shard, and with further ones; or else a sample of those that
    have further ones. A repair may follow only when all are read."""
    some = [] if deep else sample(store.namespace)
    total = checks.blob_bytes() if deep else sum(blob.size for blob in some)
    done = 0
    lock = threading.Lock()
    rows = digest_checks(store.namespace)
    wrong: list[tuple[BlobToRead, dict[str, bytes]]] = []

    def read(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress("reading blobs", done, total)

    def shards() -> Iterator[Batch]:
        for prefix in store.filestore.blobs.prefixes():
            shard = checks.shard(prefix).items()
            yield [BlobToRead(blob, digest, size, rows.sound(blob)) for digest, (blob, size) in shard]

    batches = shards() if deep else iter([some])
    verifier = Verifier(store.filestore.blobs, read, wrong=lambda *found: wrong.append(found))
    for _, found in verifier.verified(batches):
        yield from found
    for blob, right in wrong:
        for algorithm, value in right.items():
            findings.digests.append(DigestRow(blob.id, algorithm, value))
            detail = (
                f"the {algorithm} of blob {blob.digest.hex()} is {value.hex()}, which its row does not say"
            )
            findings.add(Kind.WRONG_FURTHER_DIGEST, detail, _paths_of_blob, checks, blob.id)


def _paths_of_blob(checks: Checks, blob: int | None) -> Affected:
    return Affected() if blob is None else checks.paths_of_blob(blob, PATHS)


def _paths_of_inode(checks: Checks, ino: int | None) -> Affected:
    return Affected() if ino is None else checks.paths_of_inode(ino, PATHS)


def _shown(name: str) -> str:
    return name if name != "." else "the store"


def repair(path: str, report: Report, progress: Progress = unwatched) -> Report:
    """Mend what can be mended, whatever `report` has listed; it only tells which blobs are corrupt, and which
    further digests are wrong.

    Gives what is left: blobs whose content is nowhere stay in their rows, so that their names are known and
    the same content heals them when it is written again. Raises StoreLocked, OSError; rows are then as
    they were before.
    """
    store = Store(path)
    lock = None
    try:
        lock = scrub_lock(store)  # which puts files into quarantine too
        repair_layout(store.filestore)
        whole = _mend_database(store)
        if whole:
            _mend(store, report, progress)
    finally:
        if lock is not None:
            lock.release()
        store.close()
    if whole:
        with offline.opened(path):
            progress("what every start does", 1, 1)
    return check(path, progress=progress, exclusive=True)


def _mend_database(store: Store) -> bool:
    """Rebuild the indexes if anything is wrong with the database, and remove rows that are none where they
    can be made anew; is it whole then?"""
    checks = Checks(store.namespace)
    try:
        if not checks.integrity(deep=True):
            return True
        with transaction(store):
            Repairs(store.namespace).reindex()
            DerivedRepairs(store.namespace).remove_no_rows()
            digest_checks(store.namespace).remove_bad()
        return not checks.integrity(deep=True)
    except DatabaseError:
        return False


def _mend(store: Store, report: Report, progress: Progress) -> None:
    checks, holds = Checks(store.namespace), Holds(store.directory)
    with contextlib.closing(holds), transaction(store):
        progress("repairing rows", 0, 1)
        mend_rows(store.namespace)
        rows = RowRepair(store.namespace, checks)
        rows.structure()
        mend_held(store)
        files = FileRepair(store.filestore, checks, rows, holds)
        files.blobs(report.corrupt, progress)
        rows.count()
        mend_repositories(store.namespace)
        if mend_derived(store.namespace):
            rows.count()
        mend_digests(store.namespace, report.digests)
        mend_properties(store.namespace)
        files.sync()
    files.finish()
    SnapshotFolder(store.directory).remove_leftovers(time.time_ns())
