"""`casfs snapshot diff` and `casfs snapshot restore`."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_any, add_command, add_force, add_json, add_store
from casfs.cli.output import print_json, size
from casfs.cli.places import place_in, store_of
from casfs.cli.searches import note
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.control.messages import RestoredSnapshot
    from casfs.namespace.differences import Difference

DIFF = """Show what differs between a snapshot and the store, or another snapshot.

One line for each name, in order: + it is only in the second, - only in the first,
M its content differs, A its mode, owner or extended attributes do, R it has another
path there. A file is known by its inode number, a content by its digest. What a
program has written and not closed yet counts as of the last commit.

    casfs snapshot diff mnt yesterday
    casfs snapshot diff mnt monday tuesday --path /libs
"""

RESTORE = """Bring back what a snapshot has: files, trees, or with no PATH everything.

All or nothing, without a copy of any content, and while the store is in use. What
is the same stays as it is; what was moved goes back; what is not in the snapshot
goes. What is replaced or removed goes to the trash as its rules have it (casfs help
trash); before everything is restored a snapshot is made, which is kept for 30 days.
Repositories that were made since stay. --to PATH restores to another path, where
nothing is yet.

--force also replaces releases of repositories with --immutable, which is for root
and the owner of the store. --dry-run lists what would change.

    casfs snapshot restore mnt yesterday /libs/org/example
"""


def add(actions: Commands) -> None:
    comparing = add_command(actions, "diff", _diff, DIFF)
    add_store(comparing)
    comparing.add_argument("name", metavar="A", help="the snapshot that comes first")
    comparing.add_argument(
        "other", metavar="B", nargs="?", default="-", help="the other one; default, or -: the store"
    )
    comparing.add_argument("--path", default="/", help="what has that path, and is below it")
    add_json(comparing)

    restoring = add_command(actions, "restore", _restore, RESTORE)
    add_store(restoring)
    restoring.add_argument("name", metavar="NAME", help="of a snapshot, as 'casfs snapshot list' shows it")
    add_any(restoring, "paths", "PATH", "in the mount, or from the root of the store")
    restoring.add_argument("--to", metavar="PATH", help="where it comes, which must not be there")
    restoring.add_argument("-n", "--dry-run", action="store_true", help="list what would change, and end")
    add_force(restoring)
    add_json(restoring)


def _diff(args: argparse.Namespace) -> int:
    from casfs.maintenance.snapshots.diff import comparing, differences_below, told
    from casfs.snapshots.manifest import check_name

    store = store_of(args.store)
    other = None if args.other == "-" else args.other
    for name in filter(None, (args.name, other)):
        check_name(name)
    if other is None:
        _sync(store)
    path = os.fsencode(place_in(store, args.path))
    with comparing(store, args.name, other) as differences:
        _print(told(differences_below(differences, path)), _AS_DIFFERENCE, as_json=args.json)
    return ExitCode.OK


def _sync(store: str) -> None:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Sync

    StoreAccess(store).tell(Sync(seal=True))


_AS_DIFFERENCE = {"removed": "-", "added": "+", "changed": "M", "attributes": "A", "renamed": "R"}
_AS_RESTORED = {"removed": "+", "added": "-", "changed": "M", "attributes": "A", "renamed": "R"}
"""The sign for what a line tells: as a difference of the second one from the first, and as what a restore
would do to the second."""


def _print(found: Iterator[Difference], signs: dict[str, str], *, as_json: bool) -> Counter[str]:
    """One by one: there may be millions."""
    counts: Counter[str] = Counter()
    if as_json:
        import json

        for number, each in enumerate(found):
            print("[" if not number else ",", json.dumps(_as_json(each)), sep="\n" if number else "")
            counts[_what(each)] += 1
        print("]" if counts else "[]")
        return counts
    for each in found:
        what = _what(each)
        counts[what] += 1
        print(f"{signs[what]} {_as_text(each, back=signs is _AS_RESTORED)}")
    return counts


def _what(each: Difference) -> str:
    from casfs.namespace.differences import Parts, What

    if each.what is What.CHANGED and not each.parts & Parts.CONTENT:
        return "attributes"
    return each.what.value


def _as_text(each: Difference, *, back: bool) -> str:
    from casfs.namespace.differences import What

    spot = each.old or each.new
    slash = "/" if spot is not None and spot.is_directory else ""
    path, other = (printable(os.fsdecode(path)) + slash for path in (each.path, each.new_path))
    if each.what is not What.RENAMED:
        return path
    return f"{other} -> {path}" if back else f"{path} -> {other}"


def _as_json(each: Difference) -> dict[str, Any]:
    from casfs.namespace.differences import Parts, What

    spot = each.old or each.new
    facts: dict[str, Any] = {"change": each.what.value, "path": os.fsdecode(each.path)}
    if each.what is What.RENAMED:
        facts["to"] = os.fsdecode(each.new_path)
    if each.what in (What.RENAMED, What.CHANGED):
        facts["content"] = bool(each.parts & Parts.CONTENT)
        facts["attributes"] = bool(each.parts & Parts.ATTRIBUTES)
    return facts | {"directory": spot is not None and spot.is_directory}


def _restore(args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import RestoreSnapshot
    from casfs.snapshots.manifest import check_name

    check_name(args.name)
    if args.to is not None and len(args.paths) != 1:
        raise UsageError("--to is for one PATH", "restore them one by one")
    store = store_of(args.store)
    paths = [place_in(store, path) for path in args.paths]
    to = "" if args.to is None else place_in(store, args.to)
    asked = RestoreSnapshot(args.name, paths, to, args.force, args.dry_run)
    done = StoreAccess(store).perform(asked)
    if args.dry_run and not args.json and not to:
        _list(store, args.name, paths)
    if args.json:
        print_json({name: getattr(done, name) for name in done.__struct_fields__})
        return ExitCode.OK
    for repository in done.left:
        note(f"{repository} was made since, and stays: casfs repo rm removes it")
    for repository in done.unmade:
        note(f"{repository} follows from others: casfs repo create makes it again")
    if done.changed:
        note(f"{done.changed} names were changed by others meanwhile, and are as those have left them")
    print(_told(done, dry_run=args.dry_run))
    return ExitCode.OK


def _list(store: str, name: str, paths: Iterable[str]) -> None:
    from casfs.maintenance.snapshots.diff import comparing, differences_below, told

    with comparing(store, name, None) as differences:
        for path in sorted(set(paths)) or ["/"]:
            _print(told(differences_below(differences, os.fsencode(path))), _AS_RESTORED, as_json=False)


def _told(done: RestoredSnapshot, *, dry_run: bool) -> str:
    parts = [
        f"{count} {word}"
        for count, word in (
            (done.restored, "brought back"),
            (done.replaced, "replaced"),
            (done.renamed, "moved back"),
            (done.attributes, "with other attributes"),
            (done.removed, "removed"),
        )
        if count
    ]
    line = ("would be: " if dry_run else "names: ") + ", ".join(parts) if parts else "nothing differs"
    if done.bytes:
        line += f"; {size(done.bytes)} of contents"
    if done.releases:
        line += f"; {done.releases} immutable releases went"
    if done.before:
        line += f"; what was before is in the snapshot {done.before}"
    return line
