"""Remove files and trees inside a store, by one request to its daemon.

What is removed goes to the trash as its rules have it (casfs help trash). All
that is below a PATH is looked at first: if a rule keeps something, nothing of
it is removed, and the rule is named. A PATH is one in the mount of a store, or
with --store one from the root of that store (/a/b), mounted or not. Through a
view or a virtual repository what it shows is removed.

--force also removes releases of repositories with --immutable, which is for
root and the owner of the store; a line of the log says who did it. No other
rule gives way.

--where removes the files below the directories PATH that are as the terms say,
all of a store or none, in one transaction (casfs help searching): of each module
all but the newest three snapshots that are older than 30 days, for example, but
what has the property keep. --dry-run lists them.

    casfs rm -n mnt/libs --where snapshots keep=3 older=30d '!prop.keep'

Exit code 1 if something is left, which is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from casfs.cli.arguments import Commands, add_command, add_force, add_json, add_paths
from casfs.cli.output import print_json, size
from casfs.cli.places import inside
from casfs.cli.searches import add_where
from casfs.cli.where import Words, act
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.control.messages import Removed

BATCH_BYTES = 60_000
"""Of paths in a request (control/protocol.py, LINE_LIMIT)."""


def add(commands: Commands) -> None:
    parser = add_command(commands, "rm", run, __doc__)
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="remove directories with all they hold"
    )
    add_force(parser)
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be removed, and end")
    add_where(parser, "all files below PATH of which this holds")
    add_paths(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Remove, RemoveFiles

    if args.where:
        if args.recursive:
            raise UsageError("--where finds files, and removes no directories", "leave --recursive out")
        places = inside(args.store, args.paths)
        return act(args, places, RemoveFiles(args.force), Words("removed", "would remove"))
    done: list[Removed] = []
    try:
        for access, paths in inside(args.store, args.paths):
            for batch in _batches(paths):
                asked = Remove(batch, args.recursive, args.force, args.dry_run)
                done.append(access.perform(asked))
    finally:
        if done:
            _print(done, args)
    return ExitCode.FAILED if any(each.failures for each in done) else ExitCode.OK


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    """As many at a time as fit into a request."""
    batch: list[str] = []
    room = BATCH_BYTES
    for path in paths:
        room -= len(json.dumps(path)) + 2
        if room < 0 and batch:
            yield batch
            batch, room = [], BATCH_BYTES - len(json.dumps(path)) - 2
        batch.append(path)
    yield batch


def _print(done: list[Removed], args: argparse.Namespace) -> None:
    facts = {
        "files": sum(each.files for each in done),
        "directories": sum(each.directories for each in done),
        "bytes": sum(each.bytes for each in done),
        "releases": sum(each.releases for each in done),
    }
    failures = [failure for each in done for failure in each.failures]
    if args.json:
        print_json({**facts, "failures": [{"path": path, "error": error} for path, error in failures]})
        return
    for _, error in failures:
        print(f"casfs: error: {printable(error)}", file=sys.stderr)
    if failures and not (facts["files"] or facts["directories"]):
        return
    what = "would remove" if args.dry_run else "removed"
    line = f"{what} {_several(facts['files'], 'file')}, {size(facts['bytes'])}"
    if facts["directories"]:
        line += f", and {_several(facts['directories'], 'directory', 'directories')}"
    if facts["releases"]:
        line += f"; {facts['releases']} of them immutable releases"
    print(line)


def _several(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or f'{one}s'}"
