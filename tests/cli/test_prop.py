"""`casfs prop`: what is asked for, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casfs.errors import ExitCode
from tests.cli.conftest import Mount

MOUNTS = (Mount("/stores/one", "/mnt/one", 7), Mount("/stores/two", "/mnt/two", 8))
ANSWER = {"files": 2, "bytes": 2048, "changed": 0, "releases": 0}


def test_each_store_is_asked_once(casfs, mounted):
    calls = mounted(*MOUNTS, answer=ANSWER)
    words = (
        "-p",
        "qa=passed",
        "-p",
        "os=a",
        "--prop",
        "os=b=c",
        "-r",
        "/mnt/one/a",
        "/mnt/two/b",
        "/mnt/one/c",
    )
    assert casfs("prop", "set", *words) == (ExitCode.OK, "set: properties of 4 files\n", "")
    action = {"type": "prop_set", "properties": {"qa": ["passed"], "os": ["a", "b=c"]}, "recursive": True}
    assert calls == [
        ("/stores/one", "act_on", {"action": action, "targets": [["/a", 0], ["/c", 0]]}),
        ("/stores/two", "act_on", {"action": action, "targets": [["/b", 0]]}),
    ]


def test_removing(casfs, mounted):
    calls = mounted(*MOUNTS, answer={**ANSWER, "files": 1})
    out = "would be removed: properties of 1 file\n"
    assert casfs("prop", "rm", "-n", "-p", "qa", "-p", "os", "/mnt/one/a") == (ExitCode.OK, out, "")
    action = {"type": "prop_rm", "keys": ["qa", "os"]}
    assert calls == [("/stores/one", "act_on", {"action": action, "targets": [["/a", 0]], "dry_run": True})]


def test_what_is_left_is_said(casfs, mounted):
    mounted(*MOUNTS, answer={**ANSWER, "changed": 3})
    code, out, err = casfs("prop", "rm", "-p", "qa", "/mnt/one/a")
    assert (code, out) == (ExitCode.FAILED, "removed: properties of 2 files\n")
    assert err == "casfs: error: 3 of them were removed or replaced meanwhile\n"
    code, out, err = casfs("prop", "rm", "--json", "-p", "qa", "/mnt/one/a")
    assert (code, json.loads(out), err) == (ExitCode.FAILED, {"files": 2, "changed": 3}, "")


@pytest.mark.parametrize(("null", "end"), [(("-0",), b"\0"), ((), b"\n")])
def test_paths_may_come_from_a_file(casfs, mounted, tmp_path: Path, null, end):
    listed = tmp_path / "listed"
    listed.write_bytes(end.join([b"/mnt/one/b", b"/mnt/one/\xc3\xa4", b""]))
    calls = mounted(*MOUNTS, answer=ANSWER)
    casfs("prop", "set", "-p", "a=b", "/mnt/one/a", "--files-from", str(listed), *null)
    assert calls[0][2]["targets"] == [["/a", 0], ["/b", 0], ["/ä", 0]]


def test_what_a_file_or_directory_has(casfs, mounted):
    mounted(*MOUNTS, answer={"properties": {"os": ["a", "b\x1b"], "qa": ["passed"]}})
    assert casfs("prop", "get", "/mnt/one/a").out == "os=a\nos=b\\x1b\nqa=passed\n"
    assert casfs("prop", "get", "/mnt/one/a", "os").out == "a\nb\\x1b\n"
    assert casfs("prop", "get", "/mnt/one/a", "none") == (ExitCode.FAILED, "", "")
    assert json.loads(casfs("prop", "get", "--json", "/mnt/one/a", "qa").out) == {"qa": ["passed"]}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("set", "/mnt/one/a"), "required"),
        (("set", "-p", "qa", "/mnt/one/a"), "write KEY=VALUE"),
        (("set", "-p", "=x", "/mnt/one/a"), "printable characters"),
        (("set", "-p", "qa=a\tb", "/mnt/one/a"), "printable characters"),
        (("set", "-p", "qa=\udcff", "/mnt/one/a"), "UTF-8"),
        (("set", "-p", "qa=" + "x" * 2049, "/mnt/one/a"), "2048"),
        (("set", "-p", "k" * 240 + "=x", "/mnt/one/a"), "239 bytes"),
        (("rm", "-p", "a=b", "/mnt/one/a"), "no '='"),
        (("set", "-p", "qa=passed"), "no PATH"),
        (("set", "-p", "qa=passed", "-0", "/mnt/one/a"), "--files-from"),
        (("get",), "PATH"),
        (("set", "-p", "qa=passed", ""), "empty"),
    ],
)
def test_what_is_not_asked_for(casfs, mounted, words, complaint):
    calls = mounted(*MOUNTS, answer=ANSWER)
    outcome = casfs("prop", *words)
    assert (outcome.code, calls) == (ExitCode.USAGE, [])
    assert complaint in outcome.complaint


def test_a_store_that_is_not_mounted(casfs, tmp_path: Path):
    store = str(tmp_path / "store")
    assert casfs("init", store).code == ExitCode.OK
    assert casfs("prop", "set", "--store", store, "-p", "qa=b", "-p", "qa=a", "/").code == ExitCode.OK
    assert casfs("prop", "get", "--store", store, "/").out == "qa=b\nqa=a\n"
    assert (
        "/none: No such file" in casfs("prop", "set", "--store", store, "-p", "qa=b", "/", "/none").complaint
    )
    assert casfs("prop", "rm", "--store", store, "-p", "qa", "/").out == "removed: properties of 1 file\n"
    assert casfs("prop", "get", "--store", store, "/") == (ExitCode.OK, "", "")
