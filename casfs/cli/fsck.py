"""Check a store, and repair it.

Compares names, inodes and blobs with each other and with the files in the
store; --deep also reads every blob and compares it with its digest. Each
problem is printed with the paths it affects and what --repair does about it:
an error breaks a promise of the store, garbage is what a crash may leave, a
note needs nothing done. A store in use is checked as its last commit left it;
what cannot be judged then is listed, and repair is refused.

  $ casfs fsck --deep s
  error corrupt-blob (I2): blobs/8e/8e4c…29a99: its bytes have the digest cd8b…c6a3
    /a
    repair: the file goes to quarantine/; reading gives EIO until that content is written again
  /tmp/rd2/s: 1 error

Repair never deletes the only copy of a content: what has no place gets a name
in lost+found in the root of the store, a damaged file goes to
STORE/quarantine. A blob that is missing heals when the same content is written
again under any name, or by 'casfs heal' (casfs help bit-rot).

Exit code 0: no error (is left), garbage and notes aside; 5: there are errors.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_store
from casfs.cli.output import print_json, progress_bar
from casfs.cli.places import store_of
from casfs.errors import ExitCode
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.check.problems import Problem, Report

_PLURAL = {"error": "errors", "garbage": "times garbage", "note": "notes"}


def add(commands: Commands) -> None:
    parser = add_command(commands, "fsck", run, __doc__)
    add_store(parser)
    parser.add_argument("--deep", action="store_true", help="read every blob and check it against its digest")
    parser.add_argument(
        "--repair", action="store_true", help="mend what is found; not while the store is mounted"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.maintenance.check.fsck import check, repair

    store = store_of(args.store)
    with progress_bar() as progress:
        found = left = check(store, args.deep, progress, exclusive=args.repair)
        if args.repair and found.problems:
            left = repair(store, found, progress)
    if args.json:
        print_json(_as_json(found, left))
    else:
        _print(found, left, repaired=args.repair)
    return ExitCode.PROBLEMS if left.errors else ExitCode.OK


def _as_json(found: Report, left: Report) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "store": found.store,
        "deep": found.deep,
        "in_use": found.in_use,
        "unchecked": list(found.unchecked),
        "clean": not left.errors,
        "problems": [asdict(problem) for problem in found.problems],
        "left": [asdict(problem) for problem in left.problems],
    }


def _print(found: Report, left: Report, *, repaired: bool) -> None:
    for problem in found.problems:
        _print_problem(problem)
    if found.in_use is not None:
        print(f"in use by {printable(found.in_use)}; not checked:")
        for what in found.unchecked:
            print(f"  {printable(what)}")
    store = printable(found.store)
    if not repaired or not found.problems:
        print(f"{store}: {_count(found)}")
        if found.problems:
            print("'casfs fsck --repair' does what is said above")
        return
    print(f"{store}: {_count(found)}; after repair {_count(left)}")
    known = set(found.problems)
    for problem in left.problems:
        if problem not in known:
            _print_problem(problem)


def _print_problem(problem: Problem) -> None:
    broken = f" ({problem.invariant})" if problem.invariant else ""
    print(f"{problem.severity} {problem.kind}{broken}: {printable(problem.detail)}")
    for path in problem.paths:
        print(f"  {printable(path)}")
    if problem.paths_total > len(problem.paths):
        print(f"  and {problem.paths_total - len(problem.paths)} more")
    print(f"  repair: {problem.repair}")


def _count(report: Report) -> str:
    """`clean`, or how many of each severity."""
    counts: Counter[str] = Counter()
    for problem in report.problems:
        counts[problem.severity] += problem.count
    words = [f"{count} {_PLURAL[severity] if count > 1 else severity}" for severity, count in counts.items()]
    return ", ".join(words if report.errors else ["clean", *words])
