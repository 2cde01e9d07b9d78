"""Make, show and remove snapshots.

A snapshot is everything as it was at a moment: made in a second, while the store
is in use, and kept until it expires or is removed. It takes the room of a copy of
the database, and what it alone still refers to is not collected. In a mount it is
below /.casfs/snapshots/NAME, to be read. Works on a mounted store and on one that
is not.

More: casfs help snapshots
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from casfs.cli import snapshot_diff
from casfs.cli.arguments import Commands, add_actions, add_command, add_json, add_store, duration, text
from casfs.cli.output import print_facts, print_json, print_table, size
from casfs.cli.places import store_of
from casfs.cli.times import moment, span
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.snapshots.manifest import Counts, Manifest


def add(commands: Commands) -> None:
    actions = add_actions(commands, "snapshot", __doc__)

    creating = add_command(actions, "create", _create, "Make a snapshot of everything as it is now.")
    add_store(creating)
    creating.add_argument("name", metavar="NAME", nargs="?", help="of the snapshot; default: the time")
    creating.add_argument("--reason", default="", type=text, help="a line for those who wonder")
    creating.add_argument("--expires", metavar="DURATION", type=duration, help="it may go after so long")
    add_json(creating)

    listing = add_command(actions, "list", _list, "Show the snapshots, oldest first.")
    add_store(listing)
    add_json(listing)

    showing = add_command(actions, "show", _show, "Show what is in a snapshot, and what it alone holds.")
    add_store(showing)
    add_name(showing)
    add_json(showing)

    snapshot_diff.add(actions)

    removing = add_command(actions, "rm", _remove, "Remove snapshots: what they alone hold may be collected.")
    add_store(removing)
    removing.add_argument("names", metavar="NAME", nargs="+", help="as 'casfs snapshot list' shows it")


def add_name(parser: argparse.ArgumentParser, name: str = "name") -> None:
    parser.add_argument(name, metavar=name.upper(), help="of a snapshot, as 'casfs snapshot list' shows it")


def _create(args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import CreateSnapshot
    from casfs.snapshots.folder import name_at
    from casfs.snapshots.manifest import check_name

    if args.expires == 0:
        raise UsageError("a snapshot that expires at once holds nothing", "--expires 14d, as an example")
    name = args.name or name_at("snapshot")
    check_name(name)
    if name.startswith("for-backup-"):  # maintenance/backup/source.py
        raise UsageError(f"{name}: the next backup removes what is called so", "give it another name")
    expires_ns = None if args.expires is None else time.time_ns() + args.expires * 10**9
    manifest = StoreAccess(store_of(args.store)).perform(CreateSnapshot(name, args.reason, expires_ns))
    if args.json:
        print_json(_as_json(manifest, None))
    else:
        took = span(manifest.ended_ns - manifest.started_ns)
        print(f"snapshot {manifest.name}, {size(manifest.database_bytes)} of names, in {took}")
    return ExitCode.OK


def _list(args: argparse.Namespace) -> int:
    from casfs.maintenance.snapshots.look import listed

    found = listed(store_of(args.store))
    if args.json:
        print_json([_as_json(manifest, counts) for manifest, counts in found.snapshots])
    elif found.snapshots:
        headers = ("snapshot", "made", "expires", "files", "size", "names", "reason")
        print_table(headers, [_as_text(*each) for each in found.snapshots])
    elif not found.problems:
        print("there are no snapshots")
    return _told(found.problems)


def _told(problems: list[str]) -> int:
    import sys

    for problem in problems:
        print(f"casfs: {printable(problem)}", file=sys.stderr)
    return ExitCode.PROBLEMS if problems else ExitCode.OK


def _show(args: argparse.Namespace) -> int:
    from casfs.maintenance.snapshots.look import shown

    manifest, counts, alone = shown(store_of(args.store), args.name)
    if args.json:
        print_json(_as_json(manifest, counts) | {"alone_blobs": alone.blobs, "alone_bytes": alone.bytes})
        return ExitCode.OK
    print_facts(
        {
            "snapshot": manifest.name,
            "made": moment(manifest.made_ns),
            "by": manifest.job or "hand",
            "reason": manifest.reason or None,
            "expires": None if manifest.expires_ns is None else moment(manifest.expires_ns),
            "files": counts.files,
            "directories": counts.directories,
            "size_bytes": counts.bytes,
            "contents": f"{counts.blobs}, {size(counts.blob_bytes)}",
            "held by it alone": f"{alone.blobs} contents, {size(alone.bytes)}",
            "names_bytes": manifest.database_bytes,
            "store": f"{manifest.source} on {manifest.host}",
            "casfs": manifest.version,
        }
    )
    for path in manifest.unsteady:
        print(f"was written while it was copied: {printable(path)}")
    return ExitCode.OK


def _remove(args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import DropSnapshot
    from casfs.snapshots.manifest import check_name

    for name in args.names:
        check_name(name)
    access = StoreAccess(store_of(args.store))
    for name in args.names:
        access.perform(DropSnapshot(name))
    return ExitCode.OK


def _as_text(manifest: Manifest, counts: Counts | None) -> tuple[str, ...]:
    return (
        manifest.name,
        moment(manifest.made_ns),
        "-" if manifest.expires_ns is None else moment(manifest.expires_ns),
        "?" if counts is None else str(counts.files),
        "?" if counts is None else size(counts.bytes),
        size(manifest.database_bytes),
        printable(manifest.reason) or "-",
    )


def _as_json(manifest: Manifest, counts: Counts | None) -> dict[str, object]:
    import msgspec

    facts = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    return facts | (msgspec.to_builtins(counts) if counts is not None else {})
