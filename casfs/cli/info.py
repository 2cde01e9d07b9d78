"""Show what a store knows of files: tokens, digests, names, properties, rules.

Kind and size, the BLAKE3 digest of the content and those that are kept beside
it, properties, every name of the file, the repository it lies in with its
layout, what the path says by that layout (or why it says nothing), which rules
apply, and what becomes of it in the trash. PATH is one in a mount, or with
--store a path from the root of that store (/a/b), mounted or not. Symbolic
links are shown themselves.

More: casfs help searching
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, path
from casfs.cli.output import print_facts, print_json, size
from casfs.errors import CasfsError, ExitCode, NotMounted, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.info import Info
    from casfs.repositories.rules import Rules


def add(commands: Commands) -> None:
    parser = add_command(commands, "info", run, __doc__)
    parser.add_argument("--store", metavar="STORE", type=path, help="take PATH from this store's root")
    parser.add_argument("paths", metavar="PATH", type=path, nargs="+", help="what to show")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    found = []
    failed = False
    for word in args.paths:
        try:
            found.append(_info(args.store, word))
        except (CasfsError, OSError) as error:
            if len(args.paths) == 1:
                raise
            failed = True
            what = str((isinstance(error, OSError) and error.strerror) or error)
            print(f"casfs: error: {printable(what)}", file=sys.stderr)
    if args.json:
        print_json({"files": [_as_json(each) for each in found]})
    for index, each in enumerate(found if not args.json else []):
        if index:
            print()
        print_facts(_facts(each))
    return ExitCode.FAILED if failed else ExitCode.OK


def _info(store: str | None, word: str) -> Info:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Sync
    from casfs.maintenance.info import info
    from casfs.service.mounts import find_mount
    from casfs.store import Store

    if store is None:
        mount, inside = find_mount(word)
        if mount.pid is None:
            raise NotMounted(
                f"nothing serves {mount.mountpoint}", f"casfs umount {mount.mountpoint} clears it"
            )
        access = StoreAccess(mount.store, pid=mount.pid)
    elif word.startswith("/"):
        access, inside = StoreAccess(store), os.fsencode(word)
    else:
        raise UsageError(f"'{word}' is no path from the root of the store", "with --store, begin it with /")
    access.tell(Sync(seal=True))  # what was closed has its digest
    with contextlib.closing(Store(access.store, readonly=True)) as opened:
        return info(opened.namespace, inside)


def _facts(found: Info) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": os.fsdecode(found.path), "kind": found.kind}
    if found.lies_at:
        facts["lies at"] = os.fsdecode(found.lies_at)
    if found.hides:
        facts["hides"] = {str(number): os.fsdecode(name) for number, name in enumerate(found.hides, 1)}
    if found.kind == "regular file":
        facts["size"] = size(found.size)
        facts["digest"] = found.digest or ("-" if found.is_sealed else "not yet: it is being written")
        facts |= found.others
    if found.properties:
        facts["properties"] = {key: ", ".join(values) for key, values in found.properties.items()}
    if len(found.names) > 1:
        facts["names"] = {str(number): os.fsdecode(name) for number, name in enumerate(found.names, 1)}
    if found.repository:
        facts["repository"] = f"{os.fsdecode(found.repository)}, {found.repository_kind}"
        facts["layout"] = found.layout or None
    if found.coordinates is not None:
        accompanied = f" (accompanies the artifact: {found.coordinates.companion})"
        facts["tokens" + accompanied * bool(found.coordinates.companion)] = found.coordinates.tokens
        facts["snapshot"] = found.snapshot
    elif found.reason:
        facts["no artifact"] = found.reason
    if found.repository:
        facts["rules"] = "; ".join(rules_in_words(found.rules))
    if found.damaged:
        facts["damaged"] = f"{found.damaged}; nothing can be written there; see casfs fsck"
    facts["trash"] = _trash(found)
    return facts


_FALSE = {"client": "errors", "server": "replaced"}


def rules_in_words(rules: Rules) -> list[str]:
    """What is not as usual."""
    words = []
    if rules.read_only:
        words.append("read-only")
    if rules.immutable:
        words.append("releases cannot be changed")
    if not rules.releases:
        words.append("no releases")
    if not rules.snapshots:
        words.append("no snapshots")
    if rules.include != ("**",):
        words.append(f"only {', '.join(rules.include)}")
    if rules.exclude:
        words.append(f"not {', '.join(rules.exclude)}")
    if rules.max_unique_snapshots:
        words.append(f"up to {rules.max_unique_snapshots} snapshots of a module and classifier")
    if rules.quota_bytes:
        words.append(f"up to {size(rules.quota_bytes)}")
    if rules.quota_files:
        words.append(f"up to {rules.quota_files} files")
    if rules.digests:
        words.append(f"contents get {', '.join(rules.digests)}")
    if rules.sidecars:
        how = " listed" if rules.sidecars == "listed" else ""
        words.append(f"sidecars{how}, false checksums are {_FALSE[rules.checksums]}")
    if rules.access_times != "none":
        words.append(f"access times are kept, {rules.access_times}")
    return words or ["none"]


def _trash(found: Info) -> str | None:
    from casfs.trash.attributes import iso_time

    if found.trashed is not None:
        row = found.trashed
        return f"{row.reason} {iso_time(row.deleted_ns)} by uid {row.uid}, was /{os.fsdecode(row.path)}"
    rule = found.trash_rule
    if rule is None:
        return None
    if not rule.days:
        return "not kept when it is removed"
    but = f", but not {', '.join(rule.exclude)}" if rule.exclude else ""
    return f"kept for {rule.days} days when it is removed{but}"


def _as_json(found: Info) -> dict[str, Any]:
    from msgspec import to_builtins

    coordinates, rule, row = found.coordinates, found.trash_rule, found.trashed
    return {
        "path": found.path,
        "lies_at": found.lies_at or None,
        "hides": list(found.hides),
        "kind": found.kind,
        "size": found.size,
        "blake3": found.digest or None,
        **found.others,
        "properties": found.properties,
        "names": list(found.names),
        "repository": found.repository or None,
        "repository_kind": found.repository_kind if found.repository else None,
        "layout": found.layout or None,
        "tokens": None if coordinates is None else coordinates.tokens,
        "companion": "" if coordinates is None else coordinates.companion,
        "snapshot": found.snapshot,
        "reason": found.reason or None,
        "rules": to_builtins(found.rules),
        "damaged": found.damaged or None,
        "trash_rule": None if rule is None else rule._asdict(),
        "trashed": None if row is None else row._asdict(),
    }
