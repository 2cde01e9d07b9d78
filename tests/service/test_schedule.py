"""When a daemon works."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from casfs.cron import has_missed, next_run
from casfs.errors import UsageError
from casfs.service import schedule as module
from casfs.service.schedule import Schedule, hold_signals

NEVER = "0 0 29 2 *"
"""Not due while a test runs, but on one day in four years."""

YEAR = 365 * 86_400.0


@pytest.fixture(autouse=True)
def states(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd is told."""
    told: list[str] = []
    monkeypatch.setattr(module, "notify", told.append)
    return told


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Tests that follow get signals as before."""
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


# Cron expressions


@pytest.mark.parametrize("expression", ["", "x", "99 * * * *", "0 0 30 2 *"])
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    with pytest.raises(UsageError, match="no cron expression"):
        next_run(expression, 0)
    with pytest.raises(UsageError, match="no cron expression"):
        Schedule(expression, "run")


def test_every_four_hours() -> None:
    first = next_run("0 */4 * * *", 1_000_000_000)
    assert next_run("0 */4 * * *", first) - first == 4 * 3600


def test_a_run_is_missed_once_another_one_was_due() -> None:
    now = time.time()
    assert has_missed("* * * * *", now - 61)
    assert not has_missed(NEVER, now)
    assert has_missed(NEVER, now - 9 * YEAR)
    assert has_missed(NEVER, None)


# Working


def run(schedule: Schedule, work: Callable[[], float], last: float | None = None) -> int:
    """Let it work; how often it did. `work` says when the next run is due, and has to end it some time."""
    runs = 0

    async def step() -> float:
        nonlocal runs
        runs += 1
        due = work()
        await trio.testing.wait_all_tasks_blocked()
        return due

    async def main() -> None:
        with trio.fail_after(30):
            await schedule.run(lambda: last, step)

    trio.run(main)
    return runs


def send(number: int) -> None:
    """To this thread: those that a test before has left do not hold signals."""
    signal.pthread_kill(threading.get_ident(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_missed_run_comes_at_once_and_a_signal_ends_it(number: int, states: list[str]) -> None:
    schedule = Schedule(NEVER, "nap")

    def work() -> float:
        assert not schedule.ending()
        send(number)
        return schedule.next()

    assert run(schedule, work) == 1
    assert schedule.ending()
    due = next(state for state in states if state.startswith("STATUS="))
    assert states[0] == "READY=1"
    assert due.startswith("STATUS=the next nap is due at ")
    assert "STOPPING=1" in states


def test_a_run_is_due_when_the_last_one_said_so() -> None:
    schedule = Schedule(NEVER, "run")
    dues = iter([0.0, time.time() + 0.05])

    def work() -> float:
        due = next(dues, None)
        if due is None:
            send(signal.SIGTERM)
        return due or 0.0

    assert run(schedule, work) == 3


def test_a_signal_that_came_before_it_waited_for_any_asks_for_a_run() -> None:
    schedule = Schedule(NEVER, "run")
    hold_signals()
    send(signal.SIGUSR1)

    def work() -> float:
        send(signal.SIGTERM)
        return schedule.next()

    assert run(schedule, work, last=time.time()) == 1


def test_who_asks_during_a_run_gets_another_one() -> None:
    schedule = Schedule(NEVER, "run")
    asked = iter([signal.SIGUSR1, signal.SIGTERM])

    def work() -> float:
        send(next(asked))
        return schedule.next()

    assert run(schedule, work) == 2


def test_time_is_filled_until_there_is_something_else_to_do() -> None:
    schedule = Schedule(NEVER, "run")
    sent = iter([signal.SIGUSR1, signal.SIGTERM])

    async def work() -> float:
        later = time.time() + 3600
        assert not schedule.is_time(later)
        assert schedule.is_time(time.time())
        send(next(sent))
        with trio.fail_after(30):
            while not schedule.is_time(later):  # noqa: ASYNC110 - a thread asks like that
                await trio.sleep(0.001)
        return later

    trio.run(schedule.run, lambda: None, work)


def test_what_asks_for_the_last_run_may_fail(states: list[str]) -> None:
    def last() -> float:
        raise OSError("no disk")

    async def work() -> float:
        raise AssertionError

    with pytest.raises(OSError, match="no disk"):
        trio.run(Schedule(NEVER, "run").run, last, work)
    assert states == []


def test_a_clock_that_was_years_ahead_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    schedule = Schedule("0 * * * *", "run")
    now = 1_800_000_000.0
    monkeypatch.setattr(module.time, "time", lambda: now + clock.current_time())
    due = next_run("0 * * * *", now + 10 * YEAR)

    async def wait() -> float:
        began = trio.current_time()
        assert await schedule.wait_until(due)
        return trio.current_time() - began

    assert trio.run(wait, clock=clock) <= 3_600 + module.LOOK_SECONDS


def test_several_schedules_go_on_beside_each_other_and_end_with_the_first() -> None:
    schedule, other = Schedule(NEVER, "run"), Schedule(NEVER, "nap")
    naps = 0

    async def nap() -> float:
        nonlocal naps
        naps += 1
        if naps == 2:
            send(signal.SIGTERM)
        return time.time() if naps == 1 else other.next()

    async def beside() -> None:
        await other.repeat(nap, time.time())

    async def work() -> float:
        raise AssertionError

    async def main() -> None:
        with trio.fail_after(30):
            await schedule.run(time.time, work, beside=[beside])

    trio.run(main)
    assert naps == 2
    assert not other.ending()


def test_one_that_is_wanted_or_ended_by_its_owner_does_not_wait() -> None:
    schedule = Schedule(NEVER, "run")
    runs = 0

    async def work() -> float:
        nonlocal runs
        runs += 1
        return schedule.next()

    async def main() -> None:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(schedule.repeat, work, schedule.next())
                await trio.testing.wait_all_tasks_blocked()
                schedule.want()
                await trio.testing.wait_all_tasks_blocked()
                assert runs == 1
                schedule.end()

    trio.run(main)
    assert runs == 1
