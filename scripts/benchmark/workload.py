"""What a workload is, and the register of all of them.

A workload is a generator that yields twice: READY, and the amount of work done, in the unit it is registered
with. What is between the two is timed; what follows, if anything, verifies what was done. It starts in an
empty directory on the target and may change to a fixture. Timed loops call the `os` functions on names
relative to the working directory, so that the client costs little beside the system calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from .trial import Trial

READY = 0.0  # what a workload yields when it is prepared

Steps = Iterator[float]
Body = Callable[[Trial], Steps]


class Drop(IntEnum):
    """What is dropped from the kernel's caches before timing; the values of /proc/sys/vm/drop_caches."""

    NOTHING = 0
    INODES = 2  # dentries and inodes: the kernel must ask the file system for names and attributes
    ALL = 3  # file contents too


@dataclass(frozen=True)
class Goal:
    """How fast a target shall be: at least `ratio` times as fast as the peer.

    The peer is another target at the same workload, or another workload on the same target.
    """

    ratio: float
    target: str | None = None
    workload: str | None = None

    def __str__(self) -> str:
        return f"{self.ratio:g}x {self.target or self.workload}"


AS_PLAIN = Goal(0.95, target="plain")  # what the kernel serves itself: only noise may separate the two
AS_BINDFS = Goal(1, target="bindfs")
TWICE_BINDFS = Goal(2, target="bindfs")


@dataclass(frozen=True)
class Workload:
    name: str
    unit: str  # what one unit of the returned amount is; rates are per second
    drop: Drop
    at_rest: bool  # what was prepared is on disk before the clock starts, not only in the page cache
    goal: Goal | None
    steps: Body
    slow: bool = False  # only run when it is named
    limits: Mapping[str, float] = field(default_factory=dict)  # the most that figures of the trial shall be

    @property
    def description(self) -> str:
        return (self.steps.__doc__ or "").strip()


WORKLOADS: dict[str, Workload] = {}


def workload(
    unit: str,
    drop: Drop = Drop.NOTHING,
    *,
    at_rest: bool = True,
    goal: Goal | None = None,
    slow: bool = False,
    limits: Mapping[str, float] | None = None,
) -> Callable[[Body], Body]:
    """Registers a workload under the name of its function."""

    def register(steps: Body) -> Body:
        name = steps.__name__
        WORKLOADS[name] = Workload(name, unit, drop, at_rest, goal, steps, slow, limits or {})
        return steps

    return register
