"""What is said at the control socket, by whoever may: it is refused, or done, and others are served."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from casfs.control import protocol, server
from casfs.control.client import Client, DaemonError
from casfs.control.messages import Copy, EmptyTrash, Identify, Move, Status
from casfs.errors import ExitCode, NotMounted, UsageError
from casfs.store import control_path
from tests.mounted.conftest import new_mount, readable  # noqa: F401 (fixtures)
from tests.mounted.mounts import MODES, Mount, casfs
from tests.security.neighbour import AS_NEIGHBOUR

pytestmark = pytest.mark.mounted


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount that has to go through all of this."""
    place = tmp_path_factory.mktemp("served")
    mount = Mount(place / "store", place / "mnt", mode=MODES[0])
    try:
        mount.start()
        (mount.path / "file").write_text("content")
        yield mount
        mount.finish()
    finally:
        mount.clear()


@pytest.fixture(autouse=True)
def unharmed(served: Mount) -> Iterator[None]:
    """The daemon is the same one after each test, and has logged no error."""
    pid, complaints = served.pid, served.complaints()
    yield
    assert Client(str(served.store)).ask(Identify()).device
    assert served.pid == pid
    assert served.complaints() == complaints
    assert (served.path / "file").read_text() == "content"


def ask(mount: Mount, line: bytes) -> dict[str, Any]:
    """The answer to a line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(control_path(str(mount.store)))
        connection.sendall(line)
        answer: dict[str, Any] = json.loads(connection.makefile("rb").read().strip())
        return answer


def request(op: object, args: object, version: object = 2) -> bytes:
    return json.dumps({"version": version, "op": op, "args": args}).encode() + b"\n"


RULE = {"directory": "", "days": 1, "exclude": None, "minimal_age": None}

ODD = [
    b"\n",
    b"hello\n",
    b"\xff\xfe\n",
    b"\xef\xbb\xbf{}\n",
    b"null\n",
    b"[]\n",
    b"[" * 60_000 + b"\n",
    b"[" * 30_000 + b"]" * 30_000 + b"\n",
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n",
    b'{"version": 2, "op": "status", "args": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}\n",
    b"9" * 60_000 + b"\n",
    b'{"version": ' + b"9" * 5000 + b', "op": "status"}\n',
    b'{"version": 2, "op": "status", "args": {"a": ' + b"9" * 4000 + b"}}\n",
    b'{"version": NaN, "op": "status"}\n',
    b'{"version": 2, "op": "trash_empty", "args": {"older_seconds": NaN}}\n',
    b'{"version": 2, "op": "trash_empty", "args": {"older_seconds": Infinity}}\n',
    b'{"version": 2, "op": "trash_empty", "args": {"older_seconds": 1e999}}\n',
    request("status", None),
    request("status", []),
    request("status", {"\ud800": 1}),
    request("sync", {"seal": "yes"}),
    request("sync", {"seal": 1}),
    request(None, {}),
    request(5, {}),
    request("status", {}, "2"),
    request("status", {}, 2.5),
    request("mv", {"src": "/\ud800", "dst": "/b"}),
    request("mv", {"src": "/a\0", "dst": "/b"}),
    request("mv", {"src": 5, "dst": "/b"}),
    request("mv", {"src": "/a"}),
    request("mv", {"src": "/a", "dst": "/b", "extra": 1}),
    request("cp", {"src": ["/a"], "dst": "/b", "recursive": True}),
    request("cp", {"src": "/a", "dst": "/b", "recursive": None}),
    request("damaged", {"blobs": [-1]}),
    request("damaged", {"blobs": [1 << 63]}),
    request("damaged", {"blobs": [1 << 200]}),
    request("damaged", {"blobs": ["1"]}),
    request("damaged", {"blobs": [1.5]}),
    request("damaged", {"blobs": [True]}),
    request("collect", {"ids": [], "cutoff_ns": 1 << 64, "now_ns": 0, "record": [0] * 5}),
    request("collect", {"ids": [], "cutoff_ns": 0, "now_ns": 0, "record": [0] * 4}),
    request("collect", {"ids": [], "cutoff_ns": 0, "now_ns": 0, "record": [-1] * 5}),
    request("trash_empty", {"older_seconds": -1}),
    request("trash_empty", {"older_seconds": 1 << 80}),
    request("trash_empty", {"older_seconds": 86400.0 * (1 << 40)}),
    request("trash_set", {**RULE, "days": -1}),
    request("trash_set", {**RULE, "days": 1 << 40}),
    request("trash_set", {**RULE, "days": 1.5}),
    request("trash_set", {**RULE, "minimal_age": -1}),
    request("trash_set", {**RULE, "minimal_age": 1 << 62}),
    request("trash_set", {**RULE, "exclude": "x"}),
    request("trash_set", {**RULE, "exclude": ["\ud800"]}),
    request("trash_set", {**RULE, "exclude": ["a\nb"]}),
    request("trash_set", {**RULE, "exclude": [None]}),
    request("trash_set", {**RULE, "directory": "a/b"}),
    request("trash_set", {**RULE, "directory": "\ud800"}),
    request("trash_set", {**RULE, "directory": "a\0b"}),
    request("trash_set", {**RULE, "directory": "x" * 256}),
    request("undelete", {"path": "/a\0", "since_ns": 0, "before_ns": 0}),
    request("undelete", {"path": "/a", "since_ns": -(1 << 70), "before_ns": 0}),
    request("undelete", {"path": "/a", "since_ns": 0, "before_ns": 1e30}),
]


@pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
def test_odd_requests_are_refused_as_such(served: Mount, line: bytes) -> None:
    answer = ask(served, line)
    assert (answer["ok"], answer["exit_code"]) == (False, ExitCode.USAGE)
    assert "internal" not in answer["error"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (request("\ud800\x1b", {}), ExitCode.FAILED),
        (request("status", {}, 3), ExitCode.FAILED),
        (request("status", {}, -(1 << 90)), ExitCode.FAILED),
        (request("mv", {"src": "/", "dst": "/b"}), ExitCode.FAILED),
        (request("mv", {"src": "", "dst": ""}), ExitCode.FAILED),
        (request("mv", {"src": "/file/..", "dst": "/b"}), ExitCode.FAILED),
        (request("mv", {"src": "/file", "dst": "/.."}), ExitCode.FAILED),
        (request("mv", {"src": "/file", "dst": "/" + "x" * 300}), ExitCode.FAILED),
        (request("mv", {"src": "/" + "a/" * 20_000, "dst": "/b"}), ExitCode.FAILED),
        (request("mv", {"src": "/file", "dst": "/.casfs/x"}), ExitCode.FAILED),
        (request("cp", {"src": "/file", "dst": "/file", "recursive": False}), ExitCode.FAILED),
        (request("undelete", {"path": "/" + "x" * 60_000, "since_ns": 5, "before_ns": 1}), ExitCode.FAILED),
    ],
    ids=range(12),
)
def test_what_cannot_be_done_fails_as_it_would_for_anybody(served: Mount, line: bytes, code: int) -> None:
    answer = ask(served, line)
    assert (answer["ok"], answer["exit_code"]) == (False, code)
    assert "internal" not in answer["error"]


@pytest.mark.parametrize(
    "line",
    [
        request("damaged", {"blobs": list(range(5000))}),
        request("collect", {"ids": [1 << 62], "cutoff_ns": -1, "now_ns": 1 << 62, "record": [0] * 5}),
        request("trash_set", {**RULE, "exclude": ["*" * 2000 + "a", "[", "[!]", "\0", "\u2028"]}),
        request("trash_set", {**RULE, "days": 36_500, "exclude": []}),
        request("trash_empty", {"older_seconds": 5e-324}),
    ],
    ids=range(5),
)
def test_what_is_odd_and_allowed_is_done(served: Mount, line: bytes) -> None:
    assert ask(served, line)["ok"] is True
    (served.path / "victim").write_text("x")
    (served.path / "victim").unlink()


def test_a_line_without_an_end_is_refused(served: Mount) -> None:
    answer = ask(served, b"x" * (protocol.LINE_LIMIT + 1))
    assert (answer["ok"], answer["exit_code"]) == (False, ExitCode.USAGE)


def test_who_says_nothing_is_not_waited_for(served: Mount) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(protocol.SILENCE_SECONDS + 20)
        connection.connect(control_path(str(served.store)))
        connection.sendall(b'{"version"')
        assert b"not a request" in connection.makefile("rb").read()


def test_many_connections_at_once_are_all_served(served: Mount) -> None:
    with ExitStack() as stack:
        connections = []
        for _ in range(400):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(30)
            connection.connect(control_path(str(served.store)))
            connections.append(connection)
        for connection in connections:
            connection.sendall(request("identify", {}))
        for connection in connections:
            assert json.loads(connection.makefile("rb").read())["ok"]


def test_many_that_come_while_the_daemon_is_busy_are_all_served(served: Mount) -> None:
    """More than listen(2) has held by default."""
    import signal
    import time

    errors: list[BaseException] = []

    def work() -> None:
        try:
            Client(str(served.store)).ask(Status())
        except BaseException as error:
            errors.append(error)

    os.kill(served.pid, signal.SIGSTOP)
    try:
        threads = [threading.Thread(target=work) for _ in range(300)]
        for thread in threads:
            thread.start()
        time.sleep(1)
    finally:
        os.kill(served.pid, signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert errors == []


def test_who_goes_away_in_the_middle_harms_nobody(served: Mount) -> None:
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(control_path(str(served.store)))
            connection.sendall(request("status", {}))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_another_user_is_not_let_in(served: Mount) -> None:
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'{}\\n')"
    )
    path = control_path(str(served.store))
    command = [*AS_NEIGHBOUR, "/usr/bin/env", "python3", "-c", program, path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Permission denied" in done.stderr


def test_who_got_a_descriptor_of_the_socket_is_not_served_either(served: Mount) -> None:
    """The kernel says who connects."""
    fd = os.open(control_path(str(served.store)), os.O_PATH)
    (served.store / "run" / "control").chmod(0o666)
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        'print(s.makefile("rb").read())'
    )
    command = [*AS_NEIGHBOUR, "/usr/bin/env", "python3", "-c", program, f"/proc/self/fd/{fd}"]
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=[fd])
    os.close(fd)
    (served.store / "run" / "control").chmod(0o600)
    assert "only root and the owner" in done.stdout


# The client's side


def test_what_is_longer_than_a_request_is_not_sent(served: Mount) -> None:
    with pytest.raises(UsageError, match="longer"):
        Client(str(served.store)).ask(Move("/" + "x" * protocol.LINE_LIMIT, "/b"))


def test_another_process_than_the_one_that_has_the_mount_is_not_asked(served: Mount) -> None:
    store = str(served.store)
    assert Client(store, pid=served.pid).ask(Identify())
    with pytest.raises(NotMounted, match="any more"):
        Client(store, pid=served.pid + 1).ask(Copy("/file", "/copy", False))
    assert not (served.path / "copy").exists()


def test_a_value_that_no_type_allows_is_refused_by_the_daemon_too(served: Mount) -> None:
    with pytest.raises(DaemonError) as raised:
        Client(str(served.store)).ask(EmptyTrash(-5.0))
    assert raised.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    "words",
    [
        ("trash", "empty", "STORE", "--older", f"{1 << 40}d"),
        ("trash", "empty", "STORE", "--older=-1d"),
        ("trash", "empty", "STORE", "--older", "NaN"),
        ("trash", "set", "STORE", "--days", str(1 << 40)),
        ("trash", "set", "STORE", "--days=-1"),
        ("trash", "set", "STORE", "--minimal-age", f"{1 << 40}d"),
        ("trash", "set", "STORE", "--exclude", "a\nb"),
        ("trash", "set", "STORE", "--repository", "a/b", "--days", "1"),
        ("gc", "run", "STORE", "--grace", f"{1 << 40}d"),
        ("pin", "add", "STORE", "--everything", "--expires", f"{1 << 40}d"),
        ("undelete", "STORE", "/a", "--date", f"{1 << 40}d"),
        ("mv", "--store", "STORE", "/" + "x" * 5000, "/b"),
    ],
    ids=lambda words: " ".join(words)[:50],
)
def test_odd_words_are_errors_of_the_command_line(served: Mount, words: tuple[str, ...]) -> None:
    casfs(*(str(served.store) if word == "STORE" else word for word in words), code=2)


def test_the_socket_is_made_private_in_one_step(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scratch / "run").mkdir()
    before = os.umask(0)
    try:
        listening = server.Server(str(scratch / "run" / "control"), {})
        monkeypatch.setattr(os, "chmod", None)
        listening.bind()
    finally:
        os.umask(before)
    assert (scratch / "run" / "control").stat().st_mode & 0o777 == 0o600
    listening.close()
    assert os.listdir(scratch / "run") == []


def test_the_socket_is_not_made_where_a_link_leads(scratch: Path) -> None:
    (scratch / "elsewhere").mkdir()
    (scratch / "elsewhere" / "control").write_text("others'")
    (scratch / "run").symlink_to(scratch / "elsewhere")
    listening = server.Server(str(scratch / "run" / "control"), {})
    with pytest.raises(OSError, match="Not a directory"):
        listening.bind()
    listening.close()
    assert (scratch / "elsewhere" / "control").read_text() == "others'"


def test_a_mount_is_still_a_mount(new_mount: Callable[..., Mount]) -> None:  # noqa: F811
    """A store in a path that is longer than the name of a socket may be."""
    mount = new_mount()
    long = mount.store.parent / ("x" * 150)
    long.mkdir()
    mount.store.rename(long / "store")
    mount.store = long / "store"
    mount.start()
    assert mount.status["serving"]


@pytest.fixture
def mode() -> str:
    """How requests are served makes no difference here."""
    return MODES[0]
