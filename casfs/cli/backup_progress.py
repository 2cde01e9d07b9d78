"""How far a backup has come: a bar for a person, lines for a log, JSON for a program."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from casfs.cli.output import size

if TYPE_CHECKING:
    from casfs.maintenance.progress import Progress

BAR_SECONDS = 0.1
EVENT_SECONDS = 1.0
LINE_SECONDS = 60.0
"""How often each is told."""


class _Told:
    """Tells `tell` (what is being done, bytes done, in all, bytes per second) so often, and when something
    else begins."""

    def __init__(
        self, tell: Callable[[str, int, int, float], None], seconds: float, *, at_once: bool
    ) -> None:
        self._tell = tell
        self._seconds = seconds
        self._lock = threading.Lock()
        self._doing = ""
        self._began = self._last = time.monotonic()
        self._at_once = at_once

    def __call__(self, doing: str, done: int, total: int) -> None:
        now = time.monotonic()
        if doing == self._doing and now - self._last < self._seconds:
            return
        with self._lock:
            if doing != self._doing:
                self._doing, self._began = doing, now
                if not self._at_once:
                    return
            elif now - self._last < self._seconds:
                return
            self._last = now
            spent = now - self._began
            self._tell(doing, done, total, done / spent if spent > 0 else 0.0)


def print_event(kind: str, **facts: Any) -> None:
    """One JSON object on a line of standard output; at once, since somebody waits for it."""
    print(json.dumps({"event": kind, **facts}), flush=True)


@contextlib.contextmanager
def told(*, as_json: bool) -> Iterator[Progress]:
    """Show progress while the block runs: as events if `as_json`, else on standard error, a bar on a terminal
    and a line each minute otherwise."""
    if as_json:
        yield _Told(_event, EVENT_SECONDS, at_once=True)
    elif sys.stderr is None:
        yield lambda doing, done, total: None
    elif sys.stderr.isatty():
        with _bar() as progress:
            yield progress
    else:
        yield _Told(_line, LINE_SECONDS, at_once=False)


def _event(doing: str, done: int, total: int, rate: float) -> None:
    print_event("progress", doing=doing, done=done, total=total, rate=int(rate))


def _line(doing: str, done: int, total: int, rate: float) -> None:
    facts = doing
    if total:
        facts += f": {100 * done // total} %, {size(done)} of {size(total)}, {size(int(rate))}/s"
        if rate > 0:
            facts += f", {_left(int((total - done) / rate))} left"
    print(f"casfs: {facts}", file=sys.stderr, flush=True)


def _left(seconds: int) -> str:
    return (
        f"{seconds // 3600} h {seconds % 3600 // 60} min" if seconds >= 3600 else f"{seconds // 60 + 1} min"
    )


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        doing_now = ""

        def tell(doing: str, done: int, total: int, _rate: float) -> None:
            nonlocal doing_now
            if doing != doing_now:
                doing_now = doing
                bar.reset(task, description=doing, total=total or None)
            bar.update(task, completed=done, total=total or None)

        yield _Told(tell, BAR_SECONDS, at_once=True)
