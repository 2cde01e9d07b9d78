"""A commit holds what one program has done up to some moment, however the two run beside each other."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
import trio
import trio.testing

from casfs.fs import copy
from casfs.fs.content.settling import Settling
from casfs.types import ROOT_INO
from tests.fs.mount import Mount, Run
from tests.limits import set_limits

COMMITS = 30
LEFT_OUT = 10
"""So many commits, and closes of a file that is left to the next one, have to be seen."""

NAMES = 6
SIZES = (20, 3_000, 300_000)
"""Bytes: sealed with the commit, and before close(2) returns."""

SEED = time.time_ns() % 1_000_000

State = dict[bytes, tuple[bytes, int]]
"""Name -> what the file begins with, and its size."""


class Program:
    """Does one thing after the other: writes a file and closes it, appends to it, renames, links, removes,
    copies."""

    def __init__(self, mount: Mount, dice: random.Random) -> None:
        self._mount = mount
        self._dice = dice
        self.state: State = {}
        self.states: list[State] = [{}]
        self._number = 0

    async def step(self) -> None:
        tree, dice = self._mount.fs.tree, self._dice
        source = dice.choice(sorted(self.state)) if self.state else b""
        name = b"name %d" % dice.randrange(NAMES)
        verb = dice.choice(
            ["write", "write", "append", "append", "rename", "rename", "link", "unlink", "clone", "copy"]
        )
        if verb == "write" or not source:
            self._number += 1
            head = b"%08d" % self._number
            name = b"new %d" % self._number
            size = dice.choice(SIZES)
            await self._mount.write_file(name, head + bytes(size - len(head)))
            self.state[name] = head, size
        elif verb == "append":
            await self._append(source, dice.choice(SIZES))
        elif verb == "rename" and source != name:
            links = tree.lookup(ROOT_INO, source) is tree.lookup(ROOT_INO, name)
            await tree.rename(ROOT_INO, source, ROOT_INO, name, 0)
            if not links:  # of a file both stay, rename(2)
                self.state[name] = self.state.pop(source)
        elif verb == "link" and name not in self.state:
            inode = tree.lookup(ROOT_INO, source)
            assert inode is not None
            await tree.link(inode.ino, ROOT_INO, name)
            self.state[name] = self.state[source]
        elif verb == "clone":
            self._number += 1
            name = b"clone %d" % self._number
            await self._clone(source, name)
            self.state[name] = self.state[source]
        elif verb == "copy" and tree.lookup(ROOT_INO, source) is not tree.lookup(ROOT_INO, name):
            await copy.copy(self._mount.fs, source, name, recursive=False)
            self.state[name] = self.state[source]
        elif verb == "unlink":
            await self._mount.unlink(source)
            del self.state[source]
        self.states.append(dict(self.state))

    async def _append(self, name: bytes, size: int) -> None:
        """To the file under that name and all its others; after its close it is as one thing."""
        inode = self._mount.fs.tree.lookup(ROOT_INO, name)
        assert inode is not None
        head, before = self.state[name]
        handle = self._mount.open(inode)
        await self._mount.fs.files.write(handle, before, bytes(size))
        await self._mount.close(handle)
        for other in self.state:
            if self._mount.fs.tree.lookup(ROOT_INO, other) is inode:
                self.state[other] = head, before + size

    async def _clone(self, source: bytes, name: bytes) -> None:
        """As cp(1) does: copy_file_range(2) of the whole file into a new one."""
        files = self._mount.fs.files
        inode = self._mount.fs.tree.lookup(ROOT_INO, source)
        assert inode is not None
        reader, writer = files.open(inode, False, 0), self._mount.open(await self._mount.make(name))
        await self._mount.fs.contents.ranges.copy_range(reader, 0, writer, 0, inode.size)
        await self._mount.close(writer)
        await files.release(reader)


def committed(mount: Mount) -> tuple[State, set[bytes]]:
    """What a crash now would leave: the files with content, and the names of empty ones."""
    rows = mount.committed()
    filestore = mount.fs.store.filestore
    files: State = {}
    for name, (size, digest, staged) in rows.items():
        if digest is not None or staged is not None:
            path = filestore.blobs.path(digest) if digest else filestore.staging.path(staged or "")
            with open(path, "rb") as file:
                files[name] = file.read(8), size
                assert os.fstat(file.fileno()).st_size >= size
    return files, rows.keys() - files.keys()


@pytest.mark.parametrize("rounds", [0, 1, 8])
def test_a_commit_is_what_a_program_has_done_up_to_a_moment(
    run: Run, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    """What it has created after that moment may be there too, empty."""
    set_limits(monkeypatch, FEW_BLOBS=2, OPEN_ROUNDS=rounds)
    dice = random.Random(SEED)
    left_out = 0
    settles_later = Settling.settles_later

    def count(settling: Settling, content: Any) -> bool:
        nonlocal left_out
        later = settles_later(settling, content)
        left_out += later and (settling._group.is_gathering or settling._group.is_closing)
        return later

    monkeypatch.setattr(Settling, "settles_later", count)

    async def body(mount: Mount) -> None:
        program = Program(mount, dice)
        seen: list[tuple[State, set[bytes]]] = []

        def look(_number: int, call: str) -> None:
            if call == "sync_log":  # right after a COMMIT, in a thread: the blobs it names have to be there
                seen.append(committed(mount))
            else:
                time.sleep(dice.choice([0, 0, 0.001, 0.004]))

        async def commit() -> None:
            while True:
                await mount.fs.group.durable()
                await trio.sleep(dice.choice([0, 0.001, 0.005]))

        async def seal() -> None:
            contents = mount.fs.contents
            while True:
                await trio.sleep(0.002)
                for ino in contents.sealing.resting.everything():
                    contents.sealing.resting.put_off(ino, 0)
                await contents.settling.seal_resting()

        async with trio.open_nursery() as nursery:
            mount.seam.before = look
            nursery.start_soon(commit)
            nursery.start_soon(seal)
            while len(seen) < COMMITS or left_out < LEFT_OUT:
                await program.step()
                await trio.sleep(dice.choice([0, 0, 0.001]))
            nursery.cancel_scope.cancel()
        mount.seam.before = lambda number, name: None
        for files, empty in seen:
            moments = [state for state in program.states if state == files and not empty & state.keys()]
            assert moments, f"seed {SEED}: committed {files}, and empty {empty}, which was never so"

    run(body)


def test_what_is_emptied_while_a_commit_waits_for_it_is_not_committed_empty(run: Run) -> None:
    """A program had closed it, and emptied it to write it anew just then: a crash left it empty."""

    async def body(mount: Mount) -> None:
        files = mount.fs.files
        await mount.write_file(b"file", b"first")
        await mount.fs.group.durable()
        inode = mount.fs.tree.lookup(ROOT_INO, b"file")
        assert inode is not None
        handle = mount.open(inode)
        await files.write(handle, 0, b"second")
        await mount.close(handle)
        assert handle.content in mount.fs.contents.sealing.due
        again = mount.open(inode)
        async with trio.open_nursery() as nursery, again.content.mutex:
            nursery.start_soon(mount.fs.group.durable)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await files._truncate(again.content, 0)
        assert [size for size, *_ in mount.committed().values()] == [len(b"first")]
        await files.write(again, 0, b"third")
        await mount.close(again)
        await mount.fs.group.durable()
        assert await mount.read_file(b"file") == b"third"

    run(body)
