"""Workloads in a snapshot, each with the one that does the same in the live tree for a peer.

Snapshots are made where the bench has set up casfs. Elsewhere the fixture itself is read.
"""

from __future__ import annotations

import os

from . import trial as material
from .large_file import enter_large, random_offsets, read_at, read_through
from .small_files import call_each, enter_small_files, open_read_close_all
from .trees import enter_library, list_and_stat, read_tree
from .trial import Trial, expect, spawn
from .workload import READY, Drop, Goal, Steps, workload


def as_live(workload: str) -> Goal:
    return Goal(0.9, workload=workload)


@workload("stats", Drop.INODES, goal=as_live("stat_cold"))
def snapshot_stat_cold(trial: Trial) -> Steps:
    """stat 2,000 files of a snapshot that the kernel does not know"""
    paths = enter_small_files(trial)
    trial.enter_snapshot()
    yield READY
    yield call_each(os.stat, paths)


@workload("entries", Drop.INODES, goal=as_live("readdir_stat_cold"))
def snapshot_readdir_stat_cold(trial: Trial) -> Steps:
    """list a directory of 10,000 entries in a snapshot and stat each, nothing cached"""
    os.chdir(trial.fixture("entries", material.entries))
    trial.enter_snapshot()
    yield READY
    seen = list_and_stat()
    yield seen
    expect(seen == trial.count(10_000), f"{seen} entries listed")


@workload("entries", Drop.INODES, goal=as_live("find"))
def snapshot_find(trial: Trial) -> Steps:
    """find -type f in a tree of 5,000 files in a snapshot, nothing cached"""
    entries = enter_library(trial)
    trial.enter_snapshot()
    yield READY
    spawn("find", ".", "-type", "f")
    yield entries


@workload("files", goal=as_live("open_read_close"))
def snapshot_open_read_close(trial: Trial) -> Steps:
    """open, read and close 2,000 files of 4 KiB of a snapshot that were read before, again and again"""
    paths = enter_small_files(trial)
    trial.enter_snapshot()
    open_read_close_all(paths)
    yield READY
    yield trial.repeated(lambda: open_read_close_all(paths))


@workload("files", Drop.ALL, goal=as_live("open_read_close_cold"))
def snapshot_open_read_close_cold(trial: Trial) -> Steps:
    """open, read and close 2,000 files of 4 KiB of a snapshot, nothing cached"""
    paths = enter_small_files(trial)
    trial.enter_snapshot()
    yield READY
    yield open_read_close_all(paths)


@workload("MiB", Drop.ALL, goal=as_live("seq_read_cold"))
def snapshot_seq_read_cold(trial: Trial) -> Steps:
    """read 512 MiB of a snapshot in reads of 1 MiB, nothing cached"""
    size = enter_large(trial)
    trial.enter_snapshot()
    yield READY
    amount = read_through()
    yield amount
    expect(amount == size, f"{amount} of {size} MiB read")


@workload("reads", goal=as_live("random_read"))
def snapshot_random_read(trial: Trial) -> Steps:
    """open a file of 512 MiB of a snapshot that was read before and read 4 KiB at 16,384 random places"""
    offsets = random_offsets(trial, enter_large(trial), trial.count(16_384))
    trial.enter_snapshot()
    read_through()
    yield READY
    amount = trial.repeated(lambda: read_at(offsets))
    yield amount
    expect(amount % len(offsets) == 0, "a read was short")


@workload("files", goal=as_live("cp_tree"))
def snapshot_cp_tree(trial: Trial) -> Steps:
    """cp -r of a tree of 2,000 small files out of a snapshot that were read before"""
    work = os.getcwd()
    os.chdir(trial.fixture("tree", material.tree))
    trial.enter_snapshot()
    source = os.getcwd()
    contents = read_tree(source)
    os.chdir(work)
    yield READY
    spawn("cp", "-r", source, "copy")
    yield len(contents)
    expect(read_tree("copy") == contents, "the copy differs from the tree")
