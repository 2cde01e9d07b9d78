"""The same steps in a mount and in a directory of the disk, compared one by one."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fuzz.actor import Actor, Step
from tests.fuzz.witness import Witness, different
from tests.mounted.sides import PAGE, Fallocate, shown

LOOK_EVERY = 3
"""Steps, after which the witness looks, if there is one."""

COMPARE_EVERY = 40
"""Steps, after which the whole tree, and what all handles and mappings show, is compared."""

CLIPPED = ("map_read", "map_write", "poke")
LAST_SHOWN = 60
EXCHANGE, WHITEOUT = 2, 4
DONE_NATIVELY = (
    *(0, Fallocate.KEEP_SIZE, Fallocate.PUNCH_HOLE | Fallocate.KEEP_SIZE, Fallocate.ZERO_RANGE),
    Fallocate.ZERO_RANGE | Fallocate.KEEP_SIZE,
)
OF_FILES = ("chmod", "chown", "times", "setxattr", "removexattr", "getxattr", "setacl")
OF_OPEN_FILES = ("fchmod", "fchown", "ftimes")
"""What is not asked of directories of trees, which are as the tree itself."""

ALL = 1 << 22
"""Bytes of which a handle or mapping is compared."""


class Difference(Exception):
    """Something is not as on the disk. `kind`: what was compared. `steps`: all that were performed."""

    def __init__(self, kind: str, what: str, steps: list[Step]) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.steps = steps

    def __str__(self) -> str:
        last = "\n".join(f"  {step!r}," for step in self.steps[-LAST_SHOWN:])
        return f"{self.what}\nthe last of {len(self.steps)} steps:\n{last}"


class Duel:
    """`tested` is a directory in a mount, `model` one of the disk, both empty.

    `is_tree`: the former is one of a view or of a virtual repository. `witness` looks at more than that at
    times, and what he sees has to be so.
    """

    def __init__(
        self,
        tested: Path,
        model: Path,
        *,
        native: bool,
        every: int = COMPARE_EVERY,
        is_tree: bool = False,
        witness: Witness | None = None,
    ) -> None:
        # Plain pyfuse3 does not say who writes, so every write takes set-id bits away.
        self.tested = Actor(tested, setid=native)
        self.model = Actor(model, model=True, setid=native)
        self.native = native
        self.every = every
        self.is_tree = is_tree
        self.witness = witness
        self.steps: list[Step] = []
        self._mapped: dict[int, int] = {}
        self._reading: set[int] = set()
        self._outlived: set[int] = set()

    def run(self, steps: Iterable[Step]) -> None:
        """Perform them. Raises Difference."""
        for step in steps:
            self.perform(step)
            if self.witness is not None and len(self.steps) % LOOK_EVERY == 0:
                self.witness.look()
            if len(self.steps) % self.every == 0:
                self.compare()
        self.compare()

    def perform(self, step: Step) -> None:
        self.steps.append(step)
        self._note_outlived()
        if step.name in CLIPPED:
            step = self._clipped(step)
        if self.is_tree:
            if self._is_of_no_tree(step):
                return
            step = as_in_tree(step)
        try:
            found = self.tested.perform(step)
            if self._declined(step, found):
                return
            expected = self.model.perform(step)
        except AssertionError as error:
            raise Difference(step.name, f"{step}: {error}", self.steps) from error
        if step.name == "open_handle" and "ESTALE" in (found, expected):
            # Whether a file without a name is still found by its handle is the file system's choice.
            for side in (self.tested, self.model):
                side.perform(Step(0, "close", step.args[:1]))
            return
        if (
            step.name in ("chown", "fchown")
            and step.args[1:] == (-1, -1)
            and (found, expected) == (None, "EPERM")
        ):
            # What the kernel asks for then looks as what it asks for before a write: it is nothing, by the
            # manual, while somebody has the file open for writing.
            return
        if step.name == "map" and expected is None:
            self._remember(step)
        if step.name == "map_read" and step.args[0] in self._outlived:
            return
        if step.name == "pread" and found == "EINVAL" and self._is_unaligned(step):
            return
        if found != expected:
            raise Difference(
                step.name, f"{step}: {shown(found)}, the disk says {shown(expected)}", self.steps
            )

    def _is_unaligned(self, step: Step) -> bool:
        """With O_DIRECT the disk itself, which a passed-through file is read from, wants whole sectors."""
        place, offset, size = step.args
        flags = fcntl.fcntl(self.tested.fds[place], fcntl.F_GETFL)
        return bool(flags & os.O_DIRECT and (offset | size) % PAGE)

    def _declined(self, step: Step, found: Any) -> bool:
        """Does casfs not do this, by the manual? Then it is not done on the disk."""
        if step.name == "fallocate" and found == "ENOTSUP":
            return not self.native or step.args[1] not in DONE_NATIVELY
        if step.name == "unnamed" and found == "ENOTSUP":
            return self.is_tree or not self.native
        if self.is_tree and step.name == "rename":
            if found == "EXDEV":
                return os.path.isdir(self.model.root / step.args[0])
            if found == "EINVAL" and step.args[2] in (EXCHANGE, WHITEOUT):
                return True
        return bool(step.name == "rename" and step.args[2] == WHITEOUT and found == "EINVAL")

    def _is_of_no_tree(self, step: Step) -> bool:
        """Is it what does nothing to directories of trees, by the manual, or something else?"""
        if step.name in OF_FILES:
            return os.path.isdir(self.model.root / step.args[0])
        if step.name in OF_OPEN_FILES and step.args[0] in self.model.fds:
            return stat.S_ISDIR(os.fstat(self.model.fds[step.args[0]]).st_mode)
        return False

    def _remember(self, step: Step) -> None:
        """Keep hold of the model's inode: its size says what of a mapping is there."""
        place, source, _, write, private = step.args
        self._outlived.discard(place)
        if write and not private:
            self._reading.discard(place)
        else:
            self._reading.add(place)
        path = f"/proc/self/fd/{self.model.fds[source]}"
        if place in self._mapped:
            os.close(self._mapped.pop(place))
        self._mapped[place] = os.open(path, os.O_PATH)

    def _note_outlived(self) -> None:
        """Mappings that only read and whose file nobody has open any more: by the manual they go on to show
        what it held then, if the kernel had mapped a blob."""
        if not self.native or not self._mapped:
            return
        opened = {os.fstat(fd).st_ino for fd in self.model.fds.values()}
        for place in self._reading & self._mapped.keys():
            if os.fstat(self._mapped[place]).st_ino not in opened:
                self._outlived.add(place)

    def _clipped(self, step: Step) -> Step:
        """Of what lies within the file; a page that is not there at all is EFAULT on both sides.

        What a program stores behind the end of a file, in its last page, is nobody's business.
        """
        place, offset, *rest, size = step.args
        if place not in self._mapped or not (length := self.model.size_mapped(place)):
            return step
        offset %= length
        size = min(size, length - offset)
        there = os.fstat(self._mapped[place]).st_size
        if step.name != "map_read":
            size = min(size, there - offset) if offset < there else min(size, 1)
            if there <= offset < -(-there // PAGE) * PAGE:
                offset, size = 0, 0
        return step._replace(args=(place, offset, *rest, max(size, 0)))

    def compare(self) -> None:
        """Everything that can be seen. Raises Difference."""
        self.both(Step(0, "tree", ()))
        for place, fd in self.model.fds.items():
            with suppress(OSError):
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    self.both(Step(0, "pread", (place, 0, ALL)))
                    self.both(Step(0, "fstat", (place,)))
        self._note_outlived()
        for place in self.model.maps.keys() - self._outlived:
            self.both(Step(0, "map_read", (place, 0, min(ALL, self.model.size_mapped(place)))))
        if self.witness is not None and (wrong := self.witness.forgetful()):
            raise Difference("remembered", f"the kernel remembers what is not so: {wrong}", self.steps)

    def both(self, step: Step) -> None:
        found, expected = self.tested.perform(step), self.model.perform(step)
        if found != expected:
            raise Difference(
                f"all {step.name}", f"{step.name} {step.args}: {different(found, expected)}", self.steps
            )

    def end(self) -> None:
        """Let go of everything, on both sides."""
        for fd in self._mapped.values():
            os.close(fd)
        self._mapped = {}
        self.tested.end()
        self.model.end()


def as_in_tree(step: Step) -> Step:
    """Directories of a tree have the mode of the tree itself."""
    return step._replace(args=(step.args[0], "0777")) if step.name == "mkdir" else step
