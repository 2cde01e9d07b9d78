"""What is written beside a snapshot's database: when it was made and why, and what is in it.

manifest.json is a JSON object with the fields of `Manifest`, written before the snapshot gets its name;
counts.json one with those of `Counts`, written by the first who counts. A field that is new has a default.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, structs

from casfs.errors import FormatError, FormatTooNew, UsageError
from casfs.text import printable

FORMAT = 1
"""Version of what this file documents. A snapshot of a newer one is refused."""

MANIFEST_BYTES = 1 << 20
"""Length of manifest.json at the most."""

SERIALS = 1 << 14
"""Serials of snapshots are below it: with the number of an inode they make the number under which the mount
shows it (fs/snapshots.py)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")

Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Nanoseconds = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Serial = Annotated[int, Meta(ge=1, lt=SERIALS)]


class Manifest(Struct, frozen=True, kw_only=True):
    """Of one snapshot. Times in nanoseconds since 1970, sizes in bytes.

    `serial`: a number that no other snapshot of the store has. `made_ns`: the moment that it shows.
    `expires_ns`: from then on it may go. `job`: the schedule that has made it; "" = a person. `uuid`,
    `source`, `host`: the store whose rows these are, its path and machine. `version`: of casfs; `schema`: of
    the database. `here`: the numbers of blobs are those of the store that it lies in.

    Of a backup: `started_ns`, `ended_ns`; `new_blobs`, `new_bytes` that the destination had not. `content`:
    the contents are there too; False: names, attributes and digests only. `left_out`: repositories that it
    lacks. `lacking`: digests, in hex, of contents that could not be read.
    `unsteady`: files that were being written while they were copied, not all at one moment.
    """

    format: int = FORMAT
    name: str
    serial: Serial
    made_ns: Nanoseconds
    reason: str = ""
    expires_ns: Nanoseconds | None = None
    job: str = ""
    uuid: str
    source: str
    host: str
    version: str
    schema: Natural
    here: bool = True
    database_bytes: Natural = 0
    started_ns: Nanoseconds = 0
    ended_ns: Nanoseconds = 0
    new_blobs: Natural = 0
    new_bytes: Natural = 0
    content: bool = True
    left_out: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    unsteady: tuple[str, ...] = ()

    def has_expired(self, now_ns: int) -> bool:
        return self.expires_ns is not None and self.expires_ns <= now_ns


class Counts(Struct, frozen=True):
    """What a snapshot has. `bytes` of its files, `blobs` and `blob_bytes` of their distinct contents."""

    files: Natural
    directories: Natural
    bytes: Natural
    blobs: Natural
    blob_bytes: Natural


def check_name(name: str) -> None:
    """Raises UsageError for a name that no snapshot may have."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{printable(name)}' cannot be the name of a snapshot",
            "up to 100 letters, digits and . _ @ + -, a letter or digit first",
        )


def is_name(name: str) -> bool:
    """May a snapshot have that name?"""
    return _NAME.fullmatch(name) is not None


def encode_manifest(manifest: Manifest) -> bytes:
    """What `decode_manifest` takes: of what is named in it the first ones, as many as there is room for."""
    while len(data := msgspec.json.encode(manifest)) > MANIFEST_BYTES:
        named = {name: getattr(manifest, name) for name in ("left_out", "lacking", "unsteady")}
        if not any(named.values()):
            raise FormatError(f"the manifest of snapshot {manifest.name} is too long")
        manifest = structs.replace(manifest, **{name: each[: len(each) // 2] for name, each in named.items()})
    return data


def decode_manifest(data: bytes, where: str) -> Manifest:
    """`where`: its path, for the message. Raises FormatError, FormatTooNew."""
    try:
        version = msgspec.json.decode(data, type=_Version).format
        if version > FORMAT:
            raise FormatTooNew(
                f"{where} has format {version}; this casfs knows up to {FORMAT}", "use a newer casfs"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"{where} is damaged: {error}", "casfs snapshot rm removes the snapshot") from None


def decode_counts(data: bytes) -> Counts | None:
    """None for what is none: it can be counted again."""
    try:
        return msgspec.json.decode(data, type=Counts)
    except (msgspec.DecodeError, RecursionError):
        return None


class _Version(Struct):
    format: int
