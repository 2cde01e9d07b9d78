"""Which snapshots of a schedule are kept, and what for: the rules of `restic forget`, and two limits.

The rules as restic's manual has them, "Removing snapshots according to a policy". Pure: it is told what there
is and what time it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Generic, Protocol, TypeVar

ALL = -1
"""As a number to keep: no end of them."""

NS = 1_000_000_000


class Made(Protocol):
    """What retention has to know of a snapshot; its manifest is one."""

    @property
    def name(self) -> str: ...

    @property
    def made_ns(self) -> int:
        """ns since 1970."""

    @property
    def expires_ns(self) -> int | None:
        """ns since 1970; None = never."""

    @property
    def job(self) -> str:
        """The schedule that made it; "" = made by hand."""


Snapshot = TypeVar("Snapshot", bound=Made)


@dataclass(frozen=True, slots=True)
class Retention:
    """A snapshot stays if any rule of `keep_…` has it, or if there is none. 0: there is no such rule.

    `keep_last`: so many of the newest. `keep_hourly` and the like: the newest one of so many of the newest
    hours (days, weeks that begin on Monday, months, years) of the local calendar that have one. A rule that
    has not found as many as it may keep has the oldest of all besides, so that history grows to its length.
    `keep_within_ns`: what is not older than that, seen from the newest one.

    `max_count`, `max_age_ns`: whatever the rules say, so many at the most, none older than that, seen from
    the newest one; the newest one itself stays.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within_ns: int = 0
    max_count: int = 0
    max_age_ns: int = 0


EVERYTHING = Retention()
"""Keeps all of them."""


@dataclass(frozen=True, slots=True)
class Fate(Generic[Snapshot]):
    """`keeps`: what each one that stays is kept for, in words; `drops`: why each of the others goes. Both
    from the newest to the oldest."""

    keeps: list[tuple[Snapshot, tuple[str, ...]]]
    drops: list[tuple[Snapshot, str]]


def decide(
    snapshots: Iterable[Snapshot], policy: Retention, *, job: str, now_ns: int, zone: tzinfo | None = None
) -> Fate[Snapshot]:
    """What becomes of snapshots, after `job` has made its newest one.

    The policy is for those of that job alone: those made by hand and by other schedules stay, unless they
    have expired, which ends any of them. "" as `job`: only expiry counts. `zone`: of the calendar; None: that
    of the machine.

    Those with a time in the future, made before a clock was set back, are kept by rules as any other, and
    count as the newest; nothing is old seen from them.
    """
    fate: Fate[Snapshot] = Fate([], [])
    ours: list[Snapshot] = []
    for snapshot in sorted(snapshots, key=_by_age):
        if snapshot.expires_ns is not None and snapshot.expires_ns <= now_ns:
            fate.drops.append((snapshot, "expired"))
        elif not job or snapshot.job != job:
            whose = f"made by schedule '{snapshot.job}'" if snapshot.job else "made by hand"
            fate.keeps.append((snapshot, (whose,)))
        else:
            ours.append(snapshot)
    for snapshot, keeps, drop in _apply(ours, policy, now_ns, zone):
        if drop:
            fate.drops.append((snapshot, drop))
        else:
            fate.keeps.append((snapshot, keeps))
    fate.keeps.sort(key=lambda kept: _by_age(kept[0]))
    fate.drops.sort(key=lambda dropped: _by_age(dropped[0]))
    return fate


def _by_age(snapshot: Made) -> tuple[int, str]:
    return -snapshot.made_ns, snapshot.name


def _apply(
    ours: Sequence[Snapshot], policy: Retention, now_ns: int, zone: tzinfo | None
) -> Iterator[tuple[Snapshot, tuple[str, ...], str]]:
    """(snapshot, what it is kept for, why it goes) of each, the newest first."""
    rules = [
        _Rule(word, number, period)
        for word, number, period in (
            ("last", policy.keep_last, None),
            ("hourly", policy.keep_hourly, _hour),
            ("daily", policy.keep_daily, _day),
            ("weekly", policy.keep_weekly, _week),
            ("monthly", policy.keep_monthly, _month),
            ("yearly", policy.keep_yearly, _year),
        )
        if number
    ]
    newest = next((made.made_ns for made in ours if made.made_ns <= now_ns), now_ns)
    bound = bool(rules or policy.keep_within_ns)
    kept = 0
    for index, snapshot in enumerate(ours):
        local = datetime.fromtimestamp(snapshot.made_ns // NS, zone)
        oldest = index == len(ours) - 1
        reasons = [] if bound else ["no rule"]
        if policy.keep_within_ns and snapshot.made_ns > newest - policy.keep_within_ns:
            reasons.append("within")
        reasons += [reason for rule in rules if (reason := rule.take(local, oldest=oldest))]
        if not reasons:
            drop = "no rule keeps it"
        elif policy.max_age_ns and snapshot.made_ns <= newest - policy.max_age_ns:
            drop = "too old"
        elif policy.max_count and kept >= policy.max_count:
            drop = "too many"
        else:
            drop = ""
            kept += 1
        yield snapshot, tuple(reasons), drop


class _Rule:
    """One rule, as it goes over snapshots from the newest to the oldest."""

    def __init__(self, word: str, number: int, period: Callable[[datetime], tuple[int, ...]] | None) -> None:
        """`number`: it may keep so many, or ALL. `period`: two snapshots in the same one count as one; None:
        each counts."""
        self._word = word
        self._left = number
        self._period = period
        self._last: tuple[int, ...] | None = None

    def take(self, local: datetime, *, oldest: bool) -> str:
        """Why it keeps the next one, "" if it does not."""
        if not self._left:
            return ""
        period = self._period(local) if self._period is not None else None
        again = period is not None and period == self._last
        if again and not oldest:
            return ""
        self._last = period
        if self._left != ALL:
            self._left -= 1
        return f"oldest {self._word}" if again else self._word


def _hour(local: datetime) -> tuple[int, ...]:
    return local.year, local.month, local.day, local.hour


def _day(local: datetime) -> tuple[int, ...]:
    return local.year, local.month, local.day


def _week(local: datetime) -> tuple[int, ...]:
    """Of ISO 8601, whose year is not always that of the day."""
    return local.isocalendar()[:2]


def _month(local: datetime) -> tuple[int, ...]:
    return local.year, local.month


def _year(local: datetime) -> tuple[int, ...]:
    return (local.year,)
