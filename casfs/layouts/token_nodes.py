"""The first occurrence of a token in a matcher: where it may end, and in which order that is tried."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from casfs.errors import LayoutError
from casfs.layouts.nodes import ANYTHING, END, FREE, Node, Place, spans
from casfs.layouts.patterns import Token
from casfs.layouts.runs import Run


class _First(Node):
    """The first occurrence of a token. `repeats` says that what comes after depends on its value."""

    __slots__ = ("_last", "_longest", "_repeats", "_shown", "_slot")

    def __init__(self, token: Token, slot: int, repeats: bool, place: Place) -> None:
        super().__init__(place)
        self._shown = token.shown
        self._longest = token.longest
        self._slot = slot
        self._repeats = repeats
        self._last = place.next.first == {END}
        if spans(token):
            self.slashes = place.next.slashes[0], None

    def _take(self, run: Run, at: int, end: int) -> bool:
        """Does everything after the token match when it ends there?"""
        if not self._repeats:
            if not self.next.match(run, end):
                return False
            run.values[self._slot] = run.path[at:end]
            return True
        if run.failed:
            run.forget(self.level + 1)
        run.values[self._slot] = run.path[at:end]
        if self.next.match(run, end):
            return True
        run.values[self._slot] = ""
        if run.failed:
            run.forget(self.level + 1)
        return False

    def expected(self, run: Run) -> str:
        after = [repr(text) if text != END else "the end" for text in sorted(self.next.first)]
        if ANYTHING in self.next.first:
            return f"[{self._shown}]"
        return f"[{self._shown}] and {' or '.join(after)}"


class _Free(_First):
    """A token of any text, or nearly: something must tell it from a neighbour of that kind."""

    __slots__ = ()

    def __init__(self, token: Token, slot: int, repeats: bool, place: Place) -> None:
        super().__init__(token, slot, repeats, place)
        if FREE in place.next.first:
            raise LayoutError(
                f"nothing says where [{token.shown}] ends and the next token begins", column=token.column
            )
        self.first = frozenset({ANYTHING, FREE})


class Component(_Free):
    """A token of any text that ends at the next slash, or is the rest of the path."""

    __slots__ = ()

    def match(self, run: Run, at: int) -> bool:
        end = run.path.find("/", at)
        if self._last:
            return end < 0 and at < run.size and self._take(run, at, run.size)
        return end > at and self._take(run, at, end)


class Extension(_Free):
    """[ext]: no hyphen, and no digit first; except that there is 7z."""

    __slots__ = ()

    def match(self, run: Run, at: int) -> bool:
        if self._last and run.extension >= 0:
            return at == run.extension and self._take(run, at, run.size)
        path = run.path
        if at >= run.size:
            return False
        if path[at] in "0123456789":
            return path.startswith("7z", at) and self._take(run, at, at + 2)
        limit = min((end for end in (path.find("-", at), path.find("/", at)) if end >= 0), default=run.size)
        if self._last:
            return at < limit == run.size and self._take(run, at, limit)
        run.count(limit - at)
        return any(self._take(run, at, end) for end in range(limit, at, -1))


class _Searched(_Free):
    """A token of any text, followed by something that is looked for."""

    __slots__ = ("_find", "_to_end")

    def __init__(self, token: Token, slot: int, repeats: bool, place: Place) -> None:
        super().__init__(token, slot, repeats, place)
        self._to_end = END in place.next.first
        self._find = _finder(place.next.first)

    def _try(self, run: Run, at: int, first: int, last: int, key: int) -> bool:
        """Try the ends from `first` to `last`. `key` is the same for all beginnings with the same last."""
        if self._repeats:
            key = at
        tried = run.failure(self.level, self.number, key, last + 1) if run.failed else last + 1
        path, find = run.path, self._find
        if self._longest or self._to_end or find is None:
            ends = self._ends(path, first, min(last, tried - 1))
            for end in reversed(list(ends)) if self._longest else ends:
                run.count(1)
                if self._take(run, at, end):
                    return True
        else:  # most tokens
            end = find(path, first)
            while 0 <= end < tried:
                run.steps += 1
                if self._take(run, at, end):
                    return True
                end = find(path, end + 1)
            run.count(0)
        if first < tried:
            run.fail(self.level, self.number, key, first)
        return False

    def _ends(self, path: str, first: int, last: int) -> Iterator[int]:
        find = self._find
        if find is None:
            yield from range(first, last + 1)
            return
        end = find(path, first)
        while 0 <= end <= last:
            yield end
            end = find(path, end + 1)
        if self._to_end and first <= last == len(path):
            yield last


class Name(_Searched):
    """One that stays in its component."""

    __slots__ = ()

    def match(self, run: Run, at: int) -> bool:
        limit = run.path.find("/", at)
        if limit < 0:
            limit = run.size
        return self._try(run, at, at + 1, limit, limit)


class Path(_Searched):
    """[orgPath]: whole components. The slashes that must come after it bound where it ends."""

    __slots__ = ()

    def match(self, run: Run, at: int) -> bool:
        path, (least, most) = run.path, self.next.slashes
        last = _last_slash(path, least)
        first = at + 1 if most is None else max(at, _last_slash(path, most + 1)) + 1
        return path[at : at + 1] != "/" and self._try(run, at, first, last, -1)

    def _take(self, run: Run, at: int, end: int) -> bool:
        return run.path[end - 1] != "/" and super()._take(run, at, end)


class Expressed(_First):
    """A token with an expression. Its ends depend on where it begins."""

    __slots__ = ("_ends",)

    def __init__(self, token: Token, slot: int, repeats: bool, place: Place) -> None:
        super().__init__(token, slot, repeats, place)
        assert token.expression is not None
        self._ends = token.expression.ends

    def match(self, run: Run, at: int) -> bool:
        if run.failed and run.failure(self.level, self.number, at, -1) == at:
            return False
        ends, work = self._ends(run.path, at, run.size)
        run.count(work)
        for end in reversed(ends) if self._longest else ends:
            run.count(1)
            if self._take(run, at, end):
                return True
        run.fail(self.level, self.number, at, at)
        return False


class Constant(_First):
    """A token whose expression is one text."""

    __slots__ = ("_size", "_text")

    def __init__(self, token: Token, slot: int, repeats: bool, place: Place) -> None:
        super().__init__(token, slot, repeats, place)
        assert token.expression is not None
        self._text = token.expression.constant
        self._size = len(self._text)

    def match(self, run: Run, at: int) -> bool:
        return run.path.startswith(self._text, at) and self._take(run, at, at + self._size)


def first_occurrence(token: Token, slot: int, repeats: bool, place: Place) -> Node:
    """The node for a token that has no value yet."""
    kind: type[_First]
    if token.expression is None:
        kind = Path if token.name == "orgPath" else Extension
    elif not token.expression.any_name:
        kind = Constant if token.expression.constant else Expressed
    elif all(text[0:1] in ("/", END) for text in place.next.first) and (
        place.next.first == {END} or END not in place.next.first
    ):
        kind = Component
    else:
        kind = Name
    return kind(token, slot, repeats, place)


def _last_slash(path: str, number: int) -> int:
    """Where the last slash but `number` - 1 is; the end of the path for 0, -1 when there are not so many."""
    at = len(path)
    for _ in range(number):
        at = path.rfind("/", 0, at)
        if at < 0:
            return -1
    return at


def _finder(first: frozenset[str]) -> Callable[[str, int], int] | None:
    """Where one of the texts is next, -1 for nowhere; None when anything may come."""
    if ANYTHING in first:
        return None
    texts = first - {END}
    if not texts:
        return lambda path, at: -1
    if len(texts) == 1:
        (text,) = texts
        return lambda path, at: path.find(text, at)
    search = re.compile("|".join(map(re.escape, sorted(texts)))).search

    def find(path: str, at: int) -> int:
        found = search(path, at)
        return found.start() if found else -1

    return find
