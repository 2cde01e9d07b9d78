"""The house: which part of casfs may import which, and what may be named where, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A unit is a module or package directly below casfs/. Imports go from a higher floor to a lower one;
# units that stand in one line here do not import each other.
FLOORS = (
    ("errors", "types", "syscalls", "text"),
    ("space", "layouts", "properties", "amounts", "cron"),
    ("filestore", "namespace"),
    ("store",),
    ("snapshots",),
    ("fs",),
    ("trash",),
    ("repositories",),
    ("maintenance",),
    ("fuse", "control"),
    ("config",),
    ("service",),
    ("cli",),
    ("__main__",),
)
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

# Libraries and what they bring with them stay behind the one unit that wraps them.
ONLY_IN = {
    "apsw": {"namespace"},
    "sqlite3": set[str](),
    "pyfuse3": {"fuse"},
    "trio": {"fuse", "control", "service"},
    "argparse": {"cli"},
    "packaging": {"layouts"},
    "rich": {"cli"},
    "shtab": {"cli"},
}
# What has one owner: an attribute of something that is called so is only used by these modules.
# Repairs work on the rows of a store that nobody uses, and that may be anything.
ONE_OWNER = {
    "dentries": (
        {"insert", "insert_new", "delete", "delete_children", "rename", "replace", "point"},
        {"casfs.fs.directories", "casfs.namespace.repairs"},
    ),
    "pyfuse3": (
        {"invalidate_inode", "invalidate_entry", "invalidate_entry_async", "notify_store"},
        {"casfs.fuse.caches"},
    ),
}
# And what only one module may name.
ONLY_IN_MODULE = {
    "blake3": "casfs.filestore.hashing",
    "casfs.filestore.paths": "casfs.filestore.local",
}
# $NOTIFY_SOCKET is how systemd speaks to a service, not a setting of ours.
READS_ENVIRONMENT = {"casfs.service.notify"}
# Calls that open or change what a path leads to, and who may call them with one that is put together:
# SQLite's own files have paths, and who looks for a mount's users opens run/ as a folder that is no link.
TAKES_PATHS = re.compile(
    r"open|os\.(open|unlink|remove|rename|replace|link|symlink|truncate|chmod|chown|mkdir|makedirs|rmdir|mkfifo"
    r"|mknod|listdir|scandir|walk|utime)"
)
MAKES_PATHS = {"casfs.namespace.namespace", "casfs.service.unmounting"}
# What a class of fs/ may inherit from another one there: interfaces, and what is told by its kind.
MAY_BE_INHERITED = {"Protocol", "Enum", "IntEnum", "Exception"}
MEANINGLESS_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
MAX_LINES = 500
SQL = re.compile(
    r"\s*(SELECT|INSERT|REPLACE|UPDATE|DELETE FROM|CREATE (TABLE|INDEX|TRIGGER|VIEW)|DROP|ALTER TABLE|PRAGMA"
    r"|BEGIN (IMMEDIATE|EXCLUSIVE|DEFERRED)|SAVEPOINT|ROLLBACK|COMMIT)\b"
)
STORE_PATH = re.compile(r"(^|/)(blobs|staging)/|/(blobs|staging)$")


def modules(root: Path) -> Iterator[tuple[str, str, Path, ast.Module]]:
    """(unit, dotted name, file, syntax tree) of every module of the package at root/casfs."""
    for file in sorted((root / "casfs").rglob("*.py")):
        name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        unit = name.split(".")[1] if "." in name else ""
        yield unit, name, file, ast.parse(file.read_bytes(), str(file))


def imports(name: str, file: Path, tree: ast.Module) -> Iterator[str]:
    """The dotted names a module imports, wherever in it and for whatever reason."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def wrong_imports(root: Path) -> list[str]:
    wrong = []
    for unit, name, file, tree in modules(root):
        for target in imports(name, file, tree):
            library, _, rest = target.partition(".")
            if library != "casfs":
                if unit not in ONLY_IN.get(library, {unit}):
                    wrong.append(f"{name} imports {target}, which only {sorted(ONLY_IN[library])} may")
                continue
            other = rest.partition(".")[0]
            if other in FLOOR and other != unit and FLOOR[other] >= FLOOR.get(unit, -1):
                wrong.append(f"{name} imports {target}, which is not below it")
    return wrong


def import_circles(root: Path) -> list[str]:
    """The first one that is found, of modules; a package imports what its `__init__` does."""
    known = {name for _, name, _, _ in modules(root)}
    for stub in (root / "casfs").rglob("*.pyi"):
        known.add(".".join(stub.relative_to(root).with_suffix("").parts))
    graph: dict[str, set[str]] = {}
    for _, name, file, tree in modules(root):
        graph[name] = set()
        for target in imports(name, file, tree):
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target:
                graph[name].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def inheritance(root: Path) -> list[str]:
    """Classes of fs/ that are made of another one there by inheriting from it."""
    classes = [
        (name, node, [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases])
        for unit, name, _, tree in modules(root)
        if unit == "fs"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    parts = {node.name for _, node, bases in classes if not MAY_BE_INHERITED.intersection(bases)}
    return [
        f"{name}:{node.lineno} {node.name} inherits from {base}"
        for name, node, bases in classes
        for base in bases
        if base in parts
    ]


def named_elsewhere(root: Path) -> list[str]:
    return [
        f"{name} imports {target}, which only {module} may"
        for _, name, file, tree in modules(root)
        for target in imports(name, file, tree)
        for thing, module in ONLY_IN_MODULE.items()
        if name != module and f"{target}.".startswith(f"{thing}.")
    ]


def wrong_files(root: Path) -> list[str]:
    wrong = []
    for unit, name, file, _ in modules(root):
        if unit and unit not in FLOOR:
            wrong.append(f"{name} stands on no floor: add {unit} to FLOORS")
        if name.rpartition(".")[2] in MEANINGLESS_NAMES:
            wrong.append(f"{name} says nothing by its name")
        if (lines := len(file.read_bytes().splitlines())) > MAX_LINES:
            wrong.append(f"{name} has {lines} lines, more than {MAX_LINES}")
    return wrong


def texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """String constants, docstrings and other strings that nobody uses excepted."""
    unused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unused:
            yield node


def stray_sql(root: Path) -> list[str]:
    return [
        f"{name}:{text.lineno} holds SQL, which belongs in namespace"
        for unit, name, _, tree in modules(root)
        if unit != "namespace"
        for text in texts(tree)
        if SQL.match(text.value)
    ]


def half_reads(root: Path) -> list[str]:
    """Cursors of which one row is fetched: the rest keeps the connection reading, so that it cannot write
    once another process has."""
    return [
        f"{name}:{node.lineno} fetches one row; `get` fetches all there are"
        for _, name, _, tree in modules(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("fetchone", "fetchmany")
    ]


def stray_paths(root: Path) -> list[str]:
    return [
        f"{name}:{text.lineno} makes a path to a blob or a staged file, which belongs in filestore"
        for unit, name, _, tree in modules(root)
        if unit != "filestore"
        for text in texts(tree)
        if STORE_PATH.search(text.value)
    ]


def opened_paths(root: Path) -> list[str]:
    """Files below STORE are reached from its descriptor (filestore/directory.py): whoever puts a path to one
    together follows what lies on the way."""
    return [
        f"{name}:{node.lineno} opens or changes a file by a path that is put together"
        for _, name, _, tree in modules(root)
        if name not in MAKES_PATHS
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and TAKES_PATHS.fullmatch(ast.unparse(node.func))
        for path in node.args
        if isinstance(path, ast.JoinedStr) and isinstance(path.values[0], ast.FormattedValue)
    ]


def environment_reads(root: Path) -> list[str]:
    return [
        f"{name}:{node.lineno} reads the environment, which only config may"
        for _, name, _, tree in modules(root)
        if name not in READS_ENVIRONMENT
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb")
    ]


def other_owners(root: Path) -> list[str]:
    wrong = []
    for _, name, _, tree in modules(root):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            holder = node.value.attr if isinstance(node.value, ast.Attribute) else ast.unparse(node.value)
            attributes, owners = ONE_OWNER.get(holder.lstrip("_"), (set(), set()))
            if node.attr in attributes and name not in owners:
                wrong.append(
                    f"{name}:{node.lineno} uses {holder}.{node.attr}, which only {sorted(owners)} may"
                )
    return wrong


def silent_rooms(root: Path) -> list[str]:
    """Packages that do not say what lives there, what they may use, and what state they own."""
    return [
        f"{name} does not say what it uses, and what state it has"
        for _, name, file, tree in modules(root)
        if file.name == "__init__.py" and "." in name
        if not re.search(r"\b[Uu]se.*\bState:", ast.get_docstring(tree) or "", re.DOTALL)
    ]


RULES = (
    silent_rooms,
    wrong_imports,
    import_circles,
    named_elsewhere,
    other_owners,
    inheritance,
    wrong_files,
    stray_sql,
    half_reads,
    stray_paths,
    opened_paths,
    environment_reads,
)


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps(rule):
    assert rule(ROOT) == []


@pytest.mark.parametrize(
    ("rule", "file", "text", "complaint"),
    [
        (wrong_imports, "namespace/a.py", "from casfs.filestore import b", "not below"),
        (wrong_imports, "filestore/a.py", "from ..namespace import b", "not below"),
        (wrong_imports, "filestore/__init__.py", "from .. import namespace", "not below"),
        (wrong_imports, "fs/a.py", "def f():\n    import casfs.service.mountd", "not below"),
        (wrong_imports, "errors.py", "from casfs import types", "not below"),
        (wrong_imports, "fs/a.py", "import apsw", "namespace"),
        (wrong_imports, "fs/a.py", "if x:\n    from trio.lowlevel import checkpoint", "fuse"),
        (wrong_imports, "control/a.py", "import pyfuse3", "fuse"),
        (opened_paths, "service/a.py", "os.unlink(f'{store}/run/control')", "put together"),
        (opened_paths, "store.py", "with open(f'{path}/casfs.toml') as file:\n    pass", "put together"),
        (import_circles, "fs/__init__.py", "from casfs import fs", "casfs.fs imports casfs.fs"),
        (inheritance, "fs/a.py", "class A: pass\nclass B(A): pass", "a:2 B inherits from A"),
        (inheritance, "fs/a/b.py", "class A(Generic[T]): pass\nclass B(a.A[int]): pass", "from A"),
        (
            named_elsewhere,
            "filestore/a.py",
            "def f():\n    from blake3 import blake3",
            "only casfs.filestore.hashing",
        ),
        (
            named_elsewhere,
            "maintenance/a.py",
            "from casfs.filestore import paths",
            "only casfs.filestore.local",
        ),
        (silent_rooms, "fs/__init__.py", '"""The file system."""', "casfs.fs does not say"),
        (wrong_files, "fs/utils.py", "", "says nothing"),
        (wrong_files, "fs/common/__init__.py", "", "says nothing"),
        (wrong_files, "attic.py", "", "no floor"),
        (wrong_files, "fs/long.py", "x = 1\n" * 501, "501 lines"),
        (stray_sql, "fs/a.py", "run('SELECT 1')", "a:1 holds SQL"),
        (stray_sql, "fs/a.py", "run(f'''\n  INSERT INTO t VALUES ({x})''')", "holds SQL"),
        (half_reads, "namespace/a.py", "row = execute(sql).fetchone()", "a:1 fetches one row"),
        (stray_paths, "fs/a.py", "open(f'{store}/blobs/ab/{name}')", "a:1 makes a path"),
        (stray_paths, "store.py", "x = root + '/staging'", "belongs in filestore"),
        (environment_reads, "fs/a.py", "import os\nos.environ['HOME']", "a:2 reads"),
        (other_owners, "fs/a.py", "def f(self):\n    self._dentries.insert(1)", "a:2 uses _dentries.insert"),
        (other_owners, "fuse/a.py", "run(pyfuse3.invalidate_inode, 1)", "casfs.fuse.caches"),
    ],
)
def test_a_breach_is_found(tmp_path, rule, file, text, complaint):
    path = tmp_path / "casfs" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (found,) = rule(tmp_path)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("namespace/a.py", "import apsw\nfrom casfs import errors\nfrom .b import c\nSQL = 'SELECT 1'"),
        ("cli/a.py", "from casfs.service import mountd\nimport casfs"),
        ("service/a.py", "import trio\nfrom casfs.fuse.operations import Operations"),
        ("fs/directories.py", "dentries.insert(1)\nself.table.insert(2)"),
        ("fs/a.py", "class A(Protocol): pass\nclass B(A, Exception): pass\nclass C(B): pass"),
        ("namespace/a.py", "class A: pass\nclass B(A): pass"),
        ("fs/a.py", "'''SELECT is not sent from here.'''\nx = 'Selected'"),
    ],
)
def test_what_is_allowed_is_not_complained_about(tmp_path, file, text):
    path = tmp_path / "casfs" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert [rule(tmp_path) for rule in RULES] == [[]] * len(RULES)


def test_a_circle_of_imports_is_found(tmp_path):
    package = tmp_path / "casfs" / "fs"
    package.mkdir(parents=True)
    (package / "a.py").write_text("from casfs.fs.b import B")
    (package / "b.py").write_text("def f():\n    from .c import C")
    (package / "c.py").write_text("if TYPE_CHECKING:\n    from casfs.fs import a")
    (package / "d.py").write_text("from casfs.fs.a import A")
    (found,) = import_circles(tmp_path)
    assert found.count(" imports ") == 3
    assert {*found.split(" imports ")} == {"casfs.fs.a", "casfs.fs.b", "casfs.fs.c"}
