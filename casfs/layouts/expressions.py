"""Regular expressions of tokens, as automata: matching never goes back, so no name makes it slow.

The language is the common core of Java's and Python's: literals, `.`, classes, `\\d \\w \\s` and their
negations, groups, `|`, `? * + {m,n}`. What needs more than an automaton (look-around, back references,
anchors, flags) is an error when the layout is defined. An expression always matches a whole token.

A slash is matched only where the expression names it: not by `.` and not by a negated class. So a token stays
within one component of a path unless its author wants otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from casfs.errors import LayoutError

MAX_POSITIONS = 300
"""Positions of an automaton: characters of an expression with its counted repetitions written out."""

MAX_REPEATS = 255
"""The longest counted repetition; no component of a path is longer."""

MAX_DEPTH = 20
"""Groups in groups."""

MAX_TRANSITIONS = 5000
"""Steps of an automaton that are remembered. They are forgotten together, so memory has a bound."""

_SHORTHANDS = {
    "d": (("0", "9"),),
    "w": (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z")),
    "s": (("\t", "\r"), (" ", " ")),
}


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """Characters in any of `ranges` (first and last), or in none of them; see the module about slashes."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def __contains__(self, character: str) -> bool:
        inside = any(first <= character <= last for first, last in self.ranges)
        return not inside and character != "/" if self.negated else inside


_ANY = CharacterSet((), negated=True)
_SLASH = (("/", "/"),)


# The syntax tree


@dataclass(frozen=True, slots=True)
class _Sequence:
    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    branches: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    item: _Node
    least: int
    most: int | None


_Node = CharacterSet | _Sequence | _Choice | _Repeat


class _Parser:
    def __init__(self, text: str, column: int) -> None:
        self._text = text
        self._column = column
        self._at = 0
        self._depth = 0
        self.lazy = False

    def parse(self) -> _Node:
        node = self._choice()
        if self._at < len(self._text):
            raise self._error("')' without '('")
        return node

    def _error(self, message: str, at: int | None = None) -> LayoutError:
        return LayoutError(message, column=self._column + (self._at if at is None else at))

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _choice(self) -> _Node:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else _Choice(tuple(branches))

    def _sequence(self) -> _Node:
        items: list[_Node] = []
        while (character := self._peek()) and character not in "|)":
            items.append(self._quantified(self._item()))
        if not items:
            raise self._error("nothing to match here")
        return items[0] if len(items) == 1 else _Sequence(tuple(items))

    def _item(self) -> _Node:
        start = self._at
        character = self._text[self._at]
        self._at += 1
        if character == "(":
            return self._group(start)
        if character == "[":
            return self._class(start)
        if character == ".":
            return _ANY
        if character == "\\":
            return self._escape()
        if character in "?*+":
            raise self._error(f"nothing to repeat before '{character}'", start)
        if character in "{}]":
            raise self._error(f"'{character}' stands for itself only as '\\{character}'", start)
        if character in "^$":
            raise self._error(f"'{character}' has no meaning: an expression matches the whole token", start)
        return CharacterSet(((character, character),))

    def _group(self, start: int) -> _Node:
        if self._text.startswith("?:", self._at):
            self._at += 2
        elif self._peek() == "?":
            raise self._error("look-around, named groups and flags are not supported", start)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} groups in groups", start)
        node = self._choice()
        if self._peek() != ")":
            raise self._error("'(' without ')'", start)
        self._depth -= 1
        self._at += 1
        return node

    def _escape(self) -> CharacterSet:
        character = self._peek()
        self._at += 1
        if character.lower() in _SHORTHANDS and character:
            return CharacterSet(_SHORTHANDS[character.lower()], negated=character.isupper())
        if not character or character.isalnum():
            raise self._error(f"unknown escape '\\{character}'", self._at - 2)
        return CharacterSet(((character, character),))

    def _class(self, start: int) -> CharacterSet:
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[str, str]] = []
        while (character := self._peek()) != "]":
            if not character:
                raise self._error("'[' without ']'", start)
            ranges.extend(self._range())
        self._at += 1
        if not ranges:
            raise self._error("empty class", start)
        return CharacterSet(tuple(ranges), negated)

    def _range(self) -> Iterable[tuple[str, str]]:
        start = self._at
        first = self._bound()
        if self._peek() != "-" or self._text.startswith("-]", self._at):
            return first.ranges
        self._at += 1
        if not self._peek():
            return first.ranges
        last = self._bound()
        low, high = first.ranges[0][0], last.ranges[-1][1]
        if len(first.ranges + last.ranges) != 2 or first.ranges[0] != (low, low) or last.ranges[0][0] != high:
            raise self._error("a range goes from one character to another one", start)
        if low > high:
            raise self._error(f"the range {low}-{high} is empty", start)
        return ((low, high),)

    def _bound(self) -> CharacterSet:
        character = self._text[self._at]
        self._at += 1
        if character == "[":
            raise self._error("'[' stands for itself in a class only as '\\['", self._at - 1)
        if character != "\\":
            return CharacterSet(((character, character),))
        found = self._escape()
        if found.negated:
            raise self._error("a negated shorthand has no meaning in a class", self._at - 2)
        return found

    def _quantified(self, item: _Node) -> _Node:
        start = self._at
        character = self._peek()
        if character not in ("?", "*", "+", "{"):
            return item
        self._at += 1
        least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(character) or self._counts(start)
        if self._peek() == "?":
            self.lazy = True
            self._at += 1
        if self._peek() in ("?", "*", "+", "{"):
            raise self._error("more than one repetition of one thing")
        return _Repeat(item, least, most)

    def _counts(self, start: int) -> tuple[int, int | None]:
        end = self._text.find("}", start)
        least, comma, most = self._text[start + 1 : max(end, start)].partition(",")
        if end < 0 or not _is_count(least) or (most and not _is_count(most)):
            raise self._error("a repetition is written {m}, {m,} or {m,n}", start)
        self._at = end + 1
        low = int(least)
        high = (int(most) if most else None) if comma else low
        if max(low, high or 0) > MAX_REPEATS:
            raise self._error(f"more than {MAX_REPEATS} repetitions", start)
        if high is not None and (high < low or not high):
            raise self._error(f"the repetition {{{low},{high}}} is empty", start)
        return low, high


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 5


# The automaton


class _Part(NamedTuple):
    """Positions where a part of the expression may begin and end, as bits, and whether it may be empty."""

    first: int
    last: int
    empty: bool


class _State:
    """What the automaton waits for (positions as bits), and whether what it has read is a match."""

    __slots__ = ("accepts", "next", "positions", "weight")

    def __init__(self, positions: int, accepts: bool) -> None:
        self.positions = positions
        self.accepts = accepts
        self.weight = 1 + positions.bit_count()
        self.next: dict[str, _State] = {}


class Expression:
    """One expression. Raises LayoutError with the column in `text`, counted from `column`.

    `lazy` says that a token takes the shortest text that leads to a match of the whole path, not the longest
    one: some repetition in the expression is a lazy one.
    State: the steps it has made, derived from `text` alone, so it does not matter which thread adds one.
    """

    def __init__(self, text: str, column: int = 1) -> None:
        self.text = text
        parser = _Parser(text, column)
        tree = parser.parse()
        self.lazy = parser.lazy
        self.any_name = _is_any_name(tree)
        """It matches everything without a slash (a token is never empty)."""
        self.constant = _constant(tree)
        """The only text it matches; empty when there are others."""
        self._column = column
        self._sets: list[CharacterSet] = []
        self._follow: list[int] = []
        whole = self._construct(tree)
        self.spans = any("/" in found for found in self._sets)
        """It may match a slash."""
        self._last = whole.last
        self._first = whole.first
        self._reset()

    def _reset(self) -> None:
        self._start = _State(self._first, False)
        self._states: dict[tuple[int, bool], _State] = {}
        self._masks: dict[str, int] = {}
        self._transitions = 0

    def matches(self, text: str) -> bool:
        """The whole of it, which is not empty?"""
        state = self._start
        for character in text:
            state = state.next.get(character) or self._step(state, character)
        return state.accepts

    def ends(self, text: str, start: int, limit: int) -> tuple[list[int], int]:
        """Where a match that begins at `start` and is not empty may end, ascending, at most at `limit`; and
        the work: positions looked at, whatever is remembered of earlier calls."""
        found = []
        work = 0
        state = self._start
        for at in range(start, limit):
            character = text[at]
            work += state.weight
            state = state.next.get(character) or self._step(state, character)
            if state.accepts:
                found.append(at + 1)
            elif not state.positions:
                break
        return found, work

    def _step(self, state: _State, character: str) -> _State:
        if self._transitions >= MAX_TRANSITIONS:
            self._reset()
        mask = self._masks.get(character)
        if mask is None:
            mask = sum(1 << at for at, found in enumerate(self._sets) if character in found)
            self._masks[character] = mask
        read = state.positions & mask
        positions = 0
        for position in _bits(read):
            positions |= self._follow[position]
        key = positions, bool(read & self._last)
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = _State(*key)
        state.next[character] = found
        self._transitions += 1
        return found

    def _construct(self, node: _Node) -> _Part:
        """Number the positions of a part and note what follows each (Glushkov's construction)."""
        if isinstance(node, CharacterSet):
            if len(self._sets) >= MAX_POSITIONS:
                raise LayoutError("the expression is too large", column=self._column)
            self._sets.append(node)
            self._follow.append(0)
            here = 1 << len(self._sets) - 1
            return _Part(here, here, False)
        if isinstance(node, _Choice):
            first = last = 0
            empty = False
            for part in map(self._construct, node.branches):
                first |= part.first
                last |= part.last
                empty = empty or part.empty
            return _Part(first, last, empty)
        if isinstance(node, _Sequence):
            return self._concatenate(map(self._construct, node.items))
        return self._concatenate(self._repeated(node))

    def _repeated(self, node: _Repeat) -> Iterator[_Part]:
        for _ in range(node.least):
            yield self._construct(node.item)
        if node.most is None:
            part = self._construct(node.item)
            self._link(part.last, part.first)
            yield part._replace(empty=True)
        else:
            for _ in range(node.most - node.least):
                yield self._construct(node.item)._replace(empty=True)

    def _concatenate(self, parts: Iterable[_Part]) -> _Part:
        first, last, empty = 0, 0, True
        for part in parts:
            self._link(last, part.first)
            first = first | part.first if empty else first
            last = last | part.last if part.empty else part.last
            empty = empty and part.empty
        return _Part(first, last, empty)

    def _link(self, last: int, first: int) -> None:
        for position in _bits(last):
            self._follow[position] |= first


def _bits(positions: int) -> Iterator[int]:
    while positions:
        lowest = positions & -positions
        yield lowest.bit_length() - 1
        positions ^= lowest


def _is_any_name(node: _Node) -> bool:
    return (
        isinstance(node, _Repeat)
        and node.least <= 1
        and node.most is None
        and isinstance(node.item, CharacterSet)
        and node.item.negated
        and node.item.ranges in ((), _SLASH)
    )


def _constant(node: _Node) -> str:
    if isinstance(node, CharacterSet) and not node.negated and len(node.ranges) == 1:
        low, high = node.ranges[0]
        return low if low == high else ""
    if isinstance(node, _Sequence):
        parts = [_constant(item) for item in node.items]
        return "".join(parts) if all(parts) else ""
    return ""
