"""What verbs and policies stand on: the parts of one file system that know nothing of either."""

from __future__ import annotations

from casfs.fs.changes import Changes
from casfs.fs.commit import GroupCommit
from casfs.fs.directories import Directories
from casfs.fs.inodes import InodeTable
from casfs.fs.kernel import Kernel, NoKernel
from casfs.fs.nodes import Nodes
from casfs.fs.places import Places
from casfs.fs.remembered import Remembered
from casfs.fs.scheduler import Scheduler
from casfs.store import Store


class Core:
    """The inodes, the open group and the names of a store. Owned by the thread that runs the file system."""

    def __init__(self, store: Store, scheduler: Scheduler, kernel: Kernel | None = None) -> None:
        self.store = store
        self.scheduler = scheduler
        self.kernel = kernel or NoKernel()
        self.inodes = InodeTable(store.namespace)
        self.group = GroupCommit(store, self.inodes, scheduler)
        self.changes = Changes(scheduler)
        self.nodes = Nodes()
        self.inodes.generated = self.nodes.make
        self.inodes.generated_attributes = self.nodes.attributes
        self.remembered = Remembered(self.kernel)
        self.places = Places(store.namespace, self.inodes)
        self.directories = Directories(
            store.namespace, self.inodes, self.group, self.changes, self.places, self.nodes
        )
