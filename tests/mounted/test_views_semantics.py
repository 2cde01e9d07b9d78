"""System calls in views and virtual repositories: they end as on any directory, or as they are said to."""

from __future__ import annotations

import errno
import mmap
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.shown import IVY_JAR, JAR, Shown, contents, make_shown, put, run
from tests.security.users import GROUP_OBJ, MASK, OTHERS, USER, USER_OBJ, access_list, renameat2

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
ODD = [b"a b", b"\xff\xfe", b"new\nline", "ü€😀".encode(), b"-rf", b"*?[", b"x" * 255, b"\x01\x7f", b"..."]


@pytest.fixture
def shown(common_mount: Mount, request: pytest.FixtureRequest) -> Shown:
    return make_shown(common_mount, request.node.name)


def fails(number: int, call: Callable[..., object], *words: object) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        call(*words)
    assert raised.value.errno == number, raised.value


def test_a_file_is_written_in_every_way_through_both_names(shown: Shown) -> None:
    pairs = [
        (put(shown.libs / JAR, b"jar"), shown.ivy / IVY_JAR),
        (put(shown.more / "d/plain", b"plain"), shown.all / "d/plain"),
    ]
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            run("sh", "-c", f"echo appended >> {one}")
            assert other.read_bytes().endswith(b"appended\n")
            run("dd", "if=/dev/zero", f"of={one}", "bs=64k", "count=10", "conv=notrunc", "status=none")
            assert other.read_bytes() == bytes(655_360)
            run("truncate", "-s", "5000", one)
            assert (other.stat().st_size, other.read_bytes()) == (5000, bytes(5000))
            with open(one, "r+b") as file, mmap.mmap(file.fileno(), 5000) as map_:
                map_[4000:4003] = b"map"
                map_.flush()
            assert other.read_bytes()[4000:4003] == b"map"
            run("touch", "-d", "2001-01-01T00:00Z", one)
            assert other.stat().st_mtime == 978307200
            one.chmod(0o640)
            os.setxattr(one, "user.note", b"noted")
            assert (other.stat().st_mode & 0o777, os.getxattr(other, "user.note")) == (0o640, b"noted")
            os.removexattr(other, "user.note")
            assert os.listxattr(one) == []
            assert one.stat() == other.stat()


def test_editors_save(shown: Shown) -> None:
    for tree in (shown.ivy, shown.all):
        file = put(tree / "org.acme/app/1.0/jars/app-1.0.jar", b"old")
        place = file.parent
        for number in range(3):  # as vim does, with a backup
            put(place / "4913").unlink()
            os.rename(file, f"{file}~")
            put(file, b"new %d" % number)
            (place / "app-1.0.jar~").unlink()
            (place / ".app.swp").write_bytes(b"swap")
            os.link(file, place / "backup")
            put(place / ".#tmp", b"newer %d" % number)
            os.rename(place / ".#tmp", file)
            assert (place / "backup").read_bytes() == b"new %d" % number
            (place / "backup").unlink()
            (place / ".app.swp").unlink()
            assert contents(tree) == {os.fsencode(os.path.relpath(file, tree)): b"newer %d" % number}
        run("sed", "-i", "s/newer/edited/", file)
        assert file.read_bytes() == b"edited 2"
        run("rm", "-r", tree / "org.acme")


def test_links_are_made_and_found(shown: Shown) -> None:
    for tree in (shown.ivy, shown.all):
        file = put(tree / "d/file", b"content")
        run("ln", file, tree / "d/hard")
        run("ln", "-s", "file", tree / "d/soft")
        assert (file.stat().st_nlink, (tree / "d/soft").read_bytes()) == (2, b"content")
        assert sorted(run("find", tree, "-samefile", file).split()) == [f"{tree}/d/file", f"{tree}/d/hard"]
        assert run("find", tree, "-type", "l").split() == [f"{tree}/d/soft"]
        os.link(put(shown.mount.path / f"{tree.name}-plain"), tree / "d/from-outside")
        os.link(tree / "d/from-outside", shown.mount.path / f"{tree.name}-out")
        assert (tree / "d/from-outside").stat().st_nlink == 3
        run("mkfifo", tree / "d/fifo")
        assert (tree / "d/fifo").is_fifo()
        run("rm", "-r", tree / "d")
        assert not os.listdir(tree)


def test_links_with_the_name_of_an_artifact_are_where_they_are_made(shown: Shown) -> None:
    """No layout has a path for them."""
    place = put(shown.ivy / IVY_JAR).parent
    os.symlink("app-1.0.jar", place / "app-linked-1.0.jar")
    run("mkfifo", place / "app-fifo-1.0.jar")
    assert sorted(os.listdir(place)) == ["app-1.0.jar", "app-fifo-1.0.jar", "app-linked-1.0.jar"]
    os.rename(place / "app-linked-1.0.jar", place / "app-renamed-1.0.jar")
    os.link(place / "app-renamed-1.0.jar", place / "app-second-1.0.jar", follow_symlinks=False)
    for name in ("app-renamed-1.0.jar", "app-second-1.0.jar"):
        assert (place / name).read_bytes() == (place / "app-1.0.jar").read_bytes()
    run("rm", "-r", shown.ivy / "org.acme")
    assert contents(shown.libs) == {}


def test_a_database_lives_in_trees(shown: Shown) -> None:
    for tree in (shown.ivy, shown.all):
        for journal in ("wal", "delete", "truncate", "persist"):
            place = tree / f"{journal}.db"
            connection = sqlite3.connect(place)
            assert connection.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
            connection.execute("CREATE TABLE entry(number)")
            for number in range(20):
                with connection:
                    connection.execute("INSERT INTO entry VALUES (?)", (number,))
            connection.close()
            connection = sqlite3.connect(tree / f"{journal}.db")
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM entry").fetchone() == (20,)
            connection.close()
        for name in os.listdir(tree):
            (tree / name).unlink()


def test_open_files_outlive_what_happens_to_their_names(shown: Shown) -> None:
    for source, name in (
        (shown.libs / JAR, shown.ivy / IVY_JAR),
        (shown.more / "d/plain", shown.all / "d/plain"),
    ):
        put(source, b"content")
        with open(name, "r+b") as through, open(source, "rb") as direct:
            os.rename(source, shown.libs / "elsewhere")
            fails(errno.ENOENT, os.stat, name)
            through.write(b"CON")
            through.flush()
            assert direct.read() == b"CONtent"
            (shown.libs / "elsewhere").unlink()
            through.seek(0)
            assert (through.read(), os.fstat(through.fileno()).st_nlink) == (b"CONtent", 0)
        put(source, b"again")
        with open(source, "rb") as direct:
            name.unlink()
            fails(errno.ENOENT, os.stat, source)
            assert direct.read() == b"again"


def test_what_a_tree_does_not_do_is_said(shown: Shown) -> None:
    put(shown.libs / JAR)
    put(shown.more / "d/plain")
    for tree, folder, file in (
        (shown.ivy, "org.acme", IVY_JAR),
        (shown.all, "d", "d/plain"),
    ):
        fails(errno.EOPNOTSUPP, os.open, tree, os.O_TMPFILE | os.O_RDWR)
        put(tree / "other")
        for flags in (EXCHANGE, WHITEOUT):
            fails(errno.EINVAL, renameat2, f"{tree}/other", f"{tree}/{file}", flags)
        fails(errno.EEXIST, renameat2, f"{tree}/other", f"{tree}/{file}", NOREPLACE)
        renameat2(f"{tree}/other", f"{tree}/moved", NOREPLACE)
        fails(errno.EXDEV, os.rename, tree / folder, tree / "renamed")
        fails(errno.EXDEV, os.rename, tree / "moved", shown.mount.path / "moved")
        fails(errno.EISDIR, os.rename, tree / "moved", tree / folder)
        fails(errno.ENOTDIR, os.rename, tree / folder, tree / "moved")
        fails(errno.EISDIR, os.unlink, tree / folder)
        fails(errno.ENOTDIR, os.rmdir, tree / "moved")
        fails(errno.ENOTEMPTY, os.rmdir, tree / folder)
        fails(errno.EEXIST, os.mkdir, tree / folder)
        fails(errno.EEXIST, os.mkdir, tree / "moved")
        fails(errno.EEXIST, os.link, tree / file, tree / "moved")
        fails(errno.EEXIST, os.open, tree / "moved", os.O_CREAT | os.O_EXCL)
        fails(errno.EEXIST, os.symlink, "x", tree / "moved")
        fails(errno.ENOENT, os.open, tree / "none/file", os.O_CREAT | os.O_RDWR)
        fails(errno.ENOTDIR, os.open, tree / "moved/file", os.O_CREAT | os.O_RDWR)
        fails(errno.ENAMETOOLONG, os.open, tree / ("x" * 256), os.O_CREAT | os.O_RDWR)
        fails(errno.EPERM, os.link, tree / folder, tree / "linked")
        mode = (tree / folder).stat().st_mode
        (tree / folder).chmod(0o700)
        granted = access_list((USER_OBJ, 7), (USER, 7, 1001), (GROUP_OBJ, 5), (MASK, 7), (OTHERS, 5))
        os.setxattr(tree / folder, "system.posix_acl_access", granted)
        assert "system.posix_acl_access" not in os.listxattr(tree / folder)
        assert (tree / folder).stat().st_mode == mode
        (tree / "moved").unlink()


def test_nothing_is_made_removed_or_renamed_where_nothing_takes_it(shown: Shown) -> None:
    put(shown.libs / JAR, b"jar")
    closed = shown.create(shown.all.parent / f"{shown.all.name}-ro", "--virtual", shown.libs.name)
    view = shown.create(
        shown.all.parent / f"{closed.name}-ivy", "--view", closed.name, "--layout", "ivy-default"
    )
    shown.mount.expect("is refused, EROFS: there is no repository that takes what is written")
    for tree, file in ((closed, closed / JAR), (view, view / IVY_JAR)):
        fails(errno.EROFS, put, tree / "x")
        fails(errno.EROFS, os.mkdir, tree / "d")
        fails(errno.EROFS, os.symlink, "x", tree / "y")
        fails(errno.EROFS, os.mkfifo, tree / "fifo")
        fails(errno.EROFS, os.link, shown.libs / JAR, tree / "linked")
        fails(errno.EROFS, os.unlink, file)
        fails(errno.EROFS, os.rename, file, tree / "moved")
        fails(errno.ENOTEMPTY, os.rmdir, file.parent)
        fails(errno.EROFS, os.chmod, file.parent, 0o700)
        fails(errno.EROFS, os.utime, file.parent)
        fails(errno.EROFS, os.setxattr, file.parent, "user.note", b"x")
        assert contents(shown.libs) == {os.fsencode(JAR): b"jar"}
        assert contents(tree) == {os.fsencode(file.relative_to(tree)): b"jar"}


def test_what_lies_elsewhere_is_neither_removed_nor_replaced(shown: Shown) -> None:
    put(shown.libs / JAR, b"jar")
    put(shown.all / "own", b"own")
    shown.mount.expect("is refused, EROFS: it lies in another repository than the one that takes")
    run("rm", shown.all / JAR, code=1)
    run("mv", shown.all / "own", shown.all / JAR, code=1)
    run("sed", "-i", "s/a/b/", shown.all / JAR, code=4)
    run("rsync", "-aI", shown.more / "own", shown.all / JAR, code=23)
    run("rm", "-r", shown.all / "org", code=1)
    assert contents(shown.libs) == {os.fsencode(JAR): b"jar"}
    run("cp", shown.more / "own", shown.all / JAR)  # writes to the file, whichever name it was opened by
    assert contents(shown.libs) == {os.fsencode(JAR): b"own"}
    run("sed", "-i", "s/own/new/", shown.all / "own")
    run("rm", shown.all / "own")
    assert contents(shown.more) == {}


def test_names_of_any_bytes_and_of_any_length(shown: Shown) -> None:
    for tree in (shown.ivy, shown.all):
        top = os.fsencode(tree)
        for name in ODD:
            os.makedirs(os.path.join(top, name, name))
            for place in (top + b"/" + name, os.path.join(top, name, name)):
                with open(place + b"/" + name[:200] + b".jar", "wb") as file:
                    file.write(name)
        assert set(os.listdir(top)) == set(ODD)
        assert len(contents(tree)) == 2 * len(ODD)
        assert set(contents(tree).values()) == set(ODD)
        run("rm", "-r", *(f"{tree}/./{os.fsdecode(name)}" for name in ODD))
        deep = tree / "/".join(["d" * 100] * 35)
        deep.mkdir(parents=True)
        put(deep / "file", b"deep")
        assert list(contents(tree).values()) == [b"deep"]
        run("rm", "-r", tree / ("d" * 100))
        assert os.listdir(tree) == []


def test_tokens_make_no_path_components_of_their_own(shown: Shown) -> None:
    """Neither `..` nor nothing at all."""
    for path in ("org/acme/../app/1.0/app-1.0.jar", "org/./app/1.0/app-1.0.jar"):
        put(shown.libs / path)
    put(shown.libs / "a/.../1.0/...-1.0.jar")
    put(shown.libs / ".../.hidden/1.0/.hidden-1.0.jar")
    for folder, names, files in os.walk(shown.ivy):
        assert not {".", "..", ""} & {*names, *files}
        assert Path(folder).is_relative_to(shown.ivy)
    for path in contents(shown.ivy):
        assert (shown.ivy / os.fsdecode(path)).resolve().is_relative_to(shown.ivy)


def test_a_thousand_want_one_name(shown: Shown) -> None:
    """The first one in order has it; when that goes the next one does."""
    members = [shown.more.parent / f"{shown.more.name}-{number}" for number in range(1 << 10)]
    for number, member in enumerate(members):
        put(member / "d/same", b"%d" % number)
    many = shown.more.parent / f"{shown.more.name}-many"
    tree = shown.create(many, "--virtual", ",".join(each.name for each in members))
    same = tree / "d/same"
    for number, member in enumerate(members[:-1]):
        if number < 20:
            assert same.read_bytes() == b"%d" % number
        (member / "d/same").unlink()
    assert contents(tree) == {b"d/same": b"%d" % (len(members) - 1)}
    put(members[5] / "d/same", b"back")
    assert contents(tree) == {b"d/same": b"back"}
    for member in (members[5], members[-1]):
        run("rm", "-r", member / "d")
    assert not contents(tree)
