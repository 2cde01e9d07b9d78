"""The file system of a store as everybody has it: with its trash and its repositories."""

from __future__ import annotations

from casfs.fs.core import Core
from casfs.fs.filesystem import FileSystem
from casfs.fs.kernel import Kernel
from casfs.fs.scheduler import Scheduler
from casfs.repositories.claims import Claims
from casfs.repositories.derived import DerivedNames
from casfs.repositories.following import Follower
from casfs.repositories.locks import Locks
from casfs.repositories.policy import RepositoryPolicy
from casfs.repositories.registry import Registry
from casfs.repositories.sidecars import Sidecars
from casfs.repositories.through import Through
from casfs.store import Store
from casfs.trash.policy import Trash


def file_system(store: Store, scheduler: Scheduler, kernel: Kernel | None = None) -> FileSystem:
    """Its parts put together; `start` it before its use. `kernel`: of the mount, if there is one."""
    core = Core(store, scheduler, kernel)
    registry = Registry(core)
    derived = DerivedNames(core, registry)
    follower = Follower(core, registry, derived)
    trash = Trash(core)
    locks = Locks(core)
    registry.subscribe(Through(core, derived, follower, locks).read)
    policy = RepositoryPolicy(core, registry, trash, follower, locks)
    fs = FileSystem(core, policy)
    policy.compare(Claims(fs, registry, Sidecars(fs, registry)))
    return fs


def policy_of(fs: FileSystem) -> RepositoryPolicy:
    """That of what `file_system` has put together."""
    assert isinstance(fs.policy, RepositoryPolicy)
    return fs.policy


def follower_of(fs: FileSystem) -> Follower:
    return policy_of(fs).follower


def registry_of(fs: FileSystem) -> Registry:
    return policy_of(fs).registry


def locks_of(fs: FileSystem) -> Locks:
    return policy_of(fs).locks
