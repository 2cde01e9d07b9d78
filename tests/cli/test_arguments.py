"""Values on the command line: how a time is written, and what is none."""

from __future__ import annotations

import argparse
import time

import pytest

from casfs.cli import undelete
from casfs.cli.arguments import instant
from casfs.cli.main import parse
from casfs.errors import ExitCode

DAY = 86_400


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("1970-01-02", DAY),
        ("2026-11-21T10:58:28Z", 1_795_258_708),
        ("2026-11-21t10:58:28z", 1_795_258_708),
        ("2026-11-21 12:58:28.999+02:00", 1_795_258_708),
        ("1969-12-31T23:59:59.5Z", -1),
        ("0001-01-01", -62_135_596_800),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139),
    ],
)
def test_a_time_of_the_calendar(word: str, seconds: int) -> None:
    assert instant(word) == seconds


@pytest.mark.parametrize(("word", "ago"), [("0", 0), ("30s", 30), ("2h", 7_200), ("14d", 14 * DAY)])
def test_a_time_so_long_ago(word: str, ago: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + 0.9)
    assert instant(word) == 10**9 - ago


@pytest.mark.parametrize(
    "word",
    [
        *("", "x", "2", "-2h", "2h ago", "now", "1y", "99999999999d"),
        *("2026-02-30", "2026-1-1", "20261121", "2026-W47-6", "٢٠٢٦-11-21", "2026-11-21\n"),
        *("2026-11-21T10:58:28", "2026-11-21T10:58Z", "2026-11-21T25:00:00Z", "2026-11-21T10:58:28+0200"),
    ],
)
def test_what_is_no_time(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        instant(word)


def test_the_day_of_a_time() -> None:
    day = 20_000 * DAY
    assert undelete._day(day) == undelete._day(day + DAY - 1) == (day * 10**9, (day + DAY) * 10**9)
    assert undelete._day(-1) == (0, DAY * 10**9)
    assert undelete._day(instant("9999-12-31")) == (undelete.END_OF_TIME, undelete.END_OF_TIME)


@pytest.mark.parametrize(
    "words", [("rm", "--where", "keep=2", "/m"), ("cp", "--where", "prop.qa", "/m/a", "/m/b")]
)
def test_paths_behind_terms_are_told_where_they_belong(casfs, words):
    code, out, err = casfs(*words)
    assert (code, out) == (ExitCode.USAGE, "")
    assert "they come before --where" in err
    assert "--help" in casfs(words[0]).err


@pytest.mark.parametrize(
    ("words", "name", "taken"),
    [
        ("backup restore D --at 1h /a --to OUT", "words", ["/a"]),
        ("backup verify D --sample 10 b1 b2", "names", ["b1", "b2"]),
        ("backup verify D", "names", []),
        ("snapshot restore S NAME --dry-run /a", "paths", ["/a"]),
        ("snapshot restore S NAME", "paths", []),
        ("lock S --reason why /a", "paths", ["/a"]),
        ("pin add S --reason why /a", "paths", ["/a"]),
        ("layout export S --debug a", "names", ["a"]),
    ],
)
def test_words_may_come_behind_an_option(words: str, name: str, taken: list[str]) -> None:
    """With '*' argparse took none as soon as an option stood before them."""
    assert getattr(parse(words.split()), name) == taken
