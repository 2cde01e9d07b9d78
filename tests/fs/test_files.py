"""Reading, writing, sealing: the content of regular files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.errors import FsError
from casfs.fs.attributes import Changes
from casfs.fs.scheduler import run_inline
from tests.faults import FaultyDurable
from tests.filestore.test_durable import file_size_limit
from tests.kernel import Kernel, OpenFile
from tests.limits import TIGHT, set_limits
from tests.session import Session

CREATE = os.O_RDWR | os.O_CREAT
LARGE = bytes(range(256)) * 1200
"""More than is kept in memory."""


def blobs(session: Session) -> int:
    """Blob files there are."""
    return len(list(session.store.filestore.enumerate()))


def staged(session: Session) -> int:
    """Staged files that hold something."""
    return session.store.filestore.staging.usage()[0]


# Sequences of calls


@st.composite
def data(draw: st.DrawFn) -> bytes:
    """Few different contents, so that many are there already."""
    return draw(st.sampled_from([b"a", b"bb", b"c" * 50])) * draw(st.sampled_from([1, 1, 2, 3, 40]))


STEP = st.one_of(
    st.tuples(st.just("write"), data(), st.integers(0, 150)),
    st.tuples(st.just("write"), data(), st.just(0)),
    st.tuples(st.just("append"), data()),
    st.tuples(st.just("truncate"), st.one_of(st.just(0), st.integers(0, 300))),
    st.tuples(st.sampled_from(["fsync", "flush", "commit", "reopen"])),
)
PROGRAM = st.tuples(
    st.sampled_from(["one", "two"]), st.sampled_from([0, os.O_TRUNC]), st.lists(STEP, max_size=8)
)


def expected_after(content: bytes, step: tuple[Any, ...]) -> bytes:
    """What a file holds after a step."""
    name, *arguments = step
    if name == "truncate":
        return content[: arguments[0]] + bytes(max(0, arguments[0] - len(content)))
    if name in ("write", "append"):
        piece, offset = arguments[0], len(content) if name == "append" else arguments[1]
        head = content[:offset] + bytes(max(0, offset - len(content)))
        return head + piece + content[offset + len(piece) :]
    return content


@settings(max_examples=300)
@given(programs=st.lists(PROGRAM, max_size=5))
def check_programs(session: Session, programs: list[tuple[str, int, list[tuple[Any, ...]]]]) -> None:
    kernel = session.kernel
    contents: dict[str, bytes] = {}
    for name, flags, steps in programs:
        content = b"" if flags else contents.get(name, b"")
        with kernel.open(name, CREATE | flags) as file:
            for step in steps:
                content = expected_after(content, step)
                take(kernel, file, step)
                assert file.read() == content, step
                assert file.stat().size == len(content)
        contents[name] = content
        for each, held in contents.items():
            assert kernel.read_file(each) == held
            assert kernel.getxattr(each, b"user.casfs.blake3").decode() == blake3(held).hexdigest()
    for name in contents:
        kernel.unlink(name)


def take(kernel: Kernel, file: OpenFile, step: tuple[Any, ...]) -> None:
    name, *arguments = step
    if name == "append":
        file.write(arguments[0], file.stat().size)
    elif name == "commit":
        kernel.sync()
    elif name == "reopen":
        kernel.open("one", os.O_RDONLY | os.O_CREAT).close()
    else:
        getattr(file, name)(*arguments)


@pytest.mark.parametrize("limits", [{}, TIGHT], ids=["default", "tight"])
def test_a_file_holds_what_was_written(
    session: Session, limits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sequences share one store: what one leaves behind, such as a pooled staged file, meets the next."""
    set_limits(monkeypatch, **limits)
    check_programs(session)
    session.kernel.sync()
    assert staged(session) == 0


# Sealing


def test_a_content_is_kept_once(session: Session, kernel: Kernel) -> None:
    for name in ("one", "two"):
        kernel.write_file(name, b"small")
        kernel.write_file(f"large {name}", LARGE)
    kernel.sync()
    assert blobs(session) == 2
    assert kernel.inode("one").blob == kernel.inode("two").blob
    assert staged(session) == 0


def test_small_content_that_is_there_never_touches_the_disk(store_path: Path) -> None:
    seam = FaultyDurable()
    session = Session(store_path, seam)
    session.kernel.write_file("one", b"small")
    seam.calls.clear()
    session.kernel.write_file("two", b"small")
    session.kernel.write_file("one", b"small")
    assert seam.calls == []
    session.stop()


def test_an_empty_file_has_no_blob(session: Session, kernel: Kernel) -> None:
    kernel.write_file("empty", b"")
    kernel.write_file("emptied", b"content")
    kernel.truncate("emptied", 0)
    kernel.sync()
    assert kernel.inode("empty").blob is kernel.inode("emptied").blob is None
    assert kernel.read_file("emptied") == b""
    assert session.store.namespace.blobs.totals()[:3] == (0, 0, 1)


def test_the_last_name_makes_an_orphan(session: Session, kernel: Kernel) -> None:
    kernel.write_file("one", b"content")
    kernel.link("one", "two")
    kernel.unlink("one")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (1, 7, 0, 0)
    kernel.unlink("two")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (0, 0, 1, 7)
    assert blobs(session) == 1


def test_an_orphan_is_used_again(session: Session, kernel: Kernel) -> None:
    kernel.write_file("one", b"content")
    kernel.unlink("one")
    kernel.sync()
    kernel.write_file("two", b"content")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (1, 7, 0, 0)


def test_content_written_and_removed_in_one_group_is_an_orphan(session: Session, kernel: Kernel) -> None:
    kernel.write_file("one", b"content")
    kernel.unlink("one")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (0, 0, 1, 7)


def test_opening_for_writing_alone_costs_nothing(store_path: Path) -> None:
    seam = FaultyDurable()
    session = Session(store_path, seam)
    kernel = session.kernel
    kernel.write_file("file", LARGE, sync=True)
    kernel.sync()
    seam.calls.clear()
    with kernel.open("file", os.O_RDWR) as file:
        assert file.read() == LARGE
    assert seam.calls == []
    assert not session.fs.group.active
    session.stop()


@pytest.mark.parametrize("size", [100, 300_000, 3_000_000])
def test_a_blob_that_is_written_to_stays_as_it_is(session: Session, kernel: Kernel, size: int) -> None:
    """Copy-up: in memory, inline, and in a thread."""
    content = (LARGE * 10)[:size]
    kernel.write_file("file", content)
    kernel.write_file("same", content)
    with kernel.open("file", os.O_RDWR) as file:
        file.write(b"new", size // 2)
        assert file.read(size) == content[: size // 2] + b"new" + content[size // 2 + 3 :]
    assert kernel.read_file("same") == content
    assert blobs(session) == 2


def test_flush_seals_what_the_only_writer_wrote(kernel: Kernel) -> None:
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with pytest.raises(FsError) as raised:
        kernel.getxattr("file", b"user.casfs.blake3")
    assert raised.value.errno == errno.ENODATA
    file.flush()
    assert kernel.getxattr("file", b"user.casfs.blake3").decode() == blake3(b"content").hexdigest()
    assert kernel.fs.activity().open_unsealed == 0
    file.close()


def test_the_last_of_several_writers_seals(kernel: Kernel) -> None:
    first, second = kernel.open("file", CREATE), kernel.open("file", CREATE)
    first.write(b"first")
    first.close()
    assert kernel.fs.activity().open_unsealed == 1
    second.write(b"second", 5)
    second.close()
    assert kernel.fs.activity().open_unsealed == 0
    assert kernel.read_file("file") == b"firstsecond"


def test_a_writer_that_wrote_nothing_seals_for_the_others_when_it_goes(kernel: Kernel) -> None:
    first, idle = kernel.open("file", CREATE), kernel.open("file", CREATE)
    first.write(b"first")
    first.close()
    idle.close()
    assert kernel.fs.activity().open_unsealed == 0
    assert kernel.read_file("file") == b"first"


def test_a_descriptor_shared_by_many_processes_is_sealed_once(store_path: Path) -> None:
    """A log file that a shell hands to its children: each end flushes, and the writing goes on."""
    seam = FaultyDurable()
    session = Session(store_path, seam)
    file = session.kernel.open("log", CREATE)
    for number in range(50):
        file.write(b"line\n", 5 * number)
        file.flush()
    assert seam.calls.count("create") <= 2
    assert file.read() == b"line\n" * 50
    file.close()
    assert session.kernel.read_file("log") == b"line\n" * 50
    session.stop()


def test_readers_see_what_a_writer_writes(kernel: Kernel) -> None:
    kernel.write_file("file", b"old content")
    reader = kernel.open("file")
    assert reader.read() == b"old content"
    writer = kernel.open("file", os.O_RDWR)
    writer.write(b"NEW")
    assert reader.read() == b"NEW content"
    writer.truncate(5)
    assert reader.read() == b"NEW c"
    writer.write(LARGE, 5)
    assert reader.read(1 << 20) == b"NEW c" + LARGE
    writer.close()
    assert reader.read(1 << 20) == b"NEW c" + LARGE
    kernel.write_file("file", b"replaced")
    assert reader.read() == b"replaced"
    reader.close()


def test_a_read_ends_where_the_file_ends(kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    with kernel.open("file") as file:
        assert file.read(3, 2) == b"nte"
        assert file.read(100, 5) == b"nt"
        assert file.read(10, 7) == file.read(10, 1 << 40) == file.read(0) == b""


# Truncating


def test_truncating_without_a_handle_seals(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", LARGE)
    kernel.truncate("file", 1000)
    assert kernel.read_file("file") == LARGE[:1000]
    kernel.truncate("file", 2000)
    assert kernel.read_file("file") == LARGE[:1000] + bytes(1000)
    assert kernel.fs.activity().open_unsealed == 0
    assert blobs(session) == 3


def test_cutting_and_growing_to_the_old_size_is_another_content(kernel: Kernel) -> None:
    with kernel.open("file", CREATE) as file:
        for offset in range(0, len(LARGE), 100_000):
            file.write(LARGE[offset : offset + 100_000], offset)
        file.truncate(1000)
        file.truncate(len(LARGE))
    expected = LARGE[:1000] + bytes(len(LARGE) - 1000)
    assert kernel.getxattr("file", b"user.casfs.blake3").decode() == blake3(expected).hexdigest()
    assert kernel.read_file("file") == expected


def test_opening_with_o_trunc_copies_nothing(store_path: Path) -> None:
    session = Session(store_path)
    session.kernel.write_file("file", LARGE)
    session.stop()
    seam = FaultyDurable()
    session = Session(store_path, seam)
    seam.calls.clear()
    session.kernel.write_file("file", b"new")
    assert seam.calls.count("create") == 1
    assert session.kernel.read_file("file") == b"new"
    session.stop()


def test_times_of_a_file_emptied_at_open_survive_a_remount(session: Session, kernel: Kernel) -> None:
    """They moved in memory alone when the file was empty before."""
    kernel.write_file("file", b"")
    kernel.utime("file", 5, 5)
    kernel.sync()
    kernel.open("file", os.O_WRONLY | os.O_TRUNC).close()
    moved = kernel.inode("file").mtime
    assert moved > 5
    assert session.reopen().inode("file").mtime == moved


# Unlinked but open


def test_an_unlinked_file_lives_while_it_is_open(session: Session, kernel: Kernel) -> None:
    file = kernel.open("file", CREATE)
    file.write(b"content")
    kernel.unlink("file")
    assert kernel.fs.activity().unlinked_open == 1
    file.write(LARGE, 7)
    file.fsync()
    assert file.read(1 << 20) == b"content" + LARGE
    assert file.stat().nlink == 0
    file.close()
    kernel.sync()
    assert kernel.fs.activity().unlinked_open == 0
    assert blobs(session) == staged(session) == 0


def test_a_replaced_file_lives_while_it_is_open(kernel: Kernel) -> None:
    kernel.write_file("old", b"old")
    kernel.write_file("new", b"new")
    file = kernel.open("old", os.O_RDWR)
    kernel.rename("new", "old")
    assert file.read() == b"old"
    file.write(b"still ", 0)
    assert file.read() == b"still "
    file.close()
    assert kernel.read_file("old") == b"new"


def test_the_staged_file_of_an_unlinked_file_goes_after_the_commit(session: Session, kernel: Kernel) -> None:
    file = kernel.open("file", CREATE)
    file.write(LARGE)
    file.fsync()
    kernel.unlink("file")
    file.close()
    kernel.sync()
    assert session.store.filestore.staging.names() == []


# Errors


def test_a_write_that_the_disk_cuts_short_is_hashed_as_far_as_it_went(kernel: Kernel) -> None:
    """The blob got bytes its digest does not name (I2)."""
    for offset in (300_000, 200_000):
        file = kernel.open(f"file {offset}", CREATE)
        file.write(LARGE[:300_000])
        with file_size_limit(350_000):
            assert file.write(b"y" * 200_000, offset) == 350_000 - offset
            with pytest.raises(OSError, match="large"):
                file.write(b"z", 350_000)
        file.close()
        expected = LARGE[:offset] + b"y" * (350_000 - offset)
        assert kernel.read_file(f"file {offset}") == expected


def test_no_room_to_spill_keeps_what_was_written(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(session.store.filestore, "claim", full)
        with pytest.raises(OSError, match="full"):
            file.write(LARGE, 7)
        with pytest.raises(OSError, match="full"):
            file.fsync()
        with pytest.raises(OSError, match="full"):
            file.flush()
        assert file.read() == b"content"
    file.write(LARGE, 7)
    file.close()
    assert kernel.read_file("file") == b"content" + LARGE


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_content_that_nobody_could_seal_is_sealed_at_a_later_commit(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(session.store.filestore, "claim", full)
        with pytest.raises(OSError, match="full"):
            file.close()
        assert "stays staged" in caplog.text
        assert kernel.read_file("file") == b"content"
    kernel.mkdir("directory")
    kernel.sync()
    assert kernel.fs.activity().open_unsealed == 0
    assert blobs(session) == 1


def test_content_that_nobody_can_seal_does_not_keep_the_rest_from_the_disk(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    """On a full disk no commit came through any more, and the collector, which makes room, had no turn."""
    kernel.write_file("other", b"other content")
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(session.store.filestore, "claim", full)
        with pytest.raises(OSError, match="full"):
            file.close()
        kernel.unlink("other")
        kernel.sync()
        assert not session.fs.group.active
    kernel.sync()
    assert kernel.read_file("file") == b"content"


@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
def test_a_row_that_cannot_be_written_does_not_cost_the_content(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """The content was published and forgotten before the database refused the row."""
    file = kernel.open("file", CREATE)
    file.write(content)
    with monkeypatch.context() as patch:
        patch.setattr(session.store.namespace.blobs, "insert", lambda *_: full(0))
        with pytest.raises(OSError, match="full"):
            file.flush()
    assert file.read(1 << 20) == content
    file.close()
    assert kernel.read_file("file") == content


def test_a_missing_staged_file_is_an_io_error(session: Session, kernel: Kernel) -> None:
    with kernel.open("file", CREATE) as file:
        file.truncate(1 << 40)
    kernel = session.reopen()
    path = session.path / "staging" / str(kernel.inode("file").staged)
    path.rename(session.path / "elsewhere")
    with pytest.raises(OSError, match="missing") as raised:
        kernel.open("file")
    assert raised.value.errno == errno.EIO
    assert kernel.fs.activity().open_handles == 0
    (session.path / "elsewhere").rename(path)


def test_a_missing_blob_is_an_io_error_for_its_readers_only(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", LARGE)
    path = Path(session.store.filestore.paths.blob(blake3(LARGE).digest()))
    path.rename(session.path / "elsewhere")
    for access in (
        lambda: kernel.read_file("file"),
        lambda: kernel.open("file", os.O_RDWR).write(b"x"),
        lambda: kernel.truncate("file", 5),
    ):
        with pytest.raises(OSError, match="missing") as raised:
            access()
        assert raised.value.errno == errno.EIO
    kernel.write_file("file", b"new")
    assert kernel.read_file("file") == b"new"
    (session.path / "elsewhere").rename(path)


def test_a_blob_that_was_lost_comes_back_with_the_next_copy(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", LARGE)
    kernel.sync()
    Path(session.store.filestore.paths.blob(blake3(LARGE).digest())).unlink()
    kernel.write_file("copy", LARGE)
    kernel.sync()
    assert kernel.read_file("file") == LARGE
    assert session.store.namespace.blobs.totals()[:2] == (1, len(LARGE))


# Rights


@pytest.mark.parametrize(
    ("uid", "before", "after"),
    [(0, 0o6777, 0o6777), (7, 0o6777, 0o777), (7, 0o6767, 0o2767), (7, 0o644, 0o644)],
)
def test_writing_takes_suid_away(kernel: Kernel, uid: int, before: int, after: int) -> None:
    changes: list[Callable[[], object]] = [
        lambda: kernel.write_file("file", b"x", flags=0),
        lambda: kernel.truncate("file", 3),
        lambda: kernel.open("file", os.O_WRONLY | os.O_TRUNC).close(),
    ]
    kernel.write_file("file", b"content")
    for change in changes:
        kernel.uid = 0
        kernel.chmod("file", before)
        kernel.uid = uid
        change()
        assert stat.S_IMODE(kernel.inode("file").mode) == after


# Limits


def test_memory_for_unsealed_content_is_bounded(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, BUFFERED_LIMIT=10_000)
    opened = [kernel.open(f"file {number}", CREATE) for number in range(30)]
    for number, file in enumerate(opened):
        file.write(bytes([number]) * 1000)
    assert staged(session) == 20
    assert sum(file.handle.content.buffer is not None for file in opened) == 10
    for number, file in enumerate(opened):
        assert file.read() == bytes([number]) * 1000
        file.close()
    assert kernel.fs.files._buffered == 0


def test_what_is_written_for_long_becomes_durable_as_it_is(
    kernel: Kernel, session: Session, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel writes back dirty pages: a process that never closes its file does not lose all of it."""
    file = kernel.open("file", CREATE)
    file.write(b"content")
    kernel.sync()
    assert kernel.inode("file").staged is None
    set_limits(monkeypatch, WRITEBACK_SECONDS=-1.0)
    kernel.set(kernel.inode("file"), Changes(mode=0o600))
    kernel.sync()
    assert kernel.inode("file").staged is not None
    session.crash(scratch / "copy")
    assert session.kernel.read_file("file") == b"content"


def test_stopping_seals_what_is_open(session: Session, kernel: Kernel) -> None:
    kernel.open("small", CREATE).write(b"content")
    kernel.open("large", CREATE).write(LARGE)
    run_inline(session.fs.group.begin())
    kernel = session.reopen()
    assert kernel.read_file("small") == b"content"
    assert kernel.read_file("large") == LARGE
    assert kernel.inode("large").staged is None
