"""Having a store do something, whether it is mounted or not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from casfs.control.client import Client, DaemonError, Unanswered
from casfs.control.messages import AddDigests, Collect, Damaged, Operation, Result
from casfs.errors import ExitCode, NotMounted

if TYPE_CHECKING:  # commands that only ask shall not wait for the whole file system to be loaded
    from casfs.maintenance.collect.mounted import Collected
    from casfs.namespace.collecting import Record
    from casfs.namespace.digests import DigestRow, DigestRun


class StoreAccess:
    """A store: through the daemon that has it mounted, or without one in this process, under the store's lock
    and for one operation at a time.

    `mounted`: it was found by its mount, so that a daemon that is gone has died: there is no doing without.
    `pid`: the daemon that has the mount, so that no other one is asked.
    """

    def __init__(self, store: str, *, mounted: bool = False, pid: int | None = None) -> None:
        self._client = Client(store, pid=pid)
        self._mounted = mounted

    @property
    def store(self) -> str:
        return self._client.store

    def perform(self, operation: Operation[Result]) -> Result:
        """Have an operation done that control/unmounted.py has, and wait for it.

        Raises PermissionDenied, NoAnswer, Unanswered and DaemonError as `Client` does, and NotMounted if it
        is to be `mounted`; without a daemon as `Store` and the operation do.
        """
        try:
            return self._client.ask(operation)
        except NotMounted as error:
            if self._mounted or isinstance(error, Unanswered):  # a copy into a directory is not done twice
                raise
        from casfs.control.unmounted import perform

        return perform(self._client.store, operation)

    def tell(self, operation: Operation[Result]) -> Result | None:
        """Have the daemon do what there is only for it to do; None when there is none.

        Raises PermissionDenied, NoAnswer, DaemonError.
        """
        with contextlib.suppress(NotMounted):
            return self._client.ask(operation)
        return None

    # For maintenance, which knows nothing of daemons

    def damaged(self, blobs: list[int]) -> None:
        """These blobs' files were found to be bad and taken away. Raises as `tell`."""
        self.tell(Damaged(blobs))

    def collect(self, ids: list[int], cutoff_ns: int, now_ns: int, record: Record) -> Collected | None:
        """Remove orphans (maintenance/collect/mounted.py); None when there is no daemon. Raises as `tell`."""
        from casfs.maintenance.collect.mounted import Collected
        from casfs.namespace.collecting import Amount

        answer = self.tell(Collect(ids, cutoff_ns, now_ns, record))
        if answer is None:
            return None
        try:
            failures = [(bytes.fromhex(digest), size, reason) for digest, size, reason in answer.failures]
        except ValueError:
            raise DaemonError("the daemon has named a digest that is none", ExitCode.FAILED) from None
        gone = Amount(answer.blobs, answer.bytes)
        return Collected(gone, failures, answer.untried, answer.gave_up, answer.busy)

    def add_digests(self, rows: list[DigestRow], run: DigestRun, durable: bool) -> bool:
        """Write digests (maintenance/digests/mounted.py); False when there is no daemon. Raises as `tell`."""
        shown = [(row.blob_id, row.algorithm, row.value.hex()) for row in rows]
        return self.tell(AddDigests(shown, run, durable)) is not None
