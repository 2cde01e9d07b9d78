"""The collector among others: whose turn it is, how long one takes, and what it does when it gets none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise

import pytest

from casfs.errors import StoreLocked
from casfs.maintenance import offline
from casfs.maintenance.collect import batch, gc, pins
from casfs.maintenance.collect.gc import Limits
from casfs.namespace.namespace import Namespace
from casfs.store import Store, collector_lock, store_lock
from casfs.trash.filesystem import trash_of
from tests.maintenance.collect.test_gc import HOUR, Stubborn, collect, content, make, remove
from tests.session import Session


@pytest.fixture
def another(session: Session) -> Iterator[Store]:
    """What another process has open on the store of the test."""
    store = Store(str(session.path), shared=True)
    yield store
    store.close()


# Waiting


def test_to_begin_tells_whether_there_was_somebody_to_wait_for(session: Session, another: Store) -> None:
    make(session, 1)
    batch.enter_turnstile(another, batch.never)
    assert not batch.begin(another, batch.never)
    batch.end(another)
    batch.leave_turnstile(another)
    session.kernel.write_file(b"open", b"transaction")
    asked = 0

    def commit_once() -> bool:
        nonlocal asked
        asked += 1
        session.kernel.sync()
        return False

    batch.enter_turnstile(another, batch.never)
    assert batch.begin(another, commit_once)
    assert asked
    batch.end(another)
    batch.leave_turnstile(another)


@pytest.mark.parametrize(
    ("busy", "sizes"), [(True, [16, 4, 2, 2, 2, 2, 2]), (False, [16, 14])], ids=["busy", "alone"]
)
def test_a_batch_is_smaller_when_it_had_to_wait(
    session: Session, monkeypatch: pytest.MonkeyPatch, busy: bool, sizes: list[int]
) -> None:
    """Its size follows the time that it may take: here none at all when others write, and all of it else."""
    monkeypatch.setattr(gc, "SMALLEST_BATCH", 2)
    monkeypatch.setattr(gc, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(gc, "WORK_SECONDS", 1e9)
    monkeypatch.setattr(gc, "begin", lambda store, stop: (batch.begin(store, stop), busy)[1])
    make(session, 30)
    remove(session, 30)
    done = [0]
    assert collect(session.path, progress=lambda doing, so_far, total: done.append(so_far)).blobs == 30
    assert [after - before for before, after in pairwise(done)] == sizes


def test_others_who_write_have_less_time_to_wait() -> None:
    assert gc.BUSY_SECONDS < gc.WORK_SECONDS


def test_the_file_system_sees_that_somebody_waits(session: Session, another: Store) -> None:
    group = session.fs.group
    assert not group.is_awaited
    assert another.turnstile is not None
    another.turnstile.enter()
    assert group.is_awaited
    another.turnstile.leave()
    assert not group.is_awaited
    another.turnstile.enter()  # to have looked has not kept it
    another.turnstile.leave()


def test_who_is_stopped_before_its_first_turn_has_done_nothing(session: Session, another: Store) -> None:
    make(session, 1)
    remove(session, 1)
    with gc.opened(str(session.path)) as store:
        plan = gc.plan(store, grace_ns=0)
        batch.enter_turnstile(another, batch.never)
        outcome = gc.execute(store, plan, stop=lambda: True)
        batch.leave_turnstile(another)
    assert (outcome.error, outcome.blobs) == ("stopped", 0)
    assert outcome.ended_ns >= outcome.started_ns > 0
    assert gc.history(str(session.path), 5) == []
    assert session.blobs == 1


# Durable before others see it


def test_a_shared_namespace_syncs_at_each_commit(session: Session, another: Store) -> None:
    """A SIGKILL behind COMMIT must not leave rows that others see and power takes."""
    for namespace, level in ((another.namespace, 2), (session.store.namespace, 1)):
        assert isinstance(namespace, Namespace)
        assert namespace.query("PRAGMA synchronous").get == level


# A clock that was wrong


def test_orphans_from_the_future_are_collected_after_the_grace(session: Session) -> None:
    make(session, 3)
    remove(session, 3)
    session.stop()
    with gc.opened(str(session.path)) as store:
        now = gc.plan(store).now_ns
        with batch.transaction(store):
            store.namespace.query("UPDATE blob SET orphaned_ns = ?", (now + 10**18,))
        assert gc.execute(store, gc.plan(store, grace_ns=HOUR, now_ns=now)).blobs == 0
        assert gc.execute(store, gc.plan(store, grace_ns=HOUR, now_ns=now + HOUR - 1)).blobs == 0
        assert gc.execute(store, gc.plan(store, grace_ns=HOUR, now_ns=now + HOUR)).blobs == 3


# Limits


def test_a_limit_of_bytes_makes_batches_small(session: Session) -> None:
    make(session, 6)
    remove(session, 6)
    size = len(content(0))
    done: list[int] = []
    limits = Limits(bytes=size * 20)
    assert collect(session.path, limits=limits, progress=lambda _, so_far, __: done.append(so_far)).blobs == 6
    assert done == [2, 4, 6]


def test_one_blob_beyond_the_limit_goes_alone(session: Session) -> None:
    make(session, 2)
    remove(session, 2)
    done: list[int] = []
    limits = Limits(bytes=9 * len(content(0)))
    assert collect(session.path, limits=limits, progress=lambda _, so_far, __: done.append(so_far)).blobs == 2
    assert done == [1, 2]


# Files that stay


def test_few_files_that_stay_are_not_taken_for_many(session: Session) -> None:
    """Tried twice, six files make twelve failures in a row, but of six files."""
    make(session, 6)
    remove(session, 6)
    outcome = collect(session.path, durable=Stubborn(12))
    assert (outcome.failures, outcome.error, len(outcome.first_failures)) == (6, "", 6)
    assert collect(session.path, full=True).strays == 6


def test_files_that_nobody_has_tried_again_are_counted(session: Session) -> None:
    """Fifteen of them, between others: ten fail again, one after the other, which ends the run."""
    make(session, 45)
    remove(session, 45)
    names: dict[str, int] = {}

    def refuses(path: str) -> bool:
        return names.setdefault(path, len(names)) % 3 == 0

    outcome = collect(session.path, durable=Stubborn(999, refuses))
    assert (outcome.blobs, outcome.failures) == (30, 15)
    assert outcome.error.startswith("10 files in a row could not be removed")
    assert session.blobs == 15
    assert collect(session.path, full=True).strays == 15


# Pins beside a batch


def test_a_pin_that_is_taken_between_plan_and_batch_holds(session: Session) -> None:
    make(session, 2)
    pin = pins.add_pin(str(session.path), [b"/0"], reason="", seconds=None)
    pins.remove_pin(str(session.path), pin.id)
    session.kernel.sync()
    with gc.opened(str(session.path)) as store:
        remove(session, 2)
        plan = gc.plan(store, grace_ns=0)
        assert plan.due.blobs == 2
        pins.add_pin(str(session.path), [], reason="", seconds=60)
        assert gc.execute(store, plan).blobs == 0
    assert session.blobs == 2


# The trash


def test_a_store_is_only_taken_for_its_trash_when_something_is_old(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a mount that starts at that moment, as at boot, would be refused for nothing."""
    taken: list[str] = []
    expire = offline.expire_trash

    def note(path: str, limit: int) -> int:
        taken.append(path)
        return expire(path, limit)

    monkeypatch.setattr(offline, "expire_trash", note)
    path = str(session.path)
    session.stop()
    with gc.opened(path) as store, batch.transaction(store):
        store.namespace.query("INSERT INTO trash VALUES (99, 1, 0, 'removed', x'61')")
    assert taken == []
    with gc.opened(path) as store, batch.transaction(store):
        store.namespace.query("DELETE FROM trash")
    assert taken == [path]


def test_the_trash_of_an_unmounted_store_is_emptied_step_by_step(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the steps a mount gets the store; a stop is heeded there."""
    trash_of(session.kernel.fs).minimal_age_ns = 0
    make(session, 5)
    session.kernel.sync()
    remove(session, 5)
    session.stop()
    path = str(session.path)
    with contextlib.closing(Store(path)) as store, batch.transaction(store):
        store.namespace.query("UPDATE trash SET deleted_ns = 1")
    monkeypatch.setattr(gc, "TRASH_STEP", 2)
    seen: list[int] = []

    def mount(_seconds: float) -> None:
        with contextlib.closing(Store(path)) as store:
            seen.append(store.namespace.trash.totals()[0])

    monkeypatch.setattr(gc.time, "sleep", mount)
    with gc.opened(path, stop=lambda: bool(seen)):
        assert seen == [3]
    with gc.opened(path):
        assert seen == [3, 1]


def test_a_mount_waits_for_the_collector_to_give_the_store_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.stop()
    path = str(session.path)
    collecting, using = collector_lock(path), store_lock(path)
    assert using.acquire()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            using.release()

    monkeypatch.setattr("casfs.store.time.sleep", sleep)
    with pytest.raises(StoreLocked):
        Store(path)
    assert (slept, collecting.acquire()) == ([], True)
    Store(path).close()
    assert len(slept) == 3
    collecting.release()
