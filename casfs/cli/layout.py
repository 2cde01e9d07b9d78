"""Show, test and define the layouts of a store.

A layout is a pattern of paths: it says which part of the path of an artifact
is its organisation, its module, its revision. Those of many package managers
are built in, and a store may have more of its own.

    casfs layout add STORE ours --artifact '[org]/[module]-[baseRev].[ext]'
    casfs layout test STORE acme/app-1.0.jar

More: casfs help layouts
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, Parser, add_actions, add_any, add_command, add_json, add_store, path
from casfs.cli.output import print_facts, print_json, print_table
from casfs.cli.places import access_to, store_of
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.layouts.explanation import Explanation
    from casfs.layouts.layout import Layout

EXAMPLE = "[orgPath]/[module]/[module]-[baseRev].[ext]"

LONGEST_FILE = 60_000
"""Bytes of a file of layouts that is imported: what a request may have, with quotes."""


def add(commands: Commands) -> None:
    actions = add_actions(commands, "layout", __doc__)

    listing = add_command(actions, "list", _list, "Show all layouts.")
    add_store(listing)
    add_json(listing)

    showing = add_command(actions, "show", _show, "Show the definition of one.")
    add_store(showing)
    _add_name(showing)
    add_json(showing)

    adding = add_command(actions, "add", _add, "Define one.")
    add_store(adding)
    _add_name(adding)
    _add_definition(adding)

    setting = add_command(actions, "set", _set, "Change one; repositories with it follow.")
    add_store(setting)
    _add_name(setting)
    _add_definition(setting)

    removing = add_command(actions, "rm", _remove, "Remove one that no repository has.")
    add_store(removing)
    _add_name(removing)

    testing = add_command(
        actions,
        "test",
        _test,
        "Show what paths say in each layout, or why not. Exit code 1: some say nothing.",
    )
    add_store(testing)
    testing.add_argument("paths", metavar="PATH", type=path, nargs="+", help="from the top of a repository")
    testing.add_argument("--layout", metavar="L", action="append", help="only in this one")
    add_json(testing)

    exporting = add_command(actions, "export", _export, "Print layouts as TOML.")
    add_store(exporting)
    add_any(exporting, "names", "NAME", "of layouts (default: the store's own)")

    importing = add_command(actions, "import", _import, "Define those of a TOML file, all or none.")
    add_store(importing)
    importing.add_argument(
        "file", metavar="FILE", type=path, help="as 'casfs layout export' prints it; - reads it"
    )
    importing.add_argument("--replace", action="store_true", help="also those that are there")


def _add_name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the layout")


def _add_definition(parser: Parser) -> None:
    parser.add_argument("--artifact", metavar="PATTERN", help="paths of artifacts")
    parser.add_argument(
        "--descriptor", metavar="PATTERN", help="of what describes a module, which is tried first"
    )
    for which in ("folder", "file"):
        parser.add_argument(
            f"--{which}-integration", metavar="REGEX", help=f"what [{which}ItegRev] matches (default: .*)"
        )
    parser.add_argument(
        "--role",
        metavar="TOKEN=NAME",
        dest="roles",
        type=_role,
        action="append",
        help="a token of another name that stands for org, module or baseRev; 'org=': there is none",
    )
    parser.add_argument("--versions", metavar="ORDER", help="maven, semver or pep440 (default: maven)")
    for option, summary in (
        ("integrations", "an integration revision makes a snapshot (default)"),
        ("escape-upper-case", "A is written !a, as in Go's module proxies"),
    ):
        group = parser.add_mutually_exclusive_group()
        dest = option.replace("-", "_")
        group.add_argument(f"--{option}", action="store_const", const=True, dest=dest, help=summary)
        group.add_argument(f"--no-{option}", action="store_const", const=False, dest=dest, help="not so")


_KEYS = (
    "artifact",
    "descriptor",
    "folder_integration",
    "file_integration",
    "roles",
    "versions",
    "integrations",
    "escape_upper_case",
)
"""Arguments that are keys of a definition."""


def _role(word: str) -> tuple[str, str]:
    token, equals, name = word.partition("=")
    if not token or not equals:
        raise argparse.ArgumentTypeError(f"'{word}' is no role: write org=scope, as an example")
    return token, name


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Of the definition, with the keys of TOML."""
    given = {key.replace("_", "-"): getattr(args, key) for key in _KEYS if getattr(args, key) is not None}
    if "roles" in given:
        given["roles"] = dict(given["roles"])
    return given


def _layouts(args: argparse.Namespace, names: list[str] | None = None) -> dict[str, Layout]:
    """Those of these names, or all: the built-in ones first. Raises LayoutError for an unknown name."""
    from casfs.errors import LayoutError
    from casfs.maintenance.repositories import built_in_layouts, layouts

    found = {layout.name: layout for layout in (*built_in_layouts(), *layouts(store_of(args.store)))}
    for name in names or ():
        if name not in found:
            raise LayoutError.unknown("layout", printable(name), found)
    return found if names is None else {name: found[name] for name in names}


def _is_built_in(layout: Layout) -> bool:
    from casfs.layouts.builtin import DEFINITIONS

    return layout.definition in DEFINITIONS


def _list(args: argparse.Namespace) -> int:
    found = _layouts(args)
    if args.json:
        print_json({"layouts": [_as_json(layout) for layout in found.values()]})
        return ExitCode.OK
    users = _users(args.store)
    rows = [
        (
            name,
            "built in" if _is_built_in(layout) else "own",
            layout.order.name,
            ", ".join(users.get(name, ())) or "-",
        )
        for name, layout in found.items()
    ]
    print_table(("layout", "from", "versions", "repositories"), rows)
    return ExitCode.OK


def _show(args: argparse.Namespace) -> int:
    layout = _layouts(args, [args.name])[args.name]
    facts = _as_json(layout)
    if args.json:
        print_json(facts)
        return ExitCode.OK
    facts["roles"] = ", ".join(f"{role}={token}" for role, token in facts["roles"].items())
    shown = {key: value for key, value in facts.items() if value != ""}
    print_facts(shown | {"repositories": ", ".join(_users(args.store).get(layout.name, ())) or "-"})
    return ExitCode.OK


def _as_json(layout: Layout) -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.structs.asdict(layout.definition)
    return facts | {"roles": dict(layout.definition.roles), "built_in": _is_built_in(layout)}


def _users(store: str) -> dict[str, list[str]]:
    """Names of repositories by the layout they have."""
    from casfs.maintenance.repositories import repositories

    users: dict[str, list[str]] = {}
    for repository in repositories(store_of(store)):
        if repository.layout is not None:
            users.setdefault(repository.layout, []).append(printable(repository.name))
    return users


def _add(args: argparse.Namespace) -> int:
    import msgspec

    from casfs.control.messages import AddLayouts
    from casfs.layouts.files import to_toml
    from casfs.layouts.layout import Definition, prepare

    if args.artifact is None:
        raise UsageError("a layout needs a pattern", f"--artifact '{EXAMPLE}', as an example")
    definition = msgspec.convert({"name": args.name, **_given(args)}, Definition)
    prepare(definition)
    access_to(args.store).perform(AddLayouts(to_toml([definition]), False))
    return ExitCode.OK


def _set(args: argparse.Namespace) -> int:
    from casfs.control.messages import SetLayout

    changes = _given(args)
    if not changes:
        raise UsageError("nothing to set", "see 'casfs layout set --help'")
    access_to(args.store).perform(SetLayout(args.name, changes))
    return ExitCode.OK


def _remove(args: argparse.Namespace) -> int:
    from casfs.control.messages import RemoveLayout

    access_to(args.store).perform(RemoveLayout(args.name))
    return ExitCode.OK


def _export(args: argparse.Namespace) -> int:
    from casfs.layouts.files import to_toml

    found = _layouts(args, args.names or None)
    chosen = [layout for layout in found.values() if args.names or not _is_built_in(layout)]
    print(to_toml(layout.definition for layout in chosen), end="")
    return ExitCode.OK


def _import(args: argparse.Namespace) -> int:
    from casfs.control.messages import AddLayouts
    from casfs.layouts.files import from_toml, to_toml

    definitions = from_toml(_read(args.file))
    if not definitions:
        raise UsageError(f"{args.file} has no layouts", "a layout is a table [layout.NAME]")
    access_to(args.store).perform(AddLayouts(to_toml(definitions), args.replace))
    return ExitCode.OK


def _read(file: str) -> str:
    if file == "-":
        data = sys.stdin.buffer.read(LONGEST_FILE + 1)
    else:
        with open(file, "rb") as opened:
            data = opened.read(LONGEST_FILE + 1)
    if len(data) > LONGEST_FILE:
        raise UsageError(f"{file} is longer than {LONGEST_FILE} bytes", "import it in parts")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8: byte {error.start + 1}") from None


def _test(args: argparse.Namespace) -> int:
    from casfs.layouts.explanation import explain

    chosen = _layouts(args, args.layout).values()
    found = {word: explain(os.fsencode(word), chosen) for word in args.paths}
    if args.json:
        print_json(
            {"paths": [{"path": word, "layouts": list(map(_tokens, each))} for word, each in found.items()]}
        )
    else:
        width = max(len(layout.name) for layout in chosen)
        for word, explanations in found.items():
            print(printable(word))
            for explanation in sorted(explanations, key=lambda each: each.coordinates is None):
                print(f"  {explanation.layout:<{width}}  {_said(explanation)}")
    taken = all(any(each.coordinates is not None for each in explanations) for explanations in found.values())
    return ExitCode.OK if taken else ExitCode.FAILED


def _said(explanation: Explanation) -> str:
    coordinates = explanation.coordinates
    if coordinates is None:
        return printable(f"no: {explanation.reason}")
    words = [f"{name}={printable(value)}" for name, value in coordinates.tokens.items()]
    words += ["(descriptor)"] if coordinates.descriptor else []
    words += [f"(accompanies: {coordinates.companion})"] if coordinates.companion else []
    words += ["(snapshot)"] if coordinates.integration else []
    return " ".join(words)


def _tokens(explanation: Explanation) -> dict[str, Any]:
    coordinates = explanation.coordinates
    if coordinates is None:
        return {"layout": explanation.layout, "tokens": None, "reason": explanation.reason}
    return {
        "layout": explanation.layout,
        "tokens": coordinates.tokens,
        "revision": coordinates.revision,
        "descriptor": coordinates.descriptor,
        "companion": coordinates.companion,
        "snapshot": coordinates.integration,
    }
