"""Bring removed, replaced or emptied files back out of the trash.

Restores the newest version of each PATH to where it was, with the
directories that are missing; never overwrites. A PATH that was a directory
brings back every file that was below it, but those whose name is taken now.
PATH is one in the mount of the store, or one from the store's root.

More: casfs help trash
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys

from casfs.cli.arguments import Commands, add_command, add_store, path
from casfs.cli.output import printable
from casfs.cli.places import store_of
from casfs.errors import CasfsError, ExitCode, NotMounted

END_OF_TIME = (1 << 63) - 1


def add(commands: Commands) -> None:
    parser = add_command(commands, "undelete", run, __doc__)
    add_store(parser)
    parser.add_argument("paths", metavar="PATH", type=path, nargs="+", help="what is to be restored")
    parser.add_argument("--date", type=_date, help="only what was removed on that day, UTC: YYYY-MM-DD")


def _date(word: str) -> tuple[int, int]:
    """The first nanosecond of a day, and that of the next one."""
    try:
        day = datetime.datetime.strptime(word, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{word}' is no day like 2030-12-31") from None
    start = max(0, int(day.timestamp()))
    return min(start * 10**9, END_OF_TIME), min((start + 86400) * 10**9, END_OF_TIME)


def run(args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Undelete

    store = store_of(args.store)
    access = StoreAccess(store)
    since_ns, before_ns = args.date or (0, END_OF_TIME)
    failed = False
    for word in args.paths:
        inside = _inside(store, word)
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


def _inside(store: str, word: str) -> str:
    """The path from the root of the store."""
    from casfs.service.mounts import find_mount

    try:
        mount, inside = find_mount(word)
    except NotMounted:
        return word
    return os.fsdecode(inside) if mount.store == os.path.realpath(store) else word
