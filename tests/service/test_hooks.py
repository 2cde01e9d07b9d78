"""Programs of the administrator."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import trio

from casfs.service import hooks
from casfs.service.hooks import run_hook


def run(*command: str, seconds: float = 60, stop_after: float | None = None, **variables: str) -> str:
    async def main() -> str:
        event = trio.Event()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:

                async def stop() -> None:
                    await trio.sleep(stop_after or 0)
                    event.set()

                if stop_after is not None:
                    nursery.start_soon(stop)
                answer = await run_hook(command, variables, seconds, event)
                nursery.cancel_scope.cancel()
        return answer

    return trio.run(main)


def python(code: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *words)


def test_one_that_succeeds() -> None:
    assert run("/bin/true") == ""


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (("/bin/sh", "-c", "exit 3"), "/bin/sh failed with exit status 3"),
        (("/bin/sh", "-c", "kill -9 $$"), "/bin/sh was killed by signal 9"),
        (("/nowhere/x",), "/nowhere/x cannot be run: No such file or directory"),
        (("/etc/passwd",), "/etc/passwd cannot be run: Permission denied"),
    ],
)
def test_one_that_fails(command: tuple[str, ...], wrong: str) -> None:
    assert run(*command) == wrong


def test_its_environment_is_what_it_is_told_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    code = "import os, sys; open(sys.argv[1], 'w').write(repr((dict(os.environ), os.getcwd(), os.getsid(0))))"
    assert run(*python(code, str(tmp_path / "out")), CASFS_X="a\0b\n", CASFS_LONG="x" * 200_000) == ""
    environment, directory, session = eval((tmp_path / "out").read_text())
    assert {name for name in environment if name != "LC_CTYPE"} == {"PATH", "LANG", "CASFS_X", "CASFS_LONG"}
    assert environment["CASFS_X"] == "a b\n"
    assert len(environment["CASFS_LONG"]) == hooks.LONGEST_VALUE
    assert (directory, session != os.getsid(0)) == ("/", True)


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    time.sleep(600)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


def test_one_that_hangs_is_ended_with_all_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "PATIENCE_SECONDS", 0.2)
    pid = tmp_path / "pid"
    wrong = run(*python(STUBBORN, str(pid)), seconds=2)
    assert wrong == f"{sys.executable} has not ended for 2 s"
    group = int(pid.read_text())
    deadline = time.monotonic() + 30
    while alive(group):
        assert time.monotonic() < deadline, "the group of the hook lives on"
        time.sleep(0.01)


def alive(group: int) -> bool:
    """Has the group a process that is no zombie (of init's, in a container without one)?"""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[2]) == group and words[0] != b"Z":
            return True
    return False


def test_one_that_is_to_stop_is_stopped() -> None:
    assert run("/bin/sleep", "600", stop_after=0.2) == "/bin/sleep was stopped"
