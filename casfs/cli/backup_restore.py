"""`casfs backup restore`."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from casfs.cli.arguments import Commands, add_any, add_command, add_json, byte_rate, instant, path
from casfs.cli.backup_progress import print_event, told
from casfs.cli.backup_run import add_destination
from casfs.cli.output import size
from casfs.cli.places import store_of
from casfs.cli.signals import stop_on_signals
from casfs.cli.times import moment
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.filestore.directory import StoreDirectory
    from casfs.maintenance.backup.tree import RestoredTree
    from casfs.maintenance.backup.whole import Restored
    from casfs.snapshots.manifest import Manifest

_RESTORE = """Bring back what a backup has.

  restore DEST [NAME] TARGET                 the whole store, at a new or an
                                             empty place
  restore DEST [NAME] /PATH --to DIR         what is at /PATH, into a directory;
                                             / is everything
  restore DEST [NAME] /PATH --into STORE[:/TO]
                                             into a store, mounted or not: to
                                             where it was, or to another place

NAME is as 'casfs backup list' shows it; without it the newest one is taken, or
with --at the newest of that time. Nothing is overwritten without --force; what
is there already is not copied; one that was interrupted goes on where it was.

Exit code 0: done; 5: done, but some contents are damaged, whose files are named;
130: interrupted.
"""

TOLD = 20


def add_restore(actions: Commands) -> None:
    parser = add_command(actions, "restore", _restore, _RESTORE)
    add_destination(parser)
    add_any(parser, "words", "[NAME] TARGET|/PATH", "see above", path)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--to", metavar="DIR", type=path, help="into this directory")
    where.add_argument("--into", metavar="STORE[:/TO]", type=path, help="into this store")
    parser.add_argument("--at", metavar="TIME", type=instant, help="the newest backup made then or before")
    parser.add_argument("--force", action="store_true", help="replace what is something else")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be done, and end")
    parser.add_argument("--rate", metavar="RATE", type=byte_rate, help="copy so much at the most")
    add_json(parser)


def _restore(args: argparse.Namespace) -> int:
    from casfs.filestore.directory import StoreDirectory
    from casfs.maintenance.backup.listing import choose
    from casfs.snapshots.folder import SnapshotFolder
    from casfs.snapshots.manifest import check_name
    from casfs.store import read_config

    words = list(args.words)
    if not 1 <= len(words) <= 2:
        raise UsageError(
            "a TARGET is wanted, or a /PATH and --to or --into", "see 'casfs backup restore --help'"
        )
    place, name = words[-1], words[0] if len(words) == 2 else None
    if name is not None:
        check_name(name)
        if args.at is not None:
            raise UsageError("NAME and --at both say which backup", "give one of them")
    if (args.to or args.into) and not place.startswith("/"):
        raise UsageError(f"'{printable(place)}' is no path from the root of the store", "begin it with /")
    destination = os.path.realpath(store_of(args.dest))
    fan_out = read_config(destination).fan_out
    with contextlib.closing(StoreDirectory(destination)) as directory:
        at_ns = None if args.at is None else (args.at + 1) * 10**9 - 1
        manifest = choose(directory, name, at_ns)
        if not args.json:
            print(f"backup {manifest.name} of {moment(manifest.made_ns)}")
        how = _to_directory if args.to else _into_store if args.into else _whole
        with SnapshotFolder(directory).using(manifest.name):
            return how(args, directory, fan_out, manifest, place)


def _rate(args: argparse.Namespace) -> int:
    return 0 if args.rate is None else max(1, int(args.rate))


def _whole(
    args: argparse.Namespace, directory: StoreDirectory, fan_out: int, manifest: Manifest, target: str
) -> int:
    from casfs.filestore.local import LocalBlobs
    from casfs.maintenance.backup.whole import restore_store
    from casfs.snapshots.folder import SnapshotFolder

    with stop_on_signals() as stop, told(as_json=args.json) as progress:
        restored = restore_store(
            LocalBlobs(directory, fan_out),
            SnapshotFolder(directory).database(manifest.name),
            manifest,
            target,
            fan_out=fan_out,
            dry_run=args.dry_run,
            rate=_rate(args),
            progress=progress,
            stop=stop,
        )
    _print_whole(args, manifest, restored, target)
    if not restored.complete:
        return ExitCode.INTERRUPTED
    return ExitCode.PROBLEMS if restored.lost else ExitCode.OK


def _print_whole(args: argparse.Namespace, manifest: Manifest, restored: Restored, target: str) -> None:
    if args.json:
        for lost in restored.lost:
            paths = [os.fsdecode(path) for path in lost.paths]
            print_event("lost", digest=lost.digest.hex(), size=lost.size, reason=lost.reason, paths=paths)
        print_event(
            "done" if restored.complete else "interrupted",
            backup=manifest.name,
            target=target,
            blobs=restored.blobs,
            copied=restored.copied,
            copied_bytes=restored.copied_bytes,
            dry_run=args.dry_run,
        )
        return
    from casfs.cli.scrub import print_paths

    if args.dry_run:
        print(
            f"would restore {restored.blobs} contents, {size(restored.copied_bytes)}, to {printable(target)}"
        )
        return
    for lost in restored.lost[:TOLD]:
        print(f"lost: content {lost.digest.hex()} ({size(lost.size)}) {printable(lost.reason)}")
        print_paths(lost.paths)
    there = restored.blobs - restored.copied
    print(f"{restored.copied} contents, {size(restored.copied_bytes)}, copied; {there} were there")
    if not restored.complete:
        print("interrupted; the same command goes on")
    elif restored.lost:
        print(f"{len(restored.lost)} contents are lost; 'casfs heal' brings them back from other copies")


def _to_directory(
    args: argparse.Namespace, directory: StoreDirectory, fan_out: int, manifest: Manifest, place: str
) -> int:
    from casfs.errors import CasfsError
    from casfs.filestore.local import LocalBlobs
    from casfs.maintenance.backup.tree import restore_tree
    from casfs.namespace.copies import open_copy
    from casfs.snapshots.folder import SnapshotFolder

    if not manifest.content:
        raise CasfsError(f"backup {manifest.name} has no contents", "there is nothing to be restored")
    database = SnapshotFolder(directory).database(manifest.name)
    with (
        contextlib.closing(open_copy(database)) as namespace,
        stop_on_signals() as stop,
        told(as_json=args.json) as progress,
    ):
        done = restore_tree(
            namespace,
            LocalBlobs(directory, fan_out),
            os.fsencode(place),
            args.to,
            force=args.force,
            dry_run=args.dry_run,
            rate=_rate(args),
            progress=progress,
            stop=stop,
        )
    _print_tree(args, done)
    if not done.complete:
        return ExitCode.INTERRUPTED
    if done.lost:
        return ExitCode.PROBLEMS
    return ExitCode.FAILED if done.differ else ExitCode.OK


def _print_tree(args: argparse.Namespace, done: RestoredTree) -> None:
    if args.json:
        facts = {
            name: getattr(done, name)
            for name in ("files", "directories", "copied_bytes", "same", "replaced", "unset", "privileged")
        }
        print_event(
            "done" if done.complete else "interrupted",
            **facts,
            differ=[os.fsdecode(path) for path in done.differ],
            lost=[{"path": os.fsdecode(lost.path), "reason": lost.reason} for lost in done.lost],
            dry_run=args.dry_run,
        )
        return
    verb = "would restore" if args.dry_run else "restored"
    amount = f"{done.files} files, {size(done.copied_bytes)}, and {done.directories} directories"
    print(f"{verb} {amount}; {done.same} were there already")
    for differing in done.differ[:TOLD]:
        print(f"there is something else: {printable(os.fsdecode(differing))}")
    for lost in done.lost[:TOLD]:
        print(f"lost: {printable(os.fsdecode(lost.path))}: {printable(lost.reason)}")
    if done.unset:
        print(f"{done.unset} attributes could not be set")
    if done.privileged:
        print(f"{done.privileged} of them are device nodes, or run with the rights of their owner or group")
    if not done.complete:
        print("interrupted; the same command goes on")


def _into_store(
    args: argparse.Namespace, directory: StoreDirectory, fan_out: int, manifest: Manifest, place: str
) -> int:
    from casfs.control.backups import BackupAccess
    from casfs.maintenance.backup.back import sent_back
    from casfs.maintenance.collect.batch import Stopped

    store, to = _store_and_place(args.into)
    access = BackupAccess()
    try:
        with (
            stop_on_signals() as stop,
            told(as_json=args.json) as progress,
            sent_back(
                directory,
                fan_out,
                manifest,
                store,
                os.fsencode(place),
                access=access,
                contents=not args.dry_run,
                rate=_rate(args),
                progress=progress,
                stop=stop,
            ) as sent,
        ):
            progress("restoring", 0, 0)
            what = "" if not place.strip("/") else place
            facts = {} if to else _look(store, sent.name, place)
            if not args.dry_run:
                _check_replaced(args, facts)
                done = access.restore_snapshot(store, sent.name, what, to, force=args.force)
                facts = {name: getattr(done, name) for name in _COUNTED}
    except Stopped:
        print_event("interrupted") if args.json else print("interrupted; nothing was restored")
        return ExitCode.INTERRUPTED
    if args.json:
        print_event(
            "done",
            backup=manifest.name,
            copied=sent.blobs,
            copied_bytes=sent.bytes,
            **facts,
            dry_run=args.dry_run,
        )
    else:
        verb = "would be" if args.dry_run else "names"
        counts = ", ".join(f"{number} {_WORDS[name]}" for name, number in facts.items() if number)
        print(f"{verb}: {counts or 'as they are'}; {sent.blobs} contents, {size(sent.bytes)}, copied")
    return ExitCode.OK


_WORDS = {
    "restored": "brought back",
    "replaced": "replaced",
    "renamed": "moved back",
    "attributes": "with other attributes",
    "removed": "removed",
}
_COUNTED = tuple(_WORDS)


def _look(store: str, name: str, place: str) -> dict[str, int]:
    """What restoring would do, by `_COUNTED`."""
    from casfs.maintenance.snapshots.diff import comparing, differences_below
    from casfs.namespace.differences import Parts, What

    counts = dict.fromkeys(_COUNTED, 0)
    words = {What.REMOVED: "restored", What.ADDED: "removed", What.RENAMED: "renamed"}
    with comparing(store, name, None) as differences:
        for each in differences_below(differences, os.fsencode(place)):
            changed = "replaced" if each.parts & Parts.CONTENT else "attributes"
            counts[words.get(each.what, changed)] += 1
    return counts


def _check_replaced(args: argparse.Namespace, facts: dict[str, int]) -> None:
    from casfs.errors import CasfsError

    gone = facts.get("removed", 0) + facts.get("replaced", 0)
    if gone and not args.force:
        raise CasfsError(
            f"{gone} files of the store would be replaced, or removed",
            "--force does so, and they go to the trash; --dry-run counts them",
        )


def _store_and_place(word: str) -> tuple[str, str]:
    """STORE[:/TO]; a path with a colon that is there is one."""
    if not os.path.exists(word) and ":/" in word:
        store, _, to = word.partition(":/")
        return store_of(store), "/" + to
    return store_of(word), ""
