"""Take a mount away and wait until its store is closed.

Unlike umount(8), which returns while the daemon still writes, this returns
when everything is on disk and the store is free for somebody else.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_path


def add(commands: Commands) -> None:
    parser = add_command(commands, "umount", run, __doc__)
    add_path(parser, "MOUNTPOINT", "where a store is mounted")


def run(args: argparse.Namespace) -> int:
    from casfs.service.mounts import unmount

    unmount(args.mountpoint)
    return 0
