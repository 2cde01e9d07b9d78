"""List files by digest, property, what their paths say, name, size and age.

Paths from the root of the store; of the mount, where STORE is one in it. All
that is asked for has to hold. Names, ORG, MODULE and the others are compared
whole, or are patterns with *, ? and [...]; '*' stands for any text. A digest may
be the begin of one. By an index: a digest, a property, an exact ORG or MODULE;
else all files are looked at, and a line on standard error says so.

Sorted by directory, then by name; by a digest or a property, as the files were
made. Options about artifacts leave out their checksums and signatures (.sha1,
.asc), unless --companions. Who gives none finds every file. What lies in the
trash is found with --trash.

Exit code 1 if nothing is found. More: casfs help searching
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, Parser, add_command, add_store, count
from casfs.cli.output import size
from casfs.cli.searches import add_where, note, notes_of, search_of
from casfs.errors import ExitCode
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.search import Duplicate, Found, Search

DIGESTS = ("sha256", "sha1", "md5", "sha512", "crc32c", "blake3")

TOKENS = (
    ("org", "organisation"),
    ("module", "module"),
    ("rev", "revision, with its integration revision"),
    ("classifier", "classifier; '' for none"),
    ("ext", "extension"),
    ("type", "type"),
)

OTHERS = {
    "larger": "size>",
    "smaller": "size<",
    "older": "older=",
    "newer": "newer=",
    "unused_since": "unused=",
}
"""Option -> how the term begins that it stands for; of the rest the name says it."""

FLAGS = ("snapshots", "releases", "companions", "duplicates", "trash")


def add(commands: Commands) -> None:
    parser = add_command(commands, "find", run, __doc__)
    add_store(parser)
    _add_contents(parser)
    _add_artifacts(parser)
    _add_files(parser)
    add_where(parser, "what has to hold, too")
    parser.add_argument("--limit", metavar="N", type=count, help="no more than N; of --duplicates, contents")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON: with digests, properties and times")
    output.add_argument(
        "-0", "--print0", action="store_true", help="end each path with NUL, as xargs -0 reads"
    )
    output.add_argument("--count", action="store_true", help="print how many there are")


def _add_contents(parser: Parser) -> None:
    for name in DIGESTS:
        parser.add_argument(f"--{name}", metavar="HEX", help=f"{name} of the content, or how it begins")
    parser.add_argument(
        "--prop", metavar="KEY[=VALUE]", action="append", help="has this property; repeatable"
    )
    parser.add_argument("--no-prop", metavar="KEY[=VALUE]", action="append", help="has it not; repeatable")


def _add_artifacts(parser: Parser) -> None:
    parser.add_argument("--repo", metavar="REPO", help="in this repository only, or in those that it shows")
    for name, what in TOKENS:
        parser.add_argument(f"--{name}", metavar=name.upper(), help=what)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--snapshots", action="store_true", help="snapshots and pre-releases only")
    kinds.add_argument("--releases", action="store_true", help="releases only")
    parser.add_argument("--keep", metavar="N", help="not the newest N revisions of each module")
    parser.add_argument("--companions", action="store_true", help="also what accompanies artifacts")


def _add_files(parser: Parser) -> None:
    parser.add_argument("--name", metavar="GLOB", help="name of the file")
    parser.add_argument("--path", metavar="GLOB", help="path from the root of the store: '/libs/org/*'")
    parser.add_argument("--larger", metavar="SIZE", help="than so much")
    parser.add_argument("--smaller", metavar="SIZE", help="than so much")
    parser.add_argument("--older", metavar="TIME", help="last modified before that (mtime)")
    parser.add_argument("--newer", metavar="TIME", help="last modified since then")
    parser.add_argument(
        "--unused-since", metavar="TIME", help="not opened since then, where --access-times are kept"
    )
    parser.add_argument(
        "--duplicates", action="store_true", help="contents with several names, and their sum"
    )
    parser.add_argument("--trash", action="store_true", help="also what lies in the trash")


def terms(args: argparse.Namespace) -> list[str]:
    """What the options say, as terms (maintenance/query.py)."""
    found: list[str] = [name for name in FLAGS if getattr(args, name)]
    found += [f"prop.{each}" for each in args.prop or ()]
    found += [f"!prop.{each}" for each in args.no_prop or ()]
    for name in (*DIGESTS, *(token for token, _ in TOKENS), "repo", "name", "path", "keep", *OTHERS):
        value = getattr(args, name)
        if value is not None:
            found.append(f"{OTHERS.get(name, f'{name}=')}{value}")
    found += args.where
    return found


def run(args: argparse.Namespace) -> int:
    from casfs.maintenance.query import parse

    query = parse(terms(args))
    with search_of(args.store, seal=query.needs_digests or args.json) as (search, prefix):
        search.check(query)
        source = search.source(query)
        for line in notes_of(search, query, source):
            note(line)
        if query.duplicates:
            number = _print_duplicates(islice(search.duplicates(query), args.limit), prefix, args)
        else:
            found = islice(search.find(query), args.limit)
            if args.json:
                number = _print_json(found, search, scan=source.scan)
            elif args.count:
                number = sum(1 for _ in found)
                print(number)
            else:
                number = _print_paths(found, prefix, null=args.print0)
        if not number:
            for line in search.notes_on_digests(query):
                note(line)
    return ExitCode.OK if number else ExitCode.FAILED


def _print_paths(found: Iterable[Found], prefix: str, *, null: bool, indent: str = "") -> int:
    number = 0
    for each in found:
        if null:
            sys.stdout.buffer.write(os.fsencode(prefix) + each.path + b"\0")
        else:
            print(indent + printable(prefix + os.fsdecode(each.path)))
        number += 1
    return number


def _print_json(found: Iterable[Found], search: Search, *, scan: bool) -> int:
    """A document, of which each file is written as it is found."""
    number = 0
    sys.stdout.write(f'{{"scan": {json.dumps(scan)}, "files": [')
    for each in found:
        sys.stdout.write(f"{',' * bool(number)}\n  {json.dumps(as_json(each, search))}")
        number += 1
    sys.stdout.write("\n]}\n")
    return number


def _print_duplicates(found: Iterable[Duplicate], prefix: str, args: argparse.Namespace) -> int:
    number = names = saves = 0
    if args.json:
        sys.stdout.write('{"scan": true, "duplicates": [')
    for each in found:
        if args.json:
            sys.stdout.write(f"{',' * bool(number)}\n  {json.dumps(_duplicate_json(each))}")
        elif args.print0:
            _print_paths(each.found, prefix, null=True)
        elif not args.count:
            print(f"{len(each.found)} names, {size(each.content.size)}, {size(each.saves)} saved")
            _print_paths(each.found, prefix, null=False, indent="  ")
        number, names, saves = number + 1, names + len(each.found), saves + each.saves
    if args.json:
        sys.stdout.write(f'\n], "contents": {number}, "names": {names}, "saves": {saves}}}\n')
    elif args.count:
        print(number)
    elif number and not args.print0:
        print(f"{number} content{'s' * (number > 1)} with {names} names, {size(saves)} saved")
    return number


def _duplicate_json(duplicate: Duplicate) -> dict[str, Any]:
    return {
        "blake3": duplicate.content.digest.hex(),
        "size": duplicate.content.size,
        "saves": duplicate.saves,
        "paths": [os.fsdecode(found.path) for found in duplicate.found],
    }


def as_json(found: Found, search: Search) -> dict[str, Any]:
    file = found.file
    digests = {} if file.blob_id is None else search.digests(file.blob_id)
    return {
        "path": os.fsdecode(found.path),
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "atime_ns": file.atime_ns,
        "btime_ns": file.btime_ns,
        "digests": {algorithm: digest.hex() for algorithm, digest in sorted(digests.items())},
        "properties": search.properties(file.ino),
        **({} if found.artifact is None else artifact_json(found)),
    }


def artifact_json(found: Found) -> dict[str, Any]:
    row = found.row
    return {
        "path": os.fsdecode(found.path),
        "repository": os.fsdecode(found.top),
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
