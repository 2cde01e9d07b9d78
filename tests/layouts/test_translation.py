"""Paths from one layout to another one, and back."""

from __future__ import annotations

import re

import pytest

from casfs.errors import LayoutError
from casfs.layouts.builtin import DEFINITIONS, builtin
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.layout import Definition, Layout
from casfs.layouts.translation import MAX_HYPHENS, build_for, translate
from tests.layouts.test_builtin import PATHS, REAL

UNIQUE = "20200101.120000-1"
TIME = "20200101120000"


def translated(path: str, source: str, target: str) -> str:
    return translate(path.encode(), builtin(source), builtin(target)).decode()


@pytest.mark.parametrize(
    ("source", "path", "target", "expected"),
    [
        ("maven-2-default", "o/f/core/1/core-1.jar", "ivy-default", "o.f/core/1/jars/core-1.jar"),
        ("maven-2-default", "o/f/core/1/core-1-x.jar", "ivy-default", "o.f/core/1/jars/core-x-1.jar"),
        ("maven-2-default", "o/f/core/1/core-1-x.jar", "gradle-default", "o.f/core/1/core-1-x.jar"),
        ("maven-2-default", "o/f/core/1/core-1.tar.gz", "maven-1-default", "o.f/tar.gzs/core-1.tar.gz"),
        ("maven-2-default", "o/f/core/1/core-1.jar", "simple-default", "o/f/core/core-1.jar"),
        ("maven-2-default", "o/f/core/1/core-1.jar.sha1", "ivy-default", "o.f/core/1/jars/core-1.jar.sha1"),
        # A pom is a pom.
        ("maven-2-default", "o/f/core/1/core-1.pom", "ivy-default", "o.f/core/1/poms/core-1.pom"),
        ("maven-2-default", "o/f/core/1/core-1.pom.asc", "maven-1-default", "o.f/poms/core-1.pom.asc"),
        # An ivy.xml is one with Gradle and sbt as well.
        ("ivy-default", "o/m/1/ivys/ivy-1.xml", "gradle-default", "o/m/ivy-1.xml"),
        ("ivy-default", "o/m/1/ivys/ivy-1.xml", "sbt-default", "o/m/1/ivys/ivy.xml"),
        # Revisions are divided as the target does.
        (
            "maven-2-default",
            f"o/m/1-SNAPSHOT/m-1-{UNIQUE}.jar",
            "gradle-default",
            f"o/m/1-{UNIQUE}/m-1-{UNIQUE}.jar",
        ),
        (
            "maven-2-default",
            f"o/m/1-SNAPSHOT/m-1-{UNIQUE}.jar",
            "maven-1-default",
            f"o/jars/m-1-{UNIQUE}.jar",
        ),
        (
            "maven-2-default",
            "o/m/1-SNAPSHOT/m-1-SNAPSHOT.jar",
            "ivy-default",
            "o/m/1-SNAPSHOT/jars/m-1-SNAPSHOT.jar",
        ),
        (
            "ivy-default",
            f"o/m/1-{TIME}/jars/m-1-{TIME}.jar",
            "maven-2-default",
            f"o/m/1-{TIME}/m-1-{TIME}.jar",
        ),
        ("ivy-default", f"o/m/1-{TIME}/jars/m-1-{TIME}.jar", "simple-default", f"o/m/m-1-{TIME}.jar"),
        ("npm-default", "@b/core/-/core-7.0.0-rc.1.tgz", "simple-default", "@b/core/core-7.0.0-rc.1.tgz"),
        ("npm-default", "@b/core/-/core-7.0.0-rc.1.tgz", "bower-default", "@b/core/core-7.0.0-rc.1.tgz"),
        (
            "npm-default",
            "@b/core/-/core-7.0.0-rc.1.tgz",
            "maven-2-default",
            "@b/core/7.0.0-rc.1/core-7.0.0-rc.1.tgz",
        ),
        (
            "npm-default",
            "@b/core/-/core-7.0.0-rc.1.tgz",
            "npm-legacy-default",
            "@b/core/core-7.0.0-rc.1.tgz",
        ),
        ("npm-default", "core/-/core-7.0.0.tgz", "npm-legacy-default", "core/core-7.0.0.tgz"),
        ("npm-default", "core/-/core-7.0.0.tgz", "cargo-default", "crates/core/core-7.0.0.tgz"),
        # Upper-case letters are written as each layout has them; directories stay as they are.
        (
            "go-default",
            "github.com/!azure/sdk/@v/v1.0.0.zip",
            "maven-2-default",
            "github.com/Azure/sdk/1.0.0/sdk-1.0.0.zip",
        ),
        ("swift-default", "apple/nio/nio-2.0.zip", "bower-default", "apple/nio/nio-2.0.zip"),
    ],
)
def test_there_and_back(source: str, path: str, target: str, expected: str) -> None:
    assert translated(path, source, target) == expected
    assert translated(expected, target, source) == path


@pytest.mark.parametrize(
    ("source", "path", "target", "why"),
    [
        ("maven-2-default", "o/m/1/n-1.jar", "ivy-default", "it is no path of maven-2-default"),
        ("maven-2-default", "o/m/1/m-1-x.jar", "simple-default", "has no place for [classifier] 'x'"),
        ("maven-2-default", f"o/m/1-SNAPSHOT/m-1-{UNIQUE}-x.jar", "bower-default", "for [classifier] 'x'"),
        ("maven-2-default", "o/m/1/m-1.jar", "vcs-default", "vcs-default needs [refs]"),
        ("maven-2-default", "o/m/1/m-1.jar", "npm-default", "which does not match @.+"),
        ("maven-2-default", "o/m/1/m-1.jar", "cargo-default", "no place for [org] 'o'"),
        ("maven-2-default", "o/m/1/m-1.jar", "build-default", "no place for [baseRev] '1'"),
        ("maven-2-default", "o/m/1/m-1.jar", "nuget-default", "no place for [ext] 'jar'"),
        ("maven-2-default", "o/m-1/1/m-1-1.jar", "maven-1-default", "would read the [module]"),
        ("ivy-default", "o/m/1/sources/m-1.jar", "maven-2-default", "no place for [type] 'source'"),
        ("ivy-default", "o/m/1/ivys/ivy-1.xml", "maven-2-default", "no place for [type] 'ivy'"),
        ("npm-default", "core/-/core-7.0.0.tgz", "maven-2-default", "needs [orgPath]"),
        ("sbt-default", "o/m/scala_2/1/jars/m.jar", "ivy-default", "no place for [scalaVersion] '2'"),
        ("conan-default", "_/z/1/_/0/export/x.py", "simple-default", "needs [ext]"),
        ("gradle-default", "a..b/m/1/m-1.jar", "maven-2-default", "is no path"),
    ],
)
def test_why_there_is_none(source: str, path: str, target: str, why: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(why)) as caught:
        translated(path, source, target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", PATHS, ids=[row[1][:40] for row in PATHS])
def test_nothing_gets_lost(row: tuple[str, str, str]) -> None:
    """Whatever can be translated is the same artifact there, and in its own layout it stays where it is."""
    name, path, _ = row
    source = builtin(name)
    found = source.parse(path.encode())
    assert found is not None
    assert build_for(found, source) == path.encode()
    for definition in DEFINITIONS:
        target = builtin(definition.name)
        try:
            other = target.parse(build_for(found, target))
        except LayoutError:
            continue
        assert other is not None
        kind = "" if found.descriptor else found.kind
        assert (other.org, other.module, other.revision) == (found.org, found.module, found.revision)
        assert (other.classifier, other.extension) == (found.classifier, found.extension)
        assert {**dict(found.further), "": kind} == {**dict(other.further), "": kind and other.kind}
        assert other.companion == found.companion


def test_real_coordinates_come_back_from_everywhere() -> None:
    refused = 0
    for name in ("ivy-default", "gradle-default", "sbt-default", "maven-1-default", "simple-default"):
        for path in REAL:
            try:
                there = translated(path, "maven-2-default", name)
            except LayoutError:
                refused += 1
                assert name in ("maven-1-default", "simple-default")
                continue
            assert translated(there, name, "maven-2-default") == path
    assert refused < 200


def test_revisions_that_are_no_part_of_the_version_need_a_place() -> None:
    recipe = builtin("conan-default").parse(b"_/z/1.2/_/0/package/a/1/x.tgz")
    assert recipe is not None
    directory = "[org]/[module]/[baseRev]/[channel<.+>]/[package_id<.+>]"
    mine = Layout(Definition(name="mine", artifact=directory + "/[remainder<.+>]"))
    with pytest.raises(LayoutError, match=re.escape("no place for [folderItegRev] '0'")):
        build_for(recipe, mine)


def test_a_revision_of_many_hyphens_is_not_tried_at_each() -> None:
    revision = "1" + "-1" * 100
    tried = []

    class Counted(Layout):
        def build(self, coordinates: Coordinates) -> bytes:
            tried.append(coordinates)
            return super().build(coordinates)

    target = Counted(Definition(name="x", artifact="[org]/[module]-[baseRev<x>](-[fileItegRev]).[ext]"))
    with pytest.raises(LayoutError):
        translate(f"o/m/m-{revision}.jar".encode(), builtin("simple-default"), target)
    assert len(tried) <= MAX_HYPHENS + 2


def test_a_layout_without_descriptors_of_that_form() -> None:
    mine = Layout(
        Definition(
            name="mine",
            artifact="[org]/[module]-[baseRev](-[classifier]).[ext]",
            descriptor="[org]/[module]-[baseRev]/module.xml",
        )
    )
    found = builtin("maven-2-default").parse(b"o/m/1/m-1.pom")
    assert found is not None
    assert build_for(found, mine) == b"o/m-1.pom"
