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

from casfs.fs.attributes import Changes
from casfs.fs.scheduler import run_inline
from casfs.space import FILE_ROOM
from casfs.types import Room
from tests.faults import FaultyDurable
from tests.kernel import Kernel, OpenFile
from tests.limits import TIGHT, set_limits
from tests.session import Session

CREATE = os.O_RDWR | os.O_CREAT
LARGE = bytes(range(256)) * 1200
"""More than is kept in memory."""


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
    assert session.staged == 0


# Truncating


@pytest.mark.usefixtures("seals_at_close")
def test_what_is_truncated_without_a_handle_is_sealed_when_it_rests(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", LARGE)
    kernel.truncate("file", 1000)
    assert kernel.read_file("file") == LARGE[:1000]
    kernel.truncate("file", 2000)
    assert kernel.read_file("file") == LARGE[:1000] + bytes(1000)
    assert kernel.fs.activity().open_unsealed == 0
    session.rest()
    kernel.sync()
    assert session.blobs == 2


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
    assert "create" not in seam.calls
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
    assert session.blobs == session.staged == 0


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
    set_limits(monkeypatch, BUFFERED_LIMIT=10 * (1000 + FILE_ROOM))
    opened = [kernel.open(f"file {number}", CREATE) for number in range(30)]
    for number, file in enumerate(opened):
        file.write(bytes([number]) * 1000)
    assert session.staged == 20
    assert sum(file.handle.content.buffer is not None for file in opened) == 10
    for number, file in enumerate(opened):
        assert file.read() == bytes([number]) * 1000
        file.close()
    kernel.sync()
    assert session.store.filestore.space.promised == 0


def test_the_blob_that_was_opened_last_is_not_closed_for_the_limit(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody reads was written and sealed again and again: it had the oldest of the descriptors
    as well as the newest, which was closed before its use. The write failed with EBADF."""
    set_limits(monkeypatch, DESCRIPTOR_LIMIT=4)
    kernel.write_file("hot", b"0" * 100)
    kernel.sync()
    with kernel.open("hot") as reader:
        for number in range(1, 10):
            with kernel.open("hot", os.O_WRONLY) as writer:
                writer.write(b"%d" % number, number)
            run_inline(session.fs.contents.settling.seal_closed(kernel.inode("hot")))
            assert reader.read(number + 1) == b"0123456789"[: number + 1]


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


# Sealing small files with the commit


def test_a_small_file_is_sealed_with_the_commit_after_its_close(kernel: Kernel, session: Session) -> None:
    kernel.write_file("file", b"content")
    assert kernel.fs.activity().open_unsealed == 1
    assert session.store.filestore.space.promised == len(b"content") + FILE_ROOM
    kernel.sync()
    assert kernel.fs.activity().open_unsealed == 0
    assert session.store.filestore.space.promised == 0
    assert session.blobs == 1


def test_a_file_that_is_removed_before_the_commit_never_was_a_blob(kernel: Kernel, session: Session) -> None:
    kernel.write_file("file", b"content")
    kernel.unlink("file")
    assert session.store.filestore.space.promised == 0
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (0, 0, 0, 0)


def test_closed_files_do_not_fill_the_memory(
    kernel: Kernel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, DUE_LIMIT=3 * FILE_ROOM)
    for number in range(10):
        kernel.write_file(str(number), b"content %d" % number)
    assert kernel.fs.activity().open_unsealed == 2


def test_a_full_disk_is_told_of_at_the_write(
    kernel: Kernel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing that would hear of it later: a small file is sealed when it is closed already."""
    filestore = session.store.filestore
    file = kernel.open("file", CREATE)
    with monkeypatch.context() as patch:
        patch.setattr(filestore.space, "room", lambda: Room(1 << 30, 0, 0))
        patch.setattr("casfs.space.CLAIM_SECONDS", -1)
        with pytest.raises(OSError, match="full") as raised:
            file.write(b"content")
    assert raised.value.errno == errno.ENOSPC
    assert filestore.space.promised == 0
    file.write(b"content")
    file.close()
    assert kernel.read_file("file") == b"content"


def test_what_is_promised_to_small_files_is_not_promised_again(
    kernel: Kernel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two looks at the same free space, with a commit to come that would need it twice."""
    filestore = session.store.filestore
    reserve = filestore.space.reserve
    monkeypatch.setattr("casfs.space.CLAIM_SECONDS", -1)
    kernel.write_file("first", b"content")
    needed = filestore.space.promised + filestore.space._pending_rows
    monkeypatch.setattr(filestore.space, "room", lambda: Room(1 << 30, 1 << 20, reserve + needed + FILE_ROOM))
    with pytest.raises(OSError, match="full"):
        kernel.write_file("second", b"other content")
    kernel.sync()
    kernel.write_file("second", b"other content")


@pytest.mark.parametrize("change", ["write", "truncate", "allocate", "copy"])
def test_a_staged_file_that_can_only_be_read_is_changed_as_a_copy(
    session: Session, kernel: Kernel, change: str
) -> None:
    """It may have another name, or could not be opened anew: to write to it was EBADF, with a traceback."""
    with kernel.open("source", CREATE) as source, kernel.open("file", CREATE) as file:
        source.write(b"new", 0)
        file.write(LARGE, 0)
        staged = file.handle.content.staged
        assert staged is not None
        path = session.path / staged.path
        os.link(path, session.path / "staging" / "0123456789abcdef")
        os.close(staged.fd)
        staged.fd, staged.read_only = os.open(path, os.O_RDONLY), True
        expected = b"new" + LARGE[3:]
        if change == "write":
            file.write(b"new", 0)
        elif change == "truncate":
            file.truncate(len(LARGE) - 1)
            expected = LARGE[:-1]
        elif change == "allocate":
            run_inline(session.fs.contents.ranges.allocate(file.handle, 0, len(LARGE) + 1, 0))
            expected = LARGE + b"\0"
        else:
            run_inline(session.fs.contents.ranges.copy_range(source.handle, 0, file.handle, 0, 3))
        assert file.read(len(LARGE) + 2, 0) == expected
    assert (session.path / "staging" / "0123456789abcdef").read_bytes() == LARGE
    os.unlink(session.path / "staging" / "0123456789abcdef")
    kernel.sync()
    assert kernel.read_file("file") == expected
