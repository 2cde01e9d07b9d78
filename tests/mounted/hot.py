"""Files that are written again and again: appended to, rewritten in place, stored into by mappings.

What a look after a crash may demand of them: of what is only appended to, all that fsync(2) has returned
for, and no other bytes. Of what is rewritten in place, as on ext4, each block by itself: what
it had at the last fsync(2), or what was written to it since. (What is emptied by O_TRUNC and written while
nobody else has it open is whole, as race.py demands.)

A record has, besides the lines of who writes it, `store NAME BLOCK COUNT VERSION` before blocks are written,
`synced NAME` when an fsync(2) of it has returned, `floor NAME BYTES`: so long is it from now on at the least.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.mounted.sides import DIGEST, Mapping

BLOCK = 4096
BLOCKS = (3, 100)
"""Of a file that stays in memory, and of one that is passed through."""

VERSIONS = 10
"""So many versions of a block there are, told by one digit of each 16 bytes: the half of a store is seen as
a mixture of two, not as rubbish."""

PIECES = (8 << 10, 150_000)
"""Bytes that are appended at a time, the same by everybody: so their logs are the same contents."""

LONGEST = 1_500_000
"""A log is removed when it is longer."""

KINDS = frozenset({"store", "synced", "floor"})

Note = Callable[[str, str, object], None]


@cache
def block_of(number: int, version: int) -> bytes:
    """The block of that number."""
    return b"".join(b"%6d:%6d:%d\n" % (number, unit, version) for unit in range(BLOCK // 16))


def versions_of(number: int, data: bytes) -> set[int] | None:
    """Which versions of a block there are in `data`; None when it is something else."""
    digits = set(data[14::16])
    if len(data) != BLOCK or not digits <= set(b"0123456789"):
        return None
    plain = bytearray(data)
    plain[14::16] = b"0" * (BLOCK // 16)
    return {digit - ord("0") for digit in digits} if plain == block_of(number, 0) else None


@cache
def log_of(kind: int) -> bytes:
    """All that is ever appended to the logs of a kind."""
    return random.Random(f"log {kind}").randbytes(LONGEST + 2 * PIECES[kind])


class HotFiles:
    """Those of one writer, below `folder`; `note` writes a line of its record."""

    def __init__(self, folder: Path, note: Note, dice: random.Random) -> None:
        self.folder = folder
        self.note = note
        self.dice = dice
        self._versions = [[0] * count for count in BLOCKS]
        self._lengths = [0] * len(PIECES)
        self._maps: list[tuple[int, Mapping]] = []
        for kind, count in enumerate(BLOCKS):
            self._make(kind, count)

    def _make(self, kind: int, count: int) -> None:
        with open(self.folder / f"hot{kind}", "xb", buffering=0) as file:
            file.write(b"".join(block_of(number, 0) for number in range(count)))
            os.fsync(file.fileno())
        fd = os.open(self.folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        self.note("store", f"hot{kind}", f"0 {count} 0")
        self.note("synced", f"hot{kind}", "")

    def append(self) -> None:
        """With an open and a close each time."""
        kind = self.dice.randrange(len(PIECES))
        name, length = f"log{kind}", self._lengths[kind]
        if length > LONGEST:
            self.note("floor", name, 0)
            os.unlink(self.folder / name)
            length = 0
        end = self._lengths[kind] = length + PIECES[kind]
        with open(self.folder / name, "ab", buffering=0) as file:
            file.write(log_of(kind)[length:end])
            if self.dice.random() < 0.2:
                os.fsync(file.fileno())
                self.note("floor", name, end)

    def rewrite(self) -> None:
        """In place: some blocks, or all."""
        kind = self.dice.randrange(len(BLOCKS))
        first, count, version = self._next(kind)
        with open(self.folder / f"hot{kind}", "r+b", buffering=0) as file:
            data = b"".join(block_of(first + number, version) for number in range(count))
            os.pwrite(file.fileno(), data, first * BLOCK)
            if self.dice.random() < 0.2:
                self._sync(kind, file.fileno())

    def _next(self, kind: int) -> tuple[int, int, int]:
        """What is stored next, which is on record: first block, number of blocks, version."""
        versions = self._versions[kind]
        first = self.dice.choice((0, self.dice.randrange(len(versions))))
        count = self.dice.choice((1, len(versions) - first))
        version = (max(versions[first : first + count]) + 1) % VERSIONS
        versions[first : first + count] = [version] * count
        self.note("store", f"hot{kind}", f"{first} {count} {version}")
        return first, count, version

    def _sync(self, kind: int, fd: int) -> None:
        os.fsync(fd)
        self.note("synced", f"hot{kind}", "")

    def map(self) -> None:
        """A mapping that outlives its handle."""
        if len(self._maps) == 2:
            self._maps.pop(0)[1].close()
        kind = self.dice.randrange(len(BLOCKS))
        fd = os.open(self.folder / f"hot{kind}", os.O_RDWR)
        try:
            self._maps.append((kind, Mapping(fd, BLOCKS[kind] * BLOCK, write=True)))
        finally:
            os.close(fd)

    def store(self) -> None:
        """Through a mapping, whose handle is closed."""
        if not self._maps:
            return
        kind, mapping = self.dice.choice(self._maps)
        first, count, version = self._next(kind)
        for number in range(first, first + count):
            if mapping.write(number * BLOCK, block_of(number, version)) != BLOCK:
                raise OSError(errno.EFAULT, "a page of a mapping is gone")
        if self.dice.random() < 0.2:
            fd = os.open(self.folder / f"hot{kind}", os.O_RDONLY)
            try:
                self._sync(kind, fd)
            finally:
                os.close(fd)

    def unmap(self) -> None:
        if self._maps:
            self._maps.pop(self.dice.randrange(len(self._maps)))[1].close()

    def seal(self) -> None:
        """Whoever asks for the digest has the file sealed, if nobody writes it."""
        name = self.dice.choice(("hot", "log")) + str(self.dice.randrange(2))
        with suppress(FileNotFoundError):
            try:
                os.getxattr(self.folder / name, DIGEST)
            except OSError as error:
                if error.errno != errno.ENODATA:
                    raise


def is_hot(path: Path) -> bool:
    return path.name[:-1] in ("hot", "log")


def rubbish(path: Path, data: bytes) -> str:
    """What is wrong with what was read, at whatever time; or ""."""
    kind = int(path.name[-1])
    if path.name.startswith("log"):
        return "" if log_of(kind).startswith(data) else f"{path}, {len(data)} bytes, has what nobody appended"
    for start in range(0, len(data), BLOCK):
        number = start // BLOCK
        if versions_of(number, data[start : start + BLOCK]) is None:
            return f"{path}: block {number} is none: {data[start : start + 40]!r}"
    return ""


def broken(folder: Path, record: bytes) -> list[str]:
    """What is not below `folder` that has to be there after a crash, as `record` says."""
    stored: dict[str, list[set[int]]] = {}
    last: dict[str, list[int]] = {}
    synced: set[str] = set()
    floors: dict[str, int] = {}
    for line in record.decode().splitlines()[: record.count(b"\n")]:
        kind, name, *rest = line.split()
        if kind == "floor":
            floors[name] = int(rest[0])
        elif kind == "synced":
            stored[name] = [{version} for version in last[name]]
            synced.add(name)
        elif kind == "store":
            first, count, version = map(int, rest)
            if name not in stored:
                stored[name] = [set() for _ in range(count)]
                last[name] = [0] * count
            for number in range(first, first + count):
                stored[name][number].add(version)
                last[name][number] = version
    found = [problem for name, floor in floors.items() if (problem := _short(folder / name, floor))]
    for name in synced:
        found += _not_stored(folder / name, stored[name])
    return found


def _read(path: Path) -> tuple[bytes, str]:
    """What is there, and what is wrong with it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b"", ""
    except OSError as error:
        return b"", f"{path}: {error}"
    return data, rubbish(path, data)


def _short(path: Path, floor: int) -> str:
    data, wrong = _read(path)
    return wrong or (f"{path} has {len(data)} bytes, {floor} were synced" if len(data) < floor else "")


def _not_stored(path: Path, allowed: list[set[int]]) -> list[str]:
    data, wrong = _read(path)
    if wrong or len(data) != len(allowed) * BLOCK:
        return [wrong or f"{path} has {len(data)} bytes, of {len(allowed)} blocks"]
    found = []
    for number, versions in enumerate(allowed):
        there = versions_of(number, data[number * BLOCK : (number + 1) * BLOCK])
        if there is None or not there <= versions:
            found.append(f"{path}: block {number} has {there}, may have {sorted(versions)}")
    return found[:3]
