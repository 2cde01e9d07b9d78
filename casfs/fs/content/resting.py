"""When a file that is written again and again may be sealed: sealing is for what rests.

A log to which lines are added must not become a blob at each close(2): the next line would copy it, and
each version would lie there as an orphan. So what is written again after it was sealed stays a staged file
that its row names, until it has been quiet for a while. What sealing costs is the copy that the next write
takes: a large file of which little was written waits longer, so that no more is copied than twice of what is
written, but for a file that is written less than once in an hour.
"""

from __future__ import annotations

import heapq

REST_SECONDS = 30.0
"""How long a file has to be quiet to be sealed, at least ..."""

REST_LIMIT = 3600.0
"""... and at the most."""


def rest_seconds(size: int, written: int) -> float:
    """Seconds without a write after which a file of `size` bytes is sealed, of which `written` were written
    since it was copied."""
    return min(REST_LIMIT, REST_SECONDS * max(1.0, size / (2 * max(written, 1))))


class Resting:
    """The files whose rows name a staged file, and when each may be sealed. Owned by the thread that runs the
    file system. Times are those of its scheduler."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._written: dict[int, int] = {}
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, ino: int) -> bool:
        return ino in self._due

    def wrote(self, ino: int, size: int, written: int, now: float) -> None:
        """A file was written to, and is going to rest from now on."""
        total = self._written[ino] = self._written.get(ino, 0) + written
        self.put_off(ino, now + rest_seconds(size, total))

    def put_off(self, ino: int, due: float) -> None:
        """Seal a file at `due`, not before."""
        before = self._due.get(ino)
        self._due[ino] = due
        if before is None or due < before:
            heapq.heappush(self._heap, (due, ino))

    def forget(self, ino: int) -> None:
        """The file is sealed, or gone."""
        self._due.pop(ino, None)
        self._written.pop(ino, None)

    def everything(self) -> list[int]:
        """All of them."""
        return list(self._due)

    def next_due(self, now: float) -> int | None:
        """A file that has rested long enough; it is not given again before it is put off. None when there is
        none."""
        while self._heap and self._heap[0][0] <= now:
            _, ino = heapq.heappop(self._heap)
            due = self._due.get(ino)
            if due is not None and due <= now:
                del self._due[ino]
                return ino
            if due is not None:  # it was put off meanwhile
                heapq.heappush(self._heap, (due, ino))
        return None
