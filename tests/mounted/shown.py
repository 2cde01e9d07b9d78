"""Repositories of a test's own in a mount, with trees over them, and programs that work in them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.mounted.mounts import Mount, asked

ENVIRONMENT = {
    **os.environ,
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CEILING_DIRECTORIES": "/",
}

LAYOUT = "maven-2-default"
JAR = "org/acme/app/1.0/app-1.0.jar"
IVY_JAR = "org.acme/app/1.0/jars/app-1.0.jar"

Contents = dict[bytes, bytes]
"""Path -> content, or the target of a symbolic link."""


def run(*words: str | Path, cwd: Path | None = None, code: int = 0) -> str:
    """A program, which has to end with `code`; what it prints, or its complaint."""
    done = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, errors="replace", timeout=60
    )
    assert done.returncode == code, f"{words}: exit code {done.returncode}, {done.stderr[-2000:]}"
    return done.stderr if code else done.stdout


class Shown:
    """`libs` is a Maven repository, `ivy` a view of it; `more` has no layout; `all` is libs and more, written
    to more."""

    def __init__(self, mount: Mount, prefix: str = "") -> None:
        self.mount = mount
        self.libs, self.ivy, self.more, self.all = (
            mount.path / f"{prefix}{name}" for name in ("libs", "ivy", "more", "all")
        )
        self.create(self.libs, "--layout", LAYOUT)
        self.create(self.more)
        self.create(self.ivy, "--view", self.libs.name, "--layout", "ivy-default")
        self.create(self.all, "--virtual", f"{self.libs.name},{self.more.name}", "--deploy", self.more.name)

    def create(self, directory: Path, *words: str) -> Path:
        asked("repo", "create", self.mount.store, directory.name, *words)
        return directory


def make_shown(mount: Mount, test: str) -> Shown:
    """For one test of several that have a mount in common."""
    return Shown(mount, re.sub(r"\W", "-", test)[:100] + "-")


def put(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def contents(top: Path) -> Contents:
    """All files below, as they are listed and read."""
    found: Contents = {}
    root = os.fsencode(top)
    for folder, _, names in os.walk(root, onerror=_fail):
        for name in names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = _content(path)
    return found


def _content(path: bytes) -> bytes:
    if os.path.islink(path):
        return os.readlink(path)
    with open(path, "rb") as file:
        return file.read()


def _fail(error: OSError) -> None:
    raise error


def ivy_tree(top: Path, modules: int = 3, versions: int = 2) -> Path:
    """Artifacts as Ivy has them, with files that no layout knows among them."""
    for module in range(modules):
        for version in range(versions):
            place = top / f"org.acme/m{module}/1.{version}"
            for kind, name in (
                ("jars", f"m{module}-1.{version}.jar"),
                ("jars", f"m{module}-sources-1.{version}.jar"),
                ("poms", f"m{module}-1.{version}.pom"),
                ("docs", f"m{module}-1.{version}.html"),
                ("", "notes"),
            ):
                put(place / kind / name, f"{module} {version} {name}\n".encode() * (1 + 3000 * module))
    put(top / "README", b"no artifact")
    return top
