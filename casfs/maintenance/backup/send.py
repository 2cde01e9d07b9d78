"""Sending blobs from one store to another: the one mechanism of backup, restore and the rest.

Who sends holds what he sends at both ends by a snapshot, which is there, with its whole database, before he
looks what is lacking. Contents go in batches, each in these steps, of which the first ones are at work on the
next batch while the last ones end this:

    copy        by threads, into the folder of the unfinished snapshot, or in its place where nothing is;
                compared with the digest on the way
    sync        the bytes of those in the folder, durable
    publish     each of them gets its name below blobs/, in the place of what may lie there: that has the same
                bytes, or is the torn rest of a crash
    sync        all bytes and names, durable
    insert      one transaction: those whose file is still the one that was published get a row (I1, I3). Who
                has published the same content meanwhile has replaced it: it is looked at again

What a crash leaves in the folder goes with it; files without a row, which the snapshot holds, are replaced by
the next who sends them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from casfs.errors import CasfsError
from casfs.filestore.local import LocalBlobs
from casfs.maintenance.backup.copying import CHUNK, Copied, Copier, Unreadable
from casfs.maintenance.backup.pace import Pace
from casfs.maintenance.collect.batch import transaction
from casfs.namespace.copies import Content
from casfs.namespace.sending import Sending
from casfs.store import Store

THREADS = max(4, min(8, 2 * (os.cpu_count() or 1)))
"""Reading, hashing and writing release the GIL, and most of the time is waiting for the disk."""

BATCH_FILES = 4096
FIRST_BYTES = 16 << 20
BATCH_BYTES = 256 << 20
BATCH_SECONDS = 3.0
"""What gets its rows by one commit, unless one file alone is longer; more as long as that does not take
longer than this: so much a SIGKILL may cost, twice."""

PORTION = 32
"""Files that a thread copies in one go, if they are not larger than PORTION_BYTES together."""
PORTION_BYTES = 8 << 20

FEW = 16
"""So many files are synced one by one; more by syncfs(2), for which other programs' dirty data counts."""

REPLACED_TRIES = 3


@dataclass(slots=True)
class Sent:
    """What came over, and what could not be read."""

    blobs: int = 0
    bytes: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)


class Sender:
    """Sends from `source` to `target`, through `folder` below it."""

    def __init__(self, source: LocalBlobs, target: Store, folder: str, pace: Pace) -> None:
        self._target = target
        self._folder = folder
        self._damaged = Sending(target.namespace).damaged()
        self._copier = Copier(source, target.directory, folder, pace, target.filestore.blobs)
        self._mender = Copier(source, target.directory, folder, pace)
        self._pace = pace
        self._told: Callable[[int], object] = int
        self._rows = Sending(target.namespace)
        self._batch_bytes = FIRST_BYTES
        self.result = Sent()

    def watch(self, sent: Callable[[int], object]) -> None:
        """Have it called with the bytes of each file that was copied, by any thread."""
        self._told = sent

    def send(self, contents: Iterable[Content]) -> Sent:
        """Send contents that the target lacks. Blocks.

        Raises Stopped, OSError, StoreLocked; what is done until then is kept, and told by `result`.
        """
        again: list[Content] = []
        with ThreadPoolExecutor(THREADS, "copy") as pool, ThreadPoolExecutor(1, "settle") as settling:
            last: Future[list[Content]] | None = None
            try:
                for batch in self._batches(contents):
                    began = time.monotonic()
                    copied = self._copy(batch, pool)
                    self._learn(time.monotonic() - began)
                    if last is not None:
                        again += last.result()
                    last = settling.submit(self._settle, copied)
                if last is not None:
                    again += last.result()
                for _ in range(REPLACED_TRIES):
                    if not again:
                        break
                    again = self._settle(self._copy(again, pool))
            except BaseException:
                self._pace.end()
                pool.shutdown()
                self._remove_torn()
                raise
        if again:
            raise OSError(f"{len(again)} files in {self._target.path} are replaced as soon as they are there")
        return self.result

    def _remove_torn(self) -> None:
        """What has no row is nobody's, as long as nobody can commit one. What stays is replaced by the next
        who sends it, or collected."""
        if not self._copier.torn:
            return
        blobs = self._target.filestore.blobs
        with contextlib.suppress(OSError, CasfsError), transaction(self._target):
            known = self._rows.known(each.content.digest for each in self._copier.torn)
            for each in self._copier.torn:
                digest = each.content.digest
                if digest not in known and list(blobs.numbers([digest])) == [each.number]:
                    blobs.remove(digest)

    def _batches(self, contents: Iterable[Content]) -> Iterator[list[Content]]:
        """In their order."""
        batch: list[Content] = []
        size = 0
        for content in contents:
            batch.append(content)
            size += content.size
            if len(batch) >= BATCH_FILES or size >= self._batch_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _learn(self, seconds: float) -> None:
        """How long the next batch may be, after one that took so long."""
        if seconds > 2 * BATCH_SECONDS:
            self._batch_bytes = max(FIRST_BYTES, self._batch_bytes // 2)
        elif seconds < BATCH_SECONDS:
            self._batch_bytes = min(BATCH_BYTES, self._batch_bytes * 2)

    def _copy(self, batch: list[Content], pool: ThreadPoolExecutor) -> list[Copied]:
        portions = [pool.submit(self._copy_portion, portion) for portion in _apart(list(_portions(batch)))]
        copied: list[Copied] = []
        for portion in portions:
            for each in portion.result():
                if isinstance(each, Unreadable):
                    self.result.unreadable.append(each)
                else:
                    copied.append(each)
        return sorted(copied)

    def _copy_portion(self, contents: list[Content]) -> list[Copied | Unreadable]:
        buffer = memoryview(bytearray(CHUNK + 1))
        done: list[Copied | Unreadable] = []
        for content in contents:
            self._pace.check()
            copier = self._mender if content.digest in self._damaged else self._copier
            done.append(copier.copy(content, buffer))
            self._told(content.size)
        return done

    def _settle(self, copied: list[Copied]) -> list[Content]:
        """Give copied files their places and rows; the contents that have to be copied once more."""
        if not copied:
            return []
        directory, blobs = self._target.directory, self._target.filestore.blobs
        elsewhere = [each for each in copied if each.name.startswith(f"{self._folder}/")]
        few = len(copied) <= FEW
        if few:
            for each in copied:
                directory.sync(each.name)
        elif elsewhere:
            directory.sync_all()
        blobs.adopt((each.name, each.content.digest) for each in elsewhere)
        if few:
            blobs.sync_names(each.content.digest for each in copied)
        else:
            directory.sync_all()
        return self._insert(copied)

    def _insert(self, copied: list[Copied]) -> list[Content]:
        again: list[Content] = []
        with transaction(self._target):
            numbers = self._target.filestore.blobs.numbers([each.content.digest for each in copied])
            there: list[Content] = []
            for each, number in zip(copied, numbers, strict=True):
                (there if number == each.number else again).append(each.content)
            known = self._rows.known(content.digest for content in again)
            self._rows.add_orphans(there, time.time_ns())
            self._rows.no_longer_damaged(content.digest for content in there)
        if self._target.namespace.log_is_long:
            self._target.namespace.checkpoint(restart=False)
        self.result.blobs += len(there)
        self.result.bytes += sum(content.size for content in there)
        return [content for content in again if content.digest not in known]


def _portions(batch: list[Content]) -> Iterator[list[Content]]:
    for start in range(0, len(batch), PORTION):
        portion = batch[start : start + PORTION]
        if sum(content.size for content in portion) <= PORTION_BYTES:
            yield portion
        else:
            yield from ([content] for content in portion)


def _apart(portions: list[list[Content]]) -> list[list[Content]]:
    """In an order in which those that are copied at a time lie in different folders."""
    step = -(-len(portions) // THREADS) or 1
    return [portion for start in range(step) for portion in portions[start::step]]


def remove_copies(store: Store, folder: str) -> None:
    """Remove the files in a folder that were to be sent and did not get their places."""
    for name in store.directory.names(folder):
        if len(name) == 16:
            with contextlib.suppress(OSError):
                store.directory.unlink(f"{folder}/{name}")
