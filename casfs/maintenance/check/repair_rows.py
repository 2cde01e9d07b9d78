"""Repair of the rows. Every fault that `namespace.checks` finds is mended, or stays as it is and is told.

The order matters: first what the root and names stand for, then where directories hang, then what has no
place at all goes to lost+found, and at the end everything that is counted is counted.
"""

from __future__ import annotations

import os
import stat
import time

from casfs.maintenance.check.lost_found import LostAndFound
from casfs.namespace.checks import Checks, ContentFault
from casfs.namespace.derived_checks import DerivedChecks
from casfs.namespace.inodes import directory_row
from casfs.namespace.namespace import Namespace
from casfs.namespace.property_checks import PropertyChecks
from casfs.namespace.repairs import Repairs
from casfs.namespace.trash import TrashRow


class RowRepair:
    """One repair, inside one write transaction. Methods raise DatabaseError."""

    def __init__(self, namespace: Namespace, checks: Checks) -> None:
        self._namespace = namespace
        self._checks = checks
        self.repairs = Repairs(namespace)
        self._mend_values()
        checks.read_tree()
        if not checks.has_root():
            owner = os.stat(namespace.path)
            self.repairs.make_root(owner.st_uid, owner.st_gid)
        self.lost = LostAndFound(namespace, self.repairs)

    def _mend_values(self) -> None:
        """Before anything takes a new number."""
        self.repairs.set_values()
        free = {"inode": self.repairs.highest()[0], "blob": self.repairs.highest_blob()}
        for kind, number in self._checks.huge_numbers():
            free[kind] += 1
            self.repairs.renumber(kind, number, free[kind])
        for table, highest in list(self._checks.sequences()):
            self.repairs.set_sequence(table, highest)

    def structure(self) -> None:
        """Everything but what depends on files and counts."""
        self._mend_names()
        self._mend_contents()
        self._mend_dangling()
        self._mend_lost_entries()
        self._mend_tree()
        for ino in list(self._checks.nameless()):
            self.lost.add(ino, f"ino-{ino}")
        self.repairs.delete_xattrs([ino for ino, _ in PropertyChecks(self._namespace).stray_xattrs()])
        self.count_references()

    def _mend_names(self) -> None:
        for name in list(self._checks.bad_names()):
            while not self.repairs.rename(name, b"bad-name-%d" % self.lost.next_cookie()):
                continue
        for name in list(self._checks.bad_cookies()):
            self.repairs.set_cookie(name, self.lost.next_cookie())

    def _mend_contents(self) -> None:
        """Each step may bring out faults of the next; only one is found of an inode at a time."""
        for fault in self._content_faults("staged"):
            self.repairs.forget_staged(fault.ino)
        for fault in self._content_faults("mode"):
            self.repairs.set_mode(fault.ino, self._missing_mode(fault.ino))
        for fault in self._content_faults("stray"):
            row = self.repairs.inode(fault.ino)
            name = f"ino-{fault.ino}-content"
            self.repairs.take_content(fault.ino)
            self.lost.add_file(name, row.size, blob=row.blob_id, staged=row.staged, mtime_ns=row.mtime_ns)

    def _content_faults(self, kind: str) -> list[ContentFault]:
        return [fault for fault in self._checks.content_faults() if fault.fault == kind]

    def _missing_mode(self, ino: int) -> int:
        """What an inode of no known type has to be."""
        row = self.repairs.inode(ino)
        if row.target:
            kind = stat.S_IFLNK
        elif row.blob_id is None and row.staged is None and self._checks.has_children(ino):
            kind = stat.S_IFDIR
        else:
            kind = stat.S_IFREG
        return kind | row.mode & 0o7777

    def _mend_dangling(self) -> None:
        made: set[int] = set()
        types = []
        for dentry, mode_type in list(self._checks.name_faults()):
            if mode_type is not None:
                types.append((dentry, mode_type))
            elif dentry.ino in made or self._checks.has_children(dentry.ino):
                if dentry.ino not in made:
                    self._make_directory(dentry.ino)
                made.add(dentry.ino)
                types.append((dentry, stat.S_IFDIR >> 12))
            else:
                self.repairs.delete_name(dentry)
        self.repairs.set_types(types)

    def _make_directory(self, ino: int) -> None:
        self.repairs.insert(directory_row(ino, 0o700, self.lost.uid, self.lost.gid))

    def _mend_lost_entries(self) -> None:
        for ino, exists in list(self._checks.lost_parents()):
            if exists:
                self.repairs.move_entries(ino, self.lost.add_directory(f"ino-{ino}-entries"))
            else:
                self._make_directory(ino)  # it has no name yet: lost+found gives it one
        for ino in list(DerivedChecks(self._namespace).with_entries()):
            self.repairs.move_entries(ino, self.lost.add_directory(f"ino-{ino}-entries"))

    def _mend_tree(self) -> None:
        self._checks.read_tree()
        for ino in list(self._checks.many_names()):
            best = self._checks.best_name(ino)
            self.repairs.keep_name(ino, best)
            self._checks.keep_edge(ino, best)
        self._checks.read_tree()
        for loop in self._checks.loops():
            self.repairs.delete_loop_name(loop[0], loop[1 % len(loop)])
        self._checks.read_tree()

    def count_references(self) -> None:
        self.repairs.set_refs(list(self._checks.blob_faults()))

    def count(self) -> None:
        """At the end: sizes, links, references, the numbers given out."""
        for fault in self._content_faults("size"):
            if fault.expected is not None:
                self.repairs.set_size(fault.ino, fault.expected)
        self._checks.read_tree()
        self.repairs.set_links(list(self._checks.link_faults()))
        self._mend_trash()
        self._namespace.locked.remove(list(self._namespace.locked.strays()))
        self.count_references()
        self.repairs.delete_stray_pins()
        self._namespace.damage.clear_strays()
        if not self._checks.has_uuid():
            self.repairs.new_uuid()
        self.lost.save_numbers()

    def note_damage(self, blob: int, reason: str) -> None:
        self._namespace.damage.note(blob, reason, time.time_ns())

    def clear_damage(self, blob: int) -> None:
        self._namespace.damage.clear(blob)

    def _mend_trash(self) -> None:
        self._namespace.trash.remove(list(self._checks.stray_trash()))
        rows = []
        for ino in list(self._checks.untold_trash()):
            path = self._checks.paths_of_inode(ino, 1).paths[0]
            was = path.lstrip(b"/").split(b"/", 3)[-1]  # behind .casfs, trash and the date
            rows.append(TrashRow(ino, time.time_ns(), 0, "removed", was))
        self._namespace.trash.add(rows)

    def adopt(self, digest: bytes, size: int, mtime_ns: int) -> None:
        """Give a blob file that has no row one, and a name in lost+found."""
        blob = self._namespace.blobs.insert(digest, size, time.time_ns())
        self.lost.add_file(digest.hex(), size, blob=blob, mtime_ns=mtime_ns)
