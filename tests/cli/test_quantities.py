"""Amounts on the command line."""

from __future__ import annotations

import argparse

import pytest

from casfs.cli.quantities import byte_rate, duration


@pytest.mark.parametrize(
    ("word", "bytes_per_second"),
    [
        ("1", 1),
        ("500K", 500 << 10),
        ("20MiB/s", 20 << 20),
        ("1.5gb", 3 << 29),
        ("7 kib", 7 << 10),
        ("2T", 2 << 40),
    ],
)
def test_a_rate(word: str, bytes_per_second: int) -> None:
    assert byte_rate(word) == bytes_per_second


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("4h", 14400), ("30d", 30 * 86400), ("0.5 w", 302400)],
)
def test_a_duration(word: str, seconds: float) -> None:
    assert duration(word) == seconds


@pytest.mark.parametrize("word", ["", "0", "0M", "-1", "M", "1X", "1 2", "1e3", "nan", "inf", "٣M", "1M/h"])
def test_what_is_neither(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no rate"):
        byte_rate(word)
    with pytest.raises(argparse.ArgumentTypeError, match="is no duration"):
        duration(word if word != "1M/h" else "1M/s")
