"""Which names in the root of a store a backup has. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

from casfs.maintenance.backup.options import BackupOptions

WILDCARDS = frozenset("*?[")


class Filter:
    """Patterns are those of fnmatch(3): `*`, `?`, `[a-z]`; upper and lower case differ. They are compared
    with whole names; a byte that is not UTF-8 is a lone surrogate (PEP 383)."""

    def __init__(self, options: BackupOptions) -> None:
        self._include = options.include
        self._exclude = options.exclude
        known = options.exclude_new_known
        self._known = None if known is None else frozenset(known)
        self._named = {pattern for pattern in options.include if not WILDCARDS.intersection(pattern)}

    @property
    def has_all(self) -> bool:
        """Does it leave out nothing, whatever there is?"""
        return not self._include and not self._exclude and self._known is None

    def has(self, name: bytes, *, directory: bool) -> bool:
        """Does the backup have what is called so in the root? What is excluded is not in it, though it be
        included. No directory that is new is in it before it is included by its name, without wildcards."""
        word = os.fsdecode(name)
        if any(fnmatchcase(word, pattern) for pattern in self._exclude):
            return False
        if directory and self._is_new(word):
            return False
        return not self._include or any(fnmatchcase(word, pattern) for pattern in self._include)

    def left_out_as_new(self, directories: Iterable[bytes]) -> list[str]:
        """Those that it would have if they were named; to be told, or nobody remembers to name them."""
        return [
            os.fsdecode(name)
            for name in directories
            if self._is_new(os.fsdecode(name))
            and not any(fnmatchcase(os.fsdecode(name), pattern) for pattern in self._exclude)
        ]

    def _is_new(self, word: str) -> bool:
        return self._known is not None and word not in self._known and word not in self._named
