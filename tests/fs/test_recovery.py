"""What a start makes of what a crash left."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import FormatError
from casfs.filestore.staging import LENT
from casfs.fs.scheduler import run_inline
from casfs.types import ROOT_INO
from tests.faults import FaultyDurable
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session

CREATE = os.O_RDWR | os.O_CREAT
LARGE = bytes(range(256)) * 1200


@pytest.fixture
def crashed(session: Session, scratch: Path) -> Iterator[Callable[[], Path]]:
    """Crash: a function that gives the store as it is on disk at the call."""
    made = []

    def crash() -> Path:
        made.append(scratch / f"crashed {len(made)}")
        copy_store(session.path, made[-1])
        return made[-1]

    yield crash
    for path in made:
        assert_clean(path, strays=True)


Crash = Callable[[], Path]


def test_a_clean_end_leaves_nothing_and_is_known_at_the_next_start(session: Session) -> None:
    """Some handles are never released: the kernel does not send what is left to send when a mount goes."""
    kernel = session.kernel
    assert session.fs.recovery.clean
    kernel.write_file("sealed", LARGE, sync=True)
    opened = [kernel.open("sealed")]
    for name, content in (("small", b"small"), ("large", LARGE), ("synced", LARGE[::-1])):
        opened.append(kernel.open(name, CREATE))
        opened[-1].write(content)
    opened[-1].fsync()
    unnamed = kernel.open_unnamed()
    unnamed.write(LARGE)
    for name in ("sealed", "small", "large", "synced"):
        kernel.unlink(name)
    session.stop()
    assert not list((session.path / "staging").iterdir())
    with closing(sqlite3.connect(session.path / "casfs.db")) as connection:
        assert connection.execute("SELECT count(*) FROM inode WHERE nlink = 0").fetchone() == (0,)
    session.start()
    assert session.fs.recovery.clean
    assert (session.fs.recovery.unlinked, session.fs.recovery.removed) == (0, 0)


def test_a_start_says_what_a_crash_left(session: Session, crashed: Crash) -> None:
    kernel = session.kernel
    synced, unlinked = kernel.open("synced", CREATE), kernel.open("unlinked", CREATE)
    for file in (synced, unlinked):
        file.write(LARGE)
    synced.fsync()
    kernel.unlink("unlinked")
    kernel.sync()
    after = Session(crashed())
    try:
        found = after.fs.recovery
        assert (found.clean, found.staged, found.sealed, found.unlinked) == (False, 1, len(LARGE), 1)
        assert found.removed >= 1
        assert found.seconds >= found.sync_seconds
        after.stop()
        after.start()
        assert after.fs.recovery.clean
    finally:
        after.abandon()
    for file in (synced, unlinked):
        file.close()


def test_content_that_was_fsynced_is_sealed(kernel: Kernel, crashed: Crash) -> None:
    file = kernel.open("file", CREATE)
    file.write(LARGE)
    file.fsync()
    file.write(b"not synced", len(LARGE))
    session = Session(crashed())
    assert session.kernel.read_file("file") == LARGE
    digest = session.kernel.getxattr("file", b"user.casfs.blake3").decode()
    assert digest == blake3(LARGE).hexdigest()
    assert session.store.filestore.staging.names() == []
    session.stop()
    file.close()


def test_content_that_was_not_synced_is_lost_whole(kernel: Kernel, crashed: Crash) -> None:
    kernel.write_file("file", b"old content")
    kernel.sync()
    with kernel.open("file", os.O_RDWR) as file, kernel.open("new", CREATE) as new:
        file.write(LARGE)
        new.write(LARGE)
        kernel.sync()
        session = Session(crashed())
        assert session.kernel.read_file("file") == b"old content"
        assert session.kernel.read_file("new") == b""
        assert session.store.filestore.staging.names() == []
        session.stop()


@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_APPEND])
def test_what_was_closed_and_is_written_again_is_lost_whole(
    kernel: Kernel, crashed: Crash, flags: int
) -> None:
    """Its first close had left it to the next commit, which took it in the middle of the second write."""
    kernel.write_file("file", b"first ")
    with kernel.open("file", os.O_WRONLY | flags) as file:
        file.write(b"second", len(b"first ") if flags == os.O_APPEND else 0)
        kernel.sync()
        session = Session(crashed())
        assert session.kernel.read_file("file") in (b"", b"first ")
        session.stop()


def test_a_file_cut_after_its_fsync_has_no_zeros(kernel: Kernel, crashed: Crash) -> None:
    """The row still said the old size, and the file was filled up to it."""
    with kernel.open("file", CREATE) as file:
        file.write(b"x" * 100)
        file.fsync()
        file.truncate(10)
        session = Session(crashed())
        assert session.kernel.read_file("file") in (b"x" * 100, b"x" * 10)
        session.stop()


def test_exchanging_with_an_unsealed_file_loses_neither(kernel: Kernel, crashed: Crash) -> None:
    """The name resolved to an empty file (I6)."""
    kernel.write_file("old", b"old")
    for name in ("left", "right"):
        kernel.open(name, CREATE).write(name.encode())
    kernel.rename("left", "old", 2)
    kernel.rename("old", "right", 2)
    kernel.sync()
    session = Session(crashed())
    contents = [session.kernel.read_file(name) for name in ("left", "old", "right")]
    session.stop()
    assert contents == [b"old", b"right", b"left"]


def test_inodes_that_were_open_without_a_name_go(kernel: Kernel, crashed: Crash, session: Session) -> None:
    files = [kernel.open(name, CREATE) for name in ("small", "large", "fsynced")]
    for file in files:
        file.write(LARGE)
    files[2].fsync()
    for name in ("small", "large", "fsynced"):
        kernel.unlink(name)
    kernel.mkdir("directory")
    run_inline(session.fs.tree.rmdir(ROOT_INO, b"directory"))
    kernel.sync()
    assert session.store.namespace.inodes.count() == 5
    again = Session(crashed())
    assert again.store.namespace.inodes.count() == 1
    assert again.store.filestore.staging.names() == []
    again.stop()
    for file in files:
        file.close()


def test_a_removed_file_that_the_kernel_holds_keeps_what_it_had(
    kernel: Kernel, crashed: Crash, session: Session
) -> None:
    """A commit between UNLINK and FORGET wrote a row with a size and no content, or with another's content;
    who had it open with O_PATH could open it, and found nothing."""
    contents = {"overwritten": b"new", "new": b"small", "large": LARGE}
    kernel.write_file("overwritten", b"old content", sync=True)
    for name, content in contents.items():
        kernel.write_file(name, content)
    removed = [
        (run_inline(session.fs.tree.unlink(ROOT_INO, name.encode())), content)
        for name, content in contents.items()
    ]
    kernel.sync()
    path = crashed()
    assert_clean(path, strays=True, unlinked=True)
    Session(path).stop()
    for inode, content in removed:
        handle = session.fs.files.open(inode, False, 0)
        assert run_inline(session.fs.files.read(handle, 0, inode.size)) == content
        run_inline(session.fs.files.release(handle))
    run_inline(session.fs.tree.forget([inode.ino for inode, _ in removed]))
    assert session.fs.activity().open_unsealed == session.fs.activity().unlinked_open == 0


def test_a_tree_without_a_name_goes_with_all_below(
    kernel: Kernel, crashed: Crash, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a tree copy that was cut off leaves it; files with a name elsewhere stay."""
    set_limits(monkeypatch, REMOVE_BATCH=3, GROUP_LIMIT=10)
    kernel.mkdir("tree")
    for number in range(10):
        kernel.mkdir(f"tree/{number}")
        for each in range(10):
            kernel.write_file(f"tree/{number}/{each}", b"content %d" % each)
    kernel.link("tree/3/3", "kept")
    kernel.sync()
    path = crashed()
    with closing(sqlite3.connect(path / "casfs.db")) as database, database:
        database.execute("DELETE FROM dentry WHERE name = ?", (b"tree",))
        database.execute("UPDATE inode SET nlink = 0 WHERE ino = ?", (kernel.inode("tree").ino,))
        database.execute("UPDATE inode SET nlink = 2 WHERE ino = 1")
    session = Session(path)
    assert session.kernel.names() == [b"kept"]
    assert session.kernel.read_file("kept") == b"content 3"
    assert session.kernel.inode("kept").nlink == 1
    assert session.store.namespace.inodes.count() == 2
    session.stop()


def test_staged_files_that_nobody_names_go(session: Session) -> None:
    path = session.path / "staging"
    session.stop()
    for name in ("0123456789abcdef", "stranger"):
        (path / name).write_bytes(b"rest")
    session.start()
    assert os.listdir(path) == []


def test_a_file_that_sealing_left_over_is_not_removed_under_its_next_writer(
    session: Session, kernel: Kernel, crashed: Crash
) -> None:
    """A lent file is sealed by a copy of it, which goes to the pool when there is a blob like it. The start
    took that for garbage: who wrote next had a file without a name, lost with the daemon or at unmount."""
    kernel.write_file("blob", LARGE)
    file = kernel.open("lent", CREATE)
    file.write(LARGE)
    file.fsync()
    path = crashed()
    (name,) = (row for row in os.listdir(path / "staging") if (path / "staging" / row).stat().st_size)
    os.rename(path / "staging" / name, path / "staging" / f"{name}{LENT}")
    with closing(sqlite3.connect(path / "casfs.db")) as connection, connection:
        connection.execute("UPDATE inode SET staged = ? WHERE staged = ?", (name + LENT, name))
    after = Session(path)
    with after.kernel.open("next", CREATE) as following:
        following.write(LARGE[::-1])
        following.fsync()
        again = Session(crash_of(after, path))
        assert again.kernel.read_file("next") == LARGE[::-1]
        assert again.kernel.read_file("lent") == LARGE
        again.stop()
    after.stop()
    file.close()


def crash_of(session: Session, path: Path) -> Path:
    copy = path.with_name(f"{path.name} again")
    copy_store(session.path, copy)
    return copy


def test_a_start_is_not_longer_for_more_files(store_path: Path) -> None:
    """It looks at what was in flight, not at the whole store."""
    session = Session(store_path)
    for number in range(300):
        session.kernel.make(f"{number}", stat.S_IFIFO)
    session.kernel.write_file("file", b"content")
    session.stop()
    seam = FaultyDurable()
    session = Session(store_path, seam)
    assert seam.calls == ["reserve_log", "commit", "sync_log"]
    assert session.fs.inodes.cached <= 1
    session.stop()


def test_sparse_content_stays_staged(session: Session, kernel: Kernel, crashed: Crash) -> None:
    with kernel.open("file", CREATE) as file:
        file.write(b"start")
        file.truncate(2 << 30)
        file.fsync()
        again = Session(crashed())
        inode = again.kernel.inode("file")
        assert inode.size == 2 << 30
        assert again.store.filestore.staging.names() == [inode.staged]
        with again.kernel.open("file") as opened:
            assert opened.read(7) == b"start\0\0"
        again.stop()


def test_fsynced_content_that_is_gone_does_not_stop_the_start(
    session: Session, kernel: Kernel, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with kernel.open("file", CREATE) as file, kernel.open("other", CREATE) as other:
        for each in (file, other):
            each.write(LARGE + each.stat().ino.to_bytes(2, "big"))
            each.fsync()
        copy_store(session.path, scratch / "damaged")
        staged = file.stat().staged
    (scratch / "damaged" / "staging" / str(staged)).unlink()
    again = Session(scratch / "damaged")
    assert "casfs fsck" in caplog.text
    with pytest.raises(OSError, match="missing") as raised:
        again.kernel.open("file")
    assert raised.value.errno == errno.EIO
    assert again.kernel.read_file("other").startswith(LARGE)
    again.kernel.unlink("file")
    again.stop()
    assert_clean(scratch / "damaged", strays=True)


def test_a_store_of_an_ordinary_user_recovers_too(session: Session, kernel: Kernel, scratch: Path) -> None:
    """Content that was fsynced, sealed and cut off before the commit had the mode of a blob: EACCES."""
    file = kernel.open("file", CREATE)
    file.write(LARGE)
    file.fsync()
    file.close()
    copy = scratch / "copy"
    copy_store(session.path, copy)
    scratch.chmod(0o755)
    for folder, _, names in os.walk(copy):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(path, 65534, 65534)
    child = os.fork()
    if not child:
        code = 2
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            again = Session(copy)
            code = int(again.kernel.read_file("file") != LARGE)
            again.stop()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_clean(copy, strays=True)


def test_recovery_on_a_full_disk_can_be_tried_again(kernel: Kernel, crashed: Crash) -> None:
    file = kernel.open("file", CREATE)
    file.write(LARGE)
    file.fsync()
    path = crashed()
    seam = FaultyDurable()

    def full(_: int, name: str) -> None:
        if name in ("link", "create", "reserve_log"):
            raise OSError(errno.ENOSPC, "full")

    seam.before = full
    with pytest.raises(OSError, match="full"):
        Session(path, seam)
    session = Session(path)
    assert session.kernel.read_file("file") == LARGE
    session.stop()
    file.close()


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("synced", [LARGE, b""], ids=["some", "empty"])
def test_what_was_linked_as_a_blob_and_never_committed_is_not_cut(
    kernel: Kernel, crashed: Crash, monkeypatch: pytest.MonkeyPatch, synced: bytes, room: bool
) -> None:
    """The file under the name of a blob was cut to what the row of its other name says (I2)."""
    with kernel.open("file", CREATE) as file:
        file.write(LARGE)
        file.fsync()
        kernel.truncate("file", len(synced))
        file.fsync()
        file.write(LARGE + b"more")
    path = crashed()
    linked = [blob for blob in (path / "blobs").glob("*/*") if blob.stat().st_nlink > 1]
    assert [blob.stat().st_size for blob in linked] == [len(LARGE) + 4]
    if not room:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr("casfs.fs.content.staged.StagedContents.take_copy", full)
    session = Session(path)
    assert session.kernel.read_file("file") == synced
    session.stop()
    if room:
        for blob in (path / "blobs").glob("*/*"):
            assert blake3(blob.read_bytes()).hexdigest() == blob.name


# Stores that somebody else wrote


@pytest.fixture
def hostile(session: Session, kernel: Kernel, scratch: Path) -> Path:
    """A copy of a store, to be damaged, that holds a file and one below a folder."""
    kernel.mkdir("folder")
    kernel.write_file("folder/file", LARGE, sync=True)
    kernel.write_file("other", b"other", sync=True)
    session.stop()
    copy_store(session.path, scratch / "hostile")
    (scratch / "victim").write_bytes(b"theirs")
    (scratch / "victim").chmod(0o644)
    return scratch / "hostile"


def change(store: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(store / "casfs.db", isolation_level=None)) as database:
        database.execute(sql, values)


@pytest.mark.parametrize("folder", ["staging", "blobs"])
def test_a_link_in_place_of_a_folder_empties_nothing(hostile: Path, scratch: Path, folder: str) -> None:
    """What lay where `staging` led was removed by the start, as staged files of nobody."""
    (hostile / folder).rename(scratch / "elsewhere")
    (hostile / folder).symlink_to(scratch / "elsewhere")
    (scratch / "elsewhere" / "theirs").touch()
    before = sorted((scratch / "elsewhere").rglob("*"))
    with pytest.raises(FormatError, match=rf"{folder} is no directory; casfs fsck --repair"):
        Session(hostile)
    assert sorted((scratch / "elsewhere").rglob("*")) == before


@pytest.mark.parametrize("kind", ["link", "second name", "fifo", "folder", "device"])
@pytest.mark.parametrize("size", [0, 3, 6, 100])
def test_a_row_that_names_what_is_no_staged_file_changes_nothing_elsewhere(
    hostile: Path, scratch: Path, kind: str, size: int
) -> None:
    """The file that a link led to had its mode changed, and one with a second name would be cut."""
    place = hostile / "staging" / "00ff"
    match kind:
        case "link":
            place.symlink_to(scratch / "victim")
        case "second name":
            os.link(scratch / "victim", place)
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case _:
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    change(hostile, "UPDATE inode SET staged = '00ff', blob_id = NULL, size = ? WHERE mode >> 12 = 8", size)
    session = Session(hostile)
    if kind == "second name":
        assert session.kernel.read_file("other") == b"theirs"[:size]
        session.kernel.write_file("other", b"written")
    else:
        with pytest.raises(OSError, match="no file") as raised:
            session.kernel.open("other")
        assert raised.value.errno == errno.EIO
    session.stop()
    assert (scratch / "victim").read_bytes() == b"theirs"
    assert stat.S_IMODE((scratch / "victim").stat().st_mode) == 0o644


def test_a_staged_file_with_a_name_elsewhere_is_not_cut_for_want_of_room(
    hostile: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(scratch / "victim", hostile / "staging" / "00ff")
    change(hostile, "UPDATE inode SET staged = '00ff', blob_id = NULL, size = 3 WHERE size = 5")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("casfs.fs.content.staged.StagedContents.take_copy", full)
    with pytest.raises(OSError, match="full"):
        Session(hostile)
    assert (scratch / "victim").read_bytes() == b"theirs"


@pytest.mark.parametrize("damaged", ["ino = 1", "size = 5", "mode >> 12 = 4"])
def test_what_has_a_name_is_not_removed_for_what_its_row_says(hostile: Path, damaged: str) -> None:
    """With 0 links of the root, in its row, the start removed everything."""
    change(hostile, f"UPDATE inode SET nlink = 0 WHERE {damaged}")
    session = Session(hostile)
    assert session.kernel.read_file("folder/file") == LARGE
    assert session.kernel.read_file("other") == b"other"
    session.stop()


@pytest.mark.parametrize(
    ("column", "value"), [("uid", -1), ("gid", 1 << 40), ("size", -1), ("mode", 1 << 20), ("nlink", -5)]
)
def test_a_row_with_what_no_inode_can_have_is_an_error_of_its_own(
    hostile: Path, column: str, value: int
) -> None:
    change(hostile, f"UPDATE inode SET {column} = ? WHERE size = 5", value)
    session = Session(hostile)
    with pytest.raises(OSError, match="is damaged") as raised:
        session.kernel.read_file("other")
    assert raised.value.errno == errno.EIO
    assert session.kernel.read_file("folder/file") == LARGE
    session.stop()


def test_names_of_nothing_below_what_is_removed_do_not_stop_the_start(hostile: Path) -> None:
    change(hostile, "DELETE FROM inode WHERE size > 5")
    change(hostile, "UPDATE inode SET nlink = 0 WHERE mode >> 12 = 4 AND ino > 1")
    change(hostile, "DELETE FROM dentry WHERE name = x'666f6c646572'")
    session = Session(hostile)
    assert session.kernel.names() == [b"other"]
    session.stop()


@pytest.mark.parametrize("value", [None, "text", 0, -7, 1 << 62, (1 << 63) - 1])
def test_without_numbers_to_give_there_is_no_start(hostile: Path, value: object) -> None:
    change(hostile, "DELETE FROM meta WHERE key = 'next_ino'")
    if value is not None:
        change(hostile, "INSERT INTO meta VALUES ('next_ino', ?)", value)
    with pytest.raises(FormatError, match=r"no numbers left to give .*fsck --repair"):
        Session(hostile)


def test_a_folder_among_the_staged_files_is_left(hostile: Path, caplog: pytest.LogCaptureFixture) -> None:
    (hostile / "staging" / "folder").mkdir()
    session = Session(hostile)
    session.stop()
    assert (hostile / "staging" / "folder").is_dir()
    assert "casfs fsck" in caplog.text


def test_a_directory_below_itself_ends_every_walk_up(hostile: Path) -> None:
    """To rename something into it looked for the root for ever."""
    for ino in (90, 91):
        row = (ino, 0o40755, 3, 0, 0, 0, 0, 0, None, None, None, 0, 0, 0, 0)
        change(hostile, f"INSERT INTO inode VALUES ({', '.join('?' * len(row))})", *row)
    change(hostile, "INSERT INTO dentry VALUES (90, 900, x'61', 91, 4), (91, 901, x'62', 90, 4)")
    session = Session(hostile)
    dentries = session.store.namespace.dentries
    assert not dentries.is_below(90, 2)
    assert dentries.is_below(90, 91)
    assert dentries.paths_of(90)
    session.stop()
