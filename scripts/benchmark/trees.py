"""Workloads on large directories and on trees, most of them by the programs people use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from . import trial as material
from .trial import Trial, count_files, expect, expect_names, spawn
from .workload import AS_BINDFS, READY, TWICE_BINDFS, Drop, Steps, workload


def list_and_stat() -> int:
    """The number of entries; stats each."""
    with os.scandir() as listing:
        return len([entry.stat(follow_symlinks=False) for entry in listing])


@workload("entries", Drop.INODES, goal=AS_BINDFS)
def readdir_stat_cold(trial: Trial) -> Steps:
    """list a directory of 10,000 entries and stat each, nothing cached"""
    os.chdir(trial.fixture("entries", material.entries))
    yield READY
    seen = list_and_stat()
    yield seen
    expect(seen == trial.count(10_000), f"{seen} entries listed")


@workload("entries")
def readdir_stat_warm(trial: Trial) -> Steps:
    """list a directory of 10,000 entries and stat each, warm, again and again"""
    os.chdir(trial.fixture("entries", material.entries))
    list_and_stat()
    yield READY
    yield trial.repeated(list_and_stat)


def enter_library(trial: Trial) -> int:
    os.chdir(trial.fixture("library", material.library))
    return sum(len(folders) + len(files) for _, folders, files in os.walk("."))


def run_on(entries: int, *command: str) -> Callable[[], int]:
    """Runs the program when called, on as many entries."""

    def run() -> int:
        spawn(*command)
        return entries

    return run


@workload("entries", Drop.INODES, goal=AS_BINDFS)
def find(trial: Trial) -> Steps:
    """find -type f in a tree of 5,000 files, nothing cached"""
    entries = enter_library(trial)
    yield READY
    spawn("find", ".", "-type", "f")
    yield entries


@workload("entries")
def find_warm(trial: Trial) -> Steps:
    """find -type f in a tree of 5,000 files, warm, again and again"""
    find_all = run_on(enter_library(trial), "find", ".", "-type", "f")
    find_all()
    yield READY
    yield trial.repeated(find_all)


@workload("entries", Drop.INODES, goal=AS_BINDFS)
def du(trial: Trial) -> Steps:
    """du -s of a tree of 5,000 files, nothing cached"""
    entries = enter_library(trial)
    yield READY
    spawn("du", "-s", ".")
    yield entries


@workload("entries")
def du_warm(trial: Trial) -> Steps:
    """du -s of a tree of 5,000 files, warm, again and again"""
    du_all = run_on(enter_library(trial), "du", "-s", ".")
    du_all()
    yield READY
    yield trial.repeated(du_all)


def read_tree(top: str) -> dict[str, bytes]:
    """The contents of all files by path."""
    paths = [Path(folder, file) for folder, _, files in os.walk(top) for file in files]
    return {str(path.relative_to(top)): path.read_bytes() for path in paths}


@workload("files", goal=TWICE_BINDFS)
def cp_tree(trial: Trial) -> Steps:
    """cp -r of a tree of 2,000 small files that were read before"""
    source = trial.fixture("tree", material.tree)
    contents = read_tree(source)
    yield READY
    spawn("cp", "-r", source, "copy")
    yield len(contents)
    expect(read_tree("copy") == contents, "the copy differs from the tree")


@workload("files", goal=AS_BINDFS)
def untar(trial: Trial) -> Steps:
    """unpack a tar of 5,000 files of the Python library, each with new content"""
    archive, files = material.library_archive(trial)
    yield READY
    spawn("tar", "-xf", archive)
    yield files
    expect(count_files(".") == files, "not all files were unpacked")


def unpack(trial: Trial) -> int:
    """Unpacks the library into `tree`; the number of files."""
    archive, files = material.library_archive(trial)
    os.mkdir("tree")
    spawn("tar", "-xf", archive, "-C", "tree")
    return files


@workload("files", goal=AS_BINDFS)
def rm_rf(trial: Trial) -> Steps:
    """rm -rf of the unpacked tree of 5,000 files"""
    files = unpack(trial)
    yield READY
    spawn("rm", "-rf", "tree")
    yield files
    expect_names([])


@workload("files", at_rest=False, goal=AS_BINDFS)
def rm_rf_fresh(trial: Trial) -> Steps:
    """rm -rf of a tree of 5,000 files that was just unpacked and is not on disk yet"""
    files = unpack(trial)
    yield READY
    spawn("rm", "-rf", "tree")
    yield files
    expect_names([])


@workload("files", goal=AS_BINDFS)
def git_clone(trial: Trial) -> Steps:
    """git clone of a bundle with 3,000 files of new content"""
    bundle, files = material.git_bundle(trial)
    yield READY
    spawn("git", "clone", "--quiet", bundle, "clone")
    yield files
    expect(count_files("clone") - count_files("clone/.git") == files, "not all files were checked out")


@workload("files", goal=AS_BINDFS)
def git_status(trial: Trial) -> Steps:
    """git status in a work tree of 3,000 files, warm, again and again"""
    os.chdir(trial.fixture("clone", material.clone))
    status = run_on(trial.count(material.GIT_FILES), "git", "-C", "clone", "status")
    status()
    yield READY
    yield trial.repeated(status)


@workload("files", Drop.INODES)
def git_status_cold(trial: Trial) -> Steps:
    """git status in a work tree of 3,000 files, nothing cached"""
    os.chdir(trial.fixture("clone", material.clone))
    yield READY
    spawn("git", "-C", "clone", "status")
    yield trial.count(material.GIT_FILES)
