"""How repositories refer to each other: members of virtual ones, sources of views. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping

from casfs.repositories.damaged import circles
from casfs.repositories.registry import Repository, RepositoryKind

Repositories = Mapping[int, Repository]
"""By the inode number of their directory."""


def circle(repositories: Repositories) -> list[int]:
    """A way from a repository back to itself, which is its first and its last; empty if there is none."""
    found = circles({repository.ino: repository.members for repository in repositories.values()})
    return [*found[0], found[0][0]] if found else []


def shown(repositories: Repositories, ino: int) -> list[int]:
    """Those that a virtual repository shows, nested ones in its place: local ones and views, in order."""
    found: dict[int, None] = {}
    seen = set[int]()
    waiting = [ino]
    while waiting:
        ino = waiting.pop()
        if ino in seen:
            continue
        seen.add(ino)
        repository = repositories.get(ino)
        if repository is not None and repository.kind is RepositoryKind.VIRTUAL:
            waiting += reversed(repository.members)
        else:
            found[ino] = None
    return list(found)


def deploys_elsewhere(repositories: Repositories) -> list[Repository]:
    """Virtual repositories whose writes would go to one that they do not show, or that holds no files."""
    return [
        repository
        for repository in repositories.values()
        if repository.deploy is not None
        and (
            repository.deploy not in shown(repositories, repository.ino)
            or repository.deploy not in repositories
            or repositories[repository.deploy].kind is not RepositoryKind.LOCAL
        )
    ]


def referring(repositories: Repositories, inos: Container[int]) -> list[Repository]:
    """Others that have one of these as a member, as their source, or write to it."""
    return [
        repository
        for repository in repositories.values()
        if repository.ino not in inos
        and (repository.deploy in inos or any(member in inos for member in repository.members))
    ]
