"""Are there integrations (to Maven: snapshots) to be cleaned up, as the last commit of a store left it?"""

from __future__ import annotations

import contextlib

from casfs.errors import CasfsError
from casfs.repositories import rules
from casfs.store import Store


def are_too_many(store: str) -> bool:
    """Has some repository more than its rules keep? Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        for row in opened.namespace.repositories.all():
            with contextlib.suppress(CasfsError):  # of damaged rules, nothing is removed by them
                allowed = rules.decode(row.rules)
                most = allowed.max_unique_snapshots
                if most and not allowed.read_only and opened.namespace.integrations.crowded(row.ino, most):
                    return True
    return False
