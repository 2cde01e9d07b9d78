"""What a pattern can mean, and what it cannot: an error with its column."""

from __future__ import annotations

import re

import pytest

from casfs.errors import LayoutError
from casfs.layouts.expressions import Expression
from casfs.layouts.layout import Definition, Layout, prepare
from casfs.layouts.matching import Matcher
from casfs.layouts.patterns import Part, Pattern, parse_pattern

NO_ROLES = {"org": "", "module": "", "baseRev": ""}


def pattern(text: str, roles: dict[str, str] = NO_ROLES) -> Pattern:
    found = parse_pattern(
        text, folder_integration=Expression(r"\d+"), file_integration=Expression(".*"), roles=roles
    )
    Matcher(found)
    return found


def test_the_parts_of_a_pattern() -> None:
    found = pattern("[org]/[module](-[classifier](-[x<a+>]))/[module].tar.gz", {"baseRev": ""})
    assert found.names == {"org", "module", "classifier", "x"}
    assert found.further == ("x",)
    assert found.suffix == "tar.gz"
    part = found.items[3]
    assert isinstance(part, Part)
    assert (part.column, part.keys, part.bound) == (15, {"classifier"}, False)
    assert isinstance(part.items[2], Part)
    assert part.items[2].keys == {"x"}


def test_parts_with_the_same_keys_are_bound_together() -> None:
    first, second = (item for item in pattern("a([x<a>]/)b([x<a>]/)[module]").items if isinstance(item, Part))
    assert (first.bound, second.bound) == (False, True)


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("[module].tgz", "tgz"),
        ("[module]/ivy.xml", "xml"),
        ("[module].[ext]", ""),
        ("[module]", ""),
        ("[module]/x", ""),
        ("[module]-1.0.tgz", "tgz"),
        ("[module].x/y.tar.gz", "tar.gz"),
    ],
)
def test_the_extension_that_a_pattern_says(text: str, suffix: str) -> None:
    assert pattern(text).suffix == suffix


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("", 1, "the pattern is empty"),
        ("x" * 1001, 1001, "more than 1000 characters"),
        ("[x<a>]-" * 51, 351, "more than 100 tokens"),
        ("a[module", 2, "'[' without ']'"),
        ("a[x<b]", 2, "without '>]'"),
        ("a]b", 2, "']' without '['"),
        ("a(b[x<c>]", 2, "'(' without ')'"),
        ("a)b", 2, "')' without '('"),
        ("(" * 11 + "[x<a>]" + ")" * 11, 11, "more than 10 optional parts"),
        ("a[]", 3, "'' is no name"),
        ("a[1x<b>]", 3, "'1x' is no name"),
        ("a[mod ule]", 3, "'mod ule' is no name"),
        ("a[modul]", 2, "unknown token 'modul'; did you mean 'module'?"),
        ("a[x]", 2, "[x<.+>]"),
        ("[module]-[x<a(>]", 15, "nothing to match here"),
        ("[x<a+>]-[x<b+>]", 9, "[x] has another expression at column 1"),
        ("[module]-[module<a>]", 10, "has another expression"),
        ("[module](x)", 9, "the optional part has no token; nothing would say whether it is there"),
        ("[module](([x<a>]))", 9, "has no token;"),
        ("[module](-[module])", 9, "has no token of its own"),
        ("([module]-)[module]", 1, "has no token of its own"),
        ("a([x<a>]-([x<a>]))", 10, "has no token of its own"),
        ("a([x<a>]b)c([x<a>][y<b>])", 13, "[x] is in another optional part as well"),
        ("a([x<a>]([y<b>]))c([x<a>]([y<b>]))", 27, "[y] is in another optional part as well"),
        ("a([orgPath]/)b[org]([org])", 2, "has no token of its own"),
        ("([org]-[x<a>]/)[orgPath]/[module]", 16, "[orgPath] is spelled [org] before"),
        ("[module][baseRev]", 1, "nothing says where [module] ends"),
        ("[module]([classifier]).[ext]", 1, "nothing says where [module] ends"),
        ("[module](.[classifier])[ext]", 11, "nothing says where [classifier] ends"),
        ("[orgPath][module]", 1, "nothing says where [orgPath] ends"),
        ("/[module]", 1, "relative to the repository"),
        ("([x<a>])/[module]", 9, "relative to the repository"),
        ("[module]/", 9, "ends with the name of a file"),
        ("([x<a>])", 1, "ends with the name of a file"),
        ("a//[module]", 3, "an empty component"),
        ("a/([x<a>])/[module]", 11, "an empty component"),
        ("a/../[module]", 3, "called . or .."),
        ("./[module]", 1, "called . or .."),
        ("a/[module]/.", 12, "called . or .."),
        ("a\0[module]", 2, "a control character"),
        ("a\n[module]", 2, "a control character"),
    ],
)
def test_what_cannot_be_meant(text: str, column: int, why: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(why)) as caught:
        pattern(text)
    assert caught.value.column == column
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[org]/[module]-[baseRev]",
        "[orgPath]/[module]-[baseRev]",
        "[org]/[module]-[baseRev](-[module]-[classifier])",
    ],
)
def test_mandatory_tokens_are_there(text: str) -> None:
    assert pattern(text, {})


@pytest.mark.parametrize(
    ("text", "roles", "why"),
    [
        ("[module]-[baseRev]", {}, "[org] or [orgPath] is missing"),
        ("([org]/)[module]-[baseRev]", {}, "[org] or [orgPath] is in an optional part only"),
        ("([orgPath]/)[module]-[baseRev]", {}, "[org] or [orgPath] is in an optional part only"),
        ("[org]-[baseRev]", {}, "[module] is missing"),
        ("[org]/[module](-[baseRev])", {}, "[baseRev] is in an optional part only"),
        ("[org]/[module]", {"module": ""}, "[baseRev] is missing"),
        ("[org]/[module]-[baseRev]", {"org": "scope"}, ""),
        ("[scope]/[module]-[baseRev]", {"org": "scope"}, ""),
        ("[scope]/[name]-[version]", {"org": "scope", "module": "name", "baseRev": "version"}, ""),
        ("[org]/[module]", {"baseRev": ""}, ""),
        ("([org]/)[module]-[baseRev]", {"org": ""}, ""),
        ("[module]-[baseRev]", {"org": "scope"}, "[org] or [orgPath] is missing"),
    ],
)
def test_a_layout_may_say_what_plays_a_mandatory_part(text: str, roles: dict[str, str], why: str) -> None:
    if not why:
        assert pattern(text, roles)
        return
    with pytest.raises(LayoutError, match=re.escape(why)):
        pattern(text, roles)


@pytest.mark.parametrize(
    "changes", [{"name": "\udc80"}, {"artifact": "\udc80"}, {"roles": {"org": "\udc80"}}]
)
def test_a_definition_is_unicode(changes: dict[str, object]) -> None:
    values = {"name": "my", "artifact": "[org]/[module]-[baseRev].[ext]", **changes}
    with pytest.raises(LayoutError, match="not Unicode"):
        prepare(Definition(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "key", "column", "why"),
    [
        ({"name": "a/b"}, "", 0, "'a/b' is no name of a layout"),
        ({"name": ""}, "", 0, "'' is no name"),
        ({"name": ".."}, "", 0, "'..' is no name"),
        ({"name": "x" * 65}, "", 0, "is no name"),
        ({"artifact": "[org]"}, "artifact", 1, "my: artifact, column 1: [module] is missing"),
        ({"descriptor": "[org]/[module]-[baseRev].[pom]"}, "descriptor", 26, "unknown token 'pom'"),
        ({"folder_integration": "("}, "folder-integration", 2, "nothing to match"),
        ({"file_integration": "a**"}, "file-integration", 3, "more than one repetition"),
        ({"versions": "semvr"}, "versions", 0, "my: versions: unknown order of versions 'semvr'"),
        ({"roles": {"ext": "x"}}, "roles.ext", 0, "unknown role 'ext'"),
        ({"roles": {"org": "module"}}, "roles.org", 0, "[module] plays another part"),
        ({"roles": {"org": "x", "module": "x"}}, "roles.org", 0, "[x] plays another part"),
    ],
)
def test_errors_of_a_definition_name_the_key(
    changes: dict[str, object], key: str, column: int, why: str
) -> None:
    values = {"name": "my", "artifact": "[org]/[module]-[baseRev].[ext]", **changes}
    with pytest.raises(LayoutError, match=re.escape(why)) as caught:
        Layout(Definition(**values))  # type: ignore[arg-type]
    assert (caught.value.key, caught.value.column) == (key, column)
