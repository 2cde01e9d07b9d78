"""Scrub finds every way in which a blob can rot, names who is affected, and takes it out of the way."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from collections.abc import Callable
from contextlib import closing
from hashlib import md5, sha1
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from casfs.errors import StoreLocked
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.maintenance.check.fsck import check
from casfs.maintenance.collect import batch
from casfs.maintenance.offline import opened
from casfs.maintenance.progress import unwatched
from casfs.maintenance.scrub import scrub as scrubbing
from casfs.maintenance.scrub import verify
from casfs.maintenance.scrub.scrub import ScrubReport, scrub, scrub_lock, scrub_slice
from casfs.repositories.filesystem import file_system
from casfs.store import Store
from tests.invariants import assert_clean
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, make_file

ONES = {b"/a/one", b"/b/link"}
TWOS = {b"/a/deep/two", b"/b/two again"}
ALL = len(ONE) + len(TWO) + len(ORPHAN)
DAY = 86400.0


def run(store: Damaged, told: list[int] | None = None, **options: Any) -> ScrubReport:
    with closing(Store(str(store), shared=True)) as used:
        return scrub(used, progress=unwatched, damaged=(told if told is not None else []).extend, **options)


def a_slice(store: Damaged, period: float) -> ScrubReport | None:
    with closing(Store(str(store), shared=True)) as used:
        return scrub_slice(used, period=period, damaged=[].extend)


def damage_rows(store: Damaged) -> dict[bytes, str]:
    """What is noted: digest -> reason."""
    rows = store.sql("SELECT b.blake3, d.reason FROM damage AS d JOIN blob AS b ON b.id = d.blob_id")
    return dict(rows)


def in_order(store: Damaged) -> list[bytes]:
    """The contents as a scrub comes to them."""
    digests = [digest for (digest,) in store.sql("SELECT blake3 FROM blob ORDER BY id")]
    return sorted((ONE, TWO, ORPHAN), key=lambda content: digests.index(blake3(content).digest()))


def age(store: Damaged, seconds: float) -> None:
    """Let the last pass have begun so long ago."""
    began = time.time_ns() - int(seconds * 1e9)
    store.sql("UPDATE meta SET value = ? WHERE key = 'scrub_started_ns'", began)


def test_a_sound_store_is_read_whole_and_left_alone(store: Damaged) -> None:
    report = run(store)
    assert (report.bad, report.cleared, report.complete, report.resumed) == ((), 0, True, False)
    assert (report.blobs, report.bytes) == (3, ALL)
    assert not (store.path / "quarantine").exists()
    assert_clean(store.path)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("corrupt-blob", ONE[:-1] + b"!"),
        ("blob-size", ONE[:-1]),
        ("blob-size", b""),
        ("blob-size", ONE + b"more"),
        ("missing-blob", None),
    ],
    ids=["flipped", "truncated", "empty", "oversized", "missing"],
)
def test_a_bad_blob_is_found_named_quarantined_and_noted(
    store: Damaged, kind: str, data: bytes | None
) -> None:
    path = store.blob(ONE)
    if data is None:
        path.unlink()
    else:
        store.overwrite(path, data)
    told: list[int] = []
    report = run(store, told)
    (bad,) = report.bad
    assert (bad.kind, bad.digest, bad.size, bad.known) == (kind, path.name, len(ONE), False)
    assert set(bad.paths) == ONES
    assert not path.exists()
    assert store.quarantine() == (set() if data is None else {data})
    assert bad.quarantined == (None if data is None else f"quarantine/{path.name}")
    assert damage_rows(store) == {blake3(ONE).digest(): bad.reason}
    assert told == [number for (number,) in store.sql("SELECT blob_id FROM damage")]
    (problem,) = check(str(store), deep=True).problems
    assert problem.kind == "missing-blob"
    assert "known" in problem.detail
    assert set(store.files()) >= TWOS


def test_every_path_is_named(store: Damaged) -> None:
    for number in range(150):
        store.add_name("/b", b"name %d" % number, store.ino("/a/one"), 8)
    store.blob(ONE).unlink()
    assert len(set(run(store).bad[0].paths)) == 152


def test_the_blob_of_an_orphan_rots_too(store: Damaged) -> None:
    store.overwrite(store.blob(ORPHAN), b"!" * len(ORPHAN))
    (bad,) = run(store).bad
    assert (bad.kind, bad.paths) == ("corrupt-blob", ())
    assert store.quarantine() == {b"!" * len(ORPHAN)}


def test_a_link_in_the_place_of_a_blob_is_not_followed(store: Damaged, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(ONE)
    store.blob(ONE).unlink()
    store.blob(ONE).symlink_to(tmp_path / "copy")
    (bad,) = run(store).bad
    assert bad.kind == "corrupt-blob"
    assert (tmp_path / "copy").read_bytes() == ONE
    assert not os.path.lexists(store.blob(ONE))


def test_what_is_found_again_is_known(store: Damaged) -> None:
    store.blob(ONE).unlink()
    assert [bad.known for bad in run(store).bad] == [False]
    ((first,),) = store.sql("SELECT found_ns FROM damage")
    assert [bad.known for bad in run(store).bad] == [True]
    assert store.sql("SELECT found_ns FROM damage") == [(first,)]


def test_a_blob_that_is_whole_again_is_not_noted_any_more(store: Damaged) -> None:
    store.blob(ONE).unlink()
    run(store)
    store.add_blob_file(ONE)
    report = run(store)
    assert (report.bad, report.cleared) == ((), 1)
    assert_clean(store.path)


def test_a_note_about_a_blob_that_is_gone_goes_at_the_end_of_a_pass(store: Damaged) -> None:
    store.sql("INSERT INTO damage VALUES (999, 1, 'was bad')")
    assert run(store).cleared == 1
    assert store.sql("SELECT * FROM damage") == []


def test_writing_the_content_again_puts_the_blob_back_and_clears_the_note(store: Damaged) -> None:
    store.overwrite(store.blob(ONE), b"rotten")
    run(store)
    with opened(str(store)) as fs:
        make_file(fs, 1, b"again", ONE)
    assert store.sql("SELECT * FROM damage") == []
    assert store.files()[b"/a/one"] == ONE
    assert_clean(store.path)


@pytest.mark.parametrize("content", [ONE, b"large" * 200_000], ids=["small", "large"])
def test_a_file_is_not_trusted_while_its_blob_is_known_to_be_bad(store: Damaged, content: bytes) -> None:
    with opened(str(store)) as fs:
        make_file(fs, 1, b"first", content)
    torn = bytes(len(content))
    store.overwrite(store.blob(content), torn)
    store.sql("INSERT INTO damage SELECT id, 1, 'noted' FROM blob WHERE blake3 = ?", blake3(content).digest())
    with opened(str(store)) as fs:
        make_file(fs, 1, b"again", content)
    assert store.sql("SELECT * FROM damage") == []
    assert store.files()[b"/first"] == content
    assert_clean(store.path)


def test_a_missing_blob_gets_its_name_when_its_bytes_are_durable(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is committed: after a power loss, a torn file of the right size would be trusted."""
    from casfs.filestore.durable import Durable

    store.blob(ONE).unlink()
    synced: set[int] = set()
    named: list[int] = []
    fdatasync, rename = Durable.fdatasync, Durable.rename

    def sync(self: Durable, fd: int) -> None:
        fdatasync(self, fd)
        synced.add(os.fstat(fd).st_ino)

    def move(self: Durable, source: str, target: str, *, dir_fd: int) -> None:
        if target == str(store.blob(ONE).relative_to(store.path)):
            named.append(os.stat(source, dir_fd=dir_fd).st_ino)
            assert named[-1] in synced
        rename(self, source, target, dir_fd=dir_fd)

    monkeypatch.setattr(Durable, "fdatasync", sync)
    monkeypatch.setattr(Durable, "rename", move)
    with opened(str(store)) as fs:
        make_file(fs, 1, b"again", ONE)
    assert named == [store.blob(ONE).stat().st_ino]
    assert_clean(store.path)


def test_a_row_with_a_wrong_size_does_not_make_its_blob_bad(store: Damaged) -> None:
    store.set_blob(ONE, "size", 7)
    assert run(store).bad == ()
    assert store.blob(ONE).exists()


def test_further_digests_get_the_value_of_the_bytes(store: Damaged) -> None:
    ids = dict(store.sql("SELECT blake3, id FROM blob"))
    right = []
    for content in (ONE, TWO):
        blob = ids[blake3(content).digest()]
        store.sql("INSERT INTO blob_digest VALUES (?, 'sha1', ?)", blob, bytes(20))
        store.sql("INSERT INTO blob_digest VALUES (?, 'md5', ?)", blob, md5(content).digest())
        right += [(blob, "md5", md5(content).digest()), (blob, "sha1", sha1(content).digest())]
    store.overwrite(store.blob(TWO), b"rotten")
    report = run(store)
    assert (report.digests, len(report.bad)) == (1, 1)
    rows = store.sql("SELECT * FROM blob_digest ORDER BY blob_id, algorithm")
    right[3] = (ids[blake3(TWO).digest()], "sha1", bytes(20))
    assert rows == sorted(right)
    assert run(store).digests == 0


# --- what happens meanwhile ---


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[str], object]) -> list[str]:
    """Do something to the first blob that is read, once it was read to its end and before it is judged."""
    real = verify.Verifier._digest
    done: list[str] = []

    def digest(self: verify.Verifier, fd: int, *of: Any) -> bytes:
        found = real(self, fd, *of)
        if not done:
            done.append(os.readlink(f"/proc/self/fd/{fd}"))
            do(done[0])
        return found

    monkeypatch.setattr(verify.Verifier, "_digest", digest)
    return done


def test_a_blob_that_is_collected_meanwhile_is_no_damage(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.sql("DELETE FROM inode WHERE blob_id IS NOT NULL")

    def collect(path: str) -> None:
        store.sql("DELETE FROM blob")
        for content in (ONE, TWO, ORPHAN):
            store.blob(content).unlink()

    for content in (ONE, TWO, ORPHAN):
        store.overwrite(store.blob(content), b"rotten")
    read = meanwhile(monkeypatch, collect)
    assert run(store).bad == ()
    assert len(read) == 1
    assert store.sql("SELECT * FROM damage") == []


def test_a_blob_that_gets_another_file_meanwhile_is_no_damage(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs/content/passthrough.py: a writer gets the file, the blob a copy."""
    settle = scrubbing.Settlement.settle

    def displaced(self: scrubbing.Settlement, bad: verify.Bad) -> object:
        os.rename(store.blob(ONE), store.path / "staging" / "00ff")
        store.add_blob_file(ONE)
        return settle(self, bad)

    store.overwrite(store.blob(ONE), b"by the writer")
    monkeypatch.setattr(scrubbing.Settlement, "settle", displaced)
    report = run(store)
    assert report.bad == ()
    assert store.blob(ONE).read_bytes() == ONE
    assert store.sql("SELECT * FROM damage") == []


def test_a_blob_that_was_half_written_when_it_was_read_is_no_damage(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small blob that heals by being written anew is written in its place."""
    settle = scrubbing.Settlement.settle

    def finished(self: scrubbing.Settlement, bad: verify.Bad) -> object:
        store.overwrite(store.blob(ONE), ONE)
        return settle(self, bad)

    store.overwrite(store.blob(ONE), ONE[:100])
    monkeypatch.setattr(scrubbing.Settlement, "settle", finished)
    assert run(store).bad == ()
    assert store.blob(ONE).read_bytes() == ONE


def test_another_bad_file_is_judged_by_its_own_bytes(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    settle = scrubbing.Settlement.settle

    def replaced(self: scrubbing.Settlement, bad: verify.Bad) -> object:
        store.blob(ONE).unlink()
        store.add_blob_file(ONE, b"otherwise bad")
        return settle(self, bad)

    store.overwrite(store.blob(ONE), b"rotten")
    monkeypatch.setattr(scrubbing.Settlement, "settle", replaced)
    (bad,) = run(store).bad
    assert "13 bytes" in bad.reason
    assert store.quarantine() == {b"otherwise bad"}


def test_a_disk_that_cannot_be_read_is_damage_and_too_many_files_are_not(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "RETRY_SECONDS", 0.0)
    real = os.readv
    bad = store.blob(TWO).stat().st_ino
    number = errno.EMFILE

    def readv(fd: int, buffers: list[memoryview]) -> int:
        if os.fstat(fd).st_ino == bad:
            raise OSError(number, os.strerror(number))
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    with pytest.raises(OSError, match="Too many open files"):
        run(store)
    assert store.blob(TWO).exists()
    number = errno.EIO
    (found,) = run(store).bad
    assert found.reason == "cannot be read: Input/output error"
    assert set(found.paths) == TWOS
    assert not store.blob(TWO).exists()


def test_a_disk_that_fails_once_is_no_damage(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(scrubbing, "READ_AGAIN", 0)
    real, failed = os.readv, []

    def readv(fd: int, buffers: list[memoryview]) -> int:
        if os.fstat(fd).st_ino == store.blob(TWO).stat().st_ino and not failed:
            failed.append(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    assert run(store).bad == ()
    assert failed
    assert store.blob(TWO).read_bytes() == TWO


def test_a_blob_that_is_written_anew_over_a_link_is_no_damage(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = scrubbing.Settlement.settle

    def written(self: scrubbing.Settlement, bad: verify.Bad) -> object:
        store.blob(ONE).unlink()
        store.add_blob_file(ONE)
        return settle(self, bad)

    store.blob(ONE).unlink()
    store.blob(ONE).symlink_to("nowhere")
    monkeypatch.setattr(scrubbing.Settlement, "settle", written)
    assert run(store).bad == ()
    assert store.blob(ONE).read_bytes() == ONE


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "folder"])
def test_what_is_no_file_is_taken_away(store: Damaged, make: Callable[[Path], None]) -> None:
    store.blob(ONE).unlink()
    make(store.blob(ONE))
    (bad,) = run(store).bad
    assert set(bad.paths) == ONES
    assert not os.path.lexists(store.blob(ONE))


def test_a_store_that_is_bad_all_over_needs_few_descriptors(store: Damaged) -> None:
    contents = [b"content %d" % number for number in range(300)]
    for content in contents:
        store.sql(
            "INSERT INTO blob (blake3, size, refs, created_ns, orphaned_ns) VALUES (?, ?, 0, 1, 1)",
            blake3(content).digest(),
            len(content),
        )
        store.add_blob_file(content, b"rotten")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, limits[1]))
    try:
        assert len(run(store).bad) == len(contents)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_stop_while_a_bad_file_is_read_again_ends_the_run(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, stopped = scrubbing.Settlement.settle, threading.Event()

    def replaced(self: scrubbing.Settlement, bad: verify.Bad) -> object:
        store.blob(ONE).unlink()
        store.add_blob_file(ONE, b"otherwise bad")
        stopped.set()
        return settle(self, bad)

    store.overwrite(store.blob(ONE), b"rotten")
    with monkeypatch.context() as patched:
        patched.setattr(scrubbing.Settlement, "settle", replaced)
        report = run(store, stop=stopped.is_set)
    assert (report.bad, report.complete) == ((), False)
    assert len(run(store).bad) == 1


def test_a_note_goes_when_the_blob_was_only_bad_at_first(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.blob(ONE).unlink()
    run(store)
    settle = scrubbing.Settlement.settle

    def healed(self: scrubbing.Settlement, bad: verify.Bad) -> object:
        store.add_blob_file(ONE)
        return settle(self, bad)

    monkeypatch.setattr(scrubbing.Settlement, "settle", healed)
    assert run(store).cleared == 1
    assert damage_rows(store) == {}


def test_no_descriptor_is_left_open(store: Damaged) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for content in (ONE, TWO, ORPHAN):
        store.overwrite(store.blob(content), b"rotten")
    assert len(run(store).bad) == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_in_use_is_scrubbed(store: Damaged) -> None:
    """What was done since the last commit is not seen, and no damage."""
    store.overwrite(store.blob(TWO), TWO[:-1] + b"!")
    ino = store.ino("/a/deep/two")
    used = Store(str(store))
    fs = file_system(used, InlineScheduler())
    run_inline(fs.start())
    make_file(fs, 1, b"new", b"committed" * 1000)
    run_inline(fs.group.durable())
    (bad,) = run(store).bad
    assert set(bad.paths) == TWOS
    handle = fs.files.open(fs.inodes.get(ino), False, 0)
    with pytest.raises(OSError, match="missing from the filestore"):
        run_inline(fs.files.read(handle, 0, 10))
    run_inline(fs.files.release(handle))
    make_file(fs, 1, b"again", TWO)
    run_inline(fs.group.durable())
    assert used.namespace.damage.known() == {}
    run_inline(fs.stop())
    used.close()
    assert store.files()[b"/a/deep/two"] == TWO
    assert_clean(store.path)


def test_what_is_written_while_the_last_blobs_are_read_is_for_the_next_pass(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrub of a store in use is complete all the same: it once said that it had been stopped."""
    used = Store(str(store))
    fs = file_system(used, InlineScheduler())
    run_inline(fs.start())
    advance = scrubbing.Scrub._advance

    def advance_late(run: scrubbing.Scrub, batch: verify.Batch) -> None:
        make_file(fs, 1, b"new", b"just now" * 1000)
        run_inline(fs.group.durable())
        advance(run, batch)

    monkeypatch.setattr(scrubbing.Scrub, "_advance", advance_late)
    report = run(store)
    assert (report.blobs, report.complete) == (3, True)
    monkeypatch.undo()
    assert (run(store).blobs, run(store).complete) == (4, True)
    run_inline(fs.stop())
    used.close()


def test_who_writes_all_the_time_makes_a_scrub_wait_and_not_fail(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that is open when damage is to be noted."""
    store.blob(TWO).unlink()
    writer = Store(str(store))
    assert writer.namespace.try_begin()
    waited: list[float] = []

    def pause(seconds: float, stop: batch.Stop) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            writer.namespace.commit()

    monkeypatch.setattr(batch, "pause", pause)
    assert len(run(store).bad) == 1
    assert len(waited) == 3
    assert writer.namespace.try_begin()
    monkeypatch.setattr(batch, "TURN_SECONDS", -1.0)
    with pytest.raises(StoreLocked, match="written by another process"):
        run(store)
    writer.close()


# --- passes ---


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each blob is a batch, and each batch is kept."""
    monkeypatch.setattr(scrubbing, "BATCH_BLOBS", 1)
    monkeypatch.setattr(scrubbing, "SAVE_SECONDS", -1.0)


def killed(store: Damaged, after: int) -> None:
    """A process that is killed once so many blobs were read; the rest is done by the next."""
    pid = os.fork()
    if not pid:
        seen = 0

        def progress(doing: str, done: int, total: int) -> None:
            nonlocal seen
            if seen == after:
                os._exit(9)
            seen += 1

        try:
            with closing(Store(str(store), shared=True)) as used:
                scrub(used, rate=1e9, progress=progress, damaged=[].extend)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.usefixtures("one_by_one")
def test_a_pass_that_was_killed_goes_on_where_it_was(store: Damaged) -> None:
    first = in_order(store)[0]
    store.overwrite(store.blob(first), b"rotten")
    killed(store, after=2)
    assert set(damage_rows(store)) == {blake3(first).digest()}
    report = run(store)
    assert (report.blobs, report.resumed, report.complete, report.bad) == (1, True, True, ())
    assert report.known == 1, "what was found before is still damaged"
    report = run(store)
    assert (report.blobs, report.resumed, len(report.bad)) == (3, False, 1)


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("found", [False, True])
def test_an_error_does_not_hide_what_was_found_before(
    store: Damaged, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    first, second, _ = in_order(store)
    store.overwrite(store.blob(first if found else second), b"rotten")
    clear = scrubbing.Scrub._advance

    def advance(scrub: scrubbing.Scrub, blobs: list[Any]) -> None:
        clear(scrub, blobs)
        raise StoreLocked("somebody writes")

    with monkeypatch.context() as patch:
        patch.setattr(scrubbing.Scrub, "_advance", advance)
        if not found:
            with pytest.raises(StoreLocked, match="somebody writes"):
                run(store)
            return
        report = run(store)
    assert (len(report.bad), report.complete, report.error) == (1, False, "somebody writes")
    report = run(store)
    assert (report.blobs, report.resumed, report.complete, report.error) == (2, True, True, "")


def test_the_daemon_is_told_of_a_file_that_was_taken_and_could_not_be_noted(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on to serve the bad bytes from what it has open."""
    store.overwrite(store.blob(ONE), b"rotten")
    told: list[int] = []

    def refuse(_store: Store, _operations: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(batch, "commit_rows", refuse)
        with pytest.raises(OSError, match="No space"):
            run(store, told)
    assert told == [
        number for (number,) in store.sql("SELECT id FROM blob WHERE blake3 = ?", blake3(ONE).digest())
    ]
    assert not store.blob(ONE).exists()
    (bad,) = run(store).bad
    assert bad.kind == "missing-blob"


@pytest.mark.usefixtures("one_by_one")
def test_a_pass_can_be_begun_again(store: Damaged) -> None:
    killed(store, after=2)
    report = run(store, restart=True)
    assert (report.blobs, report.resumed, report.complete) == (3, False, True)


@pytest.mark.usefixtures("one_by_one")
def test_a_run_that_is_stopped_keeps_what_it_has_done(store: Damaged) -> None:
    stops: list[int] = []
    first = in_order(store)[0]

    def progress(doing: str, done: int, total: int) -> None:
        if done > len(first):
            stops.append(done)

    with closing(Store(str(store), shared=True)) as used:
        report = scrub(used, rate=1e9, progress=progress, damaged=[].extend, stop=lambda: bool(stops))
    assert (report.blobs, report.complete) == (1, False)
    assert (run(store).blobs, run(store).blobs) == (2, 3)


def test_what_is_kept_of_a_pass_that_makes_no_sense_is_not_believed(store: Damaged) -> None:
    run(store)
    store.sql("UPDATE meta SET value = 'x' WHERE key = 'scrub_cursor'")
    assert run(store).blobs == 3
    store.sql("UPDATE meta SET value = 0 WHERE key = 'scrub_ended_ns'")
    store.sql("UPDATE meta SET value = 1000000 WHERE key = 'scrub_cursor'")
    assert run(store).complete
    assert run(store).blobs == 3


def test_a_rate_is_kept(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the test, which only the waiting moves."""
    clock = [0.0]
    monkeypatch.setattr(verify.time, "monotonic", lambda: clock[0])

    def wait(self: object, timeout: float | None = None) -> bool:
        clock[0] += timeout or 0.0
        return False

    rate = 1000.0
    verifier = verify.Verifier(None, lambda count: None, rate=rate)  # type: ignore[arg-type]
    monkeypatch.setattr(type(verifier._ended), "wait", wait)
    for count in (100, 1_000_000, 5, 0, 300):
        verifier._wait(count)
    assert clock[0] == pytest.approx(1_000_405 / rate)


def test_two_do_not_scrub_at_once(store: Damaged) -> None:
    with closing(Store(str(store), shared=True)) as used:
        lock = scrub_lock(used)
        with pytest.raises(StoreLocked, match=f"is being scrubbed by process {os.getpid()}"):
            scrub(used, progress=unwatched, damaged=[].extend)
        lock.release()
        assert scrub(used, progress=unwatched, damaged=[].extend).complete


# --- slices of a daemon ---


@pytest.mark.usefixtures("one_by_one")
def test_a_daemon_reads_what_is_due(store: Damaged) -> None:
    sizes = [len(content) for content in in_order(store)]
    first = a_slice(store, 30 * DAY)
    assert first is not None
    assert (first.blobs, first.complete) == (1, False)
    assert a_slice(store, 30 * DAY) is None, "one blob of three is read, and no day has passed"
    age(store, 30 * DAY * (sizes[0] + 1) / ALL)
    second = a_slice(store, 30 * DAY)
    assert second is not None
    assert (second.blobs, second.complete) == (1, False)
    age(store, 31 * DAY)
    third = a_slice(store, 30 * DAY)
    assert third is not None
    assert (third.blobs, third.complete) == (1, True)
    again = a_slice(store, 30 * DAY)
    assert again is not None, "a period has passed since the pass began"
    assert again.blobs == 1


def test_a_pass_by_hand_counts_for_the_daemon(store: Damaged) -> None:
    run(store)
    assert a_slice(store, 30 * DAY) is None


def test_an_empty_store_has_nothing_to_scrub(tmp_path: Path) -> None:
    from casfs.store import create_store

    create_store(str(tmp_path / "store"))
    report = run(Damaged(tmp_path / "store"))
    assert (report.blobs, report.complete) == (0, True)
