"""What a path says of a file: is it a release, a snapshot, or neither?"""

from __future__ import annotations

from enum import StrEnum

from casfs.layouts.layout import Layout

TEMPORARY = (
    b"~",
    b".tmp",
    b".temp",
    b".part",
    b".partial",
    b".filepart",
    b".download",
    b".crdownload",
    b".swp",
)
"""How names end under which programs write what they rename when it is whole. Others begin with a dot."""


class Kind(StrEnum):
    RELEASE = "release"
    SNAPSHOT = "snapshot"


def kind_of(layout: Layout, path: bytes) -> Kind | None:
    """What accompanies an artifact (.sha1, .asc) is of its kind. None for what is none: it does not parse,
    or it has a temporary name, whatever the layout makes of that."""
    name = path[path.rfind(b"/") + 1 :]
    if name.startswith(b".") or name.endswith(TEMPORARY):
        return None
    found = layout.parse(path)
    if found is None:
        return None
    return Kind.SNAPSHOT if found.integration or layout.order.integration(found.revision) else Kind.RELEASE
