"""The protocol of a file that is written again and again, step by step as the code goes.

One inode: its row names nothing, a staged file, or a blob. The daemon's loop writes, names, seals and empties
it; a commit goes on meanwhile, whose threads sync and remove files; a program stores through a mapping that
outlives its handles, the daemon too. At every step the daemon may be killed, or the power go. What the blob's
row and the collector have to do with it is in protocol.py; a blob that was found is one that stays.

What is written in place to a file that a committed row names may be there after a crash, or not, each part
for itself ('casfs help durability'). So bytes are not in this model, sizes are: a row tells of so much,
which has to be durable. A file is written to only while it is no blob (I2), also not by recovery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

SLOTS = 2
"""Files there can be at a time; what would need another one has to wait."""

MOST = 2
"""The largest size; a third is no other case than a second."""

NOWHERE, EMPTY = -1, -2
"""Content that is not open, and what is emptied, or in memory."""

KNOWN = -3
"""The blob that was found: durable, and its row is another file's as well."""

BOTH = frozenset({True, False})


class File(NamedTuple):
    """A file of the filestore. What is after a power loss: `sure` bytes of it at the least, its name in
    staging and its name as a blob if `entry` and `link` hold True only."""

    size: int = 1
    sure: int = 0
    here: bool = True  # has it a name in staging?
    entry: frozenset[bool] = BOTH
    blob: bool = False  # has it the name of a blob?
    link: frozenset[bool] = frozenset({False})
    lent: bool = False
    mapped: bool = False  # a program may store into it


class Row(NamedTuple):
    """What a row says. `kind`: "", "staged" or "blob"; `file`: the slot."""

    kind: str = ""
    file: int = NOWHERE
    size: int = 0


NOTHING = Row()


class Staged(NamedTuple):
    """Everything there is."""

    files: tuple[File | None, ...] = (None,) * SLOTS
    committed: Row = NOTHING
    unsure: frozenset[Row] = frozenset({NOTHING})  # what may be committed after a power loss
    log_synced: bool = True
    wrong: str = ""  # what was done that never may be
    # The daemon
    at: str = ""
    row: Row = NOTHING  # in memory, and in the open transaction
    active: bool = False
    content: int = NOWHERE
    dirty: bool = False
    # The commit
    commit: str = ""
    gate: bool = False
    named: frozenset[int] = frozenset()  # to be synced, under their names in staging
    published: frozenset[int] = frozenset()  # and as blobs
    obsolete: frozenset[int] = frozenset()
    removing: frozenset[int] = frozenset()


Move = tuple[str, Staged]

START = Staged()


class Protocol:
    """`fault`: the step that is left out or done at another time, one of `FAULTS`; "" for the real one."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def moves(self, s: Staged) -> Iterator[Move]:
        for label, after in self._moves(s):
            yield label, tidy(after)

    def _moves(self, s: Staged) -> Iterator[Move]:
        for label, after in self.daemon(s):
            yield f"daemon: {label}", after
        for label, after in self.committer(s):
            yield f"commit: {label}", after
        yield from self.program(s)
        yield "SIGKILL of the daemon", killed(s)
        for after in after_power_loss(s):
            yield "power loss", after

    # The event loop: fs/content/, fs/recovery.py

    def daemon(self, s: Staged) -> Iterator[Move]:
        match s.at:
            case "":
                yield from self._requests(s)
            case "start":
                yield "recover", self._recover(s)
            case "displaced":
                # Nobody writes, or has a mapping that may, before the copy is sure to have the blob's name.
                lent = change(s, s.content, blob=False, link=frozenset({False}), mapped=True)
                yield "Durable.fsync_path shard", lent._replace(at="")
            case "persist":
                yield "Durable.fdatasync staged", self._synced(s, s.content)._replace(at="name")
            case "name":
                yield "Sealing.named", self._name(s)._replace(at="")
            case "copy":
                copied = self._copied(s)
                if copied is not None:
                    yield "FileStore.copy_lent", copied._replace(at="seal")
            case "seal" if not s.gate:
                yield from self._seal(s)
            case "refer":
                row = Row("blob", s.content, file_of(s, s.content).size)
                published = s.published | {s.content}
                yield "Sealing.sealed", self._sealed(s._replace(published=published), row)

    def _requests(self, s: Staged) -> Iterator[Move]:
        yield from self._writes(s)
        if s.content == NOWHERE and s.row.kind == "staged":
            s = s._replace(content=s.row.file)
        open_gate = not s.gate or self.fault == "named while the gate is closed"
        file = file_of(s, s.content) if s.content >= 0 else None
        if s.dirty and file is not None:
            if open_gate:
                named = self._name(s)
                if self.fault != "a named file is not synced before COMMIT":
                    named = named._replace(named=named.named | {s.content})
                yield "Settling._name", named
            yield "Sealing.persist", s._replace(at="persist")
        if s.dirty and s.content == EMPTY and not s.gate:
            yield "Sealing.sealed, empty", self._sealed(s, NOTHING)
        if file is not None and (s.dirty or s.row.kind == "staged"):
            if not file.lent or self.fault == "a lent file is published itself":
                yield "Sealing._seal", s._replace(at="seal", dirty=True)
            elif not file.mapped:
                yield "StagedContents.take_copy", s._replace(at="copy", dirty=True)

    def _writes(self, s: Staged) -> Iterator[Move]:
        content = s.content
        if content == NOWHERE and s.row.kind == "staged":
            content = s.row.file
            s = s._replace(content=content)
        if content >= 0:
            file = file_of(s, content)
            yield "Content.write, in place", write(s, content)
            if file.size < MOST:
                yield "Content.write, appended", write(s, content, size=file.size + 1)
            if self.fault == "emptied in place":
                yield "Files._truncate", change(write(s, content, size=0), content, sure=0)
            elif not file.mapped:
                yield "StagedContents.drop", self._drop(s, content)._replace(content=EMPTY, dirty=True)
        elif (free := free_slot(s)) is not None:
            made = put(s, free, File())._replace(content=free, dirty=True)
            yield "StagedContents.copy_up", made
            if s.row.kind == "blob" and content == NOWHERE:
                # Its readers' file becomes the staged one; until its folder is synced it may be the blob.
                size = s.row.size
                lent = File(size, size, blob=True, link=BOTH, lent=True)
                at = "" if self.fault == "written before the copy has the name of the blob" else "displaced"
                yield "FileStore.displace", put(made, free, lent)._replace(at=at)

    def _drop(self, s: Staged, slot: int) -> Staged:
        """A staged file that the row names stays until the row names another one, or a blob."""
        if s.row.kind == "staged" and s.row.file == slot and self.fault != "a named file is dropped at once":
            return s
        return remove(s, slot)

    def _named_before(self, s: Staged, other_than: int = NOWHERE) -> Staged:
        """The staged file that the row named goes with the commit."""
        if s.row.kind != "staged" or s.row.file == other_than:
            return s
        if self.fault == "what was named goes at once":
            return remove(s, s.row.file)
        return s._replace(obsolete=s.obsolete | {s.row.file})

    def _name(self, s: Staged) -> Staged:
        s = self._named_before(s, other_than=s.content)
        row = Row("staged", s.content, file_of(s, s.content).size)
        return s._replace(row=row, active=True, content=NOWHERE, dirty=False)

    def _sealed(self, s: Staged, row: Row) -> Staged:
        s = self._named_before(s)
        return s._replace(row=row, active=True, at="", content=NOWHERE, dirty=False)

    def _copied(self, s: Staged) -> Staged | None:
        """A copy in the place of what is lent; None where there is no slot for it."""
        free = free_slot(s)
        if free is None:
            return None
        copied = put(s, free, File(size=file_of(s, s.content).size))
        return self._drop(copied, s.content)._replace(content=free)

    def _seal(self, s: Staged) -> Iterator[Move]:
        file = file_of(s, s.content)
        found = Row("blob", KNOWN, file.size)
        yield "FileStore.has", self._sealed(self._drop(s, s.content), found)
        keeps = s.row == Row("staged", s.content, s.row.size) and self.fault != "renamed while a row names it"
        published = change(s, s.content, blob=True, link=BOTH)
        if not keeps:
            published = change(published, s.content, here=False, entry=BOTH)
        if self.fault == "written after it is published":
            published = write(published, s.content)
        yield "FileStore.publish_staged", published._replace(at="refer", active=True)

    def _synced(self, s: Staged, slot: int) -> Staged:
        file = file_of(s, slot)
        return change(s, slot, sure=file.size, entry=frozenset({file.here}))

    def _recover(self, s: Staged) -> Staged:
        """What a SIGKILL has left becomes durable; the row's file is cut to what the row tells of. With two
        names it is the file of a blob, whose row was lost: a copy of it is sealed at once. (The code seals
        that file itself, once it is cut: what is written to there is a stray, which no row can refer to.)"""
        s = tidy(s._replace(unsure=frozenset({s.committed}), log_synced=True, at=""))
        for slot, file in enumerate(s.files):
            if file is not None:
                durable = file._replace(
                    sure=file.size, entry=frozenset({file.here}), link=frozenset({file.blob})
                )
                s = put(s, slot, durable)
        if s.row.kind != "staged":
            return s
        slot = s.row.file
        file = file_of(s, slot)
        s = s._replace(content=slot)
        if file.blob and self.fault != "recovery leaves a file with two names":
            return put(s, free_slot(s) or 0, File(size=s.row.size))._replace(
                content=free_slot(s) or 0, dirty=True, at="seal"
            )
        if file.size > s.row.size:
            s = change(write(s, slot, size=s.row.size), slot, sure=s.row.size)
        return s._replace(dirty=False, content=NOWHERE)

    # GroupCommit._ordered

    def committer(self, s: Staged) -> Iterator[Move]:
        match s.commit:
            case "" if s.active:
                yield "GroupCommit._ordered", s._replace(commit="sync")
            case "sync":
                yield from self._sync(s)
            case "gate" if s.at != "refer":  # it is closed by the loop
                yield "GroupCommit._ordered", s._replace(commit="sync")  # another round
                yield "GroupCommit._ordered", s._replace(commit="sync", gate=True)
            case "rows" if s.at != "refer":
                committed = s._replace(
                    committed=s.row, unsure=s.unsure | {s.row}, active=False, gate=False, log_synced=False
                )
                gone = self.fault == "what was named goes before the log is synced"
                yield (
                    "Namespace.commit",
                    committed._replace(
                        commit="remove" if gone else "log",
                        obsolete=frozenset(),
                        removing=s.obsolete,
                    ),
                )
            case "log":
                yield (
                    "Namespace.sync_log",
                    s._replace(unsure=frozenset({s.committed}), log_synced=True, commit="remove"),
                )
            case "remove":
                after = s._replace(removing=frozenset(), commit="" if s.log_synced else "log")
                for slot in s.removing:
                    after = remove(after, slot)
                yield "GroupCommit._remove_staged", after

    def _sync(self, s: Staged) -> Iterator[Move]:
        """What is named or published meanwhile comes in the next round."""
        after = s._replace(named=frozenset(), published=frozenset(), commit="rows" if s.gate else "gate")
        for slot in s.named:
            if s.files[slot] is not None and file_of(s, slot).here:  # one that is gone already is no error
                after = self._synced(after, slot)
        for slot in s.published:
            file = file_of(s, slot)
            after = change(after, slot, sure=file.size, link=frozenset({file.blob}))
        yield "GroupCommit._sync_blobs", after

    # Who has a lent file mapped, whatever becomes of the daemon

    def program(self, s: Staged) -> Iterator[Move]:
        for slot, file in enumerate(s.files):
            if file is not None and file.mapped:
                yield "program: store", broken_if_blob(s, slot)
                yield "program: munmap", change(s, slot, mapped=False)


# Steps


def file_of(s: Staged, slot: int) -> File:
    file = s.files[slot]
    assert file is not None
    return file


def put(s: Staged, slot: int, file: File | None) -> Staged:
    return s._replace(files=(*s.files[:slot], file, *s.files[slot + 1 :]))


def change(s: Staged, slot: int, **fields: object) -> Staged:
    return put(s, slot, file_of(s, slot)._replace(**fields))


def broken_if_blob(s: Staged, slot: int) -> Staged:
    return s._replace(wrong="I2: a blob is written to") if file_of(s, slot).blob else s


def write(s: Staged, slot: int, size: int | None = None) -> Staged:
    """The daemon writes to a staged file, which is `size` then."""
    s = broken_if_blob(s, slot)
    size = file_of(s, slot).size if size is None else size
    return change(s, slot, size=size)._replace(dirty=True)


def remove(s: Staged, slot: int) -> Staged:
    """The name in staging goes; it may come back with power."""
    return s if s.files[slot] is None else change(s, slot, here=False, entry=BOTH)


def free_slot(s: Staged) -> int | None:
    return next((slot for slot, file in enumerate(s.files) if file is None), None)


def tidy(s: Staged) -> Staged:
    """Forget files that nothing refers to any more: what is left of them is rubbish, and goes some time."""
    rows = {s.committed, s.row, *s.unsure}
    used = {row.file for row in rows} | {s.content} | s.named | s.published | s.obsolete | s.removing
    for slot, file in enumerate(s.files):
        if file is not None and slot not in used:
            s = put(s, slot, None)
    return s


def killed(s: Staged) -> Staged:
    daemon = {name: getattr(START, name) for name in _DAEMON}
    return s._replace(**daemon)._replace(at="start", row=s.committed)


_DAEMON = (
    *("active", "content", "dirty", "commit", "gate"),
    *("named", "published", "obsolete", "removing"),
)


def after_power_loss(s: Staged) -> Iterator[Staged]:
    """Every row there may be then, with what is sure of the files, of which each may have all or no more."""
    for row in s.unsure:
        lost = killed(s._replace(committed=row, unsure=frozenset({row}), log_synced=True))
        for slot, file in enumerate(s.files):
            if file is None:
                continue
            here, blob = file.entry == {True}, file.link == {True}
            least = file._replace(size=file.sure, here=here, blob=blob, mapped=False)
            lost = put(lost, slot, least._replace(entry=frozenset({here}), link=frozenset({blob})))
        yield lost


# What must hold


def problem(s: Staged) -> str:
    """The invariant that is broken, or "": now, after a kill now, and after a power loss now."""
    if s.wrong:
        return s.wrong
    for row in s.unsure | {s.committed}:
        file = s.files[row.file] if row.file >= 0 else None
        if row.kind == "staged" and (file is None or file.entry != {True} or file.sure < row.size):
            return "I5: a committed row names a staged file that is not durable"
        if (
            row.kind == "blob"
            and row.file >= 0
            and (file is None or file.link != {True} or file.sure < row.size)
        ):
            return "I1: a committed row refers to a blob that is not durable"
    if s.committed.kind == "staged" and not file_of(s, s.committed.file).here:
        return "I5: a committed row names a staged file that is gone"
    return ""


FAULTS = {
    "a named file is not synced before COMMIT": "I5",
    "named while the gate is closed": "I5",
    "what was named goes at once": "I5",
    "what was named goes before the log is synced": "I5",
    "a named file is dropped at once": "I5",
    "renamed while a row names it": "I5",
    "emptied in place": "I5",
    "written after it is published": "I2",
    "a lent file is published itself": "I2",
    "written before the copy has the name of the blob": "I2",
    "recovery leaves a file with two names": "I2",
}
"""What may be done wrong, and the invariant that breaks then."""
