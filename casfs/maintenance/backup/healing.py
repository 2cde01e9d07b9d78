"""What of the source cannot be read: healed from the destination where that has it, or told by its paths."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from casfs.errors import CasfsError
from casfs.maintenance.backup.access import Access
from casfs.maintenance.backup.copying import Unreadable
from casfs.maintenance.backup.source import Source
from casfs.maintenance.progress import Progress
from casfs.maintenance.scrub.heal import heal
from casfs.namespace.copies import Content, Copies
from casfs.namespace.damage import BlobToRead
from casfs.namespace.namespace import Namespace
from casfs.namespace.sending import Sending
from casfs.store import Store

PATHS_OF_ONE = 100
"""Paths of a content that are told, at the most."""


class Lost(NamedTuple):
    """A content that a backup lacks, and the files that have it, from the root of the store."""

    digest: bytes
    size: int
    reason: str
    paths: tuple[bytes, ...]


class Healing:
    """For one backup. `wanted`: its database. `lost`: what it lacks; `healed`: how many contents the source
    has got back."""

    def __init__(self, source: Source, destination: str, wanted: Namespace, access: Access) -> None:
        self._source = source
        self._destination = destination
        self._copies = Copies(wanted)
        self._wanted = wanted
        self._access = access
        self.lost: list[Lost] = []
        self.healed = 0

    def heal_known(self, progress: Progress) -> None:
        """Heal what is known to be damaged in the source, as far as the destination has it. Raises nothing of
        what goes wrong: then it stays as it was."""
        with contextlib.suppress(CasfsError, OSError), contextlib.closing(self._open(readonly=True)) as store:
            if not Sending(store.namespace).damaged():
                return
        with contextlib.suppress(CasfsError, OSError), contextlib.closing(self._open()) as store:
            known = store.namespace.damage.known()
            blobs = [blob for number in known for blob in store.namespace.damage.blobs_after(number - 1, 1)]
            self._heal(store, [blob for blob in blobs if blob.id in known], progress)

    def heal(self, unreadable: Sequence[Unreadable], progress: Progress) -> list[Content]:
        """Heal what could not be read; gives what is to be sent once more. The rest is lost."""
        healed: set[str] = set()
        with contextlib.suppress(CasfsError, OSError), contextlib.closing(self._open()) as store:
            blobs = [
                BlobToRead(number, each.content.digest, each.content.size)
                for each in unreadable
                if (number := store.namespace.blobs.find(each.content.digest)) is not None
            ]
            healed = self._heal(store, blobs, progress)
        self.lose(each for each in unreadable if each.content.digest.hex() not in healed)
        return sorted(each.content for each in unreadable if each.content.digest.hex() in healed)

    def _open(self, *, readonly: bool = False) -> Store:
        return Store(self._source.directory.path, shared=not readonly, readonly=readonly)

    def _heal(self, store: Store, blobs: list[BlobToRead], progress: Progress) -> set[str]:
        def damaged(numbers: list[int]) -> None:
            self._access.damaged(store.path, numbers)

        report = heal(store, self._destination, progress=progress, damaged=damaged, blobs=blobs)
        self.healed += len(report.healed)
        return {each.digest for each in report.healed}

    def lose(self, unreadable: Iterable[Unreadable]) -> None:
        """These are lacking."""
        for content, reason in unreadable:
            paths = self._copies.paths_of(content.id, PATHS_OF_ONE)
            self.lost.append(Lost(content.digest, content.size, reason, tuple(b"/" + path for path in paths)))
