"""A write transaction of a process that maintains a store, beside a mount daemon or alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from casfs.errors import StoreLocked
from casfs.store import Store

TURN_SECONDS = 10.0
"""How long to wait for who holds the database: the collector does for 20 ms at a time."""


@contextlib.contextmanager
def transaction(store: Store, *, durable: bool = True) -> Iterator[None]:
    """A write transaction, undone by an exception. Everybody else who writes waits for it.

    `durable`: so at its end, with all commits before it. Raises StoreLocked, DatabaseError, OSError.
    """
    assert store.turnstile is not None
    deadline = time.monotonic() + TURN_SECONDS
    store.turnstile.enter()
    try:
        while not store.namespace.try_begin():
            if time.monotonic() > deadline:
                raise StoreLocked(f"the database of {store.path} is in use by another process")
            time.sleep(0.01)
        try:
            yield
            store.namespace.commit()
        except BaseException:
            store.namespace.rollback()
            raise
    finally:
        store.turnstile.leave()
    if durable:
        store.namespace.sync_log()
