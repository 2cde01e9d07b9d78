"""What a store's trash holds and what goes there, in use or not, as its last commit left it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from casfs.namespace.trash import RuleRow, TrashRow
from casfs.store import Store


@contextlib.contextmanager
def entries(store: str) -> Iterator[Iterator[tuple[TrashRow, int]]]:
    """What lies in the trash, the newest first, with the sizes. Raises as `Store` does, and OSError."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        yield opened.namespace.trash.sized()


def rules(store: str) -> list[RuleRow]:
    """By directory; that of the whole store, b"", is the first."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return opened.namespace.trash.rules()
