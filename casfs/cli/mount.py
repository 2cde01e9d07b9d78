"""Show a store as a file system.

Returns when the mount point is usable, or says why it is not. A store is
mounted once at a time. With -o remount what is mounted becomes ro, rw, suid,
nosuid, dev, nodev, exec or noexec.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_path


def add(commands: Commands) -> None:
    parser = add_command(commands, "mount", run, __doc__)
    add_path(parser, "STORE", "the store (made by 'casfs init')")
    add_path(parser, "MOUNTPOINT", "an existing directory to mount it on")
    parser.add_argument(
        "-o",
        dest="options",
        metavar="OPTION[,OPTION…]",
        action="append",
        default=[],
        help="mount options: ro, allow_other, uid=, gid=, umask=, commit_interval=SECONDS, "
        "low_room=PERCENT, orphan_share=PERCENT, no_native, …",
    )
    parser.add_argument(
        "--no-native",
        action="store_true",
        help="do without the native accelerator, as -o no_native",
    )
    parser.add_argument(
        "-f",
        "--foreground",
        action="store_true",
        help="serve until Ctrl-C, SIGTERM or an unmount; all three unmount cleanly",
    )


def run(args: argparse.Namespace) -> int:
    from casfs.fuse.options import MountOptions
    from casfs.service.mountd import mount

    words = [word for group in args.options for word in group.split(",") if word]
    words += ["no_native"] if args.no_native else []
    if "remount" in words:
        from casfs.service.mounts import remount

        remount(args.store, args.mountpoint, words)
        return 0
    return mount(args.store, args.mountpoint, MountOptions.parse(words), args.foreground)
