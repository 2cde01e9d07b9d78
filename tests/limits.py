"""Limits of the product, set for a test wherever a module has them."""

from __future__ import annotations

import sys

import pytest

from casfs.fs import copy, filesystem
from casfs.trash import undelete

assert (
    copy.FileSystem is undelete.FileSystem is filesystem.FileSystem
)  # imported so that all modules with limits are

TIGHT: dict[str, float] = {
    "MEMORY_LIMIT": 64,
    "BUFFERED_LIMIT": 200,
    "INLINE_WORK": 100,
    "SPARSE_LIMIT": 100_000,
    "SLOW_SECONDS": -1.0,
    "SLOW_WRITES": 2,
    "SLOW_BYTES": 50,
    "CACHE_SIZE": 4,
    "FLUSH_BATCH": 2,
    "NUMBER_BLOCK": 16,
    "LIST_CHUNK": 2,
    "POOL_SIZE": 1,
    "PENDING_LIMIT": 10_000,
    "PENDING_COUNT": 3,
    "WRITE_BATCH": 2,
    "HASH_CHUNK": 1000,
    "FEW_BLOBS": 1,
    "STEP": 2,
    "REMOVE_BATCH": 2,
}
"""So low that small tests walk every way round them."""


PACKAGES = ("casfs.fs.", "casfs.trash.", "casfs.filestore.", "casfs.namespace.", "casfs.space")


def set_limits(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    """Set constants by name in every module of casfs that knows them."""
    for name, value in limits.items():
        known = [module for path, module in list(sys.modules.items()) if path.startswith(PACKAGES)]
        modules = [module for module in known if hasattr(module, name)]
        assert modules, f"no module has {name}"
        for module in modules:
            monkeypatch.setattr(module, name, value)
