"""What commands print: text for a person (aligned, coloured on a terminal), JSON for a program."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.progress import Progress
    from casfs.repositories.rules import Rules


def size(count: int) -> str:
    """Bytes for a person, in powers of 1024 with three digits: `512 B`, `1.50 KiB`, `12.3 GiB`."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), 0
    # 999.5 would print as four digits.
    while value >= 999.5:
        value, unit = value / 1024, unit + 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {'BKMGTPEZ'[unit]}iB"


def quota(rules: Rules) -> str:
    """Of a repository, for a person."""
    parts = [size(rules.quota_bytes)] if rules.quota_bytes else []
    parts += [f"{rules.quota_files} files"] if rules.quota_files else []
    return ", ".join(parts) or "-"


def print_json(value: Any) -> None:
    """One JSON document. A byte of a name that is not UTF-8 becomes a lone surrogate, `\\udcff` (PEP 383)."""
    import json

    print(json.dumps(value, indent=2, default=_json_value))


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, total: bool = False) -> None:
    """Rows under headers; the first column flush left, the others flush right; `total`: the last sums up."""
    if sys.stdout is not None and sys.stdout.isatty():
        _print_rich_table(headers, rows, total)
        return
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        first, *others = row
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def _print_rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], total: bool) -> None:
    # Costs more than the rest of a command's start: only where a person looks.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left", overflow="fold")
    for index, row in enumerate(rows):
        style = "bold" if total and index == len(rows) - 1 else None
        table.add_row(*map(Text, row), style=style)
    Console(highlight=False).print(table)


def print_facts(facts: dict[str, Any], indent: int = 0) -> None:
    """`name: value` lines; a nested dictionary is indented below its name. A key in `_bytes` is a size."""
    for key, value in facts.items():
        name = "  " * indent + printable(key.removesuffix("_bytes").replace("_", " "))
        if isinstance(value, dict):
            print(f"{name}:")
            print_facts(value, indent + 1)
        else:
            print(f"{name}: {_fact(key, value)}")


def _fact(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("_bytes"):
        return size(value)
    return "-" if value is None else printable(str(value))


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error while the block runs, if a person looks at it; otherwise nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda doing, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total)
