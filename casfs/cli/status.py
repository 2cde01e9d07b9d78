"""Show what is mounted and how it is doing.

For each mount of a store: process id, store, mount point, format, counts,
open handles, what waits to be committed, features, repositories. With PATH only the mount of
that store or around that path; exit code 6 if there is none, or its daemon is
dead.

A daemon that says nothing for 3 s (it was stopped, or its disk hangs) is given
up; other commands that ask it give up after 10 s. A mount that somebody made
who has not the store that it names is shown as not ours; other commands leave
it alone.

JSON: {"mounts": [{"pid": 1, "store": "…", "mountpoint": "…", "serving": true, …}]}
"""

from __future__ import annotations

import argparse
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_path
from casfs.cli.df import repository_facts
from casfs.cli.output import print_facts, print_json, size
from casfs.errors import CasfsError, ExitCode, NotMounted

if TYPE_CHECKING:
    from casfs.service.mounts import MountInfo

PATIENCE = 3.0
"""Seconds for one daemon to give a sign of life: there may be others to show."""

LIMIT = 15.0
"""Seconds for everything: file systems and daemons of other users may do what they like."""


def add(commands: Commands) -> None:
    parser = add_command(commands, "status", run, __doc__)
    add_path(parser, "PATH", "a store, a mount point, a path in a mount (default: all)", optional=True)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.service.mounts import list_mounts
    from casfs.service.waiting import all_within

    mounts = list(list_mounts()) if args.path is None else [_mount_of(args.path)]
    found = all_within(LIMIT, [partial(_describe, mount) for mount in mounts])
    facts = [_facts(mount, answer) for mount, answer in zip(mounts, found, strict=True)]
    if args.json:
        print_json({"mounts": facts})
    elif not facts:
        print("nothing is mounted")
    for index, mount in enumerate(facts if not args.json else []):
        if index:
            print()
        print_facts(_for_person(mount))
    dead = args.path is not None and not facts[0]["serving"]
    return ExitCode.NOT_MOUNTED if dead else ExitCode.OK


def _mount_of(path: str) -> MountInfo:
    from casfs.service.mounts import claimed_mount, list_mounts
    from casfs.store import read_config

    around = None
    with contextlib.suppress(NotMounted):
        around, inside = claimed_mount(path)
        if os.fsencode(around.root) == inside:
            return around
    place = os.path.realpath(path)
    stores = [mount for mount in list_mounts() if mount.store == place]
    if stores:
        return next((mount for mount in stores if _may_be_true(mount)), stores[0])
    if around is not None:
        return around
    read_config(place)
    raise NotMounted(f"{path} is not mounted", f"casfs mount {path} MOUNTPOINT mounts it")


def _may_be_true(mount: MountInfo) -> bool:
    from casfs.service.mounts import NotOurs, verified

    try:
        verified(mount)
    except NotOurs:
        return False
    except CasfsError:
        return True
    return True


def _describe(mount: MountInfo) -> dict[str, Any]:
    """What is known of one mount. Raises nothing that tells of its daemon."""
    from casfs.control.client import Client
    from casfs.control.messages import Status
    from casfs.service.mounts import verified

    pid = None
    try:
        pid = verified(mount).pid
        answer = Client(mount.store, PATIENCE, limit=2 * PATIENCE, pid=pid).ask(Status())
    except (CasfsError, OSError) as error:
        return {"pid": pid, "serving": False, "error": str(error)}
    return {"pid": pid, "serving": True} | answer | _repositories(mount.store)


def _repositories(store: str) -> dict[str, Any]:
    """What they have, as the last commit left it; nothing where there are none, or they cannot be read."""
    from casfs.maintenance.usage import summarize_repositories
    from casfs.service.waiting import all_within

    (found,) = all_within(PATIENCE, [partial(summarize_repositories, store)])
    if isinstance(found, TimeoutError):
        return {"repositories": f"not counted: it took longer than {PATIENCE:g} s"}
    if isinstance(found, Exception) or not found:
        return {}
    rows = [
        {"name": row.name, "files": row.files, "bytes": row.bytes} | repository_facts(row.repository)
        for row in found
    ]
    return {"repositories": rows}


def _repository_line(row: dict[str, Any]) -> str:
    parts = [row["kind"], *filter(None, [row["layout"]]), f"{row['artifacts']} artifacts"]
    if row["kind"] == "local":
        parts += [f"{row['files']} files, {size(row['bytes'])}"]
    limits = [size(row["quota_bytes"])] if row["quota_bytes"] else []
    limits += [f"{row['quota_files']} files"] if row["quota_files"] else []
    return ", ".join(parts) + (f" of {', '.join(limits)}" if limits else "")


def _for_person(facts: dict[str, Any]) -> dict[str, Any]:
    rows = facts.get("repositories")
    if not isinstance(rows, list):
        return facts
    return facts | {"repositories": {os.fsdecode(row["name"]): _repository_line(row) for row in rows}}


def _facts(mount: MountInfo, found: dict[str, Any] | Exception) -> dict[str, Any]:
    if isinstance(found, TimeoutError):
        found = {"pid": None, "serving": False, "error": f"not looked at: it took longer than {LIMIT:g} s"}
    if isinstance(found, Exception):
        raise found
    return {"pid": found.pop("pid"), "store": mount.store, "mountpoint": mount.mountpoint} | found
