"""Repositories that are made, set, renamed and removed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from casfs.errors import LayoutError, RepositoryError, UsageError
from casfs.fs.scheduler import run_inline
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories import verbs
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.registry import Repository, RepositoryKind
from casfs.repositories.rules import Settings
from tests.session import Session

LOCAL, VIRTUAL, VIEW = RepositoryKind
LAYOUT = "maven-2-default"
JAR = "org/acme/app/1.0/app-1.0.jar"


class Repositories:
    """The verbs by names, as commands ask for them."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def create(self, name: str, kind: RepositoryKind = LOCAL, **given: Any) -> None:
        self._do(verbs.create, name, kind, **given)

    def change(self, name: str, **given: Any) -> None:
        self._do(verbs.change, name, **given)

    def remove(self, *names: str, force: bool = False) -> None:
        run_inline(verbs.remove(self.session.fs, [name.encode() for name in names], force=force))

    def rename(self, name: str, new_name: str) -> None:
        run_inline(verbs.rename(self.session.fs, name.encode(), new_name.encode()))

    def _do(
        self, verb: Callable[..., Coroutine[Any, Any, None]], name: str, *kind: RepositoryKind, **given: Any
    ) -> None:
        members = given.pop("members", None)
        if members is not None:
            given["members"] = [member.encode() for member in members]
        if given.get("deploy") is not None:
            given["deploy"] = given["deploy"].encode()
        settings = {key: given.pop(key) for key in ("layout", "rules", "trash_days") if key in given}
        run_inline(verb(self.session.fs, name.encode(), *kind, settings=Settings(**settings), **given))

    def get(self, name: str) -> Repository | None:
        return registry_of(self.session.fs).repositories.get(self.session.kernel.inode(name).ino)

    @property
    def names(self) -> dict[str, Repository]:
        names_of = self.session.store.namespace.dentries.names_of
        return {
            names_of(ino)[0][1].decode(): repository
            for ino, repository in registry_of(self.session.fs).repositories.items()
        }

    def members(self, name: str) -> list[str]:
        inos = {repository.ino: other for other, repository in self.names.items()}
        return [inos[member] for member in self.names[name].members]

    @property
    def artifacts(self) -> int:
        run_inline(follower_of(self.session.fs).drain())
        count: int = self.session.store.namespace.query("SELECT count(*) FROM artifact").get
        return count


@pytest.fixture
def repositories(session: Session) -> Repositories:
    return Repositories(session)


def exists(session: Session, name: str) -> bool:
    """In the root."""
    return session.store.namespace.dentries.find(1, name.encode()) is not None


def make_directories(session: Session, path: str) -> None:
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        session.kernel.mkdir("/".join(parts[:end]))


def make_artifact(session: Session, repository: str) -> None:
    make_directories(session, f"{repository}/{JAR.rpartition('/')[0]}")
    session.kernel.write_file(f"{repository}/{JAR}", b"jar")


def test_a_repository_is_a_directory_of_the_owner_of_the_root(
    session: Session, repositories: Repositories
) -> None:
    session.fs.inodes.get(1).uid = 42
    repositories.create(
        "libs", layout=LAYOUT, rules={"quota_bytes": 1000, "exclude": ["*.tmp"]}, trash_days=3
    )
    inode = session.kernel.inode("libs")
    assert (inode.mode, inode.nlink, inode.uid) == (0o40755, 2, 42)
    assert session.kernel.inode("/").nlink == 3
    session.reopen()
    libs = repositories.get("libs")
    assert libs is not None
    assert libs.layout is not None
    assert (libs.kind, libs.layout.name) == (LOCAL, LAYOUT)
    assert (libs.rules.quota_bytes, libs.rules.exclude, libs.rules.include) == (1000, ("*.tmp",), ("**",))
    (_, rule) = session.store.namespace.trash.rules()
    assert (rule.directory, rule.days) == (b"libs", 3)


def test_what_is_made_is_durable_and_survives_a_crash(session: Session, repositories: Repositories) -> None:
    repositories.create("libs", layout=LAYOUT)
    repositories.create("all", VIRTUAL, members=["libs"], deploy="libs")
    repositories.create("ivy", VIEW, members=["all"], layout="ivy-default")
    session.crash(session.path.parent / "copy")
    assert set(repositories.names) == {"libs", "all", "ivy"}
    assert repositories.members("ivy") == ["all"]
    deploy = repositories.names["all"].deploy
    assert deploy == repositories.names["libs"].ino


def test_a_directory_becomes_a_local_repository_with_its_files(
    session: Session, repositories: Repositories
) -> None:
    make_artifact(session, "libs")
    ino = session.kernel.inode("libs").ino
    repositories.create("libs", layout=LAYOUT)
    assert session.kernel.inode("libs").ino == ino
    assert repositories.artifacts == 1


@pytest.mark.parametrize("kind", [VIRTUAL, VIEW])
def test_one_without_files_of_its_own_takes_no_directory_that_has_some(
    session: Session, repositories: Repositories, kind: RepositoryKind
) -> None:
    repositories.create("libs", layout=LAYOUT)
    session.kernel.mkdir("all")
    session.kernel.write_file("all/file", b"x")
    with pytest.raises(RepositoryError, match="the directory 'all' is not empty"):
        repositories.create("all", kind, members=["libs"], layout="ivy-default")
    session.kernel.unlink("all/file")
    repositories.create("all", kind, members=["libs"], layout="ivy-default")
    assert repositories.members("all") == ["libs"]


def test_there_is_one_repository_of_a_name(session: Session, repositories: Repositories) -> None:
    repositories.create("libs")
    with pytest.raises(RepositoryError, match="'libs' is a repository already"):
        repositories.create("libs")
    session.kernel.write_file("file", b"x")
    with pytest.raises(RepositoryError, match="'file' is there already, and no directory"):
        repositories.create("file")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", ".casfs", "x" * 256, "a\0b"])
def test_a_name_that_none_can_have_is_refused(repositories: Repositories, name: str) -> None:
    with pytest.raises(UsageError, match="is no name of a repository"):
        repositories.create(name)
    repositories.create("libs")
    with pytest.raises(UsageError, match="is no name of a repository"):
        repositories.rename("libs", name)
    with pytest.raises(UsageError, match="unknown repository"):
        repositories.change(name, layout=LAYOUT)


def test_names_need_not_be_text(session: Session) -> None:
    run_inline(verbs.create(session.fs, b"\xff\n", LOCAL))
    with pytest.raises(UsageError, match=r"unknown repository '\\xfe'; .*\\xff\\n"):
        run_inline(verbs.change(session.fs, b"\xfe"))


def test_a_plain_directory_that_is_shown_becomes_a_repository(
    session: Session, repositories: Repositories
) -> None:
    session.kernel.mkdir("plain")
    repositories.create("all", VIRTUAL, members=["plain"])
    assert repositories.names["plain"].kind is LOCAL


def test_what_makes_no_sense_together_is_refused(session: Session, repositories: Repositories) -> None:
    repositories.create("libs", layout=LAYOUT)
    repositories.create("bare")
    session.kernel.mkdir("plain")
    before = repositories.names
    for complaint, given in (
        ("'libs' is named twice", (VIRTUAL, ["libs", "libs"], "", None)),
        ("unknown repository 'lib'; did you mean 'libs'", (VIRTUAL, ["libs", "lib"], "", None)),
        ("'new' cannot write to 'bare'", (VIRTUAL, ["libs"], "bare", None)),
        ("'new' is no virtual repository", (LOCAL, [], "libs", None)),
        ("'new' is a local repository", (LOCAL, ["libs"], "", None)),
        ("'new' is a view: it has one source, and a layout", (VIEW, ["libs"], "", None)),
        ("'new' is a view: it has one source", (VIEW, [], "", LAYOUT)),
        ("'new' is a view: it has one source", (VIEW, ["libs", "bare"], "", LAYOUT)),
        ("'bare' has no layout to view it by", (VIEW, ["bare"], "", LAYOUT)),
        ("unknown layout 'maven2'", (LOCAL, [], "", "maven2")),
    ):
        kind, members, deploy, layout = given
        with pytest.raises((RepositoryError, UsageError), match=complaint):
            repositories.create("new", kind, members=members, deploy=deploy, layout=layout)
        assert repositories.names == before
        assert not exists(session, "new")
    session.reopen()
    assert set(repositories.names) == set(before)


def test_a_circle_is_refused_with_all_that_are_in_it(session: Session, repositories: Repositories) -> None:
    repositories.create("libs", layout=LAYOUT)
    repositories.create("inner", VIRTUAL, members=["libs"], layout=LAYOUT)
    repositories.create("view", VIEW, members=["inner"], layout="ivy-default")
    repositories.create("outer", VIRTUAL, members=["libs", "view"])
    with pytest.raises(RepositoryError, match="inner -> outer -> view -> inner"):
        repositories.change("inner", members=["libs", "outer"])
    with pytest.raises(RepositoryError, match="outer -> outer"):
        repositories.change("outer", members=["outer"])
    session.kernel.mkdir("self")
    with pytest.raises(RepositoryError, match="'self' cannot show itself"):
        repositories.create("self", VIRTUAL, members=["self"])
    assert repositories.members("inner") == ["libs"]


def test_many_ways_to_one_repository_and_a_long_one_back_to_it(repositories: Repositories) -> None:
    repositories.create("r0", layout=LAYOUT)
    repositories.create("r1", VIRTUAL, members=["r0"])
    for number in range(2, 12):
        members = [f"r{number - 1}", f"r{number - 2}"]
        repositories.create(f"r{number}", VIRTUAL, members=members, deploy="r0")
    with pytest.raises(RepositoryError, match=r"r1 -> r11 -> r10 -> .* -> r2 -> r1"):
        repositories.change("r1", members=["r11"])


def test_what_is_set_is_set_and_the_rest_stays(session: Session, repositories: Repositories) -> None:
    repositories.create("a", layout=LAYOUT, rules={"read_only": True})
    repositories.create("b")
    repositories.create("all", VIRTUAL, members=["a", "b"], deploy="a")
    repositories.change("a", rules={"quota_files": 7})
    rules = repositories.names["a"].rules
    assert (rules.read_only, rules.quota_files) == (True, 7)
    assert repositories.names["a"].layout is not None
    repositories.change("a", layout="")
    assert repositories.names["a"].layout is None
    repositories.change("all", members=["b", "a"])
    assert repositories.members("all") == ["b", "a"]
    assert repositories.names["all"].deploy == repositories.names["a"].ino
    with pytest.raises(RepositoryError, match="'all' cannot write to 'a'"):
        repositories.change("all", members=["b"])
    repositories.change("all", members=["b"], deploy="b")
    repositories.change("all", deploy="")
    assert repositories.names["all"].deploy is None


@pytest.mark.parametrize(
    "rules",
    [
        {"quota_bytes": -1},
        {"quota_bytes": 1 << 70},
        {"soft_percent": 101},
        {"read_only": "yes"},
        {"unknown": 1},
        {"include": "*"},
        {"include": ["a\nb"]},
        {"exclude": [""]},
        {"exclude": ["\udcff"]},
        {"exclude": ["x" * 5000]},
    ],
)
def test_rules_that_cannot_be_are_refused(repositories: Repositories, rules: dict[str, Any]) -> None:
    repositories.create("libs")
    with pytest.raises(UsageError):
        repositories.change("libs", rules=rules)


def test_rules_of_files_are_none_of_a_view(repositories: Repositories) -> None:
    repositories.create("libs", layout=LAYOUT)
    repositories.create("ivy", VIEW, members=["libs"], layout="ivy-default", rules={"read_only": True})
    with pytest.raises(UsageError, match="'ivy' holds no files: quota bytes"):
        repositories.change("ivy", rules={"quota_bytes": 5})
    with pytest.raises(UsageError, match="'ivy' holds no files: the trash"):
        repositories.change("ivy", trash_days=5)


def test_artifacts_follow_the_layout(session: Session, repositories: Repositories) -> None:
    make_artifact(session, "libs")
    repositories.change("libs", layout=LAYOUT)
    assert repositories.artifacts == 1
    repositories.change("libs", layout="npm-default")
    assert repositories.artifacts == 0
    repositories.change("libs", layout=LAYOUT)
    assert repositories.artifacts == 1
    repositories.change("libs", layout="")
    assert repositories.artifacts == 0
    repositories.change("libs", layout=LAYOUT)
    repositories.remove("libs")
    assert repositories.artifacts == 0
    assert session.kernel.read_file(f"libs/{JAR}") == b"jar"


def test_a_repository_is_renamed_and_nothing_is_overwritten(
    session: Session, repositories: Repositories
) -> None:
    repositories.create("libs", layout=LAYOUT)
    repositories.create("all", VIRTUAL, members=["libs"])
    repositories.rename("libs", "jars")
    assert repositories.members("all") == ["jars"]
    with pytest.raises(RepositoryError, match="'all' is there already"):
        repositories.rename("jars", "all")
    with pytest.raises(UsageError, match="unknown repository 'libs'"):
        repositories.rename("libs", "other")


def test_what_others_refer_to_is_not_removed(session: Session, repositories: Repositories) -> None:
    for name in ("a", "b"):
        repositories.create(name, layout=LAYOUT)
    repositories.create("inner", VIRTUAL, members=["a"])
    repositories.create("all", VIRTUAL, members=["inner", "b"], deploy="a")
    repositories.create("view", VIEW, members=["b"], layout="ivy-default")
    with pytest.raises(RepositoryError, match="'a' cannot go: 'inner', 'all' would miss it; --force"):
        repositories.remove("a")
    with pytest.raises(RepositoryError, match="'inner', 'a' cannot go: 'all' would miss it; --force"):
        repositories.remove("inner", "a")
    for force, who in ((False, "'all', 'view'"), (True, "'view'")):
        with pytest.raises(RepositoryError, match=f"'b' cannot go: {who} would miss it; views go before it"):
            repositories.remove("b", force=force)
    repositories.remove("a", force=True)
    assert repositories.members("inner") == []
    assert repositories.names["all"].deploy is None
    repositories.remove("b", "view", force=True)
    assert repositories.members("all") == ["inner"]
    assert not exists(session, "b")
    assert not exists(session, "view")


def test_a_nested_repository_that_goes_takes_the_place_to_write_to_with_it(
    repositories: Repositories,
) -> None:
    repositories.create("a")
    repositories.create("inner", VIRTUAL, members=["a"])
    repositories.create("middle", VIRTUAL, members=["inner"])
    repositories.create("outer", VIRTUAL, members=["middle"], deploy="a")
    with pytest.raises(RepositoryError, match="'inner' cannot go: 'middle' would miss it"):
        repositories.remove("inner")
    repositories.remove("inner", force=True)
    assert repositories.names["outer"].deploy is None


def test_removing_removes_no_files(session: Session, repositories: Repositories) -> None:
    make_artifact(session, "libs")
    repositories.create("libs", layout=LAYOUT)
    repositories.create("empty")
    repositories.remove("libs", "empty", force=True)
    assert repositories.names == {}
    assert not exists(session, "empty")
    assert session.kernel.inode("/").nlink == 3
    assert session.kernel.read_file(f"libs/{JAR}") == b"jar"
    with pytest.raises(RepositoryError, match="'libs' is a plain directory with files"):
        repositories.remove("libs")


def test_a_database_that_refuses_leaves_everything_as_it_was(
    session: Session, repositories: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact(session, "libs")
    run_inline(session.fs.group.durable())

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "refused")

    for target, name in (
        (session.fs.directories, "add"),
        (session.store.namespace.trash, "set_rule"),
        (session.store.namespace.repositories, "set"),
        (session.store.namespace.repositories, "follow"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, refuse)
            existing = "libs" if name == "follow" else "new"
            with pytest.raises(OSError, match="refused"):
                repositories.create(existing, layout=LAYOUT, trash_days=1)
        assert repositories.names == {}
        assert not exists(session, "new")
        assert len(session.store.namespace.trash.rules()) == 1
    session.reopen()
    repositories.create("new", layout=LAYOUT)


def test_an_unknown_layout_is_named(repositories: Repositories) -> None:
    with pytest.raises(LayoutError, match="unknown layout 'ivy-defalt'; did you mean 'ivy-default'"):
        repositories.create("libs", layout="ivy-defalt")


def test_one_that_is_damaged_is_not_taken_for_what_it_seems_to_be(
    session: Session, repositories: Repositories
) -> None:
    repositories.create("libs", layout=LAYOUT)
    repositories.create("all", VIRTUAL, members=["libs"])
    ino = repositories.names["all"].ino
    run_inline(session.fs.group.begin())
    row = RepositoryRow(ino, "virtual", "no-such-layout", None, "{}")
    session.store.namespace.repositories.set(row, [repositories.names["libs"].ino])
    registry_of(session.fs).read()
    with pytest.raises(RepositoryError, match=r"'all' is damaged: .*; casfs fsck --repair mends it"):
        repositories.change("all", rules={"read_only": True})
    repositories.create("others")
    repositories.rename("libs", "jars")
    assert [found.layout for found in session.store.namespace.repositories.all() if found.ino == ino] == [
        "no-such-layout"
    ]
    repositories.remove("all")
    assert set(repositories.names) == {"jars", "others"}
