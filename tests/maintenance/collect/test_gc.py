"""Collection: what goes, what stays, what is left when a step of it fails or the power goes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from casfs.errors import StoreLocked
from casfs.filestore.durable import Durable
from casfs.filestore.hashing import hash_bytes
from casfs.maintenance import offline
from casfs.maintenance.collect import batch, gc, pins
from casfs.maintenance.collect.gc import Limits, Outcome
from casfs.namespace.collecting import Collecting
from casfs.snapshots.holding import Holds
from casfs.store import Store, holder
from tests.faults import FaultyDurable, PowerLoss
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.session import Session

HOUR = 3_600 * 10**9


def collect(
    path: Path, *, grace_ns: int = 0, full: bool = False, durable: Durable | None = None, **options: object
) -> Outcome:
    with gc.opened(str(path), durable) as store:
        if isinstance(durable, FaultyDurable):
            durable.watch(store.namespace)
        return gc.execute(store, gc.plan(store, grace_ns=grace_ns, full=full), **options)  # type: ignore[arg-type]


def content(number: int) -> bytes:
    return b"content %d\n" % number * 10


def make(session: Session, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        session.kernel.write_file(b"%d" % number, content(number))
    session.kernel.sync()


def remove(session: Session, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        session.kernel.unlink(b"%d" % number)
    session.kernel.sync()


@pytest.fixture
def orphaned(session: Session) -> Session:
    """A stopped store with ten orphans and the file `10`."""
    make(session, 11)
    remove(session, 10)
    session.stop()
    return session


@pytest.fixture
def in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "LARGEST_BATCH", 3)
    monkeypatch.setattr(gc, "FIRST_BATCH", 3)


def blob_files(path: Path) -> int:
    return sum(1 for _ in (path / "blobs").glob("*/*"))


def test_orphans_go_and_the_rest_stays_beside_a_mount(session: Session) -> None:
    make(session, 5)
    remove(session, 3)
    outcome = collect(session.path)
    assert (outcome.blobs, outcome.bytes, outcome.failures, outcome.error) == (3, 3 * len(content(0)), 0, "")
    assert session.blobs == 2
    make(session, 3)
    assert session.blobs == 5
    assert session.kernel.read_file(b"2") == content(2)


def test_with_nothing_mounted(orphaned: Session) -> None:
    assert collect(orphaned.path).blobs == 10
    assert blob_files(orphaned.path) == 1
    assert_clean(orphaned.path)


def test_a_mount_may_start_and_end_meanwhile(orphaned: Session) -> None:
    with gc.opened(str(orphaned.path)) as store:
        with offline.opened(str(orphaned.path)) as fs:
            gc.execute(store, gc.plan(store, grace_ns=0))
            Kernel(fs).write_file(b"1", content(1), sync=True)
        assert gc.plan(store).orphans.blobs == 0
    with offline.opened(str(orphaned.path)) as fs:
        assert Kernel(fs).read_file(b"1") == content(1)
    assert_clean(orphaned.path)


def test_grace_keeps_the_young(session: Session) -> None:
    make(session, 2)
    remove(session, 2)
    plan = gc.look(str(session.path), grace_ns=HOUR)
    assert (plan.due.blobs, plan.orphans.blobs) == (0, 2)
    assert collect(session.path, grace_ns=HOUR).blobs == 0
    assert gc.look(str(session.path), grace_ns=0).due == (2, 2 * len(content(0)))
    assert session.blobs == 2


def test_the_oldest_go_first(session: Session) -> None:
    make(session, 3)
    for number in (1, 0, 2):
        remove(session, 1, number)
    with gc.opened(str(session.path)) as store:
        due = Collecting(store.namespace).due(time.time_ns(), time.time_ns(), (-1, 0), 10)
    assert [orphan.digest for orphan in due] == [hash_bytes(content(number)) for number in (1, 0, 2)]


def test_what_was_written_again_after_the_plan_stays(session: Session) -> None:
    make(session, 2)
    remove(session, 2)
    with gc.opened(str(session.path)) as store:
        plan = gc.plan(store, grace_ns=0)
        make(session, 1)
        assert gc.execute(store, plan).blobs == 1
    assert session.reopen().read_file(b"0") == content(0)


def test_recheck_sees_what_was_committed_meanwhile(session: Session) -> None:
    make(session, 2)
    remove(session, 2)
    with gc.opened(str(session.path)) as store:
        now = time.time_ns()
        found = Collecting(store.namespace).due(now, now, (-1, 0), 10)
        make(session, 1)
        with batch.transaction(store):
            (left,) = batch.recheck(store, Holds(store.directory), [orphan.id for orphan in found], now, now)
    assert left.digest == hash_bytes(content(1))


def test_a_wrong_count_costs_nothing(session: Session) -> None:
    make(session, 1)
    session.stop()
    with gc.opened(str(session.path)) as store:
        store.namespace.query("UPDATE blob SET refs = 0, orphaned_ns = 1")
        outcome = gc.execute(store, gc.plan(store, grace_ns=0, full=True))
        store.namespace.query("UPDATE blob SET refs = 1, orphaned_ns = NULL")
    assert (outcome.blobs, outcome.miscounted) == (0, 1)
    assert blob_files(session.path) == 1


# Pins


def test_a_pin_holds_back_what_its_paths_have(session: Session) -> None:
    session.kernel.mkdir(b"d")
    session.kernel.write_file(b"d/inside", b"pinned")
    make(session, 2)
    pin = pins.add_pin(str(session.path), [b"/d", b"/0"], reason="why", seconds=None)
    assert (pin.blobs, pin.bytes, pin.reason) == (2, 6 + len(content(0)), "why")
    session.kernel.unlink(b"d/inside")
    remove(session, 2)
    assert collect(session.path).blobs == 1
    pins.remove_pin(str(session.path), pin.id)
    assert collect(session.path).blobs == 2


def test_a_pin_of_everything_holds_what_comes_later_too(session: Session) -> None:
    pins.add_pin(str(session.path), [], reason="", seconds=None)
    make(session, 2)
    remove(session, 2)
    assert collect(session.path).blobs == 0
    (pin,) = pins.list_pins(str(session.path))
    assert pin.everything
    pins.remove_pin(str(session.path), pin.id)
    assert collect(session.path).blobs == 2


def test_an_expired_pin_holds_nothing_and_goes(session: Session) -> None:
    make(session, 1)
    pins.add_pin(str(session.path), [b"/0"], reason="", seconds=0)
    pins.add_pin(str(session.path), [], reason="", seconds=0)
    remove(session, 1)
    assert collect(session.path).blobs == 1
    assert pins.list_pins(str(session.path)) == []


# Files that are in the way


class Stubborn(Durable):
    """Some files cannot be unlinked, so many times."""

    def __init__(self, times: int, refuses: Callable[[str], bool] = lambda path: True) -> None:
        self._times = times
        self._refuses = refuses

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        if self._times and self._refuses(path):
            self._times -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        super().unlink(path, dir_fd=dir_fd)


def test_a_file_that_cannot_be_unlinked_is_tried_again(orphaned: Session) -> None:
    outcome = collect(orphaned.path, durable=Stubborn(2))
    assert (outcome.blobs, outcome.strays, outcome.failures, outcome.error) == (8, 2, 0, "")
    assert_clean(orphaned.path)


def test_one_that_stays_is_reported_and_found_by_a_full_run(orphaned: Session) -> None:
    digest = ""

    def refuses(path: str) -> bool:
        nonlocal digest
        digest = digest or path
        return path == digest

    outcome = collect(orphaned.path, durable=Stubborn(99, refuses))
    assert (outcome.blobs, outcome.failures, outcome.error) == (9, 1, "")
    assert outcome.first_failures == (f"{orphaned.path}/{digest}: {os.strerror(errno.EIO)}",)
    assert_clean(orphaned.path, strays=True)
    outcome = collect(orphaned.path, full=True)
    assert (outcome.strays, outcome.failures) == (1, 0)
    assert_clean(orphaned.path)


def test_ten_failures_in_a_row_end_it(session: Session) -> None:
    make(session, 40)
    remove(session, 40)
    outcome = collect(session.path, durable=Stubborn(99))
    assert outcome.error.startswith("10 files in a row could not be removed: ")
    assert outcome.blobs == 0
    last = gc.history(str(session.path), 1)[0]
    assert (last.failures, last.error) == (outcome.failures, outcome.error)
    assert session.blobs == 40
    outcome = collect(session.path, full=True)
    assert outcome.blobs + outcome.strays == 40
    assert session.blobs == 0


# Full runs


def test_a_full_run_removes_old_strays_only(session: Session) -> None:
    make(session, 1)
    blobs = session.store.filestore.blobs
    old, young = blobs.path(bytes(32)), blobs.path(bytes([1] * 32))
    for path in (old, young):
        Path(path).write_bytes(b"stray")
    # The change time cannot be set back: what is old is so by the clock of the plan.
    while os.stat(young).st_ctime_ns <= os.stat(old).st_ctime_ns:
        Path(young).write_bytes(b"young")
    with gc.opened(str(session.path)) as store:
        grace = HOUR
        now = os.stat(old).st_ctime_ns + grace
        plan = gc.plan(store, grace_ns=grace, full=True, survey=True, now_ns=now)
        assert plan.strays == (1, 5)
        outcome = gc.execute(store, plan)
    assert (outcome.strays, outcome.stray_bytes) == (1, 5)
    assert (os.path.exists(old), os.path.exists(young)) == (False, True)
    os.unlink(young)


def test_a_blob_of_an_open_transaction_is_no_stray(session: Session) -> None:
    """Found without a row, and with one when the turn of the collector has come."""
    stray = gc.strays.Stray(b"\1" * 32, 7)
    make(session, 1)
    with gc.opened(str(session.path)) as store:
        digest = store.namespace.blobs.digest(1)
        assert digest is not None
        known = gc.strays.Stray(digest, len(content(0)))
        with batch.transaction(store):
            assert batch.recheck_strays(store, Holds(store.directory), [stray, known], time.time_ns()) == []
    assert session.blobs == 1


def test_a_full_run_names_what_is_missing(session: Session) -> None:
    make(session, 2)
    session.stop()
    path = next((session.path / "blobs").glob("*/*"))
    kept = path.read_bytes()
    path.unlink()
    outcome = collect(session.path, full=True)
    assert (outcome.missing, outcome.first_missing, outcome.miscounted) == (1, (str(path),), 0)
    path.write_bytes(kept)
    path.chmod(0o400)


# One at a time, and short


def test_a_second_collector_is_refused(session: Session) -> None:
    with (
        gc.opened(str(session.path)),
        pytest.raises(StoreLocked, match=f"process {os.getpid()} "),
        gc.opened(str(session.path)),
    ):
        raise AssertionError("both were let in")


def test_it_leaves_the_lock_of_the_store_alone(orphaned: Session) -> None:
    with gc.opened(str(orphaned.path)):
        assert holder(str(orphaned.path)) is None
        with offline.opened(str(orphaned.path)) as fs:
            assert Kernel(fs).read_file(b"10") == content(10)


@pytest.mark.usefixtures("in_small_batches")
def test_it_stops_between_two_batches(orphaned: Session) -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 2

    outcome = collect(orphaned.path, stop=stop)
    assert outcome.error == "stopped"
    assert 0 < outcome.blobs < 10
    assert outcome.blobs + blob_files(orphaned.path) == 11
    assert_clean(orphaned.path)


@pytest.mark.usefixtures("in_small_batches")
def test_the_turnstile_is_free_between_two_batches(orphaned: Session) -> None:
    with gc.opened(str(orphaned.path)) as store:
        other = Store(str(orphaned.path))
        assert other.turnstile is not None
        turns = 0

        def progress(doing: str, done: int, total: int) -> None:
            nonlocal turns
            assert other.turnstile is not None
            assert other.turnstile.try_enter()
            other.turnstile.leave()
            turns += 1

        gc.execute(store, gc.plan(store, grace_ns=0), progress=progress)
        other.close()
    assert turns == 4


def test_limits_make_batches_small(orphaned: Session) -> None:
    done: list[int] = []
    outcome = collect(
        orphaned.path, limits=Limits(blobs=20), progress=lambda doing, so_far, total: done.append(so_far)
    )
    assert done == [2, 4, 6, 8, 10]
    assert outcome.ended_ns - outcome.started_ns >= 0.5e9


# The record


def test_what_was_done_is_kept(session: Session) -> None:
    make(session, 2)
    remove(session, 2)
    collect(session.path)
    collect(session.path, full=True)
    full, regular = gc.history(str(session.path), 5)
    assert (full.kind, full.blobs, regular.kind, regular.blobs) == ("full", 0, "regular", 2)
    assert regular.bytes == 2 * len(content(0))
    assert regular.ended_ns is not None
    assert regular.ended_ns >= regular.started_ns


# Crashes


class Cut(Exception):
    """The process ends here."""


@pytest.mark.usefixtures("in_small_batches")
def test_power_loss_at_each_step_leaves_only_garbage(orphaned: Session, scratch: Path) -> None:
    store = scratch / "victim"
    copy_store(orphaned.path, store)
    seam = PowerLoss(store)
    images = 0

    def cut(number: int, name: str) -> None:
        nonlocal images
        for lose_files, lose_log in product((False, True), repeat=2):
            image = scratch / f"image-{images}"
            seam.image(image, lose_files=lose_files, lose_log=lose_log)
            images += 1
            after = Session(image)
            assert after.kernel.read_file(b"10") == content(10)
            for again in range(10):  # nothing that has a row may be without its file
                after.kernel.write_file(b"%d" % again, content(again))
            after.kernel.sync()
            after.stop()
            assert_clean(image, strays=True)
            collect(image, full=True)
            assert_clean(image)

    seam.before = cut
    assert collect(store, durable=seam).blobs == 10
    assert {"commit", "sync_log", "unlink"} <= set(seam.calls)
    assert images == 4 * len(seam.calls)


@pytest.mark.usefixtures("in_small_batches")
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_an_error_at_each_step_leaves_only_garbage(orphaned: Session, scratch: Path, error: int) -> None:
    number = 0
    while True:
        store = scratch / f"victim-{number}"
        copy_store(orphaned.path, store)
        seam = FaultyDurable()

        def fail(call: int, name: str, at: int = number) -> None:
            if call == at:
                raise OSError(error, os.strerror(error))

        seam.before = fail
        failed = ""
        try:
            outcome = collect(store, durable=seam)
        except OSError as raised:
            failed = str(raised.errno)
        if number >= len(seam.calls):
            break
        assert failed == str(error) or seam.calls[number] == "unlink"
        assert_clean(store, strays=True)
        if not failed:
            assert outcome.blobs + outcome.strays == 10
        collect(store, full=True)
        assert blob_files(store) == 1
        assert_clean(store)
        number += 1
    assert number > 10
