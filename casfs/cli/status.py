"""Show what is mounted and how it is doing.

For each mount of a store: process id, store, mount point, format, counts,
open handles, what waits to be committed, features. With PATH only the mount of
that store or around that path; exit code 6 if there is none, or its daemon is
dead.

A daemon that says nothing for 3 s (it was stopped, or its disk hangs) is given
up; other commands that ask it give up after 10 s.

JSON: {"mounts": [{"pid": 1, "store": "…", "mountpoint": "…", "serving": true, …}]}
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_path
from casfs.cli.output import print_facts, print_json
from casfs.errors import CasfsError, ExitCode, NotMounted

if TYPE_CHECKING:
    from casfs.service.mounts import MountInfo

PATIENCE = 3.0
"""Seconds for one daemon to give a sign of life: there may be others to tell of."""


def add(commands: Commands) -> None:
    parser = add_command(commands, "status", run, __doc__)
    add_path(parser, "PATH", "a store, a mount point, a path in a mount (default: all)", optional=True)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.service.mounts import list_mounts

    mounts = list_mounts() if args.path is None else [_mount_of(args.path)]
    facts = [_describe(mount) for mount in mounts]
    if args.json:
        print_json({"mounts": facts})
    elif not facts:
        print("nothing is mounted")
    for index, mount in enumerate(facts if not args.json else []):
        if index:
            print()
        print_facts(mount)
    dead = args.path is not None and not facts[0]["serving"]
    return ExitCode.NOT_MOUNTED if dead else ExitCode.OK


def _mount_of(path: str) -> MountInfo:
    from casfs.service.mounts import find_mount, list_mounts
    from casfs.store import read_config

    mounts, named = list_mounts(), os.path.abspath(path)
    for mount in mounts:
        if named == mount.mountpoint:  # no stat, which a hung daemon would not answer
            return mount
    place = os.path.realpath(path)
    for mount in mounts:
        if mount.store == place:
            return mount
    try:
        return find_mount(path)[0]
    except NotMounted:
        read_config(place)
        raise NotMounted(f"{path} is not mounted", f"casfs mount {path} MOUNTPOINT mounts it") from None


def _describe(mount: MountInfo) -> dict[str, Any]:
    from casfs.control.client import Client
    from casfs.control.messages import Status

    known = {"pid": mount.pid, "store": mount.store, "mountpoint": mount.mountpoint}
    try:
        answer = Client(mount.store, PATIENCE).ask(Status())
    except (CasfsError, OSError) as error:
        return known | {"serving": False, "error": str(error)}
    return known | {"serving": True} | answer
