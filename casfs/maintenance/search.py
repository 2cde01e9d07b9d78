"""Searches of a store, in use or not, as its last commit left it: what lies where, and what is the newest."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from casfs.errors import CasfsError, StoreLocked, UsageError
from casfs.layouts.builtin import builtin
from casfs.layouts.layout import Layout
from casfs.layouts.versions import ORDERS, Key, Order
from casfs.maintenance import offline
from casfs.maintenance.query import SECOND, Query, exact, literal_directory
from casfs.namespace.artifacts import ArtifactRow
from casfs.namespace.namespace import Namespace
from casfs.namespace.searches import BLAKE3, Content, Digested, FileRow, Owner, Searches, Wanted
from casfs.repositories import rules
from casfs.repositories.damaged import layouts_of
from casfs.store import Store
from casfs.text import printable
from casfs.trash.policy import CASFS
from casfs.types import ROOT_INO

DEEPEST = 10_000
"""Directories above one another that are followed, at the most: rows may lead round in a circle."""

FIRST_PART, PART = 16, 1_000
"""Rows that are asked for at a time, at first and at the most."""

DIRECTORY = 4
"""The DT_ value of readdir(3)."""

FEW = 1_000
"""An index that says no more than so many is not compared with others."""

REMEMBERED = 100_000
"""Paths of directories, and modules, that are kept in memory at the most."""


class NothingFound(CasfsError):
    """There is nothing of that kind."""


class Found(NamedTuple):
    """A file: its path from the root of the store, what the database says of it; where artifacts were looked
    for, what its path says, and whether it is a snapshot, by its path or by its revision."""

    path: bytes
    file: FileRow
    artifact: ArtifactRow | None
    snapshot: bool

    @property
    def top(self) -> bytes:
        """The directory in the root in which it lies, which is its repository; empty for the root itself."""
        return self.path.split(b"/", 2)[1] if self.path.count(b"/") > 1 else b""

    @property
    def row(self) -> ArtifactRow:
        assert self.artifact is not None
        return self.artifact


class Duplicate(NamedTuple):
    """A content that was found under several names, and bytes that they would need more, were each a file of
    its own."""

    content: Content
    found: list[Found]

    @property
    def saves(self) -> int:
        return (len(self.found) - 1) * self.content.size


class Source(NamedTuple):
    """Where it is looked: "digest", "property" or "module", by an index; "contents": at all of them; or
    "tree": at all files below some directories. `scan`: that is more than what is asked for."""

    kind: str
    directories: tuple[bytes, ...] = ()
    scan: bool = False


class Search:
    """Over one store that is open. Raises as `Store` does, and OSError."""

    def __init__(self, namespace: Namespace) -> None:
        self._dentries = namespace.dentries
        self._rows = namespace.repositories
        self._searches = namespace.searches
        self._paths: dict[int, bytes | None] = {ROOT_INO: b"/"}
        self.layouts = layouts_by_repository(namespace)
        self._members: dict[int, list[int]] = {}
        for row in namespace.repositories.members():
            self._members.setdefault(row.repository, []).append(row.member)
        self._showing = {row.ino for row in self._rows.all() if row.kind != "local"}
        self.properties = namespace.searches.properties_of
        self.digests = namespace.searches.digests_of

    def repositories(self, name: bytes) -> tuple[int, ...]:
        """The inode number of a repository; of one that shows others, those of all that it shows. Raises
        UsageError for one that has no layout, and shows none that has."""
        ino = self._dentries.find(ROOT_INO, name)
        seen: set[int] = set()
        waiting = [] if ino is None else [ino]
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting += self._members.get(each, ())
        found = tuple(sorted(seen & self.layouts.keys()))
        if not found:
            paths = (self._path(ino) for ino in self.layouts)
            known = sorted(printable(path.strip(b"/")) for path in paths if path)
            raise UsageError.unknown("repository with a layout", printable(name), known)
        return found

    def directory(self, path: bytes) -> bytes:
        """A directory as `Query.below` has it. Raises UsageError where there is none, or one that shows what
        lies elsewhere."""
        names = [name for name in path.split(b"/") if name]
        ino: int | None = ROOT_INO
        for name in names:
            entry = None if ino is None else self._dentries.entry(ino, name)
            ino = entry[1] if entry is not None and entry[2] == DIRECTORY else None
            if ino in self._showing:
                raise UsageError(
                    f"{printable(path)} lies in a repository that shows others",
                    "name what it shows: casfs repo list",
                )
        if ino is None:
            raise UsageError(f"{printable(path)} is no directory of the store")
        return b"/%s/" % b"/".join(names) if names else b"/"

    def order(self, repository: int) -> Order:
        """Of the revisions in a repository."""
        layout = self.layouts.get(repository)
        return layout.order if layout is not None else ORDERS["maven"]

    def access_times(self) -> dict[bytes, int]:
        """Names of the repositories that keep the times of opens, and since when, in nanoseconds."""
        kept = {}
        for row in self._rows.all():
            with contextlib.suppress(CasfsError):  # fsck tells of it
                since = rules.decode(row.rules).access_times_since
                if since and (path := self._path(row.ino)) is not None:
                    kept[path.strip(b"/")] = since * SECOND
        return kept

    def check(self, query: Query) -> None:
        """Raises NothingFound for what nothing in the store can answer: digests that no content has, times of
        access that no repository keeps."""
        for algorithm in {each.algorithm for each in query.digests if not each.empty}:
            if not self._searches.has_digests(algorithm):
                raise NothingFound(
                    f"no content of this store has a {algorithm} digest",
                    f"'casfs digests STORE --add {algorithm}' makes them",
                )
        if query.unused_ns is not None and not self.access_times():
            raise NothingFound(
                "no repository of this store keeps access times",
                "'casfs repo set STORE NAME --access-times daily' does it from then on",
            )

    def notes_on_digests(self, query: Query) -> list[str]:
        """Why nothing may have been found by them."""
        algorithms = sorted({each.algorithm for each in query.digests})
        return [
            f"some contents have no {algorithm} digest; 'casfs digests STORE --add {algorithm}' makes them"
            for algorithm in algorithms
            if self._searches.lacks_digests(algorithm)
        ]

    def notes_on_access_times(self, unused_ns: int) -> list[str]:
        """What `Query.unused_ns` cannot find."""
        kept = self.access_times()
        names = ", ".join(map(printable, sorted(kept)))
        notes = [f"access times are kept in {names} only: no other files are found"]
        late = ", ".join(printable(name) for name, since in sorted(kept.items()) if since >= unused_ns)
        return notes + [f"{late}: not for so long yet, and nothing is found there"] * bool(late)

    # Where it is looked

    def source(self, query: Query) -> Source:
        """That which leaves least to be looked at."""
        if query.duplicates:
            return Source("contents", scan=True)
        wanted = self._wanted(query)
        if any(not (each.negated or each.empty) for each in query.digests):
            return Source("digest")
        properties = [each for each in query.properties if not each.negated]
        costs = [(self._searches.count_property(each, FEW + 1), "property") for each in properties]
        indexed = {each.column for each in query.tokens if exact(each)} & {"organisation", "module"}
        if indexed and not any(cost <= FEW for cost, _ in costs):
            costs.append((self._searches.count_artifacts(wanted, FEW + 1), "module"))
        if costs:
            # Of what is much, tokens are looked at in the order of paths, and leave less.
            return Source(min(costs, key=lambda cost: (cost[0], cost[1] != "module"))[1])
        paths = [literal_directory(each.text) for each in query.paths if not each.negated]
        if query.below != b"/":
            paths.append(query.below)
        if paths:
            directories = [max(paths, key=len)]
        elif wanted.repositories:
            directories = sorted(path for each in wanted.repositories if (path := self._path(each)))
        else:
            directories = [b"/"]
        repositories = () if paths else query.repositories
        whole = Query(repositories=repositories, trash=query.trash, below=query.below)
        return Source("tree", tuple(directories), scan=query != whole)

    def _wanted(self, query: Query) -> Wanted:
        repositories = {ino for name in query.repositories for ino in self.repositories(name)}
        return Wanted(
            query.digests,
            query.properties,
            query.tokens,
            tuple(sorted(repositories)),
            query.artifacts,
            query.companions,
            query.larger,
            query.smaller,
            query.before_ns,
            query.since_ns,
        )

    # What is found

    def find(self, query: Query) -> Iterator[Found]:
        """By directory, then by name; by a digest or a property, in the order of inode numbers. Not what lies
        in the trash, unless that is asked for. `query.duplicates` is for `duplicates`."""
        wanted = self._wanted(query)
        source = self.source(query)
        match source.kind:
            case "digest":
                candidates = self._by_digest(wanted)
            case "property":
                candidates = self._by_property(wanted)
            case "module":
                candidates = self._in_directories(self._module_directories(wanted), wanted)
            case _:
                candidates = self._in_directories(self._below(source.directories, query.trash), wanted)
        return self._filtered(candidates, query, wanted)

    def duplicates(self, query: Query) -> Iterator[Duplicate]:
        """Of what is found, the contents that have several names; the oldest first."""
        wanted = self._wanted(query)
        last = 0
        while contents := self._searches.shared_contents(last, PART):
            known = {content.id: content for content in contents}
            inos = self._searches.inodes_of_blobs(known)
            candidates = self._filtered(self._of_inodes(inos, wanted), query, wanted)
            for blob, group in itertools.groupby(candidates, lambda each: each.file.blob_id or 0):
                found = list(group)
                if len(found) > 1 and blob in known:
                    yield Duplicate(known[blob], found)
            last = contents[-1].id

    def _filtered(
        self, candidates: Iterator[tuple[bytes, FileRow, ArtifactRow | None]], query: Query, wanted: Wanted
    ) -> Iterator[Found]:
        used_since = self.access_times() if query.unused_ns is not None else {}
        newest = None if query.keep is None else Newest(self, self._searches, query, wanted)
        for directory, file, artifact in candidates:
            found = Found(directory + file.name, file, artifact, self._is_snapshot(artifact))
            if not directory.startswith(query.below):
                continue
            if not query.trash and directory.startswith(_TRASHED):
                continue
            if query.snapshot not in (None, found.snapshot):
                continue
            if not all(pattern.fits(file.name) for pattern in query.names):
                continue
            if not all(pattern.fits(found.path) for pattern in query.paths):
                continue
            if query.unused_ns is not None:
                since = used_since.get(found.top)
                if since is None or max(since, file.atime_ns, file.btime_ns) >= query.unused_ns:
                    continue
            if newest is not None and newest.has(found.row):
                continue
            yield found

    def _is_snapshot(self, row: ArtifactRow | None) -> bool:
        if row is None:
            return False
        return bool(row.snapshot) or self.order(row.repository).integration(row.revision)

    # Candidates: the directory's path, and the rows

    def _by_digest(self, wanted: Wanted) -> Iterator[tuple[bytes, FileRow, ArtifactRow | None]]:
        digests = [each for each in wanted.digests if not (each.negated or each.empty)]
        digest = max(digests, key=lambda each: (each.low == each.high, each.algorithm == BLAKE3))
        last, parts = Digested(b"", 0), _parts()
        while contents := self._searches.contents(digest, last, next(parts)):
            for _, blob in contents:
                yield from self._of_blob(blob, wanted)
            last = contents[-1]

    def _of_blob(self, blob: int, wanted: Wanted) -> Iterator[tuple[bytes, FileRow, ArtifactRow | None]]:
        last, parts = 0, _parts()
        while inos := self._searches.inodes_of_blob(blob, last, next(parts)):
            yield from self._of_inodes(inos, wanted)
            last = inos[-1]

    def _by_property(self, wanted: Wanted) -> Iterator[tuple[bytes, FileRow, ArtifactRow | None]]:
        properties = [each for each in wanted.properties if not each.negated]
        match = min(properties, key=lambda each: self._searches.count_property(each, FEW + 1))
        last, parts = Owner("", 0), _parts()
        while found := self._searches.inodes_with_property(match, last, next(parts)):
            yield from self._of_inodes([ino for _, ino in found], wanted)
            last = found[-1]

    def _of_inodes(
        self, inos: list[int], wanted: Wanted
    ) -> Iterator[tuple[bytes, FileRow, ArtifactRow | None]]:
        for file, artifact in self._searches.of_inodes(inos, wanted):
            path = self._path(file.parent)
            if path is not None:
                yield path, file, artifact

    def _in_directories(
        self, directories: Iterator[tuple[bytes, int]], wanted: Wanted
    ) -> Iterator[tuple[bytes, FileRow, ArtifactRow | None]]:
        for path, directory in directories:
            last = b""
            while hits := self._searches.in_directory(directory, wanted, last, PART):
                for file, artifact in hits:
                    yield path, file, artifact
                if len(hits) < PART:
                    break
                last = hits[-1][0].name

    def _module_directories(self, wanted: Wanted) -> Iterator[tuple[bytes, int]]:
        found = ((self._path(each), each) for each in self._searches.directories(wanted))
        return iter(sorted((path, each) for path, each in found if path is not None))

    def _below(self, tops: tuple[bytes, ...], trash: bool) -> Iterator[tuple[bytes, int]]:
        """Directories, and all that are below them, in the order of their paths."""
        for top in tops:
            ino: int | None = ROOT_INO
            for name in top.split(b"/")[1:-1]:
                ino = None if ino is None else self._dentries.find(ino, name)
            waiting = [] if ino is None else [(top, ino, 0)]
            while waiting:
                path, directory, depth = waiting.pop()
                yield path, directory
                if depth > DEEPEST:
                    continue
                below = [
                    (path + name + b"/", each) for name, each in self._searches.subdirectories(directory)
                ]
                below.sort(reverse=True)
                waiting += [
                    (each, ino, depth + 1) for each, ino in below if trash or not each.startswith(_TRASHED)
                ]

    def _path(self, directory: int) -> bytes | None:
        """From the root, with a slash at both ends; None for one that is not there any more."""
        if len(self._paths) > REMEMBERED:
            self._paths = {ROOT_INO: b"/"}
        way: list[tuple[int, bytes]] = []
        above = directory
        while above not in self._paths:
            names = self._dentries.names_of(above)
            if not names or len(way) > DEEPEST:
                return None
            way.append((above, names[0][1]))
            above = names[0][0]
        path = self._paths[above]
        for ino, name in reversed(way):
            path = None if path is None else path + name + b"/"
            self._paths[ino] = path
        return path


_TRASHED = b"/" + CASFS + b"/"


def _parts() -> Iterator[int]:
    """How much to ask for at a time: little at first, since maybe no more is looked at."""
    part = FIRST_PART
    while True:
        yield min(part, PART)
        part *= 4


class Newest:
    """The newest revisions of each module in a repository: `query.keep` of them."""

    def __init__(self, search: Search, searches: Searches, query: Query, wanted: Wanted) -> None:
        self._order = search.order
        self._revisions = searches.revisions
        self._wanted = wanted
        self._snapshot = query.snapshot
        self._keep = query.keep or 0
        self._oldest: dict[tuple[int, str, str], Key | None] = {}

    def has(self, row: ArtifactRow) -> bool:
        """Is its revision one of them? One that has only what accompanies artifacts does not count, and
        is one of them where it is newer than the oldest."""
        if not self._keep:
            return False
        module = row.repository, row.organisation, row.module
        order = self._order(row.repository)
        if module not in self._oldest:
            if len(self._oldest) >= REMEMBERED:
                self._oldest.clear()
            self._oldest[module] = self._find(module, order)
        oldest = self._oldest[module]
        return oldest is None or order.key(row.revision) >= oldest

    def _find(self, module: tuple[int, str, str], order: Order) -> Key | None:
        """The oldest of them; None where there are no others."""
        kind = self._snapshot
        keys = [
            order.key(each.revision)
            for each in self._revisions(*module, self._wanted)
            if kind is None or kind == (bool(each.snapshot) or order.integration(each.revision))
        ]
        return sorted(keys, reverse=True)[self._keep - 1] if len(keys) >= self._keep else None


def layouts_by_repository(namespace: Namespace) -> dict[int, Layout]:
    """Of the repositories that have one, by inode number."""
    rows = namespace.repositories
    stored, _ = layouts_of(rows.layouts())
    layouts = {}
    for row in rows.all():
        with contextlib.suppress(CasfsError):  # fsck tells of it
            if row.layout is not None:
                layouts[row.ino] = stored.get(row.layout) or builtin(row.layout)
    return layouts


@contextlib.contextmanager
def searching(store: str) -> Iterator[Search]:
    """Raises as `Store` does."""
    follow_all(store)
    with contextlib.closing(Store(store, readonly=True)) as opened:
        yield Search(opened.namespace)


def follow_all(store: str) -> None:
    """Of a store that nobody uses: have the rows be true that were still to be followed when its last user
    was killed. Raises as `Store` does."""
    with contextlib.closing(Store(store, readonly=True)) as opened:
        rows = opened.namespace.repositories
        if not rows.to_follow() and not rows.noted():
            return
    with contextlib.suppress(StoreLocked), offline.opened(store):
        return


def latest(search: Search, query: Query) -> list[Found]:
    """The files of the newest revision of one module, in the order of its layout. Raises NothingFound,
    UsageError where repositories sort its revisions in different ways."""
    files = list(search.find(query))
    orders = {search.order(found.row.repository).name for found in files}
    if len(orders) > 1:
        names = sorted({printable(found.top) for found in files})
        raise UsageError(
            f"{', '.join(names)} sort revisions in different ways ({', '.join(sorted(orders))})",
            "say which one is meant, by --repo",
        )
    if not files:
        what = "no release" if query.snapshot is False else "nothing"
        raise NothingFound(f"there is {what} of {':'.join(token.value for token in query.tokens)}")
    order = ORDERS[orders.pop()]
    newest = max((found.row.revision for found in files), key=order.key)
    return [found for found in files if found.row.revision == newest]
