"""Where commands are called from: closed descriptors, environments, odd paths, folders of others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import CASFS, ENVIRONMENT, MODES, Mount, casfs, is_mounted
from tests.security.attempts import folder, put
from tests.security.users import OTHER, OWNER, acting, apart


@pytest.fixture
def mode() -> str:
    """One will do: it is about how daemons are started."""
    return MODES[0]


def called(*words: str | Path, closed: tuple[int, ...] = (), **options: object) -> int:
    """The exit code of a command whose standard descriptors are closed in part."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    given = {"env": ENVIRONMENT, "timeout": 100, **options}
    return subprocess.run([*CASFS, *words], preexec_fn=close, **given).returncode  # type: ignore[call-overload]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_mount_with_closed_descriptors_lost_what_was_written(
    new_mount: Callable[..., Mount], closed: tuple[int, ...]
) -> None:
    """The daemon opened the store as 0, 1 and 2, and put /dev/null there on its way to the background."""
    mount = new_mount(options="allow_other")
    assert called("mount", mount.store, mount.path, "-o", "allow_other", closed=closed) == 0
    standard = {os.readlink(f"/proc/{mount.pid}/fd/{fd}") for fd in range(3)}
    assert standard == {os.devnull}
    put(mount.path / "file", 0, 0o600, b"content")
    assert called("cp", mount.path / "file", mount.path / "copy", closed=closed) == 0
    assert called("umount", mount.path, closed=closed) == 0
    assert called("fsck", "--deep", "--repair", mount.store, closed=closed) == 0
    mount.start()
    assert (mount.path / "copy").read_bytes() == b"content"


ENVIRONMENTS = {
    "nothing": {},
    "no path": {"PATH": ""},
    "no home": {"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    "preload": {**os.environ, "LD_PRELOAD": "/nonexistent.so", "PYTHONSTARTUP": "/nonexistent"},
    "terminal": {**os.environ, "COLUMNS": "abc", "TERM": "\x1b[31m", "LC_ALL": "nonexistent"},
    "temporary": {**os.environ, "TMPDIR": "/nonexistent"},
}


def test_a_store_whose_path_is_no_text_is_refused_before_it_is_made(scratch: Path) -> None:
    """SQLite takes UTF-8 only: `casfs init` ended with an internal error, and left half a store."""
    store = os.fsdecode(os.fsencode(scratch) + b"/\xffstore")
    assert r"has to be UTF-8, which" in casfs("init", store, code=2)
    assert not os.path.lexists(store)


def test_commands_work_in_any_environment(new_mount: Callable[..., Mount]) -> None:
    mount = new_mount(options="allow_other")
    for name, environment in ENVIRONMENTS.items():
        env = {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"], **environment}
        for words in (
            ("mount", mount.store, mount.path, "-o", "allow_other"),
            ("status", mount.path),
            ("umount", mount.path),
        ):
            assert called(*words, env=env, stdout=subprocess.DEVNULL) == 0, (name, words)


def test_commands_say_that_the_current_directory_is_gone(new_mount: Callable[..., Mount]) -> None:
    mount = new_mount(options="allow_other").start()
    gone = mount.store.parent / "gone"
    gone.mkdir()

    def command(*words: str | Path) -> int:
        def leave() -> None:
            os.rmdir(gone)

        done = subprocess.run(
            [*CASFS, *words], cwd=gone, preexec_fn=leave, env=ENVIRONMENT, capture_output=True, text=True
        )
        gone.mkdir()
        assert "internal error" not in done.stderr
        assert done.stderr.count("\n") == (done.returncode != 0)
        return done.returncode

    assert command("status", mount.path) == 0
    assert [command(*words) for words in (("df", "store"), ("cp", "a", "b"), ("init", "x"))] == [1, 1, 1]
    assert command("umount", mount.path) == 0


@pytest.mark.parametrize("name", ["new\nline", "\x1b[31mred\a", "comma,=\\040 space", "-o", 'it\'s "$(x)"'])
def test_stores_and_mount_points_have_any_names(
    scratch: Path, new_mount: Callable[..., Mount], name: str
) -> None:
    place = scratch / name
    place.mkdir()
    mount = new_mount(store=place / "store")
    mount.path = place / "mnt"
    mount.path.mkdir()
    mount.start("allow_other")
    put(mount.path / "a\nb", 0, 0o600)
    casfs("cp", mount.path / "a\nb", mount.path / "c\x1b[2J")
    assert "\n" not in casfs("mv", mount.path / "none\n\x1b[2J", mount.path / "x", code=1).rstrip("\n")
    listed = casfs("status", mount.path)
    assert "\x1b" not in listed
    assert "\nline" not in listed
    mount.stop()


def test_a_mount_point_has_a_path_as_long_as_paths_are(
    scratch: Path, new_mount: Callable[..., Mount]
) -> None:
    mount = new_mount()
    path = str(scratch)
    while len(path) < 4095 - 202:
        path += "/" + "l" * 200
    path += "/" + "m" * (4095 - len(path) - 3)
    os.makedirs(path)
    mount.path = Path(path)
    mount.start("allow_other")
    put(mount.path / "f", 0, 0o600)
    casfs("cp", mount.path / "f", mount.path / "g")
    casfs("umount", mount.path)


def test_root_mounts_in_the_folder_of_another(scratch: Path, new_mount: Callable[..., Mount]) -> None:
    """He may not take it away or put something in its place, and finds it with root's modes."""
    his = folder(scratch / "his", OWNER, 0o755)
    mount = new_mount()
    mount.path = folder(his / "mnt", OWNER, 0o755)
    mount.start("allow_other")

    def tries() -> list[str]:
        outcomes = []
        with acting(OWNER):
            for call in (
                lambda: os.rmdir(mount.path),
                lambda: os.rename(mount.path, his / "away"),
                lambda: os.mkdir(mount.path / "new"),
            ):
                try:
                    call()
                    outcomes.append("ok")
                except OSError as error:
                    outcomes.append(os.strerror(error.errno or 0))
        return outcomes

    assert apart(tries) == ["Device or resource busy", "Device or resource busy", "Permission denied"]
    assert (his / "mnt").stat().st_uid == 0
    mount.stop()
    assert (his / "mnt").stat().st_uid == OWNER


def test_of_many_who_mount_a_store_at_once_one_does(scratch: Path, new_mount: Callable[..., Mount]) -> None:
    mount = new_mount()
    places = [scratch / f"place{number}" for number in range(6)]
    for place in places:
        place.mkdir()
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "casfs", "mount", mount.store, place, "-o", "allow_other"],
            env=ENVIRONMENT,
            stderr=subprocess.DEVNULL,
        )
        for place in places
    ]
    codes = [racer.wait() for racer in racers]
    mounted = [place for place in places if is_mounted(place)]
    assert len(mounted) == codes.count(0) == 1
    assert set(codes) <= {0, 4}
    mount.path = mounted[0]


def test_others_learn_and_do_nothing_by_root_s_commands_and_daemon(shared: Mount) -> None:
    file = put(shared.path / "file", 0, 0o644)

    def refused(*words: str | Path) -> None:
        done = subprocess.run(
            [*CASFS, *words],
            user=OTHER,
            group=OTHER,
            extra_groups=[],
            cwd="/",
            env=ENVIRONMENT,
            capture_output=True,
        )
        assert done.returncode in (1, 6, 32), (words, done)
        assert b"internal error" not in done.stderr

    for words in (
        ("cp", file, shared.path / "copy"),
        ("mv", file, shared.path / "moved"),
        ("status", shared.store),
        ("umount", shared.path),
        ("df", shared.path),
        ("trash", "empty", shared.path),
        ("gc", "run", shared.store),
    ):
        refused(*words)
    pid = shared.pid

    def looks() -> list[str]:
        found = []
        with acting(OTHER):
            for name in ("fd", "map_files", "cwd", "environ", "mem", "maps"):
                path = f"/proc/{pid}/{name}"
                try:
                    os.listdir(path) if name in ("fd", "map_files", "cwd") else Path(path).read_bytes()
                except PermissionError:
                    continue
                found.append(name)
        return found

    assert apart(looks) == []
    assert sorted(os.listdir(shared.path)) == ["file"]
