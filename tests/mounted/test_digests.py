"""`casfs digests` beside a mount in use, through real programs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, casfs
from tests.mounted.test_bit_rot import blob, flip, read_errno


def digests_of(mount: Mount) -> dict[str, str]:
    """What `sha256sum` says of every file: path -> SHA-256."""
    command = ["find", ".", "-type", "f", "-exec", "sha256sum", "{}", "+"]
    lines = subprocess.run(command, cwd=mount.path, capture_output=True, text=True, check=True).stdout
    return {path: value for value, _, path in (line.partition("  ") for line in lines.splitlines())}


def kept(mount: Mount) -> dict[str, str]:
    """What the store has for them."""
    names = digests_of(mount)
    return {name: os.getxattr(mount.path / name, "user.casfs.sha256").decode() for name in names}


def status(mount: Mount) -> dict[str, object]:
    found = json.loads(casfs("digests", mount.store, "--status", "--json"))
    assert isinstance(found, dict)
    return found


class Writer(threading.Thread):
    """Writes, replaces and removes files until it is told to end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.ended = threading.Event()
        self.slowest = 0.0
        folder.mkdir()

    def run(self) -> None:
        dice = random.Random(1)
        while not self.ended.is_set():
            since = time.monotonic()
            name = self.folder / f"f{dice.randrange(50)}"
            if dice.random() < 0.2:
                name.unlink(missing_ok=True)
            else:
                name.write_bytes(b"%d" % dice.randrange(1 << 40) * dice.randrange(1, 3_000))
            self.slowest = max(self.slowest, time.monotonic() - since)


@pytest.mark.alone
def test_killed_again_and_again_beside_writers_it_computes_what_sha256sum_does(mount: Mount) -> None:
    (mount.path / "old").mkdir()
    for number in range(1_000):
        (mount.path / "old" / str(number)).write_bytes(b"content %d" % number * (number % 300))
    mount.usage()
    writer = Writer(mount.path / "new")
    writer.start()
    try:
        command = [
            *CASFS,
            "digests",
            mount.store,
            "--add",
            "sha256",
            "--no-gc",
            "--batch",
            "20",
            "--sleep",
            "0",
        ]
        dice = random.Random(7)
        for _ in range(5):
            with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
                time.sleep(0.4 + dice.random() * 0.5)
                process.send_signal(signal.SIGKILL)
        casfs(*command[len(CASFS) :])
    finally:
        writer.ended.set()
        writer.join()
    assert writer.slowest < 5.0
    mount.usage()
    casfs("digests", mount.store, "--run", "--fast")  # what was being written when the algorithm came
    state = status(mount)
    assert (state["left"], state["by"], state["wanted"]) == (0, "", ["sha256"])
    assert kept(mount) == digests_of(mount)
    mount.stop()
    casfs("fsck", "--deep", mount.store)
    mount.start()


def test_what_is_added_holds_for_what_is_written_next(mount: Mount) -> None:
    (mount.path / "before").write_bytes(b"before")
    casfs("digests", mount.store, "--add", "sha256,md5", "--fast")
    (mount.path / "after").write_bytes(b"after")
    mount.usage()
    state = status(mount)
    assert (state["left"], state["wanted"]) == (0, ["md5", "sha256"])
    assert os.getxattr(mount.path / "after", "user.casfs.md5").decode() == hashlib.md5(b"after").hexdigest()
    mount.remount()
    casfs("digests", mount.store, "--remove", "md5")
    (mount.path / "last").write_bytes(b"last")
    mount.usage()
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(mount.path / "last", "user.casfs.md5")
    assert kept(mount) == digests_of(mount)


def test_two_that_are_added_at_once_both_come(mount: Mount) -> None:
    for number in range(300):
        (mount.path / str(number)).write_bytes(b"%d" % number)
    mount.usage()
    commands = [
        [*CASFS, "digests", mount.store, "--add", name, "--no-gc", "--batch", "50", "--sleep", "1s"]
        for name in ("sha1", "sha256")
    ]
    both = [
        subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    codes = [(one.communicate(timeout=60)[1], one.returncode) for one in both]
    assert sorted(code for _, code in codes) == [0, 4], codes
    assert status(mount)["left"] == 0
    assert kept(mount) == digests_of(mount)


def test_a_damaged_blob_is_taken_away_also_from_who_has_read_it(mount: Mount) -> None:
    content = os.urandom(300_000)
    path = mount.path / "file"
    path.write_bytes(content)
    (mount.path / "other").write_bytes(b"other")
    mount.usage()
    assert path.read_bytes() == content
    flip(blob(mount, content))
    command = [*CASFS, "digests", mount.store, "--add", "sha256", "--fast"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (5, "")
    assert "  /file\n" in done.stdout
    assert read_errno(path) == errno.EIO
    assert status(mount)["left"] == 0
    path.unlink()
    path.write_bytes(content)
    mount.usage()
    casfs("digests", mount.store, "--run", "--fast")
    assert kept(mount) == digests_of(mount)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_may_not(mount: Mount) -> None:
    for words in (["--add", "sha256"], ["--run"], []):
        done = subprocess.run(
            [*CASFS, "digests", mount.store, *words],
            env=ENVIRONMENT,
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
        )
        assert done.returncode not in (0, 70)
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("casfs: error: ")
    assert status(mount)["wanted"] == []
