"""Expressions of tokens against Python's, and what no automaton can do."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import LayoutError
from casfs.layouts import expressions
from casfs.layouts.expressions import Expression

ATOMS = st.sampled_from(
    ["a", "b", "-", r"\.", r"\d", r"\w", r"\s", "[ab]", "[^a]", "[a-c1]", r"[\d-]", r"[^\-/]", "."]
)
QUANTIFIERS = st.sampled_from(["", "", "?", "*", "+", "{2}", "{1,2}", "{1,}", "+?"])


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    groups = st.tuples(st.sampled_from(["(", "(?:"]), inner).map(lambda pair: f"{pair[0]}{pair[1]})")
    items = st.tuples(groups | ATOMS, QUANTIFIERS).map("".join)
    sequences = st.lists(items, min_size=1, max_size=3).map("".join)
    return st.lists(sequences, min_size=1, max_size=2).map("|".join)


expression_texts = st.recursive(st.tuples(ATOMS, QUANTIFIERS).map("".join), _combined, max_leaves=6)


def python_text(text: str) -> str:
    """The same for `re`: no negated class, nor `.`, matches a slash."""
    return text.replace("[^a]", "[^a/]").replace(".", "[^/]").replace(r"\[^/]", r"\.")


@given(expression_texts, st.text("ab-./1_ ", max_size=8))
def test_it_matches_what_python_matches(text: str, sample: str) -> None:
    expression, reference = Expression(text), re.compile(python_text(text), re.ASCII | re.DOTALL)
    assert expression.matches(sample) == (reference.fullmatch(sample) is not None and sample != "")
    ends = [end for end in range(1, len(sample) + 1) if reference.fullmatch(sample, 0, end)]
    assert expression.ends(sample, 0, len(sample))[0] == ends


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        (r"SNAPSHOT|(?:(?:[0-9]{8}.[0-9]{6})-(?:[0-9]+))", "20200101.120000-1", "20200101.120000"),
        (r"\d{14}", "20200101120000", "2020010112000"),
        (r"[a-zA-Z0-9]{40}", "a" * 40, "a" * 41),
        (r".+", "a-b.c", "a/b"),
        (r"[^\d]+", "é\n", "/"),
        (r".+(?:/.+)*", "a/b/c", "a//b"),
        (r"[\]\[\-]+", "[-]", "a"),
        (r"[\^]", "^", "a"),
        (r"\D\W\S", "a-a", "1-a"),
        (r"[a-]+", "a-a", "b"),
    ],
)
def test_examples(text: str, yes: str, no: str) -> None:
    assert Expression(text).matches(yes)
    assert not Expression(text).matches(no)


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("", 1, "nothing to match"),
        ("a||b", 3, "nothing to match"),
        ("()", 2, "nothing to match"),
        ("a)", 2, "')' without '('"),
        ("a(b", 2, "'(' without ')'"),
        ("a[b", 2, "'[' without ']'"),
        ("[]", 1, "empty class"),
        ("[a-", 1, "'[' without ']'"),
        ("[b-a]", 2, "the range b-a is empty"),
        (r"[a-\d]", 2, "from one character"),
        ("[[a]", 2, "stands for itself"),
        (r"[\D]", 2, "negated shorthand"),
        ("*a", 1, "nothing to repeat"),
        ("a**", 3, "more than one repetition"),
        ("a+*", 3, "more than one repetition"),
        ("a{", 2, "{m}, {m,} or {m,n}"),
        ("a{x}", 2, "{m}, {m,} or {m,n}"),
        ("a{3,2}", 2, "is empty"),
        ("a{0}", 2, "is empty"),
        ("a{256}", 2, "more than 255"),
        ("a{99999999999999999999}", 2, "{m}, {m,} or {m,n}"),
        ("a}", 2, "stands for itself"),
        ("^a", 1, "matches the whole token"),
        ("a$", 2, "matches the whole token"),
        ("(?=a)", 1, "look-around"),
        ("a(?!b)", 2, "look-around"),
        ("(?P<n>a)", 1, "named groups"),
        (r"(a)\1", 4, r"unknown escape '\1'"),
        (r"\bword", 1, r"unknown escape '\b'"),
        ("a\\", 2, "unknown escape"),
        ("(" * 21 + "a" + ")" * 21, 21, "groups in groups"),
        ("(?:a{100}){100}", 1, "too large"),
    ],
)
def test_what_cannot_be_meant(text: str, column: int, why: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(why)) as caught:
        Expression(text)
    assert caught.value.column == column


def test_columns_are_those_of_the_pattern_around_it() -> None:
    with pytest.raises(LayoutError) as caught:
        Expression("a)", column=10)
    assert caught.value.column == 11


@pytest.mark.parametrize(
    "text", ["(a+)+", "(a|a)*", "(a*)*b", "(.*)(.*)(.*)(.*)x", "(?:a?){50}a{50}", ".*.{250}"]
)
def test_no_name_makes_it_slow(text: str) -> None:
    """The positions looked at are at most all of them for each character, whatever was remembered before."""
    expression = Expression(text)
    for name in ("a" * 255, "a" * 254 + "!", "ab" * 127):
        first = expression.ends(name, 0, len(name))
        assert first[1] <= len(name) * (expressions.MAX_POSITIONS + 1)
        assert expression.ends(name, 0, len(name)) == first
        assert Expression(text).ends(name, 0, len(name)) == first


def test_what_it_remembers_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "MAX_TRANSITIONS", 10)
    expression = Expression("(?:é|[a-z])+1")
    for first in range(97, 123):
        name = chr(first) + "".join(map(chr, range(97, 123))) + "1"
        assert expression.matches(name)
        assert expression._transitions <= 10
        assert len(expression._states) <= 10
        assert len(expression._masks) <= 10


def test_what_is_known_of_an_expression() -> None:
    assert all(Expression(text).any_name for text in (".+", ".*", "[^/]+", "[^/]+?", "(?:.+)"))
    assert not any(Expression(text).any_name for text in (".", "a+", ".{2,}", "[^a]+", ".+|a"))
    assert Expression("SNAPSHOT").constant == "SNAPSHOT"
    assert not any(Expression(text).constant for text in ("a|b", "a?", "[ab]", ".", "a.b", "[^a]"))
    assert Expression("a(?:/a)*").spans
    assert not any(Expression(text).spans for text in (".+", "[^a]+", r"\D+", r"\S"))
    assert Expression("a+?b").lazy
    assert not Expression("a+b").lazy
