"""`casfs info`, `find` and `latest` on a store that is not mounted."""

from __future__ import annotations

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
    assert casfs("find", store, "--limit", "1").out == f"/{APP}/1.10/app-1.10.jar\n"
    assert casfs("find", store, "--repo", "libs", "--rev", "1.9", "--ext", "j*", "--classifier", "").code == 0
    assert casfs("find", store, "--org", "other") == (ExitCode.FAILED, "", "")
    assert (
        "unknown repository with a layout 'lips'; did you mean 'libs'?"
        in casfs("find", store, "--repo", "lips").err
    )


def test_find_prints_json(casfs, store):
    document = json.loads(casfs("find", store, "--rev", "1.9", "--json").out)
    assert document == {
        "artifacts": [
            {
                "path": f"/{APP}/1.9/app-1.9.jar",
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
        ]
    }
    assert len(json.loads(casfs("find", store, "--json").out)["artifacts"]) == 3
    nothing = casfs("find", store, "--org", "other", "--json")
    assert (nothing.code, json.loads(nothing.out)) == (ExitCode.FAILED, {"artifacts": []})


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
