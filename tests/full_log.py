"""SQLite meets a full disk in the middle of a COMMIT, though room was allocated."""

from __future__ import annotations

import apsw


class FullLog(apsw.VFS):
    """A VFS whose write-ahead logs take so many more writes (`writes_left`; None: all). The default one until
    `unregister`."""

    def __init__(self, error: type[apsw.Error] = apsw.FullError) -> None:
        self.writes_left: int | None = None
        self.refused = 0
        self.error = error
        super().__init__("full-log", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if flags[0] & apsw.SQLITE_OPEN_WAL:
            return _Log(self, name, flags)
        return apsw.VFSFile("unix", name, flags)


class _Log(apsw.VFSFile):
    def __init__(self, vfs: FullLog, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._vfs = vfs

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._vfs.writes_left is not None:
            if not self._vfs.writes_left:
                self._vfs.refused += 1
                raise self._vfs.error("full")
            self._vfs.writes_left -= 1
        super().xWrite(data, offset)
