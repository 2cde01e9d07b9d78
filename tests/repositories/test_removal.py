"""Removing files and whole trees by a command."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.repositories import removal
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.forcing import Forced, forcing
from casfs.repositories.removal import Amount, Removal
from casfs.repositories.rules import Rules
from casfs.trash.filesystem import trash_of
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.repositories.making import JAR, make_directories, make_repository
from tests.repositories.test_derived import IVY_JAR, files, make_tree
from tests.session import Session


def remove(
    kernel: Kernel, path: str, *, recursive: bool = True, uid: int = 0, between: Callable[[], object] = int
) -> Amount:
    """As `casfs rm`; `between` looking and removing something happens."""
    amount = Amount()
    one = Removal(kernel.fs, path.encode(), uid, amount)
    run_inline(one.look(recursive=recursive))
    between()
    run_inline(one.run())
    run_inline(kernel.fs.group.durable())
    return amount


def refused(number: int, kernel: Kernel, path: str, text: str, **how: bool) -> None:
    with pytest.raises(FsError, match=text) as raised:
        remove(kernel, path, **how)
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


@pytest.fixture
def tree(session: Session, kernel: Kernel) -> Kernel:
    make_directories(session, "top/a/b")
    for number in range(300):
        make_directories(session, f"top/a/{number % 7}")
        kernel.write_file(f"top/a/{number % 7}/{number}", b"x" * 10)
    kernel.symlink("x", "top/link")
    kernel.write_file("beside", b"stays")
    return kernel


def test_a_tree_goes_as_a_whole(tree: Kernel, session: Session) -> None:
    assert remove(tree, "/top") == Amount(301, 10, 3001)
    assert tree.names() == [b"beside"]
    session.stop()
    assert_clean(session.path)


def test_a_file_goes_without_its_directory(tree: Kernel) -> None:
    assert remove(tree, "/top/a/1/1", recursive=False) == Amount(1, 0, 10)
    assert remove(tree, "top//link", recursive=False) == Amount(1, 0, 1)
    assert b"1" not in tree.names("top/a/1")


def test_what_is_removed_goes_to_the_trash_by_who_has_asked(session: Session, kernel: Kernel) -> None:
    trash_of(session.fs).minimal_age_ns = 0
    make_directories(session, "top/a")
    kernel.write_file("top/a/file", b"content")
    session.rest()
    remove(kernel, "top", uid=7)
    ((_, row),) = [(row.path, row) for row in session.store.namespace.trash.oldest(1 << 62, (-1, -1), 9)]
    assert (row.path, row.uid, row.reason) == (b"top/a/file", 7, "removed")


def test_a_tree_of_any_depth_goes(session: Session, kernel: Kernel) -> None:
    fs = session.fs
    above = kernel.inode("").ino
    for _ in range(3_000):
        above = run_inline(fs.tree.make(above, b"d", 0o40755, 0, 0)).ino
    assert remove(kernel, "d") == Amount(0, 3_000, 0)
    assert kernel.names() == []


@pytest.mark.parametrize(
    ("path", "number", "text"),
    [
        ("/absent", errno.ENOENT, "^.*/absent: No such file"),
        ("/beside/below", errno.ENOTDIR, "/beside/below"),
        ("/", errno.EINVAL, "root directory itself"),
        ("/top/..", errno.EINVAL, "not allowed"),
        ("/.casfs", errno.EPERM, "/.casfs: Operation not permitted"),
    ],
)
def test_what_cannot_be_removed(tree: Kernel, session: Session, path: str, number: int, text: str) -> None:
    trash_of(session.fs).minimal_age_ns = 0
    session.rest()
    tree.unlink("top/a/1/1")
    run_inline(session.fs.group.durable())
    refused(number, tree, path, text)


def test_a_directory_is_asked_for_as_such(tree: Kernel) -> None:
    refused(errno.EISDIR, tree, "/top/a", "remove it with -r", recursive=False)


# Rules


@pytest.fixture
def immutable(session: Session, kernel: Kernel) -> Kernel:
    make_repository(session, "libs", with_rules=Rules(immutable=True))
    make_directories(session, f"libs/{JAR}".rpartition("/")[0])
    make_directories(session, "libs/org/acme/app/0.9")
    kernel.write_file("libs/org/acme/app/0.9/notes", b"no artifact")
    kernel.write_file(f"libs/{JAR}", b"jar")
    make_tree(session, "ivy", "view", ["libs"], "ivy-default")
    make_tree(session, "all", "virtual", ["libs"], deploy="libs")
    return kernel


@pytest.mark.parametrize("path", ["libs/org", "ivy/org.acme", "all/org", f"ivy/{IVY_JAR}", f"all/{JAR}"])
def test_where_something_is_kept_nothing_goes(immutable: Kernel, path: str) -> None:
    before = files(immutable, "libs")
    refused(
        errno.EPERM, immutable, path, r"libs/org/acme/app/1\.0/app-1\.0\.jar: .* release, which is immutable"
    )
    assert files(immutable, "libs") == before


@pytest.mark.parametrize("path", ["libs/org", "ivy/org.acme", "all/org"])
def test_by_force_it_goes(immutable: Kernel, session: Session, path: str) -> None:
    forced = Forced("rm", 0)
    with forcing(forced):
        remove(immutable, path)
    assert forced.releases
    left = {"notes"} if path.startswith("ivy") else set()
    assert {name.rpartition("/")[2] for name in files(immutable, "libs")} == left
    run_inline(follower_of(session.fs).drain())
    assert immutable.names("ivy") == []
    session.stop()
    assert_clean(session.path)


def test_a_tree_with_more_than_a_rename_may_have_goes(
    immutable: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casfs.repositories.guard.LIMIT", 1)
    with forcing(Forced("rm", 0)):
        assert remove(immutable, "libs/org").files == 2


def test_repositories_that_others_need_stay_with_all_they_hold(immutable: Kernel) -> None:
    with forcing(Forced("rm", 0)):
        refused(errno.EBUSY, immutable, "libs", "other repositories show it")
        refused(errno.EBUSY, immutable, "ivy", "casfs repo rm removes")
    assert len(files(immutable, "libs")) == 2


def test_a_repository_goes_with_its_directory(session: Session, kernel: Kernel) -> None:
    make_repository(session, "libs")
    make_directories(session, "libs/a")
    kernel.write_file("libs/a/b", b"")
    remove(kernel, "libs")
    assert registry_of(session.fs).repositories == {}


def test_nothing_goes_through_a_tree_that_is_not_written_to(session: Session, kernel: Kernel) -> None:
    make_repository(session, "libs")
    make_directories(session, f"libs/{JAR}".rpartition("/")[0])
    kernel.write_file(f"libs/{JAR}", b"jar")
    make_tree(session, "all", "virtual", ["libs"])
    for path in ("all/org", f"all/{JAR}"):
        refused(errno.EROFS, kernel, path, f"{path}: there is no repository that takes what is written")
    assert len(files(kernel, "libs")) == 1


# What others do meanwhile


def test_what_has_gone_meanwhile_is_no_error(tree: Kernel) -> None:
    def others() -> None:
        for number in range(0, 300, 2):
            tree.unlink(f"top/a/{number % 7}/{number}")

    assert remove(tree, "top/a", between=others) == Amount(150, 9, 1500)


def test_a_directory_that_is_moved_away_meanwhile_keeps_what_it_has(
    tree: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    unlink = tree.fs.tree.unlink

    async def moves(*words: object) -> object:
        found = await unlink(*words)  # type: ignore[arg-type]
        seen.append(words)
        if len(seen) == 5:
            tree.rename("top/a", "kept")
        return found

    monkeypatch.setattr(tree.fs.tree, "unlink", moves)
    with pytest.raises(FsError, match="moved meanwhile"):
        remove(tree, "top")
    assert len(seen) == 5
    assert sum(len(tree.names(f"kept/{number}")) for number in range(7)) == 300 - len(
        [words for words in seen if words[1] != b"link"]
    )


def test_what_comes_meanwhile_stays(tree: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    rmdir = tree.fs.tree.rmdir

    async def makes(parent: int, name: bytes, uid: int) -> object:
        if name == b"a":
            tree.write_file("top/a/new", b"new")
        return await rmdir(parent, name, uid)

    monkeypatch.setattr(tree.fs.tree, "rmdir", makes)
    refused(errno.ENOTEMPTY, tree, "top", "top/a: Directory not empty")
    assert tree.read_file("top/a/new") == b"new"


def test_others_are_served_meanwhile(tree: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []
    pause = tree.fs.scheduler.pause

    async def counted() -> None:
        pauses.append(1)
        await pause()

    monkeypatch.setattr(tree.fs.scheduler, "pause", counted)
    remove(tree, "top")
    assert len(pauses) >= 2 * 300 // removal.STEP
