"""A pattern as a matcher: which text each token of a path has."""

from __future__ import annotations

from dataclasses import dataclass

from casfs.errors import LayoutError
from casfs.layouts.nodes import Again, Bound, End, FirstOrAgain, Node, Optional, Place, Text, Traced
from casfs.layouts.paths import MAX_PATH
from casfs.layouts.patterns import TOKENS, Item, Literal, Part, Pattern, Token
from casfs.layouts.runs import Run, Trace
from casfs.layouts.token_nodes import first_occurrence


@dataclass(frozen=True, slots=True)
class Stop:
    """How far a path matches: the characters before `at`, and what was expected there."""

    at: int
    expected: tuple[str, ...]


class Matcher:
    """Immutable once made. Raises LayoutError where nothing tells two neighbouring tokens apart."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self._tokens = len(TOKENS) + len(pattern.further)
        self._start = _Compiler(pattern, traced=False).start
        self._least, most = self._start.slashes
        self._most = MAX_PATH if most is None else most
        last = pattern.items[-1]
        self._tail = last.text if isinstance(last, Literal) else ""

    def match(self, path: str, extension: int = -1) -> list[str] | None:
        """The texts of TOKENS and of the pattern's further tokens, empty for those that are not there; None
        where the path does not match. The extension must begin at `extension`, if that is not negative.
        Raises TooManySteps."""
        if not path.endswith(self._tail) or not self._least <= path.count("/") <= self._most:
            return None
        run = Run(path, self._tokens, extension)
        return run.values if self._start.match(run, 0) else None

    def steps(self, path: str) -> int:
        """How many steps an attempt takes, whether it is a match or not. Raises TooManySteps."""
        run = Run(path, self._tokens, -1)
        self._start.match(run, 0)
        return run.steps

    def stop(self, path: str) -> Stop:
        """How far a path that does not match does. Raises TooManySteps."""
        run = Trace(path, self._tokens, -1)
        _Compiler(self.pattern, traced=True).start.match(run, 0)
        return Stop(max(run.furthest, 0), tuple(run.expected))


class _Compiler:
    """Makes the nodes from the end to the beginning, after a look from the beginning to the end at what has a
    value where."""

    def __init__(self, pattern: Pattern, *, traced: bool) -> None:
        self._slots = {name: slot for slot, name in enumerate((*TOKENS, *pattern.further))}
        self._traced = traced
        self._number = 0
        self._spelled: dict[str, str] = {}
        self._repeated: set[str] = set()
        self._kinds: dict[int, str] = {}
        self._look(pattern.items, set(), set())
        self._levels: dict[int, int] = {}
        self._count(pattern.items, 0)
        end = End()
        self.start = self._chain(pattern.items, Traced(end) if traced else end)

    def _look(self, items: tuple[Item, ...], certain: set[str], possible: set[str]) -> None:
        """`certain` are tokens that have a value, `possible` those that may have one; both grow."""
        for item in items:
            if isinstance(item, Token):
                name = item.key
                again = name in certain
                self._kinds[item.column] = "again" if again else "either" if name in possible else "first"
                if name in possible:
                    self._repeated.add(name)
                if self._spelled.setdefault(name, item.name) != item.name and not again:
                    raise LayoutError(
                        f"[{item.name}] is spelled [{self._spelled[name]}] before", column=item.column
                    )
                certain.add(name)
                possible.add(name)
            elif isinstance(item, Part):
                if item.bound:
                    self._repeated |= item.keys
                self._look(item.items, certain | (item.keys if item.bound else set()), possible)

    def _count(self, items: tuple[Item, ...], level: int) -> int:
        for item in items:
            self._levels[item.column] = level
            if isinstance(item, Part):
                level = self._count(item.items, level)
            elif isinstance(item, Token) and item.key in self._repeated:
                level += self._kinds[item.column] != "again"
        return level

    def _chain(self, items: tuple[Item, ...], following: Node) -> Node:
        for item in reversed(items):
            self._number += 1
            following = self._node(item, Place(following, self._number, self._levels[item.column]))
        return following

    def _node(self, item: Item, place: Place) -> Node:
        if isinstance(item, Part):
            inner = self._chain(item.items, place.next)
            if item.bound:
                return Bound(inner, self._slot(min(item.keys)), place)
            return Optional(inner, place)
        node = Text(item.text, place) if isinstance(item, Literal) else self._token(item, place)
        return Traced(node) if self._traced else node

    def _token(self, token: Token, place: Place) -> Node:
        slot, kind = self._slot(token.key), self._kinds[token.column]
        again = Again(token, slot, place)
        if kind == "again":
            return again
        first = first_occurrence(token, slot, token.key in self._repeated, place)
        return first if kind == "first" else FirstOrAgain(first, again, slot)

    def _slot(self, key: str) -> int:
        return self._slots[self._spelled[key]]
