"""The task that follows names, in the event loop of a mount."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
import trio

from casfs.fuse.scheduler import TrioScheduler
from casfs.repositories.filesystem import file_system, follower_of
from casfs.store import Store


@pytest.mark.trio
async def test_it_ends_with_the_mount_also_where_nothing_can_be_written_any_more(
    store_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It tried again for ever, in waits that nobody can cancel."""

    async def fails() -> tuple[int, int]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with contextlib.closing(Store(str(store_path))) as store:
        fs = file_system(store, TrioScheduler())
        await fs.start()
        follower = follower_of(fs)
        monkeypatch.setattr(follower, "_step", fails)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follower.run)
                await fs.group.begin()
                follower.follow(1)
                await trio.sleep(0.3)
                nursery.cancel_scope.cancel()
        assert "has to wait" in caplog.text
        monkeypatch.undo()
        await follower.drain()
        await fs.stop()
