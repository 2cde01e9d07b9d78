"""What a search looks for, as a person writes it: terms, all of which have to hold.

sha256=HEX              a digest of the content, or how it begins; sha1, md5, sha512, crc32c, blake3
prop.KEY  prop.KEY=VALUE  !prop.KEY
                        a property; '!': without it
org=… module=… rev=… classifier=… ext=… type=…
                        what the path of an artifact says
repo=NAME  releases  snapshots  keep=N  companions
                        artifacts, too
name=GLOB  path=GLOB  size>10M  size<10M  older=30d  newer=30d  unused=90d  duplicates  trash
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from casfs import amounts
from casfs.errors import UsageError
from casfs.filestore.hashing import ALGORITHMS, hash_bytes, other_digests
from casfs.namespace.searches import BLAKE3, WILD, DigestRange, PropertyMatch, TokenMatch, is_pattern
from casfs.text import is_text, printable

SECOND = 1_000_000_000

DIGEST_BYTES = {BLAKE3: 32, **{name: algorithm.size for name, algorithm in ALGORITHMS.items()}}
"""Algorithms whose digests may be asked for, and how long they are."""

SHORTEST_WHOLE = 32
"""Hex digits. Fewer, as a whole crc32c has them, may be the begin of any digest; so many that are a whole one
of another algorithm are a mistake."""

COLUMNS = {
    "org": "organisation",
    "module": "module",
    "rev": "revision",
    "classifier": "classifier",
    "ext": "extension",
    "type": "type",
}
"""Term -> column of `artifact`."""

_TERM = re.compile(
    r"(?P<negated>!?)(?P<name>prop\.[^=]*|[^=<>]*)(?:(?P<operator>[=<>])(?P<value>.*))?", re.DOTALL
)


class Pattern(NamedTuple):
    """Of a name or a path, as in fnmatch(3): `*` stands for any text."""

    text: str
    negated: bool = False

    def fits(self, name: bytes) -> bool:
        return (_compiled(self.text)(os.fsdecode(name)) is None) == self.negated


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(text)).match


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """All of it has to hold. `repositories`: names. `snapshot`: only such, or none. Of each module the newest
    `keep` revisions are left out, counted among those that `tokens` of its revision and `snapshot` leave.
    `larger`, `smaller`: than so many bytes. Times in nanoseconds since 1970: last modified before or since;
    last used before. `duplicates`: contents with several names among what is found. `trash`: what lies there,
    too. `below`: in that directory only, whose path has a slash at both ends."""

    digests: tuple[DigestRange, ...] = ()
    properties: tuple[PropertyMatch, ...] = ()
    tokens: tuple[TokenMatch, ...] = ()
    repositories: tuple[bytes, ...] = ()
    names: tuple[Pattern, ...] = ()
    paths: tuple[Pattern, ...] = ()
    snapshot: bool | None = None
    keep: int | None = None
    companions: bool = False
    larger: int | None = None
    smaller: int | None = None
    before_ns: int | None = None
    since_ns: int | None = None
    unused_ns: int | None = None
    duplicates: bool = False
    trash: bool = False
    below: bytes = b"/"

    @property
    def artifacts(self) -> bool:
        """Are only artifacts looked for?"""
        kinds = self.snapshot is not None or self.keep is not None or self.companions
        return kinds or bool(self.tokens or self.repositories)

    @property
    def needs_digests(self) -> bool:
        """Has what was written last to be sealed, for this to be answered?"""
        return bool(self.digests) or self.duplicates


def parse(terms: Iterable[str], now_ns: int | None = None) -> Query:
    """Raises UsageError, which names the term that is wrong."""
    query = Query()
    now = time.time_ns() if now_ns is None else now_ns
    for term in terms:
        try:
            query = replace(query, **_parsed(query, term, now))
        except ValueError as error:
            raise UsageError(f"'{printable(term)}': {error}") from None
    return query


def _parsed(query: Query, term: str, now: int) -> dict[str, Any]:
    """What a term adds. Raises ValueError, UsageError."""
    match = _TERM.fullmatch(term)
    assert match is not None
    negated, name, operator, value = bool(match["negated"]), match["name"], match["operator"], match["value"]
    if name not in _VALUES and name not in _FLAGS and not name.startswith("prop."):
        known = ["prop.KEY", *_VALUES, *_FLAGS]
        raise UsageError.unknown("term", printable(name), known)
    if negated and name in _NOT_NEGATED:
        raise ValueError("'!' is for digests, properties, tokens, name and path")
    if name in _FLAGS:
        if operator is not None:
            raise ValueError(f"'{name}' takes no value")
        return _flag(query, name)
    if name == "size":
        return _size(query, operator, value)
    if operator is not None and operator != "=":
        raise ValueError(f"'{operator}' is for size; write {name}=…")
    if name.startswith("prop."):
        key = _some(name.removeprefix("prop."))
        return {"properties": (*query.properties, PropertyMatch(_text(key), value and _text(value), negated))}
    if value is None:
        raise ValueError(f"what is wanted? write {name}={_VALUES[name]}")
    if name in DIGEST_BYTES:
        return {"digests": (*query.digests, digest_range(name, value)._replace(negated=negated))}
    if name in COLUMNS:
        return {"tokens": (*query.tokens, TokenMatch(COLUMNS[name], _text(value), negated))}
    return _limit(query, name, value, negated, now)


def _limit(query: Query, name: str, value: str, negated: bool, now: int) -> dict[str, Any]:
    match name:
        case "repo":
            return {"repositories": (*query.repositories, os.fsencode(_some(value)))}
        case "name":
            return {"names": (*query.names, Pattern(_some(value), negated))}
        case "path":
            return {"paths": (*query.paths, Pattern("/" + _some(value).lstrip("/"), negated))}
        case "keep":
            return {"keep": max(amounts.count(value), query.keep or 0)}
        case "newer":
            return {"since_ns": max(_moment(value, now), query.since_ns or 0)}
    field = {"older": "before_ns", "unused": "unused_ns"}[name]
    before = getattr(query, field)
    moment = _moment(value, now)
    return {field: moment if before is None else min(moment, before)}


_VALUES = {
    **dict.fromkeys(DIGEST_BYTES, "HEX"),
    **dict.fromkeys(COLUMNS, "TEXT"),
    "repo": "NAME",
    "name": "GLOB",
    "path": "GLOB",
    "size": "SIZE",
    "older": "30d",
    "newer": "30d",
    "unused": "90d",
    "keep": "N",
}
"""Terms with a value, and how one is written."""

_FLAGS = ("duplicates", "releases", "snapshots", "companions", "trash")

_NOT_NEGATED = {"repo", "size", "older", "newer", "unused", "keep", *_FLAGS}


def _flag(query: Query, name: str) -> dict[str, Any]:
    if name not in ("releases", "snapshots"):
        return {name: True}
    snapshot = name == "snapshots"
    if query.snapshot not in (None, snapshot):
        raise ValueError("nothing is a release and a snapshot")
    return {"snapshot": snapshot}


def _size(query: Query, operator: str | None, value: str | None) -> dict[str, Any]:
    if operator not in ("<", ">") or value is None:
        raise ValueError("write size>10M or size<10M, in quotes")
    size = amounts.byte_size(value)
    if operator == ">":
        return {"larger": size if query.larger is None else max(size, query.larger)}
    return {"smaller": size if query.smaller is None else min(size, query.smaller)}


def _moment(value: str, now: int) -> int:
    """So long ago, or a time."""
    try:
        return now - amounts.duration(value) * SECOND
    except ValueError:
        return amounts.instant(value) * SECOND


def _some(value: str) -> str:
    if not value:
        raise ValueError("there is no value")
    return value


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("UTF-8 is wanted")
    return value


def digest_range(algorithm: str, value: str) -> DigestRange:
    """Those that begin so. Raises ValueError for what is no digest, or one of another algorithm."""
    digits = value.lower()
    length = DIGEST_BYTES[algorithm] * 2
    if not digits:
        raise ValueError("a digest, or its begin, is wanted")
    wrong = next((digit for digit in digits if digit not in "0123456789abcdef"), None)
    if wrong is not None:
        raise ValueError(f"'{wrong}' is no hex digit")
    others = [name for name, size in DIGEST_BYTES.items() if size * 2 == len(digits)]
    if len(digits) > length or (len(digits) >= SHORTEST_WHOLE and others and len(digits) != length):
        has = f"a {algorithm} has {length} hex digits, not {len(digits)}"
        raise ValueError(f"{has}{', as ' * bool(others)}{' and '.join(others)}{' has' * bool(others)}")
    low, high = (bytes.fromhex(digits.ljust(length, end)) for end in "0f")
    return DigestRange(algorithm, low, high, low <= _empty(algorithm) <= high)


def _empty(algorithm: str) -> bytes:
    """The digest of the empty content."""
    return hash_bytes(b"") if algorithm == BLAKE3 else other_digests(b"", [algorithm])[algorithm]


def literal_directory(pattern: str) -> bytes:
    """The directory below which all paths lie that a pattern fits; with a slash at its end."""
    end = min((at for at in map(pattern.find, WILD) if at >= 0), default=len(pattern))
    return os.fsencode(pattern[: pattern.rfind("/", 0, end) + 1])


def exact(match: PropertyMatch | TokenMatch) -> bool:
    """Is it looked up in an index, as one value?"""
    return not match.negated and match.value is not None and not is_pattern(match.value)
