"""Which snapshots are kept: against the words of restic's manual."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casfs.maintenance.snapshots.retention import ALL, EVERYTHING, NS, Fate, Retention, decide

DAY = 86_400
JOB = "nightly"
NOW = int(datetime(2030, 6, 1, 12, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class Snapshot:
    name: str
    made_ns: int
    expires_ns: int | None = None
    job: str = JOB


def made(*seconds: int, **others: Any) -> list[Snapshot]:
    return [Snapshot(f"s{number}", second * NS, **others) for number, second in enumerate(seconds)]


def apply(snapshots: Sequence[Snapshot], policy: Retention, **others: Any) -> Fate[Snapshot]:
    return decide(snapshots, policy, **{"job": JOB, "now_ns": NOW * NS, "zone": UTC, **others})


def kept(fate: Fate[Snapshot]) -> set[str]:
    return {snapshot.name for snapshot, _ in fate.keeps}


# The manual, as one would read it

PERIODS: dict[str, Callable[[datetime], Any]] = {
    "keep_hourly": lambda local: local.strftime("%Y-%m-%d %H"),
    "keep_daily": lambda local: local.date(),
    "keep_weekly": lambda local: local.date() - timedelta(days=local.weekday()),  # its Monday
    "keep_monthly": lambda local: local.strftime("%Y-%m"),
    "keep_yearly": lambda local: local.year,
}


def by_the_manual(snapshots: Sequence[Snapshot], policy: Retention, zone: tzinfo) -> set[str]:
    """Each rule for itself; "the results are ORed"."""
    ordered = sorted(snapshots, key=lambda snapshot: (-snapshot.made_ns, snapshot.name))
    keep: set[str] = set()
    if not ordered:
        return keep
    keep |= {snapshot.name for snapshot in ordered[: policy.keep_last]}
    for field, period in PERIODS.items():
        number = getattr(policy, field)
        newest: dict[Any, str] = {}
        for snapshot in ordered:
            local = datetime.fromtimestamp(snapshot.made_ns / NS, zone)
            newest.setdefault(period(local), snapshot.name)
        keep |= set(list(newest.values())[:number])
        if number > len(newest):  # "if there are not enough …, the oldest snapshot is kept additionally"
            keep.add(ordered[-1].name)
    past = [snapshot.made_ns for snapshot in ordered if snapshot.made_ns <= NOW * NS]
    if policy.keep_within_ns:
        since = max(past, default=NOW * NS) - policy.keep_within_ns
        keep |= {snapshot.name for snapshot in ordered if snapshot.made_ns > since}
    return keep


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]).map(ZoneInfo)
TIMES = st.one_of(
    st.integers(NOW - 4 * 365 * DAY, NOW),
    st.integers(NOW - 3 * DAY, NOW + 3 * DAY),
    st.integers(0, 200).map(lambda hour: NOW - 1800 * hour),
)
NUMBERS = st.integers(0, 12)
POLICIES = st.builds(
    Retention,
    keep_last=NUMBERS,
    keep_hourly=NUMBERS,
    keep_daily=NUMBERS,
    keep_weekly=NUMBERS,
    keep_monthly=NUMBERS,
    keep_yearly=NUMBERS,
    keep_within_ns=st.one_of(st.just(0), st.integers(1, 400 * DAY).map(lambda seconds: seconds * NS)),
)


@given(st.lists(TIMES, max_size=60), POLICIES, ZONES)
@example([], Retention(keep_last=1), ZoneInfo("UTC"))
@example([NOW, NOW], Retention(keep_daily=2), ZoneInfo("UTC"))
def test_what_the_manual_keeps_is_kept_and_no_other(
    times: list[int], policy: Retention, zone: ZoneInfo
) -> None:
    snapshots = made(*times)
    fate = apply(snapshots, policy, zone=zone)
    if policy == EVERYTHING:
        assert not fate.drops
        return
    assert kept(fate) == by_the_manual(snapshots, policy, zone)
    assert all(reasons for _, reasons in fate.keeps)
    assert len(fate.keeps) + len(fate.drops) == len(times)


@given(st.lists(TIMES, max_size=40, unique=True), POLICIES, st.integers(1, 20), st.integers(1, 400))
def test_limits_only_take_away(times: list[int], policy: Retention, most: int, days: int) -> None:
    snapshots = made(*times)
    free = kept(apply(snapshots, policy))
    limited = apply(snapshots, replace(policy, max_count=most, max_age_ns=days * DAY * NS))
    assert kept(limited) <= free
    assert len(limited.keeps) <= most
    past = [time for time in times if time <= NOW]
    newest = max(past, default=NOW)
    assert all(snapshot.made_ns > (newest - days * DAY) * NS for snapshot, _ in limited.keeps)
    assert [snapshot.made_ns for snapshot, _ in limited.keeps] == sorted(
        (snapshot.made_ns for snapshot, _ in limited.keeps), reverse=True
    )


@given(st.lists(TIMES, min_size=1, max_size=30, unique=True), POLICIES)
def test_done_twice_nothing_more_goes(times: list[int], policy: Retention) -> None:
    """A daemon applies the rules after each run; what one pass keeps the next one keeps as well."""
    first = apply(made(*times), policy)
    second = apply([snapshot for snapshot, _ in first.keeps], policy)
    assert not second.drops


@given(st.lists(TIMES, min_size=1, max_size=30), POLICIES)
def test_the_newest_one_stays_under_any_rule(times: list[int], policy: Retention) -> None:
    fate = apply(made(*times), replace(policy, max_count=1, max_age_ns=1))
    newest = max(times)
    if newest <= NOW:
        assert [snapshot.made_ns for snapshot, _ in fate.keeps] == [newest * NS]


OTHERS = st.sampled_from(["", "hourly", "nightly2"])


@given(st.lists(st.tuples(TIMES, OTHERS), max_size=20), st.lists(TIMES, max_size=20), POLICIES)
def test_what_others_made_stays_and_does_not_count(
    others: list[tuple[int, str]], times: list[int], policy: Retention
) -> None:
    ours = made(*times)
    theirs = [Snapshot(f"x{number}", time * NS, job=job) for number, (time, job) in enumerate(others)]
    fate = apply(theirs + ours, policy)
    assert kept(fate) == kept(apply(ours, policy)) | {snapshot.name for snapshot in theirs}


@given(st.lists(st.tuples(TIMES, OTHERS, st.integers(-3, 3)), max_size=20))
def test_what_has_expired_goes_whoever_made_it(rows: list[tuple[int, str, int]]) -> None:
    snapshots = [
        Snapshot(f"s{number}", time * NS, None if not after else NOW * NS + after, job)
        for number, (time, job, after) in enumerate(rows)
    ]
    expired = {snapshot.name for snapshot, row in zip(snapshots, rows, strict=True) if row[2] < 0}
    for job in ("", JOB):
        fate = apply(snapshots, Retention(keep_last=ALL), job=job)
        assert {(snapshot.name, why) for snapshot, why in fate.drops} == {(n, "expired") for n in expired}


# Examples


def test_twelve_sundays() -> None:
    """The manual's example of `--keep-daily 4`."""
    sundays = [int(datetime(2019, 9, 1, 11, tzinfo=UTC).timestamp()) + 7 * DAY * n for n in range(12)]
    fate = apply(made(*sundays), Retention(keep_daily=4))
    assert [(snapshot.name, reasons) for snapshot, reasons in fate.keeps] == [
        (name, ("daily",)) for name in ("s11", "s10", "s9", "s8")
    ]
    assert {why for _, why in fate.drops} == {"no rule keeps it"}


def test_a_hundred_years_of_days() -> None:
    """The manual's. On a Saturday, the first of a month: one week is in the seven days besides the one under
    way, two months and a year are in what others keep."""
    days = [NOW - DAY * n for n in range(36_500)]
    policy = Retention(keep_daily=7, keep_weekly=5, keep_monthly=12, keep_yearly=75)
    fate = apply(made(*days), policy)
    assert len(fate.keeps) == 7 + 3 + 10 + 73
    assert fate.keeps[0][1] == ("daily", "weekly", "monthly", "yearly")


def test_the_oldest_stays_until_a_rule_has_all_that_it_may_keep() -> None:
    morning, evening = NOW - DAY, NOW - DAY + 3600
    fate = apply(made(morning, evening, NOW), Retention(keep_daily=3))
    assert [reasons for _, reasons in fate.keeps] == [("daily",), ("daily",), ("oldest daily",)]
    assert kept(apply(made(morning, evening, NOW), Retention(keep_daily=2))) == {"s1", "s2"}


def test_days_are_those_of_the_local_calendar() -> None:
    before, after = (int(datetime(2030, 1, 1, hour, tzinfo=UTC).timestamp()) for hour in (22, 23))
    two = made(before, after, before - 30 * DAY)
    assert "s0" not in kept(apply(two, Retention(keep_daily=1)))
    assert kept(apply(two, Retention(keep_daily=2), zone=UTC)) == {"s1", "s2"}
    assert kept(apply(two, Retention(keep_daily=2), zone=ZoneInfo("Europe/Berlin"))) == {"s0", "s1"}


def test_an_hour_that_comes_twice_is_one() -> None:
    """When summer time ends: 02:30 and, an hour later, 02:30."""
    first = int(datetime(2030, 10, 27, 0, 30, tzinfo=UTC).timestamp())
    snapshots = made(first - 3600, first, first + 3600)
    berlin = {"zone": ZoneInfo("Europe/Berlin"), "now_ns": (first + DAY) * NS}
    assert kept(apply(snapshots, Retention(keep_hourly=2), **berlin)) == {"s2", "s0"}


@pytest.mark.parametrize("numbers", [{"keep_last": ALL}, {"keep_hourly": ALL}])
def test_all_are_kept(numbers: dict[str, int]) -> None:
    assert len(apply(made(*range(NOW - 400 * 7200, NOW, 7200)), Retention(**numbers)).keeps) == 400


def test_made_while_the_clock_was_ahead() -> None:
    """Seen from a time that has not come, none but it would be young."""
    snapshots = made(NOW - 5 * DAY, NOW - 3600, NOW, NOW + 3650 * DAY)
    assert kept(apply(snapshots, Retention(keep_within_ns=2 * DAY * NS))) == {"s1", "s2", "s3"}
    assert kept(apply(snapshots, Retention(max_age_ns=2 * DAY * NS))) == {"s1", "s2", "s3"}
