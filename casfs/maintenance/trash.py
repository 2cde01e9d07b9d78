"""What a store's trash holds and what goes there, in use or not, as its last commit left it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from casfs.namespace.trash import RuleRow, TrashRow
from casfs.store import Store
from casfs.trash.policy import MINIMAL_AGE_NS
from casfs.trash.undelete import kept_ns


@contextlib.contextmanager
def entries(store: str) -> Iterator[Iterator[tuple[TrashRow, int]]]:
    """What lies in the trash, the newest first, with the sizes. Raises as `Store` does, and OSError."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        yield opened.namespace.trash.sized()


def may_have_old(store: str, now_ns: int) -> bool:
    """Is there anything that some rule keeps no longer? Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        rows = opened.namespace.trash
        kept = min(map(kept_ns, rows.rules()), default=0)
        return bool(rows.oldest(now_ns - kept, (-1, -1), 1))


def rules(store: str) -> tuple[list[RuleRow], int]:
    """By directory; that of the whole store, b"", is the first. And the minimal age in nanoseconds."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        rows = opened.namespace.trash
        age = rows.minimal_age()
        return rows.rules(), MINIMAL_AGE_NS if age is None else age
