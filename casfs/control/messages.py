"""What the daemon of a mount is asked for, and what it answers: the `args` and the `result` of the protocol.

A client and a daemon of different versions meet after an update. So a field that is new has a default, and is
not sent while it has it; what an answer has besides is not looked at.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

from msgspec import Meta, Struct

from casfs.repositories.rules import Settings
from casfs.snapshots.manifest import Manifest

Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""An id or an amount, as the database can keep it."""

Nanoseconds = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A time, as the database can keep it."""

Days = Annotated[int, Meta(ge=0, le=36_500)]
Kind = Literal["local", "virtual", "view"]
Seconds = Annotated[int, Meta(ge=0, le=36_500 * 86_400)]
Age = Annotated[float, Meta(ge=0, le=36_500 * 86_400)]
"""What `casfs trash` takes (cli/trash.py, cli/arguments.py): up to a hundred years; an age in seconds."""

Result = TypeVar("Result")


class Operation(Struct, Generic[Result], frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Asks for `op`, which has that result. Paths are from the root of the store and begin with `/`; a byte
    that is not UTF-8 is a lone surrogate (PEP 383)."""

    op: ClassVar[str]
    listed: ClassVar[str] = ""
    item: ClassVar[Any] = None
    """A field that is a list which may be longer than a request, and the type of what it lists: it is sent in
    lines of its own (control/protocol.py)."""

    @classmethod
    def result_type(cls) -> type[Result]:
        kind: type[Result] = get_args(vars(cls)["__orig_bases__"][0])[0]
        return kind


class Done(Struct, frozen=True):
    """There is nothing more to say."""


class Status(Operation[dict[str, Any]], frozen=True):
    """How the mount is doing. A dictionary, since it is shown as it is, of a daemon of any version."""

    op = "status"


class Identity(Struct, frozen=True):
    """`device`: of the mount that is served, MAJOR:MINOR as in the mount table; "" when it is not known."""

    device: str


class Identify(Operation[Identity], frozen=True):
    """Which mount is it?"""

    op = "identify"


class Sync(Operation[Done], frozen=True):
    """Make everything durable. `seal`: also what rests before it is sealed, so that each closed file has its
    blob, and all of its digests."""

    op = "sync"
    seal: bool = False


class Copy(Operation[Done], frozen=True):
    """As fs/copy.py does. `force`: over a release that is immutable, too."""

    op = "cp"
    src: str
    dst: str
    recursive: bool
    force: bool = False


class Move(Operation[Done], frozen=True):
    """As fs/copy.py does. `force`: releases that are immutable, too."""

    op = "mv"
    src: str
    dst: str
    force: bool = False


class Link(Operation[Done], frozen=True):
    """A new file `dst` with the content whose digest begins with those hex digits, as fs/copy.py does."""

    op = "link"
    algorithm: Literal["blake3", "sha256", "sha1", "md5", "sha512", "crc32c"]
    digest: Annotated[str, Meta(pattern="^[0-9a-f]+$", max_length=128)]
    dst: str


class Removed(Struct, frozen=True):
    """What has been removed, or would be. `releases`: of the files, those that are immutable. `failures`: a
    path that was asked for, and why it is still there, or some of what is below it."""

    files: int
    directories: int
    bytes: int
    releases: int
    failures: list[tuple[str, str]]


class Remove(Operation[Removed], frozen=True):
    """As repositories/removal.py does, one path after the other. `force`: releases that are immutable, too;
    `dry_run`: only look."""

    op = "rm"
    paths: list[str]
    recursive: bool = False
    force: bool = False
    dry_run: bool = False


class Target(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A path, and the number of the inode that it stood for when it was found; 0: whatever it stands for."""

    path: str
    ino: Natural = 0


class _Action(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done to each target of an `ActOn`, as fs/batch.py does it."""


class SetProperties(_Action, frozen=True, tag="prop_set"):
    """Each key has these values afterwards, and no others. `recursive`: a directory stands for the files
    below it; without, for itself."""

    properties: dict[str, Annotated[list[str], Meta(min_length=1)]]
    recursive: bool = False


class RemoveProperties(_Action, frozen=True, tag="prop_rm"):
    keys: list[str]
    recursive: bool = False


class RemoveFiles(_Action, frozen=True, tag="rm"):
    """Files, to the trash as its rules have it. `force`: releases that are immutable, too."""

    force: bool = False


class CopyInto(_Action, frozen=True, tag="cp"):
    """Files get a copy of the same name in a directory, where nothing is replaced. `below`: of the same path
    that they have below that directory; empty: all of them in `directory` itself."""

    directory: str
    below: str = ""


class MoveInto(_Action, frozen=True, tag="mv"):
    """As `CopyInto`. `force`: releases that are immutable, too."""

    directory: str
    force: bool = False
    below: str = ""


Action = SetProperties | RemoveProperties | RemoveFiles | CopyInto | MoveInto


class Acted(Struct, frozen=True):
    """To how many files it was done, or would be, and their bytes. `changed`: targets that are gone, stand
    for something else than when they were found, or are being written: they are left as they are.
    `releases`: of the files, those that are immutable."""

    files: int
    bytes: int
    changed: int
    releases: int


class ActOn(Operation[Acted], frozen=True):
    """Do one thing to all targets in one transaction, wholly or not at all, as fs/batch.py does: the error is
    that of the first one that refuses. `dry_run`: only look."""

    op = "act_on"
    listed = "targets"
    item = Target
    action: Action
    targets: list[Target]
    dry_run: bool = False


class Properties(Struct, frozen=True):
    """The values of each key."""

    properties: dict[str, list[str]]


class GetProperties(Operation[Properties], frozen=True):
    """Of a file or directory."""

    op = "prop_get"
    path: str


class Damaged(Operation[Done], frozen=True):
    """The files of these blobs were found to be bad, and taken away: invalidate what is cached of them."""

    op = "damaged"
    blobs: list[Natural]


class Collected(Struct, frozen=True):
    """As maintenance/collect/mounted.py has it; the digests of `failures` are hexadecimal."""

    blobs: int
    bytes: int
    failures: list[tuple[str, int, str]]
    untried: int
    gave_up: bool
    busy: bool


class Collect(Operation[Collected], frozen=True):
    """Remove orphans, as maintenance/collect/mounted.py does. `record`: a `Record` of the run."""

    op = "collect"
    ids: list[Natural]
    cutoff_ns: Nanoseconds
    now_ns: Nanoseconds
    record: tuple[Natural, Natural, Natural, Natural, Natural]


class Emptied(Struct, frozen=True):
    """What left the trash for good."""

    files: int
    bytes: int


class EmptyTrash(Operation[Emptied], frozen=True):
    """By age (None), or everything that was removed so many seconds ago."""

    op = "trash_empty"
    older_seconds: Age | None


class SetTrashRule(Operation[Done], frozen=True):
    """What goes to the trash below a directory in the root, or of the whole store (""); None: as it was."""

    op = "trash_set"
    directory: str
    days: Days | None
    exclude: list[str] | None
    minimal_age: Seconds | None


class Undeleted(Struct, frozen=True):
    """How many files were restored, and how many not, since their names are taken."""

    files: int
    skipped: int


class Undelete(Operation[Undeleted], frozen=True):
    """Restore what had that path, or lay below it, and was removed in that time."""

    op = "undelete"
    path: str
    since_ns: Nanoseconds
    before_ns: Nanoseconds


class CreateRepository(Operation[Done], frozen=True):
    """A new repository. `members`: of a virtual one, in order, or the one source of a view."""

    op = "repo_create"
    name: str
    kind: Kind
    members: list[str] = []
    deploy: str = ""
    settings: Settings = Settings()


class SetRepository(Operation[Done], frozen=True):
    """As repositories/verbs.py does; None: as it was. `deploy`: "" for nowhere."""

    op = "repo_set"
    name: str
    members: list[str] | None = None
    deploy: str | None = None
    settings: Settings = Settings()


class SetPlainDirectories(Operation[Done], frozen=True):
    """May programs make directories in the root?"""

    op = "repo_plain"
    yes: bool


class RenameRepository(Operation[Done], frozen=True):
    """As repositories/verbs.py does."""

    op = "repo_rename"
    name: str
    new_name: str


class RemoveRepositories(Operation[Done], frozen=True):
    """As repositories/verbs.py does."""

    op = "repo_rm"
    names: list[str]
    force: bool


class AddLayouts(Operation[Done], frozen=True):
    """`definitions`: TOML (layouts/files.py). `replace`: also those that are there."""

    op = "layout_add"
    definitions: str
    replace: bool


class SetLayout(Operation[Done], frozen=True):
    """`changes`: keys of a definition, as in TOML."""

    op = "layout_set"
    name: str
    changes: dict[str, Any]


class RemoveLayout(Operation[Done], frozen=True):
    """A layout that no repository has."""

    op = "layout_rm"
    name: str


class LockTrees(Operation[Done], frozen=True):
    """Files, and directories with all below them, that nobody changes from then on, as repositories/locks.py
    has it."""

    op = "lock"
    paths: Annotated[list[str], Meta(min_length=1)]
    reason: str = ""


class UnlockTrees(Operation[Done], frozen=True):
    """Remove the locks that were put on these paths."""

    op = "unlock"
    paths: Annotated[list[str], Meta(min_length=1)]


class WantedDigests(Struct, frozen=True):
    """The algorithms of the digests that every content gets besides BLAKE3."""

    digests: list[str]


class SetDigests(Operation[WantedDigests], frozen=True):
    """Which digests every content gets from now on: those of `add` too, those of `remove` not any more."""

    op = "digests_set"
    add: list[str] = []
    remove: list[str] = []


class AddDigests(Operation[Done], frozen=True):
    """Write digests, as maintenance/digests/mounted.py does. `rows`: `DigestRow`s, hexadecimal; `run`: a
    `DigestRun`."""

    op = "digests_add"
    rows: list[tuple[Natural, str, str]]
    run: tuple[Natural, Natural, Natural, Natural, Natural]
    durable: bool = False


class CreateSnapshot(Operation[Manifest], frozen=True):
    """As maintenance/snapshots/create.py does."""

    op = "snapshot_create"
    name: str
    reason: str = ""
    expires_ns: Nanoseconds | None = None
    job: str = ""


class DropSnapshot(Operation[Done], frozen=True):
    """What only it holds may be collected from then on."""

    op = "snapshot_rm"
    name: str


class RestoredSnapshot(Struct, frozen=True):
    """What was restored, or would be (maintenance/snapshots/restore.py). `releases`: of what goes, those that
    are immutable. `before`: the snapshot that was made first; "" for none."""

    restored: int
    bytes: int
    removed: int
    replaced: int
    attributes: int
    renamed: int
    changed: int
    left: list[str]
    before: str = ""
    releases: int = 0
    unmade: list[str] = []


class RestoreSnapshot(Operation[RestoredSnapshot], frozen=True):
    """As maintenance/snapshots/restore.py does. No `paths`: everything. `to`: where, "" for where it was.
    `force`: releases that are immutable go, too; `dry_run`: only look."""

    op = "snapshot_restore"
    name: str
    paths: list[str] = []
    to: str = ""
    force: bool = False
    dry_run: bool = False
