"""The protocol of one blob between publisher, committer and collector, step by step as the code goes.

A label names who acts and the function of the code that does it, as `daemon: Blobs.find`. The daemon is
three actors: `daemon` is its event loop, `commit` the commit under way, whose waits (for threads that write
and sync) let the loop go on, and `asked` a batch of orphans that it removes because the collector has asked,
the last step of it in a thread. The collector (`gc`) removes orphans or stray files itself. At every step
each process may be killed, and the power may go: then the log is cut back to any commit since its last sync,
and the blob's name is, whatever happened to it since the last sync of its folder, any of the files it had, or
none; a file that was never synced is torn or whole. Everything goes on from there, without end: no number of
operations, collections or crashes is a limit of the model.

The collector knows no grace here: it takes an orphan as soon as there is one, itself or by the daemon, whose
own emergency collection takes the same steps as `asked`. Grace is comfort, not correctness.

One blob is enough: what the steps of several have in common is the locks and the log, which are in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.state import (
    Rows,
    State,
    after_power_loss,
    append,
    begin,
    damage,
    move_batches,
    remove_file,
    replace_file,
    sync_log,
    visible,
    without_collector,
    without_daemon,
)

MOST_REFS = 2
"""References there can be; a third is no other case than a second."""

Move = tuple[str, State]


class Protocol:
    """`fault`: the step that is left out or done at another time, one of `FAULTS`; "" for the real one."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def moves(self, state: State) -> Iterator[Move]:
        yield from self.daemon(state)
        yield from self.committer(state)
        yield from self.asked(state)
        yield from self.collector(state)
        yield from self.snapshot(state)
        yield from self.mishaps(state)

    # The daemon's event loop: fs/content/sealing.py, fs/inodes.py, GroupCommit.begin

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
                yield "Blobs.find", begin(s._replace(found=s.committed.row), "found")
            case "early publish":
                yield "FileStore.publish_staged", begin(replace_file(s, "whole"), "find published")
            case "find published":
                assert s.rows
                yield "Blobs.find", s._replace(at="refer", rows=s.rows._replace(row=True), published=True)
            case "insert" | "insert spared":
                assert s.rows
                s = s._replace(rows=s.rows._replace(row=True), changed=True, new=True)
                yield "Blobs.insert", s._replace(at="publish" if s.at == "insert" else "inserted spared")
            case "inserted spared":
                if s.file == "whole":
                    yield "FileStore.has", s._replace(at=self._spared_late(s) or "refer", new=False)
                else:
                    yield "FileStore.has, no", s._replace(at="publish")
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
                yield "GroupCommit.publish", s._replace(at=self._spared_late(s) or "refer", published=True)
            case "spare late":
                yield "FileStore.spare", s._replace(at="refer", condemned=False)
            case "refer":
                assert s.rows
                rows = s.rows._replace(refs=s.rows.refs + 1, damaged=False)
                yield "InodeTable.set_blob", s._replace(at="", found=False, rows=rows, changed=True)

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
                yield "Sealing._seal", begin(s, "find")
        if s.rows is None:
            yield "GroupCommit.begin", begin(s, "")
        elif s.rows.refs:
            fewer = s.rows._replace(refs=s.rows.refs - 1)
            yield "Tree.unlink", s._replace(rows=fewer, changed=True)
            if refs < MOST_REFS:
                more = s.rows._replace(refs=refs + 1)
                yield "copy.duplicate", s._replace(rows=more, changed=True)

    def _found(self, s: State) -> Iterator[Move]:
        assert s.rows
        if not s.found:
            if s.rows.row:
                yield "Blobs.insert, refused", s._replace(at="", found=False)
            else:
                yield from self._spare(s)
        elif self.fault == "the file is not looked at":
            yield "no FileStore.has", s._replace(at="refer")
        else:
            # A torn file is shorter, which `has` sees: file systems bring a size to disk after its bytes.
            if s.pending or s.file == "whole":
                yield "FileStore.has", s._replace(at="refer")
            else:
                yield "FileStore.has, no", s._replace(at="publish")

    def _spare(self, s: State) -> Iterator[Move]:
        """The row of what is condemned may come back: its file, if there is one, is kept for the new row."""
        keeps = {
            "a file is replaced whose row may come back": False,
            "a file is kept until COMMIT only": s.condemned and s.committed.row,
        }.get(self.fault, s.condemned)
        s = s._replace(at="insert spared" if keeps else "insert")
        if self.fault in ("what is published again is not spared", "spared after it is published"):
            yield "no FileStore.spare", s
        else:
            yield "FileStore.spare", s._replace(condemned=False)

    def _spared_late(self, s: State) -> str:
        return "spare late" if self.fault == "spared after it is published" and s.condemned else ""

    def _publish(self, s: State) -> Iterator[Move]:
        yield "FileStore.accept", s._replace(at="note", pending=True)
        if s.file and self.fault == "a file that is there is trusted":
            yield "nothing", s._replace(at="note", new=False)
        elif s.file:
            yield "Durable.unlink", remove_file(s)
        else:
            yield "Durable.create", replace_file(s, "torn")._replace(at="write", new=False)
        yield "FileStore.publish_staged", replace_file(s, "whole")._replace(at="note", new=False)

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
                    yield "Durable.unlink", remove_file(s)
                else:
                    yield "Durable.create", replace_file(s, "torn")._replace(commit="whole")
            case "write":
                for after in self._after_writing(s):
                    yield "GroupCommit._write_blobs", after
            case "whole":
                yield (
                    "Durable.write_whole",
                    s._replace(commit="write", file="whole", pending=False, new=False),
                )
            case "gate" if on_loop:
                yield "GroupCommit._ordered", s._replace(commit="drop")
                yield "GroupCommit._ordered", s._replace(commit="drop", gate=True)
            case "sync" if s.written:
                skips = self.fault == "the folder of the blob is not synced"
                after_blob = self._after_sync(s) if skips else "sync folder"
                yield "Durable.fsync_path blob", s._replace(commit=after_blob, synced=True)
            case "sync":
                yield "GroupCommit._sync_blobs", s._replace(commit=self._after_sync(s))
            case "sync folder":
                now = frozenset({"now" if s.file else "none"})
                yield "Durable.fsync_path shard", s._replace(commit="sync", folder=now, written=False)
            case "rows" if on_loop:
                assert s.rows is not None
                yield "Namespace.commit", append(s, s.rows)._replace(commit="visible")
            case "visible":
                yield "Namespace.commit, visible", self._rows_visible(s)
            case "log":
                log = "tell" if self.fault != "told before the log is synced" else ""
                yield "Namespace.sync_log", sync_log(s)._replace(commit=log)
            case "tell":
                told = "log" if self.fault == "told before the log is synced" else ""
                durable = move_batches(s, "committed", "durable")
                yield "GroupCommit.durable", durable._replace(commit=told, told=not s.log_synced)

    def _drop_unused(self, s: State) -> State:
        assert s.rows
        unused = not s.rows.refs or self.fault == "new blobs are dropped with their references"
        if s.new and s.pending and s.published and unused:
            rows = s.rows._replace(row=False)
            s = s._replace(rows=rows, changed=False, new=False, pending=False, published=False)
        return s._replace(taken=s.taken or s.published, published=False)

    def _after_writing(self, s: State) -> Iterator[State]:
        after = s._replace(taken=False, written=s.written or s.taken)
        if not s.gate:
            yield after._replace(commit="gate")
            yield after._replace(commit="sync")
        elif self.fault == "COMMIT before the blobs are synced":
            yield after._replace(commit="rows")
        else:
            yield after._replace(commit="sync")

    def _after_sync(self, s: State) -> str:
        if self.fault.startswith("COMMIT before"):
            return "log"
        return "rows" if s.gate else "gate"

    def _rows_visible(self, s: State) -> State:
        late = self.fault == "COMMIT before the blobs are written"
        after = {
            "told before the log is synced": "tell",
            "COMMIT before the blobs are synced": "sync",
            "COMMIT before the blobs are written": "write",
        }.get(self.fault, "log")
        s = move_batches(visible(s), "taken", "committed")
        s = s._replace(rows=None, changed=False, lock="", gate=late, commit=after, log_synced=False)
        return s._replace(taken=s.published, published=False) if late else s

    # maintenance/collect/mounted.py, which the daemon may be asked for as long as there are orphans

    def asked(self, s: State) -> Iterator[Move]:
        on_loop = not s.at and s.commit != "visible"
        if on_loop and s.rows is not None and s.rows.row and len(s.asked) < self._most_batches:
            yield from self._take(s, s.rows)
        for at in sorted(set(s.asked)):
            others = list(s.asked)
            others.remove(at)
            for label, after, then in self._batch(s._replace(asked=tuple(others)), at):
                yield f"asked: {label}", after._replace(asked=tuple(sorted((*after.asked, *then))))

    @property
    def _most_batches(self) -> int:
        return 2 if self.fault == "two batches of the daemon at a time" else 1

    def _take(self, s: State, rows: Rows) -> Iterator[Move]:
        """Rows are as the last COMMIT has left them where nothing was noted in memory since."""
        refs = 0 if self.fault == "the rows of orphans are not looked at by the daemon" else s.committed.refs
        if self._holds(s, "orphans that snapshots hold are removed by the daemon"):
            return
        if not refs and (not s.changed or self.fault == "references in memory are not looked at"):
            taken = s._replace(rows=Rows(refs=rows.refs), condemned=True)
            yield "asked: _take", taken._replace(asked=tuple(sorted((*s.asked, "taken"))))

    def _batch(self, s: State, at: str) -> Iterator[tuple[str, State, tuple[str, ...]]]:
        """What a batch does, and where it is then. `s`: without it."""
        unlinks = {
            "condemned files are unlinked before COMMIT": ("taken", "committed", "durable"),
            "condemned files are unlinked before the log is synced": ("committed", "durable"),
        }.get(self.fault, ("durable",))
        if at in unlinks:
            if not s.condemned and self.fault != "files that were spared are unlinked":
                yield "FileStore.remove_condemned, spared", s, ("end",)
            elif self.fault == "condemned files are unlinked without the lock":
                yield "FileStore.remove_condemned, looked", s, ("unlink",)
            else:
                yield self._unlink(s)
                yield "FileStore.remove_condemned, failed", s._replace(condemned=False), ("end",)
        if at == "unlink":
            yield self._unlink(s)
        elif s.at in ("", "enter") and s.commit != "visible":  # at its end, or after an error
            if self.fault == "a batch that fails spares what it has taken":
                yield "FileStore.spare", s._replace(condemned=False), ()
            else:
                yield "collect, ended", s, ()

    @staticmethod
    def _unlink(s: State) -> tuple[str, State, tuple[str, ...]]:
        label = "Durable.unlink" if s.file else "FileStore.remove_condemned, none"
        return label, remove_file(s)._replace(condemned=False), ("end",)

    # maintenance/collect/batch.py

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
                yield "Namespace.commit", append(s, s.gc_rows)._replace(gc=f"{kind} {self._after(at, kind)}")
            case "sync in commit":
                yield "Namespace.commit, sync", sync_log(s)._replace(gc=f"{kind} {self._after(at, kind)}")
            case "visible":
                after = self._after(at, kind)
                yield (
                    "Namespace.commit, visible",
                    visible(s)._replace(gc=f"{kind} {after}", lock="", gc_rows=None),
                )
            case "sync":
                yield "Namespace.sync_log", sync_log(s)._replace(gc=f"{kind} {self._after(at, kind)}")
            case "leave early":
                yield "Turnstile.leave", s._replace(gc=f"{kind} unlink", turnstile="")
            case "unlink":
                yield "Durable.unlink", remove_file(s)._replace(gc=f"{kind} {self._after(at, kind)}")
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
        if (s.committed.row and not blind) or not s.file or self._holds(s):
            yield "recheck_strays, none", s._replace(gc=f"nothing {self._after('look', 'nothing')}")
        else:
            yield "recheck_strays", s._replace(gc=f"strays {self._after('look', 'strays')}")

    def _check_orphan(self, s: State) -> Iterator[Move]:
        assert s.gc_rows is not None
        blind = self.fault == "the rows of orphans are not looked at again"
        held = self._holds(s, "orphans that snapshots hold are collected")
        if s.gc_rows.row and (not s.gc_rows.refs or blind) and not held:
            after = self._after("look", "orphans")
            deleted = Rows(refs=s.gc_rows.refs)
            yield "recheck", s._replace(gc=f"orphans {after}", gc_rows=deleted)
        else:
            yield "recheck, none", s._replace(gc=f"nothing {self._after('look', 'nothing')}")

    # maintenance/snapshots/create.py, in the daemon, and snapshots/holding.py

    def snapshot(self, s: State) -> Iterator[Move]:
        for label, after in self._snapshot(s):
            yield f"snapshot: {label}", s._replace(snapshot=after)

    def _snapshot(self, s: State) -> Iterator[tuple[str, str]]:
        between = s.rows is None and not s.commit and not s.turnstile
        match s.snapshot:
            case "" if s.at != "start":
                yield "SnapshotFolder.building", "folder"
            case "folder" if not s.at and between:
                refers = s.committed.refs and not s.committed.damaged
                yield "_take", "copied" if refers else "copied without"
            case "copied":
                yield "Building.database_is_whole", "whole"
            case "copied without":
                yield "Building.database_is_whole, without", ""
            case "whole":
                yield "SnapshotFolder.remove", ""

    def _holds(self, s: State, unasked: str = "") -> bool:
        """May the blob not go? `unasked`: the fault that nobody asks."""
        if unasked and self.fault == unasked:
            return False
        late = self.fault == "a snapshot holds nothing until it is whole"
        return s.snapshot == "whole" or (bool(s.snapshot) and not late)

    # Whatever may happen at any time

    def mishaps(self, s: State) -> Iterator[Move]:
        killed = without_daemon(s)._replace(at="start")
        yield "SIGKILL of the daemon", killed
        if s.tail is not None:
            # Nobody has the database open any more: who opens it next takes the log to its very end.
            yield "SIGKILL of both", visible(without_collector(killed))
        if s.gc:
            yield "SIGKILL of the collector", without_collector(s)
        for after in after_power_loss(s):
            yield "power loss", after
        quiet = not (s.lock or s.at or s.commit or s.gc or s.snapshot)
        if s.committed.row and s.file and quiet:
            gone = s._replace(
                committed=damage(s.committed),
                unsure=frozenset(map(damage, s.unsure)),
                tail=s.tail and damage(s.tail),
                file="",
                synced=True,
                folder=frozenset({"none"}),
            )
            yield "the file is lost", gone


_WITHOUT_COMMIT = {
    "strays are removed without a COMMIT",
    "strays are removed without a lock",
    "strays are removed in the turnstile only",
}
