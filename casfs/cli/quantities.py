"""Amounts as a person writes them on the command line."""

from __future__ import annotations

import argparse
import re

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)

_BYTES = {"": 1, "b": 1} | {
    unit: 1024**power
    for power, letter in enumerate("kmgt", 1)
    for unit in (letter, f"{letter}b", f"{letter}ib")
}


_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def byte_rate(word: str) -> float:
    """Bytes per second, more than 0: `50M`, `1.5GiB`, `20MiB/s`, in powers of 1024."""
    return _amount(word.removesuffix("/s"), _BYTES, "rate: write 500K, 20M or 1.5GiB, per second")


def duration(word: str) -> float:
    """Seconds, more than 0: `90`, `90s`, `15m`, `4h`, `30d`, `2w`."""
    return _amount(word, _SECONDS, "duration: write 90s, 15m, 4h, 30d or 2w")


def _amount(word: str, units: dict[str, int], wanted: str) -> float:
    match = _AMOUNT.fullmatch(word.strip())
    amount = 0.0
    if match is not None:
        amount = float(match[1]) * units.get(match[2].lower(), 0)
    if not amount:
        raise argparse.ArgumentTypeError(f"'{word}' is no {wanted}")
    return amount
