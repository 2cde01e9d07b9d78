"""Copy a file or a tree inside a store.

All or nothing, and no content is read or written. A DST that is a directory
is copied into, as cp(1) does; a directory is never replaced. SRC and DST are
paths in the mount of one store, or with --store paths from the root of that
store (/a/b), mounted or not.

Mode, owner, times, attributes and hard links within the tree are kept. The copy
gets its name in the last step: a crash before leaves nothing, others are served
meanwhile. A tree that others change while it is copied is not a snapshot. A
file that somebody writes to is waited for, up to 5 s; then its path is named.

--where copies the files below the directory SRC that are as the terms say (casfs
help searching), all or none in one transaction: to the paths below DST that they
have below SRC. Missing directories are made; nothing is replaced.

    casfs cp mnt/staging mnt/libs --where prop.qa=passed

--force also replaces a release of a repository with --immutable, which is for
root and the owner of the store; a line of the log says who did it.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_force, add_json, add_pair
from casfs.cli.places import pair
from casfs.cli.searches import add_where
from casfs.cli.where import Words, act
from casfs.errors import UsageError


def add(commands: Commands) -> None:
    parser = add_command(commands, "cp", run, __doc__)
    parser.add_argument("-r", "--recursive", action="store_true", help="copy directories with all they hold")
    add_force(parser)
    add_where(parser, "all files below SRC of which this holds")
    parser.add_argument("-n", "--dry-run", action="store_true", help="with --where: list it, and end")
    add_pair(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Copy, CopyInto

    place = pair(args.store, args.src, args.dst)
    if args.where:
        if args.force or args.recursive:
            raise UsageError("--where finds files, and replaces none", "leave --force and --recursive out")
        places = [(place.access, [place.source])]
        into = CopyInto(place.destination, place.source)
        return act(args, places, into, Words("copied", "would copy"))
    if args.dry_run or args.json:
        raise UsageError("--dry-run and --json are for --where")
    place.access.perform(Copy(place.source, place.destination, args.recursive, args.force))
    return 0
