"""The rules of a repository, as the database keeps them: a JSON object of what is not as by default."""

from __future__ import annotations

import msgspec

from casfs.errors import FormatError


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be done in a repository.

    `include`, `exclude`: patterns of paths in it, as Ant's: `*` and `?` within a name, `**` for directories.
    `releases`, `snapshots`: are they handled? `max_unique_snapshots`: of one module and classifier, 0 = all.
    `read_only`: nothing is written. `immutable`: what is a release is neither overwritten nor removed.
    `quota_bytes`, `quota_files`: 0 = none; `soft_percent` of them from which the log warns, 0 = never.
    """

    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    releases: bool = True
    snapshots: bool = True
    max_unique_snapshots: int = 0
    read_only: bool = False
    immutable: bool = False
    quota_bytes: int = 0
    quota_files: int = 0
    soft_percent: int = 0


def decode(text: str) -> Rules:
    """Raises FormatError."""
    try:
        return msgspec.json.decode(text, type=Rules)
    except msgspec.MsgspecError as error:
        raise FormatError(f"the rules of a repository are damaged: {error}", "see casfs fsck") from None


def encode(rules: Rules) -> str:
    return msgspec.json.encode(rules).decode()
