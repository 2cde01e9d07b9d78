"""Cron expressions: five fields as in crontab(5), in local time."""

from __future__ import annotations

import time
from datetime import datetime

from cronsim import CronSim, CronSimError

from casfs.errors import UsageError


def next_run(expression: str, after: float) -> float:
    """The first time of a cron expression after a time, both in seconds since 1970. Raises UsageError."""
    try:
        return next(CronSim(expression, datetime.fromtimestamp(after).astimezone())).timestamp()
    except (CronSimError, StopIteration):
        hint = "five fields: minute hour day month weekday"
        raise UsageError(f"'{expression}' is no cron expression that ever comes", hint) from None


def has_missed(expression: str, last: float | None) -> bool:
    """Was a run due since the last one began, in seconds since 1970, or was there none yet?"""
    return last is None or next_run(expression, last) <= time.time()
