"""Set, show and remove properties of files and directories.

A property has a key and one or more values, and is the extended attribute
user.casfs.prop.KEY with a value a line: setfattr(1) and getfattr(1) do the same
for one file, and cp -a, mv, rsync -X and tar --xattrs keep it. 'casfs find'
searches for it.

A PATH is one in the mount of a store, or with --store one from the root of that
store (/a/b), mounted or not. All that one command sets or removes is one
transaction, up to 100,000 files of a store: all of it is there afterwards, also
after a crash, or nothing.

More: casfs help properties
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from casfs import properties
from casfs.cli.arguments import Commands, Parser, add_actions, add_any, add_command, add_json, add_path, path
from casfs.cli.output import print_json
from casfs.cli.places import inside
from casfs.cli.searches import add_where
from casfs.cli.where import Words, act
from casfs.errors import ExitCode, FsError, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.control.messages import Acted, Action


def add(commands: Commands) -> None:
    actions = add_actions(commands, "prop", __doc__)

    setting = add_command(actions, "set", _set, "Give properties these values, and no others.")
    _add_properties(setting, "KEY=VALUE", _value, "given again: another one, or another value of that key")
    _add_targets(setting)

    getting = add_command(actions, "get", _get, "Show the properties of a file or directory.")
    getting.add_argument("--store", metavar="STORE", type=path, help="take PATH from this store's root")
    add_path(getting, "PATH", "what is there")
    getting.add_argument("key", metavar="KEY", nargs="?", help="the values of this one only, a line each")
    add_json(getting)

    removing = add_command(actions, "rm", _remove, "Remove properties, with all their values.")
    _add_properties(removing, "KEY", _key, "given again: another one")
    _add_targets(removing)


def _add_properties(parser: Parser, metavar: str, kind: object, summary: str) -> None:
    parser.add_argument(
        "-p",
        "--prop",
        metavar=metavar,
        type=kind,  # type: ignore[arg-type]
        action="append",
        required=True,
        help=summary,
    )


def _add_targets(parser: Parser) -> None:
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="of all files below a directory, not of itself"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="say of how many files, and end")
    parser.add_argument("--store", metavar="STORE", type=path, help="take each PATH from this store's root")
    parser.add_argument("--files-from", metavar="FILE", type=path, help="more PATHs, a line each; - is input")
    parser.add_argument("-0", "--null", action="store_true", help="they end with a NUL, not with a line")
    add_any(parser, "paths", "PATH", "what is there", path)
    add_where(parser, "all files below PATH of which this holds")
    add_json(parser)


def _key(word: str) -> str:
    """An argument's type."""
    return _checked(word, "")[0]


def _value(word: str) -> tuple[str, str]:
    """An argument's type."""
    key, equals, value = word.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{printable(word)}' is no property: write KEY=VALUE")
    return _checked(key, value)


def _checked(key: str, value: str) -> tuple[str, str]:
    try:
        name = properties.attribute_of(key)
        properties.check(name, properties.value_of([value]))
    except FsError as error:
        raise argparse.ArgumentTypeError(error.strerror) from None
    if len(name) > properties.NAME_LIMIT:
        limit = properties.NAME_LIMIT - len(properties.PREFIX)
        raise argparse.ArgumentTypeError(f"the key of a property has at most {limit} bytes")
    return key, value


def _set(args: argparse.Namespace) -> int:
    from casfs.control.messages import SetProperties

    values: dict[str, list[str]] = {}
    for key, value in args.prop:
        values.setdefault(key, []).append(value)
    return _act(args, SetProperties(values, args.recursive), "set")


def _remove(args: argparse.Namespace) -> int:
    from casfs.control.messages import RemoveProperties

    return _act(args, RemoveProperties(args.prop, args.recursive), "removed")


def _act(args: argparse.Namespace, action: Action, done: str) -> int:
    from casfs.control.messages import ActOn, Target

    paths = [*args.paths, *_listed(args)]
    if not paths:
        raise UsageError("no PATH given", f"see '{args.parser.prog} --help'")
    if args.where:
        if args.recursive:
            raise UsageError("--where finds files", "leave --recursive out")
        words = Words(f"{done} properties of", f"would be {done}: properties of")
        return act(args, inside(args.store, paths), action, words)
    acted = [
        access.perform(ActOn(action, list(map(Target, below)), args.dry_run))
        for access, below in inside(args.store, paths)
    ]
    _print(acted, args, f"would be {done}" if args.dry_run else done)
    return ExitCode.FAILED if any(each.changed for each in acted) else ExitCode.OK


def _listed(args: argparse.Namespace) -> list[str]:
    """The paths of --files-from. Raises OSError, UsageError."""
    if args.files_from is None:
        if args.null:
            raise UsageError("--null is about --files-from")
        return []
    if args.files_from == "-":
        listed = sys.stdin.buffer.read()
    else:
        with open(args.files_from, "rb") as file:
            listed = file.read()
    words = (os.fsdecode(line) for line in listed.split(b"\0" if args.null else b"\n") if line)
    try:
        return [path(word) for word in words]
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{args.files_from}: {error}") from None


def _print(acted: list[Acted], args: argparse.Namespace, done: str) -> None:
    files, changed = (sum(each.files for each in acted), sum(each.changed for each in acted))
    if args.json:
        print_json({"files": files, "changed": changed})
        return
    print(f"{done}: properties of {files} file{'s' * (files != 1)}")
    if changed:
        print(f"casfs: error: {changed} of them were removed or replaced meanwhile", file=sys.stderr)


def _get(args: argparse.Namespace) -> int:
    from casfs.control.messages import GetProperties

    ((access, (inner,)),) = inside(args.store, [args.path])
    found = access.perform(GetProperties(inner)).properties
    if args.key is not None:
        found = {key: values for key, values in found.items() if key == args.key}
    if args.json:
        print_json(found)
    else:
        for key, values in found.items():
            for value in values:
                print(printable(value if args.key is not None else f"{key}={value}"))
    return ExitCode.OK if found or args.key is None else ExitCode.FAILED
