"""Show the newest release of a module.

Prints the revision, and the paths of its files: from the root of the store, or
of the mount, where STORE is one in it. Revisions are sorted as the layout of
their repository has it: as Maven does, as semantic versions, or by PEP 440. A
module without an organisation, as npm has them, is :MODULE or MODULE. As Go and
npm write them does as well: golang.org/x/net, @types/node.

Exit code 1 if there is none. More: casfs help searching
"""

from __future__ import annotations

import argparse
import os
from typing import NamedTuple

from casfs.cli.arguments import Commands, add_command, add_json, add_store
from casfs.cli.output import print_json
from casfs.text import printable


class Module(NamedTuple):
    """What ORG:MODULE says."""

    organisation: str
    name: str

    @property
    def as_path(self) -> Module:
        """The same, taken as a path: an organisation has a dot for each slash."""
        organisation, _, name = "/".join(filter(None, self)).rpartition("/")
        return Module(organisation.replace("/", "."), name)


def add(commands: Commands) -> None:
    parser = add_command(commands, "latest", run, __doc__)
    add_store(parser)
    parser.add_argument("module", metavar="ORG:MODULE", type=_module, help="organisation and module")
    parser.add_argument("--repo", metavar="REPO", help="in this repository only, or in those that it shows")
    parser.add_argument("--snapshot", action="store_true", help="snapshots and pre-releases too")
    add_json(parser)


def _module(word: str) -> Module:
    organisation, _, name = word.rpartition(":")
    if not name:
        raise argparse.ArgumentTypeError(f"'{word}' names no module: write it as ORG:MODULE")
    if any(character in word for character in "*?["):
        raise argparse.ArgumentTypeError("one module is wanted, no pattern; 'casfs find' takes them")
    return Module(organisation, name)


def run(args: argparse.Namespace) -> int:
    from casfs.cli.find import artifact_json
    from casfs.cli.searches import search_of
    from casfs.maintenance.query import Query
    from casfs.maintenance.search import NothingFound, latest
    from casfs.namespace.searches import TokenMatch

    module: Module = args.module

    def query(module: Module) -> Query:
        tokens = TokenMatch("organisation", module.organisation), TokenMatch("module", module.name)
        repositories = () if args.repo is None else (os.fsencode(args.repo),)
        return Query(tokens=tokens, repositories=repositories, snapshot=None if args.snapshot else False)

    with search_of(args.store) as (search, prefix):
        try:
            found = latest(search, query(module))
        except NothingFound:
            if module.as_path == module:
                raise
            found = latest(search, query(module.as_path))
    if args.json:
        print_json({"revision": found[0].row.revision, "artifacts": [artifact_json(each) for each in found]})
        return 0
    print(printable(found[0].row.revision))
    for each in found:
        print(printable(prefix + os.fsdecode(each.path)))
    return 0
