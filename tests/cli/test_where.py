"""`--where` of `casfs rm`, `cp`, `mv` and `prop`, on a store that is not mounted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casfs.cli import where
from casfs.errors import ExitCode
from casfs.fs.batch import LIMIT
from casfs.fs.scheduler import run_inline
from casfs.maintenance.offline import opened
from casfs.repositories.registry import RepositoryKind
from casfs.repositories.rules import Settings
from casfs.repositories.verbs import create
from casfs.store import create_store
from tests.invariants import assert_clean
from tests.maintenance.stores import make_directory, make_file

LAYOUT = Settings(layout="maven-2-default")


@pytest.fixture
def store(tmp_path: Path):
    """Two repositories, and a view: four revisions of a module in one of them."""
    path = tmp_path / "store"
    create_store(str(path), fan_out=1)
    with opened(str(path)) as fs:
        for name in (b"staging", b"libs"):
            run_inline(create(fs, name, RepositoryKind.LOCAL, settings=LAYOUT))
        ivy = Settings(layout="ivy-default")
        run_inline(create(fs, b"view", RepositoryKind.VIEW, members=[b"staging"], settings=ivy))
        top = fs.tree.lookup(1, b"staging")
        assert top is not None
        directory = make_directory(fs, make_directory(fs, top.ino, b"acme"), b"app")
        for revision in ("1.0", "1.1", "1.2", "1.3"):
            below = make_directory(fs, directory, revision.encode())
            make_file(fs, below, f"app-{revision}.jar".encode(), revision.encode())
    yield str(path)
    assert_clean(path)


def jar(revision: str, repository: str = "staging") -> str:
    return f"/{repository}/acme/app/{revision}/app-{revision}.jar"


def files(casfs, store: str, *terms: str) -> list[str]:
    return casfs("find", store, *(["--where", *terms] if terms else [])).out.splitlines()


def test_what_is_found_is_removed_and_listed_before(casfs, store):
    words = ("rm", "--store", store, "/staging", "--where", "keep=2")
    assert casfs(*words, "-n").out.splitlines() == [jar("1.0"), jar("1.1"), "would remove 2 files, 6 B"]
    assert json.loads(casfs(*words, "-n", "--json").out) == {
        "files": 2,
        "bytes": 6,
        "changed": 0,
        "releases": 0,
        "paths": [jar("1.0"), jar("1.1")],
    }
    assert len(files(casfs, store)) == 4
    assert casfs(*words) == (ExitCode.OK, "removed 2 files, 6 B\n", "")
    assert files(casfs, store) == [jar("1.2"), jar("1.3")]
    assert casfs(*words) == (ExitCode.OK, "removed 0 files, 0 B\n", "")


def test_what_is_found_gets_a_property_and_is_promoted_by_it(casfs, store):
    words = ("prop", "set", "--store", store, "-p", "qa=passed", "/", "--where", "rev=1.[01]")
    assert casfs(*words, "-n").out.endswith("would be set: properties of 2 files, 6 B\n")
    assert casfs(*words).out == "set properties of 2 files, 6 B\n"
    assert files(casfs, store, "prop.qa=passed") == [jar("1.0"), jar("1.1")]
    words = ("cp", "--store", store, "/staging", "/libs", "--where", "prop.qa=passed")
    assert casfs(*words, "-n").out.splitlines() == [jar("1.0"), jar("1.1"), "would copy 2 files, 6 B"]
    assert casfs(*words) == (0, "copied 2 files, 6 B\n", "")
    assert files(casfs, store, "repo=libs", "prop.qa") == [jar("1.0", "libs"), jar("1.1", "libs")]
    again = casfs(*words)
    assert again.code == ExitCode.FAILED
    assert "/libs/acme/app/1.0/app-1.0.jar: File exists" in again.complaint
    words = ("mv", "--store", store, "/staging", "/libs", "--where", "!prop.qa")
    assert casfs(*words).out == "moved 2 files, 6 B\n"
    assert files(casfs, store, "repo=staging") == [jar("1.0"), jar("1.1")]
    assert casfs("latest", store, "acme:app", "--repo", "libs").out.startswith("1.3\n")
    assert casfs("prop", "rm", "--store", store, "-p", "qa", "/libs", "--where", "prop.qa").out == (
        "removed properties of 2 files, 6 B\n"
    )
    assert files(casfs, store, "prop.qa") == [jar("1.0"), jar("1.1")]


def test_only_what_lies_below_is_looked_at(casfs, store):
    assert casfs("rm", "--store", store, "/libs", "--where", "name=*").out == "removed 0 files, 0 B\n"
    words = (
        "rm",
        "--store",
        store,
        "-n",
        "/staging/acme/app/1.1",
        "/staging/acme/app/1.1/",
        "/staging/acme/app/1.2",
    )
    assert casfs(*words, "--where", "module=app").out.splitlines()[:-1] == [jar("1.1"), jar("1.2")]
    assert casfs(*words, "--where", "keep=1", "rev=1.1").out == "would remove 0 files, 0 B\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["rm", "/staging", "-r", "--where", "keep=1"], "--where finds files, and removes no directories"),
        (["rm", "/staging", "--where", "kep=1"], "unknown term 'kep'; did you mean 'keep'?"),
        (["rm", "/staging", "--where", "duplicates"], "'duplicates' and 'trash' are for casfs find"),
        (["rm", "/staging", "--where", "trash"], "'duplicates' and 'trash' are for casfs find"),
        (["rm", "/none", "--where", "keep=1"], "/none is no directory of the store"),
        (["rm", jar("1.0"), "--where", "keep=1"], "app-1.0.jar is no directory of the store"),
        (["rm", "/view", "--where", "keep=1"], "/view lies in a repository that shows others"),
        (["rm", "/view/acme", "--where", "keep=1"], "/view/acme lies in a repository that shows others"),
        (["cp", "/staging", "/libs", "--force", "--where", "keep=1"], "leave --force and --recursive out"),
        (["cp", "/staging", "/libs", "-n"], "--dry-run and --json are for --where"),
        (["mv", "/staging", "/libs", "--json"], "--dry-run and --json are for --where"),
        (["prop", "rm", "-p", "x", "-r", "/staging", "--where", "keep=1"], "--where finds files"),
        (["prop", "rm", "-p", "x", "--where", "keep=1"], "no PATH given"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(casfs, store, words, complaint):
    found = casfs(*words, "--store", store)
    assert found.code == ExitCode.USAGE
    assert complaint in found.complaint
    assert len(files(casfs, store)) == 4


def test_what_is_too_much_for_a_transaction_is_not_begun(casfs, store, monkeypatch: pytest.MonkeyPatch):
    assert where.MOST == LIMIT
    monkeypatch.setattr(where, "MOST", 3)
    refused = casfs("rm", "--store", store, "/staging", "--where", "module=app")
    assert "more than 3 files, too many for one transaction; name a directory below" in refused.complaint
    assert casfs("rm", "--store", store, "/staging", "--where", "keep=1").out == "removed 3 files, 9 B\n"


def test_what_cannot_be_answered_removes_nothing(casfs, store):
    words = ("rm", "--store", store, "/", "--where", "unused=0s")
    assert "no repository of this store keeps access times" in casfs(*words).complaint
    assert casfs("repo", "set", store, "libs", "--access-times", "daily").code == 0
    code, out, err = casfs(*words)
    assert (code, out) == (0, "removed 0 files, 0 B\n")
    assert "access times are kept in libs only" in err
    assert "sha256 digest" in casfs("rm", "--store", store, "/", "--where", "!sha256=ab").complaint
