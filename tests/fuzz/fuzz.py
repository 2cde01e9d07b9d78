"""Rounds of random requests on one store, and the looks at it in between.

A *life* is one daemon's: mounted, some rounds, unmounted or killed. A round is a *duel* (one process,
compared with the disk) or a *crowd* (several, as several users, with the commands of casfs beside them).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from tests.fuzz.actor import Actor, Step
from tests.fuzz.crowd import Worker
from tests.fuzz.dice import Dice
from tests.fuzz.duel import COMPARE_EVERY, Difference, Duel
from tests.fuzz.grounds import WORDS, Ground, Place, add_layouts, plain, remove, repositories
from tests.fuzz.shrink import shrunk
from tests.fuzz.witness import Looks, Sight, Witness, different, differing
from tests.mounted.mounts import (
    CASFS,
    ENVIRONMENT,
    ROOT_OPTIONS,
    Mount,
    asked,
    is_mounted,
    sync_directory,
)

INTERVALS = ("0", "0.05", "1", "1")
"""Of commits, in seconds."""

USERS = (0, 0, 1234, 1235)
"""Of the processes of a crowd. Root's change users at each step."""

PATIENCE = 60.0
"""Seconds after which a request hangs, and an unmount does."""

STEPS = 400
"""Of a duel."""

PLACES = 4
"""Of repositories, where a round may be: in one, and in three trees over it."""

LEFT_BY_A_KILL = ("stray-blob", "stray-staged")


class Finding(Exception):
    """Something is wrong."""


class Fuzz:
    """One store, fuzzed until `seconds` are over. Raises Finding or Difference."""

    def __init__(self, folder: Path, model: Path, mode: str, seed: int, without: str = "") -> None:
        for each in (folder, model):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
        self.folder = folder
        self.model = model
        self.seed = seed
        self.without = without
        self.dice = random.Random(seed)
        self.mount = Mount(folder / "store", folder / "mnt", mode=mode)
        self.counts: Counter[str] = Counter()
        self.steps: list[Step] = []
        self.number = 0
        self._old: list[Ground] = []
        self._place = 0
        self._shown: Sight = {}
        self.mount.expect("repositories.refusals: repository round.* is refused, (EROFS|EEXIST)")
        add_layouts(self.mount.store, asked)
        command("trash", "set", self.mount.store, "--minimal-age", "0s")

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.life(deadline)
        self.start()
        self.mount.stop()
        for verb in MAY_BE_REFUSED:
            if self.counts[f"casfs {verb} refused"] > TRIES and not self.counts[f"casfs {verb}"]:
                raise Finding(f"casfs {verb} was refused each time: this run proves nothing of it")

    def start(self) -> None:
        self.mount.start(f"{ROOT_OPTIONS},commit_interval={self.dice.choice(INTERVALS)}")
        self.mount.assert_mode()
        if self._shown:
            fresh = self.witness().look(content=True)
            if wrong := differing(fresh, self._shown):
                raise Finding(f"another tree after the mount: {wrong}")
            self._shown = {}

    def life(self, deadline: float, rounds: Sequence[str] = ()) -> None:
        """Mount it, some rounds, and the end."""
        self.start()
        for kind in rounds or self.dice.choices(("duel", "crowd"), k=self.dice.randrange(1, 5)):
            if time.monotonic() > deadline:
                break
            self.number += 1
            self.counts[kind] += 1
            if kind == "duel":
                self.duel()
            else:
                self.crowd(min(self.dice.uniform(2, 8), max(2, deadline - time.monotonic())))
            self.look()
            if wrong := self.witness().forgetful():
                raise Finding(f"the kernel remembers what is not so: {wrong}")
        self.counts["lives"] += 1
        if self.dice.random() < 0.3:
            self.kill()
        else:
            self.unmount()
        self.inspect()

    # Rounds

    def place(self) -> Ground:
        """New directories in the mount, for everybody."""
        while len(self._old) > 2:
            remove(self._old.pop(0), self.mount.store, asked)
        path = self.mount.path / f"round{self.number}"
        ground = repositories(self.mount.store, path, asked) if self._place else plain(path)
        self._old.append(ground)
        return ground

    def duel(self) -> None:
        self._place = self.dice.choice((0, 0, 0, *range(1, PLACES + 1)))
        dice = Dice(f"{self.seed}/{self.number}")
        ground, model = self.place(), self.model / f"round{self.number}"
        place = self._place_of(ground)
        # Rights in trees are those of two directories, of which a directory of the disk has one.
        dice.users, dice.without = os.getuid() == 0 and not place.is_tree, self.without
        dice.words = WORDS[place.words]
        self.counts[f"duels in {place.path.name.partition('-')[2] or 'directories'}"] += 1
        self.steps = []
        self.fight([dice.step() for _ in range(STEPS)], ground, model)

    def _place_of(self, ground: Ground) -> Place:
        return ground.places[max(0, self._place - 1)]

    def witness(self) -> Witness:
        """Of all that is left of rounds."""
        return Witness(
            (top for ground in self._old for top in ground.tops),
            {name for ground in self._old for name in ground.names},
        )

    def fight(self, steps: Sequence[Step], ground: Ground, model: Path, every: int = COMPARE_EVERY) -> None:
        """A duel of these steps. Raises Difference."""
        model.mkdir(parents=True)
        model.chmod(0o777)
        before = os.umask(0)
        place = self._place_of(ground)
        duel = Duel(
            place.path,
            model,
            native=self.mount.mode == "native",
            every=every,
            is_tree=place.is_tree,
            witness=Witness(ground.tops, ground.names) if ground.has_trees else None,
        )
        try:
            duel.run(steps)
        finally:
            self.counts["steps"] += len(duel.steps)
            with suppress(OSError):
                duel.end()
            os.umask(before)
            shutil.rmtree(model)

    def crowd(self, seconds: float) -> None:
        self._place = self.dice.choice((0, 1))
        self.counts["crowds in trees" if self._place else "crowds in directories"] += 1
        ground = self.place()
        users = USERS if os.getuid() == 0 else (os.getuid(),) * 3
        workers = [
            Worker(
                ground.places[(number + self.number) % len(ground.places)],
                self.folder / f"log{number}",
                f"{self.seed}/{self.number}/{number}",
                seconds,
                user,
                self.without,
            )
            for number, user in enumerate(users)
        ]
        for number in range(len(users)):
            (self.folder / f"log{number}").unlink(missing_ok=True)
        beside = Beside(self.mount, ground, random.Random(f"{self.seed}/{self.number}"))
        beside.start()
        looks = Looks(Witness(ground.tops, ground.names)) if ground.has_trees else None
        if looks is not None:
            looks.start()
        kill_at = time.monotonic() + seconds / 2 if self.dice.random() < 0.2 else 0
        try:
            while not all(worker.has_ended for worker in workers):
                time.sleep(0.1)
                for worker in workers:
                    if not worker.has_ended and worker.stuck_for() > PATIENCE:
                        raise Finding(f"hangs: {worker.where()}\n{worker.last()}")
                if kill_at and time.monotonic() > kill_at:
                    beside.stop()
                    self.mount.kill()
                    self.counts["kills"] += 1
                    break
            complaints = [complaint for worker in workers if (complaint := worker.end())]
        finally:
            if looks is not None:
                looks.stop(PATIENCE)
            beside.stop()
            for worker in workers:
                self.counts["requests"] += lines(worker.log)
                worker.kill()
        if kill_at and not is_mounted(self.mount.path):
            self.mount.start()
            self._old = [old for old in self._old if old.tops[0].exists()]
        if complaints or beside.complaints:
            raise Finding("\n".join([*complaints, *beside.complaints]))
        self.counts.update(beside.counts)
        top = ground.places[0].path
        if top.exists():
            self.copy(top)

    def copy(self, place: Path) -> None:
        """Nobody is at work any more: what they have left can be copied and moved by rows, whole."""
        copied, moved = place.with_name(f"{place.name}-copied"), place.with_name(f"{place.name}-moved")
        command("cp", "-r", place, copied)
        command("mv", copied, moved)
        self._old.append(Ground((), (moved,)))
        before, after = without_links(tree(place)), without_links(tree(moved))
        if before != after:
            raise Finding(f"casfs cp -r: {different(after, before)}")
        self.snapshot(moved, after)

    def snapshot(self, place: Path, before: dict[str, Any]) -> None:
        """It shows what was, and brings it back."""
        store, name = self.mount.store, f"fuzz{self.number}"
        command("snapshot", "create", store, name)
        shown = self.mount.path / ".casfs" / "snapshots" / name / place.name
        if (seen := without_links(tree(shown))) != before:
            raise Finding(f"a snapshot shows something else: {different(seen, before)}")
        names = sorted(os.listdir(place))
        for entry in self.dice.sample(names, len(names) // 2):
            command("rm", "-r", "--force", place / entry)
        for entry in sorted(os.listdir(place))[::2]:
            os.rename(place / entry, place / f"{entry}-renamed"[:200])
        command("snapshot", "restore", store, name, f"/{place.name}")
        if (seen := without_links(tree(place))) != before:
            raise Finding(f"a restored tree is another one: {different(seen, before)}")
        if left := command("snapshot", "diff", store, name, "--path", f"/{place.name}").strip():
            raise Finding(f"a restored tree differs: {left}")
        command("snapshot", "rm", store, name)
        self.counts["snapshots restored"] += 1

    # Looks

    def look(self) -> None:
        """Between rounds: are commits made, does what is written stay, is the log silent?"""
        canary = self.mount.path / "canary"
        content = random.Random(self.number).randbytes(self.dice.choice((10, 5_000, 300_000)))
        fd = os.open(canary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, content)
            os.fsync(fd)
        except OSError as error:
            raise Finding(f"the canary cannot be written: {error}; {self.mount.complaints()}") from error
        finally:
            os.close(fd)
        if canary.read_bytes() != content:
            raise Finding("the canary reads other bytes than were written")
        activity = self.mount.status["activity"]
        if activity["failed"] or activity["commit_errors"]:
            raise Finding(f"commits failed: {activity}")
        if self.mount.complaints():
            raise Finding("in the log:\n" + "\n".join(self.mount.complaints()[:20]))
        whole(self.mount.store)

    def unmount(self) -> None:
        """Let the kernel forget; nothing may be held then."""
        self.undelete()
        self._shown = self.witness().look(content=True)
        deadline = time.monotonic() + 20
        while True:
            if os.getuid() == 0:  # again and again: what was killed just now may hold something
                Path("/proc/sys/vm/drop_caches").write_text("2")
            activity = self.mount.status["activity"]
            kinds = ("open_handles", "unlinked_open")
            held = {key: activity[key] for key in kinds if activity[key]}
            if not held:
                break
            if time.monotonic() > deadline:
                raise Finding(f"held though nobody holds anything: {held}")
            time.sleep(0.2)
        done = subprocess.run(
            [*CASFS, "umount", self.mount.path],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise Finding(f"unmounting: {done.stderr}")

    def undelete(self) -> None:
        """What is removed can be had back."""
        place = self.mount.path / "undeleted"
        place.write_bytes(b"content" * self.dice.choice((1, 1_000, 100_000)))
        before = hashlib.sha256(place.read_bytes()).digest()
        sync_directory(self.mount.path)
        place.unlink()
        command("undelete", self.mount.path, "undeleted")
        if hashlib.sha256(place.read_bytes()).digest() != before:
            raise Finding("undelete gave other bytes")
        place.unlink()

    def kill(self) -> None:
        self.mount.kill()
        self.counts["kills"] += 1
        self.mount.start()
        self.look()
        self.unmount()

    def inspect(self) -> None:
        """Nobody uses the store: is everything in order?"""
        if self.mount.complaints():
            raise Finding("in the log:\n" + "\n".join(self.mount.complaints()[:20]))
        done = subprocess.run(
            [*CASFS, "fsck", "--deep", "--json", self.mount.store],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        problems = json.loads(done.stdout)["problems"]
        if self.mount.crashed:
            problems = [each for each in problems if each["kind"] not in LEFT_BY_A_KILL]
        if problems:
            raise Finding(f"fsck: {json.dumps(problems[:10], indent=1)}")
        if self.mount.crashed or self.dice.random() < 0.3:
            command("gc", "run", self.mount.store, "--full", "--grace", "0")
            self.mount.crashed = False
            command("fsck", "--deep", self.mount.store)
        command("scrub", "--restart", self.mount.store)
        whole(self.mount.store)

    def clear(self) -> None:
        self.mount.clear()

    # A shorter list

    def shrink(self, difference: Difference, seconds: float) -> Difference:
        """The same kind of difference after fewer steps, on the same mount."""
        deadline = time.monotonic() + seconds
        fewest = difference

        def fails(steps: Sequence[Step]) -> Sequence[Step] | None:
            nonlocal fewest
            if time.monotonic() > deadline:
                return None
            self.number += 1
            try:
                self.fight(steps, self.place(), self.model / f"round{self.number}", every=1)
            except Difference as again:
                if again.kind == difference.kind:
                    fewest = again
                    return again.steps
            return None

        shrunk(difference.steps, fails)
        return fewest


MAY_BE_REFUSED = ("cp", "mv", "undelete", "snapshot")
"""What commands say no to while files are written, or because names are taken; at times they succeed."""

TRIES = 30
"""Of one of them, after which one has to have succeeded."""


class Beside(threading.Thread):
    """The commands of casfs, one after the other, while others are at work."""

    def __init__(self, mount: Mount, ground: Ground, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.mount = mount
        self.ground = ground
        self.dice = dice
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self.dice.uniform(0.1, 1.0)):
            store = self.mount.store
            place, kind, _ = self.dice.choice(self.ground.places)
            known = WORDS[kind].files[:3] + WORDS[kind].directories[:2]
            names = self.dice.choice(known), self.dice.choice((known[0], "copy", "D/c", "F"))
            commands: list[tuple[object, ...]] = [
                ("cp", "-r", place / names[0], place / names[1]),
                ("mv", place / names[0], place / names[1]),
                ("undelete", place, place / self.dice.choice(names)),
                ("gc", "run", store, "--grace", self.dice.choice(("0", "5s"))),
                ("gc", "run", store, "--full", "--grace", "0"),
                ("scrub", store),
                ("df", self.mount.path),
                ("fsck", store),
                ("trash", "empty", store),
                ("snapshot", "create", store, "beside"),
                ("snapshot", "list", store),
                ("snapshot", "diff", store, "beside"),
                ("snapshot", "restore", store, "beside", f"/{place.relative_to(self.mount.path)}"),
                ("snapshot", "rm", store, "beside"),
            ]
            if self.ground.has_trees:
                commands += self._of_repositories(store)
            words = self.dice.choice(commands)
            done = subprocess.run(
                [*CASFS, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
            )
            if self._ended.is_set():
                return
            verb = str(words[0])
            refused = done.returncode == 1 and verb in MAY_BE_REFUSED
            found_none = done.returncode == 1 and verb == "find" and not done.stderr
            if refused or found_none or not done.returncode:
                self.counts[f"casfs {verb}" + " refused" * refused] += 1
            else:
                self.complaints.append(
                    f"casfs {words}: exit code {done.returncode}, {done.stderr}{done.stdout}"
                )

    def _of_repositories(self, store: Path) -> list[tuple[object, ...]]:
        far, view, both, libs, more = (top.name for top in self.ground.tops)
        members = self.dice.sample((libs, more), 2)
        return [
            ("repo", "show", store, self.dice.choice((far, view)), "--left-out"),
            ("repo", "set", store, both, "--virtual", ",".join(members)),
            ("repo", "set", store, both, "--deploy", members[0]),
            *(
                ("repo", "set", store, tree, "--layout", self.dice.choice(("fuzzed-view", "fuzzed-other")))
                for tree in (far, view)
            ),
            ("find", store, "--module", "a"),
            ("find", store, "--blake3", "0", "--module", "a"),
        ]

    def stop(self) -> None:
        self._ended.set()
        self.join()


def command(*words: object) -> str:
    """A command that has to succeed. Raises Finding."""
    done = subprocess.run(
        [*CASFS, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise Finding(f"casfs {words}: exit code {done.returncode}, {done.stderr}{done.stdout}")
    return done.stdout


def whole(store: Path) -> None:
    """Every blob has the bytes its name says (I2). Raises Finding."""
    for file in (store / "blobs").glob("*/*"):
        with suppress(FileNotFoundError):  # collected meanwhile
            found = blake3(file.read_bytes()).hexdigest()
            if found != file.name:
                raise Finding(f"blob {file.name} has the bytes of {found}")


def tree(folder: Path) -> Any:
    """Everything that can be seen below it."""
    actor = Actor(folder)
    try:
        return actor.do_tree()
    finally:
        actor.end()


def without_links(seen: dict[str, Any]) -> dict[str, Any]:
    """Files may have further names in other repositories, which are not copied."""
    return {path: (mode, *rest) for path, (mode, _, *rest) in seen.items()}


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def scratch(where: Path | None) -> Path:
    """A new folder that all users can walk through."""
    folder = Path(tempfile.mkdtemp(prefix="casfs-fuzz-", dir=where))
    folder.chmod(0o755)
    return folder
