"""Names made to trouble views and virtual repositories."""

from __future__ import annotations

from itertools import product

from casfs.fs.scheduler import run_inline
from casfs.layouts.files import to_toml
from casfs.layouts.layout import Definition
from casfs.maintenance.check.fsck import check
from casfs.namespace.repositories import LayoutRow, RepositoryRow
from casfs.repositories.filesystem import follower_of, registry_of
from tests.repositories.making import make_directories, make_repository
from tests.repositories.test_derived import files, make_tree
from tests.session import Session

DOTS = 8
"""An organisation of so many dots has as many spellings as there are numbers of that many bits."""


def test_hundreds_of_files_want_one_name(session: Session) -> None:
    """The spellings a/b/c, a.b/c, a/b.c and a.b.c are one organisation, of which a view shows the first."""
    kernel = session.kernel
    make_repository(session, "libs")
    letters = "abcdefghi"
    tops: dict[str, list[str]] = {}
    for number, dots in enumerate(product("./", repeat=DOTS)):
        organisation = "".join(map("".join, zip(letters, (*dots, ""), strict=True)))
        directory = f"libs/{organisation}/m/1"
        make_directories(session, directory)
        kernel.write_file(f"{directory}/m-1.jar", b"%d" % number)
        tops.setdefault(organisation.split("/")[0], []).append(str(number))
    make_tree(session, "ivy", "view", ["libs"], "ivy-default")
    shown = f"ivy/{'.'.join(letters)}/m/1/jars/m-1.jar"
    assert list(files(kernel, "ivy")) == [shown.removeprefix("ivy/")]
    seen = []
    for _ in range(20):
        seen.append(kernel.read_file(shown).decode())
        kernel.unlink(shown)
    assert seen == [str(number) for number in range(20)]
    assert len(files(kernel, "libs")) == (1 << DOTS) - 20
    kernel.rename("libs/a", "libs/z")
    run_inline(follower_of(session.fs).drain())
    assert kernel.read_file(f"ivy/z{shown.removeprefix('ivy/a')}").decode() == tops["a"][0]
    kernel.write_file(shown, b"changed")
    assert kernel.read_file(shown) == b"changed"
    session.stop()
    assert not check(str(session.path)).problems
    session.start()


def test_layouts_that_map_two_files_to_the_names_of_each_other(session: Session) -> None:
    kernel = session.kernel
    run_inline(session.fs.group.begin())
    for name, tokens in (("there", "[org]/[module]"), ("back", "[module]/[org]")):
        toml = to_toml([Definition(name=name, artifact=f"{tokens}-[baseRev].[ext]")])
        session.store.namespace.repositories.set_layout(LayoutRow(name, toml))
    make_repository(session, "libs", "there")
    for directory, name in (("a", "b"), ("b", "a")):
        make_directories(session, f"libs/{directory}")
        kernel.write_file(f"libs/{directory}/{name}-1.jar", directory.encode())
    make_tree(session, "turned", "view", ["libs"], "back")
    make_tree(session, "both", "virtual", ["libs", "turned"], deploy="libs")
    assert files(kernel, "turned") == {"a/b-1.jar": b"b", "b/a-1.jar": b"a"}
    assert files(kernel, "both") == files(kernel, "libs") == {"a/b-1.jar": b"a", "b/a-1.jar": b"b"}
    kernel.rename("turned/a/b-1.jar", "turned/b/a-1.jar")  # it replaces the other one
    assert files(kernel, "libs") == {"a/b-1.jar": b"b"}
    assert files(kernel, "both") == {"a/b-1.jar": b"b", "b/a-1.jar": b"b"}
    kernel.unlink("both/a/b-1.jar")
    assert files(kernel, "libs") == files(kernel, "turned") == files(kernel, "both") == {}


def test_a_member_that_vanishes_while_it_is_listed(session: Session) -> None:
    kernel = session.kernel
    numbers = range(40)
    for name in ("first", "second"):
        make_repository(session, name, None)
        make_directories(session, f"{name}/d")
        for number in numbers:
            kernel.write_file(f"{name}/d/{name}{number}", name.encode())
    tree = make_tree(session, "all", "virtual", ["first", "second"])
    directory = kernel.inode("all/d").ino
    listing = session.fs.listing
    rows = listing.names(directory, 0, 30)
    run_inline(session.fs.group.begin())
    members = [kernel.inode("second").ino]
    row = RepositoryRow(tree, "virtual", None, None, "{}")
    session.store.namespace.repositories.set(row, members)
    registry_of(session.fs).read()
    run_inline(follower_of(session.fs).drain())
    while more := listing.names(directory, rows[-1][0], 30):
        rows += more
    names = [name for _, name, *_ in rows]
    assert len(names) == len(set(names))
    assert set(files(kernel, "all")) == {f"d/second{number}" for number in numbers}
