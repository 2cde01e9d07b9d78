"""The protocol of one blob between publisher, committer and collector, step by step as the code goes.

A label names who acts and the function of the code that does it, as `daemon: Blobs.find`. The daemon is two
actors: `daemon` is its event loop, `commit` the commit under way, whose waits (for threads that write and
sync) let the loop go on. The collector removes orphans (`gc`) or stray files (`stray`). At every step each
process may be killed, and the power may go: then the log is cut back to any commit since its last sync, and
the blob's name is, whatever happened to it since the last sync of its folder, any of the files it had, or
none; a file that was never synced is torn or whole. Everything goes on from there, without end: no number of
operations, collections or crashes is a limit of the model.

One blob is enough: what the steps of several have in common is the locks and the log, which are in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MOST_REFS = 2
"""References there can be; a third is no other case than a second."""


class Rows(NamedTuple):
    """What the database says of the blob. `row`: has it a row; `refs`: how many inodes name that row.

    `damaged`: somebody took the file away, and no write of the content has come since.
    """

    row: bool = False
    refs: int = 0
    damaged: bool = False


NO_ROW = Rows()


class State(NamedTuple):
    """Everything there is. Strings name where an actor is; "" is at rest."""

    # On disk
    committed: Rows = NO_ROW
    unsure: frozenset[Rows] = frozenset({NO_ROW})  # what may be committed after a power loss
    tail: Rows | None = None  # a commit in the log that its end, in shared memory, does not yet cover
    log_synced: bool = True  # has the log been synced since the daemon's last commit?
    told: bool = False  # has an fsync(2) returned that this commit was not durable for?
    file: str = ""  # under the blob's name: "", "torn" or "whole"
    synced: bool = True  # are the bytes of that file durable?
    folder: frozenset[str] = frozenset({"none"})  # after a power loss: "none", "now", or an earlier file
    # Locks, and who has them
    turnstile: str = ""
    lock: str = ""
    # The daemon's loop
    at: str = ""
    then: str = ""
    rows: Rows | None = None  # in the open transaction
    found: bool = False  # what the loop remembers of a look at the rows
    new: bool = False  # the open transaction has inserted the row, and no file was written for it
    pending: bool = False  # accepted, in memory
    published: bool = False
    # The commit
    commit: str = ""
    taken: bool = False
    written: bool = False
    gate: bool = False
    # The collector
    gc: str = ""
    gc_rows: Rows | None = None


START = State()

Move = tuple[str, State]


class Protocol:
    """`fault`: the step that is left out or done at another time, one of `FAULTS`; "" for the real one."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def moves(self, state: State) -> Iterator[Move]:
        yield from self.daemon(state)
        yield from self.committer(state)
        yield from self.collector(state)
        yield from self.mishaps(state)

    # The daemon's event loop: fs/sealing.py, fs/inodes.py, GroupCommit.begin

    def daemon(self, s: State) -> Iterator[Move]:
        if s.commit == "visible":  # COMMIT is a call of the loop's
            return
        for label, after in self._loop(s):
            yield f"daemon: {label}", after

    def _loop(self, s: State) -> Iterator[Move]:
        match s.at:
            case "":
                yield from self._requests(s)
            case "start" if not s.turnstile and not s.lock:
                yield "recover", self._recover(s)
            case "enter" if not s.turnstile:
                yield "Turnstile.try_enter", s._replace(at="begin", turnstile="daemon")
            case "begin" if s.lock:
                yield "Namespace.try_begin, busy", s._replace(at="enter", turnstile="")
            case "begin":
                yield "Namespace.try_begin", s._replace(at="leave", lock="daemon", rows=s.committed)
            case "leave":
                yield "Turnstile.leave", s._replace(at=s.then, then="", turnstile="")
            case "early find":
                yield "Blobs.find", _begin(s._replace(found=s.committed.row), "found")
            case "early publish":
                yield "FileStore.publish_staged", _begin(_replace_file(s, "whole"), "find published")
            case "find published":
                assert s.rows
                yield "Blobs.find", s._replace(at="refer", rows=s.rows._replace(row=True), published=True)
            case "find":
                assert s.rows
                yield "Blobs.find", s._replace(at="found", found=s.rows.row)
            case "found":
                yield from self._found(s)
            case "publish":
                yield from self._publish(s)
            case "write":
                yield "Durable.write_whole", s._replace(at="note", file="whole")
            case "note":
                yield "GroupCommit.publish", s._replace(at="refer", published=True)
            case "refer":
                assert s.rows
                rows = s.rows._replace(refs=s.rows.refs + 1, damaged=False)
                yield "InodeTable.set_blob", s._replace(at="", found=False, rows=rows)

    def _recover(self, s: State) -> State:
        """Before all else: what a SIGKILL has left in the page cache becomes durable, and a commit takes the
        place of one that it has cut off."""
        s = s._replace(at="")
        if self.fault != "files are not synced at the start":
            s = s._replace(synced=True, folder=frozenset({"now" if s.file else "none"}))
        if self.fault != "nothing is committed at the start":
            s = s._replace(tail=None, unsure=frozenset({s.committed}))
        return s

    def _requests(self, s: State) -> Iterator[Move]:
        """Another request: it seals the content for a name, removes a name, or copies one."""
        refs = (s.rows or s.committed).refs
        open_gate = not s.gate or self.fault == "published while the gate is closed"
        if refs < MOST_REFS and open_gate:
            if self.fault == "the row is looked up before BEGIN" and s.rows is None:
                yield "Sealing._seal", s._replace(at="early find")
            elif self.fault == "published before BEGIN" and s.rows is None and not s.committed.row:
                yield "Sealing._seal", s._replace(at="early publish")
            else:
                yield "Sealing._seal", _begin(s, "find")
        if s.rows is None:
            yield "GroupCommit.begin", _begin(s, "")
        elif s.rows.refs:
            fewer = s.rows._replace(refs=s.rows.refs - 1)
            yield "Tree.unlink", s._replace(rows=fewer)
            if refs < MOST_REFS:
                yield "copy._duplicate", s._replace(rows=s.rows._replace(refs=refs + 1))

    def _found(self, s: State) -> Iterator[Move]:
        assert s.rows
        if not s.found:
            if s.rows.row:
                yield "Blobs.insert, refused", s._replace(at="", found=False)
            else:
                yield "Blobs.insert", s._replace(at="publish", rows=s.rows._replace(row=True), new=True)
        elif self.fault == "the file is not looked at":
            yield "no FileStore.has", s._replace(at="refer")
        else:
            # A torn file is shorter, which `has` sees: file systems bring a size to disk after its bytes.
            if s.pending or s.file == "whole":
                yield "FileStore.has", s._replace(at="refer")
            else:
                yield "FileStore.has, no", s._replace(at="publish")

    def _publish(self, s: State) -> Iterator[Move]:
        yield "FileStore.accept", s._replace(at="note", pending=True)
        if s.file and self.fault == "a file that is there is trusted":
            yield "nothing", s._replace(at="note", new=False)
        elif s.file:
            yield "Durable.unlink", _remove_file(s)
        else:
            yield "Durable.create", _replace_file(s, "torn")._replace(at="write", new=False)
        yield "FileStore.publish_staged", _replace_file(s, "whole")._replace(at="note", new=False)

    # GroupCommit._ordered

    def committer(self, s: State) -> Iterator[Move]:
        for label, after in self._commit(s):
            yield f"commit: {label}", after

    def _commit(self, s: State) -> Iterator[Move]:
        on_loop = not s.at
        match s.commit:
            case "" if s.rows is not None and on_loop:
                if self.fault == "COMMIT before the blobs are written":
                    yield "GroupCommit._ordered", s._replace(commit="rows")
                elif self.fault == "COMMIT before the blobs are synced":
                    yield "GroupCommit._ordered", s._replace(commit="drop", gate=True)
                else:
                    yield "GroupCommit._ordered", s._replace(commit="drop")
                    yield "GroupCommit._ordered", s._replace(commit="drop", gate=True)
            case "drop" if on_loop:
                yield "GroupCommit._drop_unused", self._drop_unused(s)._replace(commit="write")
            case "write" if s.taken and s.pending:
                if s.file:
                    yield "Durable.unlink", _remove_file(s)
                else:
                    yield "Durable.create", _replace_file(s, "torn")._replace(commit="whole")
            case "write":
                yield "GroupCommit._write_blobs", self._after_writing(s)
            case "whole":
                yield (
                    "Durable.write_whole",
                    s._replace(commit="write", file="whole", pending=False, new=False),
                )
            case "gate" if on_loop:
                yield "GroupCommit._ordered", s._replace(commit="drop", gate=True)
            case "sync" if s.written:
                after = "rows" if self.fault == "the folder of the blob is not synced" else "sync folder"
                yield "Durable.fsync_path blob", s._replace(commit=after, synced=True)
            case "sync":
                yield "GroupCommit._sync_blobs", s._replace(commit=self._after_sync())
            case "sync folder":
                now = frozenset({"now" if s.file else "none"})
                yield "Durable.fsync_path shard", s._replace(commit="sync", folder=now, written=False)
            case "rows" if on_loop:
                assert s.rows is not None
                yield "Namespace.commit", _append(s, s.rows)._replace(commit="visible")
            case "visible":
                yield "Namespace.commit, visible", self._rows_visible(s)
            case "log":
                log = "tell" if self.fault != "told before the log is synced" else ""
                yield "Namespace.sync_log", _sync_log(s)._replace(commit=log)
            case "tell":
                told = "log" if self.fault == "told before the log is synced" else ""
                yield "GroupCommit.durable", s._replace(commit=told, told=not s.log_synced)

    def _drop_unused(self, s: State) -> State:
        assert s.rows
        unused = not s.rows.refs or self.fault == "new blobs are dropped with their references"
        if s.new and s.pending and s.published and unused:
            rows = s.rows._replace(row=False)
            s = s._replace(rows=rows, new=False, pending=False, published=False)
        return s._replace(taken=s.taken or s.published, published=False)

    def _after_writing(self, s: State) -> State:
        after = s._replace(taken=False, written=s.written or s.taken)
        if not s.gate:
            return after._replace(commit="gate")
        late = self.fault == "COMMIT before the blobs are synced"
        return after._replace(commit="rows" if late else "sync")

    def _after_sync(self) -> str:
        return "log" if self.fault.startswith("COMMIT before") else "rows"

    def _rows_visible(self, s: State) -> State:
        late = self.fault == "COMMIT before the blobs are written"
        after = {
            "told before the log is synced": "tell",
            "COMMIT before the blobs are synced": "sync",
            "COMMIT before the blobs are written": "write",
        }.get(self.fault, "log")
        s = _visible(s)._replace(rows=None, lock="", gate=late, commit=after, log_synced=False)
        return s._replace(taken=s.published, published=False) if late else s

    # maintenance/batch.py

    def collector(self, s: State) -> Iterator[Move]:
        for label, after in self._collect(s):
            yield f"gc: {label}", after

    def _collect(self, s: State) -> Iterator[Move]:
        kind, _, at = s.gc.partition(" ")
        match at:
            case "" if not s.gc:
                yield from self._plan(s)
            case "enter" if not s.turnstile:
                after = "begin"
                if kind == "strays" and self.fault == "strays are removed in the turnstile only":
                    after = "look"
                yield "Turnstile.enter", s._replace(gc=f"{kind} {after}", turnstile="gc")
            case "begin" if not s.lock:
                yield (
                    "Namespace.try_begin",
                    s._replace(gc=f"{kind} look", lock="gc", gc_rows=s.committed),
                )
            case "look" if kind == "orphans":
                yield from self._check_orphan(s)
            case "look":
                yield from self._check_stray(s)
            case "commit":
                assert s.gc_rows is not None
                yield "Namespace.commit", _append(s, s.gc_rows)._replace(gc=f"{kind} {self._after(at, kind)}")
            case "sync in commit":
                yield "Namespace.commit, sync", _sync_log(s)._replace(gc=f"{kind} {self._after(at, kind)}")
            case "visible":
                after = self._after(at, kind)
                yield (
                    "Namespace.commit, visible",
                    _visible(s)._replace(gc=f"{kind} {after}", lock="", gc_rows=None),
                )
            case "sync":
                yield "Namespace.sync_log", _sync_log(s)._replace(gc=f"{kind} {self._after(at, kind)}")
            case "leave early":
                yield "Turnstile.leave", s._replace(gc=f"{kind} unlink", turnstile="")
            case "unlink":
                yield "Durable.unlink", _remove_file(s)._replace(gc=f"{kind} {self._after(at, kind)}")
            case "roll back":
                lock = "" if s.lock == "gc" else s.lock
                yield "Namespace.rollback", s._replace(gc=f"{kind} leave", lock=lock, gc_rows=None)
            case "leave":
                turnstile = "" if s.turnstile == "gc" else s.turnstile
                yield "Turnstile.leave", s._replace(gc="", turnstile=turnstile)

    def _plan(self, s: State) -> Iterator[Move]:
        if s.committed.row and not s.committed.refs:
            yield "plan", s._replace(gc="orphans enter")
        if s.file and not s.committed.row:
            unlocked = self.fault == "strays are removed without a lock"
            yield "plan", s._replace(gc="strays unlink" if unlocked else "strays enter")

    def _after(self, at: str, kind: str) -> str:
        """What comes after a step: the one place that knows the collector's order."""
        order = ["commit", "sync in commit", "visible", "sync", "unlink", "leave"]
        match self.fault:
            case "files are unlinked before COMMIT":
                order = ["unlink", "commit", "sync in commit", "visible", "leave"]
            case "files are unlinked before the log is synced":
                order = ["commit", "visible", "unlink", "sync", "leave"]
            case "deleted rows are seen before the log is synced":
                order = ["commit", "visible", "sync", "unlink", "leave"]
            case "the turnstile is left before files are unlinked":
                order = ["commit", "sync in commit", "visible", "sync", "leave early", "unlink", "leave"]
        if kind == "nothing":
            order = [step for step in order if step not in ("unlink", "leave early")]
        if kind == "strays" and self.fault in _WITHOUT_COMMIT:
            order = ["unlink", "roll back", "leave"]
        if kind == "nothing" and self.fault in _WITHOUT_COMMIT:
            order = ["roll back", "leave"]
        return order[0] if at == "look" else order[order.index(at) + 1]

    def _check_stray(self, s: State) -> Iterator[Move]:
        """Who is not in a transaction sees what is committed."""
        blind = self.fault == "strays are not looked up again"
        if (s.committed.row and not blind) or not s.file:
            yield "recheck_strays, none", s._replace(gc=f"nothing {self._after('look', 'nothing')}")
        else:
            yield "recheck_strays", s._replace(gc=f"strays {self._after('look', 'strays')}")

    def _check_orphan(self, s: State) -> Iterator[Move]:
        assert s.gc_rows is not None
        blind = self.fault == "the rows of orphans are not looked at again"
        if s.gc_rows.row and (not s.gc_rows.refs or blind):
            after = self._after("look", "orphans")
            deleted = Rows(refs=s.gc_rows.refs)
            yield "recheck", s._replace(gc=f"orphans {after}", gc_rows=deleted)
        else:
            yield "recheck, none", s._replace(gc=f"nothing {self._after('look', 'nothing')}")

    # Whatever may happen at any time

    def mishaps(self, s: State) -> Iterator[Move]:
        killed = _without_daemon(s)._replace(at="start")
        yield "SIGKILL of the daemon", killed
        if s.tail is not None:
            # Nobody has the database open any more: who opens it next takes the log to its very end.
            yield "SIGKILL of both", _visible(_without_collector(killed))
        if s.gc:
            yield "SIGKILL of the collector", _without_collector(s)
        for after in after_power_loss(s):
            yield "power loss", after
        if s.committed.row and s.file and not s.lock and not s.at and not s.commit and not s.gc:
            gone = s._replace(
                committed=_damage(s.committed),
                unsure=frozenset(map(_damage, s.unsure)),
                tail=s.tail and _damage(s.tail),
                file="",
                synced=True,
                folder=frozenset({"none"}),
            )
            yield "the file is lost", gone


def _damage(rows: Rows) -> Rows:
    return rows._replace(damaged=rows.row)


# Steps several actors take


def _begin(s: State, then: str) -> State:
    """Be in the group: at once when it is open."""
    return s._replace(at=then) if s.rows is not None else s._replace(at="enter", then=then)


def _append(s: State, rows: Rows) -> State:
    """What COMMIT writes to the log. It takes the place of a commit that its process did not finish."""
    return s._replace(tail=rows, unsure=s.unsure | {s.committed, rows})


def _visible(s: State) -> State:
    """And what COMMIT does then: the log's end, in shared memory, is moved behind it."""
    assert s.tail is not None
    return s._replace(committed=s.tail, tail=None)


def _sync_log(s: State) -> State:
    sure = s.committed if s.tail is None else s.tail
    return s._replace(unsure=frozenset({sure}), log_synced=True)


def _earlier(s: State) -> str:
    """What the present file is once the name is another's: sure to be whole, or not."""
    return s.file if s.synced else "torn"


def _replace_file(s: State, content: str) -> State:
    """Another file gets the name, not synced."""
    folder = frozenset(_earlier(s) if entry == "now" else entry for entry in s.folder) | {"now"}
    return s._replace(file=content, synced=False, folder=folder)


def _remove_file(s: State) -> State:
    if not s.file:
        return s
    folder = frozenset(_earlier(s) if entry == "now" else entry for entry in s.folder) | {"none"}
    return s._replace(file="", synced=True, folder=folder)


def _without_daemon(s: State) -> State:
    return s._replace(
        **{name: getattr(START, name) for name in _DAEMON},
        log_synced=True,
        turnstile="" if s.turnstile == "daemon" else s.turnstile,
        lock="" if s.lock == "daemon" else s.lock,
    )


_WITHOUT_COMMIT = {
    "strays are removed without a COMMIT",
    "strays are removed without a lock",
    "strays are removed in the turnstile only",
}

_DAEMON = ("at", "then", "rows", "found", "new", "pending", "published", "commit", "taken", "written", "gate")


def _without_collector(s: State) -> State:
    return s._replace(
        gc="",
        gc_rows=None,
        turnstile="" if s.turnstile == "gc" else s.turnstile,
        lock="" if s.lock == "gc" else s.lock,
    )


def files_after_power_loss(s: State) -> set[str]:
    """What the blob's name may be then."""
    found: set[str] = set()
    for entry in s.folder:
        if entry == "none":
            found.add("")
        elif entry == "whole" or (entry == "now" and s.synced and s.file == "whole"):
            found.add("whole")
        else:  # never synced, or torn by an earlier power loss
            found |= {"torn", "whole"}
    return found


def after_power_loss(s: State) -> Iterator[State]:
    """Every disk there may be, and nobody who uses it."""
    for rows in s.unsure:
        for file in files_after_power_loss(s):
            folder = frozenset({"now" if file else "none"})
            yield START._replace(committed=rows, unsure=frozenset({rows}), file=file, folder=folder)


# What must hold


def problem(s: State) -> str:
    """The invariant that is broken, or "": now, after a kill now, and after a power loss now."""
    if s.told:
        return "I5: an fsync has returned, and a power loss would take it back"
    if any(rows.refs and not rows.row for rows in s.unsure):
        return "I1: a committed reference to a blob that has no row"
    if _dangles(s.committed, s.file):
        return "I1: a committed row without a whole file"
    if any(_dangles(rows, file) for rows in s.unsure for file in files_after_power_loss(s)):
        return "I1: after a power loss, a row without a whole file"
    return ""


def _dangles(rows: Rows, file: str) -> bool:
    return rows.row and not rows.damaged and file != "whole"


FAULTS = {
    "the row is looked up before BEGIN": "I1",
    "the file is not looked at": "I1",
    "published before BEGIN": "I1",
    "published while the gate is closed": "I1",
    "a file that is there is trusted": "I1",
    "new blobs are dropped with their references": "I1",
    "COMMIT before the blobs are written": "I1",
    "COMMIT before the blobs are synced": "I1",
    "the folder of the blob is not synced": "I1",
    "told before the log is synced": "I5",
    "the rows of orphans are not looked at again": "I1",
    "files are unlinked before COMMIT": "I1",
    "files are unlinked before the log is synced": "I1",
    "the turnstile is left before files are unlinked": "I1",
    "strays are removed without a lock": "I1",
    "strays are removed in the turnstile only": "I1",
    "strays are not looked up again": "I1",
    "strays are removed without a COMMIT": "I1",
    "deleted rows are seen before the log is synced": "I1",
    "nothing is committed at the start": "I1",
    "files are not synced at the start": "I1",
}
"""What may be done wrong, and the invariant that breaks then."""
