"""Making a backup: a snapshot of the source, brought into the destination with all that it refers to.

    source snapshot     (source.py) what it refers to stays, as long as this goes on
    database            into DEST/snapshots/.new-NAME, without what is left out. From here on the collector
                        keeps what is there of it, and so it does for LEFT_NS when this is killed: the next
                        backup goes on with what was copied
    barrier             whoever had decided before to remove something has removed it
    lacking             by a merge of both databases; is there room for it?
    send                (send.py) what could not be read is healed from the destination, if that has it
    finish              the backup has its name

Two backups into one destination, of one source or two, may do so at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from casfs.errors import CasfsError, StoreLocked
from casfs.filestore.reflink import clone_range
from casfs.maintenance.backup.access import Access
from casfs.maintenance.backup.destination import check_apart, check_room, open_destination, remember
from casfs.maintenance.backup.filters import Filter
from casfs.maintenance.backup.healing import Healing, Lost
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.backup.pace import Pace
from casfs.maintenance.backup.receiving import await_removals, counted, put_database
from casfs.maintenance.backup.send import Sender, Sent, remove_copies
from casfs.maintenance.backup.source import Source, source_of
from casfs.maintenance.collect.batch import Stopped, never
from casfs.maintenance.progress import Progress, unwatched
from casfs.namespace.copies import Content, Copies, open_copy
from casfs.namespace.leaving_out import Leaving
from casfs.namespace.namespace import Namespace
from casfs.namespace.sending import lacking
from casfs.snapshots.folder import FOLDER, NEW, Building, SnapshotFolder, name_at
from casfs.snapshots.manifest import Counts, Manifest
from casfs.store import Store, database_path, read_config

log = logging.getLogger(__name__)

LACKING_LISTED = 10_000
"""Digests in a manifest, of contents that could not be read: as many as there is room for."""

PATHS_TOLD = 1_000

ROW_BYTES = 256
"""What the rows of a blob take in the destination, at the most."""

NAMES = 100
"""So many backups of one job may be made in one second."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """`manifest`: of the backup, None when it was interrupted. `seconds` in all; `lost`: what could not be
    read, with its paths; `healed`: contents of the source that are whole again. `copied_bytes`: by this run,
    also of one that was interrupted."""

    manifest: Manifest | None
    counts: Counts | None
    seconds: float
    lost: tuple[Lost, ...] = ()
    healed: int = 0
    copied_blobs: int = 0
    copied_bytes: int = 0


def run_backup(
    store: str,
    destination: str,
    options: BackupOptions,
    *,
    access: Access,
    progress: Progress = unwatched,
    stop: Callable[[], bool] = never,
    existing: bool = False,
    new: bool = False,
) -> BackupResult:
    """Back up a store. `existing`, `new`: as `open_destination`.

    Raises CasfsError and OSError; then there is no backup, and the next run goes on with what was copied.
    """
    started_ns = time.time_ns()
    fan_out = read_config(os.path.realpath(store)).fan_out
    check_apart(store, destination)
    with contextlib.closing(
        open_destination(store, destination, fan_out, existing=existing, new=new)
    ) as target:
        progress("taking a snapshot", 0, 0)
        with source_of(store, access, f"for a backup to {target.path}"[:200]) as source:
            run = _Run(source, target, options, access, progress, stop, started_ns)
            try:
                return run.run()
            except Stopped:
                sent = run.sent
                return BackupResult(
                    None, None, run.seconds(), copied_blobs=sent.blobs, copied_bytes=sent.bytes
                )


@dataclass(slots=True)
class _Run:
    """One backup, once there is a snapshot of the source."""

    source: Source
    target: Store
    options: BackupOptions
    access: Access
    progress: Progress
    stop: Callable[[], bool]
    started_ns: int
    sent: Sent = field(default_factory=Sent)
    _since: float = field(default_factory=time.monotonic)
    _begun: bool = False

    def seconds(self) -> float:
        return time.monotonic() - self._since

    def run(self) -> BackupResult:
        folder = SnapshotFolder(self.target.directory)
        folder.remove_leftovers(time.time_ns())
        with self._building(folder) as building:
            try:
                left_out = self._put_database(building)
                size = building.database_is_whole()
            except BaseException:
                building.abandon()
                raise
            try:
                await_removals(self.target, self.access, self.stop)
                with contextlib.closing(open_copy(building.database)) as wanted:
                    wanted.read_through()
                    counts = Counts(*Copies(wanted).figures())
                    healing = self._send_all(wanted, building, folder)
            except BaseException:
                if not self._begun:  # nobody has to go on with it
                    building.abandon()
                raise
            finally:
                with contextlib.suppress(FileNotFoundError):
                    remove_copies(self.target, f"{FOLDER}/{NEW}{building.name}")
            manifest = self._manifest(building.name, folder.next_serial(), size, left_out, healing.lost)
            building.finish(manifest, counts)
        with contextlib.suppress(OSError):
            remember(self.source.directory, self.target.path)
        return BackupResult(
            manifest,
            counts,
            self.seconds(),
            tuple(healing.lost),
            healing.healed,
            self.sent.blobs,
            self.sent.bytes,
        )

    @contextlib.contextmanager
    def _building(self, folder: SnapshotFolder) -> Iterator[Building]:
        """Under the first name that is free."""
        stem = name_at((self.options.job or "backup")[:70], self.source.manifest.made_ns // 10**9)
        with contextlib.ExitStack() as stack:
            for number in range(1, NAMES + 1):
                name = stem if number == 1 else f"{stem}-{number}"
                if folder.exists(name) or name in folder.unfinished():
                    continue
                try:
                    building = stack.enter_context(folder.building(name))
                except StoreLocked:
                    continue
                except CasfsError:
                    if folder.exists(name):
                        continue
                    raise
                yield building
                return
        raise CasfsError(f"{self.target.path} has {NAMES} backups {stem} already", "try it later")

    # The database

    def _put_database(self, building: Building) -> tuple[str, ...]:
        """The names that are left out."""
        self.progress("copying names", 0, 0)
        directory = self.target.directory
        put_database(self.source.directory, self.source.database, self.target, building, self.stop)
        chosen = Filter(self.options)
        if chosen.has_all and self.options.content:
            return ()
        with contextlib.closing(Leaving(building.part)) as leaving:
            left_out = [] if chosen.has_all else leaving.leave_out(chosen_by(chosen))
            if not self.options.content:
                leaving.without_contents()
            if left_out:
                small = f"{building.part_name}.small"
                with contextlib.suppress(FileNotFoundError):
                    directory.unlink(small)
                leaving.write_to(f"{directory.path}/{small}")
        if left_out:
            directory.rename(small, building.part_name)
        return tuple(_word(name) for name in left_out)

    # The contents

    def _send_all(self, wanted: Namespace, building: Building, folder: SnapshotFolder) -> Healing:
        healing = Healing(self.source, self.target.path, wanted, self.access)
        if not self.options.content:
            return healing
        healing.heal_known(self.progress)
        with contextlib.closing(Namespace(database_path(self.target.path), readonly=True)) as there:
            there.read_through()
            files, size = self._needed(wanted, there, building.name)
            self._begun = True
            abandon_others(folder, self.source.manifest.uuid, building.name)
            self._send(lacking(wanted, there, where=self.source.directory.path), building, files, size)
            if self.sent.unreadable:
                if not self.source.is_held():
                    raise CasfsError(
                        f"the snapshot {self.source.manifest.name} that was backed up has been removed",
                        "run the backup again",
                    )
                unreadable, self.sent.unreadable = self.sent.unreadable, []
                again = healing.heal(unreadable, self.progress)
                self._send(again, building, len(again), sum(content.size for content in again))
                healing.lose(self.sent.unreadable)
        return healing

    def _needed(self, wanted: Namespace, there: Namespace, name: str) -> tuple[int, int]:
        """Contents that the destination lacks, and their bytes; there is room for them."""
        block = os.fstatvfs(self.target.directory.fd).f_frsize
        files = size = room = 0
        self.progress("comparing", 0, 0)
        for content in lacking(wanted, there, where=self.source.directory.path):
            files, size = files + 1, size + content.size
            room += -(-content.size // block) * block + ROW_BYTES
            if not files % 10_000 and self.stop():
                raise Stopped
        if not self._shares_blocks(f"{FOLDER}/{NEW}{name}"):
            check_room(self.target, room, files)
        return files, size

    def _shares_blocks(self, folder: str) -> bool:
        if os.fstat(self.source.directory.fd).st_dev != os.fstat(self.target.directory.fd).st_dev:
            return False
        try:
            fd = self.source.directory.open(self.source.database)
        except OSError:
            return False
        name = f"{folder}/{os.urandom(8).hex()}"
        try:
            target = self.target.directory.create(name, 0o600)
            try:
                clone_range(fd, target)
            finally:
                os.close(target)
                self.target.directory.unlink(name)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _send(
        self, contents: Iterator[Content] | Sequence[Content], building: Building, files: int, size: int
    ) -> None:
        self.progress("copying", 0, size)
        pace = Pace(self.options.rate, self.stop)
        sender = Sender(self.source.blobs, self.target, f"{FOLDER}/{NEW}{building.name}", pace)
        sender.watch(counted(self.progress, size))
        try:
            sender.send(contents)
        finally:
            self.sent.blobs += sender.result.blobs
            self.sent.bytes += sender.result.bytes
            self.sent.unreadable = sender.result.unreadable

    def _manifest(
        self, name: str, serial: int, size: int, left_out: tuple[str, ...], lost: Sequence[Lost]
    ) -> Manifest:
        return structs.replace(
            self.source.manifest,
            name=name,
            serial=serial,
            reason=self.options.reason,
            expires_ns=self.options.expires_ns,
            job=self.options.job,
            here=False,
            database_bytes=size,
            started_ns=self.started_ns,
            ended_ns=time.time_ns(),
            new_blobs=self.sent.blobs,
            new_bytes=self.sent.bytes,
            content=self.options.content,
            left_out=left_out[:PATHS_TOLD],
            lacking=tuple(each.digest.hex() for each in lost)[:LACKING_LISTED],
        )


def chosen_by(chosen: Filter) -> Callable[[bytes, bool], bool]:
    return lambda name, directory: chosen.has(name, directory=directory)


def _word(name: bytes) -> str:
    return os.fsdecode(name).encode(errors="replace").decode()


def abandon_others(folder: SnapshotFolder, uuid: str, name: str) -> None:
    """Remove what dead backups of a store have left: what they have copied is held by a new one."""
    for other in folder.unfinished():
        if other == name:
            continue
        with contextlib.suppress(CasfsError, OSError):
            database = folder.unfinished_database(other)
            if database is None:
                continue
            with contextlib.closing(open_copy(database.path)) as copy:
                if copy.meta("uuid") != uuid:
                    continue
            folder.abandon(other)
