"""What a view or a virtual repository shows, computed from scratch by its definition."""

from __future__ import annotations

from collections.abc import Iterator

from casfs.fs.inodes import Inode
from casfs.fs.scheduler import run_inline
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.trees import Tree, trees_of
from tests.session import Session

Files = dict[bytes, int]
"""Path in a tree -> inode number."""


def assert_trees(session: Session) -> None:
    """Every tree has the names it should have, when all is followed."""
    run_inline(follower_of(session.fs).drain())
    for tree in trees_of(registry_of(session.fs).repositories).values():
        assert dict(_walk(session, tree.ino, b"")) == _expected(session, tree)


def _walk(session: Session, directory: int, path: bytes) -> Iterator[tuple[bytes, int]]:
    """What is in a directory but for directories."""
    for _, name, inode in list(session.fs.listing.list(directory, 2)):
        if inode.is_directory:
            yield from _walk(session, inode.ino, path + name + b"/")
        else:
            yield path + name, inode.ino


def _expected(session: Session, tree: Tree) -> Files:
    """Of those who want a name the first one has it; a directory comes first."""
    top = session.fs.inodes.get(tree.ino)
    wanted: list[tuple[bytes, int, int, int]] = []
    folders: set[bytes] = set()
    dentries = session.store.namespace.dentries
    derived = session.store.namespace.derived

    def closed(inode: Inode) -> bool:
        return inode.mode & 0o555 != 0o555 and inode.mode & 0o555 != top.mode & 0o555

    def visit(directory: int, path: bytes, rank: int) -> None:
        if closed(session.fs.inodes.get(directory)):
            return
        for cookie, name, ino, type_ in dentries.children(directory, 2, 1 << 40):
            if type_ == 4:
                if not source.steps:
                    folders.add(path + name)
                visit(ino, path + name + b"/", rank)
                continue
            shown = source.derive(path + name) if type_ == 8 or not source.steps else None
            if shown is None and tree.ino in derived.kept(directory, name):
                shown = path + name
            if shown is not None:
                wanted.append((shown, rank, cookie, ino))

    for rank, source in enumerate(tree.sources):
        visit(source.repository, b"", rank)
    for path, *_ in wanted:
        parts = path.split(b"/")
        folders |= {b"/".join(parts[:end]) for end in range(1, len(parts))}
    found: Files = {}
    for path, _, _, ino in sorted(wanted):
        if path not in folders:
            found.setdefault(path, ino)
    return {path: ino for path, ino in found.items() if not _is_held(session, tree, path)}


def _is_held(session: Session, tree: Tree, path: bytes) -> bool:
    """Has a program made a directory of that name in the tree?"""
    directory = tree.ino
    for part in path.split(b"/"):
        row = session.store.namespace.derived.first(directory, part)
        if row is None or row.type != 4:
            return False
        directory = row.ino
    return True
