"""Put damaged and missing blobs back from a copy.

Takes the content of every blob that is damaged or missing from the files below
DIR, whatever they are called, or from another store: only files of the right
size are read, and only what has the right digest goes into place. Nothing is
written outside STORE. Works while the store is mounted or not.

Exit code 0: nothing is damaged any more; 5: some blobs were not found.

More: casfs help bit-rot
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from casfs.cli.arguments import Commands, add_command, add_json, add_store, path
from casfs.cli.output import print_json, progress_bar, size
from casfs.cli.places import store_of
from casfs.cli.scrub import print_bad, print_paths
from casfs.errors import ExitCode
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.scrub.heal import HealReport


def add(commands: Commands) -> None:
    parser = add_command(commands, "heal", run, __doc__)
    add_store(parser)
    parser.add_argument(
        "--from", dest="source", metavar="DIR|STORE", type=path, required=True, help="where copies may be"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from casfs.control.access import StoreAccess
    from casfs.maintenance.scrub.heal import heal
    from casfs.store import Store

    store = Store(store_of(args.store), shared=True)
    try:
        with progress_bar() as progress:
            report = heal(
                store,
                args.source,
                progress=progress,
                damaged=StoreAccess(store.path).damaged,
            )
    finally:
        store.close()
    if args.json:
        print_json(asdict(report))
    else:
        _print(report)
    return ExitCode.PROBLEMS if report.left else ExitCode.OK


def _print(report: HealReport) -> None:
    for healed in report.healed:
        print(f"healed {healed.digest} ({size(healed.size)})")
        print_paths(healed.paths)
    for bad in report.left:
        print_bad(bad)
    for line in report.unreadable:
        print(f"not read: {printable(line)}")
    words = [f"{len(report.healed)} healed", f"{len(report.left)} still damaged"]
    if report.cleared:
        words.append(f"{report.cleared} whole already")
    print(f"{printable(report.store)}: {', '.join(words)}")
