"""The targets as the command line names them: `NAME=DIRECTORY`, and those that --setup makes."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path

from . import mounts
from .mounts import Casfs, SetupError
from .rounds import Target

DEFAULT_SETUP = ("casfs", "plain", "bindfs")
SETUP = (*DEFAULT_SETUP, "casfs-plain")


def named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=DIRECTORY")
    if not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{folder} is not a directory")
    return name, Path(folder).absolute()


def named_pid(text: str) -> tuple[str, int]:
    name, equals, pid = text.partition("=")
    if not (name and equals and pid.isdecimal() and Path("/proc", pid).is_dir()):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=PID with a running process")
    return name, int(pid)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def positive_whole(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def own_targets(text: str) -> list[str]:
    targets = text.split(",")
    for name in targets:
        if name not in SETUP:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(SETUP)}")
    return targets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("targets", nargs="*", type=named_folder, metavar="NAME=DIRECTORY", help="a directory to run on")
    add(
        "--setup",
        nargs="?",
        const=list(DEFAULT_SETUP),
        default=[],
        type=own_targets,
        metavar="LIST",
        help="make targets on one disk, and remove them afterwards: casfs,plain,bindfs or some of these, "
        "and casfs-plain, which is another store mounted with --no-native",
    )
    add(
        "--work",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="where --setup makes its mounts and stores, and archives are kept meanwhile (default: /var/tmp)",
    )
    add(
        "--loop",
        type=positive_whole,
        metavar="GIB",
        help="with --setup: on a fresh ext4 in a loop device of that size, a sparse file in --work",
    )
    add("--casfs", metavar="COMMAND", help="the casfs command for --setup (default: that of the checkout)")
    add(
        "--casfs-mount",
        default="",
        metavar="ARGUMENTS",
        help="more arguments for `casfs mount`, as in '-o commit_interval=0'",
    )


def check_names(arguments: argparse.Namespace) -> list[str]:
    """The names of the targets. Raises SetupError when they cannot all be had."""
    names = [*arguments.setup, *(name for name, _ in arguments.targets)]
    if not names:
        raise SetupError("no directories to run on: name some (NAME=DIRECTORY), or use --setup")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SetupError(f"two targets are called {', '.join(twice)}")
    if arguments.loop and not arguments.setup:
        raise SetupError("--loop is for the targets that --setup makes")
    return names


def prepare(
    arguments: argparse.Namespace, stack: contextlib.ExitStack, daemons: Mapping[str, int]
) -> list[Target]:
    """Makes and mounts what is to be measured; the stack takes it away again.

    `daemons` are the pids, where known, of what serves the named directories.
    """
    targets = []
    if arguments.setup:
        work = stack.enter_context(mounts.work_folder(arguments.work))
        if arguments.loop:
            work = stack.enter_context(mounts.loop_disk(work, arguments.loop))
        targets += [stack.enter_context(made(name, arguments, work)) for name in arguments.setup]
    for name, folder in arguments.targets:
        targets.append(stack.enter_context(mounts.named_target(name, folder, daemons.get(name))))
    return targets


def made(name: str, arguments: argparse.Namespace, work: Path) -> contextlib.AbstractContextManager[Target]:
    """A target of --setup."""
    if name == "plain":
        return mounts.plain(work)
    if name == "bindfs":
        return mounts.bindfs(work)
    mount_arguments = arguments.casfs_mount.split()
    if name == "casfs-plain":
        mount_arguments.append("--no-native")
    return Casfs.installed(arguments.casfs, tuple(mount_arguments)).target(work, name)
