"""Let what was locked be changed again.

PATH is one that 'casfs lock STORE --list' shows: what lies below it is unlocked
with it, but for what has a lock of its own.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_store, path
from casfs.cli.places import access_to, rooted_in
from casfs.errors import ExitCode


def add(commands: Commands) -> None:
    parser = add_command(commands, "unlock", run, __doc__)
    add_store(parser)
    parser.add_argument(
        "paths", metavar="PATH", type=path, nargs="+", help="in a mount, or from the store's root (/…)"
    )


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import UnlockTrees

    access = access_to(args.store)
    access.perform(UnlockTrees([rooted_in(access.store, each) for each in args.paths]))
    return ExitCode.OK
