"""What the extended attributes of a repository's directory say. Not listed: no tool shall copy them."""

from __future__ import annotations

from casfs.fs.core import Core
from casfs.repositories.registry import Registry, RepositoryKind
from casfs.types import ROOT_INO

KIND = b"user.casfs.repository"
LAYOUT = b"user.casfs.layout"
"""Read-only: what kind of repository it is, and the name of its layout."""

NAMES = frozenset((KIND, LAYOUT))


class RepositoryAttributes:
    """Owned by the thread that runs the file system."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._inodes = core.inodes
        self._nodes = core.nodes
        self._dentries = core.store.namespace.dentries
        self._registry = registry

    def get(self, ino: int, name: bytes) -> bytes | None:
        """One of NAMES; None for what is no repository, or has no layout."""
        repository = self._registry.repositories.get(ino)
        if repository is None:
            return RepositoryKind.LOCAL.encode() if name == KIND and self._is_plain(ino) else None
        if name == KIND:
            return repository.kind.encode()
        return repository.layout.name.encode() if repository.layout else None

    def _is_plain(self, ino: int) -> bool:
        """Is it a directory in the root that a program has made?"""
        if ino == ROOT_INO or ino == self._nodes.hidden.get(ROOT_INO):
            return False
        return self._inodes.get(ino).is_directory and self._dentries.parent_of(ino) == ROOT_INO
