"""Make an empty store.

STORE is a directory that is absent or empty. Keep it where there is room for
the contents; it is used through a mount point elsewhere, never directly.
"""

from __future__ import annotations

import argparse
import os

from casfs.cli.arguments import Commands, add_command, add_json, add_path, words
from casfs.cli.output import print_json
from casfs.text import printable


def add(commands: Commands) -> None:
    parser = add_command(commands, "init", run, __doc__)
    add_path(parser, "STORE", "directory to make the store in")
    parser.add_argument(
        "--fan-out",
        type=int,
        choices=(1, 2, 3),
        default=2,
        help="hex characters that name the directories blobs lie in; for ever (default 2: 256 directories)",
    )
    parser.add_argument(
        "--digests",
        metavar="ALG[,ALG]",
        type=words,
        default=(),
        help="what every content gets beside BLAKE3: sha256, sha1, md5, sha512, crc32c (casfs digests)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.store import create_store

    create_store(args.store, fan_out=args.fan_out, digests=args.digests)
    store = os.path.realpath(args.store)
    if args.json:
        print_json({"store": store, "fan_out": args.fan_out, "digests": list(args.digests)})
    else:
        print(f"made an empty store in {printable(store)}; mount it with: casfs mount STORE MOUNTPOINT")
    return 0
