"""What there is of one blob, on disk and in memory; the steps that several actors take; what must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


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
    changed: bool = False  # in memory: InodeTable.counts; the row of the blob follows at COMMIT
    new: bool = False  # the open transaction has inserted the row, and no file was written for it
    pending: bool = False  # accepted, in memory
    published: bool = False
    # The commit
    commit: str = ""
    taken: bool = False
    written: bool = False
    gate: bool = False
    # Batches of orphans that the daemon removes because the collector has asked it to, and their threads
    asked: tuple[str, ...] = ()
    condemned: bool = False
    # The collector
    gc: str = ""
    gc_rows: Rows | None = None
    # A snapshot: "folder", "copied" or "copied without" the blob, "whole" (which refers to it)
    snapshot: str = ""


START = State()


# Steps several actors take


def damage(rows: Rows) -> Rows:
    return rows._replace(damaged=rows.row)


def begin(s: State, then: str) -> State:
    """Be in the group: at once when it is open."""
    return s._replace(at=then) if s.rows is not None else s._replace(at="enter", then=then)


def append(s: State, rows: Rows) -> State:
    """What COMMIT writes to the log. It takes the place of a commit that its process did not finish."""
    return s._replace(tail=rows, unsure=s.unsure | {s.committed, rows})


def move_batches(s: State, before: str, after: str) -> State:
    """What all batches of the daemon see that wait for it."""
    if before not in s.asked:
        return s
    return s._replace(asked=tuple(sorted(after if at == before else at for at in s.asked)))


def visible(s: State) -> State:
    """And what COMMIT does then: the log's end, in shared memory, is moved behind it."""
    assert s.tail is not None
    return s._replace(committed=s.tail, tail=None)


def sync_log(s: State) -> State:
    sure = s.committed if s.tail is None else s.tail
    return s._replace(unsure=frozenset({sure}), log_synced=True)


def _earlier(s: State) -> str:
    """What the present file is once the name is another's: sure to be whole, or not."""
    return s.file if s.synced else "torn"


def replace_file(s: State, content: str) -> State:
    """Another file gets the name, not synced."""
    folder = frozenset(_earlier(s) if entry == "now" else entry for entry in s.folder) | {"now"}
    return s._replace(file=content, synced=False, folder=folder)


def remove_file(s: State) -> State:
    if not s.file:
        return s
    folder = frozenset(_earlier(s) if entry == "now" else entry for entry in s.folder) | {"none"}
    return s._replace(file="", synced=True, folder=folder)


def without_daemon(s: State) -> State:
    return s._replace(
        **{name: getattr(START, name) for name in _DAEMON},
        log_synced=True,
        turnstile="" if s.turnstile == "daemon" else s.turnstile,
        lock="" if s.lock == "daemon" else s.lock,
        snapshot=_left(s),
    )


_DAEMON = (
    *("at", "then", "rows", "found", "changed", "new", "pending", "published"),
    *("commit", "taken", "written", "gate", "asked", "condemned"),
)


def _left(s: State) -> str:
    """Of a snapshot when its maker is dead: it holds nothing, if it is not whole."""
    return "whole" if s.snapshot == "whole" else ""


def without_collector(s: State) -> State:
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
            sure = frozenset({rows})
            yield START._replace(committed=rows, unsure=sure, file=file, folder=folder, snapshot=_left(s))


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
    if s.snapshot in ("copied", "whole") and s.file != "whole":
        return "I8: a snapshot refers to a blob without a whole file"
    if s.snapshot == "whole" and files_after_power_loss(s) != {"whole"}:
        return "I8: after a power loss, a snapshot refers to a blob without a whole file"
    return ""


def _dangles(rows: Rows, file: str) -> bool:
    return rows.row and not rows.damaged and file != "whole"
