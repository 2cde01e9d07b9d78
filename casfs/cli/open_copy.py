"""Make a store of a copy that some tool has made of a store's directory.

DIR is what rsync, tar, a restore of restic or borg, or a snapshot of a file system
or a volume has left. A copy that was made under 'casfs hold' is consistent as of
that moment: the database of its snapshot becomes that of the store, and the one
that was copied while it changed goes to casfs.db.copied. So does the newest other
snapshot of which all contents are there. A copy without any is as a power cut
leaves a store, if it was made at one moment; what it lacks is named.

Where a copy has both, say which: --live for a copy that was made at one moment, as
file systems and volumes make them, --snapshot NAME for another one.

Exit code 1, and nothing is changed, if what is taken lacks something; with --force
it is opened, and the exit code is 5.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_path
from casfs.cli.output import print_json, progress_bar
from casfs.cli.times import moment
from casfs.errors import ExitCode
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.open_copy import Candidate, Opened


def add(commands: Commands) -> None:
    parser = add_command(commands, "open-copy", run, __doc__)
    add_path(parser, "DIR", "a copy of a store's directory, which nobody uses")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--snapshot", metavar="NAME", help="take this one")
    which.add_argument("--live", action="store_true", help="take the live database, not a snapshot")
    parser.add_argument("--force", action="store_true", help="open it though something is missing")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what there is, and change nothing")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.maintenance.open_copy import open_copied

    with progress_bar() as progress:
        opened = open_copied(
            args.dir,
            snapshot=args.snapshot,
            live=args.live,
            force=args.force or args.dry_run,
            dry_run=args.dry_run,
            progress=progress,
        )
    if args.json:
        print_json(_as_json(opened))
    else:
        _print(opened)
    return ExitCode.OK if opened.taken.is_whole else ExitCode.PROBLEMS


def _as_json(opened: Opened) -> dict[str, Any]:
    return {
        "store": opened.store,
        "held": opened.taken.snapshot is not None,
        "taken": _candidate(opened.taken),
        "candidates": [_candidate(each) for each in opened.candidates],
        "aside": opened.aside,
        "done": opened.done,
    }


def _candidate(each: Candidate) -> dict[str, Any]:
    return {
        "snapshot": each.snapshot,
        "made_ns": each.made_ns,
        "whole": each.is_whole,
        "why": each.why,
        "faults": each.faults,
        "missing": each.missing,
        "paths": each.paths,
        "paths_total": each.paths_total,
    }


def _print(opened: Opened) -> None:
    for each in opened.candidates:
        print(_line(each))
        for path in each.paths:
            print(f"  lacks {printable(path)}")
        if each.paths_total > len(each.paths):
            print(f"  and {each.paths_total - len(each.paths)} more")
        for fault in each.faults[:20]:
            print(f"  {printable(fault)}")
    taken, store = opened.taken, printable(opened.store)
    would = "" if opened.done else "would be "
    if taken.snapshot is None:
        how = "as a power cut leaves it, if the copy was made at one moment"
    else:
        how = f"held: it is as it was at {moment(taken.made_ns)}, when snapshot {taken.snapshot} was made"
    print(f"{store} {would or 'is '}a store, {how}")
    if opened.aside:
        print(f"the database that was copied while it changed {would or 'is '}in {opened.aside}")


def _line(each: Candidate) -> str:
    what = (
        "the live database"
        if each.snapshot is None
        else f"snapshot {each.snapshot} of {moment(each.made_ns)}"
    )
    if each.why:
        return f"{what}: cannot be used: {printable(each.why)}"
    if each.is_whole:
        return f"{what}: whole"
    lacks = f"lacks {each.missing} contents" if each.missing else ""
    faults = f"{len(each.faults)} faults" if each.faults else ""
    return f"{what}: {', '.join(filter(None, (lacks, faults)))}"
