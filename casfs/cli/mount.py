"""Show a store as a file system.

Returns when the mount point is usable, or says why it is not. A store is
mounted once at a time, and not over another FUSE file system, which it would
hide.

Options (-o):
  ro                    only reading
  allow_other, allow_root
  uid=, gid=, umask=    what every file is shown with; with umask= there are no
                        access lists
  suid, dev, noexec     by default nosuid,nodev,exec
  commit_interval=SECONDS
                        default 1; 0 makes each operation durable before it
                        returns (casfs help durability)
  no_native             without the native accelerator (casfs help native)
  low_room=PERCENT      default 5 (casfs help full-disk)
  orphan_share=PERCENT  default 10; 0: any (casfs help collecting)
  free_step=SIZE        show free space in steps of, say, 10G to others than
                        root and who has mounted it (casfs help security)
What mount(8) and fstab(5) pass on (nofail, _netdev, x-..., ...) is accepted.

With -o remount what is mounted becomes ro, rw, suid, nosuid, dev, nodev, exec
or noexec in place, which is refused while files are open for writing. 'mount -i
-o remount,ro DIR' does so too; without -i mount(8) calls the helper of the
type, for which mount.fuse3 runs casfs in a way it does not know. The daemon of
a mount that was made read-only goes on: it commits, and empties the trash.
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
        "low_room=PERCENT, orphan_share=PERCENT, free_step=SIZE, no_native, …",
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
        from casfs.service.unmounting import remount

        remount(args.store, args.mountpoint, words)
        return 0
    return mount(args.store, args.mountpoint, MountOptions.parse(words), args.foreground)
