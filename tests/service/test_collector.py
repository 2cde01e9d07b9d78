"""Collection by the daemon of a mount."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from casfs.filestore.locks import Lock
from casfs.maintenance.collect import gc
from casfs.maintenance.collect import mounted as collect_mounted
from casfs.maintenance.snapshots.create import create
from casfs.namespace.collecting import Amount, Collecting
from casfs.service import collector as module
from casfs.service.collector import Collector
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import collector_daemon_lock, collector_lock, create_store
from tests.fs.mount import Gate, Mount, mounted

SIZE = 1_000
DAY = 86_400.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds later than it is `time` says it is."""
    late = [0.0]
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + late[0])
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(late[0] * 1e9))
    return late


def run(path: Path, body: Callable[[Mount], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with mounted(path) as mount:
                await body(mount)

    create_store(str(path))
    trio.run(main)


async def orphans(mount: Mount, count: int) -> None:
    for number in range(count):
        await mount.write_file(b"f%d" % number, b"%8d" % number + bytes(SIZE - 8))
    await mount.fs.group.durable()
    for number in range(count):
        await mount.unlink(b"f%d" % number)
    await mount.fs.group.durable()


def left(mount: Mount) -> int:
    return int(mount.fs.store.namespace.blobs.totals()[2])


async def collecting(mount: Mount, share: float, until: Callable[[], bool]) -> Collector:
    """Have it run until then."""
    collector = Collector(mount.fs, share)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector.run)
        with trio.fail_after(30):
            while not until():  # noqa: ASYNC110 - there is no event: rows are looked at
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return collector


def test_orphans_that_are_too_many_go_before_their_time(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST", 30 * SIZE)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)

    async def body(mount: Mount) -> None:
        await orphans(mount, 25)
        await collecting(mount, 10.0, lambda: True)
        assert left(mount) == 25
        await orphans(mount, 50)
        collector = await collecting(mount, 10.0, lambda: left(mount) <= 30)
        assert left(mount) == 27, "nine tenths of what they may take"
        assert collector.state()["early"] == 1

    run(scratch / "store", body)


def test_a_snapshot_that_cannot_be_read_is_told_without_a_traceback(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LEAST", 10 * SIZE)

    async def body(mount: Mount) -> None:
        await create(mount.fs, "torn")
        await orphans(mount, 50)
        (scratch / "store" / "snapshots" / "torn" / "casfs.db").write_bytes(b"nothing" * 1000)
        await Collector(mount.fs, 10)._look()
        assert left(mount) == 50
        SnapshotFolder(mount.fs.store.directory).remove("torn")
        await Collector(mount.fs, 10)._look()
        assert left(mount) < 50

    run(scratch / "store", body)
    assert "torn" in caplog.text
    assert "Traceback" not in caplog.text


def test_without_a_share_orphans_may_take_all(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)

    async def body(mount: Mount) -> None:
        await orphans(mount, 5)
        looks = iter(range(20))
        await collecting(mount, 0.0, lambda: next(looks, None) is None)
        assert left(mount) == 5

    run(scratch / "store", body)


def test_snapshots_that_have_expired_go_where_there_is_only_a_mount(
    scratch: Path, clock: list[float]
) -> None:
    async def body(mount: Mount) -> None:
        await create(mount.fs, "old", expires_ns=time.time_ns() + 10**9)
        await create(mount.fs, "kept")
        collector = Collector(mount.fs, 10.0)
        await collector._look()
        clock[0] = DAY
        await collector._look()
        assert SnapshotFolder(mount.fs.store.directory).names() == ["kept"]

    run(scratch / "store", body)


def test_who_only_mounts_is_collected_by_the_schedule(scratch: Path, clock: list[float]) -> None:
    """A minute after the mount, if a run was missed; what is younger than the grace period stays."""

    async def body(mount: Mount) -> None:
        await orphans(mount, 5)
        collector = Collector(mount.fs, 10.0)
        await collector._look()
        assert left(mount) == 5
        clock[0] = gc.GRACE_NS / 1e9 + DAY
        await collector._look()
        assert left(mount) == 0
        last = Collecting(mount.fs.store.namespace).last_ended()
        assert last is not None
        assert (last.kind, last.blobs) == ("regular", 5)
        assert collector.state()["by"] == "this mount"
        assert collector._due > time.time()
        await collector._look()
        assert len(Collecting(mount.fs.store.namespace).runs(10)) == 1, "a run with nothing to do"

    run(scratch / "store", body)


@pytest.mark.parametrize("lock", [collector_daemon_lock, collector_lock])
def test_the_schedule_is_left_to_another_collector(
    scratch: Path, clock: list[float], lock: Callable[[str], Lock]
) -> None:
    async def body(mount: Mount) -> None:
        await orphans(mount, 5)
        clock[0] = gc.GRACE_NS / 1e9 + DAY
        collector = Collector(mount.fs, 10.0)
        held = lock(mount.fs.store.path)
        assert held.acquire()
        await collector._look()
        assert left(mount) == 5
        held.release()
        clock[0] += DAY
        await collector._look()
        assert left(mount) == 0

    run(scratch / "store", body)


def test_a_batch_that_is_under_way_ends_before_the_mount_does(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files go after its rows: cut off, it would leave files that only a full run finds."""
    monkeypatch.setattr(module, "LEAST", 0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(collect_mounted, "BUSY_BATCH", 10)
    monkeypatch.setattr(collect_mounted, "IDLE_BATCH", 10)

    async def body(mount: Mount) -> None:
        await orphans(mount, 50)
        gate = Gate()
        unlink = collect_mounted._unlink_condemned

        def held(*args: Any) -> Amount:
            gate()
            return unlink(*args)

        monkeypatch.setattr(collect_mounted, "_unlink_condemned", held)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Collector(mount.fs, 0.001).run)
            await gate.arrived()
            nursery.cancel_scope.cancel()
            gate.open()
        assert left(mount) == 40
        assert len(list((scratch / "store" / "blobs").glob("*/*"))) == 40

    run(scratch / "store", body)
