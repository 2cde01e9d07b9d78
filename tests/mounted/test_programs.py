"""Ordinary programs do ordinary work in the mount."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from tests.mounted.mounts import Mount
from tests.mounted.trees import ODD_NAMES, portrait, same_tree

GIT = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]

ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "PYTHONDONTWRITEBYTECODE": "",
}


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, errors="replace", timeout=300
    )
    assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return done.stdout


def test_a_copied_tree_is_the_same_and_its_second_copy_needs_no_blob(mount: Mount, real_tree: Path) -> None:
    run("cp", "-a", real_tree, mount.path / "first")
    same_tree(real_tree, mount.path / "first")
    once = mount.usage()
    run("cp", "-a", mount.path / "first", mount.path / "second")
    same_tree(mount.path / "first", mount.path / "second")
    twice = mount.usage()
    assert twice["total"]["files"] == 2 * once["total"]["files"]
    assert twice["total"]["blobs"] == once["total"]["blobs"]
    assert twice["total"]["blob_bytes"] == once["total"]["blob_bytes"]
    assert (twice["orphans"], twice["staged"]) == (0, 0)

    before = portrait(mount.path)
    mount.remount()
    after = portrait(mount.path)
    changed = {path: (before.get(path), after.get(path)) for path in before.keys() | after.keys()}
    assert not {path: pair for path, pair in changed.items() if pair[0] != pair[1]}
    same_tree(real_tree, mount.path / "first")


def test_a_removed_tree_leaves_no_name_and_its_blobs_as_orphans(mount: Mount, real_tree: Path) -> None:
    run("cp", "-a", real_tree / "odd", mount.path / "tree")
    held = mount.usage()["total"]["blobs"]
    run("rm", "-rf", mount.path / "tree")
    assert os.listdir(mount.path) == []
    usage = mount.usage()
    assert (usage["total"]["files"], usage["total"]["blobs"], usage["orphans"]) == (0, 0, held)


def test_rsync_moves_nothing_the_second_time(mnt: Path, real_tree: Path) -> None:
    source = real_tree / "odd"
    run("rsync", "-aHAX", f"{source}/", f"{mnt}/copy/")
    assert run("rsync", "-aHAX", "--itemize-changes", f"{source}/", f"{mnt}/copy/") == ""
    same_tree(source, mnt / "copy")


def test_tar_there_and_back(mnt: Path, real_tree: Path, scratch: Path) -> None:
    options = ["--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--exclude=odd/socket"]
    run("tar", *options, "-C", real_tree, "-cf", mnt / "archive.tar", "odd")
    (mnt / "out").mkdir()
    run("tar", *options, "-C", mnt / "out", "-xpf", mnt / "archive.tar")
    os.unlink(mnt / "archive.tar")
    run("tar", *options, "-C", mnt / "out", "-cf", scratch / "again.tar", "odd")
    (scratch / "back").mkdir()
    run("tar", *options, "-C", scratch / "back", "-xpf", scratch / "again.tar")
    same_tree(scratch / "back" / "odd", mnt / "out" / "odd")
    with tarfile.open(scratch / "again.tar") as archive:
        assert {os.fsdecode(b"odd/" + name) for name in ODD_NAMES} <= set(archive.getnames())


def test_git_clones_commits_collects_and_checks(mount: Mount, real_tree: Path, scratch: Path) -> None:
    origin, clone = scratch / "origin", mount.path / "clone"
    library = real_tree / sysconfig.get_path("stdlib").lstrip("/")
    less = shutil.ignore_patterns("*test*", "*-packages", "__pycache__", "encodings", "lib-dynload")
    shutil.copytree(library, origin, symlinks=True, ignore=less)
    run(*GIT, "init", "--quiet", cwd=origin)
    run(*GIT, "add", "--force", ".", cwd=origin)
    run(*GIT, "commit", "--quiet", "-m", "all", cwd=origin)
    run(*GIT, "clone", "--quiet", f"file://{origin}", clone)
    assert run(*GIT, "status", "--porcelain", cwd=clone) == ""
    for number in range(3):
        (clone / "new").write_text(f"version {number}\n" * 1000)
        run(*GIT, "add", "new", cwd=clone)
        run(*GIT, "commit", "--quiet", "-m", f"change {number}", cwd=clone)
    run(*GIT, "checkout", "--quiet", "-b", "side", "HEAD~2", cwd=clone)
    run(*GIT, "checkout", "--quiet", "main", cwd=clone)
    run(*GIT, "gc", "--quiet", "--prune=now", cwd=clone)
    run(*GIT, "fsck", "--full", "--strict", cwd=clone)
    mount.remount()
    run(*GIT, "fsck", "--full", "--strict", cwd=clone)
    assert run(*GIT, "status", "--porcelain", cwd=clone) == ""
    assert run(*GIT, "log", "--format=%s", "-3", cwd=clone).split("\n")[:3] == [
        *("change 2", "change 1", "change 0")
    ]


SQL_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
for number in range(200):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO entry VALUES (?, ?, zeroblob(3000))", (sys.argv[2], number))
    connection.execute("UPDATE total SET count = count + 1")
    connection.execute("COMMIT")
    (rows,) = connection.execute("SELECT count(*) - (SELECT count FROM total) FROM entry").fetchone()
    assert rows == 0, f"a reader saw half a transaction: {rows}"
"""


def test_two_processes_share_a_sqlite_database_in_wal_mode(mount: Mount) -> None:
    database = mount.path / "shared.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript("CREATE TABLE entry(who, number, data); CREATE TABLE total(count);")
    connection.execute("INSERT INTO total VALUES (0)")
    connection.commit()
    writers = [
        subprocess.Popen([sys.executable, "-c", SQL_WRITER, database, who], stderr=subprocess.PIPE)
        for who in ("first", "second")
    ]
    failures = [writer.communicate()[1].decode() for writer in writers]
    assert failures == ["", ""]
    assert connection.execute("SELECT count FROM total").fetchone() == (400,)
    connection.close()
    mount.remount()
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT who, count(*), sum(number) FROM entry GROUP BY who").fetchall() == [
        ("first", 200, 19900),
        ("second", 200, 19900),
    ]
    connection.close()


def test_a_virtual_environment_is_made_and_used(mount: Mount) -> None:
    place = mount.path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place)
    (site,) = place.glob("lib/python3*/site-packages")
    (site / "greeting.py").write_text("text = 'hello from the mount'\n")
    program = "import greeting, sys; print(greeting.text, sys.prefix)"
    expected = f"hello from the mount {place}\n"
    assert run(place / "bin" / "python", "-c", program) == expected
    assert (site / "__pycache__").is_dir()
    mount.remount()
    assert run(place / "bin" / "python", "-c", program) == expected


C_PROGRAM = r"""
#include <stdio.h>
#include "table.h"
int main(void) { printf("%d\n", table[2] * 14); return 0; }
"""


def test_a_program_is_compiled_and_run(mount: Mount) -> None:
    source = mount.path / "source"
    source.mkdir()
    (source / "main.c").write_text(C_PROGRAM)
    (source / "table.h").write_text("extern int table[];\n")
    (source / "table.c").write_text("int table[] = {1, 2, 3};\n")
    for name in ("main", "table"):
        run("gcc", "-g", "-c", f"{name}.c", cwd=source)
    run("ar", "rcs", "libtable.a", "table.o", cwd=source)
    run("gcc", "-o", "main", "main.o", "-L.", "-ltable", cwd=source)
    assert run(source / "main") == "42\n"
    run("strip", "main", cwd=source)
    mount.remount()
    assert run(source / "main") == "42\n"


def test_a_running_program_is_not_overwritten_but_replaced(mnt: Path) -> None:
    shutil.copy2(shutil.which("sleep") or "", mnt / "program")
    running = subprocess.Popen([mnt / "program", "1000"])
    try:
        shutil.copy2(shutil.which("true") or "", mnt / "new")
        os.rename(mnt / "new", mnt / "program")
        run(mnt / "program")
        assert running.poll() is None
    finally:
        running.kill()
        assert running.wait() == -9


def test_mv_between_directories_keeps_the_inode(mnt: Path) -> None:
    (mnt / "from" / "deep").mkdir(parents=True)
    (mnt / "to").mkdir()
    (mnt / "from" / "deep" / "file").write_text("content")
    numbers = [os.lstat(mnt / "from" / path).st_ino for path in ("deep", "deep/file")]
    run("mv", mnt / "from" / "deep", mnt / "to")
    assert os.listdir(mnt / "from") == []
    assert [os.lstat(mnt / "to" / path).st_ino for path in ("deep", "deep/file")] == numbers
    assert (mnt / "to" / "deep" / "file").read_text() == "content"
    assert (os.stat(mnt / "from").st_nlink, os.stat(mnt / "to").st_nlink) == (2, 3)


def test_find_du_and_df_agree(mnt: Path, real_tree: Path) -> None:
    run("cp", "-a", real_tree / "odd", mnt / "odd")
    assert int(run("find", mnt / "odd").count("\n")) == int(run("find", real_tree / "odd").count("\n"))
    whole = run("du", "-s", "--apparent-size", "--block-size=1", mnt / "odd" / "linked").split()[0]
    assert whole == "300000"
    room, below = os.statvfs(mnt), os.statvfs(mnt.parent)
    assert (room.f_blocks * room.f_frsize, room.f_namemax) == (below.f_blocks * below.f_frsize, 255)


def test_python_writes_and_reads_back_what_it_wrote_in_every_mode(mnt: Path) -> None:
    file = mnt / "file"
    file.write_bytes(b"one")
    with open(file, "ab") as appending:
        appending.write(b"two")
        appending.flush()
        assert file.read_bytes() == b"onetwo"
        appending.write(b"three")
    with open(file, "r+b") as both:
        both.seek(3)
        both.write(b"TWO")
        both.seek(0)
        assert both.read() == b"oneTWOthree"
        both.truncate(4)
        both.seek(0, os.SEEK_END)
        both.write(b"!")
    assert file.read_bytes() == b"oneT!"
    with open(file, "wb"):
        assert file.read_bytes() == b""
    assert os.stat(file).st_size == 0
