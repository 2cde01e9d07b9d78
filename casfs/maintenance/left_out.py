"""What views and virtual repositories do not show of the repositories they are made of, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from casfs.errors import CasfsError, LayoutError
from casfs.fs.listing import DT_DIR
from casfs.layouts.builtin import builtin
from casfs.layouts.explanation import explain
from casfs.layouts.translation import translate
from casfs.namespace.namespace import Namespace
from casfs.repositories.damaged import layouts_of
from casfs.repositories.derived import FILE
from casfs.repositories.registry import Repository, RepositoryKind
from casfs.repositories.rules import Rules
from casfs.repositories.trees import Source, trees_of
from casfs.store import Store

EVERYTHING = 1 << 62

CLOSED = "a directory on the way allows less than the one that would show it"


def left_out(store: str, repository: int) -> Iterator[tuple[bytes, str]]:
    """(path from the root, why) of each file, as the last commit left it; nothing for one that shows no
    others. `repository`: the inode number of its directory. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        namespace = opened.namespace
        tree = trees_of(sound_repositories(namespace)).get(repository)
        if tree is None:
            return
        sources: dict[int, list[Source]] = {}
        for source in tree.sources:
            sources.setdefault(source.repository, []).append(source)
        for ino, shown_as in sources.items():
            for parent, name, path in _files(namespace, ino):
                rows = namespace.derived.of_source(parent, name)
                if all(row.tree != repository for row in rows):
                    top = namespace.dentries.names_of(ino)
                    yield b"/".join((top[0][1] if top else b"?", path)), _reason(path, shown_as)


def _reason(path: bytes, sources: list[Source]) -> str:
    """That of the first way to show it."""
    for before, after in sources[0].steps:
        try:
            path = translate(path, before, after)
        except LayoutError as error:
            (explanation,) = explain(path, [before])
            return explanation.reason or error.message
    return CLOSED


def _files(namespace: Namespace, top: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(directory, name, path below the top) of all files."""
    waiting = [(top, b"")]
    while waiting:
        directory, path = waiting.pop()
        for _, name, ino, type_ in namespace.dentries.children(directory, 0, EVERYTHING):
            if type_ == DT_DIR:
                waiting.append((ino, path + name + b"/"))
            elif type_ == FILE:
                yield directory, name, path + name


def sound_repositories(namespace: Namespace) -> dict[int, Repository]:
    """Those that are sound."""
    layouts, _ = layouts_of(namespace.repositories.layouts())
    members: dict[int, list[int]] = {}
    for member in namespace.repositories.members():
        members.setdefault(member.repository, []).append(member.member)
    found: dict[int, Repository] = {}
    for row in namespace.repositories.all():
        with contextlib.suppress(CasfsError, ValueError):
            layout = (layouts.get(row.layout) or builtin(row.layout)) if row.layout else None
            shown = tuple(members.get(row.ino, ()))
            found[row.ino] = Repository(row.ino, RepositoryKind(row.kind), layout, Rules(), shown, row.deploy)
    return found
