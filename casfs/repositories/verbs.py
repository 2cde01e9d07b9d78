"""What is done to repositories: made, set, renamed, removed. Each verb happens wholly or not at all, and is
durable when it returns.

Names are those of directories in the root. Raises UsageError for what can never be, RepositoryError for what
cannot be as things are, LayoutError for an unknown layout, OSError.
"""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Iterator, Sequence

import msgspec

from casfs.errors import FsError, RepositoryError, UsageError
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.listing import DT_DIR, is_name
from casfs.fs.tree import RENAME_NOREPLACE, ROW_BYTES
from casfs.namespace.repositories import RepositoryRow
from casfs.namespace.trash import RuleRow
from casfs.repositories import references, rules
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.registry import Repository, RepositoryKind
from casfs.repositories.rules import Rules, Settings
from casfs.text import printable
from casfs.trash.filesystem import trash_of
from casfs.trash.policy import CASFS
from casfs.types import ROOT_INO

MODE = stat.S_IFDIR | 0o755

SHOWN_RULES = ("include", "exclude", "read_only")
"""Rules of repositories that hold no files themselves."""

UNCHANGED = Settings()

NAMES_SHOWN = 50
"""Names that are looked at to find the one that was meant."""


async def create(
    fs: FileSystem,
    name: bytes,
    kind: RepositoryKind,
    *,
    members: Sequence[bytes] = (),
    deploy: bytes = b"",
    settings: Settings = UNCHANGED,
) -> None:
    """A new repository. `members`: of a virtual one, in order, or the one source of a view; `deploy`: where
    what is written to a virtual one goes, b"" for nowhere.

    The directory is made, or one that is there becomes it: of a local repository with all its files, of
    others if it is empty.
    """
    _check_name(name)
    await fs.group.begin()
    there = _find(fs, name)
    if there is not None:
        if not there.is_directory:
            raise RepositoryError(f"'{printable(name)}' is there already, and no directory")
        if there.ino in registry_of(fs).repositories:
            raise RepositoryError(f"'{printable(name)}' is a repository already", "casfs repo set changes it")
        if kind is not RepositoryKind.LOCAL and not fs.store.namespace.dentries.is_empty(there.ino):
            raise RepositoryError(f"the directory '{printable(name)}' is not empty")
        fs.policy.check_rules(there)
    else:
        fs.policy.check_rules(fs.inodes.get(ROOT_INO))
    inode = there or _new_directory(fs)
    try:
        _create(fs, name, inode, there is None, kind, members, deploy, settings)
    except BaseException:
        if there is None:
            fs.inodes.remove(inode)
        raise
    await fs.group.durable()


def _create(
    fs: FileSystem,
    name: bytes,
    inode: Inode,
    is_new: bool,
    kind: RepositoryKind,
    members: Sequence[bytes],
    deploy: bytes,
    settings: Settings,
) -> None:
    known = dict(registry_of(fs).repositories)
    inos = _members(fs, known, members)
    if inode.ino in inos:
        raise RepositoryError(f"'{printable(name)}' cannot show itself")
    made = Repository(inode.ino, kind, None, Rules(), inos, _deploy(fs, known, deploy))
    known[inode.ino] = _set(fs, made, name, settings)
    _check(fs, known, {inode.ino: name})
    with _transaction(fs):
        _write(fs, known)
        _set_trash(fs, name, settings)
        if is_new:
            fs.directories.take_absent(ROOT_INO, name)
            fs.directories.add(fs.inodes.get(ROOT_INO), name, inode)


def _new_directory(fs: FileSystem) -> Inode:
    """One that has no name yet, of the owner of the root."""
    fs.store.filestore.space.claim_rows(ROW_BYTES)
    root = fs.inodes.get(ROOT_INO)
    inode = fs.inodes.create(MODE, root.uid, root.gid)
    inode.nlink = 2
    return inode


async def change(
    fs: FileSystem,
    name: bytes,
    *,
    members: Sequence[bytes] | None = None,
    deploy: bytes | None = None,
    settings: Settings = UNCHANGED,
) -> None:
    """Set what is given, as in `create`; what is None stays as it is. A plain directory becomes a local
    repository."""
    await fs.group.begin()
    inode = _existing(fs, name)
    fs.policy.check_rules(inode)
    ino = inode.ino
    if why := registry_of(fs).damaged.get(ino):
        raise RepositoryError(f"'{printable(name)}' is damaged: {why}", "casfs fsck --repair mends it")
    known = dict(registry_of(fs).repositories)
    old = known.get(ino) or Repository(ino, RepositoryKind.LOCAL, None, Rules())
    new = _set(fs, old, name, settings)
    if members is not None:
        new = msgspec.structs.replace(new, members=_members(fs, known, members))
    if deploy is not None:
        new = msgspec.structs.replace(new, deploy=_deploy(fs, known, deploy))
    known[ino] = new
    _check(fs, known, {})
    with _transaction(fs):
        _write(fs, known)
        _set_trash(fs, name, settings)
    await fs.group.durable()


async def rename(fs: FileSystem, name: bytes, new_name: bytes) -> None:
    """As rename(2) in the root does, but never over what is there."""
    _check_name(new_name)
    _existing(fs, name)
    try:
        await fs.tree.rename(ROOT_INO, name, ROOT_INO, new_name, RENAME_NOREPLACE)
    except FsError as error:
        if error.errno == errno.EEXIST:
            raise RepositoryError(f"'{printable(new_name)}' is there already") from None
        raise
    await fs.group.durable()


async def remove(fs: FileSystem, names: Sequence[bytes], *, force: bool = False) -> None:
    """Remove repositories, and those of their directories that are empty: others stay, as plain ones.

    `force`: virtual ones that stay lose what goes; a view whose source goes has to be among the names.
    """
    await fs.group.begin()
    going = {_existing(fs, name).ino: name for name in names}
    for ino in going:
        fs.policy.check_rules(fs.inodes.get(ino))
    registry, dentries = registry_of(fs), fs.store.namespace.dentries
    known = dict(registry.repositories)
    for ino, name in going.items():
        if ino not in known and not dentries.is_empty(ino):
            raise RepositoryError(f"'{printable(name)}' is a plain directory with files", "rm -r removes it")
    _let_go(fs, known, going, force)
    with _transaction(fs):
        _write(fs, known)
    for ino, name in going.items():
        if dentries.is_empty(ino):
            await fs.tree.rmdir(ROOT_INO, name)
    await fs.group.durable()


def _let_go(fs: FileSystem, known: dict[int, Repository], going: dict[int, bytes], force: bool) -> None:
    """Take what goes out of the repositories, and of those that stay."""
    others = references.referring(known, going)
    views = [repository for repository in others if repository.kind is RepositoryKind.VIEW]
    if views or (others and not force):
        refused = views if force else others
        what = ", ".join(f"'{printable(name)}'" for name in going.values())
        who = ", ".join(f"'{_name(fs, repository.ino)}'" for repository in refused)
        hint = "views go before it, or with it" if views else "--force takes it out of them"
        raise RepositoryError(f"{what} cannot go: {who} would miss it", hint)
    for repository in others:
        members = tuple(member for member in repository.members if member not in going)
        known[repository.ino] = msgspec.structs.replace(repository, members=members)
    for ino in going:
        known.pop(ino, None)
    for repository in references.deploys_elsewhere(known):
        known[repository.ino] = msgspec.structs.replace(repository, deploy=None)


async def set_plain(fs: FileSystem, yes: bool) -> None:
    """May programs make directories in the root?"""
    await fs.group.begin()
    fs.policy.check_rules(fs.inodes.get(ROOT_INO))
    with _transaction(fs):
        fs.store.namespace.repositories.take_plain_directories(yes)
        registry_of(fs).read()
    await fs.group.durable()


# Names


def _check_name(name: bytes) -> None:
    if not is_name(name) or name == CASFS:
        raise UsageError(f"'{printable(name)}' is no name of a repository")


def _find(fs: FileSystem, name: bytes) -> Inode | None:
    ino = fs.store.namespace.dentries.find(ROOT_INO, name)
    return None if ino is None else fs.inodes.get(ino)


def _existing(fs: FileSystem, name: bytes) -> Inode:
    """The directory of a repository."""
    inode = _find(fs, name) if is_name(name) and name != CASFS else None
    if inode is None or not inode.is_directory:
        rows = fs.store.namespace.dentries.children(ROOT_INO, 0, NAMES_SHOWN)
        names = [printable(row[1]) for row in rows if row[3] == DT_DIR and row[1] != CASFS]
        raise UsageError.unknown("repository", printable(name), names)
    return inode


def _name(fs: FileSystem, ino: int) -> str:
    """For a message."""
    names = fs.store.namespace.dentries.names_of(ino)
    return printable(names[0][1]) if names else f"inode {ino}"


# What a repository shall be


def _members(fs: FileSystem, known: dict[int, Repository], names: Sequence[bytes]) -> tuple[int, ...]:
    """A plain directory among them becomes a repository: it may not go unseen."""
    inos: dict[int, None] = {}
    for name in names:
        ino = _existing(fs, name).ino
        if ino in inos:
            raise UsageError(f"'{printable(name)}' is named twice")
        inos[ino] = None
        known.setdefault(ino, Repository(ino, RepositoryKind.LOCAL, None, Rules()))
    return tuple(inos)


def _deploy(fs: FileSystem, known: dict[int, Repository], name: bytes) -> int | None:
    return _members(fs, known, [name])[0] if name else None


def _set(fs: FileSystem, repository: Repository, name: bytes, settings: Settings) -> Repository:
    if repository.kind is not RepositoryKind.LOCAL:
        wrong = [rule for rule in settings.rules if rule not in SHOWN_RULES]
        if wrong or settings.trash_days is not None:
            what = wrong[0].replace("_", " ") if wrong else "the trash"
            raise UsageError(f"'{printable(name)}' holds no files: {what} is a rule of a local repository")
    layout = repository.layout
    if settings.layout is not None:
        layout = registry_of(fs).layout(settings.layout) if settings.layout else None
    return msgspec.structs.replace(
        repository, layout=layout, rules=rules.changed(repository.rules, settings.rules)
    )


def _check(fs: FileSystem, known: dict[int, Repository], new: dict[int, bytes]) -> None:
    """Do all repositories make sense together? `new`: names of those that have none yet."""

    def name(ino: int) -> str:
        return printable(new[ino]) if ino in new else _name(fs, ino)

    for repository in known.values():
        this, old = name(repository.ino), registry_of(fs).repositories.get(repository.ino)
        if old == repository:
            continue
        if repository.kind is RepositoryKind.LOCAL and repository.members:
            raise UsageError(f"'{this}' is a local repository: it shows no others")
        if repository.kind is not RepositoryKind.VIRTUAL and repository.deploy is not None:
            raise UsageError(f"'{this}' is no virtual repository: it has none to write to")
        if repository.kind is RepositoryKind.VIEW and (len(repository.members) != 1 or not repository.layout):
            raise UsageError(f"'{this}' is a view: it has one source, and a layout")
    if way := references.circle(known):
        raise RepositoryError(f"repositories would show themselves: {' -> '.join(map(name, way))}")
    for repository in known.values():
        source = known.get(repository.members[0]) if repository.kind is RepositoryKind.VIEW else None
        if source and source.kind is RepositoryKind.LOCAL and source.layout is None:
            hint = f"casfs repo set STORE {name(source.ino)} --layout L"
            raise RepositoryError(f"'{name(source.ino)}' has no layout to view it by", hint)
    for repository in references.deploys_elsewhere(known):
        assert repository.deploy is not None
        raise RepositoryError(
            f"'{name(repository.ino)}' cannot write to '{name(repository.deploy)}'",
            "that has to be a local repository that it shows",
        )


# Writing


@contextlib.contextmanager
def _transaction(fs: FileSystem) -> Iterator[None]:
    """What is inside happens wholly or not at all, in the rows and in memory. It waits for nothing."""
    try:
        with fs.store.namespace.savepoint():
            yield
    except BaseException:
        registry_of(fs).read()
        trash_of(fs).read_rules()
        raise
    fs.group.count()


def _write(fs: FileSystem, wanted: dict[int, Repository]) -> None:
    """Let the rows be these repositories. Inside a transaction."""
    rows, registry = fs.store.namespace.repositories, registry_of(fs)
    before = dict(registry.repositories)
    for ino in before.keys() - wanted.keys():
        rows.remove(ino)
    for repository in wanted.values():
        if before.get(repository.ino) != repository:
            layout = repository.layout.name if repository.layout else None
            text = rules.encode(repository.rules)
            row = RepositoryRow(repository.ino, repository.kind, layout, repository.deploy, text)
            rows.set(row, repository.members)
    registry.read()
    for ino in before.keys() | wanted.keys():
        changed = _layout_of(before.get(ino)) is not _layout_of(wanted.get(ino))
        if changed and not fs.store.namespace.dentries.is_empty(ino):
            follower_of(fs).follow(ino)


def _layout_of(repository: Repository | None) -> object:
    """Of one that holds files."""
    return repository.layout if repository and repository.kind is RepositoryKind.LOCAL else None


def _set_trash(fs: FileSystem, name: bytes, settings: Settings) -> None:
    if settings.trash_days is not None:
        trash = trash_of(fs)
        old = {rule.directory: rule for rule in trash.rules}
        exclude = old.get(name, old[b""]).exclude
        trash.set_rule(RuleRow(name, settings.trash_days, exclude))
