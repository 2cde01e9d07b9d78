"""Restoring where there are rules: of repositories, views, quotas, locks."""

from __future__ import annotations

import errno

import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.maintenance.snapshots.building import Builder
from casfs.maintenance.snapshots.create import create
from casfs.maintenance.snapshots.diff import comparing, told
from casfs.maintenance.snapshots.restore import Restored, restore
from casfs.namespace.differences import Difference
from casfs.repositories import locking, verbs
from casfs.repositories.filesystem import follower_of, policy_of, registry_of
from casfs.repositories.forcing import Forced, forcing
from casfs.repositories.rules import Rules
from tests.kernel import Kernel
from tests.repositories.making import JAR, LAYOUT, make_directories, make_repository
from tests.session import Session

RELEASE = f"libs/{JAR}"
OLD, NEW = b"old " * 10, b"new " * 20


def take(session: Session) -> None:
    run_inline(create(session.fs, "a"))


def bring(session: Session, *paths: bytes, force: bool = False) -> Restored:
    with forcing(Forced("snapshot restore a", 0) if force else None):
        return run_inline(restore(session.fs, "a", paths))


def write(session: Session, path: str, content: bytes) -> None:
    make_directories(session, path.rpartition("/")[0])
    session.kernel.write_file(path, content)


def remove_tree(kernel: Kernel, path: str) -> None:
    for name in kernel.names(path):
        below = f"{path}/{name.decode()}"
        if kernel.inode(below, follow=False).is_directory:
            remove_tree(kernel, below)
        else:
            kernel.unlink(below)
    kernel.rmdir(path)


def refused(session: Session, *paths: bytes, number: int, match: str = ".") -> None:
    before = session.kernel.tree()
    with pytest.raises(FsError, match=match) as caught:
        bring(session, *paths)
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]
    assert session.kernel.tree() == before


@pytest.mark.parametrize("path", [b"", b"libs"])
def test_immutable_releases_go_by_force_alone(
    session: Session, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    make_repository(session, "libs", with_rules=Rules(immutable=True))
    take(session)
    write(session, RELEASE, OLD)
    refused(session, path, number=errno.EPERM, match=r"app-1\.0\.jar: .*immutable")
    done = bring(session, path, force=True)
    assert done.releases == 1
    assert "forces 'snapshot restore a'" in caplog.text
    assert session.kernel.names("libs") == []


def test_a_release_that_was_removed_comes_back_without(session: Session) -> None:
    make_repository(session, "libs", with_rules=Rules(immutable=True))
    write(session, RELEASE, OLD)
    take(session)
    with forcing(Forced("rm", 0)):
        session.kernel.unlink(RELEASE)
    assert bring(session, b"libs").releases == 0
    assert session.kernel.read_file(RELEASE) == OLD


def test_a_repository_that_is_read_only_stays_as_it_is(session: Session) -> None:
    make_repository(session, "libs")
    write(session, RELEASE, OLD)
    take(session)
    session.kernel.unlink(RELEASE)
    make_repository(session, "libs", with_rules=Rules(read_only=True))
    refused(session, b"libs", number=errno.EROFS)


def test_a_quota_counts_what_comes_and_goes(session: Session) -> None:
    make_repository(session, "libs", with_rules=Rules(quota_files=100))
    write(session, RELEASE, OLD)
    write(session, "libs/deep/one", OLD)
    take(session)
    remove_tree(session.kernel, "libs/org")
    session.kernel.write_file("libs/deep/one", NEW)
    write(session, "libs/more/two", NEW)
    bring(session, b"libs")
    ino = session.kernel.inode("libs").ino
    assert policy_of(session.fs).quotas.used(ino) == (2, 2 * len(OLD))


def test_views_follow_and_are_not_restored_themselves(session: Session) -> None:
    libs = make_repository(session, "libs")
    write(session, RELEASE, OLD)
    make_repository(session, "view", kind="view", layout="ivy-default", members=(libs,))
    run_inline(follower_of(session.fs).drain())
    (name,) = (path for path in session.kernel.tree() if path.startswith(b"view/") and path.endswith(b".jar"))
    take(session)
    remove_tree(session.kernel, "libs/org")
    assert name not in session.kernel.tree()
    refused(session, name, number=errno.EXDEV, match="libs")
    bring(session, b"libs")
    run_inline(follower_of(session.fs).drain())
    assert session.kernel.read_file(name) == OLD


def test_a_repository_that_was_removed_is_one_again(session: Session) -> None:
    libs = make_repository(session, "libs", with_rules=Rules(immutable=True))
    make_repository(session, "view", kind="view", layout="ivy-default", members=(libs,))
    write(session, RELEASE, OLD)
    run_inline(follower_of(session.fs).drain())
    take(session)
    run_inline(verbs.remove(session.fs, [b"view"], force=True))
    with forcing(Forced("rm", 0)):
        remove_tree(session.kernel, "libs")
    assert not registry_of(session.fs).repositories
    done = bring(session)
    assert done.unmade == ["view"]
    again = registry_of(session.fs).repositories[session.kernel.inode("libs").ino]
    assert again.rules.immutable
    assert again.layout is not None
    assert again.layout.name == LAYOUT
    run_inline(follower_of(session.fs).drain())
    above, _, name = RELEASE.rpartition("/")
    row = session.store.namespace.artifacts.of(session.kernel.inode(above).ino, name.encode())
    assert row is not None
    assert row.module == "app"


def test_a_repository_that_was_renamed_goes_back(session: Session) -> None:
    libs = make_repository(session, "libs", with_rules=Rules(immutable=True))
    other = make_repository(session, "other")
    write(session, RELEASE, OLD)
    take(session)
    for old, new in (("libs", "x"), ("other", "libs"), ("x", "other")):
        run_inline(verbs.rename(session.fs, old.encode(), new.encode()))
    bring(session)
    assert (session.kernel.inode("libs").ino, session.kernel.inode("other").ino) == (libs, other)
    assert set(registry_of(session.fs).repositories) == {libs, other}
    with comparing(str(session.path), "a", None) as differences:
        assert list(told(differences.everything())) == []


def test_a_repository_that_was_made_since_stays(session: Session) -> None:
    take(session)
    make_repository(session, "libs")
    write(session, RELEASE, OLD)
    write(session, "plain/file", NEW)
    done = bring(session)
    assert done.left == ["libs"]
    assert session.kernel.names() == [b"libs"]
    assert session.kernel.read_file(RELEASE) == OLD


def test_what_is_locked_stays_as_it_is(session: Session) -> None:
    kernel = session.kernel
    for name in ("locked/file", "locked/deep/two", "free/file"):
        write(session, name, OLD)
    take(session)
    kernel.write_file("locked/file", NEW)
    kernel.unlink("free/file")
    kernel.write_file("free/new", NEW)
    kernel.sync()
    run_inline(locking.lock(session.fs, [b"locked"], "because"))
    refused(session, number=errno.EPERM, match="because")
    refused(session, b"locked/file", number=errno.EPERM, match="because")
    bring(session, b"free")
    assert (kernel.names("free"), kernel.read_file("locked/file")) == ([b"file"], NEW)
    run_inline(locking.unlock(session.fs, [b"locked"]))
    bring(session, b"locked")
    assert kernel.read_file("locked/file") == OLD


def test_a_locked_file_got_its_further_names_back(session: Session) -> None:
    kernel = session.kernel
    kernel.mkdir("libs")
    kernel.write_file("libs/one", b"one")
    kernel.link("libs/one", "libs/two")
    run_inline(create(session.fs, "a"))
    kernel.unlink("libs/two")
    run_inline(locking.lock(session.fs, [b"libs/one"], ""))
    with pytest.raises(FsError) as refused:
        run_inline(restore(session.fs, "a", [b"libs/two"]))
    assert refused.value.errno == errno.EPERM
    assert kernel.inode("libs/one").nlink == 1


def test_a_directory_that_was_locked_after_the_look_moved(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = session.kernel
    kernel.mkdir("libs")
    kernel.mkdir("libs/deep")
    run_inline(create(session.fs, "a"))
    kernel.rename("libs/deep", "libs/moved")
    build = Builder.build

    async def locked(self: Builder, wanted: list[Difference]) -> object:
        await locking.lock(session.fs, [b"libs/moved"], "")
        return await build(self, wanted)

    monkeypatch.setattr(Builder, "build", locked)
    with pytest.raises(FsError) as refused:
        run_inline(restore(session.fs, "a", [b"libs"]))
    assert refused.value.errno == errno.EPERM
    assert {b"libs/moved"} == set(kernel.tree()) - {b"libs"}
