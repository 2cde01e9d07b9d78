"""A pattern as an expression of Python's `re`, which goes back without a bound: what a match must be."""

from __future__ import annotations

import re

from casfs.layouts.patterns import Item, Literal, Part, Pattern, Token

EXPRESSIONS = {"org": "[^/]+?", "orgPath": r"(?!/).+?(?<!/)", "ext": r"(?:(?!\d)[^\-/]+|7z)"}


class Reference:
    """Every first occurrence of a token is a group; where an optional part decides which one is the first
    there are several."""

    def __init__(self, pattern: Pattern) -> None:
        self._groups: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._match = re.compile(self._sequence(pattern.items, set()), re.ASCII | re.DOTALL).fullmatch

    def match(self, path: str) -> dict[str, str] | None:
        found = self._match(path)
        if found is None:
            return None
        values = {key: [found[group] for group in groups] for key, groups in self._groups.items()}
        return {self._names[key]: next(filter(None, texts)) for key, texts in values.items() if any(texts)}

    def _sequence(self, items: tuple[Item, ...], certain: set[str]) -> str:
        text = ""
        for item in items:
            if isinstance(item, Literal):
                text += re.escape(item.text)
            elif isinstance(item, Token):
                text += self._token(item, item.key in certain)
                certain.add(item.key)
            else:
                text += self._part(item, certain)
        return text

    def _part(self, part: Part, certain: set[str]) -> str:
        if not part.bound:
            return f"(?:{self._sequence(part.items, set(certain))})?"
        inner = self._sequence(part.items, certain | part.keys)
        return f"(?({self._groups[min(part.keys)][0]}){inner}|)"

    def _token(self, token: Token, certain: bool) -> str:
        self._names[token.key] = token.name
        known = self._groups.setdefault(token.key, [])
        if certain:
            return _again(known[:-1], f"(?P={known[-1]})")
        group = f"g{sum(map(len, self._groups.values()))}"
        text = _again(known, f"(?P<{group}>{_expression(token)})")
        known.append(group)
        return text


def _again(groups: list[str], otherwise: str) -> str:
    """The text of the first group that has one."""
    for group in reversed(groups):
        otherwise = f"(?({group})(?P={group})|{otherwise})"
    return otherwise


def _expression(token: Token) -> str:
    if token.expression is None:
        return EXPRESSIONS[token.name]
    if token.expression.any_name:
        return "[^/]+" if token.longest else "[^/]+?"
    return f"(?:{token.expression.text.replace('.', '[^/]')})"
