"""Which text each token has, against an expression of Python's; and how many steps it takes to say so."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.errors import LayoutError
from casfs.layouts.builtin import DEFINITIONS, builtin
from casfs.layouts.expressions import Expression
from casfs.layouts.layout import Definition, Layout
from casfs.layouts.matching import Matcher, Stop
from casfs.layouts.patterns import TOKENS, parse_pattern
from casfs.layouts.runs import MAX_STEPS, TooManySteps
from tests.layouts.reference import Reference
from tests.layouts.samples import ALPHABET, layouts, paths

NO_ROLES = {"org": "", "module": "", "baseRev": ""}


def matcher(text: str, integration: str = ".*") -> Matcher:
    expression = Expression(integration)
    return Matcher(
        parse_pattern(text, folder_integration=expression, file_integration=expression, roles=NO_ROLES)
    )


def tokens(found: Matcher, path: str) -> dict[str, str] | None:
    values = found.match(path)
    names = (*TOKENS, *found.pattern.further)
    return None if values is None else {n: v for n, v in zip(names, values, strict=True) if v}


@settings(max_examples=150)
@given(st.data(), layouts())
def test_it_matches_what_an_expression_would(data: st.DataObject, layout: Layout) -> None:
    found = layout.artifact
    if {"org", "orgPath"} <= found.pattern.names:
        return  # an expression cannot have one refer to the other
    reference = Reference(found.pattern)
    path = data.draw(paths(found.pattern.items) | st.text(ALPHABET, min_size=1, max_size=12))
    if "//" not in path and not path.startswith("/") and not path.endswith("/"):
        assert tokens(found, path) == reference.match(path)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        # A repeated token is the same text.
        ("[module]/[module]-[baseRev]", "a-b/a-b-1", {"module": "a-b", "baseRev": "1"}),
        ("[module]/[module]-[baseRev]", "a/b-1", None),
        # [org] and [orgPath] are one token.
        ("[orgPath]/x/[org].[ext]", "a/b/x/a.b.jar", {"orgPath": "a/b", "ext": "jar"}),
        ("[org]/[orgPath]/x", "a.b/a/b/x", {"org": "a.b"}),
        ("[org]/[orgPath]/x", "a.b/a.b/x", None),
        # Optional parts are there as a whole, and first.
        ("[module](-[classifier](-[x<b+>])).[ext]", "a-c.e", {"module": "a-c", "ext": "e"}),
        (
            "[baseRev](-[classifier](-[x<b+>])).[ext]",
            "a-c.e",
            {"baseRev": "a", "classifier": "c", "ext": "e"},
        ),
        (
            "[baseRev](-[classifier](-[x<b+>])).[ext]",
            "a-c-b.e",
            {"baseRev": "a", "classifier": "c", "x": "b", "ext": "e"},
        ),
        ("a([x<b>]/)c([x<b>]/)d", "ab/cb/d", {"x": "b"}),
        ("a([x<b>]/)c([x<b>]/)d", "ab/cd", None),
        ("a([x<b>]/)c([x<b>]/)d", "acd", {}),
        # Only an expression that names it matches a slash.
        ("[x<.+>]", "a/b", None),
        ("[x<.+(?:/.+)*>]", "a/b", {"x": "a/b"}),
        ("[x<[^a]+>]", "b/b", None),
        # The longest or the shortest.
        ("[module]-[baseRev]", "a-b-c", {"module": "a-b", "baseRev": "c"}),
        ("[org]-[baseRev]", "a-b-c", {"org": "a", "baseRev": "b-c"}),
        ("[x<.+>]-[y<.+>]", "a-b-c", {"x": "a-b", "y": "c"}),
        ("[x<.+?>]-[y<.+>]", "a-b-c", {"x": "a", "y": "b-c"}),
        # A token is never empty.
        ("[module]-[baseRev]", "-1", None),
        ("[x<a*>]b", "b", None),
        # Extensions.
        ("[module].[ext]", "a.7z", {"module": "a", "ext": "7z"}),
        ("[module].[ext]", "a.7zip", None),
        ("[module].[ext]", "a.1", None),
        ("[org].[ext]", "a.b.c", {"org": "a", "ext": "b.c"}),
        ("[org].[ext]", "a.b-c", None),
        ("[org].[ext]/x", "a.b.c/x", {"org": "a", "ext": "b.c"}),
        # Characters of any kind.
        ("[org]/[module]", "é ü/\u2028\n", {"org": "é ü", "module": "\u2028\n"}),
    ],
)
def test_examples(text: str, path: str, expected: dict[str, str] | None) -> None:
    assert tokens(matcher(text), path) == expected


def test_the_extension_may_be_given() -> None:
    found = matcher("[org].[ext]")
    assert found.match("a.b.c", 4) is not None
    assert found.match("a.b.c", 4)[:1] == ["a.b"]  # type: ignore[index]


def test_where_a_match_stops() -> None:
    found = matcher("[org]/[module]-[baseRev](-[classifier]).tgz")
    assert found.stop("a/b") == Stop(2, ("[module] and '-'",))
    assert found.stop("a/b-1.zip") == Stop(4, ("[baseRev] and '-' or '.tgz'",))
    either = matcher("([org]-[x<a+>]/)[module]/[org]-[baseRev]")
    assert either.stop("o-a/m/p-1") == Stop(6, ("[org] again, 'o'",))
    assert either.stop("m/o") == Stop(2, ("[org] and '-'",))
    assert found.stop("a") == Stop(0, ("[org] and '/'",))
    assert matcher("[module]/[module]-1").stop("a/b-1") == Stop(2, ("[module] again, 'a'",))
    assert matcher("[x<a+>]").stop("aab") == Stop(2, ("the end of the path",))


# Hostile names: steps are counted, never time

SYLLABLES = [
    *(
        "-",
        ".",
        "-.",
        ".-",
        "a-",
        "a.",
        "-1",
        ".1",
        "1-",
        "a-1.",
        "-SNAPSHOT",
        "-20200101.120000-1",
        "0" * 14,
    ),
    *("-" + "2" * 14, "!", "!a", "s", "@", "-7z", ".tar.gz", "x", "scala_", "a" * 40 + "-", "é", "\n"),
]
NAMES = [(syllable * 255)[:255] for syllable in SYLLABLES]


def hostile_paths(components: int) -> list[str]:
    """Paths of 4,000 characters, and of as many names as a pattern has components, one hostile or all."""
    found = [((syllable + "/") * 4000)[:3999] + "x" for syllable in ("a", "-", "a-1", "@", "s", "!a")]
    for name in NAMES:
        found.append("/".join([name] * 15))
        found.append("/".join([name] * components))
        for at, tail in itertools.product(range(components), ("", ".jar")):
            parts = ["a"] * components
            parts[at] = name
            found += ["/".join(parts) + tail, "/".join([*parts[:-1], name + tail])]
            found.append("/".join([*parts[:-1], f"{parts[-2 % components]}-{name[:200]}{tail}"]))
    return found


@pytest.mark.parametrize("name", [d.name for d in DEFINITIONS if d.name != "maven-1-default"])
def test_the_steps_of_built_in_layouts_are_linear(name: str) -> None:
    layout = builtin(name)
    for found in filter(None, (layout.artifact, layout.descriptor)):
        pattern = found.pattern
        for components in range(pattern.text.count("/"), pattern.text.count("/") + 3):
            for path in hostile_paths(max(components, 1)):
                assert found.steps(path) <= 6 * len(path) + 20


def test_only_the_beginning_of_a_version_makes_maven_1_quadratic() -> None:
    found = builtin("maven-1-default").artifact
    for path in hostile_paths(3):
        if len(path) > 1000:
            continue
        try:
            assert found.steps(path) <= MAX_STEPS
        except TooManySteps:
            assert path.count("-1") > 50


@pytest.mark.parametrize(
    "text",
    [
        "[org]-[module]-[baseRev]-[org]-[module]-[baseRev]",
        "[orgPath]-[module]-[baseRev]-[orgPath]-[module]-[baseRev].x",
        "[org]-[module](-[classifier]-[org])(-[type]-[module])-[baseRev]-[org]-[module]-[x<x+>]",
        "[a<(?:a|aa)+>]-[b<(?:.+)+>]-[c<(?:.*)*>]-[d<.*.{200}>]x",
        "([a<.+>]-)([b<.+>]-)([c<.+>]-)([d<.+>]-)([e<.+>]-)([f<.+>]-)x",
        "([a<a+>])([b<a+>])([c<a+>])([d<a+>])([e<a+>])([f<a+>])([g<a+>])x",
        "([a<a+>]([b<a+>]([c<a+>]([d<a+>]([e<a+>]([f<a+>]))))))x",
        "[a<.+(?:/.+)*>]/[b<.+(?:/.+)*>]/[c<.+(?:/.+)*>]/[a<.+(?:/.+)*>]/x",
    ],
)
def test_no_pattern_takes_more_steps_than_allowed(text: str) -> None:
    """A path that needs more does not match; what is refused once is refused again."""
    layout = Layout(Definition(name="nasty", artifact=text, roles=NO_ROLES))
    for path in [*NAMES[:12], *hostile_paths(1)[:8], "a" * 255, "a-" * 127, "a-" * 100 + "x"]:
        steps = []
        for _ in range(2):
            try:
                steps.append(layout.artifact.steps(path))
            except TooManySteps:
                assert layout.parse(path.encode()) is None
                steps.append(-1)
        assert steps[0] == steps[1] <= MAX_STEPS


def test_neighbours_of_one_kind_are_linear() -> None:
    """Each end of each token is tried in vain once."""
    found = matcher("[module]" + "".join(f"(-[x{n}<.+?>])" for n in range(20)) + ".y")
    for name in NAMES:
        assert found.steps(name) <= 20 * 20 * len(name)


def test_the_longest_pattern_does_not_exhaust_the_stack() -> None:
    text = "/".join(f"[x{n}<.+>]" for n in range(50))
    found = matcher(text)
    path = "/".join(["a"] * 50)
    assert found.match(path) is not None
    assert found.stop(path + "/b").at > 0
    nested = "".join(f"(-[x{n}<.+>]" for n in range(10)) + ")" * 10 + "[module]"
    with pytest.raises(LayoutError):
        matcher(nested)
    assert matcher("[module]" + nested.removesuffix("[module]")).match("a-b-c") is not None
