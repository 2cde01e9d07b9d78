"""Making a store of the copy that some tool has made of a store's directory (casfs open-copy).

A copy that was made while a snapshot was there has that snapshot whole, however long it took: files of
snapshots/ never change, and blobs/ has what they refer to. The live database of such a copy is of no one
moment. Where the copy was atomic, as one by the file system is, the live database is what a power cut leaves.
Which of both it was the copy does not say; what it lacks can be seen.

The database of a copy is looked at in another place, to which it is copied with its log: SQLite would write
to it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from casfs.errors import CasfsError, FormatError, StoreLocked, StoreNotFound
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.filestore import FileStore, copy_range
from casfs.filestore.local import BLOB_MODE
from casfs.filestore.locks import FOLDER as RUN
from casfs.filestore.locks import NAMES as LOCKS
from casfs.filestore.locks import Lock, make_run_folder
from casfs.maintenance.check.files import BlobScan, staged_faults
from casfs.maintenance.check.problems import Findings, Kind
from casfs.maintenance.check.repair_files import repair_layout
from casfs.maintenance.check.rows import check_rows
from casfs.maintenance.progress import Progress, unwatched
from casfs.namespace.checks import Checks
from casfs.namespace.connection import DatabaseError
from casfs.namespace.copies import Copies, open_copy
from casfs.namespace.namespace import Namespace
from casfs.namespace.sending import Sending
from casfs.snapshots.folder import FOLDER as SNAPSHOTS
from casfs.snapshots.folder import MANIFEST, SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.store import (
    CONFIG,
    DATABASE,
    StoreConfig,
    check_database,
    collector_lock,
    database_path,
    read_config,
    store_lock,
)

LISTED = 100
"""Paths that are named of what is missing; the rest are counted."""

PATHS_OF_ONE = 20

HELD = "hold-"
"""Names of the snapshots of `casfs hold` begin so (cli/hold.py)."""

ASIDE = f"{DATABASE}.copied"
"""Where the live database goes when that of a snapshot takes its place."""

_NEW = f"{DATABASE}.new"

_LACKS = (Kind.MISSING_BLOB, Kind.BLOB_SIZE)


@dataclass(slots=True)
class Candidate:
    """A database that a store can be made of. `snapshot`: the one whose it is; None: the live one.

    `made_ns`: the moment that a snapshot shows. `why`: why it cannot be used at all. `faults`: what is wrong
    with its rows, the first lines. `missing`: contents that are not there, or not whole, and of what paths
    they are, the first LISTED.
    """

    snapshot: str | None
    made_ns: int = 0
    why: str = ""
    faults: list[str] = field(default_factory=list)
    missing: int = 0
    paths: list[bytes] = field(default_factory=list)
    paths_total: int = 0
    damaged: list[tuple[int, str]] = field(default_factory=list)
    open_to_all: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.why and not self.faults and not self.missing


@dataclass(frozen=True, slots=True)
class Opened:
    """What was made of a copy, or would be. `taken`: of `candidates`. `aside`: where the live database went,
    "" when it stays. `done`: False after a dry run."""

    store: str
    taken: Candidate
    candidates: tuple[Candidate, ...]
    aside: str
    done: bool


def open_copied(
    path: str,
    *,
    snapshot: str | None = None,
    live: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = unwatched,
) -> Opened:
    """Make a store of the directory at `path`, of a snapshot of that name or of the live database; without
    either of the newest snapshot that is whole, or else of the live database. `force`: also of one that lacks
    contents, or whose rows have faults.

    Raises StoreNotFound, FormatError, FormatTooNew for what is no copy of a store, StoreLocked for one that
    is in use, CasfsError when there is a choice to be made, or nothing whole; nothing is changed then.
    """
    path = os.path.realpath(path)
    config = _read_config(path)
    with contextlib.closing(StoreDirectory(path)) as directory:
        for lock in _locks(path):
            if holder := lock.held_by():
                raise StoreLocked(f"{path} is in use by {holder}", "it is a store, not the copy of one")
        copy = _Copy(directory, FileStore(directory, config.fan_out), progress)
        candidates = copy.candidates(None if live else snapshot, live=live)
        taken = _choose(candidates, asked=snapshot is not None or live)
        if not dry_run and not live and snapshot is None:
            _check_choice(path, candidates, taken)
        if not taken.is_whole and not (force and not taken.why):
            raise CasfsError(_complaint(path, taken), _advice(candidates, taken))
        aside = "" if taken.snapshot is None else copy.free_name()
        if not dry_run:
            _renew_run(directory)
            with _alone(path):
                copy.use(taken, aside)
        return Opened(path, taken, tuple(candidates), aside, not dry_run)


def _read_config(path: str) -> StoreConfig:
    try:
        return read_config(path)
    except StoreNotFound:
        if os.path.isdir(path) and os.path.lexists(database_path(path)):
            raise FormatError(
                f"{path} has no {CONFIG}", f"copy that of the store to {path}/{CONFIG}, then try again"
            ) from None
        raise


def _locks(path: str) -> tuple[Lock, Lock]:
    return store_lock(path), collector_lock(path)


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Nobody else uses it. Raises StoreLocked."""
    with contextlib.ExitStack() as held:
        for lock in _locks(path):
            held.callback(lock.release)
            if not lock.acquire():
                raise StoreLocked(f"{path} is in use by {lock.holder()}", "wait for it")
        yield


def _renew_run(directory: StoreDirectory) -> None:
    """Nothing of the processes that had the store is left in run/."""
    make_run_folder(directory)
    for name, status in list(directory.entries(RUN)):
        own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and name in LOCKS
        if not own and not stat.S_ISDIR(status.st_mode):
            directory.unlink(f"{RUN}/{name}")


def _choose(candidates: list[Candidate], *, asked: bool) -> Candidate:
    """What was asked for, or the newest snapshot that is whole, or the live database."""
    if asked:
        return candidates[0]
    whole = (each for each in candidates if each.is_whole and each.snapshot is not None)
    return next(whole, candidates[-1])


def _check_choice(path: str, candidates: list[Candidate], taken: Candidate) -> None:
    """A snapshot that was not made for the copy may be older than what a copy of one moment has. Raises
    CasfsError."""
    if taken.snapshot is None or taken.snapshot.startswith(HELD) or not candidates[-1].is_whole:
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(taken.made_ns // 10**9))
    raise CasfsError(
        f"{path} has the snapshot {taken.snapshot} of {when}, and a newer database that looks whole",
        f"--live if the copy was made at one moment, else --snapshot {taken.snapshot}",
    )


def _complaint(path: str, taken: Candidate) -> str:
    what = "the live database" if taken.snapshot is None else f"snapshot {taken.snapshot}"
    if taken.why:
        return f"{path}: {what} cannot be used: {taken.why}"
    if taken.missing:
        first = os.fsdecode(taken.paths[0]) if taken.paths else "files that have no path"
        more = f" and {taken.paths_total - 1} more" if taken.paths_total > 1 else ""
        return f"{path}: {what} lacks {taken.missing} contents, of {first}{more}"
    return f"{path}: {what} has faults: {taken.faults[0]}"


def _advice(candidates: list[Candidate], taken: Candidate) -> str:
    whole = next((each for each in candidates if each.is_whole and each is not taken), None)
    if whole is not None:
        return f"--snapshot {whole.snapshot} is whole" if whole.snapshot else "--live is whole"
    return "" if taken.why else "--dry-run names all; --force opens what is there"


class _Copy:
    """The directory of a copy, which nobody uses."""

    def __init__(self, directory: StoreDirectory, filestore: FileStore, progress: Progress) -> None:
        self._directory = directory
        self._filestore = filestore
        self._snapshots = SnapshotFolder(directory)
        self._progress = progress

    # Looking

    def candidates(self, snapshot: str | None, *, live: bool) -> list[Candidate]:
        """The snapshots, newest first, up to one that is whole, and the live database; or what is asked for
        alone. Raises CasfsError for a snapshot that is not there."""
        if live:
            return [self._live()]
        if snapshot is not None:
            return [self._of_snapshot(self._snapshots.find(snapshot))]
        found: list[Candidate] = []
        for manifest in reversed(self._snapshots.all()):
            found.append(self._of_snapshot(manifest))
            if found[-1].is_whole:
                break
        return [*found, self._live()]

    def _of_snapshot(self, manifest: Manifest) -> Candidate:
        candidate = Candidate(manifest.name, manifest.made_ns)
        if not manifest.content:
            candidate.why = "it has no contents"
            return candidate
        try:
            with contextlib.closing(open_copy(self._snapshots.database(manifest.name))) as namespace:
                self._look(candidate, namespace)
        except (CasfsError, DatabaseError) as error:
            candidate.why = _said(error)
        return candidate

    def _live(self) -> Candidate:
        candidate = Candidate(None)
        try:
            check_database(self._directory)
            with self._scratch() as scratch, contextlib.closing(Namespace(scratch)) as namespace:
                self._look(candidate, namespace)
        except FileNotFoundError:
            candidate.why = f"there is no {DATABASE}"
        except (CasfsError, DatabaseError) as error:
            candidate.why = _said(error).replace(tempfile.gettempdir(), "…")
        return candidate

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[str]:
        """A copy of the live database elsewhere."""
        with tempfile.TemporaryDirectory(prefix="casfs-open-copy-") as folder:
            for end in ("", "-wal"):
                with contextlib.suppress(*([FileNotFoundError] if end else [])):
                    source = self._directory.open(DATABASE + end)
                    try:
                        _copy_file(source, f"{folder}/{DATABASE}{end}")
                    finally:
                        os.close(source)
            yield f"{folder}/{DATABASE}"

    def _look(self, candidate: Candidate, namespace: Namespace) -> None:
        checks = Checks(namespace)
        with checks.snapshot():
            candidate.faults += checks.integrity(deep=False)
            if candidate.faults:
                return
            findings = Findings()
            check_rows(checks, findings)
            problems = findings.report(self._directory.path, deep=False, in_use=None).problems
            candidate.faults += [each.detail for each in problems if each.severity == "error"]
        for fault in BlobScan(self._filestore, checks, in_use=False, progress=self._progress).faults():
            if fault.kind in _LACKS and fault.blob is not None:
                self._lacks(candidate, *checks.paths_of_blob(fault.blob, PATHS_OF_ONE))
                candidate.damaged.append((fault.blob, fault.detail))
            elif fault.kind is Kind.BLOB_MODE:
                candidate.open_to_all.append(fault.name)
        for fault, ino in staged_faults(self._filestore, checks, in_use=False):
            if fault.kind in (Kind.MISSING_STAGED, Kind.SHORT_STAGED) and ino is not None:
                self._lacks(candidate, *checks.paths_of_inode(ino, PATHS_OF_ONE))

    @staticmethod
    def _lacks(candidate: Candidate, paths: tuple[bytes, ...], total: int) -> None:
        if not total:
            return  # an orphan
        candidate.missing += 1
        candidate.paths_total += total
        candidate.paths += paths[: LISTED - len(candidate.paths)]

    # Using

    def free_name(self) -> str:
        """Where the live database goes."""
        name, number = ASIDE, 1
        while self._directory.exists(name) or self._directory.exists(f"{name}-wal"):
            number += 1
            name = f"{ASIDE}.{number}"
        return name

    def use(self, taken: Candidate, aside: str) -> None:
        """Durable. Cut off in between it can be done again."""
        for name in taken.open_to_all:
            self._directory.set_mode(name, BLOB_MODE)
        with contextlib.suppress(FileNotFoundError):
            self._directory.unlink(f"{DATABASE}-shm")
        if taken.snapshot is not None:
            self._put_in_place(taken.snapshot, aside)
        repair_layout(self._filestore)
        now_ns = time.time_ns()
        with contextlib.closing(Namespace(database_path(self._directory.path))) as namespace:
            if not namespace.try_begin():
                raise StoreLocked(f"{self._directory.path} is in use", "wait for it")
            namespace.forget_end()
            for blob, detail in taken.damaged:
                namespace.damage.note(blob, detail, now_ns)
            self._keep_others(Sending(namespace), taken.snapshot, now_ns)
            namespace.commit()
            namespace.sync_log()
        self._directory.sync(".")

    def _put_in_place(self, snapshot: str, aside: str) -> None:
        self._snapshots.database(snapshot)
        with contextlib.suppress(FileNotFoundError):
            self._directory.unlink(_NEW)
        source = self._directory.open(f"{SNAPSHOTS}/{snapshot}/{DATABASE}")
        try:
            target = self._directory.create(_NEW, 0o600)
            try:
                copy_range(source, target, os.fstat(source).st_size)
                self._directory.durable.fdatasync(target)
            finally:
                os.close(target)
        finally:
            os.close(source)
        for end in ("-wal", ""):  # the log first: a database without its own is worse than none
            with contextlib.suppress(FileNotFoundError):
                self._directory.rename(DATABASE + end, aside + end)
        self._directory.sync(".")
        self._directory.rename(_NEW, DATABASE)
        self._directory.sync(".")

    def _keep_others(self, rows: Sending, snapshot: str | None, now_ns: int) -> None:
        """What other snapshots refer to gets rows, so that it is known; their numbers of blobs are none of
        this database, which gives those of the newer ones away again. A live database, too, may be older
        than they are: it is copied first."""
        for manifest in self._snapshots.all():
            if manifest.name == snapshot:
                continue
            with contextlib.suppress(CasfsError, DatabaseError):
                self._keep(rows, self._snapshots.database(manifest.name), now_ns)
            if manifest.here:
                self._write_manifest(msgspec.structs.replace(manifest, here=False))

    def _keep(self, rows: Sending, database: str, now_ns: int) -> None:
        with contextlib.closing(open_copy(database)) as namespace:
            for content in Copies(namespace).all_contents():
                known = rows.known([content.digest])  # first: most are, and files take longer
                if not known and self._filestore.blobs.size(content.digest) is not None:
                    rows.add_orphans([content], now_ns)

    def _write_manifest(self, manifest: Manifest) -> None:
        name = f"{SNAPSHOTS}/{manifest.name}/{MANIFEST}"
        with contextlib.suppress(FileNotFoundError):
            self._directory.unlink(f"{name}.new")
        fd = self._directory.create(f"{name}.new", 0o600)
        try:
            self._directory.durable.write_whole(fd, msgspec.json.encode(manifest))
            self._directory.durable.fdatasync(fd)
        finally:
            os.close(fd)
        self._directory.rename(f"{name}.new", name)


def _copy_file(source: int, target: str) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while os.sendfile(fd, source, None, 1 << 30):
            continue
    finally:
        os.close(fd)


def _said(error: CasfsError | DatabaseError) -> str:
    return error.message if isinstance(error, CasfsError) else error.strerror or str(error)
