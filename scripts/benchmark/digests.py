"""Workloads on what hangs on a content: further digests, sidecars, properties, deploying by checksum.

Where the bench has set up casfs, that is; elsewhere the same bytes are written and read without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

from .large_file import expect_written
from .small_files import SMALL, make_small_files
from .trial import LARGE, MIB, Trial, create_files, expect, expect_contents, names, write_large
from .workload import READY, Goal, Steps, workload


@contextlib.contextmanager
def repository_with(trial: Trial, *settings: str) -> Iterator[None]:
    """The working directory is a repository with those settings."""
    if trial.repositories:
        trial.repository("set", os.path.basename(os.getcwd()), *settings)
    yield


def sync_directory() -> None:
    """fsync(2) of the working directory: in casfs whatever was closed has its digests then."""
    fd = os.open(".", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def create_small(trial: Trial) -> Steps:
    paths, contents = names(trial.count(SMALL)), trial.contents(trial.count(SMALL))
    yield READY
    create_files(paths, contents)
    sync_directory()
    yield len(paths)
    expect_contents(paths, contents)


@workload("files", slow=True)
def digest_create_none(trial: Trial) -> Steps:
    """create 2,000 files of 4 KiB, and fsync their directory"""
    yield from create_small(trial)


@workload("files", slow=True, goal=Goal(0.9, workload="digest_create_none"))
def digest_create(trial: Trial) -> Steps:
    """the same in a repository that keeps sha256"""
    with repository_with(trial, "--digests", "sha256"):
        yield from create_small(trial)


@workload("files", slow=True)
def digest_create_all(trial: Trial) -> Steps:
    """the same in one that keeps sha256, sha1, md5, sha512 and crc32c"""
    with repository_with(trial, "--digests", "sha256,sha1,md5,sha512,crc32c"):
        yield from create_small(trial)


def write_one(trial: Trial, *attributes: str) -> Steps:
    """Until a file is closed and has those digests."""
    size, block = trial.count(LARGE), trial.block(MIB)
    yield READY
    write_large("written", size * MIB, block)
    for attribute in ("user.casfs.blake3", *attributes):
        with contextlib.suppress(OSError):
            os.getxattr("written", attribute)
    yield size
    expect_written("written", size * MIB, MIB)


@workload("MiB", slow=True)
def digest_write_none(trial: Trial) -> Steps:
    """write 512 MiB of new content in writes of 1 MiB, until it is closed and hashed"""
    yield from write_one(trial)


@workload("MiB", slow=True, goal=Goal(0.85, workload="digest_write_none"))
def digest_write(trial: Trial) -> Steps:
    """the same in a repository that keeps sha256"""
    with repository_with(trial, "--digests", "sha256"):
        yield from write_one(trial)


@workload("MiB", slow=True)
def digest_write_known(trial: Trial) -> Steps:
    """the same, until its sha256 is known, too"""
    with repository_with(trial, "--digests", "sha256"):
        yield from write_one(trial, "user.casfs.sha256")


@workload("files", slow=True)
def digest_copy(trial: Trial) -> Steps:
    """copy_file_range of 2,000 files of 4 KiB to new names"""
    sources = make_small_files(trial)
    yield from copy_all(trial, sources)


@workload("files", slow=True, goal=Goal(0.4, workload="digest_copy"))  # three lookups more, none remembered
def digest_deploy(trial: Trial) -> Steps:
    """the same out of .casfs/by-sha256"""
    with repository_with(trial, "--digests", "sha256"):
        sources = make_small_files(trial)
        if trial.repositories:
            sync_directory()
            place = f"{trial.root}/.casfs/by-sha256"
            sources = [f"{place}/{sha256_of(path)}" for path in sources]
        yield from copy_all(trial, sources)


def sha256_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def copy_all(trial: Trial, sources: list[str]) -> Steps:
    targets = names(len(sources), "copy")
    yield READY
    for source, target in zip(sources, targets, strict=True):
        old = os.open(source, os.O_RDONLY)
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        copied = os.copy_file_range(old, new, MIB)
        os.close(new)
        os.close(old)
        expect(copied > 0, f"{source} was not copied")
    yield len(targets)
    for source, target in zip(sources, targets, strict=True):
        expect(sha256_of(source) == sha256_of(target), f"{target} is not a copy")


@workload("files", slow=True)
def digest_sidecars(trial: Trial) -> Steps:
    """read FILE.sha1 of 2,000 files, each for the first time; where there are none, the files"""
    with repository_with(trial, "--sidecars"):
        paths = make_small_files(trial)
        sync_directory()
        sidecars = [f"{path}.sha1" for path in paths] if trial.repositories else paths
        yield READY
        for path in sidecars:
            with open(path, "rb", buffering=0) as file:
                file.read()
        yield len(paths)


def set_attributes(trial: Trial, name: str) -> Steps:
    paths = make_small_files(trial)
    yield READY
    for path in paths:
        os.setxattr(path, name, b"passed")
    yield len(paths)
    expect(os.getxattr(paths[-1], name) == b"passed", "an attribute is not there")


@workload("files", slow=True)
def digest_xattr(trial: Trial) -> Steps:
    """set one attribute of each of 2,000 files"""
    yield from set_attributes(trial, "user.qa")


@workload("files", slow=True, goal=Goal(0.5, workload="digest_xattr"))  # rows in two tables
def digest_property(trial: Trial) -> Steps:
    """the same, as a property"""
    yield from set_attributes(trial, "user.casfs.prop.qa" if trial.repositories else "user.prop.qa")
