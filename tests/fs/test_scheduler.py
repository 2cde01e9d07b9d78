"""Waiting without an event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from casfs.fs.scheduler import InlineScheduler, Mutex, run_inline


def test_what_blocks_runs_where_it_is_called() -> None:
    async def verb(scheduler: InlineScheduler) -> int:
        await scheduler.pause()
        event = scheduler.event()
        event.set()
        await event.wait()
        return await scheduler.run(max, 1, 2)

    assert run_inline(verb(InlineScheduler())) == 2


def test_waiting_for_nobody_is_an_error_not_a_hang() -> None:
    async def verb() -> None:
        mutex = Mutex(InlineScheduler())
        async with mutex:
            assert mutex.busy
            async with mutex:
                raise AssertionError("taken twice")

    with pytest.raises(RuntimeError, match="nobody"):
        run_inline(verb())


def test_a_mutex_is_free_again_after_an_error() -> None:
    mutex = Mutex(InlineScheduler())

    async def verb() -> None:
        async with mutex:
            raise ValueError("inside")

    for _ in range(2):
        with pytest.raises(ValueError, match="inside"):
            run_inline(verb())
    assert not mutex.busy


def test_what_really_waits_does_not_run_inline() -> None:
    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    async def verb() -> None:
        await Never()

    with pytest.raises(RuntimeError, match="inline scheduler"):
        run_inline(verb())
