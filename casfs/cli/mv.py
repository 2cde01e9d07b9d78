"""Move a file or a tree inside a store.

All or nothing, and no content is read or written. A DST that is a directory
is moved into, as mv(1) does. SRC and DST are paths in the mount of one store,
or with --store paths from the root of that store (/a/b), mounted or not.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_pair
from casfs.cli.places import pair


def add(commands: Commands) -> None:
    add_pair(add_command(commands, "mv", run, __doc__))


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Move

    place = pair(args.store, args.src, args.dst)
    place.access.perform(Move(place.source, place.destination))
    return 0
