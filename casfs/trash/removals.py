"""What was removed and has no rows in the trash yet."""

from __future__ import annotations

from casfs.fs.places import Place
from casfs.fs.policy import Reason

Removed = tuple[
    Place, bytes, int, int, Reason, dict[bytes, bytes], int, int, int, int, int, int | None, int, int, int
]
"""A file as it was: place, name, time of removal, uid of who did it, reason, attributes; then as in the row
of an inode mode, uid, gid, size, allocated, blob, atime, mtime, btime. Plain: made while others wait."""


BLOB = 11
"""Where it has the id of its blob."""


class Removals:
    """In the order of their removal, as long as their rows are not written in parts. Owned by the thread that
    runs the file system.

    `rows`: to be written for them at the most, with those of the directories that lead to their places.
    """

    def __init__(self) -> None:
        self._list: list[Removed] = []
        self._rows: list[int] = []
        self._in_order = True
        self.rows = 0

    def __len__(self) -> int:
        return len(self._list)

    def add(self, removed: Removed) -> None:
        place = removed[0]
        stays = bool(self._list) and self._list[-1][0] is place
        self._in_order = self._in_order and (stays or not self._list)
        self._list.append(removed)
        self._rows.append(1 if stays else 1 + len(place.chain))
        self.rows += self._rows[-1]

    def since(self, count: int) -> list[Removed]:
        """What came after the first `count`."""
        return self._list[count:]

    def take(self, those: list[Removed]) -> list[Removed]:
        """Remove some of the last ones, and give those that were there."""
        taken = []
        for removed in reversed(those):
            for number in range(len(self._list) - 1, -1, -1):
                if self._list[number] is removed:
                    taken.append(self._list.pop(number))
                    self.rows -= self._rows.pop(number)
                    break
        return taken

    def first(self, limit: int | None) -> list[Removed]:
        """All, or what takes about `limit` rows: place by place, since each has its directories looked up."""
        if limit is None:
            return self._list
        if not self._in_order:
            self._sort()
        rows = 0
        last: Place | None = None
        for count, removed in enumerate(self._list):
            place = removed[0]
            if count >= limit or (place is not last and rows >= limit):
                return self._list[:count]
            rows += 1 if place is last else 1 + len(place.chain)
            last = place
        return self._list

    def _sort(self) -> None:
        places: dict[int, list[int]] = {}
        for number, removed in enumerate(self._list):
            places.setdefault(id(removed[0]), []).append(number)
        order = [number for numbers in places.values() for number in numbers]
        self._list = [self._list[number] for number in order]
        self._rows = [self._rows[number] for number in order]
        self._in_order = True

    def written(self, count: int) -> None:
        """The first `count` have their rows."""
        self.rows -= sum(self._rows[:count])
        del self._list[:count], self._rows[:count]
