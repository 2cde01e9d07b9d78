"""What a backup is to have, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """`job`: the schedule it belongs to, "" when made by hand: retention looks at backups of one job only.

    `include`, `exclude`: patterns of the names in the root that it has (filters.py); nothing included: all.
    `exclude_new_known`: directories in the root beside these are new, and stay out until `include` names
    them; None: new ones are like any other.
    `content`: False for the skeleton, which has names, attributes and digests, and no blob.
    `rate`: bytes of blobs that are copied in a second at the most; 0 = any.
    `expires_ns`: when it may go, whatever retention keeps, in ns since 1970; None = never.
    """

    job: str = ""
    reason: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    exclude_new_known: tuple[str, ...] | None = None
    content: bool = True
    rate: int = 0
    expires_ns: int | None = None
