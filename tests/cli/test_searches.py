"""`casfs info`, `find` and `latest` on a store that is not mounted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import ExitCode
from casfs.maintenance.offline import opened
from casfs.store import create_store
from tests.maintenance.stores import Damaged, make_directory, make_file

APP = "libs/acme/app"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Three revisions of a module, and something else."""
    path = tmp_path / "store"
    create_store(str(path), fan_out=1)
    with opened(str(path)) as fs:
        directory = 1
        for name in APP.split("/"):
            directory = make_directory(fs, directory, name.encode())
        for revision in ("1.9", "1.10", "1.11-SNAPSHOT"):
            below = make_directory(fs, directory, revision.encode())
            make_file(fs, below, f"app-{revision}.jar".encode(), revision.encode())
        make_file(fs, directory, b"notes\n", b"")
    damaged = Damaged(path)
    libs = damaged.ino("/libs")
    damaged.sql("INSERT INTO repository VALUES (?, 'local', 'maven-2-default', NULL, '{}')", libs)
    damaged.sql("INSERT INTO follow VALUES (?, 0)", libs)
    return str(path)


def test_find_prints_paths(casfs, store):
    code, out, err = casfs("find", store, "--module", "app", "--releases")
    assert (code, err) == (ExitCode.OK, "")
    assert out.splitlines() == [f"/{APP}/1.10/app-1.10.jar", f"/{APP}/1.9/app-1.9.jar"]
    assert casfs("find", store, "--snapshots").out == f"/{APP}/1.11-SNAPSHOT/app-1.11-SNAPSHOT.jar\n"
    assert casfs("find", store, "--repo", "libs", "--limit", "1").out == f"/{APP}/1.10/app-1.10.jar\n"
    assert casfs("find", store, "--repo", "libs", "--rev", "1.9", "--ext", "j*", "--classifier", "").code == 0
    assert casfs("find", store, "--org", "other") == (ExitCode.FAILED, "", "")
    assert (
        "unknown repository with a layout 'lips'; did you mean 'libs'?"
        in casfs("find", store, "--repo", "lips").err
    )


def test_find_prints_json(casfs, store):
    document = json.loads(casfs("find", store, "--module", "app", "--rev", "1.9", "--json").out)
    times = {name: document["files"][0][name] for name in ("mtime_ns", "atime_ns", "btime_ns")}
    assert all(isinstance(each, int) for each in times.values())
    assert document == {
        "scan": False,
        "files": [
            {
                "path": f"/{APP}/1.9/app-1.9.jar",
                "size": 3,
                **times,
                "digests": {"blake3": blake3(b"1.9").hexdigest()},
                "properties": {},
                "repository": "libs",
                "organisation": "acme",
                "module": "app",
                "revision": "1.9",
                "base_revision": "1.9",
                "integration_revision": "",
                "snapshot": False,
                "classifier": "",
                "extension": "jar",
                "type": "jar",
                "tokens": {},
            }
        ],
    }
    assert len(json.loads(casfs("find", store, "--repo", "libs", "--json").out)["files"]) == 3
    assert len(json.loads(casfs("find", store, "--json").out)["files"]) == 4
    nothing = casfs("find", store, "--org", "other", "--json")
    assert (nothing.code, json.loads(nothing.out)) == (ExitCode.FAILED, {"scan": False, "files": []})


def test_latest(casfs, store):
    assert casfs("latest", store, "acme:app") == (0, f"1.10\n/{APP}/1.10/app-1.10.jar\n", "")
    assert casfs("latest", store, "acme:app", "--snapshot").out.startswith("1.11-SNAPSHOT\n")
    document = json.loads(casfs("latest", store, "acme:app", "--repo", "libs", "--json").out)
    assert (document["revision"], len(document["artifacts"])) == ("1.10", 1)
    assert casfs("latest", store, "acme/app") == casfs("latest", store, "acme:app")
    assert "no release of acme.x:app" in casfs("latest", store, "acme/x:app").complaint
    nothing = casfs("latest", store, "acme:other")
    assert (nothing.code, nothing.complaint) == (ExitCode.FAILED, "there is no release of acme:other")
    assert "no pattern" in casfs("latest", store, "acme:*").complaint
    assert "names no module" in casfs("latest", store, "acme:").complaint


def test_info(casfs, store):
    code, out, err = casfs("info", "--store", store, f"/{APP}/1.9/app-1.9.jar")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"path: /{APP}/1.9/app-1.9.jar",
        "kind: regular file",
        "size: 3 B",
        f"digest: {blake3(b'1.9').hexdigest()}",
        "repository: libs, local",
        "layout: maven-2-default",
        "tokens:",
        "  org: acme",
        "  orgPath: acme",
        "  module: app",
        "  baseRev: 1.9",
        "  ext: jar",
        "  type: jar",
        "snapshot: no",
        "rules: none",
        "trash: kept for 14 days when it is removed",
    ]


def test_info_of_several_as_json(casfs, store):
    code, out, err = casfs("info", "--store", store, "--json", "/libs", f"/{APP}/notes\n", "/no")
    assert code == ExitCode.FAILED
    assert err == "casfs: error: /no: No such file or directory\n"
    directory, notes = json.loads(out)["files"]
    assert (directory["kind"], directory["repository"], directory["tokens"]) == ("directory", "libs", None)
    assert (notes["path"], notes["tokens"]) == (f"/{APP}/notes\n", None)
    assert notes["reason"].startswith("it stops ")


def test_info_wants_a_path_from_the_root_of_a_store_or_one_in_a_mount(casfs, store):
    assert "begin it with /" in casfs("info", "--store", store, "libs").complaint
    assert casfs("info", f"{store}/libs").code == ExitCode.NOT_MOUNTED


def test_find_by_a_digest_and_by_its_begin(casfs, store):
    whole = blake3(b"1.9").hexdigest()
    path = f"/{APP}/1.9/app-1.9.jar\n"
    assert casfs("find", store, "--blake3", whole) == (0, path, "")
    assert casfs("find", store, "--where", f"blake3={whole[:7].upper()}", "ext=jar") == (0, path, "")
    assert casfs("find", store, "--blake3", whole, "--name", "x*") == (1, "", "")
    code, out, err = casfs("find", store, "--blake3", blake3().hexdigest(), "-0")
    assert (code, out) == (0, f"/{APP}/notes\n\0")
    assert err == "casfs: note: no index answers this: all files are looked at\n"
    Damaged(Path(store)).sql(
        "INSERT INTO blob_digest SELECT id, 'md5', ? FROM blob WHERE blake3 = ?",
        hashlib.md5(b"1.9").digest(),
        bytes.fromhex(whole),
    )
    assert casfs("find", store, "--md5", hashlib.md5(b"1.9").hexdigest()).out == path
    code, out, err = casfs("find", store, "--md5", "0" * 32)
    assert (code, out) == (1, "")
    assert err.startswith("casfs: note: some contents have no md5 digest; 'casfs digests STORE --add md5'")
    others = casfs("find", store, "--where", "!md5=0").out  # not those of which it is not known
    assert others == f"/{APP}/notes\\n\n{path}"
    (found,) = json.loads(casfs("find", store, "--md5", hashlib.md5(b"1.9").hexdigest(), "--json").out)[
        "files"
    ]
    assert found["digests"] == {"blake3": whole, "md5": hashlib.md5(b"1.9").hexdigest()}


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--sha256", "xyz"], 2, "'sha256=xyz': 'x' is no hex digit"),
        (["--sha256", ""], 2, "'sha256=': a digest, or its begin, is wanted"),
        (["--sha256", "a" * 40], 2, "a sha256 has 64 hex digits, not 40, as sha1 has"),
        (["--where", "modul=app"], 2, "unknown term 'modul'; did you mean 'module'?"),
        (["--larger", "much"], 2, "'much' is no size"),
        (["--older", "long"], 2, "'long' is no time"),
        (["--keep", "some"], 2, "'some' is no whole number"),
        (
            ["--sha1", "a" * 40],
            1,
            "no content of this store has a sha1 digest; 'casfs digests STORE --add sha1'",
        ),
        (["--unused-since", "90d"], 1, "no repository of this store keeps access times; 'casfs repo set"),
    ],
)
def test_what_find_cannot_answer_is_one_clear_line(casfs, store, words, code, complaint):
    found = casfs("find", store, *words)
    assert (found.code, found.out) == (code, "")
    assert complaint in found.complaint


def test_find_by_properties(casfs, store):
    damaged = Damaged(Path(store))
    for revision, value in (("1.9", b"passed"), ("1.10", b"failed\nby hand")):
        ino = damaged.ino(f"/{APP}/{revision}/app-{revision}.jar")
        damaged.sql("INSERT INTO xattr VALUES (?, ?, ?)", ino, b"user.casfs.prop.qa", value)
        for line in value.decode().split("\n"):
            damaged.sql("INSERT INTO property VALUES (?, 'qa', ?)", ino, line)
    assert casfs("find", store, "--prop", "qa=passed") == (0, f"/{APP}/1.9/app-1.9.jar\n", "")
    assert casfs("find", store, "--prop", "qa", "--no-prop", "qa=passed").out == f"/{APP}/1.10/app-1.10.jar\n"
    assert casfs("find", store, "--ext", "jar", "--module", "app", "--no-prop", "qa").out.count("\n") == 1
    assert casfs("find", store, "--prop", "qa", "--count") == (0, "2\n", "")
    assert casfs("find", store, "--prop", "qa=x", "--count") == (1, "0\n", "")
    (found,) = json.loads(casfs("find", store, "--prop", "qa=failed", "--json").out)["files"]
    assert found["properties"] == {"qa": ["by hand", "failed"]}


def test_find_duplicates(casfs, store):
    with opened(store) as fs:
        for name in (b"copy", b"again"):
            make_file(fs, 1, name, b"1.9")
    code, out, err = casfs("find", store, "--duplicates")
    assert (code, err) == (0, "casfs: note: no index answers this: all contents are looked at\n")
    assert out.splitlines() == [
        "3 names, 3 B, 6 B saved",
        f"  /{APP}/1.9/app-1.9.jar",
        "  /copy",
        "  /again",
        "1 content with 3 names, 6 B saved",
    ]
    assert casfs("find", store, "--duplicates", "-0").out == f"/{APP}/1.9/app-1.9.jar\0/copy\0/again\0"
    assert casfs("find", store, "--duplicates", "--path", "/*y").code == 1
    assert json.loads(casfs("find", store, "--duplicates", "--json").out) == {
        "scan": True,
        "duplicates": [
            {
                "blake3": blake3(b"1.9").hexdigest(),
                "size": 3,
                "saves": 6,
                "paths": [f"/{APP}/1.9/app-1.9.jar", "/copy", "/again"],
            }
        ],
        "contents": 1,
        "names": 3,
        "saves": 6,
    }


def test_find_every_file_and_by_size_and_age(casfs, store):
    assert casfs("find", store, "--path", "libs/*").out.count("\n") == 4
    assert casfs("find", store).err == ""
    assert casfs("find", store, "--smaller", "1").out == f"/{APP}/notes\\n\n"
    assert casfs("find", store, "--larger", "0", "--newer", "1d", "--count").out == "3\n"
    assert casfs("find", store, "--older", "1d").code == 1
    assert casfs("find", store, "--path", "/libs/acme/*", "--name", "*.jar").err == (
        "casfs: note: no index answers this: all files below /libs/acme/ are looked at\n"
    )
    assert casfs("find", store, "--keep", "1", "--releases").out == f"/{APP}/1.9/app-1.9.jar\n"
