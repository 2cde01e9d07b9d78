"""Why a path is one of a layout, and why not."""

from __future__ import annotations

import pytest

from casfs.layouts.builtin import DEFINITIONS, builtin
from casfs.layouts.explanation import Explanation, explain
from casfs.layouts.layout import Definition, Layout

ALL = [builtin(definition.name) for definition in DEFINITIONS]


def of(path: bytes, name: str) -> Explanation:
    (found,) = explain(path, [builtin(name)])
    return found


def test_every_layout_says_something() -> None:
    found = explain(b"org/foo/core/1.0/core-1.0.jar", ALL)
    assert [one.layout for one in found] == [definition.name for definition in DEFINITIONS]
    takes = {one.layout: one.coordinates for one in found if one.coordinates is not None}
    assert set(takes) == {"maven-2-default", "build-default"}
    assert takes["maven-2-default"].tokens["org"] == "org.foo"
    assert all(one.reason.startswith("it stops ") and one.expected for one in found if not one.coordinates)
    assert all(not one.reason for one in found if one.coordinates)


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("maven-2-default", b"o/m/1/n-1.jar", "it stops before 'n-1.jar': [module] again, 'm' was expected"),
        ("maven-2-default", b"o/m/1/m-2.jar", "it stops before '2.jar': [baseRev] again, '1' was expected"),
        ("maven-2-default", b"o/m/1/m-1", "it stops at its end: '-' or '.' was expected"),
        ("cargo-default", b"x/y", "it stops before 'x/y': 'crates/' was expected"),
        ("swift-default", b"a/b/b-1.tgz", "it stops before '1.tgz': [version] and '.zip' was expected"),
        ("go-default", b"a/!b/@w/v1.zip", "it stops before '/@w/v1.zip': '/@v/v' was expected"),
        ("go-default", b"a/B/@v/v1.zip", "it has an upper-case letter, which is written !a for A"),
        ("maven-2-default", b"g/a/maven-metadata.xml", "it is an index of a registry, no artifact"),
        ("maven-2-default", b"a/\xff", "it is not UTF-8"),
        ("maven-2-default", b"a/../b", "it has a component '..'"),
    ],
)
def test_reasons(name: str, path: bytes, reason: str) -> None:
    assert of(path, name).reason == reason


def test_the_beginning_that_fits() -> None:
    found = of(b"o/m/1/n-1.jar", "maven-2-default")
    assert (found.matched, found.expected) == ("o/m/1/", ("[module] again, 'm'",))


def test_of_two_patterns_the_one_that_comes_further() -> None:
    assert of(b"o/m/ivy-1.zip", "gradle-default").matched == "o/m/ivy-"


def test_what_takes_too_many_steps() -> None:
    nasty = Layout(Definition(name="nasty", artifact="[org]-[module]-[baseRev]-[org]-[module]-[baseRev]x"))
    (found,) = explain(b"a-" * 127, [nasty])
    assert found.reason == "it takes more than 20000 steps to decide"
