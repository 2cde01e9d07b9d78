"""What a workload is, and the register of all of them.

A workload is a generator with one `yield`: what comes before is preparation, what follows is timed, and what
it returns is the amount of work done, in the unit it is registered with. It starts in an empty directory on
the target and may change to a fixture. Timed loops call the `os` functions on names relative to the working
directory, so that the client costs little beside the system calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import IntEnum

from .trial import Trial

Steps = Generator[None, None, float]
Body = Callable[[Trial], Steps]


class Drop(IntEnum):
    """What is dropped from the kernel's caches before timing; the values of /proc/sys/vm/drop_caches."""

    NOTHING = 0
    INODES = 2  # dentries and inodes: the kernel must ask the file system for names and attributes
    ALL = 3  # file contents too


@dataclass(frozen=True)
class Workload:
    name: str
    unit: str  # what one unit of the returned amount is; rates are per second
    drop: Drop
    at_rest: bool  # what was prepared is on disk before the clock starts, not only in the page cache
    steps: Callable[[Trial], Steps]

    @property
    def description(self) -> str:
        return (self.steps.__doc__ or "").strip()


WORKLOADS: dict[str, Workload] = {}


def workload(unit: str, drop: Drop = Drop.NOTHING, *, at_rest: bool = True) -> Callable[[Body], Body]:
    """Registers a workload under the name of its function."""

    def register(steps: Body) -> Body:
        WORKLOADS[steps.__name__] = Workload(steps.__name__, unit, drop, at_rest, steps)
        return steps

    return register
