"""Make files and trees immutable, until they are unlocked.

Nobody changes what is locked, root neither, by whatever program or path: what a
tree has below it, contents, names, attributes; a hard link of a locked file that
lies elsewhere; the directories above keep their names. All of it gives EPERM.
Reading goes on as before. Refused while a program has a file there open for
writing. Works on a mounted store and on one that is not, and through remounts.

    casfs lock STORE mnt/releases/1.0 --reason 'as delivered'
    casfs lock STORE --list

'casfs unlock' ends it.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, Parser, add_any, add_command, add_json, add_store, path, text
from casfs.cli.output import print_json, print_table
from casfs.cli.places import access_to, rooted_in, store_of
from casfs.cli.times import moment
from casfs.errors import ExitCode, UsageError
from casfs.text import printable


def add(commands: Commands) -> None:
    parser = add_command(commands, "lock", run, __doc__)
    add_store(parser)
    add_locked_paths(parser)
    parser.add_argument("--reason", default="", type=text, help="a line for those who meet it")
    parser.add_argument("--list", action="store_true", help="show what is locked")
    add_json(parser)


def add_locked_paths(parser: Parser) -> None:
    add_any(parser, "paths", "PATH", "in a mount, or from the store's root (/…)", path)


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import LockTrees

    if bool(args.paths) == args.list:
        raise UsageError("name the paths to lock, or --list", "see 'casfs lock --help'")
    if args.list:
        return _list(args)
    access = access_to(args.store)
    access.perform(LockTrees([rooted_in(access.store, each) for each in args.paths], args.reason))
    return ExitCode.OK


def _list(args: argparse.Namespace) -> int:
    from casfs.maintenance.locks import list_locks

    locks = list_locks(store_of(args.store))
    if args.json:
        print_json(
            [{"paths": each.paths, "locked_ns": each.locked_ns, "reason": each.reason} for each in locks]
        )
    elif locks:
        rows = [
            (", ".join(map(printable, each.paths)) or "-", moment(each.locked_ns), printable(each.reason))
            for each in locks
        ]
        print_table(("locked", "since", "reason"), rows)
    else:
        print("nothing is locked")
    return ExitCode.OK
