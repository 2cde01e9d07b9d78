"""Text that others have a say in stays on its line."""

from __future__ import annotations

import logging

import pytest

from casfs.text import LineFormatter, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ü", "plain ü"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        (b"\xff\x7f", r"\xff\x7f"),
        ("\u202e", r"\u202e"),
    ],
)
def test_names_are_shown_without_what_moves_the_cursor(name: str | bytes, shown: str) -> None:
    assert printable(name) == shown


def test_nobody_writes_a_line_of_the_log_by_the_name_of_a_file() -> None:
    """A newline in the path of a store gave a whole line of root's log of who chose the path."""
    record = logging.LogRecord(
        "name", logging.INFO, "file", 1, "%s is mounted", ("a\nroot: all is well",), None
    )
    assert (
        LineFormatter("%(levelname)s %(message)s").format(record) == r"INFO a\nroot: all is well is mounted"
    )
