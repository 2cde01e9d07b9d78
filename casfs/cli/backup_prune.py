"""`casfs backup prune`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from casfs.cli.arguments import Commands, add_command, add_json, count, duration
from casfs.cli.backup_run import add_destination
from casfs.cli.output import print_json, progress_bar, size
from casfs.cli.places import store_of
from casfs.cli.signals import stop_on_signals
from casfs.cli.times import moment
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.backup.prune import Pruned
    from casfs.maintenance.snapshots.retention import Retention

_PRUNE = """Drop the backups that are kept no longer, and collect what only they had.

For each source and each schedule by itself, and for those made by hand. One rule
is enough for a backup to be kept, as 'restic forget' does it; with none only
those go that have expired.

Exit code 0: done; 5: some backups cannot be read, and stay.
"""

_RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def add_prune(actions: Commands) -> None:
    parser = add_command(actions, "prune", _prune, _PRUNE)
    add_destination(parser)
    for rule in _RULES:
        what = "the newest N" if rule == "last" else f"the newest one of N that are {rule}"
        parser.add_argument(
            f"--keep-{rule}", metavar="N", type=_number, default=0, help=f"keep {what}; or 'all'"
        )
    parser.add_argument(
        "--keep-within",
        metavar="DURATION",
        type=duration,
        default=0,
        help="keep those not older, seen from the newest",
    )
    parser.add_argument("--job", metavar="NAME", help="only those of this schedule")
    parser.add_argument("--source", metavar="UUID", help="only those of this store; 'list --json' has it")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would go, and end")
    parser.add_argument("--no-gc", action="store_true", help="leave what they had to 'casfs gc run DEST'")
    add_json(parser)


def _number(word: str) -> int:
    from casfs.maintenance.snapshots.retention import ALL

    return ALL if word == "all" else count(word)


def _prune(args: argparse.Namespace) -> int:
    from casfs.control.backups import BackupAccess
    from casfs.maintenance.backup.prune import prune

    destination = store_of(args.dest)
    pruned = prune(
        destination,
        _policy(args),
        access=BackupAccess(),
        job=args.job,
        source_uuid=args.source,
        dry_run=args.dry_run,
    )
    freed = _collect(destination) if not args.dry_run and not args.no_gc else None
    if args.json:
        print_json(
            {
                "kept": [{"name": each.name, "reasons": reasons} for each, reasons in pruned.kept],
                "dropped": [{"name": each.name, "reason": why} for each, why in pruned.dropped],
                "problems": pruned.problems,
                "freed_blobs": None if freed is None else freed[0],
                "freed_bytes": None if freed is None else freed[1],
            }
        )
    else:
        _print(pruned, args.dry_run)
        if freed is not None:
            print(f"freed {freed[0]} contents, {size(freed[1])}")
        elif not args.dry_run:
            _tell_what_is_free(destination)
    return ExitCode.PROBLEMS if pruned.problems else ExitCode.OK


def _policy(args: argparse.Namespace) -> Retention:
    from casfs.maintenance.snapshots.retention import EVERYTHING, Retention

    policy = Retention(
        args.keep_last,
        args.keep_hourly,
        args.keep_daily,
        args.keep_weekly,
        args.keep_monthly,
        args.keep_yearly,
        args.keep_within * 10**9,
    )
    given = policy != EVERYTHING
    if not given and args.job is not None:
        raise UsageError("no rule says what is kept", "--keep-daily 30, as an example")
    return policy if given else EVERYTHING


def _collect(destination: str) -> tuple[int, int]:
    from casfs.control.access import StoreAccess
    from casfs.maintenance.collect import gc

    with stop_on_signals() as stop, progress_bar() as progress, gc.opened(destination, stop=stop) as opened:
        plan = gc.plan(opened)
        mount = StoreAccess(destination).collect
        outcome = gc.execute(opened, plan, stop=stop, progress=progress, mount=mount)
    return outcome.blobs, outcome.bytes


def _tell_what_is_free(destination: str) -> None:
    from casfs.maintenance.collect import gc

    due = gc.look(destination).due
    print(f"'casfs gc run {printable(destination)}' would free {due.blobs} contents, {size(due.bytes)}")


def _print(pruned: Pruned, dry_run: bool) -> None:
    for manifest, reasons in pruned.kept:
        print(f"keep  {manifest.name}  {moment(manifest.made_ns)}  {', '.join(reasons)}")
    for manifest, why in pruned.dropped:
        print(f"drop  {manifest.name}  {moment(manifest.made_ns)}  {why}")
    for problem in pruned.problems:
        print(f"keep  {printable(problem)}")
    verb = "would drop" if dry_run else "dropped"
    print(f"{verb} {len(pruned.dropped)} of {len(pruned.dropped) + len(pruned.kept)} backups")
