"""Orphans that the daemon of a mount removes for the collector, while it serves others."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from casfs.filestore.hashing import hash_bytes
from casfs.fs.scheduler import run_inline
from casfs.maintenance.collect import gc, pins
from casfs.maintenance.collect import mounted as collect_mounted
from casfs.maintenance.collect.batch import transaction
from casfs.maintenance.collect.mounted import Collected
from casfs.maintenance.snapshots.create import create
from casfs.namespace.collecting import Amount, Collecting, Orphan, Record
from casfs.namespace.copies import Content, HeldDigests
from casfs.namespace.sending import Sending
from casfs.store import Store
from tests.faults import PowerLoss
from tests.fs.test_crash import History
from tests.invariants import assert_clean
from tests.maintenance.collect.test_gc import HOUR, Stubborn, collect, content, make, remove
from tests.maintenance.collect.test_gc_crash import CollectingWatcher
from tests.session import Session

NOW = 1 << 62
SIZE = len(content(0))


def orphans(session: Session) -> list[int]:
    rows = session.store.namespace.query("SELECT id FROM blob WHERE refs = 0 ORDER BY id")
    return [row[0] for row in rows]


def ask(session: Session, ids: list[int], cutoff_ns: int = NOW, record: Record | None = None) -> Collected:
    coroutine = collect_mounted.collect(session.fs, ids, cutoff_ns, 1, record or Record(0, 0, 0, 0, 0))
    return run_inline(coroutine)


@pytest.fixture
def orphaned(session: Session) -> Session:
    """A store in use with the orphans `0` to `9`, and the file `10`."""
    make(session, 11)
    remove(session, 10)
    return session


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Between the commit of the rows and the first file."""
    unlink = collect_mounted._unlink_condemned

    def after(*args: Any) -> Amount:
        do()
        return unlink(*args)

    monkeypatch.setattr(collect_mounted, "_unlink_condemned", after)


def test_orphans_go_and_the_rest_stays(orphaned: Session) -> None:
    assert ask(orphaned, orphans(orphaned)) == (Amount(10, 10 * SIZE), [], 0, False, False)
    assert (orphans(orphaned), orphaned.blobs) == ([], 1)
    assert orphaned.kernel.read_file(b"10") == content(10)
    orphaned.stop()
    assert_clean(orphaned.path)


def test_a_count_that_is_too_low_costs_no_content(session: Session) -> None:
    """In use, with the row of the file that still has it on disk, or only in memory."""
    make(session, 2)
    session.kernel.sync()
    session.kernel.write_file(b"again", content(1))
    run_inline(session.fs.group.begin())
    session.store.namespace.query("UPDATE blob SET refs = 0, orphaned_ns = 1")
    wrong = orphans(session)
    assert len(wrong) == 2
    assert ask(session, wrong).gone == Amount(0, 0)
    assert [session.kernel.read_file(name) for name in (b"0", b"1", b"again")] == [
        content(number) for number in (0, 1, 1)
    ]
    session.kernel.sync()
    run_inline(session.fs.group.begin())
    session.store.namespace.query(
        """UPDATE blob SET orphaned_ns = NULL,
           refs = (SELECT count(*) FROM inode AS i WHERE i.blob_id = blob.id)"""
    )


def test_when_others_write_it_goes_with_their_commit(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphaned.kernel.write_file(b"another", b"another")
    commits: list[int] = []

    def sleep(_seconds: float) -> None:
        commits.append(orphaned.fs.group.number)
        orphaned.kernel.sync()

    monkeypatch.setattr(collect_mounted.time, "sleep", sleep)
    number = orphaned.fs.group.number
    collected = ask(orphaned, orphans(orphaned))
    assert (collected.gone.blobs, collected.busy, commits) == (10, True, [number])
    assert orphaned.fs.group.number == number


def test_a_group_that_is_half_full_is_left_to_others(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a nearly full disk a batch filled the group, and everybody waited for its commit."""
    group, kernel = orphaned.fs.group, orphaned.kernel
    kernel.write_file(b"another", b"another")
    monkeypatch.setattr(group, "_operations_limit", 2 * group.operations - 2)
    number, taken = group.number, []
    take = collect_mounted._take

    def noted(*args: Any) -> list[Orphan]:
        taken.append(group.number)
        return take(*args)

    monkeypatch.setattr(collect_mounted, "_take", noted)
    monkeypatch.setattr(collect_mounted.time, "sleep", lambda _seconds: kernel.sync())
    assert ask(orphaned, orphans(orphaned)).gone.blobs == 10
    assert set(taken) == {number + 1}


def test_it_does_not_wait_for_ever_for_others_to_commit(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect_mounted, "COMMIT_SECONDS", 0.0)
    orphaned.kernel.write_file(b"another", b"another")
    assert ask(orphaned, orphans(orphaned)).gone.blobs == 10


def test_what_is_not_due_stays(orphaned: Session) -> None:
    ids = orphans(orphaned)
    stays = orphaned.kernel.inode(b"10").blob
    assert stays is not None
    assert ask(orphaned, [*ids, stays, 999], cutoff_ns=HOUR).gone == (0, 0)
    pin = pins.add_pin(str(orphaned.path), [], reason="", seconds=None)
    assert ask(orphaned, [*ids, stays]).gone == (0, 0)
    pins.remove_pin(str(orphaned.path), pin.id)
    assert ask(orphaned, [*ids, stays]).gone.blobs == 10
    assert orphaned.blobs == 1


def test_what_is_found_again_and_not_committed_stays(orphaned: Session) -> None:
    """The count of its row is that of the last commit; the one in memory is newer."""
    ids = orphans(orphaned)
    orphaned.kernel.write_file(b"again", content(3))
    assert orphaned.kernel.getxattr(b"again", b"user.casfs.blake3")
    orphaned.kernel.write_file(b"for a moment", content(4))
    assert orphaned.kernel.getxattr(b"for a moment", b"user.casfs.blake3")
    orphaned.kernel.unlink(b"for a moment")
    assert ask(orphaned, ids).gone.blobs == 8
    orphaned.stop()
    assert_clean(orphaned.path)
    orphaned.start()
    assert orphaned.kernel.read_file(b"again") == content(3)
    assert ask(orphaned, orphans(orphaned)).gone.blobs == 1


@pytest.mark.parametrize("size", [1, 4_000], ids=["small", "large"])
@pytest.mark.parametrize("committed", [False, True])
def test_what_is_written_again_meanwhile_is_spared(
    session: Session, monkeypatch: pytest.MonkeyPatch, size: int, committed: bool
) -> None:
    data = [content(number) * size for number in range(3)]
    for number, each in enumerate(data):
        session.kernel.write_file(b"%d" % number, each)
    session.kernel.sync()
    remove(session, 3)

    def write() -> None:
        session.kernel.write_file(b"1", data[1])
        assert session.kernel.getxattr(b"1", b"user.casfs.blake3")
        if committed:
            session.kernel.sync()

    meanwhile(monkeypatch, write)
    assert ask(session, orphans(session)).gone.blobs == 2
    assert session.kernel.read_file(b"1") == data[1]
    assert session.reopen().read_file(b"1") == data[1]
    assert session.blobs == 1
    session.stop()
    assert_clean(session.path)


def test_a_batch_that_is_cut_off_by_the_end_of_the_mount_leaves_no_file(orphaned: Session) -> None:
    """200 blobs without a row were found after mounts that had all ended cleanly: the rows of a batch were
    gone, and committed by the unmount, and its files not yet unlinked."""
    coroutine = collect_mounted.collect(orphaned.fs, orphans(orphaned), NOW, 1, Record(0, 0, 0, 0, 0))
    pauses = []

    async def pause() -> None:
        pauses.append(1)
        raise Cancelled

    orphaned.fs.scheduler.pause = pause  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        run_inline(coroutine)
    assert pauses
    assert (orphans(orphaned), orphaned.blobs) == ([], 11)
    orphaned.stop()
    assert len(list((orphaned.path / "blobs").glob("*/*"))) == 1
    assert_clean(orphaned.path)


def test_a_content_that_another_process_has_published_anew_stays(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup into a mounted store came after a batch of the collector that was cut off: its rows were gone,
    so the contents were sent anew, and the unmount removed their files."""
    coroutine = collect_mounted.collect(orphaned.fs, orphans(orphaned), NOW, 1, Record(0, 0, 0, 0, 0))

    async def pause() -> None:
        raise Cancelled

    monkeypatch.setattr(orphaned.fs.scheduler, "pause", pause)
    with pytest.raises(Cancelled):
        run_inline(coroutine)
    monkeypatch.undo()
    run_inline(orphaned.fs.group.durable())
    digest = next(iter(orphaned.fs.store.filestore.condemned()))
    size = orphaned.fs.store.filestore.blobs.size(digest)
    assert size is not None
    with closing(Store(str(orphaned.path), shared=True)) as other, transaction(other):
        Sending(other.namespace).add_orphans([Content(digest, 0, size)], NOW)
    orphaned.stop()
    assert len(list((orphaned.path / "blobs").glob("*/*"))) == 2
    assert_clean(orphaned.path)


class Cancelled(BaseException):
    """As the event loop's, which ends what the control socket was asked for."""


def test_two_collectors_do_not_take_each_others_files(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's process was killed, and its batch goes on: a content is written again, and removed; the
    second may take it when that batch has ended."""
    waited: list[int] = []

    def second() -> None:
        orphaned.kernel.write_file(b"5", content(5))
        orphaned.kernel.sync()
        orphaned.kernel.unlink(b"5")
        orphaned.kernel.sync()
        waited.extend(orphans(orphaned))
        with pytest.raises(RuntimeError, match="nobody is left"):
            ask(orphaned, waited)

    meanwhile(monkeypatch, second)
    assert ask(orphaned, orphans(orphaned)).gone.blobs == 9
    assert orphans(orphaned) == waited
    assert orphaned.store.filestore.has(hash_bytes(content(5)), SIZE)
    monkeypatch.undo()
    assert ask(orphaned, waited).gone.blobs == 1
    orphaned.stop()
    assert_clean(orphaned.path)


def test_who_publishes_waits_for_the_file_that_is_being_unlinked(orphaned: Session) -> None:
    filestore = orphaned.store.filestore
    digest = hash_bytes(content(5))
    filestore.condemn([digest])
    at_it, done = threading.Event(), threading.Event()
    order: list[str] = []

    def unlink(path: str, *, dir_fd: int) -> None:
        at_it.set()
        done.wait(0.05)
        order.append("unlinked")
        os.unlink(path, dir_fd=dir_fd)

    filestore.durable.unlink = unlink  # type: ignore[method-assign]
    thread = threading.Thread(target=filestore.remove_condemned, args=(digest, 7))
    thread.start()
    assert at_it.wait(10)
    filestore.spare(digest)
    order.append("spared")
    thread.join()
    assert order == ["unlinked", "spared"]
    del filestore.durable.unlink
    filestore.publish_bytes(digest, content(5))


def test_files_stay_when_the_rows_cannot_be_committed(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_operations: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(orphaned.store.namespace, "reserve_log", refuse)
        with pytest.raises(OSError, match="No space"):
            ask(orphaned, orphans(orphaned))
    assert orphaned.blobs == 11
    orphaned.kernel.write_file(b"0", content(0))
    orphaned.kernel.sync()
    assert orphaned.kernel.read_file(b"0") == content(0)
    assert collect(orphaned.path, full=True).strays == 9


def test_files_that_cannot_be_unlinked_are_told(session: Session) -> None:
    make(session, 30)
    remove(session, 30)
    session.store.directory.durable = Stubborn(1)
    ids = orphans(session)
    digest = session.store.namespace.blobs.digest(ids[0])
    collected = ask(session, ids[:10])
    assert collected.gone.blobs == 9
    assert [(each[0], each[2]) for each in collected.failures] == [(digest, os.strerror(errno.EIO))]
    session.store.directory.durable = Stubborn(99)
    collected = ask(session, orphans(session))
    assert (len(collected.failures), collected.untried, collected.gave_up) == (10, 10, True)
    session.store.directory.durable = Stubborn(0)
    assert session.blobs == 21
    assert collect(session.path, full=True).strays == 21


def test_what_the_run_has_done_is_written_down_with_it(orphaned: Session) -> None:
    with gc.opened(str(orphaned.path)) as store, gc.transaction(store) as rows:
        number = rows.start_run("regular", 5)
    ask(orphaned, orphans(orphaned), record=Record(number, 1, 2, 3, 4))
    last = Collecting(orphaned.store.namespace).runs(1)[0]
    assert last == (number, "regular", 5, None, 1, 2, 3, 4, None)


def test_cut_off_at_each_step_it_leaves_only_garbage(
    orphaned: Session, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a content that is written again in the middle, and one that is found again before."""
    path, kept = orphaned.path, {"10": content(10)}
    orphaned.stop()
    history = History()
    history.step(lambda: None, durable=True, **kept)
    seam = PowerLoss(path)
    orphaned.start(seam)
    watcher = CollectingWatcher(seam, history, scratch)

    def write(number: int) -> None:
        name = f"{number}"
        history.step(lambda: orphaned.kernel.write_file(name, content(number)), **{name: content(number)})
        history.step(orphaned.kernel.sync, durable=True)

    meanwhile(monkeypatch, lambda: write(7))
    history.step(lambda: orphaned.kernel.write_file("4", content(4)), **{"4": content(4)})
    monkeypatch.setattr(collect_mounted, "COMMIT_SECONDS", 0.0)
    assert ask(orphaned, orphans(orphaned)).gone.blobs in (8, 9)
    watcher.cut(-1, "the end")
    assert watcher.opened >= 8


# Who asks


def test_a_collector_that_asks_removes_nothing_by_itself(orphaned: Session) -> None:
    asked: list[list[int]] = []

    def mount(ids: list[int], cutoff_ns: int, now_ns: int, record: Record) -> Collected:
        asked.append(ids)
        collected = run_inline(collect_mounted.collect(orphaned.fs, ids, cutoff_ns, now_ns, record))
        return collected._replace(busy=True)

    with gc.opened(str(orphaned.path)) as store:
        turns: list[object] = []
        outcome = gc.execute(store, gc.plan(store, grace_ns=0), mount=mount)
    assert (outcome.blobs, outcome.bytes, turns) == (10, 10 * SIZE, [])
    assert [len(ids) for ids in asked] == [10]
    assert gc.history(str(orphaned.path), 1)[0].blobs == 10


def test_a_mount_that_gives_up_ends_the_run(orphaned: Session) -> None:
    failure = (hash_bytes(content(0)), SIZE, "Input/output error")

    def mount(ids: list[int], *_: object) -> Collected:
        return Collected(Amount(0, 0), [failure] * 10, 5, gave_up=True, busy=False)

    with gc.opened(str(orphaned.path)) as store:
        outcome = gc.execute(store, gc.plan(store, grace_ns=0), mount=mount)
    assert (outcome.failures, len(outcome.first_failures)) == (15, 10)
    assert outcome.error.startswith("10 files in a row could not be removed: ")


@pytest.mark.parametrize("busy", [False, True])
def test_a_mount_in_use_is_asked_for_less_at_a_time(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr(gc, "FIRST_BATCH", 2)
    monkeypatch.setattr(gc, "ASKED_BUSY", 3)
    asked: list[int] = []

    def mount(ids: list[int], *_: object) -> Collected:
        asked.append(len(ids))
        return Collected(Amount(len(ids), 0), [], 0, gave_up=False, busy=busy)

    with gc.opened(str(orphaned.path)) as store:
        gc.execute(store, gc.plan(store, grace_ns=0), mount=mount)
    assert asked == ([2, 3, 3, 2] if busy else [2, 8])


@pytest.mark.parametrize("is_new", [False, True], ids=["a snapshot that was there", "a new one"])
def test_what_snapshots_hold_that_was_no_orphan_when_they_were_asked_stays(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    kernel, holds = orphaned.kernel, orphaned.fs.holds
    numbers = orphans(orphaned)
    kernel.write_file(b"held", content(10_000))
    kernel.sync()
    if not is_new:
        run_inline(create(orphaned.fs, "a"))
    query = orphaned.store.namespace.query
    numbers += [row[0] for row in query("SELECT max(id) FROM blob")]
    held = holds.held

    def after(digests: set[bytes]) -> set[bytes]:
        monkeypatch.undo()
        found = held(digests)
        if is_new:
            run_inline(create(orphaned.fs, "a"))
        kernel.unlink(b"held")
        kernel.sync()
        return found

    monkeypatch.setattr(holds, "held", after)
    assert ask(orphaned, numbers).gone.blobs == 10
    assert orphans(orphaned) == numbers[-1:]
    assert orphaned.blobs == 2


def test_many_snapshots_were_asked_while_everybody_waited(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(create(orphaned.fs, "a"))
    make(orphaned, 50)
    remove(orphaned, 50)
    asked: list[bool] = []
    held = HeldDigests.held

    def watched(each: HeldDigests, digests: list[bytes]) -> set[bytes]:
        asked.append(orphaned.fs.group.active)
        return held(each, digests)

    monkeypatch.setattr(HeldDigests, "held", watched)
    assert ask(orphaned, orphans(orphaned)).gone.blobs > 40
    assert asked == [False]
