"""Files that cannot be sealed: told once for each reason, however many they are, and once when it is over."""

from __future__ import annotations

import logging
import os

from casfs.namespace.namespace import Namespace

log = logging.getLogger(__name__)


class Complaints:
    """Owned by the thread that runs the file system. `open`: reason -> inodes that stay staged for it."""

    def __init__(self, namespace: Namespace) -> None:
        self._dentries = namespace.dentries
        self.open: dict[str, set[int]] = {}

    def path(self, ino: int) -> str:
        """Where a file is, to be told."""
        paths = self._dentries.paths_of(ino)
        return os.fsdecode(paths[0]) if paths else f"inode {ino}, which has no name"

    def stays_staged(self, ino: int, error: Exception) -> None:
        """It could not be sealed."""
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number else str(error)
        if reason in self.open:
            self.open[reason].add(ino)
            return
        self.open[reason] = {ino}
        unexpected = None if isinstance(error, OSError) else error
        text = "%s stays staged: %s; not said of others while this lasts"
        log.error(text, self.path(ino), error, exc_info=unexpected)

    def over(self, ino: int) -> None:
        """It was sealed, or is gone."""
        for reason, inos in list(self.open.items()):
            inos.discard(ino)
            if not inos:
                del self.open[reason]
                log.info("no file stays staged any more (%s)", reason)
