"""What a store knows of one path, in use or not, as its last commit left it."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from casfs import properties
from casfs.errors import CasfsError, FsError
from casfs.layouts.builtin import builtin
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.explanation import explain
from casfs.namespace.derived import DIRECTORY, DerivedRow
from casfs.namespace.inodes import InodeRow
from casfs.namespace.namespace import Namespace
from casfs.namespace.repositories import RepositoryRow
from casfs.namespace.trash import RuleRow, TrashRow
from casfs.repositories import rules
from casfs.repositories.damaged import layouts_of
from casfs.repositories.rules import Rules
from casfs.types import ROOT_INO

_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """`digest`: hexadecimal; empty for what has none, or none yet (`is_sealed`). `others`: further ones that
    are kept, by algorithm. `properties`: key and values. `names`: from the root.

    `repository`: name of the directory in the root that it lies in, or is; empty for the root. `damaged`: why
    that cannot be read. `coordinates`: what the path of a file says, or `reason`: why it says nothing.
    `snapshot`: it is one by its path or its revision. `trash_rule`: for what is removed there; None for what
    lies in the trash, which `trashed` tells of.

    Of a file that a view or a virtual repository shows all is said that is said of it where it lies, which is
    `lies_at`; empty for others. `hides`: where those lie that would be shown there in its place.
    """

    path: bytes
    kind: str
    size: int
    digest: str
    others: dict[str, str]
    properties: dict[str, list[str]]
    is_sealed: bool
    names: tuple[bytes, ...]
    repository: bytes
    repository_kind: str
    layout: str
    rules: Rules
    damaged: str
    coordinates: Coordinates | None
    snapshot: bool
    reason: str
    trash_rule: RuleRow | None
    trashed: TrashRow | None
    lies_at: bytes = b""
    hides: tuple[bytes, ...] = ()


def info(namespace: Namespace, path: bytes) -> Info:
    """Of a path from the root; symbolic links are not followed. Raises FsError ENOENT, ENOTDIR, OSError."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    ino, top = ROOT_INO, 0
    row = _inode(namespace, ino, path)
    for part in parts:
        if row.kind != stat.S_IFDIR:
            raise _error(errno.ENOTDIR, path)
        found = namespace.dentries.find(ino, part)
        if found is None:
            derived = namespace.derived.candidates(ino, part)
            if not derived:
                raise _error(errno.ENOENT, path)
            if derived[0].type != DIRECTORY:
                if part is not parts[-1]:
                    raise _error(errno.ENOTDIR, path)
                return _shown(namespace, b"/" + b"/".join(parts), derived)
            found = derived[0].ino
        ino, top = found, top or found
        row = _inode(namespace, ino, path)
    is_file = row.kind == stat.S_IFREG
    blob = None if row.blob_id is None else namespace.blobs.digest(row.blob_id)
    is_repository = bool(parts) and (len(parts) > 1 or row.kind == stat.S_IFDIR)
    in_trash = bool(parts) and top == namespace.trash.directory()
    kind, layout, allowed, damaged = _repository(namespace, top)
    coordinates, reason, snapshot = None, "", False
    if is_file and is_repository and layout:
        coordinates, reason, snapshot = _coordinates(namespace, layout, b"/".join(parts[1:]))
    return Info(
        path=b"/" + b"/".join(parts),
        kind=_KINDS.get(row.kind, "unknown"),
        size=row.size,
        digest="" if blob is None else blob.hex(),
        others={} if row.blob_id is None else _others(namespace, row.blob_id),
        properties=_properties(namespace, ino),
        is_sealed=row.staged is None,
        names=tuple(b"/" + name for name in sorted(namespace.dentries.paths_of(ino))),
        repository=parts[0] if is_repository and not in_trash else b"",
        repository_kind=kind,
        layout=layout,
        rules=allowed,
        damaged=damaged,
        coordinates=coordinates,
        snapshot=snapshot,
        reason=reason,
        trash_rule=None if in_trash else _trash_rule(namespace, parts[0] if is_repository else b""),
        trashed=namespace.trash.get(ino),
    )


def _shown(namespace: Namespace, path: bytes, rows: list[DerivedRow]) -> Info:
    """Of a file in a view or a virtual repository. Raises FsError ENOENT, OSError."""
    sources = [
        b"/" + above + b"/" + row.source_name
        for row in rows
        for above in namespace.dentries.paths_of(row.source_parent)[:1]
    ]
    if not sources:
        raise _error(errno.ENOENT, path)
    found = info(namespace, sources[0])
    return msgspec.structs.replace(found, path=path, lies_at=sources[0], hides=tuple(sources[1:]))


def _error(number: int, path: bytes) -> FsError:
    return FsError(number, f"{os.fsdecode(path)}: {os.strerror(number)}")


def _inode(namespace: Namespace, ino: int, path: bytes) -> InodeRow:
    row = namespace.inodes.get(ino)
    if row is None:
        raise _error(errno.EIO, path)
    return InodeRow(*row)


def _others(namespace: Namespace, blob_id: int) -> dict[str, str]:
    return {name: value.hex() for name, value in sorted(namespace.digests.of(blob_id).items())}


def _properties(namespace: Namespace, ino: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in sorted(namespace.xattrs.of(ino).items()):
        for key, each in properties.found_in(name, value):
            found.setdefault(key, []).append(each)
    return found


def _repository(namespace: Namespace, top: int) -> tuple[str, str, Rules, str]:
    """Kind, layout, rules of a directory in the root, and why they cannot be read."""
    rows = [row for row in namespace.repositories.all() if row.ino == top]
    row = rows[0] if rows else RepositoryRow(top, "local", None, None, "{}")
    try:
        return row.kind, row.layout or "", rules.decode(row.rules), ""
    except CasfsError as error:
        return row.kind, row.layout or "", Rules(read_only=True), error.message


def _coordinates(namespace: Namespace, name: str, path: bytes) -> tuple[Coordinates | None, str, bool]:
    """What a path says, or why it says nothing; is it a snapshot?"""
    stored, _ = layouts_of(namespace.repositories.layouts())
    try:
        layout = stored.get(name) or builtin(name)
    except CasfsError as error:
        return None, error.message, False
    (found,) = explain(path, [layout])
    tokens = found.coordinates
    snapshot = tokens is not None and (tokens.integration or layout.order.integration(tokens.revision))
    return tokens, found.reason, snapshot


def _trash_rule(namespace: Namespace, directory: bytes) -> RuleRow:
    found = {rule.directory: rule for rule in namespace.trash.rules()}
    return found.get(directory) or found.get(b"") or RuleRow(b"", 0, ())
