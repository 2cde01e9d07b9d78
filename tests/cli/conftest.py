"""Runs `casfs` in this process or as a program of its own, on layers below that are there or stand in."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import NamedTuple

import msgspec
import pytest

from casfs.cli.main import main
from casfs.control.client import Client
from casfs.control.messages import Operation, Result
from casfs.errors import NotMounted


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What the command has to say against it: exactly one line."""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.removeprefix("casfs: error: ").removesuffix("\n")


@pytest.fixture
def casfs(capsys):
    """Run a command in this process."""

    def run(*words: str) -> Outcome:
        try:
            code = int(main(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


def run_program(*words: str | bytes, **options) -> subprocess.CompletedProcess:
    """Run a command as a program of its own."""
    options = {"capture_output": True} | options
    return subprocess.run([sys.executable, "-m", "casfs", *words], **options)


@pytest.fixture
def program():
    return run_program


@pytest.fixture
def stand_in(monkeypatch):
    """Put a module in the place of one of casfs' own: stand_in("casfs.maintenance.usage", summarize=…)."""

    def put(name: str, **members: object) -> None:
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    return put


class Mount(NamedTuple):
    store: str
    mountpoint: str
    pid: int
    root: str = "/"


@pytest.fixture
def mounted(stand_in, monkeypatch):
    """Say what is mounted, and how its daemon answers; returns the calls it will have got."""

    def put(*mounts: Mount, answer: object = None) -> list[tuple]:
        calls: list[tuple] = []

        def find_mount(path: str) -> tuple[Mount, bytes]:
            for mount in mounts:
                if path == mount.mountpoint or path.startswith(mount.mountpoint + "/"):
                    return mount, path.removeprefix(mount.mountpoint).encode() or b"/"
            raise NotMounted(f"{path} is in no casfs mount")

        def ask(client: Client, operation: Operation[Result]) -> Result:
            calls.append((client.store, operation.op, msgspec.to_builtins(operation)))
            if isinstance(answer, Exception):
                raise answer
            return msgspec.convert(answer or {}, operation.result_type())

        stand_in(
            "casfs.service.mounts",
            list_mounts=lambda: list(mounts),
            find_mount=find_mount,
            claimed_mount=find_mount,
            find_mounts=lambda paths: map(find_mount, paths),
            NotOurs=NotMounted,
            verified=lambda mount: mount,
        )
        stand_in(
            "casfs.service.unmounting",
            unmount=lambda mountpoint, **_: calls.append((mountpoint, "unmount", {})),
        )
        monkeypatch.setattr(Client, "ask", ask)
        return calls

    return put
