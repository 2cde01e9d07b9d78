"""Why a path is one of a layout, or why not, as data: what `casfs layout test` shows."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from casfs.errors import LayoutError
from casfs.layouts import paths
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.layout import Layout
from casfs.layouts.runs import MAX_STEPS, TooManySteps


class Explanation(msgspec.Struct, frozen=True):
    """What one layout makes of a path.

    Either `coordinates`, or `reason`, one clause for a person ("it stops before 'bar-1.0.jar': …"). `matched`
    is the beginning of the path that fits, as the layout reads it, and `expected` what could come after it.
    """

    layout: str
    coordinates: Coordinates | None = None
    reason: str = ""
    matched: str = ""
    expected: tuple[str, ...] = ()


def explain(path: bytes, layouts: Iterable[Layout]) -> list[Explanation]:
    """In the order of the layouts."""
    return [_explain(path, layout) for layout in layouts]


def _explain(path: bytes, layout: Layout) -> Explanation:
    try:
        coordinates = layout.read(path)
        if coordinates is not None:
            return Explanation(layout.name, coordinates)
        return _stopped(path, layout)
    except LayoutError as error:
        return Explanation(layout.name, reason=error.message)
    except TooManySteps:
        return Explanation(layout.name, reason=f"it takes more than {MAX_STEPS} steps to decide")


def _stopped(path: bytes, layout: Layout) -> Explanation:
    """Of the patterns the one that fits more of the path."""
    text = path.decode()
    if layout.definition.escape_upper_case:
        text = paths.unescape(text) or text
    matchers = [layout.artifact, *([layout.descriptor] if layout.descriptor else [])]
    stop = max((matcher.stop(text) for matcher in matchers), key=lambda found: found.at)
    matched, rest = text[: stop.at], text[stop.at :]
    wanted = " or ".join(stop.expected)
    where = f"before '{rest}'" if rest else "at its end"
    return Explanation(
        layout.name,
        reason=f"it stops {where}: {wanted} was expected",
        matched=matched,
        expected=stop.expected,
    )
