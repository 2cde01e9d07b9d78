"""Take a mount away and wait until its store is closed.

Unlike umount(8), which returns while the daemon still writes, this commits,
unmounts, and returns when everything is on disk and the store is free for
somebody else. A bind mount or another mount namespace may still hold the mount
then: umount says who, and ends with exit code 32; the store is served until
they let go. --wait waits for that.

  $ casfs umount mnt
  casfs: error: it is detached, but still served: it is mounted at
  /tmp/rd/bound, /tmp/rd/mnt for process 15008 (sleep); end or unmount that;
  'casfs umount --wait /tmp/rd/store' waits for it
"""

from __future__ import annotations

import argparse
import sys

from casfs.cli.arguments import Commands, add_command, add_path
from casfs.text import printable


def add(commands: Commands) -> None:
    parser = add_command(commands, "umount", run, __doc__)
    add_path(parser, "MOUNTPOINT", "where a store is mounted, or the store")
    parser.add_argument("--wait", action="store_true", help="wait for who else holds the mount")


def run(args: argparse.Namespace) -> int:
    from casfs.service.unmounting import unmount

    unmount(args.mountpoint, wait=args.wait, tell=_tell)
    return 0


def _tell(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
