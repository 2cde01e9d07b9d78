"""What the kernel and libfuse are told at mount time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    import pyfuse3

SUBTYPE = "casfs"
"""The mount table shows type `fuse.casfs`."""

_PLAIN = "/-_.~+@:"


@dataclass(frozen=True, slots=True)
class Presentation:
    """-o uid=, gid=, umask=: what every file is shown with, whatever its row says."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None

    def apply(self, entry: pyfuse3.EntryAttributes) -> None:
        if self.uid is not None:
            entry.st_uid = self.uid
        if self.gid is not None:
            entry.st_gid = self.gid
        if self.umask is not None:
            entry.st_mode = entry.st_mode & ~0o777 | 0o777 & ~self.umask


def source_name(store: str) -> str:
    """A store's path as the mount table's source: percent-encoded, so that no comma or byte is lost."""
    return quote(store.encode(errors="surrogateescape"), safe=_PLAIN)


def store_of_source(source: str) -> str:
    """The inverse of `source_name`."""
    return unquote(source, errors="surrogateescape")
