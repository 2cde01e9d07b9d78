"""Daemons that were killed, and that the kernel keeps from ending.

A thread that has a name forgotten waits for the directory (fuse_reverse_inval_entry, fs/fuse/dir.c), which a
program may hold whose request nobody answers any more. Neither ends then, and the store stays locked, until
the connection is aborted: that answers all requests.
"""

from __future__ import annotations

import contextlib
import os
import time

from casfs.control.protocol import SILENCE_SECONDS
from casfs.errors import CasfsError, MountError
from casfs.service.commands import run
from casfs.service.mounts import ROOT, MountInfo, list_mounts
from casfs.service.waiting import within
from casfs.store import store_lock

CONNECTIONS = "/sys/fs/fuse/connections"
"""fusectl(5), where it is mounted: a directory for each connection, by the minor number of its device."""

ENDS_SECONDS = 5.0
"""How long a process may take to end that is held by nothing any more."""

STEP = 0.05


def end_killed(store: str) -> bool:
    """Have a daemon end that was killed and still has the lock of the store, by its real path. False if there
    is none, or the store does not say. Blocks until it has ended. Raises MountError when it does not."""
    lock = store_lock(store)
    try:
        if not within(SILENCE_SECONDS, store, lock.is_held_by_killed):
            return False
    except (CasfsError, OSError):
        return False
    for mount in list_mounts():
        if mount.store == store and mount.user in (ROOT, os.geteuid()):
            _abort(mount)
    deadline = time.monotonic() + ENDS_SECONDS
    while lock.is_held_by_killed():
        if time.monotonic() > deadline:
            raise MountError(
                f"the daemon of {store} was killed, and the kernel keeps it from ending",
                "'umount -f' of its mount point, by root, ends it",
            )
        time.sleep(STEP)
    return True


def _abort(mount: MountInfo) -> None:
    """End all requests of its connection. Others than root may do that where fusectl is mounted."""
    minor = mount.device.rpartition(":")[2]
    try:
        with open(os.path.join(CONNECTIONS, minor, "abort"), "w") as file:
            file.write("1")
    except OSError:
        if os.geteuid() == 0:
            with contextlib.suppress(MountError):  # it is aborted, but stays since it is busy
                run(["umount", "-f", "--", mount.mountpoint])
