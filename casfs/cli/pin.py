"""Hold contents back from collection.

A pin keeps what the files at and below its paths have now, whatever becomes of
them later, or with --everything all that the store has and will have; until it
expires or is removed. Works on a mounted store and on one that is not.

More: casfs help collecting
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from casfs.cli.arguments import (
    Commands,
    add_actions,
    add_any,
    add_command,
    add_json,
    add_store,
    count,
    duration,
    path,
    text,
)
from casfs.cli.output import print_json, print_table, size
from casfs.cli.places import rooted_in, store_of
from casfs.cli.times import moment
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.namespace.collecting import Pin


def add(commands: Commands) -> None:
    actions = add_actions(commands, "pin", __doc__)

    adding = add_command(actions, "add", _add, "Hold contents back, until the pin expires or is removed.")
    add_store(adding)
    add_any(adding, "paths", "PATH", "in a mount, or from the store's root (/…)", path)
    adding.add_argument("--everything", action="store_true", help="all that is there and all to come")
    adding.add_argument("--reason", default="", type=text, help="a line for those who wonder")
    adding.add_argument("--expires", metavar="DURATION", type=duration, help="remove the pin after so long")
    add_json(adding)

    listing = add_command(actions, "list", _list, "Show the pins.")
    add_store(listing)
    add_json(listing)

    removing = add_command(actions, "rm", _remove, "Remove a pin: what it holds may be collected then.")
    add_store(removing)
    removing.add_argument("id", metavar="ID", type=count, help="as 'casfs pin list' shows it")


def _add(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect.pins import add_pin

    if args.expires == 0:
        raise UsageError("a pin that expires at once holds nothing", "--expires 14d, as an example")
    if bool(args.paths) == args.everything:
        raise UsageError("name the paths to pin, or --everything", "see 'casfs pin add --help'")
    store = store_of(args.store)
    inside = [os.fsencode(rooted_in(store, word)) for word in args.paths or ()]
    _sync(store)
    pin = add_pin(store, inside, reason=args.reason, seconds=args.expires)
    if args.json:
        print_json(pin._asdict())
    else:
        print(f"pin {pin.id} holds {_held(pin)}")
    return ExitCode.OK


def _sync(store: str) -> None:
    """Have what was written until now sealed and committed, if the store is mounted."""
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Sync

    StoreAccess(store).tell(Sync(seal=True))


def _list(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect.pins import list_pins

    pins = list_pins(store_of(args.store))
    if args.json:
        print_json([pin._asdict() for pin in pins])
    elif pins:
        print_table(("pin", "holds", "since", "until", "reason"), [_as_text(pin) for pin in pins])
    else:
        print("nothing is pinned")
    return ExitCode.OK


def _remove(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect.pins import remove_pin

    remove_pin(store_of(args.store), args.id)
    return ExitCode.OK


def _held(pin: Pin) -> str:
    return "everything" if pin.everything else f"{pin.blobs} blobs, {size(pin.bytes)}"


def _as_text(pin: Pin) -> tuple[str, ...]:
    until = "-" if pin.expires_ns is None else moment(pin.expires_ns)
    return (str(pin.id), _held(pin), moment(pin.created_ns), until, printable(pin.reason))
