"""The parts of a matcher. Each matches something at a place of the path, and then what comes after it.

The matcher goes back, as it must: repeated tokens are more than an automaton can do. What keeps it fast:

- A token ends only where what follows it may begin, which is searched for at the speed of C; one that
  is followed by a slash has one end.
- Where a token has tried an end in vain, it is not tried again, from wherever the token begins: what comes
  after does not depend on that. So the steps are linear in the path for each value of the repeated tokens.
- A token that is repeated makes what comes after depend on its value. In the built-in layouts such a token is
  followed by a slash, or by a revision of a fixed form and a slash, so it has one value or two.
- Every step is counted, and a path that needs more than MAX_STEPS does not match. The count depends on the
  pattern and the path alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from casfs.layouts.patterns import TOKENS, Token
from casfs.layouts.runs import Run, Trace

ORG, ORG_PATH = TOKENS.index("org"), TOKENS.index("orgPath")

ANYTHING = ""
END = "\0"
FREE = "\1"
"""What may follow a token beside a literal: something unknown, the end of the path, a token of any text."""


class Place(NamedTuple):
    """Where a node stands. `number` is its own, `level` counts the repeated tokens before it."""

    next: Node
    number: int
    level: int


class Node(ABC):
    """`first` is what the text here may begin with: literals, ANYTHING, END. `slashes` are the fewest and
    the most from here to the end of the path (None: no limit). `level` counts the repeated tokens before."""

    __slots__ = ("first", "level", "next", "number", "slashes")

    def __init__(self, place: Place | None) -> None:
        self.next, self.number, self.level = place or (self, 0, 0)
        self.first = frozenset({ANYTHING})
        self.slashes: tuple[int, int | None] = place.next.slashes if place else (0, 0)

    @abstractmethod
    def match(self, run: Run, at: int) -> bool:
        """Does the rest of the path fit from there on?"""

    def expected(self, run: Run) -> str:
        """What could come here, for a person; "" of a node that takes no text itself."""
        return ""


class Traced(Node):
    """A node in a matcher that explains itself; used with a Trace."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        super().__init__(Place(node.next, node.number, node.level))
        self._node = node
        self.first = node.first
        self.slashes = node.slashes

    def match(self, run: Run, at: int) -> bool:
        assert isinstance(run, Trace)
        run.reaches(at, self._node.expected(run))
        return self._node.match(run, at)


class End(Node):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None)
        self.first = frozenset({END})

    def match(self, run: Run, at: int) -> bool:
        return at == run.size

    def expected(self, run: Run) -> str:
        return "the end of the path"


class Text(Node):
    """A literal."""

    __slots__ = ("_size", "_text")

    def __init__(self, text: str, place: Place) -> None:
        super().__init__(place)
        self._text = text
        self._size = len(text)
        self.first = frozenset({text})
        least, most = place.next.slashes
        own = text.count("/")
        self.slashes = least + own, None if most is None else most + own

    def match(self, run: Run, at: int) -> bool:
        return run.path.startswith(self._text, at) and self.next.match(run, at + self._size)

    def expected(self, run: Run) -> str:
        return f"'{self._text}'"


class Again(Node):
    """A token that has its value, in `slot`. [org] and [orgPath] are one token in two spellings."""

    __slots__ = ("_replace", "_shown", "_slot")

    def __init__(self, token: Token, slot: int, place: Place) -> None:
        super().__init__(place)
        self._shown = token.shown
        self._slot = slot
        self._replace = (
            ("/", ".")
            if token.name == "org" and slot == ORG_PATH
            else (".", "/")
            if token.name == "orgPath" and slot == ORG
            else None
        )
        if spans(token):
            self.slashes = place.next.slashes[0], None

    def _value(self, run: Run) -> str:
        value = run.values[self._slot]
        return value.replace(*self._replace) if self._replace else value

    def match(self, run: Run, at: int) -> bool:
        value = self._value(run)
        return run.path.startswith(value, at) and self.next.match(run, at + len(value))

    def expected(self, run: Run) -> str:
        return f"[{self._shown}] again, '{self._value(run)}'"


class FirstOrAgain(Node):
    """A token that has its value if an optional part before it is there."""

    __slots__ = ("_again", "_first", "_slot")

    def __init__(self, first: Node, again: Node, slot: int) -> None:
        super().__init__(Place(first.next, first.number, first.level))
        self.first = first.first
        self._first = first
        self._again = again
        self._slot = slot
        self.slashes = first.slashes

    def match(self, run: Run, at: int) -> bool:
        return (self._again if run.values[self._slot] else self._first).match(run, at)

    def expected(self, run: Run) -> str:
        return (self._again if run.values[self._slot] else self._first).expected(run)


class Optional(Node):
    """A part that may be there: `inner` goes on to `next` as well. It is tried first."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Node, place: Place) -> None:
        super().__init__(place)
        self._inner = inner
        self.first = inner.first | place.next.first
        (least, most), (least_without, most_without) = inner.slashes, place.next.slashes
        limit = None if most is None or most_without is None else max(most, most_without)
        self.slashes = min(least, least_without), limit

    def match(self, run: Run, at: int) -> bool:
        if run.failed and run.failure(self.level, self.number, at, -1) == at:
            return False
        if self._inner.match(run, at) or self.next.match(run, at):
            return True
        run.count(1)
        run.fail(self.level, self.number, at, at)
        return False


class Bound(Optional):
    """A part that is there exactly if the token in `slot` has a value."""

    __slots__ = ("_slot",)

    def __init__(self, inner: Node, slot: int, place: Place) -> None:
        super().__init__(inner, place)
        self._slot = slot

    def match(self, run: Run, at: int) -> bool:
        return (self._inner if run.values[self._slot] else self.next).match(run, at)


def spans(token: Token) -> bool:
    """May its text have slashes?"""
    return token.name == "orgPath" if token.expression is None else token.expression.spans
