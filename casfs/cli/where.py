"""`--where`: doing one thing to all files that a query finds below some directories, in one transaction."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from casfs.cli.output import print_json, size
from casfs.cli.searches import note
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Acted, Action
    from casfs.maintenance.query import Query


MOST = 100_000
"""Files of a transaction (fs/batch.py, LIMIT)."""


class Words(NamedTuple):
    """What is printed: `removed 3 files`, or that it would be."""

    done: str
    would: str


def act(
    args: argparse.Namespace,
    places: Iterable[tuple[StoreAccess, Sequence[str]]],
    action: Action,
    words: Words,
) -> int:
    """Do it to what `args.where` finds below `places`; `args.dry_run` lists it. Each store is one
    transaction."""
    from casfs.control.messages import ActOn, Target

    query = query_of(args.where)
    prefixes = _prefixes(args)
    done: list[Acted] = []
    listed: list[tuple[str, str]] = []
    for access, directories in places:
        files = selected(access, directories, query)
        if not files:
            continue
        targets = [Target(path, ino) for path, ino in files]
        done.append(access.perform(ActOn(action, targets, args.dry_run)))
        listed += [(prefixes.get(access.store, ""), path) for path, _ in files]
    _print(done, listed, args, words)
    return ExitCode.FAILED if any(each.changed for each in done) else ExitCode.OK


def query_of(terms: Sequence[str]) -> Query:
    """Raises UsageError."""
    from casfs.maintenance.query import parse

    query = parse(terms)
    if query.duplicates or query.trash:
        raise UsageError("'duplicates' and 'trash' are for casfs find")
    return query


def selected(access: StoreAccess, directories: Sequence[str], query: Query) -> list[tuple[str, int]]:
    """Paths below these directories, each once, with their inode numbers. Raises UsageError for one that is
    no directory, or that shows what lies elsewhere, and for more than MOST."""
    from casfs.control.messages import Sync
    from casfs.maintenance.search import searching

    access.tell(Sync(seal=query.needs_digests))
    found: dict[str, int] = {}
    with searching(access.store) as search:
        search.check(query)
        if query.unused_ns is not None:
            for line in search.notes_on_access_times(query.unused_ns):
                note(line)
        for directory in directories:
            below = search.directory(os.fsencode(directory))
            for each in search.find(replace(query, below=below)):
                found[os.fsdecode(each.path)] = each.file.ino
                if len(found) > MOST:
                    raise UsageError(
                        f"these are more than {MOST} files, too many for one transaction",
                        "name a directory below, or more terms",
                    )
    return list(found.items())


def _prefixes(args: argparse.Namespace) -> dict[str, str]:
    """What comes before the paths of each store that are shown, as `search_of` has it."""
    if args.store is not None:
        return {}
    from casfs.service.mounts import find_mounts

    mounts = (mount for mount, _ in find_mounts(args.paths if "paths" in args else [args.src]))
    return {mount.store: mount.mountpoint.rstrip("/") for mount in mounts if mount.root == "/"}


def _print(
    done: Sequence[Acted], listed: Sequence[tuple[str, str]], args: argparse.Namespace, words: Words
) -> None:
    """`listed`: of each path what comes before it, and the path from the root of the store."""
    files, changed = sum(each.files for each in done), sum(each.changed for each in done)
    releases, total = sum(each.releases for each in done), sum(each.bytes for each in done)
    if args.json:
        facts = {"files": files, "bytes": total, "changed": changed, "releases": releases}
        print_json(facts | ({"paths": [path for _, path in listed]} if args.dry_run else {}))
        return
    if args.dry_run:
        for prefix, path in listed:
            print(printable(prefix + path))
    what = f"{words.would if args.dry_run else words.done} {files} file{'s' * (files != 1)}, {size(total)}"
    print(what + f"; {releases} of them immutable releases" * bool(releases))
    if changed:
        line = f"{changed} more have changed since they were found, and stay as they are"
        print(f"casfs: error: {line}", file=sys.stderr)
