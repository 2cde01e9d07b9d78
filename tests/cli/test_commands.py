"""Each command: what it asks of the layers below, what it makes of the answer. Those layers stand in here."""

from __future__ import annotations

import json
import shutil

import pytest

from casfs.control.messages import Copy, Move
from casfs.errors import ExitCode, FsError, NotMounted, StoreNotFound, UsageError
from casfs.maintenance.check.problems import Problem, Report, Severity
from casfs.maintenance.usage import Usage, UsageRow
from casfs.namespace.collecting import Run
from casfs.store import create_store
from casfs.types import Room

from .conftest import Mount

ONE = Mount("/srv/one", "/mnt/one", 11)
TWO = Mount("/srv/two", "/mnt/two", 22)


# --- mount, umount ---


@pytest.fixture
def mountd(stand_in):
    """Options as a list of words; what `mount` was called with."""
    calls: list[tuple] = []

    class MountOptions:
        @staticmethod
        def parse(words: list[str]) -> list[str]:
            if "alow_other" in words:
                raise UsageError.unknown("mount option", "alow_other", ["allow_other", "ro"])
            return words

    stand_in("casfs.fuse.options", MountOptions=MountOptions)
    stand_in("casfs.service.mountd", mount=lambda *given: calls.append(given) or 32)
    return calls


def test_mount_passes_on_the_options_one_by_one_and_the_exit_code_back(casfs, mountd):
    outcome = casfs("mount", "S", "M", "-o", "ro,,uid=5", "--foreground", "-o", "allow_other,")
    assert mountd == [("S", "M", ["ro", "uid=5", "allow_other"], True)]
    assert outcome.code == 32


def test_a_mistyped_mount_option_is_named_with_the_right_one(casfs, mountd):
    outcome = casfs("mount", "S", "M", "-o", "ro,alow_other")
    assert outcome.complaint == "unknown mount option 'alow_other'; did you mean 'allow_other'?"
    assert outcome.code == ExitCode.USAGE
    assert mountd == []


def test_umount_unmounts(casfs, mounted):
    calls = mounted(ONE)
    assert casfs("umount", "/mnt/one") == (0, "", "")
    assert calls == [("/mnt/one", "unmount", {})]


# --- status ---


def test_status_lists_every_mount_with_what_its_daemon_says(casfs, mounted):
    mounted(ONE, TWO, answer={"format": 1, "open_handles": 3})
    outcome = casfs("status", "--json")
    assert json.loads(outcome.out) == {
        "mounts": [
            {
                "pid": 11,
                "store": "/srv/one",
                "mountpoint": "/mnt/one",
                "serving": True,
                "format": 1,
                "open_handles": 3,
            },
            {
                "pid": 22,
                "store": "/srv/two",
                "mountpoint": "/mnt/two",
                "serving": True,
                "format": 1,
                "open_handles": 3,
            },
        ]
    }
    assert "mountpoint: /mnt/two\n" in casfs("status").out


def test_status_shows_a_mount_whose_daemon_is_dead(casfs, mounted):
    mounted(ONE, answer=NotMounted("nobody answers"))
    (mount,) = json.loads(casfs("status", "--json").out)["mounts"]
    assert mount["serving"] is False
    assert mount["error"] == "nobody answers"


@pytest.mark.parametrize(("words", "code"), [([], ExitCode.OK), (["/srv/one"], ExitCode.NOT_MOUNTED)])
def test_status_of_a_dead_mount_fails_only_where_it_was_asked_for(casfs, mounted, words, code):
    mounted(ONE, answer=NotMounted("nobody answers"))
    outcome = casfs("status", *words)
    assert (outcome.code, outcome.err) == (code, "")
    assert "serving: no\n" in outcome.out


@pytest.mark.parametrize("path", ["/mnt/two", "/mnt/two/deep/below", "/srv/two"])
def test_status_of_one_is_found_by_store_or_path(casfs, mounted, path):
    mounted(ONE, TWO)
    (mount,) = json.loads(casfs("status", path, "--json").out)["mounts"]
    assert mount["pid"] == 22


def test_status_of_what_is_not_mounted_says_so(casfs, mounted, stand_in):
    mounted(ONE)
    stand_in("casfs.store", read_config=lambda path: None)
    outcome = casfs("status", "/srv/two")
    assert outcome.complaint == "/srv/two is not mounted; casfs mount /srv/two MOUNTPOINT mounts it"
    assert outcome.code == ExitCode.NOT_MOUNTED


def test_nothing_mounted_is_an_answer(casfs, mounted):
    mounted()
    assert casfs("status") == (0, "nothing is mounted\n", "")
    assert json.loads(casfs("status", "--json").out) == {"mounts": []}


# --- df ---


@pytest.fixture
def usage(stand_in):
    asked: list[str] = []
    rows = (UsageRow(b"a\xff", 4, 4096, 1, 1024), UsageRow(b"empty", 0, 0, 0, 0))
    summary = Usage(
        rows=rows,
        total=UsageRow(b"", 4, 4096, 1, 1024),
        orphans=2,
        orphan_bytes=2048,
        staged=1,
        staged_bytes=10,
        database_bytes=65536,
        room=Room(total=4 << 30, free=2 << 30, available=1 << 30),
    )
    stand_in("casfs.maintenance.usage", summarize=lambda store: asked.append(store) or summary)
    return asked


def test_df_shows_what_deduplication_saves(casfs, mounted, usage, stand_in):
    mounted(ONE)
    stand_in("casfs.maintenance.collect.gc", history=lambda store, limit: [])
    outcome = casfs("df", "/mnt/one/a")
    assert usage == ["/srv/one"]
    assert outcome.out == (
        "directory  files      size  blobs      size   saved\n"
        "a\\xff          4  4.00 KiB      1  1.00 KiB  75.0 %\n"
        "empty          0       0 B      0       0 B   0.0 %\n"
        "TOTAL          4  4.00 KiB      1  1.00 KiB  75.0 %\n"
        "\n"
        "trash: 0 files, 0 B\n"
        "orphans: 2 blobs, 2.00 KiB\n"
        "last collection: none yet\n"
        "staging: 1 files, 10 B\n"
        "database: 64.0 KiB\n"
        "file system: 4.00 GiB, 2.00 GiB used, 1.00 GiB available\n"
    )


def test_df_of_a_store_that_is_not_mounted_as_json(casfs, mounted, usage, stand_in):
    mounted()
    run = Run(1, "full", 10, 20, 3, 30, 0, 0, None)
    stand_in("casfs.maintenance.collect.gc", history=lambda store, limit: [run])
    answer = json.loads(casfs("df", "S", "--json").out)
    assert usage == ["S"]
    assert answer["rows"][0] == {
        "name": "a\udcff",
        "files": 4,
        "bytes": 4096,
        "blobs": 1,
        "blob_bytes": 1024,
        "saved_percent": 75.0,
    }
    assert answer["total"]["saved_percent"] == 75.0
    assert (answer["last_collection"]["kind"], answer["last_collection"]["bytes"]) == ("full", 30)
    assert (answer["orphans"], answer["staged_bytes"], answer["room"]["free"]) == (2, 10, 2 << 30)


# --- cp, mv ---


def test_cp_asks_the_daemon_of_the_mount(casfs, mounted):
    calls = mounted(ONE)
    assert casfs("cp", "-r", "/mnt/one/a", "/mnt/one/b") == (0, "", "")
    assert calls == [("/srv/one", "cp", {"src": "/a", "dst": "/b", "recursive": True})]


def test_mv_asks_the_daemon_of_the_mount(casfs, mounted):
    calls = mounted(ONE)
    assert casfs("mv", "/mnt/one/a", "/mnt/one") == (0, "", "")
    assert calls == [("/srv/one", "mv", {"src": "/a", "dst": "/"})]


def test_cp_between_two_stores_points_to_cp(casfs, mounted):
    calls = mounted(ONE, TWO)
    outcome = casfs("cp", "/mnt/one/a", "/mnt/two/a")
    assert (
        outcome.complaint
        == "/mnt/one/a and /mnt/two/a are in different stores; use cp(1) or mv(1) between stores"
    )
    assert outcome.code == ExitCode.USAGE
    assert calls == []


def test_cp_outside_of_a_mount_says_so(casfs, mounted):
    mounted(ONE)
    outcome = casfs("cp", "/mnt/one/a", "/tmp/a")
    assert (outcome.code, outcome.complaint) == (ExitCode.NOT_MOUNTED, "/tmp/a is in no casfs mount")


def test_what_the_daemon_refuses_is_told(casfs, mounted):
    mounted(ONE, answer=FsError(21, "/a is a directory"))
    outcome = casfs("cp", "/mnt/one/a", "/mnt/one/b")
    assert (outcome.code, outcome.complaint) == (ExitCode.FAILED, "/a is a directory")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cp", "-r", "/a", "//b/../c/"], Copy("/a", "/c", True)),
        (["mv", "/../a", "/"], Move("/a", "/")),
    ],
)
def test_with_store_the_work_is_done_without_a_daemon(casfs, mounted, stand_in, words, expected):
    calls = mounted(answer=NotMounted("nobody answers"))
    done: list[tuple] = []
    stand_in("casfs.control.unmounted", perform=lambda *given: done.append(given))
    assert casfs(*words, "--store", "S") == (0, "", "")
    assert done == [("S", expected)]
    assert [op for _, op, _ in calls] == [words[0]]


def test_with_store_a_daemon_that_has_it_mounted_is_asked(casfs, mounted):
    calls = mounted(ONE)
    assert casfs("mv", "--store", "/srv/one", "/a", "/b") == (0, "", "")
    assert calls == [("/srv/one", "mv", {"src": "/a", "dst": "/b"})]


def test_without_store_a_daemon_that_died_is_an_error(casfs, mounted):
    mounted(ONE, answer=NotMounted("nobody answers"))
    outcome = casfs("mv", "/mnt/one/a", "/mnt/one/b")
    assert (outcome.code, outcome.complaint) == (ExitCode.NOT_MOUNTED, "nobody answers")


def test_with_store_a_path_begins_at_its_root(casfs, mounted):
    mounted()
    outcome = casfs("cp", "--store", "S", "a", "/b")
    assert outcome.complaint == "'a' is no path from the root of the store; with --store, begin it with /"
    assert outcome.code == ExitCode.USAGE


# --- fsck ---


BAD = Problem(
    kind="missing-blob",
    severity=Severity.ERROR,
    invariant="I1",
    detail="blob 12 is\ngone",
    paths=(b"/a\xff", b"/b"),
    paths_total=5,
    repair="none",
)
STRAY = Problem("stray-blob", Severity.GARBAGE, "", "blobs/0/1 has no row", (), 0, "removed")


def report(*found: Problem, in_use: str | None = None) -> Report:
    unchecked = () if in_use is None else ("what was done since the last commit",)
    return Report("/srv/one", False, in_use, found, unchecked, ())


@pytest.fixture
def checker(stand_in, mounted):
    """Put a checker that finds what is said, and leaves what is said after repair."""
    mounted()

    def put(found: Report, left: Report | None = None) -> list[tuple]:
        calls: list[tuple] = []

        def check(store: str, deep: bool, progress, *, exclusive: bool) -> Report:
            progress("reading blobs", 1, 2)
            calls.append(("check", store, deep, exclusive))
            return found

        def repair(store: str, report: Report, progress) -> Report:
            calls.append(("repair", store, report))
            assert left is not None
            return left

        stand_in("casfs.maintenance.check.fsck", check=check, repair=repair)
        return calls

    return put


def test_fsck_of_a_clean_store(casfs, checker):
    calls = checker(report())
    assert casfs("fsck", "S", "--deep", "--repair") == (0, "/srv/one: clean\n", "")
    assert calls == [("check", "S", True, True)]


def test_fsck_prints_each_problem_with_its_paths_and_repair(casfs, checker):
    checker(report(BAD, STRAY))
    outcome = casfs("fsck", "S")
    assert outcome.code == ExitCode.PROBLEMS
    assert outcome.out == (
        "error missing-blob (I1): blob 12 is\\ngone\n"
        "  /a\\xff\n"
        "  /b\n"
        "  and 3 more\n"
        "  repair: none\n"
        "garbage stray-blob: blobs/0/1 has no row\n"
        "  repair: removed\n"
        "/srv/one: 1 error, 1 garbage\n"
        "'casfs fsck --repair' does what is said above\n"
    )


def test_garbage_alone_is_no_failure(casfs, checker):
    checker(report(STRAY, STRAY))
    outcome = casfs("fsck", "S")
    assert outcome.code == ExitCode.OK
    assert "/srv/one: clean, 2 times garbage\n" in outcome.out


def test_fsck_of_a_store_in_use_says_what_was_not_checked(casfs, checker):
    checker(report(in_use="process 7 (casfs mount)"))
    outcome = casfs("fsck", "S")
    assert outcome.code == ExitCode.OK
    assert outcome.out == (
        "in use by process 7 (casfs mount); not checked:\n"
        "  what was done since the last commit\n"
        "/srv/one: clean\n"
    )


@pytest.mark.parametrize(("left", "words", "code"), [((), "clean", 0), ((BAD,), "1 error", 5)])
def test_fsck_repairs_and_says_what_is_left(casfs, checker, left, words, code):
    found = report(BAD, BAD)
    calls = checker(found, report(*left))
    outcome = casfs("fsck", "S", "--repair")
    assert calls == [("check", "S", False, True), ("repair", "S", found)]
    assert outcome.out.endswith(f"/srv/one: 2 errors; after repair {words}\n")
    assert outcome.code == code


def test_what_repair_has_left_is_shown_when_it_is_something_else(casfs, checker):
    checker(report(STRAY), report(BAD))
    assert casfs("fsck", "S", "--repair").out.endswith(
        "/srv/one: clean, 1 garbage; after repair 1 error\n"
        "error missing-blob (I1): blob 12 is\\ngone\n"
        "  /a\\xff\n"
        "  /b\n"
        "  and 3 more\n"
        "  repair: none\n"
    )


def test_fsck_as_json(casfs, checker):
    checker(report(BAD), report())
    assert json.loads(casfs("fsck", "S", "--repair", "--json").out) == {
        "store": "/srv/one",
        "deep": False,
        "in_use": None,
        "unchecked": [],
        "clean": True,
        "problems": [
            {
                "kind": "missing-blob",
                "severity": "error",
                "invariant": "I1",
                "detail": "blob 12 is\ngone",
                "paths": ["/a\udcff", "/b"],
                "paths_total": 5,
                "repair": "none",
                "count": 1,
            }
        ],
        "left": [],
    }


def test_fsck_of_a_real_store(casfs, mounted, tmp_path):
    mounted()
    create_store(str(tmp_path / "store"))
    shutil.rmtree(tmp_path / "store" / "blobs" / "7f")
    assert casfs("fsck", str(tmp_path / "store")).code == ExitCode.PROBLEMS
    assert casfs("fsck", str(tmp_path / "store"), "--repair").code == ExitCode.OK
    assert casfs("fsck", str(tmp_path / "store"), "--deep").out == f"{tmp_path}/store: clean\n"


# --- init ---


def test_init_makes_a_store_and_refuses_to_make_it_again(casfs, tmp_path):
    path = str(tmp_path / "new" / "store")
    first = casfs("init", path, "--json")
    assert json.loads(first.out) == {"store": path, "fan_out": 2, "digests": []}
    assert first.code == 0
    again = casfs("init", path)
    assert again.code == ExitCode.STORE
    assert again.complaint.startswith(f"{path} is a casfs store already")


def test_init_leaves_a_directory_that_is_in_use_alone(casfs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    outcome = casfs("init", str(tmp_path))
    assert outcome.code == StoreNotFound.exit_code
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("bad", ["/proc/store", "/dev/null", "/dev/null/store", "/" + "x" * 300])
def test_init_where_there_can_be_no_store_is_one_line(casfs, bad):
    outcome = casfs("init", bad)
    assert outcome.complaint
    assert outcome.code in (ExitCode.FAILED, ExitCode.STORE)


@pytest.mark.parametrize("command", ["df", "fsck", "status"])
def test_a_command_on_what_is_no_store_says_how_to_make_one(casfs, tmp_path, command):
    outcome = casfs(command, str(tmp_path))
    assert outcome.code == ExitCode.STORE
    assert outcome.complaint == f"{tmp_path} is not a casfs store; casfs init {tmp_path} makes one"
