"""Move a file or a tree inside a store.

All or nothing, and no content is read or written. A DST that is a directory
is moved into, as mv(1) does. SRC and DST are paths in the mount of one store,
or with --store paths from the root of that store (/a/b), mounted or not.

--where moves the files below the directory SRC that are as the terms say (casfs
help searching), all or none in one transaction: to the paths below DST that they
have below SRC. Missing directories are made; nothing is replaced, and the
directories that are left empty stay.

--force also moves and replaces releases of repositories with --immutable, which
is for root and the owner of the store; a line of the log says who did it.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_force, add_json, add_pair
from casfs.cli.places import pair
from casfs.cli.searches import add_where
from casfs.cli.where import Words, act
from casfs.errors import UsageError


def add(commands: Commands) -> None:
    parser = add_command(commands, "mv", run, __doc__)
    add_force(parser)
    add_where(parser, "all files below SRC of which this holds")
    parser.add_argument("-n", "--dry-run", action="store_true", help="with --where: list it, and end")
    add_pair(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Move, MoveInto

    place = pair(args.store, args.src, args.dst)
    if args.where:
        places = [(place.access, [place.source])]
        into = MoveInto(place.destination, args.force, place.source)
        return act(args, places, into, Words("moved", "would move"))
    if args.dry_run or args.json:
        raise UsageError("--dry-run and --json are for --where")
    place.access.perform(Move(place.source, place.destination, args.force))
    return 0
