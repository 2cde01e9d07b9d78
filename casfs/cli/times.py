"""Times and durations as a person reads them."""

from __future__ import annotations

import time

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def moment(nanoseconds: int) -> str:
    """A time since 1970, as local time to the second: `2026-11-21 10:30:00`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(nanoseconds // 10**9))


def span(nanoseconds: int) -> str:
    """A duration, in the largest unit of which it is two: `0.02 s`, `95 s`, `3 h`, `14 d`."""
    seconds = nanoseconds / 10**9
    for length, unit in _SPANS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
