"""`casfs layout` on a store that is not mounted."""

from __future__ import annotations

import io
import json
import sys

import pytest

from casfs.errors import ExitCode
from casfs.layouts.builtin import DEFINITIONS

PATTERN = "[org]/[module]-[baseRev].[ext]"


@pytest.fixture
def store(store_path):
    """Its path, as a word."""
    return str(store_path)


def add(casfs, store, name="ours", *more):
    assert casfs("layout", "add", store, name, "--artifact", PATTERN, *more) == (0, "", "")


def test_layouts_are_listed_with_who_has_them(casfs, store):
    add(casfs, store)
    casfs("repo", "create", store, "libs", "--layout", "ours")
    casfs("repo", "create", store, "jars", "--layout", "ours")
    header, *lines = casfs("layout", "list", store).out.splitlines()
    assert header.split() == ["layout", "from", "versions", "repositories"]
    assert [line.split()[0] for line in lines] == [*(each.name for each in DEFINITIONS), "ours"]
    assert lines[0].split() == ["maven-2-default", "built", "in", "maven", "-"]
    assert lines[-1].split() == ["ours", "own", "maven", "jars,", "libs"]
    found = json.loads(casfs("layout", "list", store, "--json").out)["layouts"]
    assert [each["built_in"] for each in found] == [True] * len(DEFINITIONS) + [False]


def test_one_layout_is_shown(casfs, store):
    add(
        casfs,
        store,
        "ours",
        "--versions",
        "semver",
        "--no-integrations",
        "--role",
        "org=team",
        "--role",
        "module=",
    )
    add(casfs, store, "theirs")
    shown = json.loads(casfs("layout", "show", store, "ours", "--json").out)
    assert (shown["artifact"], shown["versions"], shown["integrations"]) == (PATTERN, "semver", False)
    assert shown["roles"] == {"org": "team", "module": ""}
    out = casfs("layout", "show", store, "theirs").out
    assert f"name: theirs\nartifact: {PATTERN}\nfolder integration: .*\n" in out
    assert out.endswith("built in: no\nrepositories: -\n")
    assert "name: cargo-default\n" in casfs("layout", "show", store, "cargo-default").out


def test_a_layout_is_set_and_removed(casfs, store):
    add(casfs, store)
    casfs("repo", "create", store, "libs", "--layout", "ours")
    assert casfs("layout", "set", store, "ours", "--versions", "pep440").code == 0
    assert json.loads(casfs("layout", "show", store, "ours", "--json").out)["versions"] == "pep440"
    outcome = casfs("layout", "rm", store, "ours")
    assert outcome.complaint == "layout 'ours' is in use: libs; give them another one first"
    assert outcome.code == ExitCode.FAILED
    casfs("repo", "set", store, "libs", "--no-layout")
    assert casfs("layout", "rm", store, "ours") == (0, "", "")
    assert casfs("layout", "show", store, "ours").complaint.startswith(
        "unknown layout 'ours'; known: ansible-"
    )


def test_a_path_is_tried_in_every_layout(casfs, store):
    add(casfs, store)
    code, out, err = casfs("layout", "test", store, "acme/app-1.0.jar")
    assert (code, err) == (0, "")
    path, *lines = out.splitlines()
    assert path == "acme/app-1.0.jar"
    assert len(lines) == len(DEFINITIONS) + 1
    assert [line.split()[0] for line in lines[:2]] == ["build-default", "ours"]
    assert lines[1].endswith("  org=acme orgPath=acme module=app baseRev=1.0 ext=jar type=jar")
    refused = next(line for line in lines if line.startswith("  cargo-default "))
    assert refused.endswith("  no: it stops before 'acme/app-1.0.jar': 'crates/' was expected")


def test_what_accompanies_and_what_is_a_snapshot_is_said(casfs, store):
    path = "org/acme/app/1.0-SNAPSHOT/app-1.0-20200101.101010-1.pom.sha1"
    out = casfs("layout", "test", store, "--layout", "maven-2-default", path).out
    assert out.splitlines()[1].endswith("(descriptor) (accompanies: .sha1) (snapshot)")
    (found,) = json.loads(casfs("layout", "test", store, path, "--layout", "maven-2-default", "--json").out)[
        "paths"
    ]
    (tried,) = found["layouts"]
    assert (tried["revision"], tried["companion"], tried["snapshot"]) == (
        "1.0-20200101.101010-1",
        ".sha1",
        True,
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../../etc/passwd", "it has a component '..'"),
        ("a//b", "it has a component ''"),
        ("a/\udcff-1.jar", "it is not UTF-8"),
        ("x" * 300, "it has a component of more than 255 bytes"),
        ("a/\x1b[2J", "it stops before 'a/\\x1b[2J'"),
    ],
)
def test_a_path_that_says_nothing_ends_with_1(casfs, store, path, reason):
    code, out, err = casfs("layout", "test", store, path, "--layout", "maven-2-default")
    assert (code, err) == (ExitCode.FAILED, "")
    assert reason in out
    assert out.count("\n") == 2
    assert "\x1b" not in out


def test_layouts_are_exported_and_imported(casfs, store, tmp_path, monkeypatch):
    assert casfs("layout", "export", store) == (0, "", "")
    add(casfs, store)
    text = casfs("layout", "export", store).out
    assert text == f"[layout.ours]\nartifact = '{PATTERN}'\n"
    assert casfs("layout", "export", store, "ivy-default").out.startswith("[layout.ivy-default]\n")
    file = tmp_path / "layouts.toml"
    file.write_text(text + "\n[layout.mine]\nartifact = '[orgPath]/[module]/[baseRev].[ext]'\n")
    assert casfs("layout", "import", store, str(file)).complaint.startswith(
        "there is a layout 'ours' already"
    )
    assert "mine" not in casfs("layout", "list", store).out
    assert casfs("layout", "import", store, str(file), "--replace") == (0, "", "")
    assert casfs("layout", "export", store, "ours", "mine").out == file.read_text()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.replace("ours", "piped").encode())))
    assert casfs("layout", "import", store, "-") == (0, "", "")
    assert "piped" in casfs("layout", "list", store).out


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "has no layouts; a layout is a table [layout.NAME]"),
        (b"\xff", "is not UTF-8: byte 1"),
        (b"[layout.x", "line 1"),
        (b"[layuot.x]\n", "line 1: unexpected 'layuot'"),
        (
            b"[layout.x]\n\nartifact = '[org]/[modul]-[baseRev]'\n",
            "line 3: x: artifact, column 7: unknown token",
        ),
        (b"[layout.x]\nartifact = '[org]/[module]-[baseRev]'\nversions = 'mavn'\n", "line 3: x: versions"),
        (b"# " + b"x" * 70_000, "is longer than 60000 bytes"),
        (
            b"[layout.ivy-default]\nartifact = '[org]/[module]-[baseRev]'\n",
            "layout 'ivy-default' is built in",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line(casfs, store, tmp_path, data, complaint):
    file = tmp_path / "file"
    file.write_bytes(data)
    outcome = casfs("layout", "import", store, str(file))
    assert complaint in outcome.complaint
    assert outcome.code in (ExitCode.USAGE, ExitCode.FAILED)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["add", "x"], "a layout needs a pattern; --artifact '["),
        (["add", "x", "--artifact", "[org]/[modul]"], "x: artifact, column 7: unknown token 'modul'"),
        (["add", "x", "--artifact", "[org]/[module]"], "x: artifact, column 1: "),
        (["add", "x", "--artifact", PATTERN, "--versions", "mavn"], "x: versions: unknown order of versions"),
        (["add", "x", "--artifact", PATTERN, "--folder-integration", "(a"], "x: folder-integration, column "),
        (["add", "x", "--artifact", PATTERN, "--role", "org"], "'org' is no role: write org=scope"),
        (["add", "../x", "--artifact", PATTERN], "'../x' is no name of a layout"),
        (["add", "x", "--artifact", "\udcff" + PATTERN], "a text that is not Unicode"),
        (["add", "x", "--artefact", PATTERN], "unknown option '--artefact'; did you mean '--artifact'?"),
        (["set", "x"], "nothing to set"),
        (["set", "x", "--versions", "semver"], "unknown layout 'x'"),
        (["show", "maven2"], "unknown layout 'maven2'"),
        (["export", "x"], "unknown layout 'x'"),
        (["test", "a/b", "--layout", "x"], "unknown layout 'x'"),
        (["rm", "x"], "unknown layout 'x'"),
    ],
)
def test_a_mistake_is_one_line(casfs, store, words, complaint):
    outcome = casfs("layout", words[0], store, *words[1:])
    assert complaint in outcome.complaint
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")


def test_a_built_in_layout_stays_as_it_is(casfs, store):
    for words in (["set", "ivy-default", "--versions", "semver"], ["rm", "ivy-default"]):
        outcome = casfs("layout", words[0], store, *words[1:])
        assert outcome.complaint == "layout 'ivy-default' is built in; add one of another name"
        assert outcome.code == ExitCode.FAILED
