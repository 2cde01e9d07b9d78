"""What lies in the root of a store, for who has to know which repositories there are."""

from __future__ import annotations

import contextlib

from casfs.fs.listing import DT_DIR
from casfs.store import Store
from casfs.types import ROOT_INO

EVERYTHING = 1 << 62


def directories(store: str) -> list[bytes]:
    """Names of directories in the root, as the last commit left them, mounted or not. Raises as `Store`."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        rows = opened.namespace.dentries.children(ROOT_INO, -1, EVERYTHING)
    return [name for _, name, _, kind in rows if kind == DT_DIR]
