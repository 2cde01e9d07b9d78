"""Sizes, durations and times as people write them."""

from __future__ import annotations

import math
import re
import time

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

LONGEST_DURATION = 36_500 * 86_400
"""Seconds: a hundred years; what is longer is a mistake."""

FASTEST = 1 << 50
"""Bytes per second: a PiB; what is more is a mistake."""

LARGEST = 1 << 60
"""Bytes: an EiB; what is more is a mistake."""

_DAY, _TIME, _OFFSET = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(?:\.\d+)?", r"(?:[Zz]|[+-]\d\d:\d\d)"

_RFC_3339 = re.compile(f"{_DAY}(?:[Tt ]{_TIME}{_OFFSET})?", re.ASCII)
"""Or its date alone."""

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTPkmgtp])?(?:i?[Bb])?")


def duration(word: str) -> int:
    """`30s`, `10m`, `1h`, `14d`, or `0`, in seconds. Raises ValueError, which says what is wrong."""
    number, unit = (word, "s") if word == "0" else (word[:-1], word[-1:])
    if unit not in UNIT_SECONDS or not (number.isascii() and number.isdecimal()):
        raise ValueError(f"'{word}' is no duration: write it as 30s, 10m, 1h or 14d")
    seconds = int(number) * UNIT_SECONDS[unit] if len(number) < 12 else LONGEST_DURATION + 1
    if seconds > LONGEST_DURATION:
        raise ValueError(f"{word} is too long")
    return seconds


def instant(word: str) -> int:
    """RFC 3339, a day (its begin in UTC), or a duration ago; in seconds since 1970. Raises ValueError as
    `duration`."""
    if not _RFC_3339.fullmatch(word):
        try:
            return int(time.time()) - duration(word)
        except ValueError:
            example = "2030-12-31T23:59:00Z, 2030-12-31 or 2h"
            raise ValueError(f"'{word}' is no time: write it as {example}") from None
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(word.upper())
    except ValueError:
        raise ValueError(f"'{word}' is no time of the calendar") from None
    return math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def count(word: str) -> int:
    """A whole number, 0 or more. Raises ValueError as `duration`."""
    if not (word.isascii() and word.isdecimal()) or len(word) > 12:
        raise ValueError(f"'{word}' is no whole number")
    return int(word)


def byte_rate(word: str) -> float:
    """Bytes per second as `50M`, `1.5GiB`, `20MiB/s`, in powers of 1024; more than 0. Raises ValueError as
    `duration`."""
    rate = _bytes(word.removesuffix("/s"))
    if not 0 < rate <= FASTEST:
        raise ValueError(f"'{word}' is no rate: write 500K, 20M or 1.5GiB, per second")
    return rate


def byte_size(word: str) -> int:
    """Bytes as `0`, `50M`, `1.5GiB`, in powers of 1024. Raises ValueError as `duration`."""
    size = _bytes(word)
    if not 0 <= size <= LARGEST:
        raise ValueError(f"'{word}' is no size: write 500K, 20M or 1.5GiB")
    return math.ceil(size)


def _bytes(word: str) -> float:
    """-1 for what is no amount."""
    match = _SIZE.fullmatch(word)
    return -1.0 if match is None else float(match[1]) * 1024 ** "BKMGTP".index((match[2] or "B").upper())
