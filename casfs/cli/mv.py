"""Move a file or a tree inside a store.

All or nothing, and no content is read or written. A DST that is a directory
is moved into, as mv(1) does. SRC and DST are paths in the mount of one store,
or with --store paths from the root of that store (/a/b), mounted or not.

--force also moves and replaces releases of repositories with --immutable, which
is for root and the owner of the store; a line of the log says who did it.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_force, add_pair
from casfs.cli.places import pair


def add(commands: Commands) -> None:
    parser = add_command(commands, "mv", run, __doc__)
    add_force(parser)
    add_pair(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Move

    place = pair(args.store, args.src, args.dst)
    place.access.perform(Move(place.source, place.destination, args.force))
    return 0
