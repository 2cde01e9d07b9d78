"""The durable seam with somebody watching: every call can be seen before and after, or be made to fail.

`PowerLoss` knows what of a store would be left if the power went now: files as they were when they were last
synced, names as they were when their folder was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from casfs.filestore.durable import Durable
from casfs.namespace.namespace import Namespace
from tests.images import copy_file, copy_store

Watch = Callable[[int, str], None]


def located(path: str, dir_fd: int | None) -> Path:
    """What a call of the seam was about."""
    return Path(path) if dir_fd is None else Path(os.readlink(f"/proc/self/fd/{dir_fd}"), path)


class FaultyDurable(Durable):
    """Numbers the calls of the seam from 0; `before` and `after` see each, and `before` may raise.

    The namespace's own steps on the way to the disk, `reserve_log`, `commit` and `sync_log`, count as calls.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.before: Watch = lambda number, name: None
        self.after: Watch = lambda number, name: None

    def _call(self, name: str, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        self.before(number, name)
        result = function(*args, **more)
        self.after(number, name)
        return result

    def watch(self, namespace: Namespace) -> None:
        for name in ("reserve_log", "commit", "sync_log"):
            method = getattr(namespace, name)
            setattr(namespace, name, lambda *args, n=name, m=method: self._call(n, m, *args))

    def create(self, path: str, mode: int, *, dir_fd: int | None = None) -> int:
        return int(self._call("create", super().create, path, mode, dir_fd=dir_fd))

    def write_whole(self, fd: int, data: bytes | bytearray) -> None:
        self._call("write_whole", super().write_whole, fd, data)

    def rename(self, source: str, target: str, *, dir_fd: int | None = None) -> None:
        self._call("rename", super().rename, source, target, dir_fd=dir_fd)

    def link(self, source: str, target: str, *, dir_fd: int | None = None) -> None:
        self._call("link", super().link, source, target, dir_fd=dir_fd)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self._call("unlink", super().unlink, path, dir_fd=dir_fd)

    def fdatasync(self, fd: int) -> None:
        self._call("fdatasync", super().fdatasync, fd)

    def fsync_path(self, path: str, *, dir_fd: int | None = None) -> None:
        self._call("fsync_path", super().fsync_path, path, dir_fd=dir_fd)

    def syncfs(self, fd: int) -> None:
        self._call("syncfs", super().syncfs, fd)


class PowerLoss(FaultyDurable):
    """What the disk below a store is sure to hold.

    Pessimistic about files: bytes since the last sync of a file are lost, or zeros if there never was one;
    names since the last sync of their folder are not there. SQLite's log may be cut back to its last sync.
    The database file itself is taken as it is: the tests make no checkpoint while they watch.
    """

    def __init__(self, store: Path) -> None:
        super().__init__()
        self._store = store
        self._generation: dict[int, int] = {}
        self._content: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._folders: dict[Path, dict[str, tuple[int, int]]] = {}
        self._wal: bytes | None = None
        self._sync_everything()
        self._sync_log()

    # What is sure

    def create(self, path: str, mode: int, *, dir_fd: int | None = None) -> int:
        fd = super().create(path, mode, dir_fd=dir_fd)
        ino = os.fstat(fd).st_ino
        self._generation[ino] = self._generation.get(ino, 0) + 1
        return fd

    def fdatasync(self, fd: int) -> None:
        super().fdatasync(fd)
        self._sync_file(f"/proc/self/fd/{fd}")

    def fsync_path(self, path: str, *, dir_fd: int | None = None) -> None:
        super().fsync_path(path, dir_fd=dir_fd)
        place = located(path, dir_fd)
        if place.is_dir():
            self._sync_folder(place)
        else:
            self._sync_file(place)

    def syncfs(self, fd: int) -> None:
        super().syncfs(fd)
        self._sync_everything()

    def watch(self, namespace: Namespace) -> None:
        super().watch(namespace)
        sync_log = namespace.sync_log

        def synced() -> None:
            sync_log()
            self._sync_log()

        namespace.sync_log = synced  # type: ignore[method-assign]

    def _key(self, ino: int) -> tuple[int, int]:
        return ino, self._generation.get(ino, 0)

    def _sync_file(self, path: str | Path) -> None:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            self._content[self._key(status.st_ino)] = status.st_mode & 0o777, file.read()

    def _sync_folder(self, path: Path) -> None:
        self._folders[path] = {entry.name: self._key(entry.inode()) for entry in os.scandir(path)}

    def _sync_everything(self) -> None:
        for folder in (self._store / "staging", *(self._store / "blobs").iterdir()):
            self._sync_folder(folder)
            for file in folder.iterdir():
                self._sync_file(file)

    def _sync_log(self) -> None:
        self._wal = self._read_log()

    def _read_log(self) -> bytes | None:
        log = self._store / "casfs.db-wal"
        return log.read_bytes() if log.exists() else None

    @property
    def has_unsynced_log(self) -> bool:
        return self._read_log() != self._wal

    # What is left

    def image(self, target: Path, *, lose_files: bool, lose_log: bool) -> None:
        """Make `target` the store after a cut: with files, or the log, as they were last synced."""
        if lose_files:
            self._write_synced(target)
        else:
            copy_store(self._store, target)
        if lose_log:
            log = target / "casfs.db-wal"
            log.unlink(missing_ok=True)
            if self._wal is not None:
                log.write_bytes(self._wal)

    def _write_synced(self, target: Path) -> None:
        for folder in (target, target / "run", target / "blobs"):
            folder.mkdir(0o700)
        for name in ("casfs.toml", "casfs.db", "casfs.db-wal"):
            if (self._store / name).exists():
                copy_file(str(self._store / name), str(target / name))
        written: dict[tuple[int, int], Path] = {}
        for folder, names in self._folders.items():
            place = target / folder.relative_to(self._store)
            place.mkdir(0o700)
            for name, key in names.items():
                if key in written:
                    os.link(written[key], place / name)
                else:
                    mode, content = self._content.get(key, (0o600, bytes(100)))
                    (place / name).write_bytes(content)
                    (place / name).chmod(mode)
                    written[key] = place / name
