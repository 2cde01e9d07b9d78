"""The contents of a file system: their parts, put together."""

from __future__ import annotations

from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.complaints import Complaints
from casfs.fs.content.digests import Digesting
from casfs.fs.content.files import Files
from casfs.fs.content.passthrough import Passthrough
from casfs.fs.content.ranges import Ranges
from casfs.fs.content.sealing import Sealing
from casfs.fs.content.settling import Settling
from casfs.fs.content.staged import StagedContents
from casfs.fs.content.table import OpenContents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Policy


class Contents:
    """The parts, each of which knows only those that come before it here. Owned by the thread that runs the
    file system."""

    def __init__(self, core: Core, policy: Policy) -> None:
        self._inodes = core.inodes
        self._group = core.group
        self.complaints = Complaints(core.store.namespace)
        self.blobs = BlobFiles(core)
        self.digesting = Digesting(core, self.blobs, policy)
        self.staged = StagedContents(core, self.blobs, self.digesting)
        self.table = OpenContents(core, self.staged)
        self.passthrough = Passthrough(core, self.blobs, self.staged, self.table)
        self.sealing = Sealing(
            core, self.blobs, self.staged, self.passthrough, self.complaints, self.digesting
        )
        self.settling = Settling(
            core, self.staged, self.table, self.passthrough, self.sealing, self.complaints
        )
        self.files = Files(
            core,
            policy,
            self.blobs,
            self.staged,
            self.table,
            self.passthrough,
            self.sealing,
            self.settling,
        )
        self.ranges = Ranges(
            core, self.blobs, self.staged, self.passthrough, self.sealing, self.settling, self.files, policy
        )

    def discard(self, inode: Inode) -> bool:
        """An inode without names goes: content, attributes, row. Inside a transaction. False while open."""
        if inode.content is not None and not self._close_for_good(inode):
            return False
        blob = inode.blob
        if inode.staged is not None:
            self._group.obsolete(inode.staged)
        if self.complaints.open:
            self.complaints.over(inode.ino)
        self._inodes.remove(inode)
        self.passthrough.drop_idle(blob)
        self.sealing.resting.forget(inode.ino)
        return True

    def _close_for_good(self, inode: Inode) -> bool:
        content = self.table.get(inode)
        if not content.handles:
            self.passthrough.give_back(content)
        self.table.close_if_idle(content, gone=True)
        return inode.content is None
