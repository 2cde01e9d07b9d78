"""Copy a file or a tree inside a store.

All or nothing, and no content is read or written. A DST that is a directory
is copied into, as cp(1) does; a directory is never replaced. SRC and DST are
paths in the mount of one store, or with --store paths from the root of that
store (/a/b), mounted or not.

Mode, owner, times, attributes and hard links within the tree are kept. The copy
gets its name in the last step: a crash before leaves nothing, others are served
meanwhile. A tree that others change while it is copied is not a snapshot. A
file that somebody writes to is waited for, up to 5 s; then its path is named.

--force also replaces a release of a repository with --immutable, which is for
root and the owner of the store; a line of the log says who did it.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_force, add_pair
from casfs.cli.places import pair


def add(commands: Commands) -> None:
    parser = add_command(commands, "cp", run, __doc__)
    parser.add_argument("-r", "--recursive", action="store_true", help="copy directories with all they hold")
    add_force(parser)
    add_pair(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Copy

    place = pair(args.store, args.src, args.dst)
    place.access.perform(Copy(place.source, place.destination, args.recursive, args.force))
    return 0
