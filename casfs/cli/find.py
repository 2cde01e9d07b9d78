"""List artifacts by what their paths say.

Paths from the root of the store; of the mount, where STORE is one in it. ORG,
MODULE and the others are compared whole, or are patterns with *, ? and [...];
'*' stands for any text. With an exact ORG or MODULE the answer comes from an
index. Sorted by directory, then by name. Checksums and signatures (.sha1, .asc)
are no artifacts. What lies in the trash is not found.

Exit code 1 if nothing is found. More: casfs help searching
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_store, count
from casfs.errors import ExitCode
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.search import Found


def add(commands: Commands) -> None:
    parser = add_command(commands, "find", run, __doc__)
    add_store(parser)
    parser.add_argument("--repo", metavar="REPO", help="in this repository only, or in those that it shows")
    for name, what in (
        ("org", "organisation"),
        ("module", "module"),
        ("rev", "revision, with its integration revision"),
        ("classifier", "classifier; '' for none"),
        ("ext", "extension"),
        ("type", "type"),
    ):
        parser.add_argument(f"--{name}", metavar=name.upper(), help=what)
    parser.add_argument("--name", metavar="GLOB", help="name of the file")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--snapshots", action="store_true", help="snapshots and pre-releases only")
    kinds.add_argument("--releases", action="store_true", help="releases only")
    parser.add_argument("--limit", metavar="N", type=count, help="no more than N")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.cli.searches import search_of
    from casfs.namespace.searches import Wanted

    snapshot = True if args.snapshots else False if args.releases else None
    with search_of(args.store) as (search, prefix):
        repositories = () if args.repo is None else search.repositories(os.fsencode(args.repo))
        wanted = Wanted(repositories, args.org, args.module, args.rev, args.classifier, args.ext, args.type)
        found = islice(search.find(wanted, args.name, snapshot), args.limit)
        number = _print_json(found) if args.json else _print_paths(found, prefix)
    return ExitCode.OK if number else ExitCode.FAILED


def _print_paths(found: islice[Found], prefix: str) -> int:
    number = 0
    for each in found:
        print(printable(prefix + os.fsdecode(each.path)))
        number += 1
    return number


def _print_json(found: islice[Found]) -> int:
    """A document, of which each artifact is written as it is found."""
    number = 0
    sys.stdout.write('{"artifacts": [')
    for each in found:
        sys.stdout.write(f"{',' * bool(number)}\n  {json.dumps(as_json(each))}")
        number += 1
    sys.stdout.write("\n]}\n")
    return number


def as_json(found: Found) -> dict[str, Any]:
    row = found.row
    return {
        "path": os.fsdecode(found.path),
        "repository": os.fsdecode(found.repository),
        "organisation": row.organisation,
        "module": row.module,
        "revision": row.revision,
        "base_revision": row.base,
        "integration_revision": row.integration,
        "snapshot": found.snapshot,
        "classifier": row.classifier,
        "extension": row.extension,
        "type": row.type,
        "tokens": _tokens(row.tokens),
    }


def _tokens(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None  # a damaged row: fsck tells of it
