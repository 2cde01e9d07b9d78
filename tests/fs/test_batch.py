"""One thing done to many files: all of it or nothing, while others go on, whatever they do meanwhile."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
import trio

from casfs import properties
from casfs.errors import FsError
from casfs.fs import actions, batch
from casfs.fs.batch import Batch, Done, Item, Target, Undo, Verb
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.scheduler import run_inline
from casfs.repositories.rules import Rules
from casfs.store import database_path
from casfs.trash.filesystem import trash_of
from casfs.types import ROOT_INO
from tests.fs.mount import Mount, Run
from tests.kernel import Kernel
from tests.repositories.making import make_repository
from tests.session import Session

QA = properties.attribute_of("qa")

MANY = 10_000


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "STEP", 2)
    monkeypatch.setattr(batch, "FLUSH", 3)


def act(fs: FileSystem, verb: Verb, *targets: Target | str) -> Done:
    one = Batch(fs, verb)
    found = [Target(target.encode()) if isinstance(target, str) else target for target in targets]
    looked = run_inline(one.look(found))
    done = run_inline(one.run())
    assert done.changed >= looked.changed
    return done


def fails(number: int, text: str, call: Callable[[], object]) -> None:
    with pytest.raises(FsError, match=text) as raised:
        call()
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


@pytest.fixture
def kernel(kernel: Kernel) -> Kernel:
    kernel.mkdir("dir")
    kernel.mkdir("dir/sub")
    kernel.mkdir("to")
    for name in ("a", "b", "dir/c", "dir/sub/d"):
        kernel.write_file(name, name.encode())
    kernel.symlink("a", "symlink")
    return kernel


# What is done


def test_properties_of_a_directory_are_those_of_the_files_below_it_with_recursive(kernel: Kernel) -> None:
    fs = kernel.fs
    assert act(fs, actions.set_properties(fs, {"qa": ["x", "y", "x"]}), "dir", "/a") == Done(2, 1, 0)
    assert actions.properties_of(fs, b"/dir") == actions.properties_of(fs, b"a") == {"qa": ["x", "y"]}
    assert actions.properties_of(fs, b"dir/c") == {}
    assert act(fs, actions.set_properties(fs, {"qa": ["z"]}, recursive=True), "/dir/", "a").files == 3
    assert actions.properties_of(fs, b"dir") == {"qa": ["x", "y"]}
    for path in (b"dir/c", b"dir/sub/d", b"a"):
        assert actions.properties_of(fs, path) == {"qa": ["z"]}
    assert actions.properties_of(fs, b"dir/sub") == {}
    assert act(fs, actions.remove_properties(fs, ["qa", "none"], recursive=True), "/").files == 3
    assert act(fs, actions.remove_properties(fs, ["none"], recursive=True), "/").files == 0
    assert actions.properties_of(fs, b"a") == {}
    fails(errno.ENOENT, "/none: No such", lambda: actions.properties_of(fs, b"/none"))


def test_files_are_removed_copied_and_moved(session: Session, kernel: Kernel) -> None:
    fs = kernel.fs
    trash_of(fs).minimal_age_ns = 0
    kernel.setxattr("a", QA, b"passed")
    session.rest()
    assert act(fs, actions.CopyInto(fs, b"/to/"), "a", "symlink", "dir/sub/d") == Done(3, 11, 0)
    assert kernel.read_file("to/a") == b"a"
    assert kernel.getxattr("to/a", QA) == b"passed"
    assert act(fs, actions.MoveInto(fs, b"dir/sub"), "b", "dir/c", "dir/sub/d") == Done(2, 6, 0)
    assert sorted(kernel.names("dir/sub")) == [b"b", b"c", b"d"]
    assert act(fs, actions.RemoveFiles(fs, 7), "a", "dir/sub/b", "symlink") == Done(3, 3, 0)
    kernel = session.reopen()
    assert sorted(kernel.names()) == [b"dir", b"to"]
    rows = session.store.namespace.trash.oldest(1 << 62, (-1, -1), 9)
    assert sorted((row.path, row.uid) for row in rows) == [(b"a", 7), (b"dir/sub/b", 7)]


def test_what_rests_before_it_is_sealed_is_kept_in_the_trash(session: Session, kernel: Kernel) -> None:
    trash_of(kernel.fs).minimal_age_ns = 0
    session.rest()
    kernel.write_file("a", b"again", flags=0)
    kernel.sync()
    assert kernel.inode("a").staged
    act(kernel.fs, actions.RemoveFiles(kernel.fs, 0), "a")
    assert [row.path for row in session.store.namespace.trash.oldest(1 << 62, (-1, -1), 9)] == [b"a"]


# What refuses


def test_what_is_refused_for_one_is_done_to_none(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, before = kernel.fs, kernel.tree()
    kernel.write_file("to/a", b"there")
    before = kernel.tree()
    fails(errno.EISDIR, "dir: Is a dir", lambda: act(fs, actions.RemoveFiles(fs, 0), "a", "dir"))
    fails(errno.EEXIST, "to/a: File exists", lambda: act(fs, actions.CopyInto(fs, b"to"), "b", "a"))
    fails(errno.EEXIST, "to/a: File exists", lambda: act(fs, actions.MoveInto(fs, b"to"), "b", "a"))
    kernel.mkdir("more")
    fails(errno.EEXIST, "has this name", lambda: act(fs, actions.MoveInto(fs, b"more"), "a", "b", "to/a"))
    kernel.rmdir("more")
    fails(errno.ENOENT, "none", lambda: actions.MoveInto(fs, b"none"))
    fails(errno.ENOTDIR, "a: Not", lambda: actions.CopyInto(fs, b"a"))
    fails(errno.ENOENT, "/none: No such", lambda: act(fs, actions.RemoveFiles(fs, 0), "a", "/none"))
    fails(errno.ENOENT, "none/x: No such", lambda: act(fs, actions.RemoveFiles(fs, 0), "a", "none/x"))
    fails(errno.EINVAL, "allowed", lambda: act(fs, actions.RemoveFiles(fs, 0), "dir/../a"))
    fails(errno.EPERM, "symlink", lambda: act(fs, actions.set_properties(fs, {"qa": ["x"]}), "a", "symlink"))
    fails(errno.EINVAL, "printable", lambda: act(fs, actions.set_properties(fs, {"qa": ["\t"]}), "a"))
    fails(errno.E2BIG, "2048", lambda: act(fs, actions.set_properties(fs, {"qa": ["x" * 2049]}), "a"))
    monkeypatch.setattr(batch, "LIMIT", 2)
    everything = actions.set_properties(fs, {"qa": ["x"]}, recursive=True)
    fails(errno.E2BIG, "more than 2 files", lambda: act(fs, everything, "/"))
    monkeypatch.setattr(batch, "ATTRIBUTES_LIMIT", 5)
    kernel.setxattr("b", b"user.x", b"123456")
    before = kernel.tree()
    fails(errno.E2BIG, "attributes", lambda: act(fs, actions.set_properties(fs, {"q": ["123"]}), "a", "b"))
    for verb in (actions.RemoveFiles(fs, 0), actions.CopyInto(fs, b"dir")):
        fails(errno.E2BIG, "attributes", lambda verb=verb: act(fs, verb, "b"))
    monkeypatch.setattr(batch, "LOG_BYTES", 1 << 60)
    fails(errno.ENOSPC, "no room", lambda: act(fs, actions.RemoveFiles(fs, 0), "a"))
    assert kernel.tree() == before


def test_the_trash_is_left_alone(session: Session, kernel: Kernel) -> None:
    trash_of(kernel.fs).minimal_age_ns = 0
    session.rest()
    kernel.unlink("a")
    kernel.sync()
    fs = kernel.fs
    (day,) = kernel.names(".casfs/trash")
    path = f".casfs/trash/{day.decode()}/a"
    for verb in (actions.RemoveFiles(fs, 0), actions.MoveInto(fs, b"to")):
        fails(errno.EPERM, "trash", lambda verb=verb: act(fs, verb, "b", path))
    fails(errno.EPERM, "b: ", lambda: act(fs, actions.MoveInto(fs, b".casfs/trash"), "b"))


# What has changed


def test_what_has_changed_since_it_was_found_is_left(kernel: Kernel) -> None:
    fs = kernel.fs
    a, b, c = (kernel.inode(name).ino for name in ("a", "b", "dir/c"))
    kernel.rename("a", "b")
    targets = [Target(b"a", a), Target(b"b", b), Target(b"dir/c", c), Target(b"none/x", c)]
    assert act(fs, actions.RemoveFiles(fs, 0), *targets) == Done(1, 5, 3)
    assert kernel.read_file("b") == b"a"
    with kernel.open("b", os.O_WRONLY):
        for verb in (actions.RemoveFiles(fs, 0), actions.MoveInto(fs, b"to")):
            assert act(fs, verb, Target(b"b", a)) == Done(0, 0, 1)
    assert act(fs, actions.set_properties(fs, {"qa": ["x"]}), Target(b"b", b), Target(b"b", a)).changed == 1


@pytest.mark.parametrize("moved", ["dir", "dir/sub"])
def test_what_changes_after_it_was_looked_at_is_left(kernel: Kernel, moved: str) -> None:
    fs = kernel.fs
    one = Batch(fs, actions.RemoveFiles(fs, 0))
    paths = (b"a", b"b", b"dir/sub/d")
    assert run_inline(one.look([Target(path) for path in paths])) == Done(3, 11, 0)
    kernel.unlink("b")
    kernel.write_file("b", b"another")
    kernel.rename(moved, "elsewhere")
    assert run_inline(one.run()) == Done(1, 1, 2)
    assert kernel.read_file("b") == b"another"


# While others go on


async def make_many(mount: Mount, count: int) -> list[Target]:
    fs = mount.fs
    made = []
    for number in range(count):
        name = b"%d" % number
        inode = await fs.tree.make(ROOT_INO, name, 0o100644, 0, 0)
        made.append(Target(name, inode.ino))
        if number % 500 == 0:
            await fs.group.durable()
    await fs.group.durable()
    return made


def having(path: Path, sql: str) -> int:
    """What a kill now would leave: what is committed."""
    with closing(apsw.Connection(database_path(str(path)), flags=apsw.SQLITE_OPEN_READONLY)) as other:
        return int(other.execute(sql).get)


COUNTS = {
    "set": "SELECT count(*) FROM property",
    "rm": "SELECT count(*) FROM dentry WHERE parent = 1 AND type = 8",
    "cp": "SELECT count(*) FROM dentry WHERE parent <> 1",
    "mv": "SELECT count(*) FROM dentry WHERE parent <> 1",
}


def verb_of(fs: FileSystem, name: str) -> Verb:
    match name:
        case "set":
            return actions.set_properties(fs, {"qa": ["passed"]})
        case "rm":
            return actions.RemoveFiles(fs, 0)
        case "cp":
            return actions.CopyInto(fs, b"to")
    return actions.MoveInto(fs, b"to")


@pytest.mark.parametrize("name", COUNTS)
def test_a_kill_in_the_middle_leaves_all_or_nothing(run: Run, store_path: Path, name: str) -> None:
    """Others write, look and wait for a commit meanwhile."""

    async def body(mount: Mount) -> None:
        fs = mount.fs
        targets = await make_many(mount, 1000)
        to = await mount.make(b"to", 0o40755)
        await fs.group.durable()
        counts, ended = [], trio.Event()
        before = having(store_path, COUNTS[name])

        async def others() -> None:
            number = 0
            while not ended.is_set():
                await fs.tree.make(to.ino, b"fifo%d" % number, 0o10644, 0, 0)
                number += 1
                if number % 10 == 0:
                    counts.append(having(store_path, COUNTS[name] + " AND type = 8" * (name in ("cp", "mv"))))
                await fs.scheduler.pause()

        async def waits() -> None:
            await trio.lowlevel.checkpoint()
            await fs.group.durable()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            one = Batch(fs, verb_of(fs, name))
            assert (await one.look(targets)).files == 1000
            nursery.start_soon(waits)
            assert (await one.run()).files == 1000
            ended.set()
        after = having(store_path, COUNTS[name] + " AND type = 8" * (name in ("cp", "mv")))
        assert len(counts) > 3
        assert set(counts) <= {before, after}
        assert after != before

    run(body)


def test_others_are_served_meanwhile(run: Run) -> None:
    """10,000 files, and no request waits for longer than some steps."""

    async def body(mount: Mount) -> None:
        fs = mount.fs
        targets = await make_many(mount, MANY)
        longest, turns, ended = 0.0, 0, trio.Event()

        async def others() -> None:
            nonlocal longest, turns
            while not ended.is_set():
                began = trio.current_time()
                await fs.scheduler.pause()
                longest, turns = max(longest, trio.current_time() - began), turns + 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            one = Batch(fs, actions.set_properties(fs, {"qa": ["passed"]}))
            await one.look(targets)
            assert (await one.run()).files == MANY
            ended.set()
        assert turns > MANY // batch.STEP
        assert longest < 0.5

    run(body)


class Failing:
    """A verb that fails at one of the files, or waits there for ever."""

    def __init__(self, verb: Verb, at: int, fail: Callable[[], object]) -> None:
        self._verb = verb
        self._left = at
        self._fail = fail
        self.of_files = verb.of_files
        self.recursive = verb.recursive
        self.check = verb.check
        self.attributes = verb.attributes
        self.prepare = verb.prepare
        self.end = verb.end

    def do(self, item: Item, inode: Inode) -> Undo | None:
        self._left -= 1
        if not self._left:
            self._fail()
        return self._verb.do(item, inode)


def refuse() -> None:
    raise FsError(errno.EDQUOT)


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("cancelled", [False, True])
def test_what_fails_or_is_cancelled_in_the_middle_is_undone(run: Run, name: str, cancelled: bool) -> None:
    async def body(mount: Mount) -> None:
        fs = mount.fs
        trash_of(fs).minimal_age_ns = 0
        targets = await make_many(mount, 50)
        for target in targets[:30]:
            handle = mount.open(fs.inodes.get(target.ino))
            await fs.files.write(handle, 0, target.path)
            await mount.close(handle)
        await mount.make(b"to", 0o40755)
        await fs.group.durable()
        scope = trio.CancelScope()
        one = Batch(fs, Failing(verb_of(fs, name), 40, scope.cancel if cancelled else refuse))
        await one.look(targets)
        before = {name: row for name, row in mount.committed().items() if name != b".casfs"}
        with scope:
            if cancelled:
                await one.run()
            else:
                with pytest.raises(FsError, match="39: Disk quota"):
                    await one.run()
        assert scope.cancelled_caught == cancelled
        await fs.tree.forget(list(fs.tree.unlinked))
        await fs.group.durable()
        assert mount.committed() == before
        assert fs.policy.pending == 0
        assert not fs.tree.kept
        for target in targets[:30]:
            assert await mount.read_file(target.path) == target.path

    run(body)


def test_what_cannot_be_undone_is_never_committed(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.sync()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(actions.ChangeProperties, "_undo", fail)
    fs = kernel.fs
    verb = Failing(actions.set_properties(fs, {"qa": ["x"]}), 2, refuse)
    fails(errno.EDQUOT, "b: Disk quota", lambda: act(fs, verb, "a", "b"))
    assert fs.group.failed == errno.EIO
    session.abandon()
    session.start()
    assert actions.properties_of(session.fs, b"a") == {}


@pytest.mark.usefixtures("short_steps")
def test_the_kernel_may_forget_what_is_given_its_name_back(run: Run) -> None:
    async def body(mount: Mount) -> None:
        fs = mount.fs
        targets = await make_many(mount, 20)

        async def forget() -> None:
            while fs.tree.kept or not done:
                await fs.tree.forget([target.ino for target in targets])
                await fs.scheduler.pause()

        done: list[int] = []
        one = Batch(fs, Failing(actions.RemoveFiles(fs, 0), 18, refuse))
        await one.look(targets)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget)
            with pytest.raises(FsError):
                await one.run()
            done.append(1)
        await fs.group.durable()
        assert set(mount.committed()) == {target.path for target in targets}
        for target in targets:
            await mount.unlink(target.path)
        await fs.group.durable()
        assert mount.committed() == {}

    run(body)


@contextmanager
def told(*numbers: int) -> Iterator[None]:
    """One of these errors may come."""
    try:
        yield
    except FsError as error:
        if error.errno not in numbers:
            raise


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("seed", range(4))
def test_what_others_do_meanwhile_stays(run: Run, name: str, seed: int) -> None:
    """Whether it fails or not: the names that others gave are there, and nothing is left half."""

    async def body(mount: Mount) -> None:
        fs, dice = mount.fs, random.Random(seed)
        trash_of(fs).minimal_age_ns = 0
        targets = await make_many(mount, 60)
        to = await mount.make(b"to", 0o40755)
        made: set[tuple[int, bytes]] = set()
        ended = False

        async def others() -> None:
            while not ended:
                path = dice.choice(targets).path
                parent = dice.choice((ROOT_INO, to.ino))
                with told(errno.EEXIST, errno.ENOENT):
                    match dice.randrange(3):
                        case 0:
                            await fs.tree.make(parent, path, 0o100600, 0, 0)
                            made.add((parent, path))
                        case 1:
                            await fs.tree.rename(parent, path, ROOT_INO, b"moved " + path, 1)
                            made.discard((parent, path))
                            made.add((ROOT_INO, b"moved " + path))
                        case 2:
                            inode = fs.tree.lookup(parent, path)
                            if inode is not None:
                                await fs.xattrs.set(inode.ino, QA, b"theirs", lambda _: True)
                await fs.scheduler.pause()

        one = Batch(fs, Failing(verb_of(fs, name), 55, refuse) if seed % 2 else verb_of(fs, name))
        async with trio.open_nursery() as nursery:
            await one.look(targets)
            nursery.start_soon(others)
            with told(errno.EDQUOT, errno.EEXIST):
                await one.run()
            ended = True
        for parent, path in made:
            assert fs.tree.lookup(parent, path) is not None
        await fs.tree.forget(list(fs.tree.unlinked))

    run(body)


def test_sidecars_that_are_listed_are_no_files_below_a_directory(session: Session) -> None:
    """They were counted as files that had changed meanwhile."""
    make_repository(session, "libs", with_rules=Rules(sidecars="listed"))
    session.kernel.write_file("libs/file", b"content")
    assert b"file.sha1" in session.kernel.names("libs")
    done = act(session.fs, actions.set_properties(session.fs, {"qa": ["x"]}, recursive=True), "libs")
    assert (done.files, done.changed) == (1, 0)
