"""Layouts of one's own: tokens to paths and back, and what can never be a path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from casfs.errors import LayoutError
from casfs.layouts import paths
from casfs.layouts.builtin import DEFINITIONS, builtin
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.layout import Definition, Layout, prepare
from tests.layouts.samples import ALPHABET, layouts
from tests.layouts.samples import paths as paths_of

MAVEN = builtin("maven-2-default")
IVY = builtin("ivy-default")
SIMPLE = builtin("simple-default")
JAR = Coordinates(org="a.b", module="m", base_revision="1", extension="jar")


def layout(artifact: str, **changes: object) -> Layout:
    return Layout(Definition(name="my", artifact=artifact, **changes))  # type: ignore[arg-type]


@settings(max_examples=150)
@given(st.data(), layouts())
def test_what_parses_is_built_again(data: st.DataObject, layout: Layout) -> None:
    """For any pattern, byte for byte."""
    matcher = data.draw(st.sampled_from([layout.artifact, layout.descriptor or layout.artifact]))
    path = data.draw(paths_of(matcher.pattern.items) | st.text(ALPHABET, min_size=1, max_size=12))
    path += data.draw(st.sampled_from(["", ".md5", ".asc.sha1"]))
    found = layout.parse(path.encode())
    if found is not None:
        assert layout.build(found) == path.encode()


@given(st.sampled_from(DEFINITIONS), st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_may_be_parsed(definition: Definition, path: bytes) -> None:
    found = prepare(definition).parse(path)
    assert found is None or prepare(definition).build(found) == path


hostile = st.sampled_from(
    ["..", ".", "/", "//", "../..", "a/../b", "/etc", "a\0b", "", "a\nb", "\udc80", "x" * 256, "a..b", ".a"]
)


@given(st.sampled_from(DEFINITIONS), st.data())
def test_no_token_makes_a_component_or_leaves_the_repository(
    definition: Definition, data: st.DataObject
) -> None:
    """I9: what is built is a path of as many components as the pattern and the organisation have."""
    layout = prepare(definition)
    values = {
        name: data.draw(st.just("v1") | hostile)
        for name in ("org", "org_path", "module", "base_revision", "classifier", "extension", "type")
    }
    further = tuple((name, data.draw(st.just("v1") | hostile)) for name in layout.artifact.pattern.further)
    companion = data.draw(st.sampled_from(["", "/..", "/x", ".sha1"]))
    try:
        path = layout.build(Coordinates(**values, further=further, companion=companion))  # type: ignore[arg-type]
    except LayoutError:
        return
    assert paths.why_not(path) == ""
    components = path.split(b"/")
    assert not {b"", b".", b".."} & set(components)
    assert all(len(component) <= 255 for component in components)
    assert b"\0" not in path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"", "it has a component ''"),
        (b"/a/b/1/b-1.jar", "it has a component ''"),
        (b"a//b/1/b-1.jar", "it has a component ''"),
        (b"a/b/1/b-1.jar/", "it has a component ''"),
        (b"a/../b/1/b-1.jar", "it has a component '..'"),
        (b"./a/b/1/b-1.jar", "it has a component '.'"),
        (b"a/b/1/..", "it has a component '..'"),
        (b"a/b/1/b-1\0.jar", "NUL"),
        (b"a/b/1/b-1\xff.jar", "not UTF-8"),
        (b"a/\xed\xa0\x80/1/b-1.jar", "not UTF-8"),
        (b"a/b/maven-metadata.xml", "an index"),
        (b"a/b/maven-metadata.xml.sha1", "an index"),
        (b"a/" * 2100 + b"x", "more than 4096 bytes"),
        (b"a/" + b"b" * 256 + b"/1/x", "more than 255 bytes"),
        (b"a/" + "é".encode() * 128 + b"/1/x", "more than 255 bytes"),
    ],
)
def test_what_is_no_path_of_an_artifact(path: bytes, why: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(why)):
        MAVEN.read(path)
    assert MAVEN.parse(path) is None


def test_names_that_begin_with_dots_are_names() -> None:
    found = MAVEN.parse(b".a/..b/.c/1/.c-1.jar")
    assert found is not None
    assert (found.org_path, found.module) == (".a/..b", ".c")
    assert MAVEN.build(found) == b".a/..b/.c/1/.c-1.jar"


def test_a_companion_of_nothing_is_a_file() -> None:
    own = layout("[orgPath]/[module]/[x<.+>]", roles={"baseRev": ""})
    for name in (b".sha1", b"..sha1", b"...sha1"):
        found = own.parse(b"a/b/" + name)
        assert found is not None
        assert (found.further, found.companion) == ((("x", name.decode()),), "")
        assert own.build(found) == b"a/b/" + name


@pytest.mark.parametrize(
    ("coordinates", "layout", "why"),
    [
        (replace(JAR, org=""), MAVEN, "maven-2-default needs [orgPath]"),
        (replace(JAR, org=""), builtin("swift-default"), "swift-default needs [scope]"),
        (replace(JAR, module=""), MAVEN, "needs [module]"),
        (replace(JAR, extension=""), MAVEN, "needs [ext]"),
        (replace(JAR, classifier="x"), SIMPLE, "simple-default has no place for [classifier] 'x'"),
        (replace(JAR, further=(("refs", "tags"),)), MAVEN, "no place for [refs] 'tags'"),
        (replace(JAR, type="x"), MAVEN, "no place for [type] 'x'"),
        (replace(JAR, extension="zip"), builtin("nuget-default"), "no place for [ext] 'zip'"),
        (replace(JAR, extension="1x"), MAVEN, "would not read"),
        (replace(JAR, org="a/b"), IVY, "[org] 'a/b', which does not match .+"),
        (replace(JAR, org="x"), builtin("npm-default"), "[org] 'x', which does not match @.+"),
        (
            replace(JAR, file_integration="x", folder_integration="x"),
            IVY,
            "would read the [baseRev]",
        ),
        (replace(JAR, org="a..b"), MAVEN, "is no path: it has a component ''"),
        (replace(JAR, module=".."), MAVEN, "is no path: it has a component '..'"),
        (replace(JAR, module="x" * 256), MAVEN, "more than 255 bytes"),
        (replace(JAR, module="\udc80"), MAVEN, "is not Unicode"),
        (replace(JAR, descriptor=True), SIMPLE, "simple-default has no descriptors"),
        (replace(JAR, extension="jar.sha1"), MAVEN, "would read the [ext]"),
        (replace(JAR, companion=".txt"), MAVEN, "would read the [ext]"),
        (replace(JAR, org="a", org_path="b"), MAVEN, "would read the [org]"),
        (replace(JAR, module="m-1"), builtin("maven-1-default"), "of 'a.b/jars/m-1-1.jar' as 'm', not 'm-1'"),
    ],
)
def test_why_there_is_no_path(coordinates: Coordinates, layout: Layout, why: str) -> None:
    with pytest.raises(LayoutError, match=re.escape(why)) as caught:
        layout.build(coordinates)
    assert "\n" not in str(caught.value)


def test_an_empty_type_takes_the_extension() -> None:
    assert IVY.build(JAR) == b"a.b/m/1/jars/m-1.jar"
    found = IVY.parse(b"a.b/m/1/jars/m-1.jar")
    assert found is not None
    assert (found.type, found.kind) == ("jar", "jar")
    optional = layout("[org]/[module]-[baseRev](/[type]s/x).[ext]")
    for path in (b"o/m-1.jar", b"o/m-1/jars/x.jar"):
        found = optional.parse(path)
        assert found is not None
        assert found.kind == "jar"
        assert optional.build(found) == path


def test_the_organisation_has_one_canonical_path() -> None:
    dotted, nested = MAVEN.parse(b"a.b/m/1/m-1.jar"), MAVEN.parse(b"a/b/m/1/m-1.jar")
    assert dotted is not None
    assert nested is not None
    assert dotted.org == nested.org == "a.b"
    assert MAVEN.build(dotted) == b"a.b/m/1/m-1.jar"
    assert MAVEN.build(JAR) == MAVEN.build(nested) == b"a/b/m/1/m-1.jar"
    both = layout("[orgPath]/x/[org]-[module]-[baseRev].[ext]")
    assert both.build(JAR) == b"a/b/x/a.b-m-1.jar"
    assert both.parse(b"a/b/x/a.c-m-1.jar") is None


def test_a_descriptor_is_tried_first_and_built_if_asked_for() -> None:
    found = IVY.parse(b"o/ivy/1/xmls/ivy-1.xml")
    assert found is not None
    assert found.descriptor
    assert IVY.build(found) == b"o/ivy/1/xmls/ivy-1.xml"
    descriptor = replace(JAR, extension="xml", type="ivy", descriptor=True)
    assert IVY.build(descriptor) == b"a.b/m/1/ivys/ivy-1.xml"
    pom = replace(JAR, extension="pom")
    assert MAVEN.build(pom) == MAVEN.build(replace(pom, descriptor=True)) == b"a/b/m/1/m-1.pom"


def test_a_companion_of_a_descriptor_may_be_in_the_way() -> None:
    own = layout("[org]/[module]-[baseRev].asc", descriptor="[org]/[module]-[baseRev]")
    with pytest.raises(LayoutError, match="as another kind of file"):
        own.build(Coordinates(org="o", module="m", base_revision="1"))


def test_an_expression_narrows_a_token() -> None:
    own = layout(r"[org<[a-z]+>]/[module]-[baseRev<\d+>].[ext<jar|zip>]")
    assert own.parse(b"o/m-1.jar") is not None
    assert own.parse(b"O/m-1.jar") is None
    assert own.parse(b"o/m-a.jar") is None
    assert own.parse(b"o/m-1.pom") is None


def test_a_usual_extension_is_tried_first() -> None:
    for name, revision, extension in (
        ("m-1.0.Final.jar", "1.0.Final", "jar"),
        ("m-1.0.Final.tar.gz", "1.0.Final", "tar.gz"),
        ("m-1.0.min.js", "1.0", "min.js"),
        ("m-1.0.x.7z", "1.0.x", "7z"),
        ("m-1.0.jar", "1.0", "jar"),
    ):
        found = SIMPLE.parse(f"o/m/{name}".encode())
        assert found is not None
        assert (found.base_revision, found.extension) == (revision, extension)
    optional = layout("[org]/[module]-[baseRev](.[ext])")
    for name, revision, extension in (
        ("m-1.Final.jar", "1.Final", "jar"),
        ("m-1", "1", ""),
        ("m-1.0", "1.0", ""),
    ):
        found = optional.parse(f"o/{name}".encode())
        assert found is not None
        assert (found.base_revision, found.extension) == (revision, extension)


def test_the_whole_revision() -> None:
    found = MAVEN.parse(b"g/a/1.0-SNAPSHOT/a-1.0-20200101.120000-1.jar")
    assert found is not None
    assert found.revision == "1.0-20200101.120000-1"
    assert replace(found, file_integration="").revision == "1.0-SNAPSHOT"
    assert JAR.revision == "1"
    recipe = builtin("conan-default").parse(b"_/z/1.2/_/0/export/conanfile.py")
    assert recipe is not None
    assert (recipe.revision, recipe.integration) == ("1.2", False)


def test_a_definition_is_prepared_once() -> None:
    definition = Definition(name="my", artifact="[scope]/[module]-[baseRev]", roles={"org": "scope"})
    assert prepare(definition) is prepare(
        Definition(**{f: getattr(definition, f) for f in definition.__struct_fields__})
    )
    assert repr(prepare(definition)) == "Layout('my')"


@pytest.mark.parametrize("path", ["a/B/c", "É/X", "!", "a!", "!A", "!é", "a!/b"])
def test_what_is_not_escaped(path: str) -> None:
    assert paths.unescape(path) is None


def test_only_ascii_letters_are_escaped() -> None:
    assert paths.unescape("É/!x") == "É/X"
    assert paths.escape("É/X") == "É/!x"


@given(st.text("aAzZ!é/", max_size=8))
def test_escaping_is_reversed(text: str) -> None:
    if "!" not in text:
        assert paths.unescape(paths.escape(text)) == text
    if (unescaped := paths.unescape(text)) is not None:
        assert paths.escape(unescaped) == text


@pytest.mark.parametrize(
    ("name", "stem", "companion"),
    [
        ("a.jar", "a.jar", ""),
        ("a.jar.sha1", "a.jar", ".sha1"),
        ("a.jar.asc.sha512", "a.jar", ".asc.sha512"),
        ("a.asc.md5.sha1", "a.asc", ".md5.sha1"),
        ("a.jar.sigstore.json", "a.jar", ".sigstore.json"),
        ("a.json", "a.json", ""),
        ("b/.sha1", "b/.sha1", ""),
        ("sha1", "sha1", ""),
    ],
)
def test_companions(name: str, stem: str, companion: str) -> None:
    assert paths.split_companion(name) == (stem, companion)


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.jar", "jar"),
        ("a.b.tar.gz", "tar.gz"),
        ("a.pkg.tar.zst", "pkg.tar.zst"),
        ("a.d.ts", "d.ts"),
        ("a.7z", "7z"),
        ("a.tar.7z", "7z"),
        ("a.1", ""),
        ("a.b-c", ""),
        ("a.b/c", ""),
        ("a.", ""),
        ("a", ""),
    ],
)
def test_usual_extensions(name: str, extension: str) -> None:
    at = paths.extension_at(name)
    assert (name[at:] if at >= 0 else "") == extension
