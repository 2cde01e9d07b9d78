"""Take a mount away and wait until its store is closed.

Unlike umount(8), which returns while the daemon still writes, this returns
when everything is on disk and the store is free for somebody else. A bind
mount or another mount namespace may still hold the mount then: it is said
who, with exit code 32, and the store is served until they let go. --wait
waits for that.
"""

from __future__ import annotations

import argparse
import sys

from casfs.cli.arguments import Commands, add_command, add_path


def add(commands: Commands) -> None:
    parser = add_command(commands, "umount", run, __doc__)
    add_path(parser, "MOUNTPOINT", "where a store is mounted, or the store")
    parser.add_argument("--wait", action="store_true", help="wait for who else holds the mount")


def run(args: argparse.Namespace) -> int:
    from casfs.service.mounts import unmount

    unmount(args.mountpoint, wait=args.wait, tell=lambda line: print(line, file=sys.stderr, flush=True))
    return 0
