"""Give a content that the store has a name, by its digest; no byte is read or written.

DIGEST is ALGORITHM:HEX, whole or as many digits of its beginning as no other
content has: sha256:9f86d0. blake3 is always known, the others where the store
keeps them (casfs digests). PATH is one in the mount of the store, or one from
the store's root; nothing is replaced. The file is yours, with mode 644.

With a mount, cp MOUNT/.casfs/by-sha256/HEX PATH does the same, for root and the
store's owner.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_store, path
from casfs.cli.places import access_to, place_in
from casfs.errors import UsageError
from casfs.text import printable


def add(commands: Commands) -> None:
    parser = add_command(commands, "link", run, __doc__)
    add_store(parser)
    parser.add_argument("digest", metavar="DIGEST", help="sha256:HEX, blake3:HEX, ...")
    parser.add_argument("path", metavar="PATH", type=path, help="the new name")


def run(args: argparse.Namespace) -> int:
    from casfs.control.messages import Link

    algorithm, digest = _digest(args.digest)
    access = access_to(args.store)
    access.perform(Link(algorithm, digest, place_in(access.store, args.path)))  # type: ignore[arg-type]
    return 0


def _digest(word: str) -> tuple[str, str]:
    """Algorithm, and hex digits. Raises UsageError."""
    from casfs.fs.by_digest import SIZES

    algorithm, colon, digest = word.partition(":")
    if not colon:
        raise UsageError(f"'{printable(word)}' is no digest", "write it as sha256:HEX")
    if algorithm not in SIZES:
        raise UsageError.unknown("digest", printable(algorithm), SIZES)
    digest = digest.lower()
    if not digest or set(digest) - set("0123456789abcdef"):
        raise UsageError(f"'{printable(digest)}' is not hexadecimal")
    if len(digest) > 2 * SIZES[algorithm]:
        raise UsageError(f"a {algorithm} has {2 * SIZES[algorithm]} digits, not {len(digest)}")
    return algorithm, digest
