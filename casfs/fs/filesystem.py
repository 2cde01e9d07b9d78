"""The file system of one store: its parts put together, its start and its end."""

from __future__ import annotations

from dataclasses import dataclass

from casfs.fs.attributes import Attributes
from casfs.fs.by_digest import ByDigest
from casfs.fs.content.contents import Contents
from casfs.fs.core import Core
from casfs.fs.listing import Listing
from casfs.fs.policy import Policy
from casfs.fs.recovery import Recovery, recover
from casfs.fs.scheduler import Mutex
from casfs.fs.snapshots import Snapshots
from casfs.fs.tree import Tree
from casfs.fs.xattrs import ExtendedAttributes
from casfs.snapshots.holding import Holds

STEP = 128
"""Of what the policy has noted, rows that are written before other requests are served: about 3 ms."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What is going on in a mounted file system. `resting`: files that are sealed when they are quiet;
    `held_files`, `held_bytes`: blobs that were removed and that a program still has mapped."""

    open_handles: int
    open_unsealed: int
    resting: int
    held_files: int
    held_bytes: int
    pending_operations: int
    unlinked_open: int
    cached_inodes: int
    commit_errors: int
    last_error: str
    failed: int


class FileSystem:
    """POSIX verbs by subject: `tree`, `listing`, `files`, `attributes`, `xattrs`; in `contents` the parts
    of what files contain; durability in `group`.

    `collecting` is held by a batch of orphans that is being removed (maintenance/collect/mounted.py), which
    asks `holds` what snapshots refer to.
    """

    def __init__(self, core: Core, policy: Policy) -> None:
        self.store = core.store
        self.scheduler = core.scheduler
        self.kernel = core.kernel
        self.inodes = core.inodes
        self.group = core.group
        self.changes = core.changes
        self.nodes = core.nodes
        self.places = core.places
        self.remembered = core.remembered
        self.directories = core.directories
        self.policy = policy
        self.contents = Contents(core, policy)
        self.files = self.contents.files
        self.by_digest = ByDigest(core, self.contents)
        self.snapshots = Snapshots(core, self.contents)
        self.collecting = Mutex(core.scheduler)
        self.holds = Holds(core.store.directory)
        self.recovery = Recovery(clean=True)
        self.group.join(self)
        self.xattrs = ExtendedAttributes(core, self.contents.sealing, policy)
        self.listing = Listing(core)
        self.tree = Tree(core, self.contents, self.xattrs, policy, self.listing)
        self.attributes = Attributes(core, self.files, self.xattrs, policy)

    async def start(self) -> None:
        """Clean up after a crash. Raises OSError."""
        if self.policy.lags:
            await self.group.begin()
            self.policy.catch_up()
        self.recovery = await recover(self.store, self.inodes, self.group, self.contents, self.directories)

    # Taking part in commits

    async def before_durable(self) -> None:
        await self.contents.settling.settle_due()

    async def before_commit(self) -> None:
        await self.tree.forget_again()
        await self.contents.settling.write_back()
        while self.policy.pending > STEP and self.group.active:
            self.policy.flush(STEP)
            await self.scheduler.pause()

    def before_rows(self) -> None:
        self.contents.digesting.flush()
        self.policy.flush()

    async def stop(self) -> None:
        """Seal what is open and make everything durable. Raises OSError when that is not possible; what is
        possible is done before."""
        failed = await self.contents.settling.settle_all()
        for ino in self.tree.unlinked:
            self.contents.table.close_all(self.inodes.get(ino))
        await self.tree.forget(list(self.tree.unlinked))
        await self.contents.digesting.finished()
        await self.group.begin()
        self.before_rows()
        self.inodes.return_numbers()
        await self.group.durable()
        await self._remove_condemned()
        self.holds.close()
        if not failed:
            await self.group.begin()
            self.store.namespace.note_end()
            await self.group.durable()
        else:
            raise failed[0]

    async def _remove_condemned(self) -> None:
        """Of batches of the collector that were cut off; but those whose content has been published anew, by
        another process (a backup into this store), which cannot be while this transaction is open."""
        filestore = self.store.filestore
        if not filestore.has_condemned:
            return
        await self.group.begin()
        for digest in filestore.condemned():
            if self.store.namespace.blobs.find(digest) is not None:
                filestore.spare(digest)
        await self.scheduler.run(filestore.remove_all_condemned)
        await self.group.durable()

    def activity(self) -> Activity:
        group = self.group
        held_files, held_bytes = self.store.filestore.held.amount()
        return Activity(
            open_handles=self.contents.table.handles,
            open_unsealed=self.contents.table.unsealed,
            resting=len(self.contents.sealing.resting),
            held_files=held_files,
            held_bytes=held_bytes,
            pending_operations=group.operations if group.active else 0,
            unlinked_open=len(self.tree.unlinked),
            cached_inodes=self.inodes.cached,
            commit_errors=group.errors,
            last_error=group.last_error,
            failed=group.failed,
        )
