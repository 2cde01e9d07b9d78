"""Whatever is asked, the answer is what a walk through the tree says, name by name."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.filestore.hashing import ALGORITHMS, other_digests
from casfs.fs.scheduler import run_inline
from casfs.layouts.builtin import builtin
from casfs.layouts.coordinates import Coordinates
from casfs.maintenance.query import SECOND, parse
from casfs.maintenance.search import Search
from casfs.namespace.digests import DigestRow
from casfs.repositories.filesystem import follower_of
from casfs.store import create_store
from tests.conftest import MEMORY
from tests.repositories.test_following import make_directories, make_repository
from tests.session import Session

MAVEN = builtin("maven-2-default")
NOW = 2_000_000_000 * SECOND
DAY = 86_400 * SECOND

CONTENTS = [b"", b"a", b"b" * 3000, b"c" * 9000]
REVISIONS = ["1.0", "1.9", "1.10", "1.11-SNAPSHOT", "2.0-SNAPSHOT"]
KEYS, VALUES = ["qa", "keep"], ["passed", "failed", "pa*"]


class File(NamedTuple):
    """What a walk finds."""

    path: str
    ino: int
    content: bytes
    mtime: int
    properties: dict[str, set[str]]

    @property
    def coordinates(self) -> Coordinates | None:
        return MAVEN.parse(self.path[6:].encode()) if self.path.startswith("/libs/") else None


def artifacts(organisation: str, module: str, revision: str, ending: str) -> str:
    return f"libs/{organisation}/{module}/{revision}/{module}-{revision}.{ending}"


PATHS = st.one_of(
    st.builds(
        artifacts,
        st.sampled_from(["org", "org/acme"]),
        st.sampled_from(["app", "lib"]),
        st.sampled_from(REVISIONS),
        st.sampled_from(["jar", "pom", "jar.sha1"]),
    ),
    st.sampled_from(
        ["notes", "libs/notes", "other/a-b/x.jar", "other/a/x.jar", "other/a.b/y", "other/a/b/y"]
    ),
)
PROPERTIES = st.dictionaries(st.sampled_from(KEYS), st.sets(st.sampled_from(VALUES), min_size=1), max_size=2)
FILES = st.dictionaries(
    PATHS,
    st.tuples(st.sampled_from(range(len(CONTENTS))), st.integers(0, 9), PROPERTIES),
    min_size=1,
    max_size=14,
)

Fits = Callable[[File], bool]


class Term(NamedTuple):
    """A term, and whether it holds for a file."""

    word: str
    fits: Fits

    def __repr__(self) -> str:
        return self.word

    def negated(self) -> Term:
        return Term(f"!{self.word}", lambda file: not self.fits(file))


def glob(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern)


def _digest(algorithm: str, content: int, digits: int) -> Term:
    def digest(content: bytes) -> str:
        return other_digests(content, [algorithm])[algorithm].hex()

    begin = digest(CONTENTS[content])[:digits]
    return Term(f"{algorithm}={begin}", lambda file: digest(file.content).startswith(begin))


def _token(term: str, get: Callable[[Coordinates], str], value: str) -> Term:
    def fits(file: File) -> bool:
        assert file.coordinates is not None
        return glob(get(file.coordinates), value)

    return Term(f"{term}={value}", fits)


def _property(key: str, value: str | None) -> Term:
    if value is None:
        return Term(f"prop.{key}", lambda file: key in file.properties)
    return Term(
        f"prop.{key}={value}", lambda file: any(glob(each, value) for each in file.properties.get(key, ()))
    )


NEGATABLE = st.one_of(
    st.builds(
        _digest,
        st.sampled_from(list(ALGORITHMS)),
        st.sampled_from(range(len(CONTENTS))),
        st.sampled_from([1, 5, 999]),
    ),
    st.builds(
        _property, st.sampled_from(KEYS), st.sampled_from([None, "passed", "failed", "pa*", "?a*", "x"])
    ),
    st.sampled_from(
        [_token("org", lambda found: found.org, value) for value in ("org", "org.acme", "org*", "x")]
    ),
    st.sampled_from([_token("module", lambda found: found.module, value) for value in ("app", "lib", "?pp")]),
    st.sampled_from([_token("ext", lambda found: found.extension, value) for value in ("jar", "p*")]),
    st.sampled_from([_token("rev", lambda found: found.revision, value) for value in ("1.9", "1.*")]),
    st.sampled_from(
        [
            Term(f"name={each}", lambda file, each=each: glob(file.path.rpartition("/")[2], each))
            for each in ("*.jar", "y")
        ]
    ),
    st.sampled_from(
        [
            Term(f"path={each}", lambda file, each=each: glob(file.path, each))
            for each in ("/other/*", "/libs/org/a*", "/no/*", "*notes", "/other/a/x.jar")
        ]
    ),
)
PLAIN = st.sampled_from(
    [
        Term("size>0", lambda file: len(file.content) > 0),
        Term("size>2K", lambda file: len(file.content) > 2048),
        Term("size<2K", lambda file: len(file.content) < 2048),
        Term("older=5d", lambda file: file.mtime < NOW - 5 * DAY),
        Term("newer=7d", lambda file: file.mtime >= NOW - 7 * DAY),
        Term("releases", lambda file: file.coordinates is not None and not file.coordinates.integration),
        Term("snapshots", lambda file: file.coordinates is not None and file.coordinates.integration),
        Term("repo=libs", lambda file: file.coordinates is not None),
        Term("companions", lambda file: file.coordinates is not None),
    ]
)


TERMS = st.lists(st.one_of(NEGATABLE, NEGATABLE.map(Term.negated), PLAIN), max_size=4).filter(
    lambda terms: not {"releases", "snapshots"} <= {word for word, _ in terms}
)


def fill(session: Session, files: dict[str, tuple[int, int, dict[str, set[str]]]]) -> None:
    """Of every second file a hard link, and a name that is gone to the trash."""
    make_repository(session, "libs")
    for number, (path, (content, days, _)) in enumerate(files.items()):
        make_directories(session, path.rpartition("/")[0])
        session.kernel.write_file(path, CONTENTS[content])
        session.kernel.utime(path, NOW, NOW - days * DAY)
        if number % 2:
            session.kernel.link(path, f"linked-{number}")
            session.kernel.write_file(f"gone-{number}", CONTENTS[content])
            session.kernel.unlink(f"gone-{number}")
    run_inline(follower_of(session.fs).drain())
    session.kernel.sync()
    session.rest()
    run_inline(session.fs.group.begin())
    namespace = session.store.namespace
    for path, (content, _, properties) in files.items():
        inode = session.kernel.inode(path)
        for key, values in properties.items():
            namespace.xattrs.set(inode.ino, f"user.casfs.prop.{key}".encode(), "\n".join(values).encode())
        if inode.blob is not None:
            digests = other_digests(CONTENTS[content], ALGORITHMS)
            namespace.digests.add(DigestRow(inode.blob, name, digest) for name, digest in digests.items())
    session.kernel.sync()


def walk(session: Session) -> list[File]:
    files = []
    for path, entry in session.kernel.tree().items():
        if entry.content is not None and not path.startswith(b".casfs/"):
            inode = session.kernel.inode(path)
            rows = session.store.namespace.searches.properties_of(inode.ino)
            properties = {key: set(values) for key, values in rows.items()}
            files.append(File(f"/{path.decode()}", inode.ino, entry.content, inode.mtime, properties))
    return sorted(files, key=lambda file: (file.path[: file.path.rindex("/") + 1], file.path))


def expected(files: list[File], terms: list[Term]) -> list[File]:
    words = [word.lstrip("!") for word, _ in terms]
    about = ("org=", "module=", "ext=", "rev=", "repo=", "releases", "snapshots", "companions")
    if any(word.startswith(about) for word in words):
        files = [file for file in files if file.coordinates is not None]
        if "companions" not in words:
            files = [file for file in files if not file.coordinates.companion]  # type: ignore[union-attr]
    return [file for file in files if all(fits(file) for _, fits in terms)]


@settings(max_examples=150)
@given(FILES, st.lists(TERMS, min_size=1, max_size=12))
def test_a_search_finds_what_a_walk_finds(
    files: dict[str, tuple[int, int, dict[str, set[str]]]], queries: list[list[Term]]
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "store"
        create_store(str(path), fan_out=1)
        session = Session(path)
        try:
            fill(session, files)
            everything = walk(session)
            search = Search(session.store.namespace)
            for terms in queries:
                wanted = expected(everything, terms)
                query = parse([word for word, _ in terms], NOW)
                found = [(each.path.decode(), each.file.ino) for each in search.find(query)]
                assert sorted(found) == sorted((file.path, file.ino) for file in wanted), terms
                if search.source(query).kind in ("module", "tree"):
                    assert [each for each, _ in found] == [file.path for file in wanted], terms
                groups = [
                    {each.path.decode() for each in duplicate.found} for duplicate in search.duplicates(query)
                ]
                same: dict[bytes, set[str]] = {}
                for file in wanted:
                    same.setdefault(file.content, set()).add(file.path)
                several = [paths for content, paths in same.items() if content and len(paths) > 1]
                assert sorted(map(sorted, groups)) == sorted(map(sorted, several)), terms
        finally:
            session.stop()
