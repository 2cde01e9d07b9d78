"""How the file system waits in the event loop of a mount."""

from __future__ import annotations

from itertools import count

import pytest
import trio

from casfs.fuse.scheduler import GIVE_WAY_SECONDS, TrioScheduler


@pytest.mark.trio
async def test_work_gives_way_as_long_as_requests_come_and_no_longer_than_is_said() -> None:
    """Each request of a program that sends one after the other waited for a slice of the work."""
    scheduler = TrioScheduler()
    numbers = count(1)
    scheduler.requests = lambda: next(numbers)
    began = trio.current_time()
    await scheduler.give_way()
    assert trio.current_time() - began >= GIVE_WAY_SECONDS


@pytest.mark.trio
async def test_work_gives_no_way_where_no_request_has_come() -> None:
    scheduler = TrioScheduler()
    scheduler.requests = lambda: 7
    await scheduler.give_way()
    asked: list[int] = []
    scheduler.requests = lambda: asked.append(7) or 7
    await scheduler.give_way()
    assert len(asked) == 1
