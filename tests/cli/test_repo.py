"""`casfs repo` on a store that is not mounted."""

from __future__ import annotations

import json
import re
import time

import pytest

from casfs.errors import ExitCode
from casfs.maintenance.offline import opened
from tests.kernel import Kernel


@pytest.fixture
def store(store_path):
    """Its path, as a word."""
    return str(store_path)


def test_repositories_are_made_and_listed(casfs, store):
    assert casfs("repo", "list", store) == (0, "there are no repositories\n", "")
    words = ("--package-type", "maven", "--quota", "1.5GiB", "--quota-files", "100", "--exclude", "**/*.tmp")
    assert casfs("repo", "create", store, "libs", *words, "--soft", "80", "--trash-days", "3") == (0, "", "")
    assert casfs("repo", "create", store, "ivy", "--view", "libs", "--layout", "ivy-default").code == 0
    assert casfs("repo", "create", store, "all", "--virtual", "libs,ivy", "--deploy", "libs").code == 0
    assert casfs("repo", "list", store).out.splitlines() == [
        "repository     kind           layout  artifacts                quota                       shows",
        "all         virtual                -          0                    -  libs, ivy (writes to libs)",
        "ivy            view      ivy-default          0                    -                        libs",
        "libs          local  maven-2-default          0  1.50 GiB, 100 files                           -",
    ]
    found = json.loads(casfs("repo", "list", store, "--json").out)["repositories"]
    assert [(each["name"], each["kind"], each["members"], each["deploy"]) for each in found] == [
        ("all", "virtual", ["libs", "ivy"], "libs"),
        ("ivy", "view", ["libs"], None),
        ("libs", "local", [], None),
    ]
    rules = found[2]["rules"]
    assert (rules["quota_bytes"], rules["soft_percent"], rules["exclude"]) == (3 << 29, 80, ["**/*.tmp"])
    assert found[2]["trash_days"] == 3


def test_one_repository_is_shown_with_its_rules(casfs, store):
    casfs(
        "repo",
        "create",
        store,
        "libs",
        "--immutable",
        "--no-snapshots",
        "--include",
        "a/**",
        "--include",
        "b/**",
    )
    out = casfs("repo", "show", store, "libs").out
    assert "name: libs\nkind: local\nartifacts: 0\n" in out
    assert "  include: a/**, b/**\n  exclude: -\n" in out
    assert "  snapshots: no\n" in out
    assert "  immutable: yes\n" in out
    shown = json.loads(casfs("repo", "show", store, "libs", "--json").out)
    assert (shown["name"], shown["plain_directories"]) == ("libs", True)
    outcome = casfs("repo", "show", store, "lib")
    assert outcome.complaint == "unknown repository 'lib'; did you mean 'libs'?"
    assert outcome.code == ExitCode.USAGE


def test_what_is_set_is_shown(casfs, store):
    casfs("repo", "create", store, "libs", "--read-only")
    assert (
        casfs("repo", "set", store, "libs", "--writable", "--layout", "npm-default", "--exclude", "x").code
        == 0
    )
    shown = json.loads(casfs("repo", "show", store, "libs", "--json").out)
    assert (shown["layout"], shown["rules"]["read_only"], shown["rules"]["exclude"]) == (
        "npm-default",
        False,
        ["x"],
    )
    assert casfs("repo", "set", store, "libs", "--no-layout", "--exclude", "").code == 0
    shown = json.loads(casfs("repo", "show", store, "libs", "--json").out)
    assert (shown["layout"], shown["rules"]["exclude"]) == (None, [])
    casfs("repo", "set", store, "--plain", "no")
    assert not json.loads(casfs("repo", "show", store, "libs", "--json").out)["plain_directories"]


def test_repositories_are_renamed_and_removed(casfs, store):
    casfs("repo", "create", store, "libs")
    casfs("repo", "create", store, "all", "--virtual", "libs")
    assert casfs("repo", "rename", store, "libs", "jars") == (0, "", "")
    outcome = casfs("repo", "rm", store, "jars")
    assert outcome.complaint == "'jars' cannot go: 'all' would miss it; --force takes it out of them"
    assert outcome.code == ExitCode.FAILED
    assert casfs("repo", "rm", store, "jars", "--force") == (0, "", "")
    assert [
        each["name"] for each in json.loads(casfs("repo", "list", store, "--json").out)["repositories"]
    ] == ["all"]


def test_df_has_kind_layout_artifacts_and_quota_of_each(casfs, store):
    casfs("repo", "create", store, "libs", "--layout", "ivy-default", "--quota", "1K", "--quota-files", "7")
    casfs("repo", "create", store, "all", "--virtual", "libs")
    assert casfs("df", store).out.splitlines()[:4] == [
        "directory     kind       layout  artifacts  files  size  blobs  size  saved              quota",
        "all        virtual            -          0      -     -      -     -      -                  -",
        "libs         local  ivy-default          0      0   0 B      0   0 B  0.0 %  1.00 KiB, 7 files",
        "TOTAL                                           0   0 B      0   0 B  0.0 %",
    ]
    rows = json.loads(casfs("df", store, "--json").out)["rows"]
    assert [
        (row["name"], row["kind"], row["layout"], row["quota_bytes"], row["quota_files"]) for row in rows
    ] == [
        ("all", "virtual", None, 0, 0),
        ("libs", "local", "ivy-default", 1024, 7),
    ]


def test_what_a_view_shows_and_what_not_is_counted(casfs, store):
    casfs("repo", "create", store, "libs", "--layout", "ivy-default", "--quota", "1K")
    casfs("repo", "create", store, "view", "--view", "libs", "--layout", "maven-2-default")
    out = casfs("repo", "show", store, "view").out
    assert "kind: view\nlayout: maven-2-default\nartifacts: 0\nmembers: libs\n" in out
    assert "hidden: 0\nleft out: 0\nrules:\n" in out
    assert "files: 0\nsize: 0 B\nrules:\n" in casfs("repo", "show", store, "libs").out


def test_what_a_view_does_not_show_is_listed_with_the_reason(casfs, store):
    casfs("repo", "create", store, "libs", "--layout", "maven-2-default")
    casfs("repo", "create", store, "view", "--view", "libs", "--layout", "ivy-default")
    casfs("repo", "create", store, "all", "--virtual", "libs")
    with opened(store) as fs:
        kernel = Kernel(fs)
        for directory in ("libs/org", "libs/org/acme", "libs/org/acme/app", "libs/org/acme/app/1.0"):
            kernel.mkdir(directory)
        kernel.write_file("libs/org/acme/app/1.0/app-1.0.jar", b"jar")
        kernel.write_file("libs/org/a\x1bb", b"x")
    reason = "it stops before 'org/a\\x1bb': [orgPath] and '/' was expected"
    assert casfs("repo", "show", store, "view", "--left-out").out == f"libs/org/a\\x1bb: {reason}\n"
    assert casfs("repo", "show", store, "all", "--left-out") == (0, "", "")
    assert "\nleft out: 1\n" in casfs("repo", "show", store, "view").out
    (found,) = json.loads(casfs("repo", "show", store, "view", "--left-out", "--json").out)["left_out"]
    assert found["path"] == "libs/org/a\x1bb"
    outcome = casfs("repo", "show", store, "libs", "--left-out")
    assert outcome.complaint == "'libs' shows no others; --left-out is for those that do"
    with opened(store) as fs:
        kernel = Kernel(fs)
        kernel.chmod("libs/org/acme", 0o700)
    lines = casfs("repo", "show", store, "view", "--left-out").out.splitlines()
    assert "libs/org/acme/app/1.0/app-1.0.jar: a directory on the way allows less" in lines[1]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["create", "S", "x", "--layuot", "y"], "unknown option '--layuot'; did you mean '--layout'?"),
        (
            ["create", "S", "x", "--layout", "a", "--no-layout"],
            "argument --no-layout: not allowed with argument",
        ),
        (["create", "S", "x", "--quota", "1X"], "'1X' is no size: write 500K, 20M or 1.5GiB"),
        (["create", "S", "x", "--quota", "9999999999G"], "is no size"),
        (["create", "S", "x", "--soft", "101"], "101 is more than 100 percent"),
        (["create", "S", "x", "--trash-days", "99999"], "'99999' is no number of days from 0 to 36500"),
        (["create", "S", "x", "--virtual", "a,,b"], "names of repositories are wanted"),
        (["create", "S", "x", "--virtual", "a", "--view", "b"], "not allowed with argument"),
        (["create", "S", "x", "--view", "a"], "a view needs a layout; give --layout or --package-type"),
        (["create", "S", "x", "--deploy", "a"], "--deploy is for --virtual"),
        (["create", "S", "x", "--include", ""], "--include has to have a pattern"),
        (
            ["create", "S", "x", "--package-type", "mavn"],
            "unknown package type 'mavn'; did you mean 'maven'?",
        ),
        (["create", "S"], "the following arguments are required: NAME"),
        (["set", "S"], "which repository?"),
        (["set", "S", "x"], "nothing to set; see 'casfs repo set --help'"),
        (["set", "S", "x", "--plain", "no"], "--plain is for the whole store; leave 'x' out"),
        (["set", "S", "--plain", "maybe"], "unknown value for --plain 'maybe'"),
        (["set", "S", "--plain", "no", "--read-only"], "which repository?"),
        (["remove", "S", "x"], "unknown action 'remove'"),
    ],
)
def test_a_mistake_is_one_line(casfs, words, complaint):
    outcome = casfs("repo", *words)
    assert complaint in outcome.complaint
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["create", "a/b"], "'a/b' is no name of a repository"),
        (["create", ".casfs"], "'.casfs' is no name of a repository"),
        (["create", "x" * 256], "is no name of a repository"),
        (["create", "x", "--layout", "maven"], "unknown layout 'maven'; known: ansible-default, "),
        (["create", "x", "--virtual", "x"], "unknown repository 'x'"),
        (["create", "x", "--include", "a\x1bb"], "a pattern is one line of UTF-8"),
        (["create", "x\x1b[2J/"], "'x\\x1b[2J/' is no name of a repository"),
        (["rename", "x", "y"], "unknown repository 'x'"),
        (["rm", "x"], "unknown repository 'x'"),
        (["set", "..", "--read-only"], "unknown repository '..'"),
    ],
)
def test_what_cannot_be_is_one_line(casfs, store, words, complaint):
    outcome = casfs("repo", words[0], store, *words[1:])
    assert complaint in outcome.complaint
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")


@pytest.mark.parametrize("action", ["list", "show", "create"])
def test_what_is_no_store_is_told(casfs, tmp_path, action):
    outcome = casfs("repo", action, str(tmp_path), *(["x"] if action != "list" else []))
    assert outcome.code == ExitCode.STORE
    assert "is not a casfs store" in outcome.complaint


def test_times_of_access_are_kept_from_a_moment_on(casfs, store):
    casfs("repo", "create", store, "libs")
    assert "  access times: none\n" in casfs("repo", "show", store, "libs").out
    assert casfs("repo", "set", store, "libs", "--access-times", "daily").code == 0
    assert re.search(
        r"  access times: daily, since 2\d{3}-\d\d-\d\d ", casfs("repo", "show", store, "libs").out
    )
    rules = json.loads(casfs("repo", "show", store, "libs", "--json").out)["rules"]
    assert rules["access_times"] == "daily"
    assert 0 <= time.time() - rules["access_times_since"] < 600
    assert "access times are kept, daily" in casfs("info", "--store", store, "/libs").out
    assert casfs("repo", "set", store, "libs", "--access-times", "hourly").code == ExitCode.USAGE
    casfs("repo", "create", store, "ivy", "--view", "libs", "--layout", "ivy-default")
    assert casfs("repo", "set", store, "ivy", "--access-times", "daily").code == ExitCode.USAGE
