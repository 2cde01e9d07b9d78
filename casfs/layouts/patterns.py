"""The pattern language: text to a syntax tree, and the rules that make a pattern mean one thing.

    [module]            a token; the same one again must be the same text
    [name<regex>]       a token with an expression of its own, which ends at the first `>]`
    ( ... )             an optional part, there as a whole or not at all
    everything else     itself

A token is never empty, and stays within one component of the path; but for [orgPath], which is whole ones,
and for an expression that names the slash. Of the texts that lead to a match a token takes the shortest;
[module], [ext] and tokens with an expression the longest, unless the expression has a lazy repetition.
Optional parts are there if they can be. An [ext] at the end is first taken to be a usual one, after the last
dot or known as a compound (tar.gz), so that 1.0.Final.jar is the revision 1.0.Final.

A part is there exactly when the tokens that belong to it alone have values. That is what makes a pattern
reversible: from the tokens of a path the same path is built again. The rules below refuse what would not be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from casfs.errors import LayoutError
from casfs.layouts.expressions import Expression
from casfs.layouts.paths import extension_at

MAX_PATTERN = 1000
"""Characters."""

MAX_ITEMS = 100
"""Tokens, parts and texts between them."""

MAX_DEPTH = 10
"""Parts in parts."""

TOKENS = (
    "org",
    "orgPath",
    "module",
    "baseRev",
    "folderItegRev",
    "fileItegRev",
    "classifier",
    "ext",
    "type",
)
"""Tokens that need no expression. Their order is that of the first fields of `Coordinates`."""

ROLES = ("org", "module", "baseRev")
"""What an artifact pattern must have outside its optional parts, unless the layout's roles say otherwise."""

_LONGEST = {"module", "ext"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_ANY_NAME = Expression(".+")
_LITERAL_END = re.compile(r"[\[\]()]")
_WRONG = (
    (re.compile(r"^/"), "a path is relative to the repository"),
    (re.compile(r"/$|^$"), "a path ends with the name of a file"),
    (re.compile(r"(?<=/)/"), "an empty component"),
    (re.compile(r"(?:^|(?<=/))\.{1,2}(?=/|$)"), "a component that is called . or .."),
    (re.compile(r"[\x00-\x1f\x7f]"), "a control character"),
)


@dataclass(frozen=True, slots=True)
class Literal:
    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Token:
    """`expression` is None for orgPath and ext, which have rules of their own (see `nodes`)."""

    name: str
    column: int
    expression: Expression | None
    longest: bool
    shown: str
    """Its name in the pattern, which is another one where the layout's roles say so."""

    @property
    def key(self) -> str:
        """[org] and [orgPath] are two spellings of one thing."""
        return "org" if self.name == "orgPath" else self.name


@dataclass(frozen=True, slots=True)
class Part:
    items: tuple[Item, ...]
    column: int
    keys: frozenset[str] = frozenset()
    """The tokens whose values say whether the part is there."""
    bound: bool = False
    """An earlier part has the same keys; they are there together or not at all."""


Item = Literal | Token | Part


@dataclass(frozen=True, slots=True)
class Pattern:
    text: str
    items: tuple[Item, ...]
    names: frozenset[str]
    """Of all its tokens."""
    further: tuple[str, ...]
    """Tokens that are none of TOKENS, in the order of their first occurrence."""
    suffix: str
    """The extension that the pattern itself says (".tgz" at its end); empty where it has [ext] or none."""


def parse_pattern(
    text: str,
    *,
    folder_integration: Expression,
    file_integration: Expression,
    roles: Mapping[str, str] | None = None,
) -> Pattern:
    """The tree of `text`. `roles` names the tokens that stand for the mandatory ones; an empty name says that
    the layout goes without. Raises LayoutError with the column of what cannot be meant."""
    if not text:
        raise LayoutError("the pattern is empty", column=1)
    if len(text) > MAX_PATTERN:
        raise LayoutError(f"the pattern has more than {MAX_PATTERN} characters", column=MAX_PATTERN + 1)
    roles = dict(roles or {})
    expressions = {"folderItegRev": folder_integration, "fileItegRev": file_integration}
    items = _Parser(text, expressions, {other: role for role, other in roles.items() if other}).parse()
    _check_components(items)
    items = _with_keys(items)
    names = list(dict.fromkeys(token.name for token in _tokens(items)))
    _check_mandatory(items, roles)
    return Pattern(
        text,
        items,
        frozenset(names),
        tuple(name for name in names if name not in TOKENS),
        _suffix(items, "ext" in names),
    )


def _check_mandatory(items: tuple[Item, ...], roles: Mapping[str, str]) -> None:
    required = {item.key for item in items if isinstance(item, Token)}
    somewhere = {token.key for token in _tokens(items)}
    for role in ROLES:
        if role not in required and roles.get(role) != "":
            raise LayoutError(
                f"{'[org] or [orgPath]' if role == 'org' else f'[{role}]'} is "
                f"{'in an optional part only' if role in somewhere else 'missing'}",
                f'roles may name what plays its part, or say that nothing does: {role} = ""',
                column=1,
            )


def _suffix(items: tuple[Item, ...], has_extension: bool) -> str:
    last = items[-1]
    if has_extension or not isinstance(last, Literal):
        return ""
    at = extension_at(last.text)
    return last.text[at:] if at >= 0 else ""


class _Parser:
    def __init__(self, text: str, expressions: dict[str, Expression], roles: dict[str, str]) -> None:
        self._text = text
        self._at = 0
        self._count = 0
        self._roles = roles
        self._expressions = expressions
        self._seen: dict[str, Token] = {}

    def parse(self) -> tuple[Item, ...]:
        items = self._items(0)
        if self._at < len(self._text):
            raise LayoutError("')' without '('", column=self._at + 1)
        return items

    def _items(self, depth: int) -> tuple[Item, ...]:
        items: list[Item] = []
        while self._at < len(self._text):
            start = self._at
            character = self._text[start]
            if character == ")":
                break
            self._count += 1
            if self._count > MAX_ITEMS:
                raise LayoutError(f"more than {MAX_ITEMS} tokens, parts and texts", column=start + 1)
            if character == "]":
                raise LayoutError("']' without '['", column=start + 1)
            if character == "[":
                items.append(self._token())
            elif character == "(":
                items.append(self._part(depth + 1))
            else:
                found = _LITERAL_END.search(self._text, start)
                self._at = found.start() if found else len(self._text)
                items.append(Literal(self._text[start : self._at], start + 1))
        return tuple(items)

    def _part(self, depth: int) -> Part:
        start = self._at
        if depth > MAX_DEPTH:
            raise LayoutError(f"more than {MAX_DEPTH} optional parts in each other", column=start + 1)
        self._at += 1
        items = self._items(depth)
        if self._at >= len(self._text):
            raise LayoutError("'(' without ')'", column=start + 1)
        self._at += 1
        return Part(items, start + 1)

    def _token(self) -> Token:
        start = self._at
        inside = _LITERAL_END.search(self._text, start + 1)
        opened = self._text.find("<", start, inside.start() if inside else None)
        end = self._text.find("]" if opened < 0 else ">]", opened if opened >= 0 else start)
        if end < 0:
            raise LayoutError("'[' without ']'" if opened < 0 else "'[…<' without '>]'", column=start + 1)
        shown = self._text[start + 1 : end if opened < 0 else opened]
        self._at = end + (1 if opened < 0 else 2)
        if not _NAME.fullmatch(shown):
            raise LayoutError(f"'{shown}' is no name of a token", column=start + 2)
        name = self._roles.get(shown, shown)
        own = Expression(self._text[opened + 1 : end], opened + 2) if opened >= 0 else None
        return self._known(name, shown, own, start + 1)

    def _known(self, name: str, shown: str, own: Expression | None, column: int) -> Token:
        seen = self._seen.get(name)
        if seen is not None:
            if own is not None and (seen.expression is None or own.text != seen.expression.text):
                raise LayoutError(f"[{shown}] has another expression at column {seen.column}", column=column)
            return Token(name, column, seen.expression, seen.longest, shown)
        if own is None and name not in TOKENS:
            error = LayoutError.unknown("token", shown, TOKENS)
            error.hint += f"; a token of your own has an expression: [{shown}<.+>]"
            error.column = column
            raise error
        longest = name in _LONGEST if own is None else not own.lazy
        expression = own
        if own is None and name not in ("orgPath", "ext"):
            expression = self._expressions.get(name, _ANY_NAME)
            longest = name in _LONGEST or (name in self._expressions and not expression.lazy)
        token = self._seen[name] = Token(name, column, expression, longest, shown)
        return token


def _check_components(items: tuple[Item, ...]) -> None:
    """What is sure to make a path that is none, with all optional parts or without them. (Whatever else a
    pattern may make of its tokens is checked in each path.)"""
    for everything in (True, False):
        outline = list(_outline(items, everything))
        text = "".join(character for character, _ in outline)
        for wrong, why in _WRONG:
            if found := wrong.search(text):
                raise LayoutError(why, column=outline[min(found.start(), len(text) - 1)][1] if text else 1)


def _outline(items: tuple[Item, ...], everything: bool) -> Iterator[tuple[str, int]]:
    """Characters of a path with their columns in the pattern; a token is one letter."""
    for item in items:
        if isinstance(item, Literal):
            yield from ((character, item.column + at) for at, character in enumerate(item.text))
        elif isinstance(item, Token):
            yield "x", item.column
        elif everything:
            yield from _outline(item.items, everything)


def _tokens(items: tuple[Item, ...]) -> Iterator[Token]:
    for item in items:
        if isinstance(item, Token):
            yield item
        elif isinstance(item, Part):
            yield from _tokens(item.items)


def _with_keys(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Find out what says whether each part is there: the tokens directly in it that are not in the sequence
    around it. Parts of one sequence may share their keys; the later ones are bound to the first."""
    owners: dict[str, tuple[int, frozenset[str]]] = {}

    def visit(items: tuple[Item, ...], around: frozenset[str], scope: int) -> tuple[Item, ...]:
        given = around | {item.key for item in items if isinstance(item, Token)}
        return tuple(keyed(item, given, scope) if isinstance(item, Part) else item for item in items)

    def keyed(part: Part, given: frozenset[str], scope: int) -> Part:
        direct = {token.key: token for token in part.items if isinstance(token, Token)}
        keys = frozenset(direct) - given
        if not keys:
            raise LayoutError(
                f"the optional part has no token{' of its own' if direct else ''}",
                "nothing would say whether it is there",
                column=part.column,
            )
        known = {name: owners[name] for name in sorted(keys) if name in owners}
        for name, owner in known.items():
            if owner != (scope, keys):
                raise LayoutError(
                    f"[{direct[name].shown}] is in another optional part as well",
                    "one token cannot say of both whether they are there",
                    column=direct[name].column,
                )
        owners.update(dict.fromkeys(keys, (scope, keys)))
        return Part(visit(part.items, given, part.column), part.column, keys, bool(known))

    return visit(items, frozenset(), 0)
