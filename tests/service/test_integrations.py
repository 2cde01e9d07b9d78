"""What the daemon does about snapshots by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from casfs.errors import FsError
from casfs.fuse.caches import KernelCaches
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.service import integrations as module
from casfs.service.integrations import IntegrationCleanup
from casfs.store import create_store
from tests.fs.mount import mounted


@pytest.mark.parametrize("fails", [False, True])
def test_old_snapshots_go_when_they_are_quiet(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr("casfs.fuse.caches._unless_unknown", lambda *_: False)  # there is no kernel
    failures = iter(range(2 * fails))
    clean = module.clean

    async def failing(*args: object) -> object:
        if next(failures, None) is not None:
            raise FsError(5)
        return await clean(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "clean", failing)

    async def main() -> None:
        async with mounted(scratch / "store") as mount:
            fs = mount.fs
            libs = await fs.tree.make(1, b"libs", 0o40755, 0, 0)
            await fs.group.begin()
            rules = '{"max_unique_snapshots": 1}'
            fs.store.namespace.repositories.set(
                RepositoryRow(libs.ino, "local", "maven-2-default", None, rules)
            )
            registry_of(fs).read()
            directory = libs.ino
            for name in (b"org", b"app", b"1.0-SNAPSHOT"):
                directory = (await fs.tree.make(directory, name, 0o40755, 0, 0)).ino
            for number in range(3):
                name = b"app-1.0-20240102.03040%d-1.jar" % number
                await fs.tree.make(directory, name, 0o100644, 0, 0)
            follower_of(fs).follow(libs.ino)
            await follower_of(fs).drain()
            await fs.group.durable()
            names = fs.store.namespace.dentries.children
            async with trio.open_nursery() as nursery:
                nursery.start_soon(IntegrationCleanup(fs, KernelCaches(fs)).run)
                await trio.sleep(0.1)
                assert len(names(directory, 0, 9)) == 3
                now = time.time_ns()
                monkeypatch.setattr(time, "time_ns", lambda: now + 120 * 10**9)
                with trio.fail_after(30):
                    while len(names(directory, 0, 9)) > 1:  # noqa: ASYNC110 - rows are looked at
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            assert [row[1] for row in names(directory, 0, 9)] == [b"app-1.0-20240102.030402-1.jar"]

    create_store(str(scratch / "store"))
    trio.run(main)
    assert caplog.text.count("snapshots could not be cleaned up") == 2 * fails
    caplog.clear()
