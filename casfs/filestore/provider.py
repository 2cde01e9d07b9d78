"""What a place for blobs has to be able to do, and what it promises.

tests/filestore/conformance.py holds every one of them to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from casfs.filestore.staging import StagedFile
from casfs.types import Digest


class Provider(Protocol):
    """A place where blobs are kept under their digests. It never compares the two.

    Every method may be called from any thread, and again after it has failed. Two threads do not publish or
    remove one digest at once; who calls sees to that. A blob that is there does not change, and does not go
    but by `remove`; who has it open can read it to its end also after that, and after it was replaced.
    Methods raise OSError for what the place is to blame for. The process may end in the middle of any of
    them.
    """

    def create(self) -> None:
        """Make a new place, empty and durable. Raises OSError, also when there is one already."""

    # Using what is there

    def open(self, digest: bytes) -> int:
        """A read-only descriptor of the blob, which the caller closes. Raises FileNotFoundError when there is
        none."""

    def size(self, digest: bytes) -> int | None:
        """Bytes of the blob, None when there is none: known without reading it."""

    def prefixes(self) -> list[str]:
        """What digests begin with, in hex, in order. Each digest begins with one of them, and the blobs that
        share one are few enough to be held in memory."""

    def enumerate(self, prefix: str) -> Iterator[Digest]:
        """The digests that begin with one of the prefixes and have a blob, in no order.

        Each that has one all the time is given once; one whose blob comes or goes meanwhile may be given or
        not.
        """

    # Publishing. None of it is durable before it was synced: power may come back to no blob, or to one of any
    # content and size. The next who publishes that digest replaces it.

    def publish_bytes(self, blobs: Mapping[bytes, bytes | bytearray]) -> None:
        """Make each a blob, in their order; what is there is replaced. Blocks.

        Nobody opens one of them before this returns: until then it may be there in part. When it fails,
        those before the one that it failed for are published, and those after it are as they were. That one
        is as it was or absent; it may be torn if the process ends, or undoing fails as well.
        """

    def publish_file(self, digest: bytes, staged: StagedFile, *, keep: bool) -> None:
        """Make a staged file a blob; what is there is replaced. Blocks.

        Nobody writes to that file any more: it may become the blob's own. Its descriptor stays open.
        `keep`: its name in staging stays, whatever happens. Otherwise that goes, and if there was a blob
        before, there is one at every moment, the old or the new. When this fails, or the process ends, the
        content has at least one of the two names.
        """

    def link(self, digest: bytes, target: str) -> None:
        """Give the file that the blob is a further name, a path below STORE.

        Raises FileExistsError when that is taken, FileNotFoundError when there is no blob. Whoever means to
        write to the file publishes a copy of it before (I2).
        """

    def remove(self, digest: bytes) -> None:
        """Remove the blob. Raises FileNotFoundError when there is none. When it fails, the blob is still
        there.

        Not durable before it was synced: power may bring the blob back.
        """

    # Making durable. A disk that has lost something says so once: whoever is told OSError must not take it
    # for durable because a second call succeeds.

    def sync_bytes(self, digests: Iterable[bytes]) -> None:
        """Make the contents of blobs durable. Blocks. Raises FileNotFoundError for one that is not there."""

    def sync_names(self, digests: Iterable[bytes]) -> None:
        """Make durable that there is a blob for each of the digests, or that there is none. Blocks."""

    def sync_all(self) -> None:
        """Make durable whatever was published and removed until now. Blocks, for as long as everything takes
        that is being written to the place, by others too."""
