"""A store that does something, mounted or not."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from casfs.control import protocol
from casfs.control.access import StoreAccess
from casfs.control.client import DaemonError, Unanswered
from casfs.control.messages import Copy, EmptyTrash, Move, Remove, SetTrashRule, Sync, Undelete
from casfs.errors import FsError, NotMounted, StoreLocked, UsageError
from casfs.maintenance.collect.mounted import Collected
from casfs.namespace.collecting import Amount, Record
from casfs.store import control_path
from casfs.trash.filesystem import trash_of
from tests.session import Session

ALWAYS = (0, (1 << 63) - 1)


@contextmanager
def daemon(store: Path, *answers: bytes) -> Iterator[list[protocol.Request]]:
    """Something that gives one answer after the other; what it was asked."""
    asked: list[protocol.Request] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(control_path(str(store)))
    listener.listen()

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                asked.append(protocol.decode_request(connection.recv(protocol.LINE_LIMIT)))
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        thread.join()
        listener.close()
        os.unlink(control_path(str(store)))


@pytest.fixture
def store(session: Session) -> Path:
    """A store that nobody uses, with a file that goes to the trash when it is removed, and one there."""
    trash_of(session.fs).minimal_age_ns = 0
    session.kernel.mkdir("top")
    session.kernel.write_file("top/file", b"content")
    session.kernel.write_file("removed", b"gone")
    session.rest()
    session.kernel.unlink("removed")
    session.stop()
    return session.path


def test_without_a_daemon_it_is_done_in_the_store(store: Path, session: Session) -> None:
    access = StoreAccess(str(store))
    access.perform(Copy("/top", "/copy", True))
    access.perform(Move("/top/file", "/moved"))
    assert access.perform(Undelete("/removed", *ALWAYS)).files == 1
    assert access.perform(Remove(["/copy/file", "/absent"], dry_run=True)).files == 1
    removed = access.perform(Remove(["/absent", "/copy"], recursive=True, force=True))
    assert (removed.files, removed.directories, removed.releases) == (1, 1, 0)
    assert removed.failures == [("/absent", "/absent: No such file or directory")]
    access.perform(SetTrashRule("", 3, ["*.tmp"], 0))
    session.start()
    assert session.kernel.read_file("moved") == b"content"
    assert b"copy" not in session.kernel.names()
    assert session.kernel.read_file("removed") == b"gone"
    assert [(rule.days, rule.exclude) for rule in trash_of(session.fs).rules] == [(3, ("*.tmp",))]
    session.kernel.unlink("moved")
    session.stop()
    gone = access.perform(EmptyTrash(0.0))
    assert (gone.files, gone.bytes) == (1, len(b"content"))


def test_what_is_wrong_without_a_daemon_is_said_as_with_one(store: Path) -> None:
    access = StoreAccess(str(store))
    with pytest.raises(FsError) as raised:
        access.perform(Move("/absent", "/there"))
    assert raised.value.errno == errno.ENOENT
    with pytest.raises(UsageError, match="NUL"):
        access.perform(Move("/\0", "/there"))


def test_a_store_that_is_used_otherwise_is_refused(session: Session) -> None:
    with pytest.raises(StoreLocked):
        StoreAccess(str(session.path)).perform(Move("/a", "/b"))


def test_what_was_found_by_its_mount_is_not_done_without_one(store: Path, session: Session) -> None:
    with pytest.raises(NotMounted):
        StoreAccess(str(store), mounted=True).perform(Move("/top", "/moved"))
    session.start()
    assert session.kernel.names() == [b"top"]


def test_with_a_daemon_it_is_asked(store: Path) -> None:
    with daemon(store, b'{"ok": true, "result": {"files": 3, "skipped": 1}}\n') as asked:
        found = StoreAccess(str(store)).perform(Undelete("/a", 1, 2))
    assert (found.files, found.skipped) == (3, 1)
    assert asked == [protocol.Request(2, "undelete", {"path": "/a", "since_ns": 1, "before_ns": 2})]


def test_what_the_daemon_refuses_is_not_tried_without_it(store: Path) -> None:
    refusal = b'{"ok": false, "error": "no", "exit_code": 1}\n'
    with daemon(store, refusal), pytest.raises(DaemonError, match="no"):
        StoreAccess(str(store)).perform(Move("/top", "/moved"))
    with daemon(store, b'{"ok": true, "result": {}}\n'), pytest.raises(DaemonError, match="cannot read"):
        StoreAccess(str(store)).perform(EmptyTrash(0.0))


@pytest.mark.parametrize("answer", [b"", b"\n", b"hello\n"])
def test_what_the_daemon_may_have_done_is_not_done_again(
    store: Path, session: Session, answer: bytes
) -> None:
    """It was killed before it could say so: the copy would be copied into."""
    with daemon(store, answer), pytest.raises(Unanswered):
        StoreAccess(str(store)).perform(Copy("/top", "/copy", True))
    session.start()
    assert session.kernel.names() == [b"top"]


def test_what_is_only_for_a_daemon(store: Path) -> None:
    access, record = StoreAccess(str(store)), Record(1, 2, 3, 4, 5)
    assert access.tell(Sync()) is None
    access.damaged([1])
    assert access.collect([1], 2, 3, record) is None
    line = b'{"ok": true, "result": {"blobs": 1, "bytes": 2, "failures": [["ff", 3, "why"]], "untried": 4, '
    with daemon(store, b'{"ok": true}\n', line + b'"gave_up": true, "busy": false}}\n') as asked:
        access.damaged([7])
        collected = access.collect([1], 2, 3, record)
    assert collected == Collected(Amount(1, 2), [(b"\xff", 3, "why")], 4, True, False)
    assert [request.op for request in asked] == ["damaged", "collect"]
    assert asked[1].args == {"ids": [1], "cutoff_ns": 2, "now_ns": 3, "record": [1, 2, 3, 4, 5]}


def test_who_only_asks_does_not_load_the_file_system() -> None:
    script = "import sys, casfs.control.access, casfs.control.messages; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[1] for name in done.stdout.split() if name.startswith("casfs.")}
    assert not loaded & {"fs", "maintenance", "fuse", "service"}
