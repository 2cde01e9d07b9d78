"""What a daemon has to know of a schedule after a reboot: STORE/schedules/NAME.json, one object of `LastRun`.

In the store, since its daemon can write there, whatever lies on other disks and in /etc: when a destination
is away, or no snapshot was made, a run was all the same.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable

import msgspec

from casfs.errors import FormatError
from casfs.filestore.directory import StoreDirectory

log = logging.getLogger(__name__)

FOLDER = "schedules"

FILE_BYTES = 1 << 24
"""Length of such a file at the most."""


_changing = threading.Lock()


class LastRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times in ns since 1970. `seen_ns`: when a daemon first had this schedule. `began_ns`, `ended_ns`: of
    the last run; one that began and did not end was cut off. `result`, `snapshot`, `error`: what came of it.

    `known`: the directories in the root that are not new, None when new ones are like any other.
    """

    seen_ns: int
    began_ns: int = 0
    ended_ns: int = 0
    result: str = ""
    snapshot: str = ""
    error: str = ""
    known: tuple[str, ...] | None = None

    @property
    def was_cut_off(self) -> bool:
        return bool(self.began_ns) and not self.ended_ns

    @property
    def since(self) -> float | None:
        """From when on a run may have been missed, in seconds since 1970; None: one is missing for sure.

        A schedule that is new waits for its time: the first full backup is not made at noon because the file
        was written at noon. One that was cut off is to be gone on with.
        """
        return None if self.was_cut_off else max(self.seen_ns, self.began_ns) / 1e9


def read(store: str, name: str) -> LastRun | None:
    """None when there was none yet, or what is there says nothing: that is logged. Raises OSError."""
    with contextlib.closing(StoreDirectory(store)) as directory:
        try:
            fd = directory.open(_place(name))
        except FileNotFoundError:
            return None
        try:
            data = os.pread(fd, FILE_BYTES, 0)
        finally:
            os.close(fd)
    try:
        # The library's own has no names that are not UTF-8 (PEP 383).
        return msgspec.convert(json.loads(data), LastRun)
    except (ValueError, RecursionError) as error:
        log.warning("%s/%s is damaged, and begins anew: %s", store, _place(name), error)
        return None


def change(store: str, name: str, how: Callable[[LastRun], LastRun]) -> LastRun:
    """Write down what `how` makes of the last one, and give it; one that was just seen if there was none.

    Durable when it returns; the old one or the new one is there, whenever that is cut off. By the threads of
    one process, which has its daemon's lock. Raises FormatError, OSError.
    """
    with _changing:
        before = read(store, name)
        run = how(before or LastRun(seen_ns=time.time_ns()))
        if run != before:
            _write(store, name, run)
        return run


def _write(store: str, name: str, run: LastRun) -> None:
    with contextlib.closing(StoreDirectory(store)) as directory:
        try:
            directory.make_folder(FOLDER)
        except FileExistsError:
            if not directory.is_folder(FOLDER):
                raise FormatError(f"{store}/{FOLDER} is no directory", "remove it") from None
        else:
            directory.sync(".")
        new = f"{_place(name)}.new"
        with contextlib.suppress(FileNotFoundError):
            directory.unlink(new)
        fd = directory.create(new, 0o600)
        try:
            directory.durable.write_whole(fd, json.dumps(msgspec.to_builtins(run)).encode())
            directory.durable.fdatasync(fd)
        finally:
            os.close(fd)
        directory.rename(new, _place(name))
        directory.sync(FOLDER)


def _place(name: str) -> str:
    """`name`: a schedule's, which config.py has checked."""
    return f"{FOLDER}/{name}.json"
