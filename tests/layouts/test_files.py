"""Layouts as TOML."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import LayoutError
from casfs.layouts import files
from casfs.layouts.builtin import DEFINITIONS
from casfs.layouts.layout import Definition

GOOD = "[org]/[module]-[baseRev].[ext]"


def test_the_built_in_layouts_come_back() -> None:
    assert files.from_toml(files.to_toml(DEFINITIONS)) == list(DEFINITIONS)


def test_the_text_is_one_that_people_write() -> None:
    text = files.to_toml(
        [
            Definition(
                name="my.own",
                artifact=r"[scope]/[module]-[baseRev<\d+>].[ext]",
                roles={"org": "scope"},
                integrations=False,
            )
        ]
    )
    assert text == (
        "[layout.'my.own']\n"
        r"artifact = '[scope]/[module]-[baseRev<\d+>].[ext]'"
        "\nroles = { org = 'scope' }\nintegrations = false\n"
    )


def test_no_layouts() -> None:
    assert files.from_toml("# nothing\n") == []
    assert files.to_toml([]) == ""


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_any_text_is_quoted(text: str) -> None:
    assert tomllib.loads(f"x = {files._value(text)}\n{files._key(text)} = 1")["x"] in (text, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "[layout.a]\nartifact = '[org]/[modul]-[baseRev]'",
            "line 2: a: artifact, column 7: unknown token 'modul'",
        ),
        (f"[layout.a]\nartifact = '{GOOD}'\n\n[layout.b]\nartifact = 'x'", "line 5: b: artifact, column 1: "),
        (
            f"[layout.a]\nartifact = '{GOOD}'\nversions = 'x'",
            "line 3: a: versions: unknown order of versions 'x'",
        ),
        (
            f"[layout.a]\nartifact = '{GOOD}'\nroles.org = 'ext'",
            "line 3: a: roles.org: [ext] plays another part",
        ),
        (
            f"[layout.a]\nartifact = '{GOOD}'\nfile-integration = '('",
            "line 3: a: file-integration, column 2: ",
        ),
        (f"[layout.a]\nartifact = '{GOOD}'\nfoo = 1", "line 3: a: Object contains unknown field `foo`"),
        (f"[layout.a]\nartifact = '{GOOD}'\nroles = {{ org = 'ext' }}", "line 3: a: roles.org: "),
        (f"[layout.a]\nartifact = '{GOOD}'\n[layout.a.roles]\norg = 'ext'", "line 1: a: roles.org: "),
        ("[layout.a]\nartifact = 3", "line 2: a: Expected `str`, got `int`"),
        ("\n[layout.a]\n", "line 2: a: Object missing required field `artifact`"),
        (f"[layout.'a b']\nartifact = '{GOOD}'", "line 1: 'a b' is no name of a layout"),
        (f"[layout.a]\nname = 'b'\nartifact = '{GOOD}'", "line 2: a: name: a layout is called as its table"),
        ("[layout]\na = 1", "line 2: a: no table"),
        ("# x\nlayout = 3", "line 2: unexpected 'layout'; a layout is a table [layout.NAME]"),
        ("x = 1", "line 1: unexpected 'x'"),
        ("[layouts.a]", "line 1: unexpected 'layouts'"),
        ("[layout.a]\nartifact = 'x", "line 2"),
        ("[layout.a\n", "line 1, column 10: "),
        ("[layout.a]\n[layout.a]", "line 2, column 10: "),
        ("a = '''", "line 1: "),
        ("x = " + "[" * 5000, "without end"),
        ("x = " + "9" * 5000, "too many digits"),
        ("\n" + "a." * 30_000 + "a = 1", "line 2: more than 200 dots"),
    ],
)
def test_errors_say_where(text: str, why: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(why)) as caught:
        files.from_toml(text)
    assert "\n" not in str(caught.value)
