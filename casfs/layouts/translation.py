"""From the path of an artifact in one layout to its path in another one.

The path is parsed by the source's layout and built by the target's. Nothing that says which artifact it is
may get lost: organisation, module, revision, classifier, extension, type, the layout's own tokens. What a
layout may write as it likes is where the revision is divided: what is 7.0.0 and its integration revision
beta.1 in one is 7.0.0-beta.1 in another; Maven's directory says SNAPSHOT where others repeat the file's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from msgspec.structs import replace

from casfs.errors import LayoutError
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.layout import Layout
from casfs.layouts.patterns import Pattern

MAX_HYPHENS = 8
"""How many places are tried where the integration revision may begin; few revisions have more than three."""

_DESCRIPTOR_TYPES = {"xml": "ivy"}
"""What Ivy calls its descriptors, by their extension; a layout without types does not say."""


def translate(path: bytes, source: Layout, target: Layout) -> bytes:
    """The path in `target` of the artifact at `path` in `source`. Raises LayoutError: why there is none."""
    found = source.parse(path)
    if found is None:
        raise LayoutError(f"it is no path of {source.name}")
    return build_for(found, target)


def build_for(coordinates: Coordinates, target: Layout) -> bytes:
    """The path in `target` of an artifact with the coordinates of another layout. Raises LayoutError."""
    error = LayoutError(f"{target.name} has no path for it")
    for candidate in _spellings(coordinates, target):
        try:
            return target.build(candidate)
        except LayoutError as reason:
            error = reason
    raise error


def _spellings(coordinates: Coordinates, target: Layout) -> Iterator[Coordinates]:
    """The same artifact as the target may write it, the likeliest first."""
    descriptor = target.descriptor
    if coordinates.descriptor and descriptor and descriptor.pattern.suffix == coordinates.extension:
        # Descriptions of one form have one extension. What their type is called does not matter.
        type_ = coordinates.type or _DESCRIPTOR_TYPES.get(coordinates.extension, "")
        if "type" not in descriptor.pattern.names:
            type_ = ""
        yield from _divided(replace(coordinates, type=type_), descriptor.pattern, target)
    yield from _divided(replace(coordinates, descriptor=False), target.artifact.pattern, target)


def _divided(coordinates: Coordinates, pattern: Pattern, target: Layout) -> Iterator[Coordinates]:
    """With the revision in one part or in two, if both are parts of it."""
    if not coordinates.integration and (coordinates.folder_integration or coordinates.file_integration):
        yield coordinates
        return
    in_folder = "folderItegRev" in pattern.names
    divided = (
        list(_with_integration(coordinates, in_folder, target)) if "fileItegRev" in pattern.names else []
    )
    missing = in_folder and not coordinates.folder_integration
    if missing and (target.folder_integration.constant or not coordinates.file_integration):
        yield from divided
        yield coordinates
    else:
        yield coordinates
        yield from divided
    yield replace(coordinates, base_revision=coordinates.revision, file_integration="", folder_integration="")


def _with_integration(coordinates: Coordinates, in_folder: bool, target: Layout) -> Iterator[Coordinates]:
    """With an integration revision of the target's form, wherever it may begin."""
    revision = coordinates.revision
    folder = target.folder_integration
    hyphens = (at for at, character in enumerate(revision) if character == "-")
    for at in islice(hyphens, MAX_HYPHENS):
        integration = revision[at + 1 :]
        if at and target.file_integration.matches(integration):
            of_folder = integration if folder.matches(integration) else folder.constant
            yield replace(
                coordinates,
                base_revision=revision[:at],
                file_integration=integration,
                folder_integration=of_folder if in_folder else "",
            )
