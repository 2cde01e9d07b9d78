"""What views and virtual repositories are made of: pure rules from paths to paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from casfs.errors import LayoutError
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.layout import Layout
from casfs.layouts.translation import build_for, translate
from casfs.repositories.registry import Repository, RepositoryKind
from casfs.types import COOKIE_BITS

TIMES = 1 << 60 - COOKIE_BITS
"""So often a tree may show one repository, each time in another layout: what is more is not shown."""


class Source(NamedTuple):
    """A local repository as a tree shows it. `steps`: from which layout to which one its paths go, in turn;
    none: they stay as they are."""

    repository: int
    steps: tuple[tuple[Layout, Layout], ...] = ()

    def derive(self, path: bytes, found: Coordinates | None = None) -> bytes | None:
        """The path in the tree; None where a layout has none. `found`: what the repository's own layout says
        of it, if that is known."""
        steps = self.steps
        try:
            if found is not None and steps:
                path, steps = build_for(found, steps[0][1]), steps[1:]
            for source, target in steps:
                path = translate(path, source, target)
        except LayoutError:
            return None
        return path

    def origin(self, path: bytes) -> bytes | None:
        """The path in the repository whose path in the tree is this one; None where there is none."""
        origin = path
        try:
            for source, target in reversed(self.steps):
                origin = translate(origin, target, source)
        except LayoutError:
            return None
        return origin if self.derive(origin) == path else None


Shown = tuple[tuple[Source, ...], int | None]
"""`sources` and `writes` of a tree."""


class Tree(NamedTuple):
    """A view or a virtual repository. `sources`: the first one that wants a name has it. `writes`: which of
    them takes what is written; None: none does."""

    ino: int
    sources: tuple[Source, ...]
    writes: int | None


class Shows(NamedTuple):
    """How a tree shows a repository, which it may show several times: as what, with which rank, and how often
    before."""

    tree: Tree
    source: Source
    rank: int
    earlier: int

    def cookie(self, cookie: int) -> int:
        """Of a name with that cookie in the repository: another one each time it is shown, so that in a
        directory where it has two names a listing may go on between them."""
        return self.earlier << COOKIE_BITS | cookie if self.earlier else cookie


def shown_by(trees: Iterable[Tree]) -> dict[int, list[Shows]]:
    """How repositories are shown in those trees."""
    found: dict[int, list[Shows]] = {}
    for tree in trees:
        times: Counter[int] = Counter()
        for rank, source in enumerate(tree.sources):
            earlier = times[source.repository]
            times[source.repository] += 1
            if earlier < TIMES:
                found.setdefault(source.repository, []).append(Shows(tree, source, rank, earlier))
    return found


def trees_of(repositories: Mapping[int, Repository]) -> dict[int, Tree]:
    """Every tree, by the inode number of its directory."""
    known: dict[int, Shown] = {}
    return {
        ino: Tree(ino, *_flat(repositories, ino, known))
        for ino, repository in repositories.items()
        if repository.kind is not RepositoryKind.LOCAL
    }


def _flat(repositories: Mapping[int, Repository], ino: int, known: dict[int, Shown]) -> Shown:
    """The local repositories that one is made of, and which of them takes what is written to it. A member
    that contains it again, which only a damaged database has, is left out."""
    if ino not in known:
        repository = repositories.get(ino)
        known[ino] = (), None
        if repository is None or repository.kind is RepositoryKind.LOCAL:
            known[ino] = (Source(ino),), 0
        else:
            members = [_flat(repositories, member, known) for member in repository.members]
            known[ino] = _put_together(repositories, repository, members)
    return known[ino]


def _put_together(
    repositories: Mapping[int, Repository], repository: Repository, members: list[Shown]
) -> Shown:
    if repository.kind is RepositoryKind.VIRTUAL:
        sources = tuple(dict.fromkeys(source for found, _ in members for source in found))
        writes = None if repository.deploy is None else Source(repository.deploy)
        return sources, sources.index(writes) if writes in sources else None
    found, written = members[0] if members else ((), None)
    shown = [_view(repositories, source, repository.layout) for source in found]
    taker = None if written is None else shown[written]
    sources = tuple(dict.fromkeys(source for source in shown if source is not None))
    return sources, None if taker is None else sources.index(taker)


def _view(repositories: Mapping[int, Repository], source: Source, layout: Layout | None) -> Source | None:
    """A source in another layout; None where it has none itself."""
    if source.steps:
        before: Layout | None = source.steps[-1][1]
    else:
        repository = repositories.get(source.repository)
        before = None if repository is None else repository.layout
    if before is None or layout is None:
        return None
    return source if before is layout else Source(source.repository, (*source.steps, (before, layout)))
