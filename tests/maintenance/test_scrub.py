"""Scrub finds every way in which a blob can rot, names who is affected, and takes it out of the way."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import StoreLocked
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.maintenance import scrub as scrubbing
from casfs.maintenance import verify
from casfs.maintenance.fsck import check
from casfs.maintenance.offline import opened
from casfs.maintenance.scrub import ScrubReport, scrub, scrub_slice
from casfs.store import Store
from tests.invariants import assert_clean
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, make_file

ONES = {b"/a/one", b"/b/link"}
TWOS = {b"/a/deep/two", b"/b/two again"}


def run(store: Damaged, told: list[int] | None = None, **options: object) -> ScrubReport:
    damaged = [].extend if told is None else told.extend
    with Store(str(store)) if False else _opened(store) as used:
        return scrub(used, tell=lambda *step: None, damaged=damaged, **options)  # type: ignore[arg-type]


class _opened:
    def __init__(self, store: Damaged) -> None:
        self._store = Store(str(store))

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()
