"""Pins hold blobs back from collection, whatever becomes of the files that have them.

What a pin names is written and removed in short transactions, with turns for others between them. While it is
written the pin holds everything, so that nothing of what it will name goes meanwhile; whoever is killed
there leaves a pin that holds too much, and is listed as such.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time

from casfs.errors import CasfsError
from casfs.maintenance.collect.batch import transaction
from casfs.namespace.collecting import PIN_STEP, Collecting, Pin
from casfs.store import Store
from casfs.types import ROOT_INO

PATH_LENGTH = 200
"""Bytes of a path that a message shows."""


def add_pin(store: str, paths: list[bytes], *, reason: str, seconds: int | None) -> Pin:
    """Pin the sealed contents of the files at and below `paths`, from the root of the store; or everything,
    with what is yet to come, if there are none.

    As of the last commit; `seconds`: for so long. Raises CasfsError for a path that is not there, and as
    `Store` does.
    """
    now_ns = time.time_ns()
    expires_ns = None if seconds is None else now_ns + seconds * 10**9
    with contextlib.closing(Store(store, shared=True)) as opened:
        with transaction(opened) as rows:
            number = rows.add_pin(reason, everything=True, now_ns=now_ns, expires_ns=expires_ns)
        try:
            if paths:
                _name_blobs(opened, number, paths)
        except BaseException:
            _remove(opened, number)
            raise
        return next(pin for pin in Collecting(opened.namespace).pins() if pin.id == number)


def _name_blobs(store: Store, number: int, paths: list[bytes]) -> None:
    """Let a pin that holds everything hold only what the paths have, as one commit shows it."""
    with contextlib.closing(Store(store.path, readonly=True)) as snapshot, snapshot.namespace.savepoint():
        for path in paths:
            blobs = Collecting(snapshot.namespace).blobs_below(_find(snapshot, path))
            while step := list(itertools.islice(blobs, PIN_STEP)):
                with transaction(store) as rows:
                    rows.pin_blobs(number, step)
    with transaction(store) as rows:
        rows.only_named(number)


def _remove(store: Store, number: int) -> bool:
    """Remove a pin; False when there is none."""
    with transaction(store) as rows:
        there = rows.expire_pin(number)
    left = there
    while left:
        with transaction(store) as rows:
            left = rows.remove_pin(number)
    return there


def _find(store: Store, path: bytes) -> int:
    ino: int | None = ROOT_INO
    for name in path.split(b"/"):
        if name and ino is not None:
            ino = store.namespace.dentries.find(ino, name) or _find_derived(store, ino, name)
    if ino is None:
        raise CasfsError(f"{os.fsdecode(path)[:PATH_LENGTH]} is not in the store")
    return ino


def _find_derived(store: Store, directory: int, name: bytes) -> int | None:
    """In a view or a virtual repository."""
    row = store.namespace.derived.first(directory, name)
    return None if row is None else row.ino


def list_pins(store: str) -> list[Pin]:
    """Every pin, oldest first; an expired one goes with the next collection. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        return list(Collecting(opened.namespace).pins())


def remove_pin(store: str, number: int) -> None:
    """What it holds may be collected then. Raises CasfsError when there is no such pin, or as `Store`."""
    with contextlib.closing(Store(store, shared=True)) as opened:
        if not _remove(opened, number):
            raise CasfsError(f"there is no pin {number}", f"casfs pin list {store} shows them")
