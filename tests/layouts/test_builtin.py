"""The built-in layouts on paths as the package clients make them, and back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.cli.help import read
from casfs.errors import LayoutError
from casfs.layouts.builtin import (
    DEFINITIONS,
    PACKAGE_TYPES,
    builtin,
    layout_of,
)
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.layout import Layout

NAMES = [definition.name for definition in DEFINITIONS]
REAL = (Path(__file__).parent / "maven-repo.txt").read_text().splitlines()
"""Debian's repository of Maven artifacts on a machine with Maven."""

TIME = "20200101120000"
PSEUDO = "20191109021931-daa7c04131f5"
GIT = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

# layout, path, tokens (org only where it is not orgPath with dots; ext only, where the type is the same)
PATHS = [
    ("maven-2-default", "junit/junit/4.13/junit-4.13.jar", "org=junit module=junit baseRev=4.13 ext=jar"),
    (
        "maven-2-default",
        "org/apache/maven/apache-maven/3.8.7/apache-maven-3.8.7-bin.tar.gz",
        "org=org.apache.maven module=apache-maven baseRev=3.8.7 classifier=bin ext=tar.gz",
    ),
    (
        "maven-2-default",
        "g/a/1-SNAPSHOT/a-1-20200101.120000-1.jar",
        "org=g module=a baseRev=1 folderItegRev=SNAPSHOT fileItegRev=20200101.120000-1 ext=jar integration",
    ),
    (
        "maven-2-default",
        "g/a/1-SNAPSHOT/a-1-SNAPSHOT.pom",
        "org=g module=a baseRev=1 folderItegRev=SNAPSHOT fileItegRev=SNAPSHOT ext=pom integration descriptor",
    ),
    (
        "maven-2-default",
        "io/netty/netty/4.1.0.Final/netty-4.1.0.Final-linux-x86_64.jar",
        "org=io.netty module=netty baseRev=4.1.0.Final classifier=linux-x86_64 ext=jar",
    ),
    ("maven-2-default", "g/a/1/a-1-jdk1.5.jar", "org=g module=a baseRev=1 classifier=jdk1.5 ext=jar"),
    ("maven-2-default", "g/a/1/a-1.jar.pack.gz", "org=g module=a baseRev=1 ext=jar.pack.gz"),
    ("maven-2-default", "g/a/1/a-1.7z", "org=g module=a baseRev=1 ext=7z"),
    ("maven-2-default", "g/a-b/1-2/a-b-1-2.jar", "org=g module=a-b baseRev=1-2 ext=jar"),
    ("maven-2-default", "g/a/1/a-1.pom.asc", "org=g module=a baseRev=1 ext=pom descriptor companion=.asc"),
    ("maven-2-default", "g/a/1/a-1.jar.asc.md5", "org=g module=a baseRev=1 ext=jar companion=.asc.md5"),
    ("maven-2-default", "g/a/1/a-1.asc", "org=g module=a baseRev=1 ext=asc"),
    ("maven-1-default", "g/jars/commons-io-1.4.jar", "org=g module=commons-io baseRev=1.4 ext=jar type=jar"),
    (
        "maven-1-default",
        "g/java-sources/foo-1.0-SNAPSHOT-x.jar",
        "org=g module=foo baseRev=1.0 fileItegRev=SNAPSHOT classifier=x ext=jar type=java-source integration",
    ),
    ("maven-1-default", "g/jars/foo-1.0.Final.jar", "org=g module=foo baseRev=1.0.Final ext=jar type=jar"),
    ("maven-1-default", "g/jars/ant-SNAPSHOT.jar", "org=g module=ant baseRev=SNAPSHOT ext=jar type=jar"),
    ("maven-1-default", "g/poms/foo-1.pom", "org=g module=foo baseRev=1 ext=pom type=pom descriptor"),
    (
        "ivy-default",
        f"o.x/m/1-{TIME}/srcs/m-1-{TIME}.zip",
        f"org=o.x module=m baseRev=1 folderItegRev={TIME} fileItegRev={TIME} ext=zip type=src integration",
    ),
    ("ivy-default", "o/m/1/ivys/ivy-1.xml", "org=o module=m baseRev=1 ext=xml type=ivy descriptor"),
    ("gradle-default", "o.a/m/1.0/m-1.0-x.jar", "org=o.a module=m baseRev=1.0 classifier=x ext=jar"),
    ("gradle-default", "o/m/ivy-1.0.xml", "org=o module=m baseRev=1.0 ext=xml descriptor"),
    (
        "sbt-default",
        "o/m/scala_2.12/sbt_1.0/1.2/jars/m-x.jar",
        "org=o module=m scalaVersion=2.12 sbtVersion=1.0 baseRev=1.2 classifier=x ext=jar type=jar",
    ),
    ("sbt-default", "o/m/1.2/jars/m.jar", "org=o module=m baseRev=1.2 ext=jar type=jar"),
    (
        "sbt-default",
        "o/m/sbt_1.0/1.2/ivys/ivy.xml",
        "org=o module=m sbtVersion=1.0 baseRev=1.2 ext=xml type=ivy descriptor",
    ),
    ("vcs-default", "a/b/m/tags/v1/m-v1.tar.gz", "org=a.b module=m refs=tags baseRev=v1 ext=tar.gz"),
    (
        "vcs-default",
        f"a/m/branches/dev/m-dev-{GIT}.zip",
        f"org=a module=m refs=branches baseRev=dev fileItegRev={GIT} ext=zip integration",
    ),
    (
        "conan-default",
        "_/zlib/1.2.11/_/0/export/conanfile.py",
        "org=_ module=zlib baseRev=1.2.11 channel=_ folderItegRev=0 remainder=export/conanfile.py",
    ),
    (
        "conan-default",
        "o/z/1.2/_/0/package/a1b2/3/x.tgz",
        "org=o module=z baseRev=1.2 channel=_ folderItegRev=0 package_id=a1b2 fileItegRev=3 remainder=x.tgz",
    ),
    (
        "nuget-default",
        "o/Newtonsoft.Json/Newtonsoft.Json.12.0.1-beta1.nupkg",
        "org=o module=Newtonsoft.Json baseRev=12.0.1 fileItegRev=beta1 ext=nupkg integration",
    ),
    ("npm-default", "lodash/-/lodash-4.17.21.tgz", "module=lodash baseRev=4.17.21 ext=tgz"),
    (
        "npm-default",
        "@babel/core/-/core-7.0.0-beta.1.tgz",
        "org=@babel module=core baseRev=7.0.0 fileItegRev=beta.1 ext=tgz integration",
    ),
    (
        "npm-default",
        "core/-/core-7.0.0-beta.1.tgz",
        "module=core baseRev=7.0.0 fileItegRev=beta.1 ext=tgz integration",
    ),
    (
        "npm-default",
        "es6-x/-/es6-x-1.0.0-rc-2.3.tgz",
        "module=es6-x baseRev=1.0.0 fileItegRev=rc-2.3 ext=tgz integration",
    ),
    ("npm-default", "m/-/m-1.0.0+b-5.tgz", "module=m baseRev=1.0.0+b-5 ext=tgz"),
    ("npm-default", "m/-/m-1.0.0-a+b-5.tgz", "module=m baseRev=1.0.0 fileItegRev=a+b-5 ext=tgz integration"),
    ("npm-legacy-default", "lodash/lodash-4.17.21.tgz", "module=lodash baseRev=4.17.21 ext=tgz"),
    (
        "npm-legacy-default",
        "@babel/core/core-7.0.0-beta.1.tgz",
        "org=@babel module=core baseRev=7.0.0 fileItegRev=beta.1 ext=tgz integration",
    ),
    (
        "npm-legacy-default",
        "acme/tools/es6-x/es6-x-1.0.0+b-5.tgz.sha1",
        "org=acme.tools module=es6-x baseRev=1.0.0+b-5 ext=tgz companion=.sha1",
    ),
    (
        "bower-default",
        "o/m/m-1.0-rc.x.tar.gz",
        "org=o module=m baseRev=1.0 fileItegRev=rc.x ext=tar.gz integration",
    ),
    ("composer-default", "v/p/p-1.0.zip", "org=v module=p baseRev=1.0 ext=zip"),
    (
        "pypi-default",
        "acme/np/np-1.26.0-cp311-cp311-linux_2_17_x86_64.linux2014_x86_64.whl",
        "org=acme module=np baseRev=1.26.0 classifier=cp311-cp311-linux_2_17_x86_64.linux2014_x86_64 ext=whl",
    ),
    ("pypi-default", "zope.x/zope.x-1!2.0.post1.tar.gz", "module=zope.x baseRev=1!2.0.post1 ext=tar.gz"),
    ("pypi-default", "my-app/my-app-1.0rc1.zip.asc", "module=my-app baseRev=1.0rc1 ext=zip companion=.asc"),
    ("helm-default", "nginx-13.2.1.tgz", "module=nginx baseRev=13.2.1 ext=tgz"),
    (
        "helm-default",
        "charts/k8s-2-1.0.0-rc.1+b.5.tgz",
        "org=charts module=k8s-2 baseRev=1.0.0 fileItegRev=rc.1+b.5 ext=tgz integration",
    ),
    ("simple-default", "a/b/m/m-1.0.Final.jar", "org=a.b module=m baseRev=1.0.Final ext=jar"),
    ("simple-default", "a/m/m-1.0.post1.tar.gz", "org=a module=m baseRev=1.0.post1 ext=tar.gz"),
    ("simple-default", "a/m/m-1.0.whl.sha256", "org=a module=m baseRev=1.0 ext=whl companion=.sha256"),
    (
        "puppet-default",
        "puppetlabs/stdlib/puppetlabs-stdlib-4.1.0.tar.gz",
        "org=puppetlabs module=stdlib baseRev=4.1.0 ext=tar.gz",
    ),
    (
        "go-default",
        "hub.com/!azure/s/@v/v1.0.0-!r!c.1.zip",
        "org=hub.com.Azure orgPath=hub.com/Azure module=s baseRev=1.0.0 fileItegRev=RC.1 ext=zip integration",
    ),
    (
        "go-default",
        "gopkg.in/yaml.v2/@v/v2.4.0+incompatible.info",
        "org=gopkg.in orgPath=gopkg.in module=yaml.v2 baseRev=2.4.0+incompatible ext=info",
    ),
    (
        "go-default",
        f"go.org/x/net/@v/v0.0.0-{PSEUDO}.mod",
        f"org=go.org.x orgPath=go.org/x module=net baseRev=0.0.0 fileItegRev={PSEUDO} ext=mod integration",
    ),
    (
        "build-default",
        "my-build/12-1600000000000.json",
        "org=my-build module=12 fileItegRev=1600000000000 ext=json",
    ),
    ("build-default", "a/b/my-app.json", "org=a.b module=my-app ext=json"),
    ("cargo-default", "crates/serde/serde-1.0.0-rc.x.crate", "module=serde baseRev=1.0.0-rc.x ext=crate"),
    (
        "terraform-module-default",
        "hashicorp/consul/aws/0.1.0-rc.a.zip",
        "org=hashicorp module=consul provider=aws baseRev=0.1.0-rc.a ext=zip",
    ),
    (
        "swift-default",
        "apple/swift-nio/swift-nio-2.0.0.zip",
        "org=apple module=swift-nio baseRev=2.0.0 ext=zip",
    ),
    (
        "ansible-default",
        "collections/community/general/1.0.0/community-general-1.0.0.tar.gz",
        "org=community module=general baseRev=1.0.0 ext=tar.gz",
    ),
]


def described(found: Coordinates) -> dict[str, str]:
    flags = {name: "" for name in ("integration", "descriptor") if getattr(found, name)}
    companion = {"companion": found.companion} if found.companion else {}
    return {**found.tokens, **flags, **companion}


@pytest.mark.parametrize(("name", "path", "text"), PATHS, ids=[f"{row[0]}:{row[1][:40]}" for row in PATHS])
def test_paths_that_package_clients_make(name: str, path: str, text: str) -> None:
    expected = {key: value for key, _, value in (word.partition("=") for word in text.split())}
    if "org" in expected:
        expected.setdefault("orgPath", expected["org"].replace(".", "/"))
    if "ext" in expected:
        expected.setdefault("type", expected["ext"])
    layout = builtin(name)
    found = layout.parse(path.encode())
    assert found is not None
    assert described(found) == expected
    assert layout.build(found) == path.encode()


def test_there_are_as_many_as_the_manual_says() -> None:
    text = read("layouts")
    assert len(NAMES) == 22
    for name in NAMES:
        assert re.search(rf"[ ]{name.removesuffix('-default')}[,; ]", text), name


def test_every_layout_has_an_example() -> None:
    assert {row[0] for row in PATHS} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("maven-2-default", "g/a/maven-metadata.xml"),
        ("maven-2-default", "g/a/1-SNAPSHOT/maven-metadata.xml"),
        ("maven-2-default", "g/metadata/maven/maven-metadata.xml.sha1"),
        ("maven-2-default", "g/maven/metadata/maven-metadata.xml"),
        ("maven-2-default", "g/a/1/b-1.jar"),
        ("maven-2-default", "g/a/1/a-2.jar"),
        ("maven-2-default", "a/1/a-1.jar"),
        ("maven-2-default", "g/a/1/a-1"),
        ("maven-2-default", "g/a/1/.a-1.jar.tmp"),
        ("npm-default", "@babel/core/-/@babel/core-7.0.0.tgz"),
        ("npm-default", "babel/core/-/core-7.0.0.tgz"),
        ("npm-default", "core/-/other-7.0.0.tgz"),
        ("npm-legacy-default", "core/-/core-7.0.0.tgz"),
        ("npm-legacy-default", "core/other-7.0.0.tgz"),
        ("pypi-default", "app/other-1.0.tar.gz"),
        ("pypi-default", "app/index.html"),
        ("helm-default", "index.yaml"),
        ("helm-default", "chart-1.tgz"),
        ("go-default", "github.com/a/b/@v/list"),
        ("go-default", "github.com/a/b/@latest"),
        ("go-default", "github.com/Azure/sdk/@v/v1.0.0.zip"),
        ("go-default", "github.com/!Azure/sdk/@v/v1.0.0.zip"),
        ("ansible-default", "collections/a/b/1/a-b-2.tar.gz"),
        ("puppet-default", "a/b/a-c-1.tar.gz"),
        ("sbt-default", "o/m/scala_/1/jars/m.jar"),
    ],
)
def test_what_is_no_artifact(name: str, path: str) -> None:
    assert builtin(name).parse(path.encode()) is None


def test_real_coordinates() -> None:
    layout = builtin("maven-2-default")
    for path in REAL:
        found = layout.parse(path.encode())
        assert found is not None
        *org, module, revision, file = path.split("/")
        assert (found.org, found.module) == (".".join(org), module)
        assert revision in (found.base_revision, f"{found.base_revision}-{found.folder_integration}")
        assert file.endswith(found.extension)
        assert layout.build(found) == path.encode()


# Round trips of generated coordinates

names = st.text("abcXYZ019-._+~é ", min_size=1, max_size=8).filter(lambda text: text not in (".", ".."))
words = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
orgs = st.lists(words, min_size=1, max_size=3).map(".".join)
numbers = st.lists(st.integers(0, 20).map(str), min_size=1, max_size=4).map(".".join)
snapshots = st.sampled_from(["", "SNAPSHOT", "20200101120000", "20200101.120000-1", "beta.2", GIT, "17"])
companions = st.sampled_from(["", "", ".sha1", ".asc", ".asc.sha256"])
FURTHER = {
    "refs": st.sampled_from(["tags", "branches"]),
    "remainder": st.lists(words, min_size=1, max_size=3).map("/".join),
}
VERSIONS = {"helm-default": st.lists(st.integers(0, 20).map(str), min_size=3, max_size=3).map(".".join)}
INTEGRATIONS = {
    "maven-2-default": [
        ("", ""),
        ("SNAPSHOT", "SNAPSHOT"),
        ("SNAPSHOT", "20200101.120000-1"),
        ("SNAPSHOT", ""),
    ],
    "maven-1-default": [("", ""), ("", "SNAPSHOT")],
    "ivy-default": [("", ""), ("20200101120000", "20200101120000")],
    "gradle-default": [("", ""), ("20200101120000", "20200101120000")],
    "vcs-default": [("", ""), ("", GIT)],
    "conan-default": [("0", "1")],
    "nuget-default": [("", ""), ("", "beta")],
    "npm-default": [("", ""), ("", "beta.1")],
    "npm-legacy-default": [("", ""), ("", "beta.1")],
    "bower-default": [("", ""), ("", "beta")],
    "helm-default": [("", ""), ("", "rc.1")],
    "composer-default": [("", ""), ("", "rc-1")],
    "go-default": [("", ""), ("", PSEUDO)],
    "build-default": [("", ""), ("", "1600000000000")],
}


@st.composite
def coordinates(draw: st.DrawFn, layout: Layout, *, ordinary: bool) -> Coordinates:
    """Of tokens that the layout has. `ordinary` ones are all there, and of the form that they should have."""
    free, maybe = (words, words) if ordinary else (names, st.just("") | names)

    def value(token: str, texts: st.SearchStrategy[str]) -> str:
        return draw(texts) if layout.uses(token) else ""

    org = draw(orgs if ordinary else names) if layout.uses("org") or layout.uses("orgPath") else ""
    if layout.name == "npm-default":
        org = draw(st.sampled_from(["", f"@{org}"]))
    folder, file = draw(
        st.sampled_from(INTEGRATIONS.get(layout.name, [("", "")]))
        if ordinary
        else st.tuples(snapshots, snapshots)
    )
    extensions = ["jar", "zip", "tar.gz", "7z", *([] if ordinary else ["pom", "xml", "so.gz"])]
    return Coordinates(
        org=org,
        module=value("module", free),
        base_revision=value("baseRev", VERSIONS.get(layout.name, numbers) if ordinary else names),
        folder_integration=folder if layout.uses("folderItegRev") else "",
        file_integration=file if layout.uses("fileItegRev") else "",
        classifier=value("classifier", maybe),
        extension=layout.artifact.pattern.suffix or value("ext", st.sampled_from(extensions)),
        type=value("type", words),
        further=tuple((token, draw(FURTHER.get(token, maybe))) for token in layout.artifact.pattern.further),
        companion=draw(companions),
    )


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60)
def test_what_can_be_built_reads_back(name: str, data: st.DataObject) -> None:
    layout = builtin(name)
    wanted = data.draw(coordinates(layout, ordinary=False))
    try:
        path = layout.build(wanted)
    except LayoutError:
        return
    found = layout.parse(path)
    assert found is not None
    assert {**found.tokens, "orgPath": ""} == {**wanted.with_organisation().tokens, "orgPath": ""}
    assert found.companion == wanted.companion
    assert layout.build(found) == path


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60)
def test_what_parses_is_built_again(name: str, data: st.DataObject) -> None:
    """Of paths made of an example by changing it."""
    layout = builtin(name)
    path = data.draw(st.sampled_from([row[1] for row in PATHS if row[0] == name]))
    parts = path.split("/")
    at = data.draw(st.integers(0, len(parts) - 1))
    change = data.draw(st.integers(0, 3))
    start = data.draw(st.integers(0, len(parts[at])))
    inserted = data.draw(
        st.sampled_from(["-", ".", "a", "1", "-1", ".x", "-SNAPSHOT", "/", "s/", "@", "!a", ".asc", "é"])
    )
    if change == 0:
        path = path.replace(parts[at], data.draw(names))
    elif change == 1:
        parts[at] = parts[at][:start] + inserted + parts[at][start:]
        path = "/".join(parts)
    elif change == 2:
        path = "/".join(parts[:at] + parts[at + 1 :])
    else:
        path += inserted
    found = layout.parse(path.encode())
    if found is not None:
        assert layout.build(found) == path.encode()


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=30)
def test_ordinary_coordinates_can_be_built(name: str, data: st.DataObject) -> None:
    layout = builtin(name)
    wanted = data.draw(coordinates(layout, ordinary=True))
    found = layout.parse(layout.build(wanted))
    assert found is not None
    assert found.tokens == wanted.with_organisation().tokens


# Which layout a package type has


def test_every_package_type_has_a_layout() -> None:
    unused = {"gradle-default", "maven-1-default", "npm-legacy-default"}
    assert {layout_of(kind).name for kind in PACKAGE_TYPES} == set(NAMES) - unused
    simple = ["alpine", "conda", "cran", "debian", "docker", "gems", "generic", "gitlfs"]
    assert {layout_of(kind).name for kind in (*simple, "rpm")} == {"simple-default"}
    assert layout_of("gradle").name == "maven-2-default"


def test_unknown_names() -> None:
    with pytest.raises(LayoutError, match="unknown layout 'maven-2'; did you mean 'maven-2-default'"):
        builtin("maven-2")
    with pytest.raises(LayoutError, match="unknown package type 'mavn'; did you mean 'maven'"):
        layout_of("mavn")


def test_the_order_of_revisions() -> None:
    orders = {name: builtin(name).order.name for name in NAMES}
    assert {orders[name] for name in ("maven-2-default", "ivy-default", "simple-default")} == {"maven"}
    assert {orders[name] for name in ("npm-default", "go-default", "cargo-default")} == {"semver"}
    assert orders["pypi-default"] == "pep440"
    assert orders["helm-default"] == "semver"


def test_wheels_and_archives_of_one_version_are_of_one_revision() -> None:
    layout = layout_of("pypi")
    names = ("app-1.9-py3-none-any.whl", "app-1.10.tar.gz", "app-1.10-1-cp311-cp311-linux_x86_64.whl")
    names = (*names, "app-1!0.1.dev2.zip", "app-1.10.post1.tar.gz", "app-2.0rc1-py3-none-any.whl")
    found = [layout.parse(f"app/{name}".encode()) for name in names]
    revisions = [each.revision for each in found if each]
    assert revisions == ["1.9", "1.10", "1.10", "1!0.1.dev2", "1.10.post1", "2.0rc1"]
    ordered = sorted(set(revisions), key=layout.order.key)
    assert ordered == ["1.9", "1.10", "1.10.post1", "2.0rc1", "1!0.1.dev2"]
    assert list(filter(layout.order.integration, ordered)) == ["2.0rc1", "1!0.1.dev2"]
