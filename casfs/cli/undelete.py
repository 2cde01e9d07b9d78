"""Bring removed, replaced or emptied files back out of the trash.

Restores the newest version of each PATH to where it was, with the
directories that are missing; never overwrites. A PATH that was a directory
brings back every file that was below it, but those whose name is taken now.
PATH is one in the mount of the store, or one from the store's root.

More: casfs help trash
"""

from __future__ import annotations

import argparse
import sys

from casfs.cli.arguments import Commands, add_command, add_store, instant, path
from casfs.cli.places import access_to, place_in
from casfs.errors import CasfsError, ExitCode
from casfs.text import printable

DAY = 86_400

END_OF_TIME = (1 << 63) - 1


def add(commands: Commands) -> None:
    parser = add_command(commands, "undelete", run, __doc__)
    add_store(parser)
    parser.add_argument("paths", metavar="PATH", type=path, nargs="+", help="what is to be restored")
    parser.add_argument(
        "--date", metavar="TIME", type=instant, help="only what was removed on the day of that (UTC)"
    )


def _day(seconds: int) -> tuple[int, int]:
    """The day in UTC that a time lies in: its first nanosecond, and that of the next one."""
    start = max(0, seconds // DAY * DAY)
    return min(start * 10**9, END_OF_TIME), min((start + DAY) * 10**9, END_OF_TIME)


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Undelete

    access = access_to(args.store)
    since_ns, before_ns = (0, END_OF_TIME) if args.date is None else _day(args.date)
    failed = False
    for word in args.paths:
        inside = place_in(access.store, word)
        try:
            found = access.perform(Undelete(inside, since_ns, before_ns))
        except (CasfsError, OSError) as error:
            if len(args.paths) == 1:
                raise
            failed = True
            print(f"casfs: error: {printable(str(error))}", file=sys.stderr)
            continue
        left = f"; {found.skipped} not, their names are taken" if found.skipped else ""
        print(f"{printable(inside)}: {found.files} file{'s' * (found.files != 1)} restored{left}")
    return ExitCode.FAILED if failed else ExitCode.OK
