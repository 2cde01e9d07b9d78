"""What fsck can find: each kind of problem with its severity, the invariant it breaks, and its repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from casfs.namespace.checks import Affected
from casfs.namespace.digests import DigestRow

LISTED = 100
"""Problems of one kind that are told one by one; the rest are counted."""

PATHS = 20
"""Paths that are told of one problem; the rest are counted."""


class Severity(StrEnum):
    """An error breaks an invariant. Garbage is what a crash may leave (I3). A note needs nothing done."""

    ERROR = "error"
    GARBAGE = "garbage"
    NOTE = "note"


_ERROR, _GARBAGE, _NOTE = Severity.ERROR, Severity.GARBAGE, Severity.NOTE
_LEFT = "none: the file stays and reading it gives EIO, until it is removed or written anew"

_ANEW = "all views and virtual repositories are made anew; empty directories made there by programs are lost"

_COMPUTED = "removed; 'casfs digests --run' computes it, if it is wanted"


class Kind(Enum):
    """slug, severity, invariant, what repair does."""

    DATABASE = (
        "database",
        _ERROR,
        "",
        "the indexes are built anew; if more than those is damaged, the store has to come from a backup",
    )
    COUNTER = ("counter", _ERROR, "I7", "set above the highest number in use")
    HUGE_NUMBER = ("huge-number", _ERROR, "I7", "gets another one")
    BAD_VALUE = ("bad-value", _ERROR, "", "brought into the range that there is")
    ROOT = ("root", _ERROR, "", "made anew, owned by who owns the store")

    BAD_NAME = ("bad-name", _ERROR, "", "renamed in its directory")
    BAD_COOKIE = ("bad-cookie", _ERROR, "", "gets a new cookie")
    DANGLING_NAME = (
        "dangling-name",
        _ERROR,
        "",
        "removed; a directory whose entries are still there is made anew under it",
    )
    WRONG_TYPE = ("wrong-type", _ERROR, "", "the name takes the type of its inode")
    LOST_ENTRIES = ("lost-entries", _ERROR, "", "they go to a directory in lost+found")
    MANY_NAMES = ("many-names", _ERROR, "", "the oldest name that leads there from the root stays")
    LOOP = ("loop", _ERROR, "", "the oldest directory of the loop goes to lost+found")
    NAMELESS = ("nameless", _ERROR, "", "gets a name in lost+found")
    WRONG_LINKS = ("wrong-links", _ERROR, "", "recounted")
    UNLINKED = ("unlinked", _NOTE, "", "removed, as at the next start")
    STRAY_XATTR = ("stray-xattr", _GARBAGE, "", "removed")
    MISSING_PROPERTY = ("missing-property", _ERROR, "", "written anew, from the attribute")
    WRONG_PROPERTY = ("wrong-property", _ERROR, "", "removed: the attribute says what there is")
    STRAY_TRASH = ("stray-trash", _ERROR, "", "the row is removed")
    STRAY_LOCK = ("stray-lock", _GARBAGE, "", "the row is removed")
    UNTOLD_TRASH = (
        "untold-trash",
        _ERROR,
        "",
        "counts as removed now, from where its path in the trash says",
    )

    STRAY_REPOSITORY = (
        "stray-repository",
        _ERROR,
        "",
        "the row is removed: what is there is a plain directory",
    )
    BAD_REPOSITORY = ("bad-repository", _ERROR, "", "becomes a local one, or gets the usual rules")
    BAD_LAYOUT = ("bad-layout", _ERROR, "", "removed; its repositories have no layout then")
    LOST_LAYOUT = ("lost-layout", _ERROR, "", "the repository has none then")
    STRAY_MEMBER = ("stray-member", _ERROR, "", "the row is removed")
    MEMBER_LOOP = ("member-loop", _ERROR, "", "the last one of them does not show the first one any more")
    STRAY_FOLLOW = ("stray-follow", _GARBAGE, "", "removed")
    WRONG_ARTIFACT = ("wrong-artifact", _ERROR, "", "written anew")
    MISSING_ARTIFACT = ("missing-artifact", _ERROR, "", "written anew")
    WRONG_DERIVED = ("wrong-derived", _ERROR, "", _ANEW)
    MISSING_DERIVED = ("missing-derived", _ERROR, "", _ANEW)
    STRAY_KEPT = ("stray-kept", _GARBAGE, "", "removed")

    BAD_MODE = ("bad-mode", _ERROR, "", "the type is told from what belongs to the inode")
    STRAY_CONTENT = ("stray-content", _ERROR, "", "becomes a file in lost+found")
    LOST_TARGET = ("lost-target", _ERROR, "", "none: the symbolic link stays until it is removed")
    LOST_CONTENT = ("lost-content", _ERROR, "I1", _LEFT)
    WRONG_SIZE = ("wrong-size", _ERROR, "", "the size of the content is taken")
    MISSING_STAGED = ("missing-staged", _ERROR, "I5", _LEFT)
    SHORT_STAGED = ("short-staged", _NOTE, "I5", "the size of what is there is taken, as at the next start")
    BAD_STAGED_NAME = ("bad-staged-name", _ERROR, "I9", "the row gives it up; the file has lost its content")
    STRAY_STAGED = ("stray-staged", _GARBAGE, "", "removed, as at the next start")

    WRONG_REFS = ("wrong-refs", _ERROR, "I4", "recounted")
    WRONG_ORPHANED = ("wrong-orphaned", _ERROR, "I4", "set to now for an orphan, else to nothing")
    BAD_DIGEST = ("bad-digest", _ERROR, "", "the row of an orphan is removed; else none")
    BAD_FURTHER_DIGEST = ("bad-further-digest", _ERROR, "", _COMPUTED)
    STRAY_FURTHER_DIGEST = ("stray-further-digest", _GARBAGE, "", "removed")
    WRONG_FURTHER_DIGEST = ("wrong-further-digest", _ERROR, "", "gets the value of the bytes")
    MISSING_BLOB = (
        "missing-blob",
        _ERROR,
        "I1",
        "the row of an orphan is removed; else none: reading gives EIO until it is written again or healed",
    )
    BLOB_SIZE = (
        "blob-size",
        _ERROR,
        "I2",
        "its bytes are hashed: right, and the row takes their size; wrong, and it goes to quarantine/",
    )
    CORRUPT_BLOB = (
        "corrupt-blob",
        _ERROR,
        "I2",
        "the file goes to quarantine/; reading gives EIO until it is written again or healed",
    )
    BLOB_MODE = ("blob-mode", _ERROR, "I2", "made read-only for the owner")
    MISPLACED_BLOB = ("misplaced-blob", _ERROR, "", "goes to its shard if it is whole, else to quarantine/")
    STRAY_BLOB = (
        "stray-blob",
        _GARBAGE,
        "I3",
        "becomes a file in lost+found if it is whole, goes to quarantine/ if not, is removed if it is empty",
    )
    HEALED_DAMAGE = (
        "healed-damage",
        _NOTE,
        "",
        "its bytes are hashed: right, and the note of its damage goes; wrong, and it goes to quarantine/",
    )
    STRAY_DAMAGE = ("stray-damage", _GARBAGE, "", "removed")
    STRAY_PIN = ("stray-pin", _GARBAGE, "", "removed")
    BAD_SNAPSHOT = ("bad-snapshot", _ERROR, "", "none: casfs snapshot rm removes it")
    LOST_HELD = (
        "lost-held",
        _ERROR,
        "I1",
        "gets its row again where its file is whole; else none until it is there again",
    )
    LEFT_SNAPSHOT = ("left-snapshot", _GARBAGE, "", "removed")
    FOREIGN_FILE = ("foreign-file", _GARBAGE, "", "goes to quarantine/")
    MISSING_FOLDER = ("missing-folder", _ERROR, "", "made anew, empty")
    RUN_FILE = ("run-file", _ERROR, "I9", "none: remove it when nothing uses the store")
    PERMISSIONS = ("permissions", _ERROR, "", "taken from everybody but the owner")

    def __init__(self, slug: str, severity: Severity, invariant: str, repair: str) -> None:
        self.slug = slug
        self.severity = severity
        self.invariant = invariant
        self.repair = repair


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or of no use any more, or worth knowing.

    `paths`: names in the namespace it touches, from its root; the first ones of `paths_total`. One that no
    directory leads to begins with `(inode N)`. `count`: more than 1 for the one that stands for those of its
    kind that are not told one by one.
    """

    kind: str
    severity: Severity
    invariant: str
    detail: str
    paths: tuple[bytes, ...]
    paths_total: int
    repair: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What a check has found.

    `in_use`: who has the store, None when nobody has. `unchecked`: what could not be checked, and why.
    `corrupt`: digests of the blobs whose bytes are others, all of them. `digests`: further digests that are
    wrong, with their right values, all of them.
    """

    store: str
    deep: bool
    in_use: str | None
    problems: tuple[Problem, ...]
    unchecked: tuple[str, ...]
    corrupt: tuple[bytes, ...]
    digests: tuple[DigestRow, ...] = ()

    @property
    def errors(self) -> int:
        return sum(each.count for each in self.problems if each.severity is Severity.ERROR)

    @property
    def clean(self) -> bool:
        """No invariant is broken; there may be garbage."""
        return not self.errors


class Findings:
    """Collects problems; of a kind that is found very often, the first ones and a count."""

    def __init__(self) -> None:
        self._problems: dict[Kind, list[Problem]] = {}
        self._more: Counter[Kind] = Counter()
        self.unchecked: list[str] = []
        self.corrupt: list[bytes] = []
        self.digests: list[DigestRow] = []

    def add(self, kind: Kind, detail: str, affected: Callable[..., Affected] = Affected, *of: Any) -> None:
        """`affected(*of)` gives the paths; it is only asked for a problem that is told."""
        listed = self._problems.setdefault(kind, [])
        if len(listed) < LISTED:
            listed.append(_problem(kind, detail, affected(*of)))
        else:
            self._more[kind] += 1

    def report(self, store: str, *, deep: bool, in_use: str | None) -> Report:
        problems = []
        for kind in Kind:
            problems += self._problems.get(kind, [])
            if self._more[kind]:
                more = self._more[kind]
                problems.append(_problem(kind, f"{more} more of this kind", Affected(), more))
        return Report(
            store,
            deep,
            in_use,
            tuple(problems),
            tuple(self.unchecked),
            tuple(self.corrupt),
            tuple(self.digests),
        )


def _problem(kind: Kind, detail: str, affected: Affected, count: int = 1) -> Problem:
    return Problem(kind.slug, kind.severity, kind.invariant, detail, *affected, kind.repair, count)
