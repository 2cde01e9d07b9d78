"""Maven's order of versions, as its POM reference specifies it ("version order specification").

A version is a list of numbers, words and lists: a hyphen, or a change between digits and letters, begins a
list in the list. Numbers are greater than lists, lists than words; a few words have a place before or after
the release itself.
"""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any

Item = int | str | list["Item"]

_WORDS = ("alpha", "beta", "milestone", "rc", "snapshot", "", "sp")
_RELEASE = str(_WORDS.index(""))
_ALIASES = {"ga": "", "final": "", "release": "", "cr": "rc"}
_BEFORE_DIGIT = {"a": "alpha", "b": "beta", "m": "milestone"}
_DIGITS = frozenset("0123456789")


def parse(version: str) -> list[Item]:
    """The list of a version."""
    top: list[Item] = []
    lists = [top]

    def nest() -> None:
        inner: list[Item] = []
        lists[-1].append(inner)
        lists.append(inner)

    start, digits = 0, False
    text = version.lower()
    for at, character in enumerate(text):
        if character in ".-":
            if at > start and not digits and lists[-1]:
                nest()
            lists[-1].append(_item(text[start:at], digits, False) if at > start else 0)
            start = at + 1
            if character == "-":
                nest()
        elif (character in _DIGITS) != digits:
            if at > start:
                # ".X" and "-X" are the same for a word X
                if not digits and lists[-1]:
                    nest()
                lists[-1].append(_item(text[start:at], digits, not digits))
                start = at
                nest()
            digits = not digits
    if start < len(text):
        if not digits and lists[-1]:
            nest()
        lists[-1].append(_item(text[start:], digits, False))
    for found in reversed(lists):
        _normalize(found, found is not top)
    return top


def _item(text: str, digits: bool, before_digit: bool) -> Item:
    if digits:
        return int(text)
    if before_digit:
        text = _BEFORE_DIGIT.get(text, text)
    return _ALIASES.get(text, text)


def _normalize(items: list[Item], nested: bool) -> None:
    """Zeros, empty words and empty lists say nothing at the end, nor before the lists there; nor does a list
    around a list. (Maven keeps some, and has circles then: 2-sp > 2 > 2-ga-rc > 2-sp.)"""
    for at in range(len(items) - 1, -1, -1):
        item = items[at]
        if item in (0, "") or item == []:
            del items[at]
        elif not isinstance(item, list):
            break
    if len(items) == 1 and isinstance(items[0], list) and (nested or isinstance(items[0][0], str)):
        items[:] = items[0]


def _compare(left: Item, right: Item) -> int:
    if isinstance(left, list) and isinstance(right, list):
        for at in range(max(len(left), len(right))):
            if at >= len(left):
                order = -_compare_to_nothing(right[at])
            elif at >= len(right):
                order = _compare_to_nothing(left[at])
            else:
                order = _compare(left[at], right[at])
            if order:
                return order
        return 0
    if isinstance(left, str) and isinstance(right, str):
        return _sign(_place(left), _place(right))
    if isinstance(left, int) and isinstance(right, int):
        return _sign(left, right)
    return _sign(_rank(left), _rank(right))


def _compare_to_nothing(item: Item) -> int:
    if isinstance(item, int):
        return 1 if item else 0
    if isinstance(item, str):
        return _sign(_place(item), _RELEASE)
    return next((order for order in map(_compare_to_nothing, item) if order), 0)


def _place(word: str) -> str:
    return str(_WORDS.index(word)) if word in _WORDS else f"{len(_WORDS)}-{word}"


def _rank(item: Item) -> int:
    return 2 if isinstance(item, int) else 1 if isinstance(item, list) else 0


def _sign(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


_key = cmp_to_key(_compare)


def key(version: str) -> Any:
    """What versions are compared by."""
    return _key(parse(version))
