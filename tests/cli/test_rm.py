"""`casfs rm`: what is asked for, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casfs.cli import rm
from casfs.control.messages import Remove
from casfs.control.protocol import LINE_LIMIT, encode, request_of
from casfs.errors import ExitCode
from tests.cli.conftest import Mount

MOUNTS = (Mount("/stores/one", "/mnt/one", 7), Mount("/stores/two", "/mnt/two", 8))
ANSWER = {"files": 2, "directories": 0, "bytes": 2048, "releases": 0, "failures": []}


def test_each_store_is_asked_once(casfs, mounted):
    calls = mounted(*MOUNTS, answer=ANSWER)
    outcome = casfs("rm", "-r", "--force", "/mnt/one/a", "/mnt/two/b", "/mnt/one/c")
    assert outcome == (ExitCode.OK, "removed 4 files, 4.00 KiB\n", "")
    how = {"recursive": True, "force": True}
    assert calls == [
        ("/stores/one", "rm", {"paths": ["/a", "/c"], **how}),
        ("/stores/two", "rm", {"paths": ["/b"], **how}),
    ]


def test_what_would_go_is_said_in_full(casfs, mounted):
    mounted(*MOUNTS, answer={**ANSWER, "files": 1, "directories": 1, "releases": 1})
    out = casfs("rm", "-n", "/mnt/one/a").out
    assert out == "would remove 1 file, 2.00 KiB, and 1 directory; 1 of them immutable releases\n"


def test_what_is_left_is_named(casfs, mounted):
    failures = [("/a", "/a: No such file or directory"), ("/b\n", "/b\n: why")]
    nothing = {"files": 0, "directories": 0, "bytes": 0, "releases": 0, "failures": failures}
    mounted(*MOUNTS, answer=nothing)
    code, out, err = casfs("rm", "/mnt/one/a")
    assert (code, out) == (ExitCode.FAILED, "")
    assert err == "casfs: error: /a: No such file or directory\ncasfs: error: /b\\n: why\n"
    code, out, err = casfs("rm", "--json", "/mnt/one/a")
    assert (code, err) == (ExitCode.FAILED, "")
    assert json.loads(out)["failures"][1] == {"path": "/b\n", "error": "/b\n: why"}


@pytest.mark.parametrize("character", ["a", "\udcff", "\U0001f600", "\n"])
def test_requests_are_no_longer_than_they_may_be(character: str) -> None:
    paths = ["/" + character * length for length in (1, 4000, 4, 3000)] * 50
    batches = list(rm._batches(paths))
    assert [path for batch in batches for path in batch] == paths
    assert all(len(encode(request_of(Remove(batch, True, True, True)))) <= LINE_LIMIT for batch in batches)


def test_what_was_done_before_an_error_is_told(casfs, mounted, tmp_path: Path):
    mounted(MOUNTS[0], answer=ANSWER)
    code, out, err = casfs("rm", "/mnt/one/a", str(tmp_path))
    assert (code, out) == (ExitCode.NOT_MOUNTED, "")
    assert err == f"casfs: error: {tmp_path} is in no casfs mount\n"
