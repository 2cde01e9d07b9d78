"""Making snapshots: what they have, and what is left of one that is cut off."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import CasfsError, UsageError
from casfs.filestore.durable import Durable
from casfs.filestore.reflink import can_clone
from casfs.filestore.staging import POOL_SIZE
from casfs.fs.scheduler import run_inline
from casfs.maintenance.check.fsck import check
from casfs.maintenance.collect import gc
from casfs.maintenance.snapshots import create as module
from casfs.maintenance.snapshots.create import create, drop
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.manifest import Manifest
from casfs.space import Left
from casfs.store import Store
from tests.invariants import assert_clean
from tests.maintenance.cut_off import CutOff, cut_at
from tests.session import Session

OLD, NEW, OTHER = b"old " * 10, b"new " * 20, b"other " * 30
LARGE = bytes(range(256)) * 1200


def take(session: Session, name: str = "a", **more: object) -> Manifest:
    return run_inline(create(session.fs, name, **more))  # type: ignore[arg-type]


def has(path: Path, name: str = "a") -> dict[bytes, tuple[int, str | None]]:
    """The files in the root of a snapshot: size and digest; read without any code of casfs."""
    with closing(
        sqlite3.connect(f"file:{path}/snapshots/{name}/casfs.db?immutable=1", uri=True)
    ) as connection:
        rows = connection.execute(
            """SELECT d.name, i.size, hex(b.blake3) FROM dentry AS d JOIN inode AS i ON i.ino = d.ino
               LEFT JOIN blob AS b ON b.id = i.blob_id WHERE d.parent = 1 AND d.type = 8"""
        ).fetchall()
        assert (
            connection.execute("SELECT count(*) FROM inode WHERE staged IS NOT NULL OR nlink = 0").fetchone()[
                0
            ]
            == 0
        )
        assert connection.execute(
            """SELECT count(*) FROM blob AS b
               WHERE refs <> (SELECT count(*) FROM inode AS i WHERE i.blob_id = b.id) OR refs = 0"""
        ).fetchone() == (0,)
    return {name: (size, digest.lower() or None) for name, size, digest in rows}


def of(content: bytes) -> tuple[int, str | None]:
    return len(content), blake3(content).hexdigest() if content else None


def collect(path: Path) -> None:
    with closing(Store(str(path), shared=True)) as store:
        gc.execute(store, gc.plan(store, grace_ns=0, full=True))


def assert_sound(path: Path) -> None:
    """Each content that a snapshot refers to is there, row and file."""
    report = check(str(path), deep=True)
    assert [problem.detail for problem in report.problems if problem.kind != "left-snapshot"] == []


def test_it_has_what_was_there_at_that_moment(session: Session) -> None:
    kernel = session.kernel
    kernel.write_file("file", OLD)
    kernel.write_file("empty", b"")
    before = kernel.tree()
    manifest = take(session, reason="why", expires_ns=5, job="daily")
    kernel.write_file("file", NEW)
    kernel.write_file("later", NEW)
    kernel.sync()
    assert has(session.path) == {b"file": of(OLD), b"empty": of(b"")}
    assert (manifest.reason, manifest.expires_ns, manifest.job) == ("why", 5, "daily")
    assert manifest.here
    assert manifest.unsteady == ()
    assert set(before) == {b"file", b"empty"}


def test_what_is_open_is_in_it_as_of_the_last_commit(session: Session) -> None:
    kernel = session.kernel
    kernel.write_file("sealed", LARGE)
    with kernel.open("sealed", os.O_RDWR) as sealed, kernel.open("new", os.O_CREAT | os.O_RDWR) as new:
        sealed.write(NEW)
        new.write(OLD)
        new.fsync()
        new.write(OTHER, len(OLD))
        take(session)
        new.write(NEW, 0)
        found = has(session.path)
        assert found[b"new"] in (of(OLD), of(OLD + OTHER))
        assert found[b"sealed"] in (of(LARGE), of(NEW + LARGE[len(NEW) :]))
    kernel.sync()
    collect(session.path)
    session.stop()
    assert_sound(session.path)


def test_a_file_without_a_name_is_not_in_it(session: Session) -> None:
    kernel = session.kernel
    with kernel.open("file", os.O_CREAT | os.O_RDWR) as file:
        file.write(OLD)
        file.fsync()
        kernel.unlink("file")
        take(session)
        assert has(session.path) == {}


def test_a_sparse_file_is_copied_as_one(session: Session) -> None:
    kernel = session.kernel
    with kernel.open("sparse", os.O_CREAT | os.O_RDWR) as file:
        file.write(OLD, 1 << 30)
        file.truncate(2 << 30)
        file.fsync()
        take(session)
        assert has(session.path)[b"sparse"][0] == 2 << 30
        assert sum(path.stat().st_blocks * 512 for path in (session.path / "blobs").glob("*/*")) < 10 << 20
        kernel.unlink("sparse")
    run_inline(drop(session.fs, "a"))


def test_a_name_that_is_taken_or_none(session: Session) -> None:
    take(session)
    with pytest.raises(CasfsError, match="already"):
        take(session)
    with pytest.raises(UsageError):
        take(session, "../b")
    assert SnapshotFolder(session.store.directory).names() == ["a"]


def test_what_it_holds_is_collected_when_it_is_dropped(session: Session) -> None:
    kernel = session.kernel
    kernel.write_file("file", OLD)
    take(session)
    kernel.unlink("file")
    kernel.sync()
    collect(session.path)
    assert session.blobs == 1
    run_inline(drop(session.fs, "a"))
    collect(session.path)
    assert session.blobs == 0


def test_one_that_fails_leaves_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.kernel.write_file("file", OLD)

    def fail(*_: object) -> None:
        raise OSError(28, "no room")

    monkeypatch.setattr(module, "make_snapshot", fail)
    with pytest.raises(OSError, match="no room"):
        take(session)
    folder = SnapshotFolder(session.store.directory)
    assert folder.names() == folder.unfinished() == []
    monkeypatch.undo()
    take(session)


def test_copies_of_one_that_failed_in_its_moment_were_left_with_their_descriptors(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, copy = session.kernel, module._copy_data
    files = [kernel.open(name, os.O_CREAT | os.O_RDWR) for name in ("one", "two")]
    for number, file in enumerate(files):
        file.write(LARGE[: 1000 * (number + 1)])
        file.fsync()

    def fail(source: int, target: int, size: int) -> None:
        copy(source, target, size)
        if size > 1000:
            raise OSError(28, "no room")

    monkeypatch.setattr(module, "_copy_data", fail)

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(POOL_SIZE):
        with pytest.raises(OSError, match="no room"):
            take(session)
    staged = [path.stat().st_size for path in (session.path / "staging").iterdir()]
    assert sum(staged) == 3000
    assert len(staged) <= POOL_SIZE + 2
    assert len(os.listdir("/proc/self/fd")) <= before + POOL_SIZE + 2
    for file in files:
        file.close()


def test_large_files_were_copied_while_the_log_of_the_database_grew(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    if can_clone(session.store.directory):
        pytest.skip("they are cloned")
    monkeypatch.setattr(module, "COPIED_BYTES", 0)
    with session.kernel.open("open", os.O_CREAT | os.O_RDWR) as file:
        file.write(NEW)
        file.fsync()
        steps: list[str] = []
        close, copy = module.LiveRows.close, module._copy_data
        monkeypatch.setattr(module.LiveRows, "close", lambda rows: (steps.append("close"), close(rows)))
        monkeypatch.setattr(module, "_copy_data", lambda *given: (steps.append("copy"), copy(*given)))
        take(session)
        assert steps[:2] == ["close", "copy"]


def test_the_room_for_copies_of_large_files_is_looked_at_before(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    if can_clone(session.store.directory):
        pytest.skip("they are cloned")
    monkeypatch.setattr(module, "COPIED_BYTES", 0)
    with session.kernel.open("open", os.O_CREAT | os.O_RDWR) as file:
        file.write(LARGE)
        file.fsync()
        copy = module.LiveRows.copy_to

        def full(rows: module.LiveRows, path: str) -> None:
            copy(rows, path)
            monkeypatch.setattr(type(session.store.filestore.space), "left", lambda _: Left(1000, 1000))

        monkeypatch.setattr(module.LiveRows, "copy_to", full)
        monkeypatch.setattr(module, "_copy_data", lambda *_: pytest.fail("it is copied"))
        with pytest.raises(OSError, match="copies of what is being written"):
            take(session)
        monkeypatch.undo()


@pytest.mark.parametrize("removed_by", ["the next one", "the collector"])
def test_what_is_left_of_snapshots_was_never_removed(session: Session, removed_by: str) -> None:
    folder = session.path / "snapshots"
    take(session, "b")
    for name in (".new-snapshots-20200101T000000Z", ".gone-snapshots-0123abcd"):
        (folder / name).mkdir()
        (folder / name / "casfs.db.part").write_bytes(LARGE)
        os.utime(folder / name, (0, 0))
    if removed_by == "the collector":
        with gc.opened(str(session.path)):
            pass
    else:
        take(session)
    assert {path.name for path in folder.iterdir()} <= {"a", "b", ".serial"}


# Beside the collector, and cut off


@pytest.fixture
def busy(session: Session) -> Iterator[Session]:
    """Files that are sealed, and one that is open; an orphan that may be in no snapshot."""
    kernel = session.kernel
    kernel.write_file("file", OLD)
    kernel.write_file("large", LARGE)
    kernel.write_file("gone", OTHER)
    kernel.sync()
    kernel.unlink("gone")
    yield session
    if session.running:
        session.stop()


def test_with_a_collection_before_each_step(busy: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, runs = busy.kernel, 0
    collecting = False

    def between(method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            nonlocal runs, collecting
            if not collecting and not busy.fs.group.active and is_free(busy.path):
                collecting = True
                collect(busy.path)
                runs += 1
                collecting = False
            return method(*args, **more)

        return call

    with kernel.open("open", os.O_CREAT | os.O_RDWR) as file:
        file.write(NEW)
        file.fsync()
        for name in (
            "create",
            "write_whole",
            "rename",
            "link",
            "unlink",
            "fdatasync",
            "fsync_path",
            "syncfs",
        ):
            monkeypatch.setattr(Durable, name, between(getattr(Durable, name)))
        take(busy)
        monkeypatch.undo()
    kernel.unlink("open")
    kernel.unlink("large")
    kernel.sync()
    collect(busy.path)
    assert runs > 5
    assert has(busy.path) == {b"file": of(OLD), b"large": of(LARGE), b"open": of(NEW)}
    busy.stop()
    assert_sound(busy.path)


def is_free(path: Path) -> bool:
    """Has nobody the turnstile, so that a collection does not wait?"""
    fd = os.open(path / "run/turnstile", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_cut_off_at_each_step_nothing_is_lost(busy: Session, scratch: Path) -> None:
    busy.stop()
    images, whole = 0, False
    for last in range(200):
        image = scratch / f"image{last}"
        shutil.copytree(busy.path, image)
        session = Session(image)
        with pytest.MonkeyPatch.context() as patch:
            file = session.kernel.open("open", os.O_CREAT | os.O_RDWR)
            file.write(NEW)
            file.fsync()
            cut_at(patch, last)
            try:
                take(session)
                whole = True
            except CutOff:
                pass
        session.abandon()
        session = Session(image)
        folder = SnapshotFolder(session.store.directory)
        assert session.kernel.read_file("file") == OLD
        assert session.kernel.read_file("open") == NEW
        collect(image)
        if folder.names():
            assert has(image) == {b"file": of(OLD), b"large": of(LARGE), b"open": of(NEW)}
        else:
            take(session)  # goes on, or begins anew
        session.kernel.unlink("open")
        session.kernel.sync()
        session.stop()
        collect(image)
        assert_sound(image)
        assert has(image)[b"open"] == of(NEW)
        session = Session(image)
        run_inline(drop(session.fs, "a"))
        session.stop()
        collect(image)
        assert_clean(image)
        assert len(list((image / "blobs").glob("*/*"))) == 2
        shutil.rmtree(image)
        images += 1
        if whole:
            break
    assert whole
    assert images > 15
