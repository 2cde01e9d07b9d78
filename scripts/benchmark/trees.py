"""Workloads on large directories and on trees, most of them by the programs people use."""

from __future__ import annotations

import os

from . import trial as material
from .trial import Trial, spawn
from .workload import Drop, Steps, workload


def list_and_stat(passes: int) -> int:
    seen = 0
    for _ in range(passes):
        with os.scandir() as listing:
            for entry in listing:
                entry.stat(follow_symlinks=False)
                seen += 1
    return seen


@workload("entries", Drop.INODES)
def readdir_stat_cold(trial: Trial) -> Steps:
    """list a directory of 10,000 entries and stat each, nothing cached"""
    os.chdir(trial.fixture("entries", material.entries))
    yield
    return list_and_stat(1)


@workload("entries")
def readdir_stat_warm(trial: Trial) -> Steps:
    """list a directory of 10,000 entries and stat each, three times, warm"""
    os.chdir(trial.fixture("entries", material.entries))
    list_and_stat(1)
    yield
    return list_and_stat(3)


def enter_library(trial: Trial) -> int:
    os.chdir(trial.fixture("library", material.library))
    return sum(len(folders) + len(files) for _, folders, files in os.walk("."))


@workload("entries", Drop.INODES)
def find(trial: Trial) -> Steps:
    """find -type f in a tree of 5,000 files, nothing cached"""
    entries = enter_library(trial)
    yield
    spawn("find", ".", "-type", "f")
    return entries


@workload("entries")
def find_warm(trial: Trial) -> Steps:
    """find -type f in a tree of 5,000 files, warm"""
    entries = enter_library(trial)
    spawn("find", ".", "-type", "f")
    yield
    spawn("find", ".", "-type", "f")
    return entries


@workload("entries", Drop.INODES)
def du(trial: Trial) -> Steps:
    """du -s of a tree of 5,000 files, nothing cached"""
    entries = enter_library(trial)
    yield
    spawn("du", "-s", ".")
    return entries


@workload("entries")
def du_warm(trial: Trial) -> Steps:
    """du -s of a tree of 5,000 files, warm"""
    entries = enter_library(trial)
    spawn("du", "-s", ".")
    yield
    spawn("du", "-s", ".")
    return entries


@workload("files")
def cp_tree(trial: Trial) -> Steps:
    """cp -r of a tree of 2,000 small files"""
    source = trial.fixture("tree", material.tree)
    yield
    spawn("cp", "-r", source, "copy")
    return trial.count(2_000)


@workload("files")
def untar(trial: Trial) -> Steps:
    """unpack a tar of 5,000 files of the Python library, each with new content"""
    archive, files = material.library_archive(trial)
    yield
    spawn("tar", "-xf", archive)
    return files


def unpack(trial: Trial) -> int:
    """Unpacks the library into `tree`; the number of files."""
    archive, files = material.library_archive(trial)
    os.mkdir("tree")
    spawn("tar", "-xf", archive, "-C", "tree")
    return files


@workload("files")
def rm_rf(trial: Trial) -> Steps:
    """rm -rf of the unpacked tree of 5,000 files"""
    files = unpack(trial)
    yield
    spawn("rm", "-rf", "tree")
    return files


@workload("files", at_rest=False)
def rm_rf_fresh(trial: Trial) -> Steps:
    """rm -rf of a tree of 5,000 files that was just unpacked and is not on disk yet"""
    files = unpack(trial)
    yield
    spawn("rm", "-rf", "tree")
    return files


@workload("files")
def git_clone(trial: Trial) -> Steps:
    """git clone of a bundle with 3,000 files of new content"""
    bundle, files = material.git_bundle(trial)
    yield
    spawn("git", "clone", "--quiet", bundle, "clone")
    return files


@workload("files")
def git_status(trial: Trial) -> Steps:
    """git status in a work tree of 3,000 files, warm"""
    os.chdir(trial.fixture("clone", material.clone))
    spawn("git", "-C", "clone", "status")
    yield
    spawn("git", "-C", "clone", "status")
    return trial.count(material.GIT_FILES)


@workload("files", Drop.INODES)
def git_status_cold(trial: Trial) -> Steps:
    """git status in a work tree of 3,000 files, nothing cached"""
    os.chdir(trial.fixture("clone", material.clone))
    yield
    spawn("git", "-C", "clone", "status")
    return trial.count(material.GIT_FILES)
