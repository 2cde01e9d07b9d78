"""Ordered group commit, as a journaling file system does it.

Operations apply their rows to the one open transaction and return. It commits when its first operation is
`interval` old, when somebody waits for it (fsync, unmount), or when it has grown long. The order keeps I1:

    1  the blobs published in the group are made durable, in a thread; operations go on. Most are small
       and only accepted so far (filestore/pending.py): their files are written now, except those of
       new blobs that no inode refers to any more, which go with their rows. So are the staged files that
       rows of the group name (settling.py)
    2  the gate closes for publishing; blobs that came meanwhile, mostly none, are written and made durable.
       Small files that are closed from 1 on are left to the next group, as long as nothing comes that
       may not be seen without them: Settling.begin_in_order
    3  rows in memory are written, room in the log is allocated, COMMIT: into the page cache, short
    4  fdatasync of the log, in a thread; the next group may begin meanwhile
    5  files that a committed row named until now are removed

A failure in 1-3 leaves the transaction open: nothing is lost, those who wait get the errno, the next
round tries again. So does a file that finds no room: its blob is still in memory; and a COMMIT that finds
none, which SQLite rolls back (namespace/redo.py). After a failure that cannot be tried again (a file that the
disk refuses for another reason; a sync that failed: the kernel may have dropped the pages; a COMMIT that was
rolled back and cannot be repeated) the file system only reads, and says so. So it does after `TRIES` commits
in a row that failed for another reason than a want of room or descriptors: what cannot be committed must not
be acknowledged any longer.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from casfs.errors import FsError
from casfs.filestore.durable import NO_DESCRIPTOR
from casfs.filestore.locks import Turnstile
from casfs.fs.inodes import InodeTable
from casfs.fs.participant import Participant
from casfs.fs.scheduler import Event, Scheduler
from casfs.namespace.connection import database_errno
from casfs.namespace.namespace import OPERATION_LOG_BYTES
from casfs.store import Store

log = logging.getLogger(__name__)

GROUP_LIMIT = 8_000
"""Operations after which a group is committed without waiting for the interval."""

OPERATION_BYTES = 4096
"""What a row of an operation holds at the most. One of more bytes, extended attributes, counts as several, or
what is not committed yet could take all memory."""

OPERATIONS_LIMIT = 20_000
"""Uncommitted operations from which new ones wait for the commit to catch up: at the most, and fewer on a
disk that is nearly full, where the COMMIT of so many might find no room for its log."""

FEW_BLOBS = 64
"""At most this many blobs are made durable one by one, 15 ms on an SSD; more with all of the file system,
once those that came meanwhile are written too."""

OPEN_ROUNDS = 8
"""So often at most blobs are written with the gate open; while they come slower than that, each round leaves
fewer than the last, and the gate closes when there are none, for no longer than a COMMIT takes."""

PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBUSY})
"""Errors that say nothing about the disk's health, of whatever is not a sync: the next commit tries again."""

TRIES = 2
"""Commits in a row that may fail for other reasons before the file system only reads."""

UNCERTAIN_ROOM = 256 << 20
"""Bytes of room for a COMMIT, as Claims.log_room tells it, below which others may take it meanwhile."""

TURN_SECONDS = 10.0
"""How long to wait for another process that holds the database (the collector holds it 20 ms)."""


class GroupCommit:
    """The open transaction of a store. Owned by the thread that runs the file system."""

    def __init__(self, store: Store, inodes: InodeTable, scheduler: Scheduler) -> None:
        self._store = store
        self._namespace = store.namespace
        self._inodes = inodes
        self._scheduler = scheduler
        self._active = self._gathering = False
        self.operations, self.since = 0, 0.0
        self.failed = self.errors = 0
        self.last_error = ""
        self._participants: list[Participant] = []
        self._woken = scheduler.event()
        self._number = self._durable = self._failures = 0
        self._published: dict[bytes, int | None] = {}
        self._written: dict[bytes, int | None] = {}
        self._named: set[str] = set()
        self._obsolete: list[str] = []
        self._gate: Event | None = None
        self._begin_gate: Event | None = None
        self._running: Event | None = None
        self._kept_open: Event | None = None
        self._operations_limit = OPERATIONS_LIMIT

    def join(self, participant: Participant) -> None:
        """Take part in every commit from now on."""
        self._participants.append(participant)

    # Being in a group

    @property
    def active(self) -> bool:
        """Is a transaction open? Some errors make SQLite roll it back (sqlite.org/lang_transaction.html,
        "Response To Errors"): what came after would be written each row for itself."""
        if self._active and not self._namespace.in_transaction:
            self.stop(OSError(errno.EIO, "the database has rolled back what was not committed"))
        return self._active

    @property
    def is_awaited(self) -> bool:
        """Does another process wait for its turn to write?"""
        turnstile = self._store.turnstile
        if turnstile is None or not turnstile.try_enter():
            return turnstile is not None
        turnstile.leave()
        return False

    @property
    def number(self) -> int:
        """Of the group that is open, or was the last."""
        return self._number

    def is_durable(self, number: int) -> bool:
        """Does the group of that number survive a power loss?"""
        return self._durable >= number

    async def begin(self) -> None:
        """Have a transaction open. Raises FsError EROFS after a failure that stopped writing, and EBUSY when
        another process keeps the database for too long."""
        while not self.active:
            if self.failed:
                raise FsError(errno.EROFS)
            if gate := self._begin_gate:
                await gate.wait()
                continue
            turnstile = self._store.turnstile
            if turnstile is None:
                raise FsError(errno.EROFS)
            # Who only reads may hold the write lock for a moment (walIndexReadHdr in SQLite's wal.c).
            if not (turnstile.try_enter() and self._try_begin(turnstile)):
                gate = self._begin_gate = self._scheduler.event()
                try:
                    if not await self._take_turn(turnstile):
                        raise FsError(errno.EBUSY)
                finally:
                    self._begin_gate = None
                    gate.set()

    def _try_begin(self, turnstile: Turnstile) -> bool:
        try:
            room = self._store.filestore.space.log_room()
            begun = self._namespace.try_begin(repeatable=room < UNCERTAIN_ROOM)
        finally:
            turnstile.leave()
        if begun:
            self._begun(room)
        return begun

    async def _take_turn(self, turnstile: Turnstile) -> bool:
        deadline = self._scheduler.now() + TURN_SECONDS
        while True:
            await self._scheduler.run(turnstile.enter)
            if self._try_begin(turnstile):
                return True
            if self._scheduler.now() > deadline:
                return False
            await self._scheduler.run(time.sleep, 0.005)

    def _begun(self, room: int) -> None:
        self._active = True
        self.operations, self.since = 0, self._scheduler.now()
        self._number += 1
        self.wake()
        self._operations_limit = min(OPERATIONS_LIMIT, room // OPERATION_LOG_BYTES)

    async def enter_publishing(self) -> None:
        """Be in a group whose gate for publishing is open."""
        while self._gate is not None or not self.active:
            if self._gate is not None:
                await self._gate.wait()
            else:
                await self.begin()

    @property
    def can_publish(self) -> bool:
        """Would `enter_publishing` return without waiting?"""
        return self.active and self._gate is None

    @property
    def is_gathering(self) -> bool:
        """Is a commit under way that still takes what is published?"""
        return self._gathering

    @property
    def is_closing(self) -> bool:
        """Is the gate for publishing closed?"""
        return self._gate is not None

    def publish(self, digest: bytes, new: int | None) -> None:
        """Note a blob this group refers to: it has to be durable before COMMIT (I1).

        `new`: the row this group has inserted for it, if it has.
        """
        self._published[digest] = new
        if self._store.filestore.pending_are_many:
            self.wake()

    def name(self, staged_name: str) -> None:
        """Note a staged file that a row of this group names: it has to be durable before COMMIT (I5). While
        the gate for publishing is open."""
        self._named.add(staged_name)

    @property
    def defers_files(self) -> bool:
        """May the file of a new blob be left to the commit?"""
        return not self._store.filestore.pending_are_many

    @property
    def has_obsolete(self) -> bool:
        """May there be staged files that go with the next commit, or the one that is under way?"""
        return bool(self._obsolete) or self._running is not None

    async def obsolete_removed(self) -> None:
        """Return when those are gone. Raises OSError."""
        if self._obsolete:
            await self.committed()
        while self._running is not None:
            await self._running.wait()

    def obsolete(self, staged_name: str) -> None:
        """Note a staged file a committed row may name: it may go when this group is durable (I5)."""
        self._obsolete.append(staged_name)

    def count(self, operations: int = 1) -> None:
        """Count operations of the group."""
        self.operations += operations
        if self.operations >= GROUP_LIMIT > self.operations - operations:
            self.wake()

    @property
    def must_wait(self) -> bool:
        """Is so much pending that it has to be committed before more operations come?"""
        if self._kept_open and self._operations_limit == OPERATIONS_LIMIT:
            return False  # it would be for long, and there is room
        return self.operations > self._operations_limit or self._store.filestore.space.rows_are_many

    @property
    def is_half_full(self) -> bool:
        """Should what is in no hurry be left to the next group, lest others come to wait?"""
        return self.operations > self._operations_limit // 2

    async def catch_up(self) -> None:
        """Commit before more comes. Without room it fails, which is for the next claim to say: what
        removes files is let in all the same."""
        try:
            await self.durable()
        except OSError as error:
            log.debug("a commit that was due has to wait: %s", error)

    @property
    def is_long(self) -> bool:
        """Should it be committed without waiting for the interval?"""
        return self.operations >= GROUP_LIMIT or self._store.filestore.pending_are_many

    def wake(self) -> None:
        """It may be time for a commit."""
        self._woken.set()

    async def woken(self) -> None:
        """Wait until it may be time for a commit that nobody waits for. For one task."""
        try:
            await self._woken.wait()
        finally:
            self._woken = self._scheduler.event()

    # Committing

    @asynccontextmanager
    async def kept_open(self) -> AsyncIterator[None]:
        """Be in a group that is not committed inside. Whoever does that must not wait for a commit."""
        while not self.active or self._running or self._kept_open:
            event = self._running or self._kept_open
            await (event.wait() if event else self.begin())
        kept_open = self._kept_open = self._scheduler.event()
        try:
            yield
        finally:
            self._kept_open = None
            kept_open.set()

    @asynccontextmanager
    async def between(self) -> AsyncIterator[None]:
        """Be between two groups: what was done until now is durable, and nobody begins anything meanwhile, so
        that it must not be for long. Raises OSError."""
        while gate := self._begin_gate:
            await gate.wait()
        gate = self._begin_gate = self._scheduler.event()
        try:
            await self.committed()
            while running := self._running:
                await running.wait()
            yield
        finally:
            self._begin_gate = None
            gate.set()

    async def durable(self) -> None:
        """Return when everything applied before this call survives a power loss. Raises OSError.

        Callers that wait at the same time share one commit.
        """
        left_out: OSError | None = None
        for participant in self._participants:
            try:
                await participant.before_durable()
            except OSError as error:
                left_out = error
        await self.committed()
        if left_out is not None:
            raise left_out

    async def committed(self) -> None:
        """As `durable`, for rows: without what was closed and cannot be sealed, which stays for later."""
        wanted = self._number
        while self._durable < wanted:
            if self.failed:
                raise OSError(self.failed, os.strerror(self.failed))
            if event := self._running or self._kept_open:
                await event.wait()
            else:
                await self._commit()

    async def _commit(self) -> None:
        running = self._running = self._scheduler.event()
        try:
            await self._ordered()
            self.last_error, self._failures = "", 0
        except Exception as error:
            raise self._has_failed(error) from error
        finally:
            self._running = None
            self._gathering = False
            self._open_gate()
            running.set()

    def _has_failed(self, error: Exception) -> OSError:
        """Count a commit that failed; the error that those who wait for it get."""
        number = error.errno if isinstance(error, OSError) else database_errno(error)
        if not self.last_error and not self.failed:
            unexpected = None if number else error
            log.error("commit failed, will be tried again: %s", error, exc_info=unexpected)
        failure = OSError(number or errno.EIO, str(error) or type(error).__name__)
        self.last_error = str(failure)
        self._store.filestore.space.rows_refused()
        self.errors += 1
        self._failures = 0 if number in PASSING else self._failures + 1
        if self._failures >= TRIES and not self.failed:
            self.stop(failure)
        return failure

    def _open_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set()

    async def _ordered(self) -> None:
        run = self._scheduler.run
        number = self._number
        if self.active:
            self._gathering = True
            for participant in self._participants:
                await participant.before_commit()
            if self._namespace.log_is_long:
                await run(self._checkpoint, False)
            for _ in range(OPEN_ROUNDS):
                await self._write_blobs()
                if len(self._published) <= FEW_BLOBS:
                    await self._sync_blobs()
                if not self._published and not self._named:
                    break
            self._gathering = False
            self._gate = self._scheduler.event()
            await self._write_blobs()
            await self._sync_blobs()
            for participant in self._participants:
                participant.before_rows()
            self._inodes.flush()
            self._namespace.reserve_log(self.operations + self._inodes.dirty)
            number = self._number
            self._commit_rows()
        obsolete, self._obsolete = self._obsolete, []
        restart = self._namespace.log_is_long and self._begin_gate is None
        if restart:
            self._begin_gate = self._scheduler.event()
        self._open_gate()
        try:
            await run(self._namespace.sync_log)
            if restart:
                await run(self._checkpoint, True)
        except OSError as error:
            self.stop(error)
            raise
        finally:
            if restart and self._begin_gate is not None:
                begin_gate, self._begin_gate = self._begin_gate, None
                begin_gate.set()
        self._durable = max(self._durable, number)
        if obsolete:
            await run(self._remove_staged, obsolete)

    async def _write_blobs(self) -> None:
        """Write the files of the published blobs that are only accepted so far."""
        self._drop_unused()
        batch, self._published = self._published, {}
        if not batch:
            return
        try:
            await self._scheduler.run(self._store.filestore.write_pending, list(batch))
        except OSError as error:
            # None: some may have a file by now, so they are not to be dropped any more.
            self._published = dict.fromkeys(batch) | self._published
            self.stop_if_broken(error)
            raise
        self._written.update(batch)

    async def _sync_blobs(self) -> None:
        """Make the written ones and the staged files that rows name durable, one by one if they are few, else
        all of the file system."""
        batch, self._written = list(self._written), {}
        named, self._named = self._named, set()
        if not batch and not named:
            return
        filestore = self._store.filestore
        try:
            if len(batch) + len(named) <= FEW_BLOBS:
                await self._scheduler.run(filestore.sync_each, batch, named)
            else:
                await self._scheduler.run(filestore.sync_all)
        except OSError as error:
            self._written = dict.fromkeys(batch) | self._written
            self._named |= named
            if error.errno not in NO_DESCRIPTOR:  # which only open(2) tells, before anything was synced
                filestore.doubt(batch)
                self.stop(error)
            raise

    def _drop_unused(self) -> None:
        """Forget what this group has made and removed again, before it costs a file."""
        filestore = self._store.filestore
        for digest, new in list(self._published.items()):
            if new is not None and filestore.is_pending(digest) and self._inodes.drop_unused(new):
                filestore.forget(digest)
                del self._published[digest]

    def _commit_rows(self) -> None:
        try:
            self._namespace.commit()
        except OSError as error:
            if error.errno not in PASSING or not self._namespace.in_transaction:
                self.stop(error)
            raise
        self._active = False
        self._store.filestore.space.rows_committed()

    def _checkpoint(self, restart: bool) -> None:
        try:
            self._namespace.checkpoint(restart=restart)
        except OSError as error:
            log.info("checkpoint put off: %s", error)

    def _remove_staged(self, names: list[str]) -> None:
        """What cannot be removed now goes at the next start; the commit is durable all the same."""
        for name in names:
            try:
                self._store.filestore.staging.remove(name)
            except OSError as error:
                log.warning("staged file %s is left behind: %s", name, error)

    def stop_if_broken(self, error: OSError) -> None:
        """A file could not be made: write no more if that says something about the disk's health."""
        if error.errno not in PASSING:
            self.stop(error)

    def stop(self, error: OSError) -> None:
        """Write no more: what the disk holds is the last commit, and stays so."""
        if self.failed:
            return
        self.failed = error.errno or errno.EIO
        self._active = False
        log.critical("the store cannot be written (%s): reading only until it is mounted again", error)
