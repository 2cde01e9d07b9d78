"""Show, set up and empty the trash of a store.

What is removed, replaced by a rename or truncated to nothing stays reachable
below .casfs/trash/DAY/ in the mount, 14 days if nothing else is set, if it was
there for a minute (or what is set) and its content was complete. mv(1) out of
there or 'casfs undelete' brings it back.

More: casfs help trash
"""

from __future__ import annotations

import argparse
import fnmatch
import os
from itertools import islice

from casfs.cli.arguments import Commands, add_actions, add_command, add_json, add_store, duration
from casfs.cli.output import print_json, print_table, size
from casfs.cli.places import access_to, store_of
from casfs.errors import UsageError
from casfs.text import is_text, printable

LIMIT = 1000
"""Files that are listed as text if no other number is asked for."""

DAYS_LIMIT = 36500


def add(commands: Commands) -> None:
    actions = add_actions(commands, "trash", __doc__)

    listing = add_command(actions, "list", _list, "Show what is in the trash, the newest first.")
    add_store(listing)
    listing.add_argument(
        "pattern", metavar="PATTERN", nargs="?", help="only paths like that, as in fnmatch(3)"
    )
    add_json(listing)

    empty = add_command(actions, "empty", _empty, "Remove for good what is in the trash.")
    add_store(empty)
    empty.add_argument("--older", metavar="DURATION", type=duration, help="only what was removed so long ago")

    show = add_command(actions, "show", _show, "Show what goes to the trash, and how long it is kept.")
    add_store(show)
    add_json(show)

    setting = add_command(actions, "set", _set, "Set what goes to the trash, and how long it is kept.")
    add_store(setting)
    setting.add_argument("--repository", metavar="NAME", help="a directory in the root (default: the store)")
    setting.add_argument("--days", metavar="N", type=_days, help="keep it so long; 0: nothing goes there")
    setting.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        help="paths that do not go there, as in fnmatch(3); replaces those there were, '' by none",
    )
    setting.add_argument(
        "--minimal-age",
        metavar="DURATION",
        type=duration,
        help="what was there for less is a temporary file, in the whole store (default: 60s)",
    )


def _days(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) > DAYS_LIMIT:
        raise argparse.ArgumentTypeError(f"'{word}' is no number of days from 0 to {DAYS_LIMIT}")
    return int(word)


def _list(args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Sync
    from casfs.maintenance.trash import entries
    from casfs.trash.attributes import iso_time

    store = store_of(args.store)
    StoreAccess(store).tell(Sync())
    with entries(store) as found:
        wanted = (
            (row, size_)
            for row, size_ in found
            if args.pattern is None or fnmatch.fnmatchcase(os.fsdecode(row.path), args.pattern)
        )
        if args.json:
            print_json({"files": [row._asdict() | {"size": size_} for row, size_ in wanted]})
            return 0
        rows = [
            (iso_time(row.deleted_ns), str(row.uid), row.reason, size(size_), printable(row.path))
            for row, size_ in islice(wanted, LIMIT)
        ]
        more = sum(1 for _ in wanted)
    if rows:
        print_table(("removed", "by uid", "how", "size", "path"), rows)
    else:
        print("nothing of that kind is in the trash" if args.pattern else "the trash is empty")
    if more:
        print(f"and {more} more; --json lists all")
    return 0


def _empty(args: argparse.Namespace) -> int:
    from casfs.control.messages import EmptyTrash

    gone = access_to(args.store).perform(EmptyTrash(args.older or 0.0))
    print(f"{gone.files} file{'s' * (gone.files != 1)} removed for good, {size(gone.bytes)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from casfs.maintenance.trash import rules

    found, age_ns = rules(store_of(args.store))
    if args.json:
        print_json({"rules": [rule._asdict() for rule in found], "minimal_age_ns": age_ns})
        return 0
    rows = [
        (
            printable(rule.directory) or "(the store)",
            f"{rule.days} days" if rule.days else "off",
            printable(", ".join(rule.exclude)) or "-",
        )
        for rule in found
    ]
    print_table(("repository", "kept", "but not"), rows)
    print(f"nor what was there for less than {age_ns // 10**9} s")
    return 0


def _set(args: argparse.Namespace) -> int:
    from casfs.control.messages import SetTrashRule

    if args.days is None and args.exclude is None and args.minimal_age is None:
        raise UsageError("nothing to set", "give --days, --exclude or --minimal-age")
    if args.minimal_age is not None and args.repository is not None:
        raise UsageError("--minimal-age is for the whole store", "leave --repository out")
    directory = args.repository or ""
    if args.repository is not None and (
        not directory or "/" in directory or len(os.fsencode(directory)) > 255
    ):
        raise UsageError(f"'{directory}' is no name of a directory in the root")
    exclude = None if args.exclude is None else [pattern for pattern in args.exclude if pattern]
    if exclude and any("\n" in pattern for pattern in exclude):
        raise UsageError("a pattern cannot have a line break")
    if exclude and any(not is_text(pattern) for pattern in exclude):
        raise UsageError("a pattern has to be UTF-8", "'?' stands for any byte that is not")
    rule = SetTrashRule(directory, args.days, exclude, args.minimal_age)
    access_to(args.store).perform(rule)
    return 0
