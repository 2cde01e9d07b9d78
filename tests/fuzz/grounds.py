"""Where a round takes place: a plain directory, or a repository with a layout and the trees over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LAYOUTS = {
    "fuzzed": "([orgPath]/)[module]-[baseRev]",
    "fuzzed-view": "[module]/([orgPath]/)[module].[baseRev]",
    "fuzzed-other": "([orgPath]/)[module]/[baseRev]_[module]",
}
"""D/a-1 in the repositories is a/D/a.1 in the views, or D/a/1_a."""


class Words(NamedTuple):
    """What is named in a place: `links` are symbolic ones, `.` is the place itself."""

    files: tuple[str, ...]
    directories: tuple[str, ...]
    links: tuple[str, ...]


PLAIN = Words(
    ("a", "b", "c", "d", "e", "D/a", "D/b", "E/a"),
    ("D", "E", "D/F", "."),
    ("S", "D/S", "a"),
)

ARTIFACTS = Words(
    ("a-1", "b-1", "b-2", "c-1", "d", "D/a-1", "D/b-1", "E/a-1", "D/F/a-1"),
    ("D", "E", "D/F", "."),
    ("S", "D/S", "a-1"),
)
"""All but one are artifacts."""

VIEWED = Words(
    ("a/a.1", "b/b.1", "b/b.2", "c", "d", "a/D/a.1", "b/D/b.1", "a/E/a.1", "a/D/F/a.1", "a/kept"),
    ("a", "b", "a/D", "b/D", "a/E", "a/D/F", "."),
    ("S", "a/S", "a/a.1"),
)
"""As a view shows them, and some that no layout knows, which are kept."""

WORDS = {"plain": PLAIN, "artifacts": ARTIFACTS, "viewed": VIEWED}

SHOW_OTHERS = ("-both", "-far")
"""Ends of the names of what shows a repository that is not written to."""

Command = Callable[..., object]
"""Has casfs do something, which has to succeed."""


class Place(NamedTuple):
    """A directory that requests are made in. `words`: of WORDS. `is_tree`: its names are derived ones."""

    path: Path
    words: str
    is_tree: bool = False


class Ground(NamedTuple):
    """`places`: where requests are made; `tops`: the directories of the root that it is made of, those that
    show others first."""

    places: tuple[Place, ...]
    tops: tuple[Path, ...]

    @property
    def names(self) -> set[str]:
        """Single names that may be anywhere in it."""
        return {
            part
            for place in self.places
            for each in (*WORDS[place.words].files, *WORDS[place.words].directories)
            for part in each.split("/")
            if part != "."
        }

    @property
    def trees(self) -> tuple[Path, ...]:
        """Views and virtual repositories."""
        return self.tops[:-2]

    @property
    def has_trees(self) -> bool:
        return len(self.tops) > 1


def add_layouts(store: Path, command: Command) -> None:
    for name, pattern in LAYOUTS.items():
        command("layout", "add", store, name, "--artifact", pattern, "--role", "org=")


def plain(path: Path) -> Ground:
    path.mkdir()
    path.chmod(0o777)
    return Ground((Place(path, "plain"),), (path,))


def repositories(store: Path, path: Path, command: Command) -> Ground:
    """A repository with a layout, one without; both as one; and views of the first one, and of both."""
    libs, more, both, view, far = (
        path.with_name(f"{path.name}-{name}") for name in ("libs", "more", "both", "view", "far")
    )
    for directory, words in (
        (libs, ("--layout", "fuzzed", "--digests", "sha256,md5")),
        (more, ("--layout", "fuzzed")),
        (both, ("--virtual", f"{libs.name},{more.name}", "--deploy", libs.name)),
        (view, ("--view", libs.name, "--layout", "fuzzed-view")),
        (far, ("--view", both.name, "--layout", "fuzzed-view")),
    ):
        command("repo", "create", store, directory.name, *words)
        directory.chmod(0o777)
    places = (
        Place(libs, "artifacts"),
        Place(both, "artifacts", is_tree=True),
        Place(view, "viewed", is_tree=True),
        Place(far, "viewed", is_tree=True),
    )
    return Ground(places, (far, view, both, libs, more))


def remove(ground: Ground, store: Path, command: Command) -> None:
    if ground.has_trees:
        command("repo", "rm", store, *(tree.name for tree in ground.trees))
    for top in ground.tops:
        if top not in ground.trees:
            shutil.rmtree(top)
