"""A process that ends before one of its durable steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from casfs.filestore.durable import Durable
from casfs.namespace.namespace import Namespace


class CutOff(BaseException):
    """The process ends here."""


def cut_at(patch: pytest.MonkeyPatch, last: int) -> list[str]:
    """Let the durable seam work for `last` calls and then no more; gives the calls as they are made."""
    calls: list[str] = []

    def watched(name: str, method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            if len(calls) >= last:
                raise CutOff
            calls.append(name)
            return method(*args, **more)

        return call

    for name in (
        "create",
        "write_whole",
        "rename",
        "rename_in",
        "link",
        "unlink",
        "fdatasync",
        "fsync_path",
        "syncfs",
    ):
        patch.setattr(Durable, name, watched(name, getattr(Durable, name)))
    for name in ("commit", "sync_log"):
        patch.setattr(Namespace, name, watched(name, getattr(Namespace, name)))
    return calls
