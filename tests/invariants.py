"""Is a store that nobody uses consistent? Two opinions: `casfs fsck`, and one without any code of casfs.

The second reads the rows with the standard library's SQLite and the files with pathlib, so that a mistake
of the product is not repeated here.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from blake3 import blake3

from casfs.maintenance.check import fsck
from casfs.maintenance.check.problems import Kind

ROOT = 1
DIRECTORY = stat.S_IFDIR >> 12


class Rows:
    """The whole namespace in memory."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(path / "casfs.db")) as connection:
            self.integrity = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            connection.row_factory = sqlite3.Row
            self.meta = {row["key"]: row["value"] for row in connection.execute("SELECT * FROM meta")}
            self.blobs = {row["id"]: row for row in connection.execute("SELECT * FROM blob")}
            self.inodes = {row["ino"]: row for row in connection.execute("SELECT * FROM inode")}
            self.dentries = connection.execute("SELECT * FROM dentry").fetchall()
            self.derived = connection.execute("SELECT * FROM derived").fetchall()
            self.xattrs = connection.execute("SELECT * FROM xattr").fetchall()
            self.properties = connection.execute("SELECT * FROM property").fetchall()
            self.trash = {row["ino"]: row for row in connection.execute("SELECT * FROM trash")}
        self.hidden = [
            row["ino"]
            for row in self.dentries
            if (row["parent"], row["name"]) == (ROOT, b".casfs")
            and row["ino"] == self.meta.get("casfs_directory")
        ]
        """The directory of the trash: not counted in the root's nlink."""


def problems(path: Path, *, strays: bool = False, unlinked: bool = False) -> list[str]:
    """What is wrong with the store at `path`, nothing when it is clean.

    `strays`: blob files without a row are no problem, as after a crash (I3). `unlinked`: nor are inodes
    without a name, as when files were open at the end.
    """
    rows = Rows(path)
    found = [f"database: {line}" for line in rows.integrity if line != "ok"]
    found += _blobs(rows)
    found += _inodes(rows, unlinked=unlinked)
    found += _tree(rows)
    found += _properties(rows)
    found += _trash(rows)
    found += _files(path, rows, strays=strays)
    found += _staging(path, rows)
    return found


def assert_clean(path: Path | str, *, strays: bool = False, unlinked: bool = False) -> None:
    """Neither these checks nor `casfs fsck --deep` find anything, but what the test allows."""
    found = problems(Path(path), strays=strays, unlinked=unlinked)
    allowed = {Kind.STRAY_BLOB.slug} if strays else set()
    if unlinked:
        allowed.add(Kind.UNLINKED.slug)
    for problem in fsck.check(str(path), deep=True).problems:
        if problem.kind not in allowed:
            found.append(f"fsck: {problem.kind}: {problem.detail}")
    assert not found, "the store is not consistent:\n  " + "\n  ".join(found)


def _blobs(rows: Rows) -> Iterator[str]:
    refs = Counter(inode["blob_id"] for inode in rows.inodes.values())
    for number, blob in rows.blobs.items():
        if blob["refs"] != refs[number]:
            yield f"I4 blob {number} has refs {blob['refs']}, {refs[number]} inodes refer to it"
        if (blob["orphaned_ns"] is None) != (blob["refs"] > 0):
            yield f"blob {number} has refs {blob['refs']} and orphaned_ns {blob['orphaned_ns']}"
        if len(blob["blake3"]) != 32 or blob["size"] <= 0:
            yield f"blob {number} has a digest of {len(blob['blake3'])} bytes and size {blob['size']}"
    for number in refs.keys() - rows.blobs.keys() - {None}:
        yield f"I1 blob {number} has {refs[number]} references and no row"


def _inodes(rows: Rows, *, unlinked: bool) -> Iterator[str]:
    kept = [name for name in rows.derived if name["type"] == DIRECTORY]
    names = Counter(dentry["ino"] for dentry in [*rows.dentries, *kept])
    directories = Counter(
        dentry["parent"] for dentry in [*rows.dentries, *kept] if dentry["type"] == DIRECTORY
    )
    for ino, inode in rows.inodes.items():
        what = f"inode {ino}"
        if ino >= rows.meta["next_ino"]:
            yield f"I7 {what} is not below next_ino {rows.meta['next_ino']}"
        if not inode["nlink"]:
            if not unlinked:
                yield f"{what} is left without a name"
            if names[ino]:
                yield f"{what} has nlink 0 and {names[ino]} names"
            continue
        links = names[ino]
        if stat.S_ISDIR(inode["mode"]):
            if links != (ino != ROOT):
                yield f"directory {what} has {links} names"
            links = 2 + directories[ino] - (len(rows.hidden) if ino == ROOT else 0)
        if inode["nlink"] != links:
            yield f"{what} has nlink {inode['nlink']}, should be {links}"
        yield from (f"{what} {problem}" for problem in _content(rows, inode))
    for row in rows.xattrs:
        if row["ino"] not in rows.inodes:
            yield f"attribute {row['name']!r} of inode {row['ino']}, which is gone"
        if not 0 < len(row["name"]) <= 255 or len(row["value"]) > 65536:
            yield f"attribute {row['name']!r} of inode {row['ino']} is too long"


def _properties(rows: Rows) -> Iterator[str]:
    said: set[tuple[object, ...]] = set()
    prefix = b"user.casfs.prop."
    for row in rows.xattrs:
        if row["name"].startswith(prefix):
            key = row["name"].removeprefix(prefix).decode()
            said |= {(row["ino"], key, value) for value in row["value"].decode().split("\n")}
    kept = {tuple(row) for row in rows.properties}
    yield from (f"no row says that inode {ino} has {key}={value}" for ino, key, value in said - kept)
    yield from (f"a row says that inode {ino} has {key}={value}" for ino, key, value in kept - said)


def _content(rows: Rows, inode: sqlite3.Row) -> Iterator[str]:
    mode, size = inode["mode"], inode["size"]
    if (inode["target"] is not None) != stat.S_ISLNK(mode):
        yield f"of mode {mode:o} has the target {inode['target']!r}"
    if stat.S_ISLNK(mode):
        if size != len(inode["target"]):
            yield f"has size {size} and a target of {len(inode['target'])} bytes"
    elif not stat.S_ISREG(mode):
        if size or inode["blob_id"] is not None or inode["staged"] is not None:
            yield f"of mode {mode:o} has content"
    elif inode["staged"] is not None:
        if inode["blob_id"] is not None:
            yield "is staged and has a blob"
    elif inode["blob_id"] is None:
        if size:
            yield f"has size {size} and no content"
    elif inode["blob_id"] in rows.blobs and rows.blobs[inode["blob_id"]]["size"] != size:
        yield f"has size {size}, its blob has {rows.blobs[inode['blob_id']]['size']}"


def _tree(rows: Rows) -> Iterator[str]:
    parents: dict[int, int] = {}
    cookies = Counter(dentry["cookie"] for dentry in rows.dentries)
    for parent, cookie, name, ino, kind in rows.dentries:
        what = f"name {name!r} in {parent}"
        if not 0 < len(name) <= 255 or name in (b".", b"..") or b"/" in name or b"\0" in name:
            yield f"{what} is no name"
        if not 2 < cookie < rows.meta["next_cookie"] or cookies[cookie] > 1:
            yield f"{what} has the cookie {cookie}, next is {rows.meta['next_cookie']}"
        directory, inode = rows.inodes.get(parent), rows.inodes.get(ino)
        if directory is None or not stat.S_ISDIR(directory["mode"]) or not directory["nlink"]:
            yield f"{what} lies in no directory"
        if inode is None:
            yield f"{what} is for inode {ino}, which is gone"
        elif inode["mode"] >> 12 != kind:
            yield f"{what} has type {kind}, inode {ino} mode {inode['mode']:o}"
        if kind == DIRECTORY:
            parents[ino] = parent
    for ino, above in parents.items():
        seen = {ino}
        while above != ROOT and above in parents and above not in seen:
            seen.add(above)
            above = parents[above]
        if above != ROOT:
            yield f"directory {ino} is not below the root"


def _trash(rows: Rows) -> Iterator[str]:
    below = set(rows.hidden)
    files: set[int] = set()
    children: dict[int, list[sqlite3.Row]] = {}
    for dentry in rows.dentries:
        children.setdefault(dentry["parent"], []).append(dentry)
    todo = list(below)
    while todo:
        for dentry in children.get(todo.pop(), []):
            if dentry["type"] == DIRECTORY and dentry["ino"] not in below:
                below.add(dentry["ino"])
                todo.append(dentry["ino"])
            elif dentry["type"] != DIRECTORY:
                files.add(dentry["ino"])
    yield from (f"inode {ino} is in the trash and has no row there" for ino in files - rows.trash.keys())
    yield from (f"a row of the trash is for inode {ino}, not there" for ino in rows.trash.keys() - files)


def _files(path: Path, rows: Rows, *, strays: bool) -> Iterator[str]:
    fan_out = tomllib.loads((path / "casfs.toml").read_text())["fan_out"]
    expected = {blob["blake3"].hex(): blob["size"] for blob in rows.blobs.values()}
    shards = {entry.name for entry in os.scandir(path / "blobs")}
    if shards != {f"{number:0{fan_out}x}" for number in range(16**fan_out)}:
        yield f"blobs/ has {len(shards)} entries, not the {16**fan_out} shard folders"
    for file in (path / "blobs").glob("*/*"):
        what = f"blob file {file.parent.name}/{file.name}"
        if not re.fullmatch("[0-9a-f]{64}", file.name) or file.parent.name != file.name[:fan_out]:
            yield f"{what} is misplaced"
            continue
        size = expected.pop(file.name, None)
        if size is None and strays:
            continue
        if size is None:
            yield f"{what} has no row"
        content, status = file.read_bytes(), file.stat()
        if blake3(content).hexdigest() != file.name or size not in (None, len(content)):
            yield f"I2 {what} of {len(content)} bytes is not what its name and row (size {size}) say"
        if stat.S_IMODE(status.st_mode) != 0o400:
            yield f"I2 {what} has mode {stat.S_IMODE(status.st_mode):o}"
        if status.st_nlink != 1 and not strays:
            yield f"I2 {what} has {status.st_nlink} links"
    for name in expected:
        yield f"I1 blob {name} has a row and no file"


def _staging(path: Path, rows: Rows) -> Iterator[str]:
    named = {inode["staged"]: inode for inode in rows.inodes.values() if inode["staged"] is not None}
    if len(named) != sum(inode["staged"] is not None for inode in rows.inodes.values()):
        yield "two inodes name the same staged file"
    present = set(os.listdir(path / "staging"))
    for name in present - named.keys():
        yield f"staged file {name} belongs to nobody"
    for name, inode in named.items():
        if name not in present:
            yield f"I5 inode {inode['ino']} names the staged file {name}, which is gone"
        elif (path / "staging" / name).stat().st_size != inode["size"]:
            yield f"I5 staged file {name} has not the {inode['size']} bytes of inode {inode['ino']}"
