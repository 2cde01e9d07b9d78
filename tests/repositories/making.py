"""Repositories in a store that is used in this process, made as the commands make them."""

from __future__ import annotations

from contextlib import suppress

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories import rules
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.rules import Rules
from tests.session import Session

LAYOUT = "maven-2-default"
JAR = "org/acme/app/1.0/app-1.0.jar"


def make_repository(
    session: Session,
    name: str,
    layout: str | None = LAYOUT,
    with_rules: Rules | None = None,
    kind: str = "local",
    members: tuple[int, ...] = (),
    deploy: int | None = None,
) -> int:
    """A repository, or another one of what is there; the number of its directory."""
    make_directories(session, name)
    ino = session.kernel.inode(name).ino
    run_inline(session.fs.group.begin())
    row = RepositoryRow(ino, kind, layout, deploy, rules.encode(with_rules or Rules()))
    session.store.namespace.repositories.set(row, members)
    registry_of(session.fs).read()
    follower_of(session.fs).follow(ino)
    return ino


def make_directories(session: Session, path: str) -> None:
    """As `mkdir -p`."""
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        with suppress(FsError):  # it is there
            session.kernel.mkdir("/".join(parts[:end]))
