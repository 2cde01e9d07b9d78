"""Check a store, and repair it.

Compares names, inodes and blobs with each other and with the files in the
store; --deep also reads every blob and compares it with its digest. Each
problem is printed with the paths it touches and what --repair does about it.
Repair never deletes the only copy of a content: what has no place goes to
/lost+found.

Exit code 0: nothing is wrong (any more); 5: problems are left.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_path
from casfs.cli.output import print_json, printable, progress
from casfs.cli.places import store_of
from casfs.errors import ExitCode

if TYPE_CHECKING:
    from casfs.maintenance.fsck import Problem


def add(commands: Commands) -> None:
    parser = add_command(commands, "fsck", run, __doc__)
    add_path(parser, "STORE", "a store, or a path in the mount of one")
    parser.add_argument("--deep", action="store_true", help="read every blob and check it against its digest")
    parser.add_argument(
        "--repair", action="store_true", help="mend what is found; not while the store is mounted"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.maintenance.fsck import check, repair

    store = store_of(args.store)
    with progress() as tell:
        report = check(store, args.deep, tell)
        found = left = report.problems
        if args.repair and found:
            left = repair(store, report, tell).problems
    if args.json:
        print_json({"store": store, "deep": args.deep, "problems": _as_json(found), "left": _as_json(left)})
    else:
        _print(store, found, left, repaired=args.repair)
    return ExitCode.PROBLEMS if left else ExitCode.OK


def _as_json(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [
        {"kind": each.kind, "detail": each.detail, "paths": list(each.paths), "repair": each.repair}
        for each in problems
    ]


def _print(store: str, found: Sequence[Problem], left: Sequence[Problem], *, repaired: bool) -> None:
    for problem in found:
        print(f"{problem.kind}: {printable(problem.detail)}")
        for path in problem.paths:
            print(f"  {printable(path)}")
        print(f"  repair: {printable(problem.repair)}")
    if not found:
        print(f"{printable(store)}: clean")
    elif repaired:
        print(f"{printable(store)}: {len(found)} found, {len(left)} left after repair")
    else:
        print(f"{printable(store)}: {len(found)} found; 'casfs fsck --repair' mends them")
