"""The event loop sleeps by itself only when nothing else can run; what a thread has done wakes it at once."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any
from unittest.mock import MagicMock

import outcome
import pytest
import trio

from casfs.errors import FsError
from casfs.fuse import loop
from casfs.fuse.accelerated import Accelerated
from casfs.fuse.scheduler import THREADS, TrioScheduler

Verb = Callable[[], Coroutine[Any, Any, object]]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def trio_may_sleep(scheduler: TrioScheduler) -> bool:
    """What trio itself knows, besides the rest of the batch that it is running."""
    trios = trio.lowlevel.current_statistics()
    return not (scheduler.runnable or trios.tasks_runnable or trios.run_sync_soon_queue_size) and (
        trios.seconds_to_next_deadline > 0
    )


class Native:
    """Serves verbs as native/serve.c does requests, and watches over each sleep."""

    IDLE, PENDING, BURST, WOKEN, ENDED = range(5)

    def __init__(self, scheduler: TrioScheduler) -> None:
        self.scheduler = scheduler
        self.requests: deque[Verb] = deque()
        self.expected = 0
        self.answers: dict[int, object] = {}
        self.sleeps = 0
        self.suspended: Any = None

    def prepare(self, _handlers: object, suspended: object, *_rest: object) -> None:
        self.suspended = suspended

    def stack_depth(self, _path: str) -> int:
        return 0

    def status(self) -> dict[str, object]:
        return {"negotiated": False}

    def finish(self, _opcode: int, unique: int, result: object, error: BaseException | None) -> None:
        self.answers[unique] = error or result

    def caller(self) -> int:
        return 0

    def ask(self, *verbs: Verb) -> None:
        self.requests.extend(verbs)
        self.expected += len(verbs)

    def serve(self, patience: int, burst: int) -> int:
        assert burst > 0
        assert self.scheduler.direct
        if self.requests:
            verb, unique = self.requests.popleft()(), self.expected - len(self.requests)
            try:
                wait = verb.send(None)
            except StopIteration as stop:
                self.answers[unique] = stop.value
            else:
                self.suspended(verb, 1, unique, wait)
            return self.BURST
        if len(self.answers) == self.expected:
            return self.ENDED
        if patience:
            self.sleeps += 1
            assert trio_may_sleep(self.scheduler), "asleep while something could run"
        woken, _, _ = select.select([self.scheduler.wake_fd], [], [], patience / 1000)
        if woken:
            os.eventfd_read(self.scheduler.wake_fd)
            return self.WOKEN
        return self.IDLE if patience else self.BURST


Body = Callable[[TrioScheduler, Native], Awaitable[None]]


def serve(body: Body, pipe: tuple[int, int]) -> Native:
    """Run the accelerator's loop until all that `body` asks for is answered."""

    async def main() -> Native:
        scheduler = TrioScheduler()
        native = Native(scheduler)
        stand_in: Any = native
        accelerated = Accelerated(stand_in, MagicMock(), MagicMock(), scheduler)
        answered = native.finish

        def finish(*answer: Any) -> None:
            answered(*answer)
            os.write(pipe[1], b".")  # as the program that sends its next request then

        native.finish = finish  # type: ignore[method-assign]
        with trio.fail_after(20):
            await body(scheduler, native)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 0)

                async def session_loop() -> None:
                    while len(native.answers) < native.expected:
                        await accelerated.wait_readable(pipe[0])

                await session_loop()
        await accelerated.run(trio.lowlevel.checkpoint)
        assert not accelerated._waiting
        return native

    return trio.run(main)


def test_it_does_not_sleep_before_a_waiting_request_has_its_thread(pipe: tuple[int, int]) -> None:
    async def body(scheduler: TrioScheduler, native: Native) -> None:
        async def read() -> int:
            return await scheduler.run(max, 1, 2)

        native.ask(*[read] * 200)

    native = serve(body, pipe)
    assert set(native.answers.values()) == {2}


def test_it_does_not_sleep_while_a_task_could_run(pipe: tuple[int, int]) -> None:
    """A commit runs in a task, others wait for it, and it for threads and for others."""

    async def body(scheduler: TrioScheduler, native: Native) -> None:
        done = [scheduler.event() for _ in range(50)]

        async def commit() -> None:
            for event in done:
                await scheduler.run(max, 1, 2)
                await scheduler.pause()
                await trio.lowlevel.checkpoint()
                event.set()

        def fsync(event: Any) -> Verb:
            async def verb() -> str:
                await event.wait()
                await scheduler.pause()
                await scheduler.run(os.getpid)
                return "durable"

            return verb

        native.ask(*map(fsync, done))
        trio.lowlevel.spawn_system_task(commit)

    native = serve(body, pipe)
    assert set(native.answers.values()) == {"durable"}


def test_a_thread_that_works_for_long_costs_no_turns(pipe: tuple[int, int]) -> None:
    turns = []

    async def body(scheduler: TrioScheduler, native: Native) -> None:
        may_end = threading.Event()

        async def fsync() -> object:
            return await scheduler.run(may_end.wait)

        native.ask(fsync)
        counted = native.serve

        def count(patience: int, burst: int) -> int:
            turns.append(patience)
            return counted(patience, burst)

        native.serve = count  # type: ignore[method-assign]

        async def end() -> None:
            """Once nobody has anything to do any more."""
            await trio.testing.wait_all_tasks_blocked(0.2)
            turns.append(-1)
            may_end.set()

        trio.lowlevel.spawn_system_task(end)

    native = serve(body, pipe)
    assert set(native.answers.values()) == {True}
    assert turns.index(-1) < 20, "it asked again and again"
    assert native.sleeps


def test_a_result_that_comes_with_a_request_for_libfuse_is_not_lost(pipe: tuple[int, int]) -> None:
    """`serve` has read wake_fd then. Writers hung beside `casfs cp`."""

    async def body(scheduler: TrioScheduler, native: Native) -> None:
        async def read() -> int:
            return await scheduler.run(max, 1, 2)

        native.ask(read)
        alone = native.serve

        def serve(patience: int, burst: int) -> int:
            if not native.requests and not native.answers:
                select.select([scheduler.wake_fd], [], [], 1)
            state = alone(patience, burst)
            return native.PENDING if state == native.WOKEN else state

        native.serve = serve  # type: ignore[method-assign]

    native = serve(body, pipe)
    assert set(native.answers.values()) == {2}


def test_an_error_of_a_thread_is_the_requests_own(pipe: tuple[int, int]) -> None:
    def refuse() -> None:
        raise FsError(5)

    async def body(scheduler: TrioScheduler, native: Native) -> None:
        async def read() -> None:
            await scheduler.run(refuse)

        async def caught() -> str:
            try:
                await scheduler.run(refuse)
            except FsError:
                return await scheduler.run(str, "caught")
            return "not raised"

        native.ask(read, caught)

    native = serve(body, pipe)
    assert isinstance(native.answers[1], FsError)
    assert native.answers[2] == "caught"


def test_a_verb_that_waits_for_trio_fails_and_hangs_nobody(pipe: tuple[int, int]) -> None:
    """It has no task: whoever had asked waited for ever."""

    async def body(scheduler: TrioScheduler, native: Native) -> None:
        async def wrong() -> None:
            await scheduler.run(str)
            await trio.lowlevel.checkpoint()

        native.ask(wrong)

    native = serve(body, pipe)
    assert isinstance(native.answers[1], RuntimeError)


def test_no_more_threads_at_a_time_than_there_may_be(pipe: tuple[int, int]) -> None:
    lock = threading.Lock()
    now = most = 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1

    async def body(scheduler: TrioScheduler, native: Native) -> None:
        async def verb() -> None:
            await scheduler.run(work)

        native.ask(*[verb] * (THREADS * 5))

    native = serve(body, pipe)
    assert len(native.answers) == THREADS * 5
    assert most <= THREADS


def test_the_loop_outlives_a_callback_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        scheduler = TrioScheduler()
        done = trio.Event()

        def fail(_: object) -> None:
            raise ValueError("unexpected")

        scheduler.soon(fail, outcome.Value(None))
        scheduler.soon(lambda _: done.set(), outcome.Value(None))
        await done.wait()

    trio.run(main)
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ["unexpected"]
    caplog.clear()


# Without the accelerator


def test_the_plain_loop_does_not_sleep_while_a_task_could_run(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is awaited by one task, and goes on in it: pyfuse3's way."""
    real = select.poll
    sleeps = []

    class Poll:
        def __init__(self) -> None:
            self.poll_ = real()
            self.register = self.poll_.register

        def poll(self, patience: int) -> list[tuple[int, int]]:
            if patience:
                sleeps.append(patience)
                trios = trio.lowlevel.current_statistics()
                assert not scheduler.runnable, "asleep while something could run"
                assert trios.seconds_to_next_deadline > 0
            return self.poll_.poll(patience)

    monkeypatch.setattr(loop.select, "poll", Poll)
    answers: list[int] = []

    async def main() -> None:
        nonlocal scheduler
        scheduler = TrioScheduler()
        wait = loop.RequestWait(scheduler)
        baton = loop.Baton(scheduler.runnable)

        async def session_loop(nursery: trio.Nursery) -> None:
            while len(answers) < 300:
                async with baton:
                    await wait.wait_readable(pipe[0])
                    os.read(pipe[0], 1)
                answers.append(await scheduler.run(max, 1, 2))
                await trio.lowlevel.checkpoint()
                os.write(pipe[1], b".")
            nursery.cancel_scope.cancel()

        os.write(pipe[1], b"." * 2)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(session_loop, nursery)

    scheduler: TrioScheduler
    trio.run(main)
    assert set(answers) == {2}
    assert sleeps
