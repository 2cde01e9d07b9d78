"""Workloads in repositories with a layout, in views and in virtual repositories.

They are made where the bench has set up casfs. Elsewhere a plain directory stands for each of them, which is
what they are compared with there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from . import trial as material
from .probing import client_process, stop
from .small_files import open_read_close_all
from .trial import ARTIFACTS, Trial, count_files, create_files, expect, expect_contents, spawn
from .workload import READY, Drop, Goal, Steps, workload

LAYOUT = "maven-2-default"
OTHER_LAYOUT = "gradle-default"  # with as many directories, so that listing it is as much work

AS_SOURCE_COLD = {tree: Goal(0.95, workload=f"repo_{tree}_source") for tree in ("find", "read")}
AS_SOURCE_WARM = {tree: Goal(0.95, workload=f"repo_{tree}_source_warm") for tree in ("find", "read")}


@contextlib.contextmanager
def trees_over(trial: Trial, name: str) -> Iterator[list[str]]:
    """The paths of a view and of a virtual repository over a directory of the root, which gets a layout.

    Elsewhere there are none.
    """
    if not trial.repositories:
        yield []
        return
    view, virtual = f"{name}-view", f"{name}-virtual"
    trial.repository("set", name, "--layout", LAYOUT)
    trial.repository("create", view, "--view", name, "--layout", OTHER_LAYOUT)
    trial.repository("create", virtual, "--virtual", name)
    try:
        yield [f"{trial.root}/{view}", f"{trial.root}/{virtual}"]
    finally:
        trial.repository("rm", view, virtual)
        trial.repository("set", name, "--no-layout")


def create_artifacts(trial: Trial, trees: list[str]) -> Steps:
    """Create artifacts in the working directory, until each of the trees shows all of them."""
    paths = material.artifact_paths(trial.count(ARTIFACTS))
    material.make_folders(paths)
    contents = trial.contents(len(paths))
    yield READY
    create_files(paths, contents)
    for tree in trees:
        os.listdir(tree)  # waits for what has to follow
    yield len(paths)
    expect_contents(paths, contents)
    for tree in trees:
        expect(count_files(tree) == len(paths), f"{tree} does not show all files")


@workload("files", slow=True)
def repo_create_plain(trial: Trial) -> Steps:
    """create 2,000 artifacts of 4 KiB in a directory without a layout"""
    yield from create_artifacts(trial, [])


@workload("files", slow=True, goal=Goal(0.9, workload="repo_create_plain"))
def repo_create_layout(trial: Trial) -> Steps:
    """create 2,000 artifacts of 4 KiB in a repository with a layout"""
    if trial.repositories:
        trial.repository("set", os.path.basename(os.getcwd()), "--layout", LAYOUT)
    yield from create_artifacts(trial, [])


@workload("files", slow=True, goal=Goal(0.7, workload="repo_create_plain"))
def repo_create_trees(trial: Trial) -> Steps:
    """the same, and a view and a virtual repository show it, until both have followed"""
    with trees_over(trial, os.path.basename(os.getcwd())) as trees:
        yield from create_artifacts(trial, trees)


def looking() -> Iterator[None]:
    """Who walks the working directory again and again, a folder at each step."""
    while True:
        for folder, _, files in os.walk("."):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    os.stat(f"{folder}/{name}")
            yield


def create_while_looking(trial: Trial, trees: list[str], looked_at: str) -> Steps:
    """As `create_artifacts`, while another process looks."""
    steps = create_artifacts(trial, trees)
    yield next(steps)
    with client_process(looked_at, "looking", looking) as control:
        yield next(steps)
        stop("looking", control)
    yield from steps


@workload("files", slow=True)
def repo_create_watched_plain(trial: Trial) -> Steps:
    """create 2,000 artifacts of 4 KiB while another process walks the directory"""
    yield from create_while_looking(trial, [], ".")


@workload("files", slow=True, goal=Goal(0.7, workload="repo_create_watched_plain"))
def repo_create_watched_trees(trial: Trial) -> Steps:
    """the same in a repository that a view and a virtual repository show, and the view is walked"""
    with trees_over(trial, os.path.basename(os.getcwd())) as trees:
        yield from create_while_looking(trial, trees, trees[0] if trees else ".")


def remove_all(trial: Trial, trees: list[str]) -> Steps:
    """rm -r of what the kernel remembers everywhere, until the trees are empty."""
    paths = material.artifact_paths(trial.count(ARTIFACTS))
    material.make_folders(paths)
    create_files(paths, trial.contents(len(paths)))
    for place in (".", *trees):
        expect(count_files(place) == len(paths), f"{place} does not show all files")
    yield READY
    spawn("rm", "-r", *sorted({path.split("/")[0] for path in paths}))
    for tree in trees:
        expect(os.listdir(tree) == [], f"{tree} still shows something")
    yield len(paths)


@workload("files", slow=True)
def repo_rm_plain(trial: Trial) -> Steps:
    """rm -r of 2,000 artifacts that were listed before, in a directory without a layout"""
    yield from remove_all(trial, [])


@workload("files", slow=True, goal=Goal(0.7, workload="repo_rm_plain"))
def repo_rm_trees(trial: Trial) -> Steps:
    """the same in a repository that a view and a virtual repository show, which were listed too"""
    with trees_over(trial, os.path.basename(os.getcwd())) as trees:
        yield from remove_all(trial, trees)


# Listing and reading -------------------------------------------------------------------------------------


def enter(trial: Trial, tree: str) -> list[str]:
    """Go to the repository, or to a tree over it, which is made the first time; its files."""
    source = trial.fixture("artifacts", material.artifacts)
    name, place = os.path.basename(source), source
    if trial.repositories and tree != "source":
        place = f"{source}-{tree}"
        if not os.path.isdir(place):
            trial.repository("set", name, "--layout", LAYOUT)
            shows = ("--view", name, "--layout", OTHER_LAYOUT) if tree == "view" else ("--virtual", name)
            trial.repository("create", f"{name}-{tree}", *shows)
    os.chdir(place)
    paths = [f"{folder}/{file}" for folder, _, files in os.walk(".") for file in files]
    expect(len(paths) == trial.count(ARTIFACTS), f"{place} does not show all files")
    return paths


def find_all(files: int) -> int:
    spawn("find", ".", "-type", "f")
    return files


def find_cold(trial: Trial, tree: str) -> Steps:
    files = len(enter(trial, tree))
    yield READY
    yield find_all(files)


def find_warm(trial: Trial, tree: str) -> Steps:
    files = len(enter(trial, tree))
    yield READY
    yield trial.repeated(lambda: find_all(files))


def read_cold(trial: Trial, tree: str) -> Steps:
    paths = enter(trial, tree)
    yield READY
    yield open_read_close_all(paths)


def read_warm(trial: Trial, tree: str) -> Steps:
    paths = enter(trial, tree)
    open_read_close_all(paths)
    yield READY
    yield trial.repeated(lambda: open_read_close_all(paths))


@workload("files", Drop.INODES, slow=True)
def repo_find_source(trial: Trial) -> Steps:
    """find -type f in a repository of 2,000 artifacts, nothing cached"""
    yield from find_cold(trial, "source")


@workload("files", Drop.INODES, slow=True, goal=AS_SOURCE_COLD["find"])
def repo_find_view(trial: Trial) -> Steps:
    """the same through a view in another layout"""
    yield from find_cold(trial, "view")


@workload("files", Drop.INODES, slow=True, goal=AS_SOURCE_COLD["find"])
def repo_find_virtual(trial: Trial) -> Steps:
    """the same through a virtual repository"""
    yield from find_cold(trial, "virtual")


@workload("files", slow=True)
def repo_find_source_warm(trial: Trial) -> Steps:
    """find -type f in a repository of 2,000 artifacts, warm, again and again"""
    yield from find_warm(trial, "source")


@workload("files", slow=True, goal=AS_SOURCE_WARM["find"])
def repo_find_view_warm(trial: Trial) -> Steps:
    """the same through a view in another layout"""
    yield from find_warm(trial, "view")


@workload("files", slow=True, goal=AS_SOURCE_WARM["find"])
def repo_find_virtual_warm(trial: Trial) -> Steps:
    """the same through a virtual repository"""
    yield from find_warm(trial, "virtual")


@workload("files", Drop.ALL, slow=True)
def repo_read_source(trial: Trial) -> Steps:
    """open, read and close 2,000 artifacts, nothing cached"""
    yield from read_cold(trial, "source")


@workload("files", Drop.ALL, slow=True, goal=AS_SOURCE_COLD["read"])
def repo_read_view(trial: Trial) -> Steps:
    """the same through a view in another layout"""
    yield from read_cold(trial, "view")


@workload("files", Drop.ALL, slow=True, goal=AS_SOURCE_COLD["read"])
def repo_read_virtual(trial: Trial) -> Steps:
    """the same through a virtual repository"""
    yield from read_cold(trial, "virtual")


@workload("files", slow=True)
def repo_read_source_warm(trial: Trial) -> Steps:
    """open, read and close 2,000 artifacts that were read before, again and again"""
    yield from read_warm(trial, "source")


@workload("files", slow=True, goal=AS_SOURCE_WARM["read"])
def repo_read_view_warm(trial: Trial) -> Steps:
    """the same through a view in another layout"""
    yield from read_warm(trial, "view")


@workload("files", slow=True, goal=AS_SOURCE_WARM["read"])
def repo_read_virtual_warm(trial: Trial) -> Steps:
    """the same through a virtual repository"""
    yield from read_warm(trial, "virtual")
