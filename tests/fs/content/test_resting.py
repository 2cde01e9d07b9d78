"""What is written again and again is kept once, as a staged file, until it rests."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from casfs.fs.content.resting import REST_LIMIT, REST_SECONDS, Resting, rest_seconds
from casfs.fs.scheduler import InlineScheduler, run_inline
from tests.faults import FaultyDurable
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.session import Session

LARGE = bytes(range(256)) * 1200
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def append(kernel: Kernel, path: str, data: bytes) -> None:
    """What `open(path, "ab").write(data)` does."""
    with kernel.open(path, APPEND) as file:
        file.write(data, file.stat().size)


# When


def test_a_large_file_of_which_little_was_written_waits_longer() -> None:
    assert rest_seconds(1000, 1000) == rest_seconds(2000, 1000) == REST_SECONDS
    assert rest_seconds(20_000, 1000) == 10 * REST_SECONDS
    assert rest_seconds(1 << 30, 100) == rest_seconds(1 << 30, 0) == REST_LIMIT


def test_who_is_written_meanwhile_is_put_off() -> None:
    resting = Resting()
    resting.wrote(1, 1000, 1000, 0.0)
    resting.wrote(2, 1000, 1000, 1.0)
    resting.wrote(1, 1000, 1000, 20.0)
    assert resting.next_due(REST_SECONDS) is None
    assert resting.next_due(REST_SECONDS + 1) == 2
    assert resting.next_due(REST_SECONDS + 19) is None
    assert resting.next_due(REST_SECONDS + 20) == 1
    assert resting.next_due(1e9) is None


def test_what_is_gone_is_not_due() -> None:
    resting = Resting()
    resting.wrote(1, 1000, 1000, 0.0)
    resting.forget(1)
    assert (resting.next_due(1e9), len(resting)) == (None, 0)


def test_what_is_to_be_sealed_earlier_is() -> None:
    resting = Resting()
    resting.wrote(1, 1 << 30, 1, 0.0)
    resting.put_off(1, 5.0)
    assert resting.next_due(5.0) == 1
    assert resting.next_due(1e9) is None


# What


def test_a_log_with_an_open_and_a_close_for_each_line_is_copied_once(store_path: Path) -> None:
    """800 appends of 8 KiB made 2.5 GiB of orphans and took 145 times as long as on a disk."""
    seam = FaultyDurable()
    session = Session(store_path, seam)
    kernel = session.kernel
    kernel.write_file("log", LARGE)
    kernel.sync()
    seam.calls.clear()
    for number in range(100):
        append(kernel, "log", b"%08d" % number * 1024)
        if number % 10 == 9:
            kernel.sync()
    assert seam.calls.count("create") == 1
    assert session.blobs == 1
    content = LARGE + b"".join(b"%08d" % number * 1024 for number in range(100))
    assert kernel.read_file("log") == content
    assert kernel.inode("log").blob is None
    session.rest()
    kernel.sync()
    assert kernel.getxattr("log", b"user.casfs.blake3").decode() == blake3(content).hexdigest()
    assert session.staged == 0
    assert session.blobs == 2
    session.stop()


@pytest.mark.parametrize("flags", [os.O_TRUNC, 0], ids=["emptied", "overwritten"])
@pytest.mark.parametrize("size", [100, len(LARGE)])
def test_a_file_that_is_rewritten_all_the_time_makes_no_orphans(
    session: Session, kernel: Kernel, flags: int, size: int
) -> None:
    for number in range(20):
        content = (b"%08d" % number + LARGE)[:size]
        kernel.write_file("state", content, flags=flags)
        kernel.sync()
    assert session.store.namespace.blobs.totals()[0::2] == (0, 1)
    assert kernel.read_file("state") == content
    session.rest()
    kernel.sync()
    assert session.store.namespace.blobs.totals()[0::2] == (1, 1)


def test_what_takes_the_place_of_an_old_version_is_sealed_at_once(session: Session, kernel: Kernel) -> None:
    """So that it is kept once with its copies, as a new file is."""
    kernel.write_file("image", LARGE)
    kernel.sync()
    kernel.inode("image").mtime -= int(2 * REST_SECONDS * 1e9)
    kernel.write_file("image", LARGE[::-1])
    assert kernel.inode("image").blob is not None
    assert session.store.filestore.staging.names() == []


def test_a_new_file_that_is_written_in_two_goes_before_it_was_sealed_is_a_new_file(
    session: Session, kernel: Kernel
) -> None:
    append(kernel, "file", b"one")
    append(kernel, "file", b"two")
    kernel.sync()
    assert kernel.inode("file").staged is None
    assert session.blobs == 1


def test_what_rests_has_its_digest_when_somebody_asks(kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    kernel.sync()
    append(kernel, "file", b" and more")
    kernel.sync()
    assert kernel.inode("file").staged is not None
    digest = kernel.getxattr("file", b"user.casfs.blake3").decode()
    assert digest == blake3(b"content and more").hexdigest()
    assert kernel.inode("file").staged is None


def test_nothing_rests_when_the_store_is_closed(session: Session, kernel: Kernel) -> None:
    for name in ("a", "b"):
        kernel.write_file(name, LARGE)
        kernel.sync()
        append(kernel, name, name.encode())
    kernel.sync()
    session.stop()
    assert os.listdir(session.path / "staging") == []
    session.start()
    assert session.kernel.read_file("a") == LARGE + b"a"
    assert session.kernel.inode("b").blob is not None


def test_a_crash_leaves_what_rests_as_it_was_at_its_last_commit(
    session: Session, kernel: Kernel, scratch: Path
) -> None:
    kernel.write_file("log", LARGE)
    kernel.sync()
    append(kernel, "log", b"committed")
    kernel.sync()
    append(kernel, "log", b"not committed")
    copy_store(session.path, scratch / "crashed")
    again = Session(scratch / "crashed")
    assert again.kernel.read_file("log") == LARGE + b"committed"
    again.stop()


@pytest.mark.parametrize("size", [20, len(LARGE)], ids=["in memory", "staged"])
@pytest.mark.parametrize("sealed", [False, True], ids=["new", "sealed before"])
def test_a_commit_while_a_file_is_written_again_has_what_was_closed_before(
    session: Session, kernel: Kernel, scratch: Path, size: int, sealed: bool
) -> None:
    """A crash kept the removal that came after the close, and lost what was closed."""
    kernel.write_file("removed", b"later")
    kernel.write_file("file", LARGE[:size])
    if sealed:
        session.rest()
    append(kernel, "file", b"appended")
    kernel.unlink("removed")
    file = kernel.open("file", os.O_RDWR)
    file.write(b"not closed", size + len(b"appended"))
    kernel.sync()
    copy = scratch / "copy"
    copy_store(session.path, copy)
    crashed = Session(copy)
    assert crashed.kernel.names() == [b"file"]
    assert crashed.kernel.read_file("file") == LARGE[:size] + b"appended"
    crashed.stop()
    file.write(b"more", size + 18)
    file.fsync()
    file.truncate(size + 20)
    kernel.sync()
    file.close()
    assert session.reopen().read_file("file") == LARGE[:size] + b"appendednot closedmo"
    session.stop()
    assert_clean(session.path)


def test_a_commit_does_not_go_behind_what_was_synced(session: Session, kernel: Kernel, scratch: Path) -> None:
    """What was closed before the fsync(2) is not what the row says after it."""
    session.rest()
    kernel.write_file("file", LARGE)
    session.rest()
    append(kernel, "file", b"closed")
    file = kernel.open("file", os.O_RDWR)
    file.write(b"synced", len(LARGE) + 6)
    file.fsync()
    file.write(b"not synced", len(LARGE) + 12)
    kernel.mkdir("directory")
    kernel.sync()
    copy = scratch / "copy"
    copy_store(session.path, copy)
    crashed = Session(copy)
    assert crashed.kernel.read_file("file") == LARGE + b"closedsynced"
    crashed.stop()
    file.close()


@pytest.mark.parametrize("size", [20, len(LARGE)], ids=["in memory", "staged"])
def test_a_commit_while_a_closed_file_is_emptied_and_written_anew_has_no_half_of_it(
    session: Session, kernel: Kernel, scratch: Path, size: int
) -> None:
    kernel.write_file("file", LARGE[:size])
    session.rest()
    append(kernel, "file", b"appended")
    file = kernel.open("file", os.O_WRONLY | os.O_TRUNC)
    file.write(b"new content")
    kernel.mkdir("directory")
    kernel.sync()
    copy = scratch / "copy"
    copy_store(session.path, copy)
    crashed = Session(copy)
    assert crashed.kernel.read_file("file") == LARGE[:size]
    crashed.stop()
    file.close()
    assert session.reopen().read_file("file") == b"new content"


def test_a_file_emptied_to_be_written_anew_keeps_its_last_version_until_then(
    session: Session, kernel: Kernel, scratch: Path
) -> None:
    """A commit in between made it empty for whoever came after a crash."""
    kernel.write_file("state", b"first")
    kernel.sync()
    kernel.write_file("state", b"second")
    kernel.sync()
    assert kernel.inode("state").staged is not None
    with kernel.open("state", os.O_WRONLY | os.O_TRUNC) as file:
        file.write(b"third")
        kernel.sync()
        copy_store(session.path, scratch / "crashed")
    again = Session(scratch / "crashed")
    assert again.kernel.read_file("state") == b"second"
    again.stop()
    assert kernel.read_file("state") == b"third"


def test_a_start_does_not_hash_large_files_that_rest(
    session: Session, kernel: Kernel, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casfs.fs.recovery.SEALED_BYTES", len(LARGE))
    for name in ("small", "large"):
        kernel.write_file(name, LARGE[: 400 if name == "small" else None])
        kernel.sync()
        append(kernel, name, b"more")
    kernel.sync()
    copy_store(session.path, scratch / "crashed")
    again = Session(scratch / "crashed")
    assert again.kernel.inode("small").staged is None
    assert again.kernel.inode("large").staged is not None
    assert again.kernel.read_file("large") == LARGE + b"more"
    again.rest()
    assert again.kernel.inode("large").staged is None
    again.stop()


def test_a_removed_or_replaced_file_that_rested_leaves_nothing(session: Session, kernel: Kernel) -> None:
    for name in ("removed", "replaced", "new"):
        kernel.write_file(name, LARGE + name.encode())
        kernel.sync()
        append(kernel, name, b"more")
    kernel.sync()
    assert session.staged == 3
    kernel.unlink("removed")
    kernel.rename("new", "replaced")
    kernel.sync()
    assert session.staged == 1
    session.rest()
    kernel.sync()
    assert session.staged == 0
    assert kernel.read_file("replaced") == LARGE + b"newmore"


# What cannot be sealed


def test_content_that_raises_what_nobody_expects_fails_nobody_else(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every commit failed from then on, for everybody."""
    sealing = kernel.fs.contents.sealing
    publish = sealing._find_or_publish

    def bug(content: Any, digest: bytes, *others: Any) -> None:
        assert digest != blake3(b"poison").digest(), "a bug"
        publish(content, digest, *others)

    monkeypatch.setattr(sealing, "_find_or_publish", bug)
    for round_ in range(5):
        kernel.write_file(f"good {round_}", b"%d" % round_)
        if not round_:
            kernel.write_file("bad", b"poison")
        kernel.sync()
        assert kernel.inode(f"good {round_}").blob is not None
    assert kernel.fs.group.failed == 0
    assert caplog.text.count("cannot be kept") == 1
    assert "bad: what was written" in caplog.text
    assert kernel.read_file("bad") == b"poison", "it can be copied elsewhere"
    with pytest.raises(OSError, match="cannot be kept") as raised:
        kernel.open("bad", os.O_WRONLY)
    assert raised.value.errno == errno.EIO
    with kernel.open("bad") as file, pytest.raises(OSError, match="Input/output"):
        file.fsync()
    with pytest.raises(OSError, match="bad"):
        kernel.fs.contents.settling.check_kept()
    with pytest.raises(OSError, match="bad"):
        run_inline(session.fs.stop())
    session.abandon()
    session.start()
    assert session.kernel.read_file("bad") == b""
    assert session.kernel.read_file("good 4") == b"4"


def test_a_resting_file_that_cannot_be_sealed_is_told_of_once(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.write_file("log", LARGE)
    kernel.sync()
    append(kernel, "log", b"more")
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(session.store.filestore, "publish_staged", full)
        for _ in range(5):
            session.rest()
    assert caplog.text.count("log stays staged") == 1
    session.rest()
    kernel.sync()
    assert kernel.inode("log").blob is not None
    assert session.staged == 0


def test_the_clock_of_the_scheduler_decides(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(InlineScheduler, "now", lambda _: now[0])
    kernel.write_file("log", LARGE)
    kernel.sync()
    append(kernel, "log", LARGE)
    kernel.sync()
    now[0] += REST_SECONDS - 1
    run_inline(kernel.fs.contents.settling.seal_resting())
    assert kernel.inode("log").staged is not None
    now[0] += 2
    run_inline(kernel.fs.contents.settling.seal_resting())
    assert kernel.inode("log").staged is None


def test_a_journal_that_was_synced_and_is_removed_leaves_no_orphan(session: Session, kernel: Kernel) -> None:
    """A database that is opened and closed for each transaction left a blob of its journal each time."""
    for number in range(5):
        with kernel.open("journal", os.O_RDWR | os.O_CREAT) as file:
            file.write(b"%d" % number * 1000)
            file.fsync()
        kernel.unlink("journal")
        kernel.sync()
    assert session.store.namespace.blobs.totals() == (0, 0, 0, 0)
    assert session.staged == 0
    with kernel.open("kept", os.O_RDWR | os.O_CREAT) as file:
        file.write(b"content")
        file.fsync()
    kernel.sync()
    assert kernel.inode("kept").staged is None
    assert session.blobs == 1
