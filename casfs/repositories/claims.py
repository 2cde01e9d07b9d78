"""What programs write as sidecars: claims about files, which are true or come to nothing.

    FILE is there    A claim that is closed, or gets its name, is compared with FILE. A false one loses its
                     name, and the generated sidecar shows again.
    FILE comes       It is compared with the claims that were there before. FILE stays, whatever they say.
    FILE changes     Claims that it does not fulfil any more were about its content of before: they go.

By the policy *client checksums* whoever closes, or moves to its name, what a false claim is, or is about,
gets EIO, and the log has a line; a claim that came before its file stays then, as what somebody has to look
at. By *server generated* false claims go without an error.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Awaitable, Callable
from functools import partial

from casfs.errors import FsError
from casfs.filestore.hashing import ALGORITHMS
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.repositories.forcing import Forced, forcing
from casfs.repositories.registry import Registry
from casfs.repositories.sidecars import EXTENSIONS, Sidecars, split

log = logging.getLogger(__name__)

LONGEST = 4096
"""Bytes of a claim at the most: a digest, and maybe the name of a file."""

_WORDS = re.compile(
    rb"(?:[0-9A-Fa-f]{32,128}(?:[ \t]+[*]?[^\n]*)?|[A-Za-z0-9-]+ ?\([^\n]*\) ?= ?[0-9A-Fa-f]{32,128})"
)
_HEX = re.compile(rb"[0-9A-Fa-f]{32,128}")


def claimed(text: bytes, algorithm: str) -> bytes | None:
    """The digest that a sidecar says: alone, as sha256sum(1) writes it with a name behind, or as with its
    --tag. None when it says none of that algorithm."""
    text = text.strip()
    if not _WORDS.fullmatch(text):
        return None
    word = _HEX.match(text) or _HEX.search(text, text.rfind(b"="))
    if word is None or len(word[0]) != 2 * ALGORITHMS[algorithm].size:
        return None
    return bytes.fromhex(word[0].decode())


class Claims:
    """Owned by the thread that runs the file system.

    `_new`: files that were made where their claims had been before, until they are closed. `_gone`: names of
    claims that have gone, of which the kernel is still to be told.
    """

    def __init__(self, fs: FileSystem, registry: Registry, sidecars: Sidecars) -> None:
        self._fs = fs
        self._registry = registry
        self._sidecars = sidecars
        self._dentries = fs.store.namespace.dentries
        self._new: set[int] = set()
        self._gone: list[tuple[int, bytes]] = []

    def concern(self, inode: Inode) -> bool:
        """May a file be a claim, or have some?"""
        return any(
            self._sidecars.has(directory) and (split(name) is not None or self._stored(directory, name))
            for directory, name in self._dentries.names_of(inode.ino)
        )

    def made(self, inode: Inode, directory: int, name: bytes) -> bool:
        """A file was made under that name. Is it to be compared when it is closed, written or not?"""
        if not self._sidecars.has(directory):
            return False
        if split(name) is not None:
            return True
        if self._stored(directory, name):
            self._new.add(inode.ino)
            return True
        return False

    async def released(self, inode: Inode) -> None:
        """The last handle of a file that may have written it is gone. What is empty is looked at now: at its
        close(2) somebody else may have been going to write it."""
        if not inode.size:
            await self._look_at_all(inode, strict=False)
            await self._forget_gone()

    async def _look_at_all(self, inode: Inode, *, strict: bool = True) -> list[str]:
        """What is false of a file's claims, or of it as a claim, and is told by an error; nothing is unless
        `strict`."""
        is_new = strict and inode.ino in self._new
        self._new.discard(inode.ino)
        false: list[str] = []
        for directory, name in self._dentries.names_of(inode.ino):
            if self._sidecars.has(directory):
                false += await self._look(directory, name, inode, is_new=is_new, strict=strict)
        return false

    async def closed(self, inode: Inode) -> None:
        """A file was written and closed. Raises FsError EIO for what a false claim is, or is about."""
        if not inode.size:  # a shell closes what a program is going to write
            return
        false = await self._look_at_all(inode)
        await self._forget_gone()
        if false:
            raise FsError(errno.EIO, false[0])

    async def _forget_gone(self) -> None:
        gone, self._gone = self._gone, []
        for place in gone:
            await self._fs.scheduler.run(self._fs.kernel.forget_name, *place)

    async def arrives(
        self, inode: Inode, directory: int, name: bytes
    ) -> Callable[[], Awaitable[None]] | None:
        """A file is about to get a name. Raises FsError EIO, as `closed`. What it returns takes away what is
        false when the file has its name: that may be refused still."""
        if not inode.is_regular or not self._sidecars.has(directory):
            return None
        parts, strict = split(name), self._is_strict(directory)
        if parts is None:
            stored = self._stored(directory, name)
            is_new = self._dentries.find(directory, name) is None
            if is_new and stored and inode.content is not None and inode.content.writers:
                self._new.add(inode.ino)  # it is compared when it is closed
            strict = strict and is_new
            false = [
                (claim_name, claim, why)
                for claim_name, claim, algorithm in stored
                if (why := await self._compare(directory, claim_name, claim, inode, algorithm))
            ]
        else:
            base = self._file(directory, parts[0])
            why = None if base is None else await self._compare(directory, name, inode, base, parts[1])
            false = [(name, inode, why)] if why and (strict or base is not inode) else []
        if not false:
            return None
        if strict:
            for *_, why in false:
                log.warning("%s", why)
            raise FsError(errno.EIO, false[0][2])
        return partial(self._arrived, directory, false)

    async def _arrived(self, directory: int, false: list[tuple[bytes, Inode, str]]) -> None:
        """Take false claims away. The kernel, which keeps others from that directory, is told later."""
        try:
            for name, claim, why in false:
                await self._drop(directory, name, claim, why, loud=False)
        except OSError as error:  # what they are about has its name, and has been answered
            log.warning("a false checksum stays: %s", error)
        self._fs.remembered.names.update(self._gone)
        self._gone.clear()
        self._fs.changes.names_later(directory)

    async def _look(
        self, directory: int, name: bytes, inode: Inode, *, is_new: bool, strict: bool
    ) -> list[str]:
        """What is false of a name's claim, or of the claims about it, and is told by an error."""
        parts = split(name)
        if parts is not None:
            base = self._file(directory, parts[0])
            why = None if base is None else await self._compare(directory, name, inode, base, parts[1], inode)
            if why is None:
                return []
            strict = strict and self._is_strict(directory)
            await self._drop(directory, name, inode, why, loud=strict)
            return [why] if strict else []
        return [
            why
            for claim_name, claim, algorithm in self._stored(directory, name)
            if (why := await self._compare(directory, claim_name, claim, inode, algorithm, inode))
            and not await self._drop_false(directory, claim_name, claim, why, strict=is_new)
        ]

    async def _drop_false(self, directory: int, name: bytes, claim: Inode, why: str, *, strict: bool) -> bool:
        """Take a false claim away; False for one that stays, and is told by an error."""
        if strict and self._is_strict(directory):
            log.warning("%s", why)
            return False
        await self._drop(directory, name, claim, why, loud=False)
        return True

    def _is_strict(self, directory: int) -> bool:
        """Does the policy *client checksums* hold there?"""
        repository = self._registry.at(directory)
        return repository is not None and repository.rules.checksums == "client"

    def _file(self, directory: int, name: bytes) -> Inode | None:
        ino = self._dentries.find(directory, name)
        inode = None if ino is None else self._fs.inodes.get(ino)
        return inode if inode is not None and inode.is_regular else None

    def _stored(self, directory: int, name: bytes) -> list[tuple[bytes, Inode, str]]:
        """The claims about a file: name, inode, algorithm."""
        names = ((name + extension, algorithm) for extension, algorithm in EXTENSIONS.items())
        found = ((claim, self._file(directory, claim), algorithm) for claim, algorithm in names)
        return [(claim, inode, algorithm) for claim, inode, algorithm in found if inode is not None]

    async def _compare(
        self,
        directory: int,
        name: bytes,
        claim: Inode,
        base: Inode,
        algorithm: str,
        closing: Inode | None = None,
    ) -> str | None:
        """Why a claim about a file is false; None when it is true, or somebody still writes one of them, and
        closes it later."""
        if claim.content is not None and claim.content.writers > (claim is closing):
            return None
        digest = await self._sidecars.digest(base, algorithm, closing=closing is base)
        if digest is None:
            return None
        said = claimed(await self._text(claim), algorithm)
        if said == digest:
            return None
        where = os.fsdecode(self._path(directory) + name)
        says = f"says {said.hex()}" if said else f"says no {algorithm}"
        return f"{where} {says}, and its file has {digest.hex()}"

    def _path(self, directory: int) -> bytes:
        paths = self._dentries.paths_of(directory)
        return paths[0] + b"/" if paths else b""

    async def _text(self, claim: Inode) -> bytes:
        if claim.size > LONGEST:
            return b""
        handle = self._fs.files.open(claim, False, 0)
        try:
            return bytes(await self._fs.files.read(handle, 0, LONGEST))
        finally:
            await self._fs.files.release(handle)

    async def _drop(self, directory: int, name: bytes, claim: Inode, why: str, *, loud: bool) -> None:
        """Take the name of a claim away: whatever keeps others from removing files is not about this."""
        log.log(logging.WARNING if loud else logging.INFO, "%s", why)
        if self._file(directory, name) is not claim:
            return
        forced = Forced("a false checksum", 0, looks=True)
        with contextlib.suppress(FsError), forcing(forced), self._fs.kernel.answers_held():
            await self._fs.tree.unlink(directory, name)
            self._gone.append((directory, name))
