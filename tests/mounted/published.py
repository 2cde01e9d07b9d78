"""Artifacts that are published in a repository, through a view of it and through a virtual repository, and
the look afterwards whether all three show what was promised.

Lines of the record (load.py), of names that are no paths:

    artifact NAME VERSION  NAME is there, whole, with this version or a later one
    leaving NAME           NAME may be gone, from all three
    left NAME              NAME is gone, from all three
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.mounted.mounts import Mount, asked, sync_directory

KINDS = ("artifact", "leaving", "left")
LIBS, VIEW, ALL = "libs", "libs-ivy", "all"


def make_repositories(mount: Mount) -> None:
    """In an empty store that is mounted."""
    for name, *words in (
        (LIBS, "--layout", "maven-2-default", "--digests", "sha256,md5"),
        (VIEW, "--view", LIBS, "--layout", "ivy-default"),
        (ALL, "--virtual", LIBS, "--deploy", LIBS),
    ):
        asked("repo", "create", mount.store, name, *words)


def places(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Of the artifact WORKER/MODULE-1.0.jar of a load in `folder`: in the repository and in both trees."""
    worker, file = name.split("/")
    module = file.partition("-")[0]
    maven = f"{folder.name}/{worker}/{module}/1.0/{file}"
    ivy = f"{folder.name}.{worker}/{module}/1.0/jars/{file}"
    return folder.parent / LIBS / maven, folder.parent / VIEW / ivy, folder.parent / ALL / maven


class Publisher:
    """Publishes for a worker of a load. `promise` as Worker.promise; `content`: of a name and a version."""

    def __init__(
        self,
        folder: Path,
        worker: str,
        promise: Callable[[str], None],
        dice: random.Random,
        content: Callable[[str, int], bytes],
    ) -> None:
        self.folder = folder
        self.worker = worker
        self.promise = promise
        self.dice = dice
        self.content = content
        self.versions: dict[str, int] = {}
        self.there: list[str] = []

    def _place(self, name: str) -> Path:
        return self.dice.choice(places(self.folder, f"{self.worker}/{name}"))

    def publish(self) -> None:
        """A new one, as it is, or by a name that no layout knows; or another version of one."""
        if self.there and self.dice.random() < 0.4:
            name = self.dice.choice(self.there)
        else:
            name = f"m{len(self.versions)}-1.0.jar"
        version = self.versions[name] = self.versions.get(name, 0) + 1
        place = self._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(".new") if version > 1 or self.dice.random() < 0.5 else place
        with open(temporary, "wb") as file:
            file.write(self.content(name, version))
            file.flush()
            os.fsync(file.fileno())
        if temporary != place:
            os.rename(temporary, place)
            sync_directory(place.parent)
        self.promise(f"artifact {name} {version}")
        if version == 1:
            self.there.append(name)

    def withdraw(self) -> None:
        if len(self.there) < 4:
            return
        name = self.there.pop(self.dice.randrange(len(self.there)))
        place = self._place(name)
        self.promise(f"leaving {name}")
        place.unlink()
        if self.dice.random() < 0.5:
            sync_directory(place.parent if place.parent.exists() else self.folder)
            self.promise(f"left {name}")


def broken(folder: Path, record: bytes, not_whole: Callable[[Path, int], list[str]]) -> list[str]:
    """What `record` promises and is not so. `not_whole`: what is wrong with a file, of at least a version."""
    promises: dict[str, tuple[str, int]] = {}
    for line in record.decode().splitlines()[: record.count(b"\n")]:
        kind, name, *rest = line.split()
        if kind in KINDS:
            promises[name] = kind, int(rest[0]) if rest else 0
    found: list[str] = []
    for name, (kind, version) in promises.items():
        shown = places(folder, name)
        there = [place for place in shown if place.exists()]
        if kind == "artifact" or (kind == "leaving" and there):
            found += [wrong for place in shown for wrong in not_whole(place, max(version, 1))]
            if len({place.stat().st_ino for place in there}) != 1:
                found.append(f"{name} is not one file: {there}")
        elif kind == "left":
            found += [f"{place} was removed and is there" for place in there]
    return found + (_shown_otherwise(folder) if promises else [])


def _shown_otherwise(folder: Path) -> list[str]:
    """The trees show what is in the repository, no more and no less."""
    libs, view, both = (folder.parent / name for name in (LIBS, VIEW, ALL))
    names = {f"{path.parts[-4]}/{path.name}" for path in (libs / folder.name).glob("*/*/*/*.jar")}
    wanted = [set(each) for each in zip(*(places(folder, name) for name in names), strict=True)]
    seen = [
        set((libs / folder.name).glob("*/*/*/*.jar")),
        set(view.glob(f"{folder.name}.*/*/*/*/*.jar")),
        set((both / folder.name).glob("*/*/*/*.jar")),
    ]
    return [
        f"{path} is shown by one, and not by the other"
        for should, does in zip(wanted or [set(), set(), set()], seen, strict=True)
        for path in sorted(should ^ does)
    ]
