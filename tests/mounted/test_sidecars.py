"""Sidecars as programs read and write them: what they read is true, and what is false is refused."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount, casfs, sync_directory
from tests.security.users import as_user

ALGORITHMS = ("sha1", "sha256", "sha512", "md5")
SOMEBODY = 1234


def hexdigest(path: Path, algorithm: str) -> str:
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


@pytest.fixture
def made(new_mount: Callable[..., Mount], scratch: Path) -> Callable[..., Mount]:
    """A mount of a store with a repository `libs` that has sidecars."""

    def mounted(*words: str, options: str = "allow_other") -> Mount:
        store = scratch / "sidecars"
        casfs("init", store)
        casfs("repo", "create", store, "libs", *(words or ("--sidecars",)))
        return new_mount(store, options=options).start()

    return mounted


@pytest.fixture
def mount(made: Callable[..., Mount]) -> Mount:
    return made()


@pytest.fixture
def libs(mount: Mount) -> Path:
    """The repository, with a file."""
    return filled(mount)


def filled(mount: Mount) -> Path:
    libs = mount.path / "libs"
    (libs / "file").write_bytes(b"content")
    return libs


def is_listed(path: Path) -> bool:
    return path.name in os.listdir(path.parent)


def test_each_file_has_its_digests_beside_it(libs: Path) -> None:
    (libs / "deep").mkdir()
    for name, content in (("deep/large", os.urandom(3 << 20)), ("deep/empty", b""), ("deep/small", b"s")):
        (libs / name).write_bytes(content)
    for file in (libs / "file", *(libs / "deep").iterdir()):
        for algorithm in ALGORITHMS:
            sidecar = libs / f"{file}.{algorithm}"
            expected = hexdigest(file, algorithm)
            assert sidecar.stat().st_size == len(expected)
            assert sidecar.read_text() == expected
    assert sorted(os.listdir(libs)) == ["deep", "file"]
    for name in ("deep.sha1", "none.sha1", "file.sha1.md5", "file.crc32c", ".sha1", "file.SHA1"):
        assert not (libs / name).exists()


def test_the_digest_follows_the_file(libs: Path) -> None:
    for content in (b"new", b"newer and longer", b""):
        (libs / "file").write_bytes(content)
        assert (libs / "file.sha1").read_text() == hashlib.sha1(content).hexdigest()
    (libs / "file").rename(libs / "other")
    assert not (libs / "file.sha1").exists()
    assert (libs / "other.sha1").read_text() == hashlib.sha1(b"").hexdigest()
    (libs / "other").unlink()
    assert not (libs / "other.sha1").exists()


def test_a_file_that_is_being_written_has_no_digest_yet(libs: Path) -> None:
    with (libs / "file").open("ab", buffering=0) as file:
        file.write(b"more")
        with pytest.raises(OSError, match="busy"):
            (libs / "file.md5").read_text()
        file.write(b"more")
    assert (libs / "file.md5").read_text() == hexdigest(libs / "file", "md5")


@pytest.mark.parametrize("policy", ["client", "server"])
def test_what_is_false_is_refused_or_comes_to_nothing(made: Callable[..., Mount], policy: str) -> None:
    mount = made("--sidecars", "--checksums", policy)
    libs = filled(mount)
    mount.expect(r"libs/file\.sha1 says ", r"libs/file\.md5 says ")
    for name, text in (("file.sha1", "0" * 40), ("file.sha1", "no digest"), ("file.md5", "0" * 100_000)):
        file = (libs / name).open("w")
        file.write(text)
        if policy == "client":
            with pytest.raises(OSError, match="Input/output") as raised:
                file.close()
            assert raised.value.errno == errno.EIO
        else:
            file.close()
        assert (libs / name).read_text() == hexdigest(libs / "file", name[5:])
        assert not is_listed(libs / name)
    assert (libs / "file").read_bytes() == b"content"
    sync_directory(libs)
    mount.kill()
    mount.start()
    assert sorted(os.listdir(libs)) == ["file"]


def test_what_is_true_stays_as_it_was_written(libs: Path) -> None:
    texts = {
        "sha1": hexdigest(libs / "file", "sha1").upper(),
        "sha256": hexdigest(libs / "file", "sha256") + "  file\n",
        "sha512": f"SHA512 (file) = {hexdigest(libs / 'file', 'sha512')}\n",
        "md5": hexdigest(libs / "file", "md5") + "   \n\n",
    }
    for algorithm, text in texts.items():
        sidecar = libs / f"file.{algorithm}"
        sidecar.write_text(text)
        os.utime(sidecar, (1, 1))
        assert is_listed(sidecar)
        assert (sidecar.read_text(), sidecar.stat().st_mtime) == (text, 1)
    (libs / "file").write_bytes(b"other")  # now they are about what has gone
    assert sorted(os.listdir(libs)) == ["file"]
    assert (libs / "file.sha256").read_text() == hexdigest(libs / "file", "sha256")


@pytest.mark.parametrize("policy", ["client", "server"])
def test_a_claim_that_comes_first_is_compared_when_the_file_comes(
    made: Callable[..., Mount], policy: str
) -> None:
    mount = made("--sidecars", "--checksums", policy)
    libs = filled(mount)
    mount.expect(r"libs/late\.md5 says ")
    (libs / "true.sha1").write_text(hashlib.sha1(b"late").hexdigest())
    (libs / "true").write_bytes(b"late")
    assert is_listed(libs / "true.sha1")
    (libs / "late.md5").write_text("0" * 32)
    file = (libs / "late").open("wb")
    file.write(b"late")
    if policy == "client":
        with pytest.raises(OSError, match="Input/output"):
            file.close()
        assert (libs / "late.md5").read_text() == "0" * 32
    else:
        file.close()
        assert (libs / "late.md5").read_text() == hashlib.md5(b"late").hexdigest()
    assert (libs / "late").read_bytes() == b"late"


def test_a_name_is_given_to_what_is_true_only(libs: Path, mount: Mount) -> None:
    mount.expect(r"libs/file\.sha1 says ", r"libs/new\.sha1 says ", r"libs/linked\.sha1 says")
    (libs / ".tmp").write_text("0" * 40)
    with pytest.raises(OSError, match="Input/output"):
        (libs / ".tmp").rename(libs / "file.sha1")
    (libs / ".tmp").write_text(hexdigest(libs / "file", "sha1"))
    (libs / ".tmp").rename(libs / "file.sha1")
    assert is_listed(libs / "file.sha1")
    # A file that takes the place of another one
    (libs / ".tmp").write_bytes(b"replaced")
    (libs / ".tmp").rename(libs / "file")
    assert (libs / "file").read_bytes() == b"replaced"
    assert_soon(lambda: (libs / "file.sha1").read_text() == hashlib.sha1(b"replaced").hexdigest())
    # One that takes a name of which something false is said
    for take, name in ((os.rename, "new"), (os.link, "linked")):
        (libs / f"{name}.sha1").write_text("0" * 40)
        (libs / ".tmp").write_bytes(b"new")
        with pytest.raises(OSError, match="Input/output"):
            take(libs / ".tmp", libs / name)
        assert not (libs / name).exists()


def assert_soon(condition: Callable[[], bool]) -> None:
    """The kernel is told of it after the request that it is due to."""
    import time

    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_directory_with_the_name_of_a_sidecar_is_a_directory(libs: Path) -> None:
    (libs / "x.sha1").mkdir()
    (libs / "x").write_bytes(b"x")
    assert (libs / "x.sha1").is_dir()
    assert (libs / "x.md5").read_text() == hashlib.md5(b"x").hexdigest()


@pytest.mark.parametrize("listed", ["yes", "listed"])
def test_trees_with_sidecars_are_copied_by_every_program(
    made: Callable[..., Mount], tmp_path: Path, listed: str
) -> None:
    mount = made("--sidecars", listed)
    libs = filled(mount)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"{number}.jar").write_bytes(os.urandom(1000))
        for algorithm in ("sha1", "md5"):
            (tree / f"{number}.jar.{algorithm}").write_text(hexdigest(tree / f"{number}.jar", algorithm))
    for path in tree.iterdir():
        os.utime(path, (10, 10))
    expected = sorted(path.name for path in tree.iterdir())

    def stored(copy: Path) -> list[str]:
        return sorted(name for name in os.listdir(copy) if "sha256" not in name and "sha512" not in name)

    def run(*words: str | Path) -> str:
        return subprocess.run(words, check=True, capture_output=True, text=True, cwd=libs).stdout

    run("cp", "-a", tree, libs / "cp")
    run("cp", "-a", f"{tree}/.", libs / "cp")
    run("tar", "-C", tree.parent, "-cf", tmp_path / "tar", "tree")
    for _ in range(2):
        run("tar", "-xf", tmp_path / "tar")
    run("rsync", "-a", f"{tree}/", libs / "rsync")
    changed = run("rsync", "-ai", f"{tree}/", libs / "rsync")
    assert changed == ""
    shutil.copytree(tree, libs / "copytree")
    run("install", "-m", "644", tree / "1.jar.sha1", libs / "cp/1.jar.sha1")
    copies = ["cp", "tree", "rsync", "copytree"]
    if listed == "yes":  # what is generated has no second name
        run("cp", "-al", libs / "cp", libs / "links")
        copies.append("links")
    for copy in copies:
        assert stored(libs / copy) == expected
        for path in tree.iterdir():
            assert (libs / copy / path.name).read_bytes() == path.read_bytes()
    for copy in copies:
        run("rm", "-r", copy)
    assert not (libs / "cp").exists()


def test_they_are_listed_where_that_is_asked_for(made: Callable[..., Mount]) -> None:
    mount = made("--sidecars", "listed")
    libs = filled(mount)
    (libs / "many").mkdir()
    for number in range(300):
        (libs / "many" / f"file{number}").write_bytes(b"%d" % number)
    (libs / "many/file7.sha1").write_text(hexdigest(libs / "many/file7", "sha1") + "\n")
    (libs / "many/directory").mkdir()
    names = os.listdir(libs / "many")
    assert len(names) == len(set(names)) == 300 * 5 + 1
    for entry in os.scandir(libs / "many"):
        assert entry.name == "directory" or entry.is_file()
    one_by_one = subprocess.run(
        ["find", libs / "many", "-name", "*.md5", "-size", "-1024c"], check=True, capture_output=True
    )
    assert len(one_by_one.stdout.split()) == 300
    subprocess.run(["chmod", "-R", "go-r", libs / "many"], check=True)
    casfs("repo", "set", mount.store, "libs", "--no-sidecars")
    assert not (libs / "file.sha1").exists()
    assert len(os.listdir(libs / "many")) == 302


def test_trees_show_them_too(made: Callable[..., Mount]) -> None:
    mount = made("--sidecars", "--layout", "maven-2-default")
    casfs("repo", "create", mount.store, "all", "--virtual", "libs", "--deploy", "libs")
    casfs("repo", "create", mount.store, "ivy", "--view", "libs", "--layout", "ivy-default")
    place = mount.path / "libs/org/acme/app/1.0"
    place.mkdir(parents=True)
    (place / "app-1.0.jar").write_bytes(b"jar")
    sha1 = hashlib.sha1(b"jar").hexdigest()
    shown = mount.path / "all/org/acme/app/1.0/app-1.0.jar"
    assert shown.read_bytes() == b"jar"
    assert Path(f"{shown}.sha1").read_text() == sha1
    [jar] = (mount.path / "ivy").rglob("*.jar")
    assert Path(f"{jar}.sha1").read_text() == sha1
    Path(f"{shown}.sha1").write_text(sha1 + "\n")
    assert (place / "app-1.0.jar.sha1").read_text() == sha1 + "\n"
    mount.expect("says")
    with pytest.raises(OSError, match="Input/output"):
        Path(f"{shown}.md5").write_text("0" * 32)


def test_who_may_not_read_the_file_reads_no_digest_of_it(libs: Path) -> None:
    (libs / "file").chmod(0o600)
    with pytest.raises(PermissionError):
        as_user(SOMEBODY, (libs / "file.sha1").read_bytes)
    (libs / "file").chmod(0o644)
    assert as_user(SOMEBODY, (libs / "file.sha1").read_bytes).decode() == hexdigest(libs / "file", "sha1")


def test_who_may_not_make_names_there_makes_no_sidecar(libs: Path) -> None:
    """The kernel asks for the right to write to a file, which it takes to be there."""
    (libs / "file").chmod(0o666)
    libs.chmod(0o755)
    with pytest.raises(PermissionError):
        as_user(SOMEBODY, lambda: (libs / "file.sha1").write_text(hexdigest(libs / "file", "sha1")))
    assert not is_listed(libs / "file.sha1")
    os.chown(libs, 0, SOMEBODY)
    libs.chmod(0o775)
    text = hexdigest(libs / "file", "sha1")
    as_user(SOMEBODY, lambda: (libs / "file.sha1").write_text(text), SOMEBODY)
    assert is_listed(libs / "file.sha1")
    assert (libs / "file.sha1").stat().st_uid == SOMEBODY


def test_an_empty_claim_goes_when_it_is_left(libs: Path) -> None:
    for make in ("touch file.sha1", ": > file.sha1", "truncate -s 0 file.sha1"):
        subprocess.run(make, shell=True, check=True, cwd=libs)
        assert_soon(lambda: (libs / "file.sha1").read_text() == hexdigest(libs / "file", "sha1"))
        assert not is_listed(libs / "file.sha1")
    subprocess.run("sha1sum < file > file.sha1", shell=True, check=True, cwd=libs)
    assert (libs / "file.sha1").read_text() == hexdigest(libs / "file", "sha1") + "  -\n"


def test_what_is_appended_to_a_generated_sidecar_is_all_of_it(libs: Path) -> None:
    """The kernel takes what it has read the size of for what is there already."""
    text = hexdigest(libs / "file", "sha1")
    assert (libs / "file.sha1").read_text() == text
    with (libs / "file.sha1").open("ab", buffering=0) as file:
        file.write(text[:7].encode())
        file.write(text[7:].encode() + b"\n")
    assert (libs / "file.sha1").read_text() == text + "\n"
    subprocess.run("md5sum < file >> file.md5", shell=True, check=True, cwd=libs)
    assert (libs / "file.md5").read_text() == hexdigest(libs / "file", "md5") + "  -\n"


def test_an_open_sidecar_is_that_of_its_own_name(libs: Path) -> None:
    """Both names of the file have one generated inode for theirs."""
    for directory in ("a", "b"):
        (libs / directory).mkdir()
    (libs / "a/file").write_bytes(b"content")
    os.link(libs / "a/file", libs / "b/file")
    with (libs / "a/file.sha1").open("wb", buffering=0) as file:
        (libs / "b/file.sha1").stat()
        file.write(b"nothing of sense")
        file.truncate(0)
        os.utime(file.fileno(), (5, 5))
        os.pwrite(file.fileno(), hexdigest(libs / "file", "sha1").encode(), 0)
    assert is_listed(libs / "a/file.sha1")
    assert not is_listed(libs / "b/file.sha1")


def test_what_is_generated_can_be_looked_through_as_any_file(libs: Path) -> None:
    fd = os.open(libs / "file.sha1", os.O_RDONLY)
    try:
        assert os.lseek(fd, 3, os.SEEK_DATA) == 3
        assert os.lseek(fd, 3, os.SEEK_HOLE) == os.lseek(fd, 0, os.SEEK_END) == 40
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(fd, 40, os.SEEK_DATA)
        os.fsync(fd)
    finally:
        os.close(fd)
    for algorithm in ("blake3", "sha1"):
        with pytest.raises(OSError, match="No data"):
            os.getxattr(libs / "file.sha1", f"user.casfs.{algorithm}")


def test_an_access_list_counts_for_the_digests_too(libs: Path) -> None:
    """Its mask is what the mode shows as the permissions of the group."""
    os.chown(libs / "file", 0, SOMEBODY)
    (libs / "file").chmod(0o640)
    subprocess.run(["setfacl", "-m", f"u:{SOMEBODY + 1}:r,g::-", libs / "file"], check=True)
    for read in (libs / "file").read_bytes, (libs / "file.sha1").read_bytes:
        as_user(SOMEBODY + 1, read)
        with pytest.raises(PermissionError):
            as_user(SOMEBODY + 2, read, SOMEBODY)


def test_they_are_shown_as_files_are(made: Callable[..., Mount]) -> None:
    libs = filled(made("--sidecars", "listed", options=f"allow_other,uid={SOMEBODY},gid=7,umask=077"))
    for path in (libs / "file.sha1", *(Path(entry.path) for entry in os.scandir(libs))):
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (SOMEBODY, 7, 0o700)
    with pytest.raises(PermissionError):
        as_user(SOMEBODY + 1, (libs / "file.sha1").read_bytes)


def test_claims_stay_when_what_would_make_them_false_is_refused(made: Callable[..., Mount]) -> None:
    mount = made()
    libs = filled(mount)
    text = hexdigest(libs / "file", "sha1") + "  as it was written\n"
    (libs / "file.sha1").write_text(text)
    (libs / "other").write_bytes(b"other")
    casfs("repo", "set", mount.store, "libs", "--exclude", "file")
    mount.expect("file")
    with pytest.raises(OSError, match="file"):
        (libs / "other").rename(libs / "file")
    assert (libs / "file.sha1").read_text() == text
    assert sorted(os.listdir(libs)) == ["file", "file.sha1", "other"]


def test_files_that_are_exchanged_lose_the_claims_about_each_other(libs: Path) -> None:
    for name in ("a", "b"):
        (libs / name).write_text(name)
        (libs / f"{name}.sha1").write_text(hexdigest(libs / name, "sha1") + "\n")
    exchange(libs / "a", libs / "b")
    assert ((libs / "a").read_text(), (libs / "b").read_text()) == ("b", "a")
    for name in ("a", "b"):
        assert_soon(lambda name=name: (libs / f"{name}.sha1").read_text() == hexdigest(libs / name, "sha1"))  # type: ignore[misc]


def exchange(first: Path, second: Path) -> None:
    rename_with(first, second, 2)


def rename_with(old: Path, new: Path, flags: int) -> None:
    """renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, bytes(old), -100, bytes(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_a_claim_takes_a_name_that_it_must_not_replace(libs: Path) -> None:
    """What is generated there is not in the way of who makes sure that nothing is."""
    (libs / "claim").write_text(hexdigest(libs / "file", "sha1") + "\n")
    rename_with(libs / "claim", libs / "file.sha1", 1)
    assert sorted(os.listdir(libs)) == ["file", "file.sha1"]
    (libs / "claim").write_text(hexdigest(libs / "file", "sha1"))
    with pytest.raises(FileExistsError):
        rename_with(libs / "claim", libs / "file.sha1", 1)


def test_by_the_server_s_policy_a_false_claim_that_is_renamed_goes(made: Callable[..., Mount]) -> None:
    libs = filled(made("--sidecars", "--checksums", "server"))
    (libs / "claim").write_text("0" * 40)
    (libs / "claim").rename(libs / "file.sha1")
    assert_soon(lambda: (libs / "file.sha1").read_text() == hexdigest(libs / "file", "sha1"))
    assert os.listdir(libs) == ["file"]
    (libs / "file").rename(libs / "file.sha1")  # which is no claim about itself
    assert (libs / "file.sha1").read_bytes() == b"content"


def test_a_file_that_gets_its_name_before_it_is_closed_is_compared_then(libs: Path, mount: Mount) -> None:
    mount.expect(r"libs/late\.sha1 says ")
    (libs / "late.sha1").write_text("0" * 40)
    file = (libs / ".tmp").open("wb", buffering=0)
    file.write(b"late")
    (libs / ".tmp").rename(libs / "late")
    with pytest.raises(OSError, match="Input/output"):
        file.close()
    assert (libs / "late.sha1").read_text() == "0" * 40


def test_names_that_would_be_too_long_are_not_listed(made: Callable[..., Mount]) -> None:
    libs = filled(made("--sidecars", "listed"))
    (libs / "file").rename(libs / ("n" * 250))
    names = os.listdir(libs)
    assert sorted(map(len, names)) == [250, 254, 255]
    for name in names:
        (libs / name).stat()
