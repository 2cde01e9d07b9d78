"""What the attributes of a file in the trash say of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from casfs.namespace.trash import TrashRow


def iso_time(ns: int) -> str:
    """ISO 8601, UTC, in seconds."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ATTRIBUTES: dict[bytes, Callable[[TrashRow], bytes]] = {
    b"user.casfs.trash.deleted": lambda row: iso_time(row.deleted_ns).encode(),
    b"user.casfs.trash.uid": lambda row: b"%d" % row.uid,
    b"user.casfs.trash.path": lambda row: row.path,
    b"user.casfs.trash.reason": lambda row: row.reason.encode(),
}
"""Read-only attributes of a file in the trash. Not listed: no tool shall copy them."""
