"""Daemons that were killed and do not end; tests/mounted/test_killed.py has a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from casfs.errors import MountError
from casfs.filestore.locks import Lock
from casfs.service import killed


def test_one_that_does_not_end_is_named_with_what_ends_it(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not abort its connection was told that the mount was in use."""
    monkeypatch.setattr(Lock, "is_held_by_killed", lambda lock: True)
    monkeypatch.setattr(killed, "ENDS_SECONDS", 0.1)
    with pytest.raises(MountError, match=r"was killed, and the kernel keeps it .*'umount -f'"):
        killed.end_killed(str(store_path))


def test_a_store_that_nobody_has_or_that_is_none_is_left_alone(store_path: Path, tmp_path: Path) -> None:
    assert not killed.end_killed(str(store_path))
    assert not killed.end_killed(str(tmp_path / "nothing"))
