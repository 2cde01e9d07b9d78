"""Collection: what goes, what stays, and what is left when it is cut off."""

from __future__ import annotations

from pathlib import Path

from casfs.maintenance import gc
from casfs.maintenance.gc import Outcome
from tests.session import Session


def collect(path: Path, *, grace_ns: int = 0, full: bool = False) -> Outcome:
    with gc.opened(str(path)) as store:
        return gc.execute(store, gc.plan(store, grace_ns=grace_ns, full=full))


def remove(session: Session, *names: bytes) -> None:
    for name in names:
        session.kernel.unlink(name)
    session.kernel.sync()


def test_orphans_go_and_the_rest_stays(session: Session) -> None:
    session.kernel.write_file(b"kept", b"kept")
    session.kernel.write_file(b"gone", b"gone" * 1000)
    session.kernel.sync()
    remove(session, b"gone")
    assert session.blobs == 2
    outcome = collect(session.path)
    assert (outcome.blobs, outcome.bytes, outcome.failures, outcome.error) == (1, 4000, 0, "")
    assert session.blobs == 1
    assert session.kernel.read_file(b"kept") == b"kept"
    session.kernel.write_file(b"again", b"gone" * 1000, sync=True)
    assert session.blobs == 2
