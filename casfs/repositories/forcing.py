"""What a command does in spite of a rule, since who may has said --force: releases that are immutable go."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger(__name__)


class Forced:
    """One thing that is forced: `what` in words, by the user `uid`. `releases`: how many were in the way.

    A line of the log names the first of them before it goes; none with `looks`: nothing is done then.
    """

    def __init__(self, what: str, uid: int, *, looks: bool = False) -> None:
        self._what = what
        self._uid = uid
        self._looks = looks
        self.releases = 0

    def release(self, repository: bytes, path: bytes) -> None:
        """`path`: in the repository; a directory, with whatever is below it, ends with a slash."""
        if not self.releases and not self._looks:
            log.warning(
                "repository %s: %s goes, though releases are immutable: uid %d forces '%s'",
                os.fsdecode(repository),
                os.fsdecode(path),
                self._uid,
                self._what,
            )
        self.releases += 1


_current: ContextVar[Forced | None] = ContextVar("forced", default=None)
"""Of the task that runs: what is done for others meanwhile keeps to the rules."""


@contextmanager
def forcing(forced: Forced | None) -> Iterator[None]:
    """What the task does inside is forced; with None it is not."""
    before = _current.set(forced)
    try:
        yield
    finally:
        _current.reset(before)


def current() -> Forced | None:
    """What the task that runs forces."""
    return _current.get()
