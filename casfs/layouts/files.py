"""Layouts as TOML, for people to keep, edit and share.

    [layout.my-layout]
    artifact = "[orgPath]/[module]/[baseRev]/[module]-[baseRev].[ext]"
    versions = "semver"

Keys are those of `Definition` with hyphens; what has its usual value is left out.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping

import msgspec

from casfs.errors import LayoutError
from casfs.layouts.layout import Definition, prepare

MOST_DOTS = 200
"""In a line, at the most: the time that the parser takes for a key grows with the square of its parts."""

_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$| \(at end of document\)$")
_FIELD = re.compile(r"\$\.([a-z-]+)|unknown field `([^`]+)`")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def to_toml(definitions: Iterable[Definition]) -> str:
    """The text of layouts; `from_toml` gives the same ones back."""
    return "\n".join(map(_table, definitions))


def from_toml(text: str) -> list[Definition]:
    """The layouts of a text, each one sound. Raises LayoutError, one line with the line and column of a wrong
    syntax, or the line of the table, the key and the column in the pattern of what cannot be meant."""
    for number, row in enumerate(text.split("\n"), 1):
        if row.count(".") > MOST_DOTS:
            raise LayoutError(f"line {number}: more than {MOST_DOTS} dots")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(text, str(error)) from None
    except ValueError:  # of int(), which takes up to 4,300 digits
        raise LayoutError("a number with too many digits") from None
    except RecursionError:
        raise LayoutError("values in values without end") from None
    for key, layouts in tables.items():
        if key != "layout" or not isinstance(layouts, dict):
            line = _line(text, re.escape(key))
            raise LayoutError(
                f"line {line}: unexpected '{key}'", "a layout is a table [layout.NAME]", key=key
            )
    return [_definition(text, name, table) for name, table in tables.get("layout", {}).items()]


def _definition(text: str, name: str, table: object) -> Definition:
    try:
        if not isinstance(table, dict):
            raise LayoutError(f"{name}: no table")
        if "name" in table:
            raise LayoutError(f"{name}: name: a layout is called as its table", key="name")
        try:
            definition = msgspec.convert({**table, "name": name}, Definition)
        except msgspec.ValidationError as error:
            found = _FIELD.search(str(error))
            raise LayoutError(f"{name}: {error}", key=(found[1] or found[2]) if found else "") from None
        prepare(definition)
    except LayoutError as error:
        table_line = _line(
            text, rf"layout\s*\.\s*[\"']?{re.escape(name)}", rf"[\"']?{re.escape(name)}[\"']?\s*="
        )
        keys = [re.escape(error.key), rf"{error.key.partition('.')[0]}\s*="] if error.key else []
        line = _line(text, *keys, after=table_line) if keys else table_line
        raise LayoutError(
            f"line {line}: {error.message}", error.hint, key=error.key, column=error.column
        ) from None
    return definition


def _syntax_error(text: str, message: str) -> LayoutError:
    place = _PLACE.search(message)
    what = _PLACE.sub("", message)
    if place is None or place[1] is None:
        return LayoutError(f"line {text.count(chr(10)) + 1}: {what}, and the text ends")
    return LayoutError(f"line {place[1]}, column {place[2]}: {what}", column=int(place[2]))


def _line(text: str, *words: str, after: int = 1) -> int:
    """The first line, from 1, that begins with one of some expressions, brackets and quotes aside; `after` if
    there is none."""
    word = re.compile(rf"[\s\[\"']*(?:{'|'.join(words)})")
    for number, line in enumerate(text.splitlines(), 1):
        if number >= after and word.match(line):
            return number
    return after


def _table(definition: Definition) -> str:
    lines = [f"[layout.{_key(definition.name)}]"]
    usual = Definition(name="", artifact="")
    for field in msgspec.structs.fields(Definition):
        value = getattr(definition, field.name)
        if field.name != "name" and value != getattr(usual, field.name):
            lines.append(f"{field.encode_name} = {_value(value)}")
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    text = str(value)
    if "'" not in text and text.isprintable():
        return f"'{text}'"  # no escapes: patterns have backslashes
    # A string of JSON is one of TOML, but for the one character that TOML has escaped and JSON has not.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _value(key)
