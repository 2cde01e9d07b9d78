"""A line of the log that comes again and again."""

from __future__ import annotations

import logging

import pytest

from casfs.service import repeats
from casfs.service.repeats import Repeats


class Said(logging.Handler):
    """What is written, at a time that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lines: list[str] = []
        self.addFilter(Repeats())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def say(self, text: str, *args: object, level: int = logging.ERROR) -> None:
        record = logging.LogRecord("casfs", level, "", 0, text, args, None)
        record.created = self.now
        self.handle(record)


def test_what_is_said_again_is_counted_and_told_later() -> None:
    said = Said()
    for _ in range(1_000):
        said.say("inode %d stays staged", 2)
    said.say("inode %d stays staged", 3)
    said.say("inode %d stays staged", 2, level=logging.INFO)
    assert said.lines == ["inode 2 stays staged", "inode 3 stays staged", "inode 2 stays staged"]
    said.now = repeats.QUIET_SECONDS
    said.say("inode %d stays staged", 2)
    assert said.lines[3:] == ["inode 2 stays staged (and 999 times since it was last said)"]
    said.now += repeats.QUIET_SECONDS
    said.say("inode %d stays staged", 2)
    assert said.lines[4:] == ["inode 2 stays staged"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REMEMBERED", 3)
    said = Said()
    for number in (0, 1, 2, 0, 3, 1):
        said.say(f"line {number}")
    assert said.lines == ["line 0", "line 1", "line 2", "line 3", "line 1"]
