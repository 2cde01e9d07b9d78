"""Restoring: what a snapshot has comes back, all or nothing; what is the same stays as it is."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casfs.errors import CasfsError, FsError
from casfs.fs import commit
from casfs.fs.directories import Directories
from casfs.fs.inodes import InodeTable
from casfs.fs.scheduler import run_inline
from casfs.maintenance.collect import gc
from casfs.maintenance.snapshots import building
from casfs.maintenance.snapshots import restore as module
from casfs.maintenance.snapshots.create import create
from casfs.maintenance.snapshots.diff import comparing, differences_below
from casfs.maintenance.snapshots.restore import restore
from casfs.namespace.differences import Difference, Parts, What
from casfs.namespace.xattrs import Xattrs
from casfs.snapshots.folder import SnapshotFolder
from casfs.store import Store, create_store
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.maintenance.cut_off import CutOff, cut_at
from tests.session import Session
from tests.snapshot_databases import change_database

OLD, NEW = b"old " * 10, b"new " * 20


def snapshot(session: Session, name: str = "a") -> None:
    run_inline(create(session.fs, name))


def differences(session: Session, name: str = "a", path: bytes = b"") -> list[Difference]:
    session.kernel.sync()
    with comparing(str(session.path), name, None) as found:
        return list(differences_below(found, path))


def brought_back(session: Session, *paths: bytes, **more: object) -> module.Restored:
    return run_inline(restore(session.fs, "a", paths, **more))  # type: ignore[arg-type]


def shown(kernel: Kernel) -> dict[bytes, tuple[object, ...]]:
    """What programs see, but for numbers of inodes, and the times that nobody sets."""
    return {
        path: (entry.mode, entry.nlink, entry.owner, entry.mtime, entry.content, entry.xattrs)
        for path, entry in kernel.tree().items()
    }


def inos(kernel: Kernel) -> dict[bytes, int]:
    return {path: kernel.inode(path, follow=False).ino for path in kernel.tree()}


def in_trash(session: Session) -> set[bytes]:
    session.kernel.sync()
    return {row.path for row, _ in session.store.namespace.trash.sized()}


@pytest.fixture
def filled(session: Session) -> Session:
    kernel = session.kernel
    session.fs.policy.trash.minimal_age_ns = 0  # type: ignore[attr-defined]
    kernel.mkdir("libs")
    kernel.mkdir("libs/deep", 0o750)
    kernel.write_file("libs/one", OLD)
    kernel.write_file("libs/deep/two", NEW)
    kernel.link("libs/one", "libs/deep/linked")
    kernel.symlink("one", "libs/link")
    kernel.setxattr("libs/one", b"user.casfs.prop.qa", b"passed")
    kernel.write_file("top", b"top")
    kernel.utime("libs/one", 5 * 10**9, 6 * 10**9)
    snapshot(session)
    return session


def test_a_removed_file_comes_back_as_it_was(filled: Session) -> None:
    kernel = filled.kernel
    before = shown(kernel)
    kernel.unlink("libs/one")
    kernel.unlink("libs/deep/linked")
    done = brought_back(filled, b"libs")
    assert (done.restored, done.removed, done.before) == (2, 0, "")
    assert shown(kernel) == before
    assert kernel.inode("libs/one") is kernel.inode("libs/deep/linked")
    assert kernel.getxattr("libs/one", b"user.casfs.prop.qa") == b"passed"
    assert not differences(filled)


def test_one_name_of_a_file_comes_back_as_a_link(filled: Session) -> None:
    kernel = filled.kernel
    ino = kernel.inode("libs/one").ino
    kernel.unlink("libs/deep/linked")
    brought_back(filled, b"libs/deep/linked")
    assert kernel.inode("libs/deep/linked").ino == ino
    assert kernel.inode("libs/one").nlink == 2


def test_what_is_the_same_keeps_its_inode(filled: Session) -> None:
    kernel = filled.kernel
    numbers = inos(kernel)
    kernel.write_file("libs/deep/two", OLD + NEW)
    kernel.chmod("libs/one", 0o600)
    kernel.rename("top", "elsewhere")
    brought_back(filled)
    after = inos(kernel)
    assert after.pop(b"libs/deep/two") != numbers.pop(b"libs/deep/two")
    assert after == numbers
    assert kernel.read_file("libs/deep/two") == NEW
    assert stat.S_IMODE(kernel.inode("libs/one").mode) == 0o644


def test_what_goes_is_in_the_trash(filled: Session) -> None:
    kernel = filled.kernel
    kernel.write_file("libs/deep/two", OLD + NEW)
    kernel.mkdir("libs/made")
    kernel.write_file("libs/made/since", NEW + NEW)
    brought_back(filled, b"libs")
    assert in_trash(filled) == {b"libs/deep/two", b"libs/made/since"}
    assert not differences(filled)


def test_everything_is_in_a_snapshot_first(filled: Session) -> None:
    kernel = filled.kernel
    kernel.write_file("libs/deep/two", OLD + NEW)
    kernel.write_file("made", OLD + OLD)
    changed = shown(kernel)
    done = brought_back(filled)
    assert done.before.startswith("before-restore-")
    assert b"made" not in in_trash(filled)
    assert not differences(filled)
    run_inline(restore(filled.fs, done.before))
    assert shown(kernel) == changed


def test_a_directory_that_was_moved_goes_back(filled: Session) -> None:
    kernel = filled.kernel
    numbers, before = inos(kernel), shown(kernel)
    kernel.rename("libs", "elsewhere")
    kernel.mkdir("libs")
    kernel.rename("elsewhere/deep", "libs/deep")
    kernel.rename("elsewhere", "libs/deep/inside")
    brought_back(filled)
    assert shown(kernel) == before
    assert inos(kernel) == numbers
    assert not differences(filled)


def test_a_file_in_the_place_of_a_directory_and_the_other_way_round(filled: Session) -> None:
    kernel = filled.kernel
    before = shown(kernel)
    kernel.rename("libs/deep", "libs/was")
    kernel.write_file("libs/deep", b"a file")
    kernel.unlink("top")
    kernel.mkdir("top")
    kernel.write_file("top/below", b"below")
    brought_back(filled)
    assert shown(kernel) == before
    assert not differences(filled)


def test_directories_on_the_way_are_made(filled: Session) -> None:
    kernel = filled.kernel
    for name in ("libs/deep/two", "libs/deep/linked", "libs/one", "libs/link"):
        kernel.unlink(name)
    kernel.rmdir("libs/deep")
    kernel.rmdir("libs")
    brought_back(filled, b"/libs/deep/two")
    assert set(kernel.tree()) >= {b"libs", b"libs/deep", b"libs/deep/two"}
    assert b"libs/one" not in kernel.tree()
    assert stat.S_IMODE(kernel.inode("libs/deep").mode) == 0o750


def test_to_another_path(filled: Session) -> None:
    kernel = filled.kernel
    kernel.write_file("libs/one", NEW)
    brought_back(filled, b"libs", to=b"copy")
    assert kernel.read_file("copy/one") == OLD
    assert kernel.read_file("libs/one") == NEW
    assert kernel.inode("copy/one") is kernel.inode("copy/deep/linked")
    assert kernel.inode("copy/one").ino != kernel.inode("libs/one").ino
    with pytest.raises(FsError, match="already"):
        brought_back(filled, b"libs/one", to=b"copy")


def test_only_looking_changes_nothing(filled: Session) -> None:
    kernel = filled.kernel
    kernel.unlink("top")
    before = shown(kernel)
    done = brought_back(filled, dry_run=True)
    assert (done.restored, done.before) == (1, "")
    assert shown(kernel) == before


def test_a_file_open_for_writing_lives_on(filled: Session) -> None:
    kernel = filled.kernel
    with kernel.open("libs/one", os.O_RDWR) as file:
        file.write(NEW)
        brought_back(filled, b"libs")
        assert kernel.read_file("libs/one") == OLD
        file.write(OLD, len(NEW))
        assert file.read() == NEW + OLD


def test_contents_that_are_missing_are_named_before_anything_is_done(filled: Session) -> None:
    kernel = filled.kernel
    digest = kernel.getxattr("libs/deep/two", b"user.casfs.blake3").decode()
    kernel.unlink("libs/deep/two")
    kernel.unlink("top")
    kernel.sync()
    before = shown(kernel)
    path = next(path for path in (filled.path / "blobs").glob("*/*") if path.name == digest)
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(CasfsError, match="libs/deep/two"):
        brought_back(filled)
    assert shown(kernel) == before
    path.write_bytes(data)
    path.chmod(0o400)


def test_what_the_snapshot_has_not(filled: Session) -> None:
    filled.kernel.write_file("new", b"new")
    with pytest.raises(FsError, match="does not have it") as caught:
        brought_back(filled, b"new")
    assert caught.value.errno == errno.ENOENT
    filled.kernel.unlink("libs/deep/linked")
    filled.kernel.unlink("libs/deep/two")
    filled.kernel.rmdir("libs/deep")
    filled.kernel.write_file("libs/deep", b"a file")
    with pytest.raises(FsError) as caught:
        brought_back(filled, b"libs/deep/two")
    assert caught.value.errno == errno.ENOTDIR


# All or nothing


def change(kernel: Kernel) -> None:
    """Something of everything that a restore has to undo."""
    kernel.rename("libs/deep", "libs/was")
    kernel.mkdir("libs/deep")
    kernel.write_file("libs/deep/since", OLD + OLD)
    kernel.write_file("libs/was/two", OLD + NEW)
    kernel.unlink("libs/link")
    kernel.symlink("elsewhere", "libs/link")
    kernel.chmod("libs", 0o700)
    kernel.setxattr("libs", b"user.x", b"y")
    kernel.rename("top", "libs/top")
    kernel.unlink("libs/one")
    kernel.mkdir("made")
    kernel.write_file("made/file", NEW + NEW)
    kernel.sync()


@pytest.mark.parametrize("path", [b"", b"libs"])
def test_what_fails_in_the_middle_leaves_everything_as_it_was(
    filled: Session, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    kernel = filled.kernel
    change(kernel)
    before, numbers = shown(kernel), inos(kernel)
    left, failures = 0, 0

    def failing(method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.ENOSPC, "no room")
            return method(*args, **more)

        return call

    while True:
        with monkeypatch.context() as patch:
            for name in ("add", "add_below", "link", "remove", "move", "point"):
                patch.setattr(Directories, name, failing(getattr(Directories, name)))
            patch.setattr(Xattrs, "set", failing(Xattrs.set))
            patch.setattr(InodeTable, "create", failing(InodeTable.create))
            failures += 1
            left = failures
            try:
                done = brought_back(filled, path)
            except OSError as error:
                done = None
                assert error.errno == errno.ENOSPC  # noqa: PT017
        if done is not None and left > 0:
            break
        if done is None:
            assert (shown(kernel), inos(kernel)) == (before, numbers), failures
        else:  # it was behind the commit, in the sweep
            assert not differences(filled, path=path)
            break
        filled.reopen()
        kernel = filled.kernel
        assert (shown(kernel), inos(kernel)) == (before, numbers), failures
    assert failures > 10
    assert not differences(filled, path=path)
    filled.reopen()  # which removes what the sweep has left


@pytest.mark.parametrize("path", [b"", b"libs"])
def test_cut_off_at_each_step_it_is_done_or_not(
    filled: Session, scratch: Path, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    """What is made is committed one by one, as where it is much."""
    monkeypatch.setattr(building, "STEP", 1)
    monkeypatch.setattr(commit, "GROUP_LIMIT", 1)
    change(filled.kernel)
    before = contents(filled.kernel)
    filled.stop()
    images = 0
    whole = None
    for last in range(400):
        image = scratch / f"image{last}"
        shutil.copytree(filled.path, image)
        session = Session(image)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, last)
            try:
                brought_back(session, path)
                whole = contents(session.kernel)
            except CutOff:
                pass
            session.abandon()
        session = Session(image)
        now = contents(session.kernel)
        if whole is not None:
            assert now == whole
            assert not differences(session, path=path)
        assert now == before or not telling(differences(session, path=path)), last
        for name in SnapshotFolder(session.store.directory).unfinished():
            SnapshotFolder(session.store.directory).abandon(name)
        session.stop()
        collect(image)
        assert_clean(image)
        shutil.rmtree(image)
        images += 1
        if whole is not None:
            break
    assert images > 8
    filled.start()


def contents(kernel: Kernel) -> dict[bytes, object]:
    return {path: (entry.mode, entry.content, entry.xattrs) for path, entry in kernel.tree().items()}


def collect(path: Path) -> None:
    with closing(Store(str(path), shared=True)) as store:
        gc.execute(store, gc.plan(store, grace_ns=0, full=True))


# Whatever has happened since


NAMES = [b"a", b"b", b"c", b"dir", b"dir/a", b"dir/b", b"dir/sub", b"dir/sub/a", b"other", b"other/b"]

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "mkdir", "unlink", "rmdir", "rename", "link", "chmod", "xattr", "symlink"]),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
    ),
    max_size=25,
)


def do(kernel: Kernel, operation: tuple[str, bytes, bytes], number: int) -> None:
    verb, name, other = operation
    try:
        match verb:
            case "write":
                kernel.write_file(name, b"%d " % (number % 5) * 20)
            case "mkdir":
                kernel.mkdir(name)
            case "unlink":
                kernel.unlink(name)
            case "rmdir":
                kernel.rmdir(name)
            case "rename":
                kernel.rename(name, other)
            case "link":
                kernel.link(name, other)
            case "chmod":
                kernel.chmod(name, 0o700 + number % 8)
            case "xattr":
                kernel.setxattr(name, b"user.n%d" % (number % 3), b"%d" % number)
            case "symlink":
                kernel.symlink(other, name)
    except FsError:
        pass


def telling(found: list[Difference]) -> list[Difference]:
    return [each for each in found if each.what is not What.CHANGED or each.parts != Parts.TIMES]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(OPERATIONS, OPERATIONS, st.sampled_from([b"", b"dir", b"dir/sub", b"a"]))
def test_after_it_nothing_differs(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[str, bytes, bytes]],
    then: list[tuple[str, bytes, bytes]],
    path: bytes,
) -> None:
    folder = Path(tmp_path_factory.mktemp("restore"))
    create_store(str(folder / "store"), fan_out=1)
    session = Session(folder / "store")
    kernel = session.kernel
    for number, operation in enumerate(first):
        do(kernel, operation, number)
    snapshot(session)
    there = kernel.tree()
    numbers = inos(kernel)
    for number, operation in enumerate(then):
        do(kernel, operation, number + 7)
    outside = {name: entry for name, entry in kernel.tree().items() if path and not below(name, path)}
    if path and path not in there:
        with pytest.raises(FsError):
            brought_back(session, path)
    else:
        unchanged = same(session, path, numbers)
        done = False
        with suppress(NotADirectoryError):
            brought_back(session, path)
            done = True
        if done:
            assert not telling(differences(session, path=path))
            now = kernel.tree()
            assert {name for name in now if below(name, path)} == {
                name for name in there if below(name, path)
            }
            for name, entry in there.items():
                if below(name, path):
                    assert now[name].content == entry.content, name
            after = inos(kernel)
            assert {name: after[name] for name in unchanged} == unchanged
            if path:
                assert {name for name in now if not below(name, path)} >= set(outside)
    session.stop()
    assert_clean(folder / "store")


def below(name: bytes, path: bytes) -> bool:
    return not path or name == path or name.startswith(path + b"/")


def same(session: Session, path: bytes, numbers: dict[bytes, int]) -> dict[bytes, int]:
    """Names that nothing is said of, with the numbers of their inodes."""
    told_of = {each.path for each in differences(session, path=path)}
    now = inos(session.kernel)
    return {
        name: ino
        for name, ino in numbers.items()
        if now.get(name) == ino and below(name, path) and name not in told_of
    }


@pytest.mark.parametrize("paths", [(), (b"libs",)], ids=["everything", "a path"])
@pytest.mark.parametrize("replaced", [False, True])
def test_what_others_put_into_a_directory_that_goes_was_lost_with_it(
    filled: Session, monkeypatch: pytest.MonkeyPatch, paths: tuple[bytes, ...], replaced: bool
) -> None:
    kernel = filled.kernel
    kernel.mkdir("libs/made")
    kernel.mkdir("libs/made/below")
    kernel.write_file("libs/made/below/since", NEW + NEW)
    build = building.Builder.build

    async def beside(self: building.Builder, wanted: list[Difference]) -> object:
        kernel.write_file("later", b"later" * 100)
        kernel.rename("later", "libs/made/below/since" if replaced else "libs/made/below/later")
        return await build(self, wanted)

    monkeypatch.setattr(building.Builder, "build", beside)
    with pytest.raises(FsError, match="libs/made/below: others have changed it") as refused:
        brought_back(filled, *paths)
    assert refused.value.errno == errno.EBUSY
    assert kernel.read_file(f"libs/made/below/{'since' if replaced else 'later'}") == b"later" * 100
    assert not in_trash(filled) - {b"libs/made/below/since"}
    monkeypatch.undo()
    brought_back(filled, *paths)
    assert b"libs/made" not in kernel.tree()


def test_what_was_written_after_the_snapshot_that_is_made_before_was_lost(
    filled: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = filled.kernel
    for name in ("libs/made", "libs/deep/two"):
        kernel.write_file(name, OLD + NEW)
    before = in_trash(filled)
    build = building.Builder.build

    async def beside(self: building.Builder, wanted: list[Difference]) -> object:
        for name in ("libs/made", "libs/deep/two"):
            handle = kernel.open(name, os.O_WRONLY)
            handle.write(b"after", 0)
            handle.close()
        return await build(self, wanted)

    monkeypatch.setattr(building.Builder, "build", beside)
    assert brought_back(filled).before
    kernel.sync()
    assert len(list(filled.store.namespace.trash.sized())) == len(before) + 2
    assert in_trash(filled) == {b"libs/made", b"libs/deep/two"}


@pytest.mark.parametrize(
    "change",
    [
        "size = size + 1",
        "blob_id = NULL",
        "mode = 33188 & 4095 | 4096",
        "mode = 41471, target = zeroblob(5000), blob_id = NULL",
    ],
)
def test_a_row_that_cannot_be_one_was_taken_over_from_a_hostile_snapshot(
    filled: Session, change: str
) -> None:
    kernel = filled.kernel
    folder = filled.path / "snapshots" / "a"
    change_database(folder, f"UPDATE inode SET {change} WHERE ino = ?", kernel.inode("libs/deep/two").ino)
    kernel.unlink("libs/deep/two")
    before = shown(kernel)
    with pytest.raises(FsError) as refused:
        brought_back(filled, b"libs")
    assert refused.value.errno == errno.EIO
    assert shown(kernel) == before
