"""Repositories and layouts by commands, on a store that is mounted: what programs see of it at once."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import subprocess
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from casfs.cli.main import main
from casfs.errors import ExitCode
from tests.invariants import assert_clean
from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, assert_sound, casfs

JAR = "org/acme/app/1.0/app-1.0.jar"
IVY = "org.acme/app/1.0/jars/app-1.0.jar"


def repositories(store: Path) -> dict[str, dict[str, Any]]:
    found = json.loads(casfs("repo", "list", store, "--json"))["repositories"]
    return {each["name"]: each for each in found}


def complaint_of(code: int, *words: str) -> str:
    """Of a command that fails so, in this process: there are many."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as complaint:
        assert main(words) == code, complaint.getvalue()
    assert not out.getvalue()
    assert complaint.getvalue().count("\n") == 1
    return complaint.getvalue()


def put(repository: Path, path: str = JAR) -> Path:
    file = repository / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(os.urandom(1000))
    return file


def test_programs_see_at_once_what_commands_make_and_remove(mount: Mount) -> None:
    libs, view, both = (mount.path / name for name in ("libs", "view", "all"))
    for directory in (libs, view, both):
        assert not directory.exists()  # which the kernel remembers
    casfs("repo", "create", mount.path, "libs", "--package-type", "maven")
    casfs("repo", "create", mount.store, "view", "--view", "libs", "--layout", "ivy-default")
    casfs("repo", "create", libs, "all", "--virtual", "libs,view", "--deploy", "libs")
    status = libs.stat()
    assert (status.st_mode, status.st_uid) == (0o40755, mount.path.stat().st_uid)
    assert mount.path.stat().st_nlink == 5
    for directory, kind, layout in ((libs, b"local", b"maven-2-default"), (view, b"view", b"ivy-default")):
        assert os.getxattr(directory, "user.casfs.repository") == kind
        assert os.getxattr(directory, "user.casfs.layout") == layout
        assert os.listxattr(directory) == []
        with pytest.raises(PermissionError):
            os.setxattr(directory, "user.casfs.layout", b"npm-default")
    content = put(libs).read_bytes()
    assert (view / IVY).read_bytes() == content
    assert repositories(mount.store)["libs"]["artifacts"] == 1
    subprocess.run(["mv", libs, mount.path / "jars"], check=True)
    assert repositories(mount.store)["view"]["members"] == ["jars"]
    casfs("repo", "rename", mount.path, "view", "ivy")
    assert not view.exists()
    assert (mount.path / "ivy" / IVY).read_bytes() == content
    casfs("repo", "rm", mount.path, "ivy", "all")
    assert os.listdir(mount.path) == ["jars"]
    casfs("repo", "rm", mount.path, "jars")
    assert (mount.path / "jars" / JAR).read_bytes() == content
    assert os.getxattr(mount.path / "jars", "user.casfs.repository") == b"local"
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(mount.path / "jars", "user.casfs.layout")


def test_a_directory_in_use_becomes_a_repository_and_goes_while_it_is_open(mount: Mount) -> None:
    (mount.path / "libs").mkdir()
    fd = os.open(mount.path / "libs", os.O_RDONLY)
    try:
        put(mount.path / "libs")
        casfs("repo", "create", mount.path, "libs", "--layout", "maven-2-default")
        assert os.listdir(fd) == ["org"]
        shutil.rmtree(mount.path / "libs" / "org")
        casfs("repo", "rm", mount.path, "libs")
        assert os.listdir(fd) == []
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(mount.path) == []
    finally:
        os.close(fd)


def test_df_and_status_have_a_row_for_each(mount: Mount) -> None:
    casfs("repo", "create", mount.path, "libs", "--package-type", "maven", "--quota", "1G")
    casfs("repo", "create", mount.path, "ivy", "--view", "libs", "--layout", "ivy-default")
    put(mount.path / "libs")
    put(mount.path / "libs", "notes")
    mount.usage()
    libs = {"kind": "local", "layout": "maven-2-default", "artifacts": 1, "quota_bytes": 1 << 30}
    rows = {row["name"]: row for row in json.loads(casfs("df", "--json", mount.path))["rows"]}
    assert rows["libs"].items() >= libs.items()
    assert (rows["libs"]["files"], rows["libs"]["bytes"]) == (2, 2000)
    assert (rows["ivy"]["kind"], rows["ivy"]["artifacts"], rows["ivy"]["files"]) == ("view", 1, 0)
    found = {each["name"]: each for each in mount.status["repositories"]}
    assert found["libs"].items() >= (libs | {"files": 2, "bytes": 2000}).items()
    text = casfs("status", mount.path)
    assert "\n  libs: local, maven-2-default, 1 artifacts, 2 files, 1.95 KiB of 1.00 GiB\n" in text
    assert "\n  ivy: view, ivy-default, 1 artifacts\n" in text


def test_a_store_that_takes_repositories_only_is_told_so_at_once(mount: Mount) -> None:
    mount.expect("a directory in the root is refused, EACCES")
    (mount.path / "plain").mkdir()
    casfs("repo", "set", mount.path, "--plain", "no")
    for attempt in ("mkdir", "cp -r"):
        words = attempt.split()
        words += [str(mount.path / "plain")] if len(words) > 1 else []
        done = subprocess.run([*words, mount.path / "new"], capture_output=True, text=True, check=False)
        assert done.returncode
        assert os.strerror(errno.EACCES) in done.stderr
    casfs("cp", "-r", mount.path / "plain", mount.path / "new", code=ExitCode.FAILED)
    assert os.listdir(mount.path) == ["plain"]
    (mount.path / "plain" / "below").mkdir()
    (mount.path / "plain").rename(mount.path / "renamed")
    casfs("repo", "create", mount.path, "libs")
    casfs("repo", "set", mount.store, "--plain", "yes")
    (mount.path / "new").mkdir()


def test_the_rule_of_the_trash_goes_with_a_rename(mount: Mount) -> None:
    casfs("repo", "create", mount.path, "libs", "--trash-days", "3")
    (mount.path / "libs").rename(mount.path / "jars")
    casfs("repo", "rename", mount.path, "jars", "wars")
    rules = json.loads(casfs("trash", "show", mount.store, "--json"))["rules"]
    assert [(rule["directory"], rule["days"]) for rule in rules] == [("", 14), ("wars", 3)]
    assert repositories(mount.store)["wars"]["trash_days"] == 3


BAD = [
    (["repo", "create", "x", "--layout", "mavn"], 2, "unknown layout 'mavn'; known: "),
    (["repo", "create", "../x"], 2, "'../x' is no name of a repository"),
    (["repo", "create", ".casfs"], 2, "'.casfs' is no name of a repository"),
    (["repo", "create", "a\nb\x1b[2J/"], 2, "'a\\nb\\x1b[2J/' is no name of a repository"),
    (["repo", "create", "libs"], 1, "'libs' is a repository already; casfs repo set changes it"),
    (["repo", "create", "x", "--virtual", "libs,nothing"], 2, "unknown repository 'nothing'; known: "),
    (["repo", "create", "x", "--virtual", "libs,libs"], 2, "'libs' is named twice"),
    (
        ["repo", "create", "x", "--virtual", "libs", "--deploy", "view"],
        1,
        "'x' cannot write to 'view'; that has",
    ),
    (["repo", "create", "x", "--quota", "many"], 2, "'many' is no size"),
    (["repo", "create", "x", "--include", "**/a**"], 2, ""),
    (["repo", "set", "all", "--virtual", "libs,view"], 1, "would show themselves: "),
    (["repo", "set", "libs", "--layuot", "x"], 2, "unknown option '--layuot'; did you mean '--layout'?"),
    (["repo", "set", "all", "--quota", "1G"], 2, "'all' holds no files: quota bytes is a rule of a local"),
    (["repo", "rename", "libs", "all"], 1, "'all' is there already"),
    (["repo", "rm", "libs"], 1, "'libs' cannot go: 'all' would miss it; --force takes it out of them"),
    (
        ["layout", "add", "x", "--artifact", "[org]/[modul]/[baseRev]"],
        2,
        "x: artifact, column 7: unknown token",
    ),
    (
        ["layout", "add", "x", "--artifact", "[org]/[module]/([baseRev]"],
        2,
        "x: artifact, column 16: '(' without ')'",
    ),
    (
        ["layout", "add", "ours", "--artifact", "[org]/[module]-[baseRev]"],
        1,
        "there is a layout 'ours' already",
    ),
    (
        ["layout", "set", "ours", "--artifact", "[org]/[module]-[baseRev"],
        2,
        "ours: artifact, column 16: '[' without",
    ),
    (["layout", "rm", "ours"], 1, "layout 'ours' is in use: own"),
    (["layout", "rm", "ivy-default"], 1, "layout 'ivy-default' is built in"),
]


def test_mistakes_are_told_alike_whether_it_is_mounted_or_not(mount: Mount) -> None:
    store = mount.store
    casfs("layout", "add", store, "ours", "--artifact", "[org]/[module]-[baseRev].[ext]")
    casfs("repo", "create", store, "libs", "--layout", "maven-2-default")
    casfs("repo", "create", store, "own", "--layout", "ours")
    casfs("repo", "create", store, "all", "--virtual", "libs")
    casfs("repo", "create", store, "view", "--view", "all", "--layout", "ivy-default")
    before = repositories(store)
    told = []
    for _ in range(2):
        complaints = []
        for (command, action, *words), code, complaint in BAD:
            line = complaint_of(code, command, action, str(store), *words)
            assert complaint in line
            complaints.append(line)
        told.append(complaints)
        if len(told) == 1:
            mount.stop()
    mount.start()
    assert told[0] == told[1]
    assert repositories(store) == before


def test_what_a_command_has_returned_from_survives_the_daemon(mount: Mount) -> None:
    """SIGKILL right behind each one."""
    steps: list[tuple[list[str], set[str]]] = [
        (["layout", "add", "@", "ours", "--artifact", "[org]/[module]-[baseRev].[ext]"], set()),
        (["repo", "create", "@", "libs", "--layout", "ours"], {"libs"}),
        (["repo", "create", "@", "all", "--virtual", "libs"], {"libs", "all"}),
        (["repo", "rename", "@", "libs", "jars"], {"jars", "all"}),
        (["repo", "rm", "@", "jars", "--force"], {"all"}),
    ]
    for (command, action, _, *words), names in steps:
        casfs(command, action, mount.path, *words)
        mount.kill()
        assert_clean(mount.store, strays=True, unlinked=True)
        assert set(repositories(mount.store)) == names
        mount.start()
        assert set(os.listdir(mount.path)) == names
    assert casfs("layout", "export", mount.store).startswith("[layout.ours]\n")


def test_a_command_that_is_cut_off_has_done_all_or_nothing(mount: Mount) -> None:
    """The daemon is killed at any moment of it; the rows that follow are caught up with afterwards."""
    dice = random.Random(12)
    casfs(
        "layout",
        "add",
        mount.path,
        "ours",
        "--artifact",
        "[orgPath]/[module]/[baseRev]/[module]-[baseRev].[ext]",
    )
    casfs("repo", "create", mount.path, "libs", "--layout", "ours")
    put(mount.path / "libs")
    casfs("repo", "create", mount.path, "other", "--layout", "maven-2-default")
    known = repositories(mount.store)
    for words in (
        ["create", "view", "--view", "libs", "--layout", "ivy-default"],
        ["create", "all", "--virtual", "libs,other", "--deploy", "libs"],
        ["set", "libs", "--layout", "maven-2-default", "--quota", "1G", "--trash-days", "5"],
        ["rename", "other", "another"],
        ["rm", "libs", "view", "--force"],
    ):
        command = subprocess.Popen(
            [*CASFS, "repo", words[0], mount.path, *words[1:]], env=ENVIRONMENT, stderr=subprocess.DEVNULL
        )
        time.sleep(dice.uniform(0.1, 0.35))
        mount.kill()
        succeeded = command.wait(30) == 0
        mount.start()
        found = repositories(mount.store)
        if succeeded:
            assert found != known
        if found == known:  # it was not done: now it is
            casfs("repo", words[0], mount.path, *words[1:])
            found = repositories(mount.store)
        assert found != known
        known = found
        mount.stop()
        assert_sound(mount.store, crashed=True)
        mount.start()
    assert set(known) == {"libs", "all", "another"}
    assert (known["libs"]["layout"], known["all"]["members"], known["all"]["deploy"]) == (
        None,
        ["another"],
        None,
    )
