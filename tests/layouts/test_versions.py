"""Orders of versions against the tables that their ecosystems publish."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.layouts.maven_versions import key, parse
from casfs.layouts.versions import ORDERS, Order

MAVEN, SEMVER, PEP440 = ORDERS["maven"], ORDERS["semver"], ORDERS["pep440"]


def assert_ascending(order: Order, versions: list[str]) -> None:
    for lower, higher in itertools.combinations(versions, 2):
        assert order.key(lower) < order.key(higher), f"{lower} < {higher}"
    mixed = [*versions[1::2], *versions[::2]]
    assert sorted(mixed, key=order.key) == versions


@pytest.mark.parametrize(
    "text",
    [
        "1 1.1",
        "1-snapshot 1 1-sp",
        "1-foo2 1-foo10",
        "1-alpha 1-beta 1-milestone 1-rc 1-snapshot 1 1-sp 1-abc 1-1 1.1",
        "1.foo 1-1 1.1",
        "1-alpha-1 1-beta-1 1-m1 1-cr1 1-20 1.0.1",
        "1-sp-1 1-1",
        "2.0.1-xyz 2.0.1-123",
        "1.0-SNAPSHOT 1.0",
        "1.0-20200101.120000-1 1.0-20200101.120000-2 1.0-20200101.120000-10",
        "1.9 1.10 1.10.1 2",
        "3.8.7 4.0.0-alpha-2 4.0.0-alpha-10 4.0.0-beta-1 4.0.0-rc-1 4.0.0",
        "9.4.48.v20220622 9.4.49.v20220914",
        "31.0-android 31.0-jre 31.1-android",
        "99999999999999999998 99999999999999999999",
        "1-alpha-1-SNAPSHOT 1-alpha-1 1-alpha-123 1-beta-2 1-beta123 1-m2 1-m11 1-rc 1-rc2 1-SNAPSHOT 1",
        "1 1-sp 1-sp2 1-sp123 1-abc 1-def 1-pom-1 1-1-snapshot 1-1 1-2 1-123 1.0.1",
        "2.0 2.0.a 2-1 2.0.2 2.0.123 2.1.0 2.1-a 2.1b 2.1-c 2.1-1 2.1.0.1 2.2 2.123",
        "11.a2 11.a11 11.b2 11.b11 11.m2 11.m11 11 11.a 11b 11c 11m",
        "4.0.0.Beta3 4.0.0-RC1 4.0.0.Final 20190126.230843 20191230",
    ],
)
def test_mavens_order(text: str) -> None:
    assert_ascending(MAVEN, text.split())


@pytest.mark.parametrize(
    "text",
    [
        "1 1.0 1.0.0 1-0 1.0-0 1-ga 1-final 1.ga 1.0.Final 1-release 1-GA 1-Final-ga",
        "1-a1 1-alpha-1 1-A1 1-Alpha-1 1.alpha1 1.a1",
        "1-b2 1-beta-2",
        "1-m3 1-milestone-3 1.0.0-M3",
        "1-rc1 1-cr1 1-CR-1",
        "1-ga-1 1-1",
        "1x 1-x 1.x 1.0.0-x 1.0.0x",
        "1.0.0.RC1 1-rc1 1-rc-1",
        "01 1",
    ],
)
def test_versions_that_are_the_same_to_maven(text: str) -> None:
    versions = text.split()
    assert all(not key(a) < key(b) for a, b in itertools.permutations(versions, 2))
    assert sorted(versions, key=MAVEN.key) == sorted(versions)


def test_the_published_example_of_mavens_tokens() -> None:
    assert parse("1-1.foo-bar1baz-.1") == [1, [1, ["foo", ["bar", [1, ["baz", [0, 1]]]]]]]
    assert parse("1.0.0") == [1]
    assert parse("1.ga") == [1]
    assert parse("1.0.0-foo.0.0") == [1, ["foo"]]
    assert parse("1.0.0-0.0.0") == [1]
    assert parse("") == []


@pytest.mark.parametrize(
    "text",
    [
        "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0",
        "1.0.0 2.0.0 2.1.0 2.1.1",
        "1.9.0 1.10.0 1.11.0",
        "1.0.0-9 1.0.0-10 1.0.0-1a 1.0.0-A 1.0.0-a",
        # Go: pseudo-versions are before the release they lead to, and after the one before.
        "v0.0.0-20190101000000-aaaaaaaaaaaa v0.0.0-20191109021931-daa7c04131f5 v0.0.1",
        "v1.2.3 v1.2.4-0.20191109021931-daa7c04131f5 v1.2.4-pre v1.2.4",
        "v1.9.9 v2.0.0-rc.1+incompatible v2.0.0+incompatible v2.0.1+incompatible",
        # NuGet: four numbers.
        "12.0.1-beta1 12.0.1 12.0.1.1 12.0.2",
        "latest x 0.0.1",
        "1.0.0-.. 1.01.0 0.0.0",
    ],
)
def test_semantic_versions(text: str) -> None:
    assert_ascending(SEMVER, text.split())


def test_build_metadata_do_not_count() -> None:
    assert SEMVER.parse("1.0.0+a") == SEMVER.parse("1.0.0+b") == SEMVER.parse("v1.0.0") == SEMVER.parse("1")
    assert sorted(["1.0.0+b", "1.0.0", "1.0.0+a"], key=SEMVER.key) == ["1.0.0", "1.0.0+a", "1.0.0+b"]


@pytest.mark.parametrize(
    "text", ["", "1.", "1.0.0.0.0", "1.0.0-", "1.0.0-a..b", "1.0.0+", "01.0.0", "1.0.0-é", "1.0.0\n"]
)
def test_what_is_no_semantic_version(text: str) -> None:
    assert SEMVER.parse(text) is None
    assert SEMVER.key(text) < SEMVER.key("0.0.0-0")


def test_python_versions() -> None:
    assert_ascending(
        PEP440,
        [
            "nightly",
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1.dev456",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0+abc.7",
            "1.0+5",
            "1.0.post456.dev34",
            "1.0.post456",
            "1.0.15",
            "1.1.dev1",
            "1!0.1",
        ],
    )


@pytest.mark.parametrize(
    ("order", "integrations", "releases"),
    [
        (
            MAVEN,
            "1-SNAPSHOT 1.0-20200101.120000-1 SNAPSHOT",
            "1 1-alpha-1 1-rc1 1.SNAPSHOT2 1-20200101.120000",
        ),
        (
            SEMVER,
            "1.0.0-rc.1 v0.0.0-20191109021931-daa7c04131f5 1.0.0-a+b",
            "1.0.0 v2.0.0+incompatible 1.0.0+a-b x",
        ),
        (PEP440, "1.0a1 1.0.dev1 1.0rc1 1.0.post1.dev1", "1.0 1.0.post1 1.0+local x"),
    ],
)
def test_integrations(order: Order, integrations: str, releases: str) -> None:
    assert all(map(order.integration, integrations.split()))
    assert not any(map(order.integration, releases.split()))


pieces = st.sampled_from(
    [
        *"0129.-+v!",
        "10",
        "alpha",
        "beta",
        "rc",
        "SNAPSHOT",
        "ga",
        "sp",
        "a",
        "dev",
        "post",
        "20200101.120000",
        "é",
        "٣",
    ]
)
versions = (
    st.lists(pieces, max_size=8).map("".join) | st.text(max_size=6) | st.sampled_from(["9" * 300, "1-" * 127])
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(ORDERS)), st.lists(versions, min_size=3, max_size=3))
def test_each_order_is_total(name: str, three: list[str]) -> None:
    """Any two different texts have an order, and it does not go round in circles."""
    keys = {text: ORDERS[name].key(text) for text in three}
    for a, b in itertools.combinations(keys, 2):
        assert (keys[a] < keys[b]) != (keys[b] < keys[a])
    for a, b, c in itertools.permutations(keys, 3) if len(keys) == 3 else ():
        assert not (keys[a] < keys[b] and keys[b] < keys[c] and keys[c] < keys[a])
    assert len({tuple(sorted(order, key=ORDERS[name].key)) for order in itertools.permutations(keys)}) == 1


@pytest.mark.parametrize("name", sorted(ORDERS))
@pytest.mark.parametrize(
    "text", ["1-" * 127, "-" * 255, "1a" * 127, "9" * 255, "9" * 5000, "a" * 255, "1." * 127, "1.0a" * 60]
)
def test_hostile_versions(name: str, text: str) -> None:
    """They have a place, and what is too long for a name is no version."""
    key = ORDERS[name].key(text)
    assert not key < key
    assert len(text) <= 255 or key < ORDERS[name].key("0")
