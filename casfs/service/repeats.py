"""A line that comes again and again is written once in ten minutes, with how often it came."""

from __future__ import annotations

import logging
from collections import OrderedDict

QUIET_SECONDS = 600.0
"""So long after it was written a line is only counted."""

REMEMBERED = 1_000
"""Lines that are remembered."""


class Repeats(logging.Filter):
    """For a handler, which calls it with its lock held. By the time of the records."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, int, str], list[float]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        key = record.name, record.levelno, text
        seen = self._seen.pop(key, None)
        if seen is not None and record.created < seen[0] + QUIET_SECONDS:
            seen[1] += 1
            self._seen[key] = seen
            return False
        if seen is not None and seen[1]:
            record.msg, record.args = f"{text} (and {seen[1]:.0f} times since it was last said)", ()
        self._seen[key] = [record.created, 0]
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True
