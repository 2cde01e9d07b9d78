"""What is searched for is what the tree shows, at once after programs have changed it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from tests.mounted.mounts import Mount, asked, casfs

DEBIAN = Path("/usr/share/maven-repo")
REAL = (Path(__file__).parents[1] / "layouts" / "maven-repo.txt").read_text().split()
SOURCES = ["org/apache", "org/slf4j", "commons-io"]


@pytest.fixture
def libs(mount: Mount) -> Path:
    """A repository for Maven, with artifacts of Debian's or with files that are called so."""
    libs = mount.path / "libs"
    libs.mkdir()
    mount.stop()
    with closing(sqlite3.connect(mount.store / "casfs.db")) as database:
        ((ino,),) = database.execute("SELECT ino FROM dentry WHERE name = CAST('libs' AS BLOB)")
        database.execute("INSERT INTO repository VALUES (?, 'local', 'maven-2-default', NULL, '{}')", (ino,))
        database.commit()
    mount.start()
    (libs / "org").mkdir()
    for source in SOURCES:
        if (DEBIAN / source).is_dir():
            subprocess.run(["cp", "-rL", DEBIAN / source, libs / source], check=True)
        else:
            for path in (path for path in REAL if path.startswith(f"{source}/")):
                (libs / path).parent.mkdir(parents=True, exist_ok=True)
                (libs / path).write_text(path)
    return libs


def found(mount: Mount, *words: str) -> list[str]:
    return asked("find", mount.path, *words).splitlines()


def walked(libs: Path, name: str) -> list[str]:
    return sorted(str(path) for path in libs.rglob(name) if path.is_file())


def test_what_is_found_is_what_is_there(mount: Mount, libs: Path) -> None:
    assert sorted(found(mount, "--ext", "pom")) == walked(libs, "*.pom") != []
    shutil.move(libs / "org" / "apache", libs / "org" / "other")
    assert sorted(found(mount, "--ext", "pom")) == walked(libs, "*.pom")
    some = found(mount, "--org", "org.other*", "--ext", "pom")[0]
    os.unlink(some)
    assert some not in found(mount, "--ext", "pom")
    subprocess.run(["rm", "-r", libs / "org" / "other"], check=True)
    assert sorted(found(mount, "--ext", "pom")) == walked(libs, "*.pom")
    shutil.move(libs, mount.path / "renamed")
    assert sorted(found(mount, "--ext", "pom")) == walked(mount.path / "renamed", "*.pom") != []
    casfs("cp", "-r", mount.path / "renamed", mount.path / "plain")
    assert sorted(found(mount, "--ext", "pom")) == walked(mount.path / "renamed", "*.pom")
    subprocess.run(["rm", "-r", mount.path / "renamed" / "org"], check=True)
    assert sorted(found(mount, "--ext", "pom")) == walked(mount.path / "renamed", "*.pom")


def test_the_newest_release_and_what_is_known_of_it(mount: Mount, libs: Path) -> None:
    for revision in ("1.9", "1.10", "1.10-rc-1", "2.0-SNAPSHOT"):
        path = libs / "acme" / "app" / revision / f"app-{revision}.jar"
        path.parent.mkdir(parents=True)
        path.write_text(revision)
    newest = libs / "acme" / "app" / "1.10" / "app-1.10.jar"
    assert casfs("latest", mount.path, "acme:app") == f"1.10\n{newest}\n"
    assert casfs("latest", mount.path, "acme:app", "--snapshot").startswith("2.0-SNAPSHOT\n")
    complaint = casfs("latest", mount.path, "acme:none", code=1)
    assert complaint == "casfs: error: there is no release of acme:none\n"
    (known,) = json.loads(casfs("info", "--json", newest))["files"]
    assert known["path"] == "/libs/acme/app/1.10/app-1.10.jar"
    assert known["blake3"] == blake3(b"1.10").hexdigest()
    assert (known["layout"], known["tokens"]["baseRev"]) == ("maven-2-default", "1.10")
    os.link(newest, mount.path / "link")
    text = casfs("info", mount.path / "link")
    assert "  1: /libs/acme/app/1.10/app-1.10.jar\n  2: /link\n" in text
    assert "layout" not in text


def test_the_collector_cleans_up_snapshots_of_an_unmounted_store(mount: Mount, libs: Path) -> None:
    folder = libs / "acme" / "app" / "1.0-SNAPSHOT"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"app-1.0-20240102.03040{number}-1.jar").write_text(str(number))
    mount.stop()
    with closing(sqlite3.connect(mount.store / "casfs.db")) as database:
        rules = '{"max_unique_snapshots": 2}'
        database.execute("UPDATE repository SET rules = ?", (rules,))
        database.execute(
            "UPDATE inode SET btime_ns = btime_ns - 120000000000, ctime_ns = ctime_ns - 120000000000"
        )
        database.commit()
    casfs("gc", "run", mount.store)
    mount.start()
    assert sorted(os.listdir(folder)) == [f"app-1.0-20240102.03040{number}-1.jar" for number in (3, 4)]
    assert found(mount, "--org", "acme") == [str(folder / name) for name in sorted(os.listdir(folder))]
    trash = json.loads(asked("trash", "list", mount.path, "--json"))["files"]
    assert len(trash) == 3


def deploy(libs: Path, revision: str, days: int = 0) -> Path:
    path = libs / "acme" / "app" / "1.0-SNAPSHOT" / f"app-1.0-{revision}.jar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(revision.encode())
    moment = path.stat().st_mtime - days * 86_400
    os.utime(path, (moment, moment))
    return path


def test_old_snapshots_are_removed_but_the_newest_and_those_that_are_kept(mount: Mount) -> None:
    casfs("repo", "create", mount.path, "libs", "--layout", "maven-2-default")
    libs = mount.path / "libs"
    jars = [deploy(libs, f"2024010{number}.030405-{number}", days=99) for number in range(1, 7)]
    young = deploy(libs, "20240100.030405-0")
    os.setxattr(jars[0], "user.casfs.prop.keep", b"yes")
    others = mount.path / "others"
    others.write_bytes(b"x")
    words = ("rm", mount.path, "--where", "snapshots", "keep=3", "older=30d", "!prop.keep")
    with open(jars[2], "rb") as reader:  # who reads goes on
        listed = casfs(*words, "-n").splitlines()
        assert listed[:-1] == [str(path) for path in jars[1:3]]
        assert casfs(*words) == "removed 2 files, 34 B\n"
        assert reader.read() == b"20240103.030405-3"
    assert sorted(os.listdir(jars[0].parent)) == sorted(path.name for path in [young, jars[0], *jars[3:]])
    assert casfs(*words) == "removed 0 files, 0 B\n"
    assert found(mount, "--prop", "keep") == [str(jars[0])]
    with open(young, "ab") as writer:
        writer.write(b"more")
        writer.flush()
        complaint = casfs("rm", libs, "--where", f"name={young.name}", code=1)
    assert "1 more have changed since they were found" in complaint
    assert young.exists()


def test_what_has_passed_is_promoted_from_one_repository_to_another(mount: Mount) -> None:
    for name in ("staging", "libs"):
        casfs("repo", "create", mount.path, name, "--layout", "maven-2-default")
    paths = [f"acme/app/1.{number}/app-1.{number}.jar" for number in range(4)]
    for path in paths:
        target = mount.path / "staging" / path
        target.parent.mkdir(parents=True)
        target.write_text(path)
    for path in paths[:2]:
        os.setxattr(mount.path / "staging" / path, "user.casfs.prop.qa", b"passed\nby hand")
    assert not (mount.path / "libs" / "acme").exists()
    copy = ("cp", mount.path / "staging", mount.path / "libs", "--where", "prop.qa=passed")
    assert casfs(*copy) == f"copied 2 files, {2 * len(paths[0])} B\n"
    assert found(mount, "--repo", "libs") == [str(mount.path / "libs" / path) for path in paths[:2]]
    assert os.getxattr(mount.path / "libs" / paths[0], "user.casfs.prop.qa") == b"passed\nby hand"
    assert (mount.path / "libs" / paths[1]).read_text() == paths[1]
    move = ("mv", mount.path / "staging", mount.path / "libs", "--where", "!prop.qa")
    assert casfs(*move).startswith("moved 2 files")
    assert [(mount.path / "libs" / path).read_text() for path in paths] == paths
    whole = blake3(paths[3].encode()).hexdigest()
    assert found(mount, "--blake3", whole[:9]) == [str(mount.path / "libs" / paths[3])]
    assert casfs("find", mount.path, "--sha1", "ab", code=1).startswith("casfs: error: no content")


def test_others_search_no_store_that_is_not_theirs(mount: Mount) -> None:
    (mount.path / "file").write_bytes(b"x")
    word = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", sys.executable, "-m", "casfs"]
    done = subprocess.run([*word, "find", mount.store], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
