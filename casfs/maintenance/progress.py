"""How long work says how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all) as the work goes on, perhaps by several threads;
cheap to call often."""


def unwatched(_doing: str, _done: int, _total: int) -> None:
    """The `Progress` of work that nobody watches."""
