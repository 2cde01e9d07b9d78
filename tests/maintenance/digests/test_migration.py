"""What lacks digests gets them, each content once, whatever cuts it off; what is damaged does not."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from crc32c import crc32c

from casfs.errors import StoreLocked
from casfs.filestore.hashing import ALGORITHMS
from casfs.maintenance.check.fsck import check
from casfs.maintenance.digests import migration
from casfs.maintenance.digests.facts import digest_facts, run_facts
from casfs.maintenance.digests.lacking import Lack
from casfs.maintenance.digests.migration import FAST, Computed, DigestReport, Pace, add_digests, digests_lock
from casfs.maintenance.offline import opened
from casfs.maintenance.progress import unwatched
from casfs.maintenance.scrub import verify
from casfs.namespace.digests import DigestRun
from casfs.namespace.namespace import Namespace
from casfs.store import Store, scrub_lock
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, make_file

ALL = (ONE, TWO, ORPHAN)
ONE_BY_ONE = replace(FAST, workers=1, batch=1, step=2)


def want(store: Damaged, *algorithms: str) -> None:
    store.sql("INSERT OR REPLACE INTO meta VALUES ('digests', ?)", " ".join(algorithms))


def run(store: Damaged, told: list[int] | None = None, pace: Pace = FAST, **options: Any) -> DigestReport:
    damaged = (told if told is not None else []).extend
    with contextlib.closing(Store(str(store), shared=True)) as used:
        return add_digests(used, pace=pace, progress=unwatched, damaged=damaged, **options)


def kept(store: Damaged) -> dict[tuple[bytes, str], bytes]:
    rows = store.sql("SELECT blake3, algorithm, value FROM blob_digest JOIN blob ON id = blob_id")
    return {(digest, algorithm): value for digest, algorithm, value in rows}


def state(store: Damaged) -> DigestRun:
    found = run_facts(str(store)).run
    assert found is not None
    return found


def digest(algorithm: str, content: bytes) -> bytes:
    """Not by casfs."""
    if algorithm == "crc32c":
        return int(crc32c(content)).to_bytes(4, "big")
    return hashlib.new(algorithm, content).digest()


def expected(algorithms: tuple[str, ...], *contents: bytes) -> dict[tuple[bytes, str], bytes]:
    return {
        (blake3(content).digest(), algorithm): digest(algorithm, content)
        for content in contents
        for algorithm in algorithms
    }


@pytest.mark.parametrize("pace", [FAST, ONE_BY_ONE, replace(FAST, rate=1 << 20)])
def test_each_content_gets_all_that_is_wanted_in_one_read(
    store: Damaged, pace: Pace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    real = verify.Verifier.digests

    def counted(self: verify.Verifier, blob: Any, *of: Any) -> object:
        read.append(blob.digest)
        return real(self, blob, *of)

    monkeypatch.setattr(verify.Verifier, "digests", counted)
    want(store, *ALGORITHMS)
    report = run(store, pace=pace)
    assert kept(store) == expected(tuple(ALGORITHMS), *ALL)
    assert (report.blobs, report.bytes, report.digests) == (3, sum(map(len, ALL)), 3 * len(ALGORITHMS))
    assert (report.complete, report.resumed, report.bad, report.known, report.error) == (
        True,
        False,
        (),
        0,
        "",
    )
    assert len(read) == 3
    assert check(str(store), deep=True).problems == ()
    again = run(store)
    assert (again.blobs, again.complete, again.resumed) == (0, True, False)
    assert len(read) == 3 + 3  # by the check


def test_what_is_there_is_not_computed_again(store: Damaged) -> None:
    want(store, "md5")
    run(store)
    want(store, "sha256", "md5")
    report = run(store)
    assert (report.blobs, report.digests) == (3, 3)
    assert kept(store) == expected(("md5", "sha256"), *ALL)


def test_nothing_is_wanted(store: Damaged) -> None:
    assert run(store).complete
    want(store, "whirlpool")
    assert run(store).complete
    assert kept(store) == {}
    assert run_facts(str(store)).run is None


def test_an_algorithm_that_is_added_meanwhile_comes_to_all(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(store, "sha1")
    pauses = []

    def pause(_seconds: float, _stop: object) -> None:
        pauses.append(1)
        if len(pauses) == 2:
            want(store, "crc32c", "sha1")

    monkeypatch.setattr(migration, "pause", pause)
    assert run(store, pace=ONE_BY_ONE).complete
    assert kept(store) == expected(("crc32c", "sha1"), *ALL)


def test_it_goes_on_where_it_was_stopped(store: Damaged) -> None:
    want(store, "sha256")
    pauses = iter([False, False, True])  # before the first blob, while it is read, behind it
    report = run(store, pace=ONE_BY_ONE, stop=lambda: next(pauses, True))
    assert (report.complete, report.error) == (False, "")
    assert report.blobs < 2
    assert not state(store).ended_ns
    assert (run_facts(str(store)).left, state(store).blobs) == (3 - report.blobs, report.blobs)
    rest = run(store, pace=ONE_BY_ONE)
    assert (rest.resumed, rest.complete, rest.blobs) == (True, True, 3 - report.blobs)
    assert rest.started_ns == report.started_ns
    assert state(store).ended_ns
    assert state(store).blobs == 3
    assert kept(store) == expected(("sha256",), *ALL)


def test_what_was_read_when_a_stop_comes_is_kept(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    want(store, "sha256")
    stopped = []
    real = migration._Run._write

    def write(self: Any, computed: list[Computed]) -> None:
        if computed:
            stopped.append(1)
        real(self, computed)

    monkeypatch.setattr(migration._Run, "_write", write)
    report = run(store, pace=ONE_BY_ONE, stop=lambda: bool(stopped))
    assert (report.complete, report.blobs) == (False, 1)
    assert len(kept(store)) == 1


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda store: store.overwrite(store.blob(ONE), ONE[:-1] + b"!"), "corrupt-blob"),
        (lambda store: store.overwrite(store.blob(ONE), ONE[:-1]), "blob-size"),
        (lambda store: store.blob(ONE).unlink(), "missing-blob"),
    ],
)
def test_a_damaged_blob_gets_none_and_is_known(
    store: Damaged, spoil: Callable[[Damaged], None], kind: str
) -> None:
    spoil(store)
    want(store, "sha256", "md5")
    told: list[int] = []
    report = run(store, told)
    (bad,) = report.bad
    assert (bad.kind, bad.digest, bad.known) == (kind, blake3(ONE).hexdigest(), False)
    assert set(bad.paths) == {b"/a/one", b"/b/link"}
    assert (report.blobs, report.complete, report.known) == (2, True, 1)
    assert kept(store) == expected(("sha256", "md5"), TWO, ORPHAN)
    assert len(store.sql("SELECT * FROM damage")) == len(told) == 1
    assert not store.blob(ONE).exists()
    facts = digest_facts(str(store))
    assert [(one.name, one.blobs, one.lacking) for one in facts.algorithms] == [
        ("sha256", 2, 1),
        ("md5", 2, 1),
    ]
    assert (facts.state.left, facts.state.known) == (0, 1)
    again = run(store)
    assert (again.bad, again.blobs, again.known) == ((), 0, 1)

    with opened(str(store)) as fs:
        make_file(fs, 1, b"again", ONE)
    run(store)
    assert kept(store) == expected(("sha256", "md5"), *ALL)


def test_what_a_scrub_may_have_in_hand_is_left_to_it(store: Damaged) -> None:
    store.overwrite(store.blob(ONE), b"rotten")
    want(store, "sha256")
    lock = scrub_lock(str(store))
    assert lock.acquire()
    try:
        report = run(store)
    finally:
        lock.release()
    assert [(bad.quarantined, bad.kind) for bad in report.bad] == [(None, "blob-size")]
    assert store.blob(ONE).exists()
    assert store.sql("SELECT * FROM damage") == []
    assert kept(store) == expected(("sha256",), TWO, ORPHAN)
    assert len(run(store).bad) == 1


def test_a_disk_that_cannot_be_read_is_damage(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_fd: int, _buffers: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "readv", broken)
    monkeypatch.setattr(verify, "RETRY_SECONDS", 0.0)
    want(store, "sha256")
    assert {bad.kind for bad in run(store).bad} == {"corrupt-blob"}
    assert kept(store) == {}


def test_too_many_open_files_are_no_damage(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_fd: int, _buffers: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    want(store, "sha256")
    with monkeypatch.context() as patched:
        patched.setattr(os, "readv", exhausted)
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            run(store)
    assert store.sql("SELECT * FROM damage") == []
    assert run(store).resumed


def test_bytes_that_change_while_they_are_read_give_no_digest(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours writes to a blob; what is on the disk may be anybody's."""
    real = os.readv

    def readv(fd: int, buffers: list[memoryview]) -> int:
        count = real(fd, buffers)
        if count:
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            path.chmod(0o600)
            with path.open("r+b") as file:
                file.write(b"!")
        return count

    monkeypatch.setattr(os, "readv", readv)
    want(store, "sha256")
    run(store)
    for (digest_, _), value in kept(store).items():
        (content,) = (content for content in ALL if blake3(content).digest() == digest_)
        assert value == hashlib.sha256(content).digest()


def test_a_blob_that_is_collected_meanwhile_gets_no_row(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = migration._Run._write

    def write(self: Any, computed: list[Computed]) -> None:
        if computed:
            store.sql("DELETE FROM blob WHERE refs = 0")
        real(self, computed)

    monkeypatch.setattr(migration._Run, "_write", write)
    want(store, "sha256")
    assert run(store).complete
    assert kept(store) == expected(("sha256",), ONE, TWO)
    assert len(store.sql("SELECT * FROM blob_digest")) == 2


def test_a_full_disk_ends_it_and_it_goes_on_later(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    want(store, "sha256")
    writes = []

    def full(_self: Namespace, _operations: int) -> None:
        writes.append(1)
        if len(writes) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Namespace, "reserve_log", full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            run(store, pace=ONE_BY_ONE)
    assert len(kept(store)) == 1
    assert state(store).blobs == 1
    report = run(store)
    assert (report.resumed, report.blobs, report.complete) == (True, 2, True)


def test_what_is_lacking_can_be_said_by_another(store: Damaged) -> None:
    one = store.sql("SELECT id FROM blob WHERE blake3 = ?", blake3(ONE).digest())[0][0]
    with contextlib.closing(Store(str(store), shared=True)) as used:

        def find(after: int, limit: int) -> list[Lack]:
            found = used.namespace.digests.lacking(["md5"], after, limit)
            return [Lack(blob, ("md5",)) for blob in found if blob.id == one]

        add_digests(used, pace=FAST, progress=unwatched, damaged=[].extend, find=find)
    assert kept(store) == expected(("md5",), ONE)


def test_a_second_one_is_refused(store: Damaged) -> None:
    lock = digests_lock(str(store))
    try:
        with pytest.raises(StoreLocked, match="are being computed by process"):
            digests_lock(str(store))
        assert run_facts(str(store)).by.startswith("process ")
    finally:
        lock.release()
    assert run_facts(str(store)).by == ""


def test_a_run_that_says_nonsense_is_begun_anew(store: Damaged) -> None:
    want(store, "sha256")
    for key in DigestRun._fields:
        store.sql("INSERT INTO meta VALUES (?, 'x')", f"digests_{key}")
    assert not run(store).resumed
    assert kept(store) == expected(("sha256",), *ALL)


def test_killed_at_any_moment_it_loses_nothing_that_was_committed(store: Damaged, tmp_path: Path) -> None:
    contents = [b"content %d" % number * 50 for number in range(1_500)]
    with opened(str(store)) as fs:
        for number, content in enumerate(contents):
            make_file(fs, 1, b"%d" % number, content)
    want(store, "sha256", "md5")
    command = [sys.executable, "-m", "casfs", "digests", str(store), "--run", "--no-gc", "--sleep", "0"]
    command += ["--batch", "20", "--query-limit", "100"]
    dice = random.Random(13)
    before: dict[tuple[bytes, str], bytes] = {}
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 20
            while len(kept(store)) <= len(before) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(dice.random() * 0.03)
            process.send_signal(signal.SIGKILL)
        now = kept(store)
        assert before.items() <= now.items()
        assert state(store).blobs == len(now) // 2
        before = now
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["complete"]
    assert report["blobs"] == len(ALL) + len(contents) - len(before) // 2
    assert kept(store) == expected(("sha256", "md5"), *ALL, *contents)
    assert check(str(store), deep=True).problems == ()


# --- what repositories ask for ---


def ask(store: Damaged, path: str, *algorithms: str) -> None:
    rules = json.dumps({"digests": algorithms})
    store.sql("INSERT INTO repository VALUES (?, 'local', NULL, NULL, ?)", store.ino(path), rules)


@pytest.mark.parametrize("pace", [FAST, ONE_BY_ONE])
def test_what_lies_in_a_repository_gets_what_that_asks_for(store: Damaged, pace: Pace) -> None:
    ask(store, "/a", "md5", "sha1")
    with opened(str(store)) as fs:
        make_file(fs, store.ino("/a"), b"three", b"three")
        make_file(fs, store.ino("/b"), b"four", b"four")
    store.sql("DELETE FROM blob_digest")
    want(store, "sha1", "sha256")
    assert (run_facts(str(store)).left, run_facts(str(store)).asked) == (5, ("md5",))
    assert run(store, pace=pace).complete
    everywhere = expected(("sha1", "sha256"), *ALL, b"three", b"four")
    assert kept(store) == everywhere | expected(("md5",), ONE, TWO, b"three")
    assert run_facts(str(store)).left == 0
    assert run(store, pace=pace).blobs == 0


def test_only_repositories_ask(store: Damaged) -> None:
    ask(store, "/b", "crc32c")
    ask(store, "/a/deep", "md5")  # is none: fsck says so
    store.sql("UPDATE repository SET rules = '{' WHERE ino = ?", store.ino("/a/deep"))
    facts = digest_facts(str(store))
    assert [(one.name, one.wanted, one.asked, one.blobs) for one in facts.algorithms] == [
        ("crc32c", False, True, 0)
    ]
    assert (facts.state.left, facts.state.left_bytes) == (2, len(ONE) + len(TWO))
    store.blob(TWO).unlink()
    report = run(store)
    assert (report.complete, report.blobs, len(report.bad)) == (True, 1, 1)
    assert kept(store) == expected(("crc32c",), ONE)
    assert run_facts(str(store)).left == 0
