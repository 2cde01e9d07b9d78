"""What is done through one name is seen at once through the other, whatever the kernel remembers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.shown import Contents, Shown, contents, make_shown
from tests.mounted.sides import outcome

STEPS = 120
MODULES = ("a", "b")
REVISIONS = ("1.0", "2.0")
CLASSIFIERS = ("", "sources")


def maven(module: str, revision: str, classifier: str) -> str:
    return f"org/x/{module}/{revision}/{module}-{revision}{'-' * bool(classifier)}{classifier}.jar"


def ivy(module: str, revision: str, classifier: str) -> str:
    return f"org.x/{module}/{revision}/jars/{module}{'-' * bool(classifier)}{classifier}-{revision}.jar"


ARTIFACTS = [(m, r, c) for m in MODULES for r in REVISIONS for c in CLASSIFIERS]
TO_IVY = {os.fsencode(maven(*each)): os.fsencode(ivy(*each)) for each in ARTIFACTS}
PLAIN = ("d/one", "d/two", "e/one", "f/three")


@pytest.fixture
def shown(common_mount: Mount, request: pytest.FixtureRequest) -> Shown:
    return make_shown(common_mount, request.node.name)


def do(kind: str, path: str, other: str, content: bytes) -> None:
    """One operation, as a program does it."""
    if kind == "write":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)
    elif kind == "append":
        with open(path, "ab") as file:
            file.write(content)
    elif kind == "save":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        temporary = os.path.join(os.path.dirname(path), ".tmp")
        Path(temporary).write_bytes(content)
        os.rename(temporary, path)
    elif kind == "unlink":
        os.unlink(path)
    elif kind == "rename":
        Path(other).parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, other)
    elif kind == "link":
        os.link(path, other)
    elif kind == "truncate":
        os.truncate(path, len(content))
    elif kind == "rename_directory":
        os.rename(os.path.dirname(path), os.path.dirname(other))
    elif kind == "rmdir":
        os.rmdir(os.path.dirname(path))


KINDS = ["write"] * 4 + ["append", "save", "save", "unlink", "unlink", "rename", "rename", "link", "truncate"]
KINDS += ["rename_directory", "rmdir"]


def work(pipe: Connection) -> None:
    """The other program: it does what it is told, or tells what it sees."""
    for call, *words in iter(pipe.recv, None):
        pipe.send(outcome(lambda call=call, words=words: call(*words)))


@contextlib.contextmanager
def other_program() -> Iterator[Callable[..., object]]:
    pipe, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=[its])
    process.start()

    def tell(*words: object) -> object:
        pipe.send(words)
        assert pipe.poll(60), f"it hangs: {words}"
        return pipe.recv()

    try:
        yield tell
        pipe.send(None)
    finally:
        process.join(5)
        process.kill()


def see(top: Path) -> Contents:
    """As `contents`, and each file as stat(2) and a second listing show it."""
    found = contents(top)
    for path, content in found.items():
        assert os.stat(os.path.join(os.fsencode(top), path)).st_size == len(content)
    return found


def expected_of(shown: Shown) -> tuple[Contents, Contents]:
    """What the view and the virtual repository have to show of what their sources have."""
    libs, more = see(shown.libs), see(shown.more)
    return {TO_IVY.get(path, path): content for path, content in libs.items() if path in TO_IVY}, more | libs


def names(top: Path) -> list[tuple[str, list[str], list[str]]]:
    return [(folder, sorted(below), sorted(files)) for folder, below, files in os.walk(top)]


@pytest.mark.parametrize("seed", range(2))
def test_two_programs_see_the_same_after_each_of_many_operations(shown: Shown, seed: int) -> None:
    """Both look at everything before and after, so that all names, attributes and listings are remembered."""
    dice = random.Random(seed)
    sources = [(shown.libs, maven), (shown.ivy, ivy)]
    told: list[str] = []
    with other_program() as tell:
        for number in range(STEPS):
            kind = dice.choice(KINDS)
            if dice.random() < 0.6:
                top, spell = dice.choice(sources)
                path, other = (str(top / spell(*dice.choice(ARTIFACTS))) for _ in range(2))
            else:
                top = dice.choice((shown.more, shown.all))
                path, other = (str(top / dice.choice(PLAIN)) for _ in range(2))
            step = do, kind, path, other, b"%d" % number * dice.randrange(1, 30)
            ended = tell(*step) if dice.random() < 0.5 else outcome(lambda step=step: step[0](*step[1:]))
            told.append(f"step {number}: {step[1:4]}: {ended}")
            view, both = expected_of(shown)
            for tree, expected in ((shown.ivy, view), (shown.all, both)):
                if number % 3 == 0:
                    assert tell(see, tree) == expected, told[-5:]
                assert see(tree) == expected, told[-5:]


@pytest.mark.parametrize("count", [1, 40, 300])
def test_remembered_names_attributes_and_listings_follow(shown: Shown, count: int) -> None:
    """However many names change before anybody looks again."""
    places = [
        (shown.libs / "org/x/a/1", shown.ivy / "org.x/a/1/jars", "a-1-c{}.jar", "a-c{}-1.jar"),
        (shown.more / "d", shown.all / "d", "file{}", "file{}"),
    ]
    for source, tree, name, derived in places:
        for round_ in range(2):
            source.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (source / name.format(number)).write_bytes(b"%d" % round_)
            found = {entry.name: entry.stat().st_size for entry in os.scandir(tree)}
            assert found == {derived.format(number): 1 for number in range(count)}
            for number in range(0, count, max(1, count // 50)):
                assert (tree / derived.format(number)).read_bytes() == b"%d" % round_
            for number in range(count):
                os.rename(source / name.format(number), source / name.format(f"r{number}"))
            assert set(os.listdir(tree)) == {derived.format(f"r{number}") for number in range(count)}
            assert not (tree / derived.format(0)).exists()
            for number in range(count):
                os.truncate(source / name.format(f"r{number}"), 10)
            assert {entry.stat().st_size for entry in os.scandir(tree)} == {10}
            for number in range(count):
                (source / name.format(f"r{number}")).unlink()
            source.rmdir()
            assert not tree.exists()
            assert tree.name not in os.listdir(tree.parent) if tree.parent.exists() else True


def change_for(seconds: float, top: str, names: list[str], seed: int) -> int:
    """Make, rename and remove files of few names; how often."""
    dice, end, count = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        path, other = (os.path.join(top, dice.choice(names)) for _ in range(2))
        outcome(lambda path=path, other=other: do(dice.choice(KINDS[:-2]), path, other, b"content"))  # type: ignore[misc]
        count += 1
    return count


def test_programs_that_change_the_same_names_do_not_wait_for_each_other(shown: Shown) -> None:
    """Each has the kernel keep others from its directory, and have names forgotten in those of the others."""
    shown.mount.expect("is refused, EROFS: it lies in another repository")
    work = [
        (shown.libs, [maven(*each) for each in ARTIFACTS[:3]]),
        (shown.ivy, [ivy(*each) for each in ARTIFACTS[:3]]),
        (shown.more, list(PLAIN[:3])),
        (shown.all, [*PLAIN[:3], *(maven(*each) for each in ARTIFACTS[:3])]),
    ]
    with contextlib.ExitStack() as programs:
        told = [programs.enter_context(other_program()) for _ in work]
        with ThreadPoolExecutor(len(work)) as threads:
            counts = threads.map(
                lambda number: told[number](change_for, 2.0, str(work[number][0]), work[number][1], number),
                range(len(work)),
            )
            assert all(isinstance(count, int) and count > 10 for count in counts)
    view, both = expected_of(shown)
    assert see(shown.ivy) == view
    assert see(shown.all) == both
