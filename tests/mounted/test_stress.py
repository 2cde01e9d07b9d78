"""Other people's torture: stress-ng's file system stressors and fio, both of which verify what they read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SECONDS = 2
"""How long each stressor works."""

WITHOUT_FILES = {"bind-mount", "binderfs", "dup", "eventfd", "procfs", "fanotify", "dnotify", "inotify"}
"""Of the class, what does not work on files in a given directory, or watches only its own process."""

NOT_ON_FUSE = {
    "fsize",  # wants fallocate(2), which pyfuse3 does not pass on; fails on every such mount, bindfs too
    "verity",  # wants fs-verity, which FUSE only forwards
}


def stressors() -> list[str]:
    """The names stress-ng puts into its class "filesystem"."""
    asked = subprocess.run(["stress-ng", "--class", "filesystem?"], capture_output=True, text=True)
    names = (asked.stdout + asked.stderr).partition("stressors:")[2].split()
    assert len(names) > 30, asked
    return sorted(set(names) - WITHOUT_FILES - NOT_ON_FUSE)


@pytest.mark.alone
def test_stress_ng_finds_nothing(mnt: Path) -> None:
    failed = {}
    for name in stressors():
        command = ["stress-ng", f"--{name}", "2", "--timeout", f"{SECONDS}s", "--verify", "--temp-path", mnt]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=180)
        # 3: no resources; 4: not implemented: the stressor says why it does nothing here.
        if done.returncode not in (0, 3, 4):
            failed[name] = done.stdout[-1500:] + done.stderr[-1500:]
    assert not failed
    assert not list(mnt.iterdir())


FIO_JOBS = {
    "sequential": ["--rw=write", "--bs=128k", "--size=64m"],
    "random": ["--rw=randwrite", "--bs=16k", "--size=24m"],
    "mixed": ["--rw=randrw", "--bs=4k", "--size=8m", "--fsync=200"],
    "mmap": ["--rw=randwrite", "--bs=4k", "--size=16m", "--ioengine=mmap"],
    "several": ["--rw=randwrite", "--bs=8k", "--size=4m", "--numjobs=4", "--nrfiles=8"],
}


@pytest.mark.parametrize("name", FIO_JOBS)
def test_fio_reads_back_what_it_wrote(mnt: Path, name: str) -> None:
    command = ["fio", f"--name={name}", f"--directory={mnt}", "--verify=crc32c", "--verify_fatal=1"]
    always = ["--do_verify=1", "--randseed=1", "--fallocate=none", "--group_reporting", "--end_fsync=1"]
    done = subprocess.run(
        [*command, *always, *FIO_JOBS[name]], capture_output=True, text=True, cwd=mnt.parent, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
