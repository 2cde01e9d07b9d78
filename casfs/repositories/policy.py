"""What locks and the rules of repositories allow, after what the trash says."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Claims, Reason, Room
from casfs.repositories.access_times import AccessTimes
from casfs.repositories.attributes import NAMES, RepositoryAttributes
from casfs.repositories.following import Follower
from casfs.repositories.guard import Guard
from casfs.repositories.locks import CHECKS, Locks
from casfs.repositories.registry import Registry
from casfs.trash import attributes as trash
from casfs.trash.policy import Trash
from casfs.types import ROOT_INO

ATTRIBUTES = NAMES.union(trash.ATTRIBUTES)

RULES = ("check_add", "check_write", "check_link", "check_attributes")
REPOSITORIES = ("check_remove", "check_replace", "check_move", "removed")
"""Checks that the guard makes where a repository has rules, and where there are repositories. Else the
trash's own are called, without a step between."""


class RepositoryPolicy:
    """A policy (fs/policy.py). Owned by the thread that runs the file system."""

    check_add: Callable[[int, bytes, int, Inode | None], object]
    check_write: Callable[[Inode], object]
    check_link: Callable[[Inode], object]
    check_attributes: Callable[[Inode], object]
    check_remove: Callable[[int, bytes, Inode], object]
    check_replace: Callable[[int, bytes, Inode], object]
    check_move: Callable[[int, bytes, Inode, int], object]
    removed: Callable[[int, Inode], object]
    resizes: Callable[[Inode, int], object] | None
    digests: Callable[[Inode], tuple[str, ...]] | None

    def __init__(
        self, core: Core, registry: Registry, trash: Trash, follower: Follower, locks: Locks
    ) -> None:
        self._core = core
        self.access_times: AccessTimes | None = None
        self.registry = registry
        self.trash = trash
        self.follower = follower
        self.locks = locks
        self._own = RepositoryAttributes(core, registry)
        self.guard = Guard(core, registry, trash)
        self.quotas = self.guard.quotas
        self._claims: Claims | None = None
        self.claims: Claims | None = None
        registry.subscribe(self._read_rules)
        locks.subscribe(self._choose_checks)

    def _choose_checks(self) -> None:
        for names, wanted in ((RULES, self.guard.ruled), (REPOSITORIES, self.registry.repositories)):
            for name in names:
                setattr(self, name, getattr(self.guard if wanted else self.trash, name))
        for name in CHECKS if self.locks else ():
            setattr(self, name, self.locks.before(name, getattr(self, name)))

    def _read_rules(self) -> None:
        self.guard.read_rules()
        self._choose_checks()
        self.resizes = self.quotas.resizes if self.quotas else None
        self.digests = self.guard.digests if self.guard.digested else None
        daily = {
            ino for ino, each in self.registry.repositories.items() if each.rules.access_times == "daily"
        }
        if daily != (self.access_times.tops if self.access_times else set()):
            self.access_times = AccessTimes(self._core, daily) if daily else None
        self._read_claims()

    def compare(self, claims: Claims) -> None:
        """Have the claims of sidecars compared with their files, where there are sidecars."""
        self._claims = claims
        self._read_claims()

    def _read_claims(self) -> None:
        has_sidecars = any(each.rules.sidecars for each in self.registry.repositories.values())
        self.claims = self._claims if has_sidecars else None

    def check_rules(self, inode: Inode) -> None:
        self.locks.check(inode)

    @property
    def attributes(self) -> Container[bytes]:
        return ATTRIBUTES

    def check_swap(self, directory: int) -> None:
        self.trash.check_swap(directory)

    def room(self, inode: Inode) -> Room | None:
        return self.quotas.room(inode) if self.quotas else None

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

    def noted_since(self, noted: int) -> list[Any]:
        return self.trash.noted_since(noted)

    def forget(self, noted: list[Any]) -> None:
        self.trash.forget(noted)

    @property
    def pending(self) -> int:
        return self.trash.pending + self.follower.pending

    def flush(self, limit: int | None = None) -> None:
        self.trash.flush(limit)
        self.follower.flush(limit)
        if self.quotas:
            self.quotas.settle()

    def attribute(self, ino: int, name: bytes) -> bytes | None:
        return self._own.get(ino, name) if name in NAMES else self.trash.attribute(ino, name)
