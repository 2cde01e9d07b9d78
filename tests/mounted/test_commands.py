"""The commands on a mounted store: what they print, what the kernel shows afterwards, how they fail."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from casfs.control.client import Client, DaemonError
from casfs.control.messages import Copy
from tests.mounted.mounts import (
    CASFS,
    ENVIRONMENT,
    ROOT_OPTIONS,
    Mount,
    await_exit,
    casfs,
    is_mounted,
    unmount_by_force,
)
from tests.mounted.trees import portrait, same_tree, walk


def test_status_says_who_serves_what(mount: Mount) -> None:
    status = mount.status
    assert status["store"] == str(mount.store)
    assert status["mountpoint"] == str(mount.path)
    command = Path(f"/proc/{status['pid']}/cmdline").read_bytes().split(b"\0")
    assert os.fsencode(mount.store) in command
    assert (status["serving"], status["format"]) == (True, 1)
    with open(mount.path / "file", "wb") as file:
        file.write(b"x")
        file.flush()
        assert mount.status["activity"]["open_handles"] == 1
    for path in (mount.path, mount.path / "file", mount.store):
        (found,) = json.loads(casfs("status", "--json", path))["mounts"]
        assert found["pid"] == status["pid"]
    assert f"pid: {status['pid']}\n" in casfs("status")


def test_df_counts_files_blobs_and_what_is_saved(mount: Mount) -> None:
    shared, own = os.urandom(100_000), os.urandom(50_000)
    for folder in ("one", "two"):
        (mount.path / folder).mkdir()
        (mount.path / folder / "shared").write_bytes(shared)
    (mount.path / "two" / "own").write_bytes(own)
    (mount.path / "two" / "empty").touch()
    (mount.path / "gone").write_bytes(b"soon an orphan")
    mount.usage()  # which has it sealed
    (mount.path / "gone").unlink()
    usage = mount.usage()
    deadline = time.monotonic() + 30
    while not usage["orphans"] and time.monotonic() < deadline:  # the kernel forgets it when it likes
        usage = mount.usage()
    rows = {row["name"]: row for row in usage["rows"]}
    assert (rows["two"]["files"], rows["two"]["bytes"], rows["two"]["blobs"]) == (3, 150_000, 2)
    total = usage["total"]
    assert (total["files"], total["bytes"]) == (4, 250_000)
    assert (total["blobs"], total["blob_bytes"], total["saved_percent"]) == (2, 150_000, 40.0)
    assert (usage["orphans"], usage["orphan_bytes"]) == (1, 14)
    assert "TOTAL" in casfs("df", mount.path / "one" / "shared")


# cp and mv


def test_cp_of_a_tree_is_the_same_tree_and_costs_no_blob(mount: Mount, real_tree: Path) -> None:
    subprocess.run(["cp", "-a", real_tree / "odd", mount.path / "odd"], check=True)
    before = mount.usage()["total"]
    casfs("cp", "-r", mount.path / "odd", mount.path / "copy")
    same_tree(mount.path / "odd", mount.path / "copy")
    after = mount.usage()["total"]
    assert (after["files"], after["blobs"]) == (2 * before["files"], before["blobs"])
    numbers = {os.lstat(path).st_ino for path in walk(mount.path / "odd")}
    assert not numbers & {os.lstat(path).st_ino for path in walk(mount.path / "copy")}
    (mount.path / "copy" / "linked").write_bytes(b"changed in the copy")
    assert (mount.path / "copy" / "below" / "linked-as-well").read_bytes() == b"changed in the copy"
    assert (mount.path / "odd" / "linked").stat().st_size == 300_000
    seen = portrait(mount.path)
    mount.remount()
    assert portrait(mount.path) == seen


def test_cp_and_mv_are_seen_at_once_whatever_the_kernel_had_cached(mount: Mount) -> None:
    folder, target = mount.path / "folder", mount.path / "target"
    folder.mkdir()
    target.mkdir()
    (folder / "file").write_bytes(b"content")
    for path in (target / "file", target / "again", mount.path / "moved"):
        assert not path.exists()
    assert os.listdir(target) == []
    links = os.stat(mount.path).st_nlink, os.stat(target).st_mtime_ns

    casfs("cp", folder / "file", target / "file")
    assert (target / "file").read_bytes() == b"content"
    assert os.listdir(target) == ["file"]
    assert os.stat(target).st_mtime_ns > links[1]

    casfs("cp", "-r", folder, mount.path / "moved")
    assert os.stat(mount.path).st_nlink == links[0] + 1
    assert (mount.path / "moved" / "file").read_bytes() == b"content"

    casfs("mv", target / "file", target / "again")
    assert not (target / "file").exists()
    assert os.listdir(target) == ["again"]
    casfs("mv", mount.path / "moved", target)
    assert sorted(os.listdir(target)) == ["again", "moved"]
    assert not (mount.path / "moved").exists()
    assert (os.stat(mount.path).st_nlink, os.stat(target).st_nlink) == (links[0], 3)

    (target / "again").write_bytes(b"other content")
    casfs("cp", target / "again", folder / "file")
    assert (folder / "file").read_bytes() == b"other content"
    casfs("mv", target / "again", folder / "file")
    assert (folder / "file").read_bytes() == b"other content"
    assert os.stat(folder / "file").st_nlink == 1


def test_an_open_file_keeps_its_content_when_a_command_replaces_it(mount: Mount) -> None:
    (mount.path / "old").write_bytes(b"old" * 50_000)
    (mount.path / "new").write_bytes(b"new" * 50_000)
    with open(mount.path / "old", "rb", buffering=0) as file:
        assert file.read(3) == b"old"
        casfs("cp", mount.path / "new", mount.path / "old")
        assert os.pread(file.fileno(), 3, 90_000) == b"old"
        assert (mount.path / "old").read_bytes()[:3] == b"new"
        casfs("mv", mount.path / "new", mount.path / "old")
        assert os.pread(file.fileno(), 3, 120_000) == b"old"


REFUSED = {
    ("cp", "-r", "tree", "tree"): "into itself",
    ("cp", "-r", "tree", "tree/inner/deeper"): "into itself",
    ("cp", "-r", "tree", "tree/inner"): "into itself",
    ("cp", "tree", "other"): "copy it with -r",
    ("cp", "absent", "other"): "/absent",
    ("cp", "file", "absent/other"): "/absent",
    ("cp", "file", "file"): "are the same",
    ("cp", "-r", "tree", "file"): "exists already",
    ("mv", "tree", "tree/inner"): "Invalid argument",
    ("mv", "tree", "file"): "Not a directory",
    ("mv", "absent", "other"): "/absent",
    ("mv", "file/below", "other"): "Not a directory",
}


def test_what_cp_and_mv_refuse_changes_nothing(mount: Mount) -> None:
    (mount.path / "tree" / "inner").mkdir(parents=True)
    (mount.path / "tree" / "inner" / "file").write_text("content")
    (mount.path / "file").write_text("a file")
    before = portrait(mount.path)
    for words, complaint in REFUSED.items():
        paths = [mount.path / word for word in words[-2:]]
        assert complaint in casfs(*words[:-2], *paths, code=1), words
        assert portrait(mount.path) == before, words


def test_a_file_that_is_being_written_is_not_copied(mount: Mount) -> None:
    # Asked from here: a child process would close its copy of the descriptor, which seals what is written.
    asked = Copy("/file", "/copy", False)
    with open(mount.path / "file", "wb", buffering=0) as file:
        file.write(b"half of it")
        with pytest.raises(DaemonError, match="open for writing"):
            Client(str(mount.store)).ask(asked)
        assert not (mount.path / "copy").exists()
    Client(str(mount.store)).ask(asked)
    assert (mount.path / "copy").read_bytes() == b"half of it"


def test_a_copy_waits_for_who_writes_to_a_file_for_a_moment(mount: Mount) -> None:
    (mount.path / "tree").mkdir()
    file = open(mount.path / "tree" / "file", "wb", buffering=0)  # noqa: SIM115 - closed by the timer
    file.write(b"half of it, ")
    closes = threading.Timer(1.0, lambda: (file.write(b"and the rest"), file.close()))
    closes.start()
    Client(str(mount.store)).ask(Copy("/tree", "/copy", True))
    closes.join()
    assert (mount.path / "copy" / "file").read_bytes() == b"half of it, and the rest"


def test_what_a_copy_has_replaced_goes_at_once(mount: Mount) -> None:
    """The kernel, which was not asked, would remember it until it needs the memory."""
    for number in range(5):
        (mount.path / f"source {number}").write_text(f"content {number}")
        (mount.path / f"file {number}").write_text("to be replaced")
        assert (mount.path / f"file {number}").stat().st_size == 14
        casfs("cp", mount.path / f"source {number}", mount.path / f"file {number}")
        casfs("mv", mount.path / f"file {number}", mount.path / "file 0")
    assert (mount.path / "file 0").read_text() == "content 4"
    assert mount.status["activity"]["unlinked_open"] == 0


def test_what_is_replaced_goes_though_the_kernel_has_never_seen_it(mount: Mount) -> None:
    """What has no name any more goes when the kernel forgets it; what the kernel did not hold kept its
    content until the mount ended."""
    for name in ("source", "moved", "copied over", "moved over"):
        (mount.path / name).write_bytes(name.encode() * 50_000)
    mount.remount()
    casfs("cp", "--store", mount.store, "/source", "/copied over")
    casfs("mv", "--store", mount.store, "/moved", "/moved over")
    assert mount.status["activity"]["unlinked_open"] == 0
    assert "removed 2 blobs" in casfs("gc", "run", mount.store, "--grace", "0")
    assert (mount.path / "copied over").read_bytes() == b"source" * 50_000
    assert (mount.path / "moved over").read_bytes() == b"moved" * 50_000


def test_cp_between_two_stores_is_refused(new_mount: Callable[..., Mount]) -> None:
    one, two = new_mount().start(), new_mount().start()
    (one.path / "file").write_text("content")
    assert "different stores" in casfs("cp", one.path / "file", two.path / "file", code=2)
    assert "is in no casfs mount" in casfs("mv", one.path / "file", "/tmp/file", code=6)


FILES = 20_000


def test_a_large_copy_is_there_wholly_or_not_at_all_after_sigkill(mount: Mount) -> None:
    tree = mount.path / "tree"
    for folder in range(100):
        (tree / "part" / f"{folder}").mkdir(parents=True)
        for number in range(FILES // 1000):
            (tree / "part" / f"{folder}" / f"{number}").write_bytes(b"%d" % (number % 7))
    for number in range(9):
        casfs("cp", "-r", tree / "part", tree / f"part{number}")
    entries = sum(1 for _ in walk(tree))
    assert entries > FILES

    for number, share in enumerate((0.05, 0.3, 0.6, 0.9)):
        before = mount.status["inodes"]
        copy = mount.path / f"copy{number}"
        copying = subprocess.Popen(
            [*CASFS, "cp", "-r", tree, copy], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        while copying.poll() is None and mount.status["inodes"] < before + share * entries:
            continue
        assert os.stat(tree / "part" / "7" / "7").st_size == 1, "others have to be served meanwhile"
        mount.kill()
        complaint = copying.communicate()[1]
        mount.start()
        if copying.returncode == 0 or copy.exists():
            assert sum(1 for _ in walk(copy)) == entries
            shutil.rmtree(copy)
        else:
            assert copying.returncode == 6, complaint
            assert "ended before it answered" in complaint
            assert mount.status["inodes"] <= before
        assert sum(1 for _ in walk(tree)) == entries


# Mounts that fail


def test_a_store_that_is_in_use_says_who_has_it(mount: Mount, scratch: Path) -> None:
    (scratch / "other").mkdir()
    complaint = casfs("mount", mount.store, scratch / "other", code=4)
    assert f"is in use by process {mount.pid} (" in complaint
    assert "casfs mount" in complaint
    assert not is_mounted(scratch / "other")


def test_mounts_that_cannot_be(new_mount: Callable[..., Mount], scratch: Path) -> None:
    mount = new_mount()
    mount.store.joinpath("mnt").mkdir()
    (scratch / "file").touch()
    (scratch / "folder").mkdir()
    around = scratch / "around"
    around.mkdir()
    casfs("init", around / "store")
    for store, mountpoint, code, complaint in (
        (scratch / "absent", mount.path, 3, "does not exist; casfs init"),
        (scratch / "folder", mount.path, 3, "is not a casfs store; casfs init"),
        (scratch / "file", mount.path, 3, "is not a directory"),
        (mount.store, scratch / "absent", 32, "does not exist; make the directory first"),
        (mount.store, scratch / "file", 32, "is not a directory; make the directory first"),
        (mount.store, mount.store / "mnt", 32, "must not contain each other"),
        (mount.store, mount.store, 32, "must not contain each other"),
        (around / "store", around, 32, "must not contain each other"),
    ):
        assert complaint in casfs("mount", store, mountpoint, code=code)
        assert not is_mounted(mountpoint)
    mount.store.joinpath("mnt").rmdir()


def test_a_store_of_a_newer_format_is_refused(new_mount: Callable[..., Mount]) -> None:
    mount = new_mount()
    config = mount.store / "casfs.toml"
    text = config.read_text()
    config.write_text(text.replace("format = 1", "format = 999"))
    assert "has format 999" in casfs("mount", mount.store, mount.path, code=3)
    config.write_text(text + "surprise = 1\n")
    assert "is damaged" in casfs("mount", mount.store, mount.path, code=3)
    config.write_text(text)
    mount.start()


def test_a_mount_point_that_is_not_empty_is_covered(mount: Mount, new_mount: Callable[..., Mount]) -> None:
    other = new_mount()
    (other.path / "below").touch()
    other.start()
    assert os.listdir(other.path) == []
    other.stop()
    assert os.listdir(other.path) == ["below"]


def test_a_mount_point_on_which_something_dead_lies_says_how_to_clear_it(mount: Mount) -> None:
    (mount.path / "file").touch()
    os.stat(mount.path)
    daemon = os.pidfd_open(mount.pid)
    mount.crashed = True
    os.kill(mount.pid, signal.SIGKILL)
    await_exit(daemon)
    complaint = casfs("mount", mount.store, mount.path, code=32)
    assert f"daemon that died; fusermount3 -uz {mount.path} clears it" in complaint
    (dead,) = (
        each for each in json.loads(casfs("status", "--json"))["mounts"] if each["store"] == str(mount.store)
    )
    assert (dead["serving"], dead["pid"]) == (False, None)
    subprocess.run(["fusermount3", "-uz", mount.path], check=True)
    mount.start()


def test_umount_takes_the_mount_of_a_dead_daemon_away(mount: Mount) -> None:
    daemon = os.pidfd_open(mount.pid)
    mount.crashed = True
    os.kill(mount.pid, signal.SIGKILL)
    await_exit(daemon)
    casfs("umount", mount.path)
    assert not is_mounted(mount.path)


# The end of a mount


def test_umount_of_a_mount_in_use_leaves_it_as_it_was(mount: Mount) -> None:
    with open(mount.path / "file", "w") as file:
        complaint = casfs("umount", mount.path, code=32)
        assert "busy" in complaint
        assert "close the files" in complaint
        file.write("still here")
    assert (mount.path / "file").read_text() == "still here"


def test_umount_returns_when_the_store_is_free(mount: Mount) -> None:
    for number in range(50):
        (mount.path / f"file{number}").write_bytes(os.urandom(100_000))
    daemon = os.pidfd_open(mount.pid)
    casfs("umount", mount.path)
    assert not is_mounted(mount.path)
    # Whoever has the lock is done with the store: nothing waits here.
    casfs("fsck", mount.store)
    casfs("cp", "--store", mount.store, "/file7", "/offline")
    await_exit(daemon)
    mount.start()
    assert (mount.path / "offline").read_bytes() == (mount.path / "file7").read_bytes()


def test_umount_of_what_is_no_mount_point(mount: Mount, scratch: Path) -> None:
    (mount.path / "folder").mkdir()
    assert "is not a mount point" in casfs("umount", mount.path / "folder", code=6)
    assert "is in no casfs mount" in casfs("umount", scratch, code=6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_cleanly(mount: Mount, number: signal.Signals) -> None:
    (mount.path / "file").write_text("content")
    daemon = os.pidfd_open(mount.pid)
    os.kill(mount.pid, number)
    await_exit(daemon)
    assert not is_mounted(mount.path)
    assert f"{number.name}: unmounting" in (mount.store / "run" / "mount.log").read_text()
    mount.start()
    assert (mount.path / "file").read_text() == "content"


def test_signals_that_come_while_it_unmounts_cut_nothing_off(mount: Mount) -> None:
    """Somebody who presses Ctrl-C again and again: SIGINT would end it amid its last commit."""
    mount.stop()
    command = [*CASFS, "mount", "--foreground", "-o", "commit_interval=300", mount.store, mount.path]
    for round_ in range(3):
        with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as daemon:
            assert daemon.stderr is not None
            assert "is mounted on" in daemon.stderr.readline()
            for number in range(300):
                (mount.path / f"file{round_}.{number}").write_bytes(b"content %d" % number)
            while daemon.poll() is None:
                daemon.send_signal(signal.SIGINT)
                time.sleep(0.002)
            assert "Traceback" not in daemon.stderr.read()
        assert daemon.returncode == 0
        casfs("fsck", mount.store)
    mount.start()
    assert len(os.listdir(mount.path)) == 900
    assert (mount.path / "file2.299").read_bytes() == b"content 299"


def test_a_signal_ends_a_mount_in_use(mount: Mount) -> None:
    mount.expect("open files are cut off")
    file = os.open(mount.path / "synced", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"synced")
    os.fsync(file)
    daemon = os.pidfd_open(mount.pid)
    os.kill(mount.pid, signal.SIGTERM)
    await_exit(daemon)
    with pytest.raises(OSError, match="not connected"):
        os.close(file)
    assert not is_mounted(mount.path)
    mount.start(ROOT_OPTIONS)
    assert (mount.path / "synced").read_text() == "synced"


def test_a_signal_to_a_mount_in_use_writes_back_what_was_mapped(mount: Mount) -> None:
    """No fsync and no msync, and the pages are dirty in the kernel alone."""
    mount.expect("open files are cut off")
    mapped = []
    for number in range(4):
        file = os.open(mount.path / f"file{number}", os.O_RDWR | os.O_CREAT)
        os.write(file, bytes(3 << 20))
        os.fsync(file)
        mapped.append((file, mmap.mmap(file, 3 << 20)))
        for offset in range(0, 3 << 20, 8192):
            mapped[-1][1][offset : offset + 6] = b"mapped"
    daemon = os.pidfd_open(mount.pid)
    os.kill(mount.pid, signal.SIGTERM)
    await_exit(daemon)
    for file, _ in mapped:
        with pytest.raises(OSError, match=r"not connected|Input/output error"):
            os.close(file)
    mount.start(ROOT_OPTIONS)
    for number in range(4):
        content = (mount.path / f"file{number}").read_bytes()
        assert content == (b"mapped" + bytes(8186)) * 384
    del mapped


def test_a_signal_ends_a_mount_that_is_never_idle(mount: Mount) -> None:
    """Between two requests of a burst nobody waits who could be told that it is over."""
    mount.expect("open files are cut off")
    (mount.path / "folder").mkdir()
    endless = "import os\nmine = f'folder/{os.getpid()}'\nwhile True:\n os.mkdir(mine)\n os.rmdir(mine)"
    for _ in range(3):
        programs = [
            subprocess.Popen([sys.executable, "-c", endless], cwd=mount.path, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        while mount.status["activity"]["pending_operations"] < 100:
            time.sleep(0.01)
        daemon = os.pidfd_open(mount.pid)
        os.kill(mount.pid, signal.SIGTERM)
        await_exit(daemon)
        for program in programs:
            assert program.wait(60) == 1
        mount.start(ROOT_OPTIONS)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may bind mount")
def test_a_signal_that_does_not_end_a_mount_says_who_holds_it(mount: Mount, scratch: Path) -> None:
    mount.expect("still served: it is mounted at .*bound", "open files are cut off")
    log = mount.store / "run" / "mount.log"
    (scratch / "bound").mkdir()
    subprocess.run(["mount", "--bind", mount.path, scratch / "bound"], check=True)
    try:
        daemon = os.pidfd_open(mount.pid)
        os.kill(mount.pid, signal.SIGTERM)
        while "still served" not in log.read_text():
            time.sleep(0.05)
        (scratch / "bound" / "file").write_text("content")
        os.kill(mount.pid, signal.SIGTERM)
        await_exit(daemon)
    finally:
        subprocess.run(["umount", scratch / "bound"], check=True)
    mount.start()
    assert (mount.path / "file").read_text() == "content"


def test_in_the_foreground_it_serves_until_it_is_unmounted(new_mount: Callable[..., Mount]) -> None:
    mount = new_mount()
    command = [*CASFS, "mount", "--foreground", mount.store, mount.path]
    daemon = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        assert daemon.stderr is not None
        assert "is mounted on" in daemon.stderr.readline()
        (mount.path / "file").write_text("content")
        casfs("umount", mount.path)
        assert "is unmounted and closed" in daemon.communicate(timeout=60)[1]
        assert daemon.returncode == 0
    finally:
        daemon.kill()
        daemon.communicate()
        unmount_by_force(mount.path)
