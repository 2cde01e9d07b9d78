"""Make, show and change the repositories of a store.

A repository is a directory in the root of the mount, with a layout and rules:
local (it has files), virtual (several shown as one) or a view (one shown in
another layout). A plain directory there is a local one without a layout.
A running mount follows at once.

More: casfs help repositories
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import (
    Commands,
    Parser,
    add_actions,
    add_command,
    add_json,
    add_store,
    byte_size,
    count,
)
from casfs.cli.output import print_facts, print_json, print_table, quota
from casfs.cli.places import access_to, store_of
from casfs.cli.times import moment
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.repositories import RepositoryFacts
    from casfs.repositories.rules import Settings

DAYS_LIMIT = 36_500


def add(commands: Commands) -> None:
    actions = add_actions(commands, "repo", __doc__)

    creating = add_command(
        actions, "create", _create, "Make a repository; a directory that is there becomes it."
    )
    add_store(creating)
    _add_name(creating)
    kind = creating.add_mutually_exclusive_group()
    kind.add_argument(
        "--virtual", metavar="A,B,...", type=_names, help="show these repositories, in this order"
    )
    kind.add_argument("--view", metavar="REPO", help="show this one; needs --layout")
    creating.add_argument("--deploy", metavar="REPO", help="of --virtual: what is written goes there")
    _add_settings(creating)

    listing = add_command(actions, "list", _list, "Show all repositories.")
    add_store(listing)
    add_json(listing)

    showing = add_command(actions, "show", _show, "Show one repository with its rules.")
    add_store(showing)
    _add_name(showing)
    showing.add_argument(
        "--left-out", action="store_true", help="list the files that it does not show instead, and why"
    )
    add_json(showing)

    setting = add_command(actions, "set", _set, "Change a repository, or with --plain what the root takes.")
    add_store(setting)
    setting.add_argument("name", metavar="NAME", nargs="?", help="of the repository; not with --plain")
    setting.add_argument(
        "--plain", metavar="yes|no", choices=("yes", "no"), help="may programs make directories in the root?"
    )
    shown = setting.add_mutually_exclusive_group()
    shown.add_argument("--virtual", metavar="A,B,...", type=_names, help="what a virtual one shows, in order")
    shown.add_argument("--view", metavar="REPO", help="what a view shows")
    deploying = setting.add_mutually_exclusive_group()
    deploying.add_argument("--deploy", metavar="REPO", help="where what is written to a virtual one goes")
    deploying.add_argument(
        "--no-deploy", action="store_const", const="", dest="deploy", help="nowhere: EROFS"
    )
    _add_settings(setting)

    renaming = add_command(
        actions, "rename", _rename, "Give a repository another name, as mv(1) in the root."
    )
    add_store(renaming)
    _add_name(renaming)
    renaming.add_argument("new_name", metavar="NEW_NAME", help="that nothing in the root has")

    removing = add_command(actions, "rm", _remove, "Remove repositories; files stay, in plain directories.")
    add_store(removing)
    removing.add_argument("names", metavar="NAME", nargs="+", help="of the repository")
    removing.add_argument("--force", action="store_true", help="take it out of virtual ones that show it")


def _add_name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the repository: a directory in the root")


def _add_settings(parser: Parser) -> None:
    layout = parser.add_mutually_exclusive_group()
    layout.add_argument("--layout", metavar="L", help="as 'casfs layout list' shows it")
    layout.add_argument(
        "--no-layout", action="store_const", const="", dest="layout", help="paths say nothing"
    )
    layout.add_argument(
        "--package-type", metavar="T", help="the layout of these packages: maven, npm, pypi, ..."
    )
    for name, summary in (
        ("include", "paths in it that may be written: **/*.jar; replaces those there were"),
        ("exclude", "and those that may not; '' by none"),
    ):
        parser.add_argument(f"--{name}", metavar="PATTERN", action="append", help=summary)
    for yes, no, rule, value, summary in (
        ("releases", "no-releases", "releases", True, "it takes releases"),
        ("snapshots", "no-snapshots", "snapshots", True, "it takes snapshots"),
        ("read-only", "writable", "read_only", True, "nobody writes to it"),
        ("immutable", "mutable", "immutable", True, "releases are neither replaced nor removed"),
    ):
        group = parser.add_mutually_exclusive_group()
        group.add_argument(f"--{yes}", action="store_const", const=value, dest=rule, help=summary)
        group.add_argument(f"--{no}", action="store_const", const=not value, dest=rule, help="not so")
    parser.add_argument(
        "--digests",
        metavar="A,B,...",
        type=_digests,
        help="what its contents get besides those of the store: sha256, sha1, ...; '' for none",
    )
    sidecars = parser.add_mutually_exclusive_group()
    sidecars.add_argument(
        "--sidecars",
        metavar="yes|listed",
        choices=("yes", "listed"),
        nargs="?",
        const="yes",
        help="FILE.sha1, .sha256, .sha512, .md5 can be read beside each file",
    )
    sidecars.add_argument(
        "--no-sidecars", action="store_const", const="", dest="sidecars", help="what programs write only"
    )
    parser.add_argument(
        "--checksums",
        metavar="client|server",
        choices=("client", "server"),
        help="a false one that a program writes: its close(2) fails (client), or it goes (server)",
    )
    parser.add_argument(
        "--max-unique-snapshots", metavar="N", type=count, help="of one module and classifier; 0: all stay"
    )
    parser.add_argument(
        "--quota", metavar="SIZE", type=byte_size, help="bytes it may have: 500M, 20G; 0: no limit"
    )
    parser.add_argument("--quota-files", metavar="N", type=count, help="files it may have; 0: no limit")
    parser.add_argument(
        "--soft", metavar="PERCENT", type=_percent, help="of the quota, from which the log warns"
    )
    parser.add_argument(
        "--access-times",
        metavar="daily|none",
        choices=("daily", "none"),
        help="keep the time of a file's last open, moved once a day: for 'casfs find --unused-since'",
    )
    parser.add_argument(
        "--trash-days", metavar="N", type=_days, help="so long the trash keeps what goes; 0: not"
    )


_RULES = {
    "include": "include",
    "exclude": "exclude",
    "releases": "releases",
    "snapshots": "snapshots",
    "read_only": "read_only",
    "immutable": "immutable",
    "digests": "digests",
    "sidecars": "sidecars",
    "checksums": "checksums",
    "max_unique_snapshots": "max_unique_snapshots",
    "quota": "quota_bytes",
    "quota_files": "quota_files",
    "soft": "soft_percent",
    "access_times": "access_times",
}
"""Argument -> rule."""


def _settings(args: argparse.Namespace) -> Settings:
    from casfs.repositories.rules import Settings

    rules: dict[str, Any] = {
        rule: getattr(args, argument)
        for argument, rule in _RULES.items()
        if getattr(args, argument) is not None
    }
    for patterns in ("include", "exclude"):
        if patterns in rules:
            rules[patterns] = [pattern for pattern in rules[patterns] if pattern]
    if rules.get("include") == []:
        raise UsageError("--include has to have a pattern", "--include '**' takes all paths")
    layout = args.layout
    if args.package_type is not None:
        from casfs.layouts.builtin import layout_of

        layout = layout_of(args.package_type).name
    return Settings(layout=layout, rules=rules, trash_days=args.trash_days)


def _digests(word: str) -> list[str]:
    return sorted(filter(None, word.split(",")))


def _names(word: str) -> list[str]:
    names = word.split(",")
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"'{word}': names of repositories are wanted, with commas between them"
        )
    return names


def _percent(word: str) -> int:
    number = count(word)
    if number > 100:
        raise argparse.ArgumentTypeError(f"{word} is more than 100 percent")
    return number


def _days(word: str) -> int:
    number = count(word)
    if number > DAYS_LIMIT:
        raise argparse.ArgumentTypeError(f"'{word}' is no number of days from 0 to {DAYS_LIMIT}")
    return number


def _create(args: argparse.Namespace) -> int:
    from casfs.control.messages import CreateRepository

    settings = _settings(args)
    if args.deploy is not None and args.virtual is None:
        raise UsageError("--deploy is for --virtual")
    if args.view is not None and not settings.layout:
        raise UsageError("a view needs a layout", "give --layout or --package-type")
    asked = CreateRepository(
        args.name,
        "virtual" if args.virtual is not None else "view" if args.view is not None else "local",
        args.virtual or ([] if args.view is None else [args.view]),
        args.deploy or "",
        settings,
    )
    access_to(args.store).perform(asked)
    return ExitCode.OK


def _set(args: argparse.Namespace) -> int:
    from casfs.control.messages import SetPlainDirectories, SetRepository
    from casfs.repositories.rules import Settings

    settings = _settings(args)
    members = args.virtual if args.view is None else [args.view]
    nothing = members is None and args.deploy is None and settings == Settings()
    if args.name is None:
        if args.plain is None or not nothing:
            raise UsageError("which repository?", "casfs repo set STORE NAME …")
        access_to(args.store).perform(SetPlainDirectories(args.plain == "yes"))
        return ExitCode.OK
    if args.plain is not None:
        raise UsageError("--plain is for the whole store", f"leave '{printable(args.name)}' out")
    if nothing:
        raise UsageError("nothing to set", "see 'casfs repo set --help'")
    access_to(args.store).perform(SetRepository(args.name, members, args.deploy, settings))
    return ExitCode.OK


def _rename(args: argparse.Namespace) -> int:
    from casfs.control.messages import RenameRepository

    access_to(args.store).perform(RenameRepository(args.name, args.new_name))
    return ExitCode.OK


def _remove(args: argparse.Namespace) -> int:
    from casfs.control.messages import RemoveRepositories

    access_to(args.store).perform(RemoveRepositories(args.names, args.force))
    return ExitCode.OK


def _list(args: argparse.Namespace) -> int:
    from casfs.maintenance.repositories import repositories

    found = repositories(_committed(args.store))
    if args.json:
        print_json({"repositories": [_as_json(repository) for repository in found]})
    elif found:
        rows = [_as_text(repository) for repository in found]
        print_table(("repository", "kind", "layout", "artifacts", "quota", "shows"), rows)
    else:
        print("there are no repositories")
    return ExitCode.OK


def _show(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from casfs.maintenance.repositories import contents, repositories, takes_plain_directories

    store = _committed(args.store)
    found = repositories(store)
    repository = next((each for each in found if each.name == os.fsencode(args.name)), None)
    if repository is None:
        names = [printable(each.name) for each in found]
        raise UsageError.unknown("repository", printable(args.name), names)
    if args.left_out:
        return _show_left_out(store, repository, json=args.json)
    facts = _as_json(repository)
    held = asdict(contents(store, repository))
    rules = facts.pop("rules")
    facts |= held | {"rules": rules}
    if args.json:
        print_json(facts | {"plain_directories": takes_plain_directories(store)})
        return ExitCode.OK
    del facts["rules"]
    since = rules.pop("access_times_since")
    if since:
        rules["access_times"] += f", since {moment(since * 10**9)}"
    none = ("hidden", "left_out") if repository.kind == "local" else ("bytes",)
    shown = {key: _for_person(value) for key, value in facts.items() if value not in ((), None)}
    shown = {("size_bytes" if key == "bytes" else key): shown[key] for key in shown if key not in none}
    print_facts(shown | {"rules": {key: _for_person(value) for key, value in rules.items()}})
    return ExitCode.OK


def _show_left_out(store: str, repository: RepositoryFacts, *, json: bool) -> int:
    from casfs.maintenance.left_out import left_out

    if repository.kind == "local":
        raise UsageError(f"'{printable(repository.name)}' shows no others", "--left-out is for those that do")
    found = left_out(store, repository.ino)
    if json:
        print_json({"left_out": [{"path": path, "reason": reason} for path, reason in found]})
    else:
        for path, reason in found:
            print(f"{printable(path)}: {printable(reason)}")
    return ExitCode.OK


def _committed(path: str) -> str:
    """The store, with what was done until now in its last commit."""
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Sync

    store = store_of(path)
    StoreAccess(store).tell(Sync())
    return store


def _as_json(repository: RepositoryFacts) -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.structs.asdict(repository.rules)
    return {
        "name": repository.name,
        "kind": repository.kind,
        "layout": repository.layout,
        "artifacts": repository.artifacts,
        "members": repository.members,
        "deploy": repository.deploy,
        "trash_days": repository.trash_days,
        "rules": facts,
    }


def _as_text(repository: RepositoryFacts) -> tuple[str, ...]:
    shows = ", ".join(map(printable, repository.members))
    if repository.deploy is not None:
        shows += f" (writes to {printable(repository.deploy)})"
    return (
        printable(repository.name),
        repository.kind,
        repository.layout or "-",
        str(repository.artifacts),
        quota(repository.rules),
        shows or "-",
    )


def _for_person(value: Any) -> Any:
    if isinstance(value, tuple):
        return ", ".join(map(printable, value)) or "-"
    return printable(value) if isinstance(value, bytes) else value
