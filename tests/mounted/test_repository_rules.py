"""Rules of repositories as programs meet them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from casfs.repositories.rules import Rules
from tests.mounted.mounts import Mount, casfs
from tests.repositories.making import make_repository
from tests.session import Session

KIB = 1 << 10
MIB = 1 << 20
VERSION = "org/acme/app/1.0"
JAR = f"{VERSION}/app-1.0.jar"
NOBODY = 12345


def run(*words: str | Path, code: int = 0, **options: str | Path | int) -> str:
    """A program, which ends with `code`; what it says."""
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LC_ALL": "C"},
        **options,  # type: ignore[call-overload]
    )
    text: str = done.stdout + done.stderr
    assert done.returncode == code, (words, done.returncode, text)
    return text


def refused(number: int, verb: Callable[..., object], *args: object) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is looked at
        verb(*args)
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


@pytest.fixture
def ruled(new_mount: Callable[..., Mount]) -> Callable[..., Mount]:
    """Mount a store with repositories that have these rules, or mount it again with others."""
    made: list[Mount] = []

    def mount(**rules: Rules) -> Mount:
        place = made[0] if made else new_mount()
        if made:
            place.stop()
        made.append(place)
        session = Session(place.store)
        for name, each in rules.items():
            make_repository(session, name, with_rules=each)
        session.stop()
        place.start().assert_mode()
        return place

    return mount


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A version as a build leaves it."""
    folder = tmp_path / "build" / VERSION
    folder.mkdir(parents=True)
    for number in range(3):
        name = f"app-1.0{('', '-sources', '-javadoc')[number]}.jar"
        (folder / name).write_bytes(os.urandom(100 * KIB))
        (folder / f"{name}.sha1").write_text("0" * 40)
    return tmp_path / "build"


# Quotas


def df(place: Path) -> tuple[int, int, int, int]:
    """Size and free KiB, files and free files, as df(1) shows them."""
    blocks = run("df", "-k", "--output=size,avail", place).split()[-2:]
    files = run("df", "--output=itotal,iavail", place).split()[-2:]
    return int(blocks[0]), int(blocks[1]), int(files[0]), int(files[1])


def test_programs_stop_at_a_quota_and_df_shows_it(ruled: Callable[..., Mount], source: Path) -> None:
    mount = ruled(libs=Rules(quota_bytes=MIB, quota_files=8, soft_percent=50), other=Rules())
    mount.expect("repository libs: ")
    libs, other = mount.path / "libs", mount.path / "other"
    run("cp", "-r", source / "org", libs)
    if mount.mode == "native":
        assert df(libs)[:3] == (1024, 720, 8)
        assert df(libs / VERSION)[3] == df(libs / JAR)[3] == 2
        assert df(other)[0] > 1024
    full = run("dd", "if=/dev/zero", f"of={libs}/large", "bs=64K", "count=16", code=1)
    assert "Disk quota exceeded" in full
    assert (libs / "large").stat().st_size <= 724 * KIB
    assert sum(file.stat().st_size for file in libs.rglob("*") if file.is_file()) <= MIB
    run("rm", libs / "large")
    run("truncate", "-s", "2M", libs / "large", code=1)
    run("truncate", "-s", "700K", libs / "large")
    run("fallocate", "-l", "800K", libs / "large", code=1)
    (libs / "large").unlink()
    (other / "large").write_bytes(os.urandom(800 * KIB))
    run("cp", "--reflink=auto", other / "large", libs, code=1)
    (libs / "large").unlink()
    refused(errno.EDQUOT, os.rename, other / "large", libs / "large")
    refused(errno.EDQUOT, os.link, other / "large", libs / "large")
    run("mv", other / "large", libs, code=1)
    run("rm", "-f", libs / "large")
    assert (other / "large").stat().st_size == 800 * KIB
    for number in range(2):
        (libs / str(number)).touch()
    refused(errno.EDQUOT, (libs / "3").touch)
    run("rm", libs / "0", libs / "1")
    run("cp", "-a", libs / "org", other)
    run("mv", libs / "org", other / "moved")
    if mount.mode == "native":
        assert df(libs) == (1024, 1024, 8, 8)


def test_a_quota_is_right_after_kill_and_remount(ruled: Callable[..., Mount], source: Path) -> None:
    rules = Rules(quota_bytes=MIB)
    mount = ruled(libs=rules)
    mount.expect("repository libs: ")
    libs = mount.path / "libs"

    def left() -> int:
        """What is left is what can be written, to the byte."""
        there = sum(file.stat().st_size for file in libs.rglob("*") if file.is_file())
        with open(libs / "probe", "wb", buffering=0) as probe:
            refused(errno.EDQUOT, os.truncate, libs / "probe", MIB - there + 1)
            probe.truncate(MIB - there)
        (libs / "probe").unlink()
        return MIB - there

    run("cp", "-r", source / "org", libs)
    before = left()
    run("sync", libs)
    with suppress(OSError), open(libs / "unfinished", "wb") as file:
        file.write(bytes(300 * KIB))
        file.flush()
        mount.kill()
    mount.start()
    assert left() == before
    run("mv", libs / "org", mount.path / "out")
    assert left() == MIB
    mount.remount()
    run("mv", mount.path / "out", libs / "org")
    assert left() == before
    shutil.rmtree(libs / "org")
    assert left() == MIB


def test_a_quota_holds_for_users(ruled: Callable[..., Mount]) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")
    mount = ruled(libs=Rules(quota_bytes=100 * KIB))
    mount.expect("repository libs: ")
    (mount.path / "libs").chmod(0o777)
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    run(*user, "dd", "if=/dev/zero", f"of={mount.path}/libs/a", "bs=1K", "count=90")
    run(*user, "dd", "if=/dev/zero", f"of={mount.path}/libs/b", "bs=1K", "count=20", code=1)
    if mount.mode == "native":
        assert "100" in run(*user, "df", "-k", "--output=size", mount.path / "libs")


def test_many_writers_at_once_stay_within_a_quota(ruled: Callable[..., Mount]) -> None:
    mount = ruled(libs=Rules(quota_bytes=20 * MIB))
    mount.expect("repository libs: ")
    libs = mount.path / "libs"
    source = mount.path / "source"
    source.write_bytes(os.urandom(6 * MIB))
    commands = [["dd", "if=/dev/urandom", f"of={libs}/{number}", "bs=1M", "count=8"] for number in range(4)]
    commands += [["cp", str(source), f"{libs}/copy{number}"] for number in range(4)]
    writers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    codes = [writer.wait(120) for writer in writers]
    assert 1 in codes
    assert 0 < sum(file.stat().st_size for file in libs.iterdir()) <= 20 * MIB
    if mount.mode == "native":
        left = 20 * MIB - sum(file.stat().st_size for file in libs.iterdir())
        assert abs(df(libs)[1] - left // KIB) <= 4


def test_git_works_in_a_repository_with_a_quota(ruled: Callable[..., Mount]) -> None:
    mount = ruled(libs=Rules(quota_bytes=10 * MIB))
    tree = mount.path / "libs" / "work"
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", tree)
    run("git", "init", "-q", tree)
    for number in range(3):
        (tree / "file").write_text(f"{number}\n" * 1000)
        run(*git, "add", "file")
        run(*git, "commit", "-qm", str(number))
    run(*git, "gc", "-q")
    run(*git, "fsck", "--strict")


# Immutable releases


def test_programs_make_releases_once(ruled: Callable[..., Mount], source: Path) -> None:
    mount = ruled(libs=Rules(immutable=True))
    mount.expect("repository libs: ")
    libs = mount.path / "libs"
    content = (source / JAR).read_bytes()
    ways: tuple[tuple[str | Path, ...], ...] = (
        ("cp", "-r", source / "org", libs),
        ("cp", "-a", source / "org", libs),
        ("rsync", "-a", f"{source}/", f"{libs}/"),
        ("install", "-D", source / JAR, libs / JAR),
    )
    for number, way in enumerate(ways):
        run(*way)
        assert (libs / JAR).read_bytes() == content
        if number == 0:
            assert "Operation not permitted" in run("cp", source / JAR, libs / JAR, code=1)
            run("cp", "--remove-destination", source / JAR, libs / JAR, code=1)
            run("rm", "-f", libs / JAR, code=1)
            run("rm", "-rf", libs / "org", code=1)
            run("mv", libs / JAR, mount.path / "out", code=1)
            run("mv", libs / "org", mount.path / "out", code=1)
            run("truncate", "-s", "0", libs / JAR, code=1)
            run("dd", "if=/dev/zero", f"of={libs / JAR}", "count=1", "conv=notrunc", code=1)
            run("sh", "-c", f"echo x >> {libs / JAR}", code=2)
            (source / "new").write_bytes(b"another")
            run("rsync", "--ignore-times", source / "new", libs / JAR, code=23)
            run("tar", "-C", source, "-cf", source / "archive.tar", "org")
            run("tar", "-C", libs, "-xf", source / "archive.tar", code=2)
            run("rsync", "-a", "--size-only", f"{source}/org", f"{libs}/")
            assert not (mount.path / "out").exists()
            run("chmod", "600", libs / JAR)
            run("touch", "-d", "2001-01-01", libs / JAR)
        mount = ruled(libs=Rules())
        assert (libs / JAR).read_bytes() == content
        shutil.rmtree(libs / "org")
        mount = ruled(libs=Rules(immutable=True))
    run("tar", "-C", source, "-cf", source / "archive.tar", "org")
    run("tar", "-C", libs, "-xf", source / "archive.tar")
    temporary = (mount.path / "upload", libs / f"{JAR}.part", libs / VERSION / ".app.Xy12")
    for number, name in enumerate(temporary):
        run("cp", source / JAR, name)
        run("mv", name, libs / VERSION / f"app-1.0-{number}.zip")
    refused(errno.EPERM, os.unlink, libs / VERSION / "app-1.0-0.zip")
    run("cp", source / JAR, libs / "maven-metadata.xml")
    run("cp", source / f"{JAR}.sha1", libs / "maven-metadata.xml")


# Paths, kinds, read-only


def test_what_is_refused_and_said(ruled: Callable[..., Mount], source: Path) -> None:
    mount = ruled(libs=Rules(exclude=("**/*.exe",)), snap=Rules(releases=False), closed=Rules())
    mount.expect("repository (libs|snap|closed): ")
    libs, closed = mount.path / "libs", mount.path / "closed"
    run("cp", "-r", source / "org", closed)
    (source / "a.exe").touch()
    assert "Permission denied" in run("cp", source / "a.exe", libs, code=1)
    assert "Permission denied" in run("cp", "-r", source / "org", mount.path / "snap", code=1)
    assert (mount.path / "snap" / VERSION).is_dir()
    assert not (mount.path / "snap" / JAR).exists()
    log = (mount.store / "run" / "mount.log").read_text()
    assert "repository libs: a.exe is refused, EACCES: it is excluded by '**/*.exe'" in log
    assert f"repository snap: {JAR} is refused, EACCES: releases are not handled" in log
    mount = ruled(closed=Rules(read_only=True))
    for words in (
        ("touch", closed / "a"),
        ("touch", closed / JAR),
        ("mkdir", closed / "a"),
        ("rm", "-r", closed / "org"),
        ("mv", closed / "org", mount.path / "out"),
        ("chmod", "700", closed / JAR),
        ("cp", source / "a.exe", closed / JAR),
        ("truncate", "-s", "0", closed / JAR),
        ("ln", closed / JAR, mount.path / "out"),
    ):
        assert "Read-only file system" in run(*words, code=1)
    run("diff", "-r", source / "org", closed / "org")
    run("cp", "-a", closed / "org", libs)


def test_repositories_stay_in_the_root(ruled: Callable[..., Mount]) -> None:
    mount = ruled(libs=Rules())
    mount.expect("repository (libs|renamed): ")
    (mount.path / "out").mkdir()
    assert "busy" in run("mv", mount.path / "libs", mount.path / "out", code=1)
    run("mv", mount.path / "libs", mount.path / "renamed")
    refused(errno.EBUSY, os.rename, mount.path / "out", mount.path / "renamed")
    run("rmdir", mount.path / "renamed")
    mount.remount()
    assert os.listdir(mount.path) == ["out"]


def opened_at(path: Path) -> float:
    path.read_bytes()
    return path.stat().st_atime


def test_an_open_moves_the_time_of_access_once_a_day(ruled: Callable[..., Mount]) -> None:
    """Also where the accelerator answers it from a lease."""
    mount = ruled(libs=Rules(access_times="daily", access_times_since=1), other=Rules())
    files = [mount.path / name / "file" for name in ("libs", "other")]
    day, now = 86_400, time.time()
    for file in files:
        file.write_bytes(b"x" * 1000)
    for age in (3 * day, day / 2):
        for file in files:
            os.utime(file, (now - age, now))
        kept, other = (opened_at(file) for file in files)
        assert other == pytest.approx(now - age, abs=1e-3)
        assert kept == pytest.approx(now - age, abs=1e-3) if age < day else kept >= now
    soon = now - day + 4
    for file in files:
        os.getxattr(file, "user.casfs.blake3")  # sealed, so that it may be leased
        os.utime(file, (soon, now))
        assert opened_at(file) == opened_at(file) == pytest.approx(soon, abs=1e-3)
    time.sleep(max(0, now + 4.5 - time.time()))
    kept, other = (opened_at(file) for file in files)
    assert other == pytest.approx(soon, abs=1e-3)
    assert kept >= now
    os.utime(files[1], (now - 3 * day, now))
    assert opened_at(files[1]) < now - day
    casfs("repo", "set", mount.path, "other", "--access-times", "daily")
    assert opened_at(files[1]) >= now
    moved = [file.stat().st_atime_ns for file in files]
    mount.remount()
    assert [file.stat().st_atime_ns for file in files] == moved
