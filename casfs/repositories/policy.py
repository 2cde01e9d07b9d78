"""What the rules of repositories allow, before what the trash says."""

from __future__ import annotations

from collections.abc import Callable, Container

from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Reason
from casfs.repositories.attributes import NAMES, RepositoryAttributes
from casfs.repositories.following import Follower
from casfs.repositories.registry import Registry
from casfs.trash import attributes as trash
from casfs.trash.policy import Trash
from casfs.types import ROOT_INO

ATTRIBUTES = NAMES.union(trash.ATTRIBUTES)


class RepositoryPolicy:
    """A policy (fs/policy.py). Owned by the thread that runs the file system."""

    def __init__(self, core: Core, registry: Registry, trash: Trash, follower: Follower) -> None:
        self.registry = registry
        self.trash = trash
        self.follower = follower
        self._own = RepositoryAttributes(core, registry)

    @property
    def attributes(self) -> Container[bytes]:
        return ATTRIBUTES

    def check_add(self, directory: int, name: bytes) -> None:
        self.trash.check_add(directory, name)

    def check_change(self, ino: int) -> None:
        self.trash.check_change(ino)

    def check_leave(self, ino: int) -> None:
        self.trash.check_leave(ino)

    def check_swap(self, directory: int) -> None:
        self.trash.check_swap(directory)

    def keeps(self, since_ns: int) -> bool:
        return self.trash.keeps(since_ns)

    def leaves(self, inode: Inode, directory: int, name: bytes, uid: int, reason: Reason) -> None:
        self.trash.leaves(inode, directory, name, uid, reason)

    def truncates(self, inode: Inode, uid: int) -> None:
        self.trash.truncates(inode, uid)

    def check_directory(self, above: int) -> None:
        if above == ROOT_INO:
            self.registry.check_plain_directory()

    def moves(
        self, inode: Inode, directory: int, name: bytes, to: int, new_name: bytes, other: Inode | None
    ) -> Callable[[], object] | None:
        return self.trash.moves(inode, directory, name, to, new_name, other)

    @property
    def lags(self) -> bool:
        return self.trash.lags

    def catch_up(self) -> None:
        self.trash.catch_up()

    def access_changed(self, ino: int) -> None:
        self.trash.access_changed(ino)
        self.follower.access_changed(ino)

    def noted(self) -> int:
        return self.trash.noted()

    def forget_since(self, noted: int) -> None:
        self.trash.forget_since(noted)

    @property
    def pending(self) -> int:
        return self.trash.pending + self.follower.pending

    def flush(self, limit: int | None = None) -> None:
        self.trash.flush(limit)
        self.follower.flush(limit)

    def attribute(self, ino: int, name: bytes) -> bytes | None:
        return self._own.get(ino, name) if name in NAMES else self.trash.attribute(ino, name)
