"""One trial: a workload on one target in one round, and the material it works on.

Everything here is preparation. Material that a workload only reads is a *fixture*: made once per target and
shared by all rounds. Material that a workload writes, or whose content must not be known to a deduplicating
store beforehand, is made anew for every trial from the trial's own seed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import subprocess
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
SMALL_FILE = 4 * KIB
SAMPLE_SECONDS = 0.3  # what a warm loop lasts at least, else it would be over in a few milliseconds
SPOT_CHECKS = 16

LARGE = 512  # MiB of the large file at scale 1
LIBRARY_FILES = 5_000
ARTIFACTS = 2_000
ARTIFACT_ENDS = (".jar", "-sources.jar", ".pom", ".jar.sha1")
LARGEST_LIBRARY_FILE = MIB
STAMP = 16  # bytes put at the start of every archived file to make its content new

GIT_FILES = 3_000
GIT_ENVIRONMENT = os.environ | {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
}


class WorkloadError(Exception):
    """A workload could not be done; the message says why."""


@dataclass(frozen=True)
class Trial:
    """What a workload knows about its surroundings."""

    root: str  # the bench's folder on the target: fixtures and working directories are made here
    scratch: str  # a folder outside every target, for archives and bundles
    scale: float  # 1.0 is the documented size of each workload
    seed: str  # another one for each run, target, workload and round
    contents_in: tuple[str, ...] = ()  # the folders where the target keeps contents, when known
    collector: tuple[str, ...] = ()  # the command that removes from there what nobody needs
    repositories: tuple[str, ...] = ()  # the command for repositories, where `root` is the root of a mount
    figures: dict[str, float] = field(default_factory=dict)  # what a workload measures besides its rate

    def count(self, full: int) -> int:
        """`full` scaled, at least 1."""
        return max(1, round(full * self.scale))

    def random(self, purpose: str = "") -> random.Random:
        """A generator that repeats itself only for the same trial and purpose."""
        return random.Random(f"{self.seed} {purpose}")

    def block(self, size: int) -> mmap.mmap:
        """Random bytes to write repeatedly; block[:8] is for a number that makes each write another one.

        Aligned to a page, as the buffers of cp and dd are.
        """
        block = mmap.mmap(-1, size)
        block[:] = self.random("block").randbytes(size)
        return block

    def contents(self, count: int, size: int = SMALL_FILE, purpose: str = "") -> list[bytes]:
        """`count` contents of `size` bytes, each different from all others ever made."""
        body = self.random(purpose).randbytes(size - 8)
        return [number.to_bytes(8, "big") + body for number in range(count)]

    def repeated(self, once: Callable[[], int]) -> int:
        """Does it again until a sample is long enough to be measured; the sum of the amounts."""
        end = time.perf_counter() + SAMPLE_SECONDS * min(1.0, self.scale)
        amount = once()
        while time.perf_counter() < end:
            amount += once()
        return amount

    def stored(self) -> int | None:
        """Bytes that all contents of the target take on disk; None when it is not known where they are."""
        return allocated(*self.contents_in) if self.contents_in else None

    def collect(self) -> None:
        """Have the target give up what nobody needs. Raises WorkloadError."""
        if self.collector:
            spawn(*self.collector)

    def repository(self, verb: str, *words: str) -> None:
        """Have the target make, change or remove a repository in its root. Raises WorkloadError."""
        spawn(*self.repositories, verb, self.root, *words)

    def enter_snapshot(self) -> None:
        """Go from a fixture to what a snapshot shows of it, where the target makes snapshots. Raises
        WorkloadError."""
        if not self.repositories:
            return
        fixture = os.path.basename(os.getcwd())
        place = f"{self.root}/.casfs/snapshots/{fixture}"
        if not os.path.isdir(place):
            spawn(self.repositories[0], "snapshot", "create", self.root, fixture)
        os.chdir(f"{place}/{fixture}")

    def fixture(self, name: str, build: Callable[[Trial], None]) -> str:
        """The path of a folder on the target that `build` fills, as its working directory, the first time."""
        path = f"{self.root}/fixture-{name}"
        if not os.path.isdir(path):
            unfinished = f"{path}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            os.mkdir(unfinished)
            before = os.getcwd()
            os.chdir(unfinished)
            build(self)
            os.chdir(before)
            os.rename(unfinished, path)
        return path


def allocated(*tops: str) -> int:
    """Bytes that the files below these folders take on disk; one with several names counts once."""
    blocks = {}
    for top in tops:
        for folder, _, files in os.walk(top):
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    stat = os.lstat(f"{folder}/{file}")
                    blocks[stat.st_dev, stat.st_ino] = stat.st_blocks
    return 512 * sum(blocks.values())


def names(count: int, prefix: str = "f") -> list[str]:
    return [f"{prefix}{number:06d}" for number in range(count)]


def create_files(paths: Sequence[str], contents: Sequence[bytes]) -> None:
    """Creates each file as most programs do (open, write, close), with as little as possible around it."""
    open_, write, close = os.open, os.write, os.close
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for path, content in zip(paths, contents, strict=True):
        fd = open_(path, flags, 0o644)
        write(fd, content)
        close(fd)


def write_large(path: str, size: int, block: mmap.mmap) -> None:
    """Writes `size` bytes to a new file, one block at a time, each with its number at the start."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for number in range(size // len(block)):
        block[:8] = number.to_bytes(8, "big")
        os.write(fd, block)
    os.close(fd)


def spawn(*command: str) -> None:
    """Runs a program with its output thrown away; cheaper to start than through `subprocess`.

    Raises WorkloadError when it fails.
    """
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawnp(command[0], command, GIT_ENVIRONMENT, file_actions=quiet)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise WorkloadError(f"`{' '.join(command)}` ended with exit code {code}")


# Verification --------------------------------------------------------------------------------------------


def expect(right: bool, what: str) -> None:
    """Raises WorkloadError when what a workload did is wrong."""
    if not right:
        raise WorkloadError(f"wrong result: {what}")


def expect_names(wanted: Iterable[str], folder: str = ".") -> None:
    expect(set(os.listdir(folder)) == set(wanted), "not the names that were asked for")


def spots(count: int) -> range:
    """Some of `count` places, spread evenly; the first is among them."""
    return range(0, count, max(1, count // SPOT_CHECKS))


def expect_contents(paths: Sequence[str], contents: Sequence[bytes]) -> None:
    """All files are there, and some of them, spread evenly, have their contents."""
    for number in spots(len(paths)):
        expect(Path(paths[number]).read_bytes() == contents[number], f"content of {paths[number]}")
    expect(all(map(os.path.exists, paths)), "not all files are there")


def expect_same(one: str, other: str) -> None:
    """Two large files have the same size and the same content at some places, the end included."""
    with open(one, "rb") as left, open(other, "rb") as right:
        size = os.fstat(left.fileno()).st_size
        expect(os.fstat(right.fileno()).st_size == size, f"{other} has another size than {one}")
        for offset in (*spots(size), max(0, size - 4 * KIB)):
            same = os.pread(left.fileno(), 4 * KIB, offset) == os.pread(right.fileno(), 4 * KIB, offset)
            expect(same, f"{other} differs from {one} at {offset}")


def count_files(top: str) -> int:
    return sum(len(files) for _, _, files in os.walk(top))


# Fixtures ------------------------------------------------------------------------------------------------


def small_files(trial: Trial) -> None:
    count = trial.count(2_000)
    create_files(names(count), trial.contents(count, purpose="small files"))


def entries(trial: Trial) -> None:
    """10,000 files of 64 bytes in one directory."""
    count = trial.count(10_000)
    create_files(names(count), trial.contents(count, size=64, purpose="entries"))


def tree(trial: Trial) -> None:
    """2,000 files of 1 to 8 KiB in directories of 50."""
    chooser = trial.random("tree")
    for number in range(trial.count(2_000)):
        folder = f"d{number // 50:03d}"
        if number % 50 == 0:
            os.mkdir(folder)
        create_files([f"{folder}/f{number:06d}"], [chooser.randbytes(chooser.randint(KIB, 8 * KIB))])


def large_file(trial: Trial) -> None:
    """The 512 MiB file `large`."""
    write_large("large", trial.count(LARGE) * MIB, trial.block(MIB))


def library(trial: Trial) -> None:
    """The Python library's tree, unpacked."""
    archive, _ = library_archive(trial)
    spawn("tar", "-xf", archive)


def clone(trial: Trial) -> None:
    """The git work tree `clone`, its index refreshed and younger than every file.

    Git reads files again at every status that are not older than its index (racy-git in its documentation),
    which are all of them where the clone took less than a second.
    """
    spawn("git", "clone", "--quiet", git_bundle(trial)[0], "clone")
    an_hour_ago = time.time() - 3600
    for folder, _, files in os.walk("clone"):
        for file in files:
            os.utime(f"{folder}/{file}", (an_hour_ago, an_hour_ago))
    spawn("git", "-C", "clone", "status")


def artifacts(trial: Trial) -> None:
    """2,000 files of 4 KiB, four of each revision, at the paths that Maven gives them."""
    paths = artifact_paths(trial.count(ARTIFACTS))
    make_folders(paths)
    create_files(paths, trial.contents(len(paths), purpose="artifacts"))


def artifact_paths(count: int) -> list[str]:
    """Ten revisions of each module, with two jars, a pom and a checksum each."""
    paths = []
    for number in range(count):
        release, kind = divmod(number, len(ARTIFACT_ENDS))
        module, revision = f"m{release // 10:05d}", f"1.{release % 10}"
        paths.append(f"org/acme/{module}/{revision}/{module}-{revision}{ARTIFACT_ENDS[kind]}")
    return paths


def make_folders(paths: Iterable[str]) -> None:
    """The directories of these files."""
    for folder in dict.fromkeys(os.path.dirname(path) for path in paths):
        os.makedirs(folder, exist_ok=True)


# Archives and bundles ------------------------------------------------------------------------------------


def library_files(count: int) -> Iterator[tuple[str, Path]]:
    """`count` files of the running Python's library with their names in the archive.

    A library with fewer files is taken repeatedly, so that the workload has the same size on every machine.
    """
    top = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, subfolders, members in os.walk(top):
        subfolders[:] = sorted(set(subfolders) - {"site-packages", "dist-packages", "__pycache__"})
        for member in sorted(members):
            path = Path(folder, member)
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST_LIBRARY_FILE:
                files.append(path)
    for number in range(count):
        path = files[number % len(files)]
        yield f"copy{number // len(files)}/{path.relative_to(top)}", path


def library_archive(trial: Trial) -> tuple[str, int]:
    """A tar of the Python library with new content in its files; its path and its number of files.

    Without the new content a deduplicating store would know all files from the round before, and the workload
    would measure something else than unpacking.
    """
    count = trial.count(LIBRARY_FILES)
    template = f"{trial.scratch}/library-{count}.tar"
    if not os.path.exists(template):
        with tarfile.open(f"{template}.unfinished", "w", format=tarfile.GNU_FORMAT) as archive:
            for name, path in library_files(count):
                archive.add(path, arcname=name)
        os.rename(f"{template}.unfinished", template)
    stamped = f"{trial.scratch}/library.tar"
    shutil.copyfile(template, stamped)
    stamps = trial.random("archive")
    with tarfile.open(template) as archive, open(stamped, "r+b") as file:
        for member in archive:
            if member.size >= STAMP:
                file.seek(member.offset_data)
                file.write(stamps.randbytes(STAMP))
    return stamped, count


def git_bundle(trial: Trial) -> tuple[str, int]:
    """A git bundle with new content; its path and the number of files in its only commit."""
    count = trial.count(GIT_FILES)
    repository, bundle = f"{trial.scratch}/repository.git", f"{trial.scratch}/repository.bundle"
    shutil.rmtree(repository, ignore_errors=True)
    chooser = trial.random("git")
    stream = [b"commit refs/heads/main\ncommitter bench <bench@localhost> 1700000000 +0000\ndata 5\nbench\n"]
    for number in range(count):
        body = chooser.randbytes(chooser.randint(200, 4_000)).hex().encode()
        lines = b"\n".join(body[start : start + 80] for start in range(0, len(body), 80))
        stream.append(
            b"M 100644 inline d%02d/f%05d.txt\ndata %d\n%b\n" % (number % 60, number, len(lines), lines)
        )
    git("init", "--quiet", "--bare", "--initial-branch=main", repository)
    git("-C", repository, "fast-import", "--quiet", stdin=b"".join(stream))
    git("-C", repository, "bundle", "create", "--quiet", bundle, "HEAD", "main")
    return bundle, count


def git(*arguments: str, stdin: bytes = b"") -> None:
    command = ["git", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, env=GIT_ENVIRONMENT, check=False)
    if done.returncode != 0:
        raise WorkloadError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
