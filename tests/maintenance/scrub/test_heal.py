"""Healing takes content from anywhere and believes nothing but digests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import FormatError, StoreNotFound
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.maintenance.offline import opened
from casfs.maintenance.progress import unwatched
from casfs.maintenance.scrub import heal as healing
from casfs.maintenance.scrub.heal import HealReport, heal
from casfs.maintenance.scrub.scrub import scrub
from casfs.repositories.filesystem import file_system
from casfs.store import Store, create_store
from tests.invariants import assert_clean
from tests.maintenance.cut_off import CutOff, cut_at
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, make_file

ONES = {b"/a/one", b"/b/link"}


def run(store: Damaged, source: Path) -> HealReport:
    with closing(Store(str(store), shared=True)) as used:
        return heal(used, str(source), progress=unwatched, damaged=[].extend)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with the contents of the store among others, under other names."""
    folder = tmp_path / "source"
    (folder / "x" / "y").mkdir(parents=True)
    (folder / "x" / "y" / "1").write_bytes(ONE)
    (folder / "x" / "2").write_bytes(TWO)
    (folder / "3").write_bytes(b"!" * len(ONE))
    (folder / "4").write_bytes(b"something else")
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to(folder)
    return folder


def rotten(store: Damaged) -> None:
    store.overwrite(store.blob(ONE), ONE[:-1] + b"!")
    store.blob(TWO).unlink()
    with closing(Store(str(store))) as used:
        assert len(scrub(used, progress=unwatched, damaged=[].extend).bad) == 2


def test_what_is_in_a_tree_is_put_back(store: Damaged, source: Path) -> None:
    sound = store.files()
    rotten(store)
    report = run(store, source)
    assert {healed.digest for healed in report.healed} == {blake3(ONE).hexdigest(), blake3(TWO).hexdigest()}
    assert set().union(*(healed.paths for healed in report.healed)) >= ONES
    assert (report.left, report.cleared, report.unreadable) == ((), 0, ())
    assert store.files() == sound
    assert store.sql("SELECT * FROM damage") == []
    assert_clean(store.path)


def test_what_nobody_has_noted_yet_is_put_back(store: Damaged, source: Path) -> None:
    store.blob(TWO).unlink()
    store.overwrite(store.blob(ONE), ONE[:7])
    assert len(run(store, source).healed) == 2
    assert store.quarantine() == {ONE[:7]}
    assert_clean(store.path)


def test_what_is_in_another_store_is_put_back(store: Damaged, tmp_path: Path) -> None:
    rotten(store)
    create_store(str(tmp_path / "other"), fan_out=3)
    with opened(str(tmp_path / "other")) as fs:
        make_file(fs, 1, b"mine", ONE)
    report = run(store, tmp_path / "other")
    assert [set(healed.paths) for healed in report.healed] == [ONES]
    (left,) = report.left
    assert left.digest == blake3(TWO).hexdigest()
    assert len(run(store, tmp_path / "other").left) == 1


def test_a_store_with_other_bytes_under_that_digest_heals_nothing(store: Damaged, tmp_path: Path) -> None:
    other = Damaged(tmp_path / "other")
    shutil.copytree(store.path, other.path)
    rotten(store)
    other.overwrite(other.blob(ONE), ONE[:-1] + b"?")
    other.overwrite(other.blob(TWO), TWO[:-1])
    report = run(store, other.path)
    assert (report.healed, len(report.left)) == ((), 2)
    assert not store.blob(ONE).exists()
    assert os.listdir(store.path / "staging") == []


def test_a_source_that_changes_while_it_is_copied_heals_nothing(
    store: Damaged, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was right when it was looked at, and is not when it is copied."""
    from casfs.maintenance.scrub import heal as healing

    rotten(store)
    real = healing.hash_descriptor

    def hashed(fd: int, size: int) -> bytes:
        digest = real(fd, size)
        (source / "x" / "y" / "1").write_bytes(b"?" * len(ONE))
        return digest

    monkeypatch.setattr(healing, "hash_descriptor", hashed)
    assert ONES.isdisjoint(*(healed.paths for healed in run(store, source).healed))
    assert not store.blob(ONE).exists()
    assert os.listdir(store.path / "staging") == []


def test_what_is_whole_already_is_only_taken_from_the_list(store: Damaged, source: Path) -> None:
    rotten(store)
    store.add_blob_file(ONE)
    report = run(store, source)
    assert [healed.digest for healed in report.healed] == [blake3(TWO).hexdigest()]
    assert report.cleared == 1
    assert_clean(store.path)


def test_the_blob_of_an_orphan_is_put_back_too(store: Damaged, source: Path) -> None:
    store.blob(ORPHAN).unlink()
    (source / "5").write_bytes(ORPHAN)
    (healed,) = run(store, source).healed
    assert healed.paths == ()
    assert_clean(store.path)


def test_nothing_of_the_source_is_changed_and_no_name_of_it_is_used(store: Damaged, source: Path) -> None:
    rotten(store)
    evil = source / "..\n"
    evil.mkdir()
    (evil / "casfs.db").write_bytes(ONE)
    (source / "x" / "y" / "1").unlink()

    def state() -> list[tuple[str, int, int, int]]:
        found = []
        for path in sorted(source.rglob("*")):
            status = path.lstat()
            found.append((str(path), status.st_mode, status.st_ino, status.st_mtime_ns))
        return found

    before, names = state(), set(os.listdir(store.path))
    assert len(run(store, source).healed) == 2
    assert state() == before
    assert set(os.listdir(store.path)) == names
    assert_clean(store.path)


def test_what_cannot_be_read_is_told(store: Damaged, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rotten(store)
    real = os.scandir

    def scandir(path: str) -> object:
        if path == str(source / "x"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = run(store, source)
    assert report.unreadable == (f"{source / 'x'}: Permission denied",)
    assert len(report.left) == 2


def test_a_file_that_goes_meanwhile_hides_no_other(
    store: Damaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.blob(ONE).unlink()
    folder = tmp_path / "changing"
    folder.mkdir()
    for number in range(3):
        (folder / str(number)).write_bytes(b"-" * len(ONE))
    first, second, third = (entry.path for entry in os.scandir(folder))
    Path(third).write_bytes(ONE)
    real = healing._Healing._digest_of

    def digest_of(self: healing._Healing, path: str) -> bytes | None:
        if path == first:
            os.unlink(second)
        return real(self, path)

    monkeypatch.setattr(healing._Healing, "_digest_of", digest_of)
    report = run(store, folder)
    assert len(report.healed) == 1
    assert report.unreadable == (f"{second}: No such file or directory",)


def test_what_is_no_file_in_the_source_is_not_waited_for(store: Damaged, tmp_path: Path) -> None:
    store.blob(ONE).unlink()
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        (folder / "link").symlink_to(folder)
        assert len(run(store, folder).left) == 1
        (folder / "copy").write_bytes(ONE)
        assert run(store, folder).left == ()


def test_quarantine_itself_may_be_the_source(store: Damaged) -> None:
    """For a file that was taken away and is whole after all."""
    (store.path / "quarantine").mkdir()
    os.rename(store.blob(ONE), store.path / "quarantine" / "file")
    assert run(store, store.path / "quarantine").left == ()
    assert store.blob(ONE).read_bytes() == ONE
    assert_clean(store.path)


def test_what_is_no_source_is_refused(store: Damaged, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="is no folder"):
        run(store, tmp_path / "nowhere")
    with pytest.raises(FormatError, match="shall be healed"):
        run(store, store.path)
    (tmp_path / "casfs.toml").write_text("format = 'x'")
    with pytest.raises(FormatError, match=r"casfs\.toml"):
        run(store, tmp_path)


def test_a_store_in_use_is_healed(store: Damaged, source: Path) -> None:
    rotten(store)
    ino = store.ino("/a/one")
    used = Store(str(store))
    fs = file_system(used, InlineScheduler())
    run_inline(fs.start())
    make_file(fs, 1, b"new", b"committed before")
    run_inline(fs.group.durable())
    assert len(run(store, source).healed) == 2
    handle = fs.files.open(fs.inodes.get(ino), False, 0)
    assert bytes(run_inline(fs.files.read(handle, 0, len(ONE)))) == ONE
    run_inline(fs.files.release(handle))
    run_inline(fs.stop())
    used.close()
    assert_clean(store.path)


def written_anew(store: Damaged) -> None:
    store.add_blob_file(ONE)


def collected(store: Damaged) -> None:
    store.sql("DELETE FROM dentry WHERE ino = ?", store.ino("/a/one"))
    store.sql("DELETE FROM xattr")
    store.sql("DELETE FROM property")
    store.sql(
        "DELETE FROM inode WHERE blob_id = (SELECT id FROM blob WHERE blake3 = ?)", blake3(ONE).digest()
    )
    store.sql("DELETE FROM blob WHERE blake3 = ?", blake3(ONE).digest())


@pytest.mark.parametrize("meanwhile", [written_anew, collected])
def test_what_happens_while_a_copy_is_made(
    store: Damaged, source: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Damaged], None]
) -> None:
    from casfs.filestore.durable import Durable

    rotten(store)
    real = Durable.fdatasync
    done: list[int] = []

    def fdatasync(self: Durable, fd: int) -> None:
        real(self, fd)
        if not done and os.fstat(fd).st_size == len(ONE):
            done.append(fd)
            meanwhile(store)

    monkeypatch.setattr(Durable, "fdatasync", fdatasync)
    report = run(store, source)
    assert done
    assert report.left == ()
    assert os.listdir(store.path / "staging") == []
    assert_clean(store.path)


def test_scrub_and_heal_that_are_cut_off_are_finished_by_the_next(
    store: Damaged, source: Path, template: Path
) -> None:
    """At each durable step: nothing is lost, and no bad byte is left in a blob's place."""
    sound, bad = store.files(), ONE[:-1] + b"!"
    store.overwrite(store.blob(ONE), bad)
    store.blob(TWO).unlink()
    last = 0
    while True:
        with tempfile.TemporaryDirectory(dir=template.parent) as folder:
            cut = Damaged(Path(folder) / "store")
            shutil.copytree(store.path, cut.path)
            used = Store(str(cut), shared=True)
            with pytest.MonkeyPatch.context() as patch:
                calls = cut_at(patch, last)
                with contextlib.suppress(CutOff):
                    scrub(used, progress=unwatched, damaged=[].extend)
                    heal(used, str(source), progress=unwatched, damaged=[].extend)
            used.namespace.close()  # and no more of what a close does
            assert cut.files().items() <= sound.items() or cut.blob(ONE).read_bytes() == bad
            with opened(str(cut)):
                assert os.listdir(cut.path / "staging") == []
            with closing(Store(str(cut), shared=True)) as used:
                scrub(used, progress=unwatched, damaged=[].extend, restart=True)
            assert run(cut, source).left == ()
            with closing(Store(str(cut), shared=True)) as used:
                assert scrub(used, progress=unwatched, damaged=[].extend).bad == ()
            assert cut.files() == sound
            assert cut.quarantine() == {bad}
            assert_clean(cut.path)
        if len(calls) < last:
            break
        last += 1
    assert {"create", "rename", "fdatasync", "fsync_path", "commit", "sync_log"} <= set(calls)
