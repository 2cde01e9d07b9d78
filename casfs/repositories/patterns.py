"""Patterns of paths, as Ant's: `?` is a character of a name, `*` any number of them, `**` any number of
directories. One that ends with `/` is meant as if `**` came behind it; `a/**` is also `a` itself.

All patterns of a set are one automaton, whose states are the bits of an integer. So a path is looked at once,
character by character, whatever patterns and names somebody has made up; and a directory's state is kept,
from which each name in it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from casfs.errors import UsageError
from casfs.text import is_text

MAX_CHARACTERS = 4096
"""Of all patterns of a set: with so many a character of a path takes a microsecond."""

EVERYTHING = "**"


class Patterns:
    """A set of patterns, which `check` has found good. Immutable.

    Of a pattern each position is a bit, the last one for having come to its end. A position waits for a
    character, and then the next one is reached, or it stays where it is meanwhile: `_names` those that stay
    for whatever is in a name, `_paths` for everything. Those in `_skipped` may stand for nothing at all.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._waiting: dict[str, int] = {}
        self._any = self._names = self._paths = self._skipped = self._rest = 0
        self._ends: list[tuple[int, str]] = []
        self._size = 0
        begin = 0
        for text in texts:
            begin |= 1 << self._size
            self._add(text)
        self.start = self._skip(begin)
        """The state at the beginning of a path."""

    def _add(self, text: str) -> None:
        parts = _completed(text).split("/")
        ends = 0
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if part != EVERYTHING:
                for character in part:
                    self._add_character(character)
                if last:
                    break
                if number < len(parts) - 2 or parts[-1] != EVERYTHING:
                    self._add_literal("/")
            elif not last:  # directories, each with its slash
                self._paths |= 1 << self._size
                self._skipped |= 1 << self._size
                self._add_literal("/")
            else:
                if number:
                    ends = 1 << self._size
                    self._add_literal("/")
                self._paths |= 1 << self._size
                self._rest |= 1 << self._size
        self._ends.append((ends | 1 << self._size, text))
        self._size += 1

    def _add_character(self, character: str) -> None:
        if character == "*":
            self._names |= 1 << self._size
            self._skipped |= 1 << self._size
            self._size += 1
        elif character == "?":
            self._any |= 1 << self._size
            self._size += 1
        else:
            self._add_literal(character)

    def _add_literal(self, character: str) -> None:
        self._waiting[character] = self._waiting.get(character, 0) | 1 << self._size
        self._size += 1

    def _skip(self, state: int) -> int:
        """With what is reached when nothing stands for stars: no more than two follow each other."""
        state |= (state & self._skipped) << 1
        return state | (state & self._skipped) << 1

    def after(self, state: int, path: bytes) -> int:
        """The state when so much more of a path has been looked at."""
        waiting, any_, names, paths = self._waiting, self._any, self._names, self._paths
        for character in os.fsdecode(path):
            reached = (state & waiting.get(character, 0)) << 1
            if character != "/":
                reached |= (state & any_) << 1 | state & names
            state = self._skip(reached) | state & paths
            if not state:
                break
        return state

    def match(self, state: int) -> str:
        """The pattern that a path which ends there matches, the first one; "" when there is none."""
        return next((text for ends, text in self._ends if state & ends), "")

    def takes_all(self, state: int) -> bool:
        """Does everything match that begins so?"""
        return bool(state & self._rest)

    def takes_none(self, state: int) -> bool:
        """Does nothing match that begins so?"""
        return not state


def _completed(text: str) -> str:
    """In full, and in one way only: as few stars as say the same."""
    text = f"{text}{EVERYTHING}" if text.endswith("/") else text
    parts: list[str] = []
    for part in text.split("/"):
        if part != EVERYTHING or parts[-1:] != [EVERYTHING]:
            parts.append(part)
    return "/".join(parts)


def check(kind: str, patterns: Iterable[str]) -> None:
    """Raises UsageError for a pattern that no path of a repository can have been meant with."""
    total = 0
    for pattern in patterns:
        total += len(pattern)
        for part in pattern.removesuffix("/").split("/"):
            if wrong := _why_not(part):
                raise UsageError(f"{kind}: '{pattern}': {wrong}")
    if total > MAX_CHARACTERS:
        raise UsageError(f"{kind}: {total} characters of patterns", f"up to {MAX_CHARACTERS} are possible")


def _why_not(part: str) -> str:
    """What is wrong with one part of a pattern, between slashes; "" when nothing is."""
    if not part:
        return "a path is relative to its repository, and has no empty name in it"
    if part in (".", ".."):
        return f"no file has the name '{part}'"
    if not part.isprintable() or not is_text(part):
        return "a pattern is one line of UTF-8"
    if EVERYTHING in part and part != EVERYTHING:
        return "'**' stands for directories, and has no other characters beside it"
    if len(part.replace("*", "").replace("?", "").encode()) > 255:
        return "no name has more than 255 bytes"
    return ""
