"""Which step comes next. The same seed gives the same steps."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Callable
from typing import Any

from tests.fuzz.actor import PLACES, Step
from tests.fuzz.calls import UTIME_NOW, UTIME_OMIT
from tests.fuzz.grounds import PLAIN
from tests.mounted.sides import Fallocate

KIB, MIB = 1 << 10, 1 << 20

EDGES = (0, 1, 4095, 4096, 4097, 16 * KIB, 128 * KIB, 256 * KIB, MIB, 3 * MIB)
SIZES = (*EDGES, 128 * KIB - 1, 128 * KIB + 1, 256 * KIB - 1, 256 * KIB + 1, 300_000, 8 * MIB, 40 * MIB)
LENGTHS = (1, 16, 512, 4096, 5000, 70_000, 128 * KIB, 256 * KIB + 1, 600_000, 2 * MIB)
CONTENTS = 4
"""So few that files share blobs."""

ODD = ("x" * 255, "x" * 256, "a/b", "gone/a", "S", "D/S", "\udcff\udcfe", "", "D/../a")
USERS = (0, 0, 0, 0, 0, 1234, 1235)
KEYS = ("user.a", "user.b", "trusted.a", "security.a", "user.", "nothing", "user." + "x" * 250)
MODES = (0o644, 0o600, 0o666, 0o777, 0o755, 0o4755, 0o2755, 0o6777, 0o2644, 0o000, 0o1777, 0o4711, 0o400)
SECONDS = (0, 1, -1, 1_700_000_000, -2_145_916_800, 2_147_483_648, 4_102_444_800, 10_413_792_000, 1 << 40)
"""1970, 1902, 2038, 2100, 2300, and what nobody can keep."""

ACCESS = ("RDONLY", "RDONLY", "WRONLY", "RDWR", "RDWR")
FLAGS = {
    "SYNC": 0.1,
    "DSYNC": 0.1,
    "DIRECT": 0.1,
    "NOFOLLOW": 0.1,
    "APPEND": 0.12,
    "TRUNC": 0.12,
    "CREAT": 0.5,
}
"""Of open(2), and how often."""

RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_APPEND = 1, 2, 4, 0x10
KEEP = Fallocate.KEEP_SIZE
FALLOCATE = (0, KEEP, Fallocate.PUNCH_HOLE | KEEP, Fallocate.ZERO_RANGE, Fallocate.ZERO_RANGE | KEEP)
ODD_FALLOCATE = (Fallocate.COLLAPSE_RANGE, Fallocate.INSERT_RANGE, Fallocate.PUNCH_HOLE, 0x80, 0x40)

Arguments = Callable[["Dice"], tuple[Any, ...]]


class Dice(random.Random):
    """Random arguments of steps."""

    def place(self) -> int:
        # Not evenly: some places are used much, so that their files have several things done to them.
        return min(self.randrange(PLACES), self.randrange(PLACES))

    def name(self) -> str:
        return self.choice(ODD) if self.random() < 0.06 else self.choice(self.words.files)

    def any_name(self) -> str:
        return self.directory() if self.random() < 0.3 else self.name()

    def directory(self) -> str:
        return self.choice(self.words.directories)

    def link(self) -> str:
        return self.choice(self.words.links)

    def size(self) -> int:
        return self.choice(SIZES) if self.random() < 0.8 else self.randrange(MIB)

    def offset(self) -> int:
        kind = self.random()
        if kind < 0.3:
            return 0
        return self.choice(EDGES) if kind < 0.75 else self.randrange(2 * MIB)

    def length(self) -> int:
        return self.choice(LENGTHS)

    def content(self) -> int:
        return self.randrange(CONTENTS)

    def mode(self) -> str:
        return f"{self.choice(MODES):04o}"

    def owner(self) -> int:
        return self.choice((-1, -1, 0, 1234, 1235, 4_000_000_000))

    def time(self) -> tuple[int, int]:
        kind = self.random()
        if kind < 0.2:
            return 0, self.choice((UTIME_NOW, UTIME_OMIT))
        return self.choice(SECONDS), self.choice((0, 0, 1, 999_999_999))

    def flags(self, *, create: bool = True) -> str:
        if self.random() < 0.03:
            return "PATH"
        flags = [self.choice(ACCESS), *(name for name, chance in FLAGS.items() if self.random() < chance)]
        if not create:
            flags = [flag for flag in flags if flag not in ("CREAT", "NOFOLLOW")]
        if "CREAT" in flags and self.random() < 0.1:
            flags.append("EXCL")
        return "|".join(flags)

    def write_flags(self) -> int:
        return self.choice((0, 0, 0, 0, 0, RWF_DSYNC, RWF_SYNC, RWF_APPEND, RWF_DSYNC | RWF_APPEND))

    def boolean(self, chance: float) -> bool:
        return self.random() < chance

    def step(self) -> Step:
        """The next one."""
        while True:
            user = self.choice(USERS) if self.users else 0
            name, arguments = self.choices(_KINDS, cum_weights=_WEIGHTS)[0]
            step = Step(user, name, arguments(self))
            if not (self.without and re.search(self.without, repr(step))):
                return step

    users = False
    """May it be somebody else than the one who runs this?"""

    words = PLAIN
    """What is named."""

    without = ""
    """A regular expression for steps that are not wanted."""


STEPS: tuple[tuple[int, str, Arguments], ...] = (
    (30, "open", lambda d: (d.place(), d.name(), d.flags(), d.mode())),
    (4, "reopen", lambda d: (d.place(), d.place(), d.flags(create=False))),
    (3, "unnamed", lambda d: (d.place(), d.directory(), d.flags(create=False), d.mode())),
    (3, "link_open", lambda d: (d.place(), d.name())),
    (3, "dup", lambda d: (d.place(), d.place())),
    (16, "close", lambda d: (d.place(),)),
    (2, "handle", lambda d: (d.name(),)),
    (2, "open_handle", lambda d: (d.place(), d.flags(create=False))),
    (3, "send", lambda d: (d.place(),)),
    (4, "receive", lambda d: (d.place(),)),
    (1, "fork", lambda d: ()),
    (2, "end_child", lambda d: ()),
    (18, "pread", lambda d: (d.place(), d.offset(), d.length())),
    (24, "pwrite", lambda d: (d.place(), d.offset(), d.content(), d.length(), d.write_flags())),
    (8, "write", lambda d: (d.place(), d.content(), d.length())),
    (8, "ftruncate", lambda d: (d.place(), d.size())),
    (
        8,
        "fallocate",
        lambda d: (
            d.place(),
            int(d.choice(FALLOCATE if d.boolean(0.9) else ODD_FALLOCATE)),
            d.offset(),
            d.length(),
        ),
    ),
    (
        10,
        "copy_range",
        lambda d: (
            *(d.place(), d.place(), d.offset() * d.boolean(0.5), d.offset() * d.boolean(0.5)),
            1 << 30 if d.boolean(0.5) else d.length(),
        ),
    ),
    (
        6,
        "seek",
        lambda d: (d.place(), d.offset(), d.choice((os.SEEK_DATA, os.SEEK_HOLE, os.SEEK_SET, os.SEEK_END))),
    ),
    (6, "fsync", lambda d: (d.place(), d.randrange(3))),
    (12, "map", lambda d: (d.place(), d.place(), d.size() or 1, d.boolean(0.6), d.boolean(0.2))),
    (10, "map_read", lambda d: (d.place(), d.offset(), d.length())),
    (14, "map_write", lambda d: (d.place(), d.offset(), d.content(), d.length())),
    (3, "poke", lambda d: (d.place(), d.offset(), d.content(), d.length())),
    (3, "msync", lambda d: (d.place(),)),
    (8, "unmap", lambda d: (d.place(),)),
    (8, "rename", lambda d: (d.any_name(), d.any_name(), d.choice((0, 0, 0, 0, 1, 2, 4)))),
    (5, "link", lambda d: (d.any_name(), d.name())),
    (2, "symlink", lambda d: (d.any_name() or "a", d.link())),
    (1, "readlink", lambda d: (d.link(),)),
    (8, "unlink", lambda d: (d.any_name(),)),
    (5, "mkdir", lambda d: (d.directory(), d.mode())),
    (1, "rmdir", lambda d: (d.directory(),)),
    (1, "mknod", lambda d: (d.name(), d.randrange(4), d.mode())),
    (2, "list", lambda d: (d.directory(), d.choice((280, 1024, 32768)), d.randrange(100))),
    (5, "truncate", lambda d: (d.name(), d.size())),
    (4, "chmod", lambda d: (d.any_name(), d.mode())),
    (2, "fchmod", lambda d: (d.place(), d.mode())),
    (3, "chown", lambda d: (d.any_name(), d.owner(), d.owner())),
    (2, "fchown", lambda d: (d.place(), d.owner(), d.owner())),
    (3, "times", lambda d: (d.any_name(), d.time(), d.time())),
    (2, "ftimes", lambda d: (d.place(), d.time(), d.time())),
    (3, "setxattr", lambda d: (d.any_name(), d.choice(KEYS), d.content(), d.randrange(400), d.randrange(3))),
    (1, "getxattr", lambda d: (d.any_name(), d.choice(KEYS))),
    (1, "removexattr", lambda d: (d.any_name(), d.choice(KEYS))),
    (2, "setacl", lambda d: (d.any_name(), d.choice(("access", "default")), d.randrange(3))),
    (2, "digest", lambda d: (d.name(),)),
    (1, "statfs", lambda d: (d.any_name(),)),
    (1, "access", lambda d: (d.any_name(), d.randrange(8))),
    (6, "stat", lambda d: (d.any_name(),)),
    (6, "fstat", lambda d: (d.place(),)),
    (6, "read_all", lambda d: (d.name(),)),
)


_KINDS = [each[1:] for each in STEPS]
_WEIGHTS = list(itertools.accumulate(each[0] for each in STEPS))
