"""A store on disk: made, opened, refused, locked."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs import store as module
from casfs.errors import ExitCode, FormatError, FormatTooNew, StoreExists, StoreLocked, StoreNotFound
from casfs.store import Store, create_store, holder, read_config
from tests.invariants import assert_clean
from tests.session import Session, descriptors


@pytest.fixture
def toml(store_path: Path) -> Iterator[Path]:
    """casfs.toml, which is put back after the test."""
    path = store_path / "casfs.toml"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


# Making


@pytest.mark.parametrize("fan_out", [1, 2, 3])
def test_every_fan_out(scratch: Path, fan_out: int) -> None:
    path = scratch / "deep" / "store"
    create_store(str(path), fan_out=fan_out)
    assert sorted(os.listdir(path)) == ["blobs", "casfs.db", "casfs.toml", "run", "staging"]
    assert len(os.listdir(path / "blobs")) == 16**fan_out
    assert read_config(str(path)).fan_out == fan_out
    session = Session(path)
    session.kernel.write_file("file", b"content")
    assert session.reopen().read_file("file") == b"content"
    session.stop()
    blob = next(path.glob("blobs/*/*"))
    assert blob.parent.name == blob.name[:fan_out]
    assert_clean(path)


def test_a_store_is_private(scratch: Path) -> None:
    (scratch / "store").mkdir(mode=0o777)
    create_store(str(scratch / "store"), fan_out=1)
    for path in (scratch / "store", *(scratch / "store").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_its_root_belongs_to_who_makes_it(store_path: Path) -> None:
    session = Session(store_path)
    root = session.kernel.inode("")
    assert (root.uid, root.gid) == (os.getuid(), os.getgid())
    session.stop()


def test_what_is_there_is_left_alone(store_path: Path, scratch: Path) -> None:
    with pytest.raises(StoreExists, match="is a casfs store already"):
        create_store(str(store_path))
    (scratch / "full").mkdir()
    (scratch / "full" / "file").touch()
    with pytest.raises(StoreExists, match=r"not empty.*empty directory"):
        create_store(str(scratch / "full"))
    assert os.listdir(scratch / "full") == ["file"]
    with pytest.raises(FileExistsError):
        create_store(str(scratch / "full" / "file"))


@pytest.mark.parametrize("fan_out", [0, 4, -1])
def test_a_fan_out_nobody_knows(scratch: Path, fan_out: int) -> None:
    with pytest.raises(FormatError, match=r"1, 2, 3"):
        create_store(str(scratch / "store"), fan_out=fan_out)
    assert os.listdir(scratch) == []


def test_a_store_cut_off_in_the_making_is_none(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.schema, "create", cut)
    with pytest.raises(KeyboardInterrupt):
        create_store(str(scratch / "store"), fan_out=1)
    with pytest.raises(StoreNotFound, match="is not a casfs store"):
        Store(str(scratch / "store"))


# Refusing


def test_what_is_no_store(scratch: Path) -> None:
    (scratch / "file").touch()
    for path, told in (
        (scratch / "absent", "does not exist"),
        (scratch, "is not a casfs store"),
        (scratch / "file", "is not a directory"),
    ):
        for readonly in (False, True):
            with pytest.raises(StoreNotFound, match=told) as raised:
                Store(str(path), readonly=readonly)
            assert str(path) in str(raised.value)
            assert "\n" not in str(raised.value)
    assert os.listdir(scratch) == ["file"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"format = 2", "format 2; this casfs knows up to 1; use a newer casfs"),
        (b"format = 0", "format"),
        (b'format = "1"', "format"),
        (b"", "format"),
        (b"format = 1\nformat = 1", "damaged"),
        (b"form\xff\xfe", "damaged"),
        (b"format = 1\nunknown = 1", "unknown"),
    ],
)
def test_a_configuration_that_is_not_ours(toml: Path, line: bytes, told: str) -> None:
    toml.write_bytes(toml.read_bytes().replace(b"format = 1", line))
    with pytest.raises(FormatError, match=told) as raised:
        Store(str(toml.parent))
    assert str(toml.parent) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == ExitCode.STORE


@pytest.mark.parametrize(
    ("old", "new"), [(b'"blake3"', b'"sha256"'), (b"fan_out = 1", b"fan_out = 7"), (b"fan_out = 1", b"")]
)
def test_values_nobody_knows(toml: Path, old: bytes, new: bytes) -> None:
    toml.write_bytes(toml.read_bytes().replace(old, new))
    with pytest.raises(FormatError, match=r"casfs\.toml is damaged"):
        read_config(str(toml.parent))


def test_a_newer_format_is_refused_untouched(toml: Path) -> None:
    toml.write_bytes(toml.read_bytes().replace(b"format = 1", b"format = 2\nnew_thing = true"))
    before = {path: path.stat().st_mtime_ns for path in toml.parent.rglob("*")}
    with pytest.raises(FormatTooNew):
        Store(str(toml.parent))
    assert {path: path.stat().st_mtime_ns for path in toml.parent.rglob("*")} == before


@pytest.mark.parametrize("content", [b"", b"garbage " * 1000, None])
def test_a_damaged_database_is_one_line(store_path: Path, content: bytes | None) -> None:
    path = store_path / "casfs.db"
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(FormatError, match=re.escape(str(path))) as raised:
        Store(str(store_path))
    left_open = str(path) in descriptors().values()
    path.write_bytes(before)
    path.chmod(0o600)
    assert not left_open
    assert "\n" not in str(raised.value)
    Session(store_path).stop()


# Locking


def test_a_store_in_use_says_who_has_it(store_path: Path) -> None:
    store = Store(str(store_path))
    program, *_ = Path("/proc/self/cmdline").read_text().split("\0")
    for _ in range(2):
        with pytest.raises(
            StoreLocked, match=rf"process {os.getpid()} \({re.escape(Path(program).name)} "
        ) as raised:
            Store(str(store_path))
        assert raised.value.exit_code == ExitCode.LOCKED
        assert "casfs umount" in str(raised.value)
    assert holder(str(store_path)) == store._lock.holder()
    store.close()
    assert holder(str(store_path)) is None
    Store(str(store_path)).close()


def test_the_lock_dies_with_its_process(store_path: Path) -> None:
    script = f"""
import os, sys
from casfs.store import Store
store = Store({str(store_path)!r})
print("open", flush=True)
sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreLocked, match=f"process {process.pid} "):
            Store(str(store_path))
        process.kill()
    Store(str(store_path)).close()
    assert holder(str(store_path)) is None


def test_a_reader_needs_no_lock_and_changes_nothing(store_path: Path) -> None:
    writer = Session(store_path)
    writer.kernel.write_file("file", b"content")
    reader = Store(str(store_path), readonly=True)
    assert reader.namespace.dentries.find(1, b"file") is None
    writer.kernel.sync()
    assert reader.namespace.dentries.find(1, b"file") is not None
    reader.close()
    writer.stop()


def test_a_store_that_cannot_be_opened_is_not_locked(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "Namespace", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Store(str(store_path))
    Store(str(store_path)).close()


def test_a_lock_file_is_not_followed_out_of_the_store(store_path: Path, scratch: Path) -> None:
    (store_path / "run" / "lock").unlink(missing_ok=True)
    (store_path / "run" / "lock").symlink_to(scratch / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        Store(str(store_path))
    assert not (scratch / "outside").exists()
    (store_path / "run" / "lock").unlink()


def test_run_may_be_gone(store_path: Path) -> None:
    """Nothing in it outlives a reboot, so a tmpfs or a clean-up may have taken it."""
    for path in (store_path / "run").iterdir():
        path.unlink()
    (store_path / "run").rmdir()
    assert holder(str(store_path)) is None
    Session(store_path).stop()


def test_a_store_may_be_moved(store_path: Path, scratch: Path) -> None:
    session = Session(store_path)
    session.kernel.write_file("file", b"content")
    session.stop()
    store_path.rename(scratch / "moved")
    (scratch / "link").symlink_to("moved")
    session = Session(scratch / "link")
    assert session.kernel.read_file("file") == b"content"
    assert session.store.path == str(scratch / "moved")
    session.stop()
    (scratch / "moved").rename(store_path)


# Stores that somebody else wrote


@pytest.mark.parametrize("name", ["casfs.toml", "casfs.db", "casfs.db-wal", "casfs.db-shm"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "device", "second name"])
def test_what_is_no_file_is_not_used_for_one(store_path: Path, scratch: Path, name: str, kind: str) -> None:
    """A fifo was waited for without an end, /dev/zero read without one."""
    copy = scratch / "copy"
    shutil.copytree(store_path, copy)
    place = copy / name
    if place.exists():
        place.unlink()
    (scratch / "victim").write_bytes(b"theirs")
    match kind:
        case "link":
            place.symlink_to(scratch / "victim")
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "device":
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        case _:
            os.link(scratch / "victim", place)
    for options in ({}, {"readonly": True}, {"shared": True}):
        with pytest.raises(FormatError, match=rf"copy/{name} (is no regular|has a second|is damaged)"):
            Store(str(copy), **options)
    assert (scratch / "victim").read_bytes() == b"theirs"


def test_a_rollback_journal_removes_no_file(store_path: Path, scratch: Path) -> None:
    """SQLite removes the "super-journal" that one names, whatever file that is."""
    copy, victim = scratch / "copy", scratch / "victim"
    shutil.copytree(store_path, copy)
    victim.write_bytes(b"theirs")
    name = os.fsencode(victim)
    tail = name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    pages = (copy / "casfs.db").stat().st_size // 4096
    head = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 0, 0, pages, 512, 4096)
    journal = head.ljust(512, b"\0") + struct.pack(">I", 0x40000000 // 4096 + 1) + tail
    (copy / "casfs.db-journal").write_bytes(journal)
    for options in ({}, {"readonly": True}, {"shared": True}):
        with pytest.raises(FormatError, match=r"casfs\.db-journal is no part of a store"):
            Store(str(copy), **options)
    assert victim.read_bytes() == b"theirs"


@pytest.mark.parametrize("text", ["x" * 5000, "[" * 3000, "a=" + "{b=" * 1000])
def test_a_configuration_of_any_text_is_damaged(store_path: Path, scratch: Path, text: str) -> None:
    copy = scratch / "copy"
    shutil.copytree(store_path, copy)
    (copy / "casfs.toml").write_text(text)
    with pytest.raises(FormatError, match=r"casfs\.toml is damaged"):
        read_config(str(copy))


def test_a_link_in_place_of_run_is_no_place_for_locks(store_path: Path, scratch: Path) -> None:
    copy, elsewhere = scratch / "copy", scratch / "elsewhere"
    shutil.copytree(store_path, copy)
    (copy / "run").rename(elsewhere)
    before = sorted(elsewhere.iterdir())
    (copy / "run").symlink_to(elsewhere)
    for options in ({}, {"shared": True}):
        with pytest.raises(FormatError, match="run is no directory"):
            Store(str(copy), **options)
    assert sorted(elsewhere.iterdir()) == before
