"""Ordinary programs work in views and virtual repositories, which show at once what is done elsewhere."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount, asked
from tests.mounted.shown import (
    IVY_JAR,
    JAR,
    Shown,
    contents,
    ivy_tree,
    make_shown,
    put,
    run,
)

GIT = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]


@pytest.fixture
def shown(common_mount: Mount, request: pytest.FixtureRequest) -> Shown:
    return make_shown(common_mount, request.node.name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return ivy_tree(tmp_path / "source")


def clear(tree: Path) -> None:
    run("find", tree, "-mindepth", "1", "-maxdepth", "1", "-exec", "rm", "-r", "{}", "+")
    assert os.listdir(tree) == []


# Copies


@pytest.mark.parametrize(
    "command",
    [
        "cp -a {0}/. {1}/",
        "cp -r {0}/. {1}/",
        "rsync -a {0}/ {1}/",
        "rsync -aH --delete {0}/ {1}/",
        "rsync -a --inplace {0}/ {1}/",
        "rsync -a --delay-updates {0}/ {1}/",
        "tar -C {0} -cf - . | tar -C {1} -xf -",
        "tar -C {0} -cf - . | tar -C {1} --unlink-first --recursive-unlink -xf -",
        "cd {0} && find . -type f -exec install -D {{}} {1}/{{}} ';'",
    ],
)
def test_copies_are_the_same_and_may_be_made_again(shown: Shown, source: Path, command: str) -> None:
    expected = contents(source)
    for tree in (shown.ivy, shown.all):
        for _ in range(2):
            run("sh", "-c", command.format(source, tree))
            assert contents(tree) == expected
        run("diff", "-r", source, tree)
        clear(tree)
        assert contents(shown.libs) == contents(shown.more) == {}


def test_rsync_finds_nothing_to_do_the_second_time_and_removes_what_is_gone(
    shown: Shown, source: Path
) -> None:
    changed = source.parent / "changed"
    run("cp", "-a", source, changed)
    shutil.rmtree(changed / "org.acme/m1")
    put(changed / "org.acme/m0/1.0/jars/m0-1.0.jar", b"another content")
    os.link(changed / "README", changed / "LINK")
    for tree in (shown.ivy, shown.all):
        run("rsync", "-a", f"{source}/", f"{tree}/")
        assert run("rsync", "-ai", f"{source}/", f"{tree}/") == ""
        run("rsync", "-aH", "--delete", "--checksum", f"{changed}/", f"{tree}/")
        assert contents(tree) == contents(changed)
        assert (tree / "README").stat().st_nlink == 2
        clear(tree)


def test_what_is_packed_out_of_a_tree_is_what_it_shows(shown: Shown, source: Path, tmp_path: Path) -> None:
    for tree in (shown.ivy, shown.all):
        run("cp", "-a", f"{source}/.", tree)
        run("tar", "-C", tree, "-cf", tmp_path / "archive.tar", ".")
        out = tmp_path / tree.name
        out.mkdir()
        run("tar", "-C", out, "-xf", tmp_path / "archive.tar")
        assert contents(out) == contents(source)
        run("cp", "-a", tree, tmp_path / f"copy-{tree.name}")
        assert contents(tmp_path / f"copy-{tree.name}") == contents(source)
        clear(tree)


def test_archives_are_unpacked_in_a_tree(shown: Shown, source: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", source))
    for tree in (shown.ivy, shown.all):
        shutil.unpack_archive(archive, tree)
        assert contents(tree) == contents(source)
        clear(tree)


# git


def test_git_works_in_trees(shown: Shown, source: Path, tmp_path: Path) -> None:
    for tree in (shown.ivy, shown.all):
        place = tree / "work"
        run(*GIT, "init", "-q", place)
        run("cp", "-a", f"{source}/.", place)
        run(*GIT, "add", ".", cwd=place)
        run(*GIT, "commit", "-qm", "one", cwd=place)
        put(place / "README", b"changed")
        run(*GIT, "commit", "-qam", "two", cwd=place)
        run(*GIT, "checkout", "-q", "HEAD~1", cwd=place)
        assert (place / "README").read_bytes() == b"no artifact"
        run(*GIT, "checkout", "-q", "main", cwd=place)
        run(*GIT, "gc", "-q", "--prune=now", cwd=place)
        run(*GIT, "fsck", "--full", "--strict", cwd=place)
        assert run(*GIT, "status", "--porcelain", cwd=place) == ""
        run(*GIT, "clone", "-q", place, tree / "clone")
        run(*GIT, "clone", "-q", f"file://{place}", tmp_path / tree.name)
        for clone in (tree / "clone", tmp_path / tree.name):
            run(*GIT, "fsck", "--full", "--strict", cwd=clone)
            assert run(*GIT, "status", "--porcelain", cwd=clone) == ""
            assert run(*GIT, "log", "--format=%s", cwd=clone) == "two\none\n"
        clear(tree)


# mv


def test_files_are_moved_within_into_and_out_of_trees(shown: Shown, tmp_path: Path) -> None:
    put(shown.libs / JAR, b"jar")
    run("mv", shown.ivy / IVY_JAR, shown.ivy / "org.acme/app/1.0/jars/app-sources-1.0.jar")
    assert contents(shown.libs) == {b"org/acme/app/1.0/app-1.0-sources.jar": b"jar"}
    run("mv", shown.ivy / "org.acme/app/1.0/jars/app-sources-1.0.jar", tmp_path / "out.jar")
    assert contents(shown.libs) == contents(shown.ivy) == {}
    put(shown.ivy / "org.acme/app/2.0/jars/x").unlink()
    run("mv", tmp_path / "out.jar", shown.ivy / "org.acme/app/2.0/jars/app-2.0.jar")
    assert contents(shown.libs) == {b"org/acme/app/2.0/app-2.0.jar": b"jar"}
    run("mv", shown.ivy / "org.acme/app/2.0/jars/app-2.0.jar", shown.more / "plain")
    assert contents(shown.all) == {b"plain": b"jar"}
    run("mv", shown.all / "plain", shown.all / "other")
    assert contents(shown.more) == {b"other": b"jar"}
    run("mv", shown.all / "other", shown.ivy / "kept")
    assert contents(shown.libs) == contents(shown.ivy) == contents(shown.all) == {b"kept": b"jar"}


def test_directories_are_moved_within_into_and_out_of_trees(
    shown: Shown, source: Path, tmp_path: Path
) -> None:
    expected = contents(source / "org.acme")
    for tree in (shown.ivy, shown.all):
        run("cp", "-a", source / "org.acme", tree / "org.acme")
        run("mv", tree / "org.acme", tree / "org.other")
        assert contents(tree / "org.other") == expected
        assert os.listdir(tree) == ["org.other"]
        run("mv", tree / "org.other", tmp_path / "out")
        assert os.listdir(tree) == []
        assert contents(tmp_path / "out") == expected
        run("mv", tmp_path / "out", tree / "in")
        assert contents(tree / "in") == expected
        run("mv", tree / "in", shown.mount.path / f"{tree.name}-out")
        assert contents(shown.mount.path / f"{tree.name}-out") == expected
        assert contents(shown.libs) == contents(shown.more) == {}


def test_directories_that_are_there_by_the_repository_are_moved_and_removed(shown: Shown) -> None:
    for version in ("1.0", "2.0"):
        put(shown.libs / f"org/acme/app/{version}/app-{version}.jar")
    app = shown.ivy / "org.acme/app"
    run("mv", app / "1.0", app / "1.5")
    assert contents(app) == {b"1.5/jars/app-1.0.jar": b"content", b"2.0/jars/app-2.0.jar": b"content"}
    run("rm", "-r", app / "2.0")
    run("find", app, "-delete")
    assert contents(shown.libs) == {}


# Listings

NAMES = 1200
GETDENTS64 = {"x86_64": 217, "aarch64": 61}


def getdents(folder: Path, size: int) -> list[tuple[int, bytes]]:
    """(offset, name) of all entries, read by getdents64(2) with a buffer of so many bytes."""
    number = GETDENTS64[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(size)
    found = []
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while count := libc.syscall(number, fd, buffer, size):
            assert count > 0, os.strerror(ctypes.get_errno())
            place = 0
            while place < count:
                _, offset, length = struct.unpack_from("<QqH", buffer.raw, place)
                name = buffer.raw[place + 19 : place + length].split(b"\0")[0]
                found.append((offset, name))
                place += length
    finally:
        os.close(fd)
    return found


def test_two_names_of_a_file_in_one_directory_are_both_listed(shown: Shown) -> None:
    prefix = shown.libs.name.removesuffix("libs")
    asked(
        *("layout", "add", shown.mount.store, "turned"),
        *("--artifact", "[orgPath]/[module]/[baseRev]/[baseRev]-[module](-[classifier]).[ext]"),
    )
    turned = shown.create(
        shown.mount.path / f"{prefix}turned", "--view", shown.libs.name, "--layout", "turned"
    )
    both = shown.create(shown.mount.path / f"{prefix}both", "--virtual", f"{shown.libs.name},{turned.name}")
    for number in range(NAMES):
        put(shown.libs / f"org/acme/app/1.0/app-1.0-c{number}.jar", b"")
    expected = {f"app-1.0-c{number}.jar" for number in range(NAMES)}
    expected |= {f"1.0-app-c{number}.jar" for number in range(NAMES)}
    folder = both / "org/acme/app/1.0"
    for _ in range(2):
        assert sorted(os.listdir(folder)) == sorted(expected)
        for size in (300, 4096, 1 << 20):
            entries = getdents(folder, size)
            assert sorted(name.decode() for _, name in entries) == sorted(expected | {".", ".."})
            assert len({offset for offset, _ in entries}) == len(entries)
        assert len(run("ls", "-l", folder).splitlines()) == 1 + len(expected)
        shown.mount.remount()
