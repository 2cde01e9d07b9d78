"""fsck of repositories, layouts, and the rows that follow from names: told as problems, and mended.

Rows that follow from names are the only copy of nothing: they are computed anew from names and layouts, and
compared; a repair has the file system write them again, as after any change (repositories/following.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from casfs.errors import CasfsError
from casfs.fs.places import ACCESS_LIMIT, DEEPEST, LONGEST
from casfs.layouts.builtin import builtin
from casfs.layouts.layout import Layout
from casfs.maintenance.check.problems import PATHS, Findings, Kind
from casfs.namespace.checks import Affected, Checks
from casfs.namespace.namespace import Namespace
from casfs.namespace.repository_checks import RepositoryChecks, RepositoryRepairs
from casfs.repositories import rules
from casfs.repositories.damaged import circles, layouts_of
from casfs.repositories.following import artifact_row
from casfs.repositories.registry import RepositoryKind
from casfs.types import ROOT_INO


class RowFault(NamedTuple):
    """A row of `artifact`, or one that is missing, of a name."""

    parent: int
    name: bytes
    is_missing: bool
    detail: str


class RepositoryScan:
    """What the rows say, as far as it can be meant.

    `layouts`: by the number of the repository; `unjudged`: directories below which nothing is said of rows
    that follow from names, since they are still to be followed, or nobody knows how; `noted`: such names.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.rows = namespace.repositories
        self.checks = RepositoryChecks(namespace)
        self.stored, self.bad_layouts = layouts_of(self.rows.layouts())
        self.unjudged = self.checks.followed()
        self.noted = self.checks.noted()
        self.layouts: dict[int, Layout] = {}
        self.bad_kinds: dict[int, str] = {}
        self.bad_rules: dict[int, str] = {}
        self.lost_layouts: dict[int, str] = {}
        members: dict[int, list[int]] = {}
        for member in self.rows.members():
            members.setdefault(member.repository, []).append(member.member)
        self.circles = circles(members)
        self._read()

    def _read(self) -> None:
        for row in self.rows.all():
            layout = None
            try:
                if row.layout is not None:
                    layout = self.stored.get(row.layout) or builtin(row.layout)
            except CasfsError:
                if row.layout not in self.bad_layouts:
                    self.lost_layouts[row.ino] = row.layout or ""
                self.unjudged.add(row.ino)
            try:
                rules.decode(row.rules)
            except CasfsError as error:
                self.bad_rules[row.ino] = error.message
                self.unjudged.add(row.ino)
            if row.kind not in {kind.value for kind in RepositoryKind}:
                self.bad_kinds[row.ino] = row.kind
                self.unjudged.add(row.ino)
            if layout is not None:
                self.layouts[row.ino] = layout
        for circle in self.circles:
            self.unjudged.update(circle)

    @property
    def is_damaged(self) -> bool:
        """Is there anything from which nothing follows until it is mended?"""
        return bool(
            self.bad_layouts
            or self.bad_kinds
            or self.bad_rules
            or self.lost_layouts
            or self.circles
            or self.checks.stray_repositories()
            or self.checks.stray_members()
            or self.checks.stray_deploys()
        )

    # Rows that follow from names

    def row_faults(self) -> Iterator[RowFault]:
        """Raises DatabaseError."""
        return (fault for fault in self._row_faults() if (fault.parent, fault.name) not in self.noted)

    def _row_faults(self) -> Iterator[RowFault]:
        for parent, name in self.checks.stray_artifacts():
            yield RowFault(parent, name, False, "it stands for no file")
        judged: set[int] = set()
        for repository, layout in self.layouts.items():
            yield from self._below(repository, layout, judged)
        excused: dict[int, bool] = {}
        for directory in self.checks.artifact_directories():
            if directory not in judged and not self.is_excused(directory, excused):
                for name in self.checks.artifacts_in(directory):
                    yield RowFault(directory, name, False, "it lies in no repository whose layout says that")

    def _below(self, repository: int, layout: Layout, judged: set[int]) -> Iterator[RowFault]:
        top = self.checks.name_of(repository)
        if top is None or top[0] != ROOT_INO:
            return
        todo = [(repository, b"", len(top[1]) + 1, 1, 0)]
        while todo:
            directory, path, length, depth, access = todo.pop()
            if directory in self.unjudged or directory in judged:
                continue
            access += self.checks.access_bytes(directory)
            if depth > DEEPEST or length > LONGEST or access > ACCESS_LIMIT:
                self.unjudged.add(directory)  # it has a place, or had one, or will have one (fs/places.py)
                continue
            judged.add(directory)
            for name, row in self.checks.files(directory):
                found = layout.parse(path + name)
                expected = found and artifact_row(directory, name, repository, found)
                if row == expected:
                    continue
                if row is None:
                    what = "there is none"
                else:
                    what = "it is another one" if found else "the layout has no such path"
                yield RowFault(directory, name, row is None, what)
            for ino, name in self.checks.directories(directory):
                todo.append((ino, path + name + b"/", length + len(name) + 1, depth + 1, access))

    def is_excused(self, directory: int, known: dict[int, bool]) -> bool:
        """Does it lie in a directory of `unjudged`?"""
        way: list[int] = []
        above: int | None = directory
        while above is not None and above not in known and above not in self.unjudged:
            known[above] = False  # ends, too, where rows lead round in a circle
            way.append(above)
            name = self.checks.name_of(above)
            above = None if name is None else name[0]
        excused = above is not None and (known.get(above, False) or above in self.unjudged)
        known.update(dict.fromkeys(way, excused))
        return excused


def check_repositories(namespace: Namespace, checks: Checks, findings: Findings) -> None:
    """Inside a snapshot. Raises DatabaseError."""
    scan = RepositoryScan(namespace)
    paths = checks.paths_of_inode
    for ino in scan.checks.stray_repositories():
        detail = f"inode {ino} is a repository by its row, and no directory in the root"
        findings.add(Kind.STRAY_REPOSITORY, detail, paths, ino, PATHS)
    for name, why in scan.bad_layouts.items():
        findings.add(Kind.BAD_LAYOUT, f"the layout {name!r:.100} cannot be read: {why}")
    for ino, word in scan.bad_kinds.items():
        findings.add(Kind.BAD_REPOSITORY, f"{word!r:.50} is no kind of repository", paths, ino, PATHS)
    for ino, why in scan.bad_rules.items():
        findings.add(Kind.BAD_REPOSITORY, why, paths, ino, PATHS)
    for ino, name in scan.lost_layouts.items():
        findings.add(Kind.LOST_LAYOUT, f"there is no layout {name!r:.100}", paths, ino, PATHS)
    for stray in scan.checks.stray_members():
        detail = f"repository {stray.repository} cannot show {stray.member} (inode numbers)"
        findings.add(Kind.STRAY_MEMBER, detail, paths, stray.repository, PATHS)
    for ino, deploy in scan.checks.stray_deploys():
        detail = f"what is written into repository {ino} would go to {deploy} (inode numbers), which is none"
        findings.add(Kind.STRAY_MEMBER, detail, paths, ino, PATHS)
    for circle in scan.circles:
        what = (
            f"{len(circle)} repositories show each other" if len(circle) > 1 else "a repository shows itself"
        )
        detail = f"{what}, by way of their members"
        findings.add(Kind.MEMBER_LOOP, detail, paths, circle[0], PATHS)
    for ino in scan.checks.stray_follow():
        findings.add(Kind.STRAY_FOLLOW, f"inode {ino} is to be followed, and no directory")
    for fault in scan.row_faults():
        kind = Kind.MISSING_ARTIFACT if fault.is_missing else Kind.WRONG_ARTIFACT
        findings.add(kind, f"row of what the path of a file says: {fault.detail}", _path, checks, fault)


def mend_repositories(namespace: Namespace) -> None:
    """Inside a write transaction, when names are as they will be. Raises DatabaseError."""
    rows, repairs = namespace.repositories, RepositoryRepairs(namespace)
    scan = RepositoryScan(namespace)
    for ino in scan.checks.stray_repositories():
        rows.remove(ino)
    for name in scan.bad_layouts:
        rows.remove_layout(name)
    for row in rows.all():
        if row.ino in scan.bad_kinds:
            repairs.set_kind(row.ino, RepositoryKind.LOCAL)
        if row.ino in scan.bad_rules:
            repairs.set_rules(row.ino, "{}")
        if row.ino in scan.lost_layouts or row.layout in scan.bad_layouts:
            repairs.take_layout(row.ino)
    for stray in scan.checks.stray_members():
        repairs.remove_member(stray.repository, stray.member)
    for ino, _ in scan.checks.stray_deploys():
        repairs.take_deploy(ino)
    for circle in scan.circles:
        repairs.remove_member(circle[-1], circle[0])
    for ino in scan.checks.stray_follow():
        rows.followed(ino)
    mended = RepositoryScan(namespace)
    if next(mended.row_faults(), None) is not None:
        repairs.forget_artifacts()
        for ino in mended.layouts:
            rows.follow(ino)


def _path(checks: Checks, fault: RowFault) -> Affected:
    return Affected((checks.path(fault.parent, fault.name),), 1)
