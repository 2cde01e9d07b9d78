"""What goes over the control socket: clients and daemons of other versions read and write it, too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from casfs.control import protocol
from casfs.control.messages import (
    Acted,
    ActOn,
    AddDigests,
    AddLayouts,
    Collect,
    Collected,
    Copy,
    CopyInto,
    CreateRepository,
    CreateSnapshot,
    Damaged,
    Done,
    DropSnapshot,
    Emptied,
    EmptyTrash,
    GetProperties,
    Identify,
    Identity,
    Link,
    LockTrees,
    Move,
    MoveInto,
    Operation,
    Properties,
    Remove,
    Removed,
    RemoveFiles,
    RemoveLayout,
    RemoveProperties,
    RemoveRepositories,
    RenameRepository,
    RestoreSnapshot,
    SetDigests,
    SetLayout,
    SetPlainDirectories,
    SetProperties,
    SetRepository,
    SetTrashRule,
    Status,
    Sync,
    Target,
    Undelete,
    Undeleted,
    UnlockTrees,
    WantedDigests,
)
from casfs.errors import UsageError
from casfs.repositories.rules import Settings

REQUESTS: list[tuple[Operation[Any], str, dict[str, Any]]] = [
    (Identify(), "identify", {}),
    (Status(), "status", {}),
    (Sync(), "sync", {}),
    (Sync(seal=True), "sync", {"seal": True}),
    (Copy("/a", "/b", False), "cp", {"src": "/a", "dst": "/b", "recursive": False}),
    (Move("/a\udcff", "/ä"), "mv", {"src": "/a\udcff", "dst": "/ä"}),
    (Move("/a", "/b", True), "mv", {"src": "/a", "dst": "/b", "force": True}),
    (Remove(["/a", "/b"]), "rm", {"paths": ["/a", "/b"]}),
    (
        Remove(["/a"], True, True, True),
        "rm",
        {"paths": ["/a"], "recursive": True, "force": True, "dry_run": True},
    ),
    (Link("md5", "0a", "/b"), "link", {"algorithm": "md5", "digest": "0a", "dst": "/b"}),
    (CreateSnapshot("a", "why", 7), "snapshot_create", {"name": "a", "reason": "why", "expires_ns": 7}),
    (LockTrees(["/a"]), "lock", {"paths": ["/a"]}),
    (LockTrees(["/a", "/b"], "why"), "lock", {"paths": ["/a", "/b"], "reason": "why"}),
    (UnlockTrees(["/a"]), "unlock", {"paths": ["/a"]}),
    (DropSnapshot("a"), "snapshot_rm", {"name": "a"}),
    (RestoreSnapshot("a", ["/b"]), "snapshot_restore", {"name": "a", "paths": ["/b"]}),
    (Damaged([1, 2]), "damaged", {"blobs": [1, 2]}),
    (
        Collect([7], 1, 2, (3, 4, 5, 6, 7)),
        "collect",
        {"ids": [7], "cutoff_ns": 1, "now_ns": 2, "record": [3, 4, 5, 6, 7]},
    ),
    (SetDigests(["sha256"]), "digests_set", {"add": ["sha256"]}),
    (SetDigests([], ["md5"]), "digests_set", {"remove": ["md5"]}),
    (
        AddDigests([(1, "crc32c", "00ff00ff")], (1, 2, 3, 4, 5), True),
        "digests_add",
        {"rows": [[1, "crc32c", "00ff00ff"]], "run": [1, 2, 3, 4, 5], "durable": True},
    ),
    (EmptyTrash(0.0), "trash_empty", {"older_seconds": 0.0}),
    (EmptyTrash(None), "trash_empty", {"older_seconds": None}),
    (
        SetTrashRule("", None, ["*.tmp"], None),
        "trash_set",
        {"directory": "", "days": None, "exclude": ["*.tmp"], "minimal_age": None},
    ),
    (Undelete("/a", 0, 9), "undelete", {"path": "/a", "since_ns": 0, "before_ns": 9}),
    (CreateRepository("a\udcff", "local"), "repo_create", {"name": "a\udcff", "kind": "local"}),
    (
        CreateRepository("all", "virtual", ["a"], "a", Settings(layout="", rules={"read_only": True})),
        "repo_create",
        {
            "name": "all",
            "kind": "virtual",
            "members": ["a"],
            "deploy": "a",
            "settings": {"layout": "", "rules": {"read_only": True}},
        },
    ),
    (
        SetRepository("a", None, "", Settings(trash_days=3)),
        "repo_set",
        {"name": "a", "deploy": "", "settings": {"trash_days": 3}},
    ),
    (SetPlainDirectories(False), "repo_plain", {"yes": False}),
    (RenameRepository("a", "b"), "repo_rename", {"name": "a", "new_name": "b"}),
    (RemoveRepositories(["a"], True), "repo_rm", {"names": ["a"], "force": True}),
    (AddLayouts("", False), "layout_add", {"definitions": "", "replace": False}),
    (SetLayout("l", {"artifact": "x"}), "layout_set", {"name": "l", "changes": {"artifact": "x"}}),
    (RemoveLayout("l"), "layout_rm", {"name": "l"}),
    (
        ActOn(SetProperties({"qa": ["passed", "1"]}, True), [Target("/a\udcff", 7), Target("/b")]),
        "act_on",
        {
            "action": {"type": "prop_set", "properties": {"qa": ["passed", "1"]}, "recursive": True},
            "targets": [["/a\udcff", 7], ["/b", 0]],
        },
    ),
    (
        ActOn(RemoveProperties(["qa"]), [], True),
        "act_on",
        {"action": {"type": "prop_rm", "keys": ["qa"]}, "targets": [], "dry_run": True},
    ),
    (ActOn(RemoveFiles(), []), "act_on", {"action": {"type": "rm"}, "targets": []}),
    (ActOn(CopyInto("/d"), []), "act_on", {"action": {"type": "cp", "directory": "/d"}, "targets": []}),
    (
        ActOn(MoveInto("/d", True), []),
        "act_on",
        {"action": {"type": "mv", "directory": "/d", "force": True}, "targets": []},
    ),
    (GetProperties("/a"), "prop_get", {"path": "/a"}),
]

RESULTS: list[tuple[Operation[Any], object, dict[str, Any]]] = [
    (Status(), {"format": 1, "room": {"low": False}}, {"format": 1, "room": {"low": False}}),
    (Identify(), Identity("0:45"), {"device": "0:45"}),
    (Sync(), Done(), {}),
    (
        Remove([]),
        Removed(1, 2, 3, 4, [("/a", "why")]),
        {"files": 1, "directories": 2, "bytes": 3, "releases": 4, "failures": [["/a", "why"]]},
    ),
    (
        Collect([], 0, 0, (0, 0, 0, 0, 0)),
        Collected(1, 2, [("ab", 3, "why")], 4, False, True),
        {
            "blobs": 1,
            "bytes": 2,
            "failures": [["ab", 3, "why"]],
            "untried": 4,
            "gave_up": False,
            "busy": True,
        },
    ),
    (SetDigests(), WantedDigests(["md5"]), {"digests": ["md5"]}),
    (EmptyTrash(None), Emptied(1, 2), {"files": 1, "bytes": 2}),
    (
        ActOn(RemoveFiles(), []),
        Acted(1, 2, 3, 4),
        {"files": 1, "bytes": 2, "changed": 3, "releases": 4},
    ),
    (GetProperties("/a"), Properties({"qa": ["passed"]}), {"properties": {"qa": ["passed"]}}),
    (Undelete("/a", 0, 9), Undeleted(1, 2), {"files": 1, "skipped": 2}),
]


@pytest.mark.parametrize(("asked", "op", "args"), REQUESTS)
def test_requests_are_as_they_always_were(asked: Operation[Any], op: str, args: dict[str, Any]) -> None:
    line = protocol.encode(protocol.request_of(asked))
    assert json.loads(line) == {"version": 2, "op": op, "args": args}
    assert protocol.operation_of(type(asked), protocol.decode_request(line)) == asked


@pytest.mark.parametrize(("asked", "result", "told"), RESULTS)
def test_results_are_as_they_always_were(asked: Operation[Any], result: object, told: dict[str, Any]) -> None:
    line = protocol.encode(protocol.answer_of(result))
    assert json.loads(line) == {"ok": True, "result": told, "error": "", "exit_code": 1}
    assert protocol.result_of(asked, protocol.decode_answer(line)) == result


def test_a_line_is_ascii() -> None:
    line = b'{"version": 2, "op": "mv", "args": {"src": "/a\\udcff", "dst": "/\\u00e4"}}\n'
    assert protocol.encode(protocol.request_of(Move("/a\udcff", "/ä"))) == line


@pytest.mark.parametrize("name", ["a", "\udcff" * 4000])
def test_a_long_list_comes_in_lines_of_its_own(name: str) -> None:
    asked = ActOn(RemoveFiles(), [Target(f"/{name}{number}", number) for number in range(1, 3000, 7)])
    first, *others = protocol.lines_of(asked)
    request = protocol.decode_request(first)
    assert request.lines == len(others) > 0
    assert all(len(line) <= protocol.LINE_LIMIT and line.endswith(b"]\n") for line in others)
    items = [item for line in others for item in protocol.items_of(ActOn, line)]
    assert protocol.operation_of(ActOn, request, items) == asked


def test_a_list_may_be_empty_but_not_endless() -> None:
    asked = ActOn(RemoveFiles(), [])
    (line,) = protocol.lines_of(asked)
    assert protocol.operation_of(ActOn, protocol.decode_request(line)) == asked
    longest = ActOn(RemoveFiles(), [Target("/" + "\udcff" * 4000)] * 4000)
    with pytest.raises(UsageError, match="longer"):
        protocol.lines_of(longest)


@pytest.mark.parametrize(
    "line", [b"[7]\n", b"{}\n", b'[["/a", -1]]\n', b'[["/a", 1, 2]]\n', b"[[7, 7]]\n", b"[[[[[", b"[NaN]\n"]
)
def test_what_is_listed_is_checked(line: bytes) -> None:
    with pytest.raises(UsageError, match="bad arguments"):
        protocol.items_of(ActOn, line)


def test_every_operation_has_a_name_and_is_above() -> None:
    kinds = Operation.__subclasses__()
    assert {type(asked) for asked, *_ in REQUESTS} == set(kinds)
    assert len({kind.op for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("kind", "args", "complaint"),
    [
        (Copy, {"src": "/a", "dst": "/b"}, "missing required field `recursive`"),
        (Copy, {"src": "/a", "dst": "/b", "recursive": 1}, "Expected `bool`"),
        (Copy, {"src": "/a", "dst": "/b", "recursive": True, "forced": True}, "unknown field `forced`"),
        (Damaged, {"blobs": [-1]}, ">= 0"),
        (Damaged, {"blobs": [1 << 63]}, "bad arguments"),
        (Damaged, {"blobs": [1 << 80]}, "bad arguments"),
        (SetTrashRule, {"directory": "", "days": 36_501, "exclude": None, "minimal_age": None}, "<= 36500"),
        (EmptyTrash, {"older_seconds": float("nan")}, "bad arguments"),
        (CreateRepository, {"name": "a", "kind": "remote"}, "Invalid enum value 'remote'"),
        (CreateRepository, {"name": "a", "kind": "local", "settings": {"days": 1}}, "unknown field `days`"),
        (CreateRepository, {"name": "a", "kind": "local", "settings": {"trash_days": 1 << 20}}, "<= 36500"),
    ],
)
def test_what_is_asked_wrongly_is_refused(
    kind: type[Operation[Any]], args: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        protocol.operation_of(kind, protocol.Request(protocol.VERSION, kind.op, args))


def test_the_answer_of_a_newer_daemon_may_have_more() -> None:
    answer = protocol.Answer(True, {"files": 1, "bytes": 2, "seconds": 3})
    assert protocol.result_of(EmptyTrash(None), answer) == Emptied(1, 2)


def test_an_answer_that_says_too_little_is_none() -> None:
    with pytest.raises(ValueError, match="bytes"):
        protocol.result_of(EmptyTrash(None), protocol.Answer(True, {"files": 1}))


@pytest.mark.parametrize(("text", "path"), [("/a", b"/a"), ("/\udcff", b"/\xff")])
def test_paths_are_bytes(text: str, path: bytes) -> None:
    assert protocol.path_of(text) == path


@pytest.mark.parametrize("text", ["/\ud800", "/a\0b"])
def test_what_no_path_can_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="bad arguments: a path with"):
        protocol.path_of(text)
