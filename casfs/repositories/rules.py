"""The rules of a repository, as the database keeps them: a JSON object of what is not as by default."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from casfs.errors import FormatError, UsageError
from casfs.filestore.hashing import ALGORITHMS
from casfs.repositories import patterns

Days = Annotated[int, Meta(ge=0, le=36_500)]

HIGHEST = (1 << 63) - 1
"""Bytes that a file system can show in statfs(2) and a row can keep."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be done in a repository.

    `include`, `exclude`: patterns of paths of files in it (patterns.py). A directory is refused where they
    leave no path below it.
    `releases`, `snapshots`: are they handled? `max_unique_snapshots`: of one module and classifier, 0 = all.
    `read_only`: nothing is written. `immutable`: what is a release is neither overwritten nor removed.
    `sidecars`: "" = none; "yes": FILE.sha1 and its like can be read beside each file; "listed": and are
    listed. `checksums`: what a false one that a program writes comes to (claims.py): "client" = an error,
    "server" = nothing.
    `digests`: algorithms whose digests its contents get, besides those that every content gets.
    `quota_bytes`, `quota_files`: 0 = none; `soft_percent` of them from which the log warns, 0 = never.
    What they count: quota.py.
    `access_times`: 'daily' keeps the time of the last open of each file, moved once a day at the most;
    `access_times_since`: from when on, in seconds since 1970.
    """

    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    releases: bool = True
    snapshots: bool = True
    max_unique_snapshots: int = 0
    read_only: bool = False
    immutable: bool = False
    digests: tuple[str, ...] = ()
    sidecars: Literal["", "yes", "listed"] = ""
    checksums: Literal["client", "server"] = "client"
    quota_bytes: int = 0
    quota_files: int = 0
    soft_percent: int = 0
    access_times: Literal["none", "daily"] = "none"
    access_times_since: int = 0


def check(rules: Rules) -> None:
    """Raises UsageError for what no repository can have been meant to have."""
    if not rules.include:
        raise UsageError("include: without a pattern nothing could be written", "see read-only")
    patterns.check("include", rules.include)
    patterns.check("exclude", rules.exclude)
    for name in rules.digests:
        if name not in ALGORITHMS:
            raise UsageError.unknown("digest", name, list(ALGORITHMS))
    for name in ("max_unique_snapshots", "quota_bytes", "quota_files"):
        if not 0 <= getattr(rules, name) <= HIGHEST:
            raise UsageError(f"{name.replace('_', '-')}: a number from 0 to {HIGHEST}, 0 for none")
    if not 0 <= rules.soft_percent <= 100:
        raise UsageError("soft-percent: a number from 0 to 100, 0 for none")
    if rules.access_times_since < 0:
        raise UsageError("access-times-since: seconds since 1970")


def decode(text: str) -> Rules:
    """Raises FormatError."""
    try:
        return msgspec.json.decode(text, type=Rules)
    except msgspec.MsgspecError as error:
        raise FormatError(f"the rules of a repository are damaged: {error}", "see casfs fsck") from None


def encode(rules: Rules) -> str:
    return msgspec.json.encode(rules).decode()


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a repository gets; None, and what is not in `rules`, stays as it is.

    `layout`: a name, "" for none. `rules`: fields of `Rules`. `trash_days`: as in the trash's rule.
    """

    layout: str | None = None
    rules: Mapping[str, Any] = {}
    trash_days: Days | None = None


def changed(rules: Rules, changes: Mapping[str, Any]) -> Rules:
    """With access times, from when on they are kept. Raises UsageError for what no rules can be."""
    try:
        result = msgspec.convert({**_fields(rules), **changes}, Rules)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UsageError(f"bad rules: {error}") from None
    check(result)
    if result.access_times == rules.access_times:
        return result
    since = 0 if result.access_times == "none" else int(time.time())
    return msgspec.structs.replace(result, access_times_since=since)


def _fields(rules: Rules) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in Rules.__struct_fields__}
