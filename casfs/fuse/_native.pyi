"""The native accelerator (native/module.c documents each of these)."""

from collections.abc import Callable, Coroutine
from typing import Any

IDLE: int
PENDING: int
BURST: int
WOKEN: int
ENDED: int

def prepare(
    handlers: dict[int, Callable[..., Any]],
    suspended: Callable[[Coroutine[Any, Any, Any], int, int], None],
    failed: Callable[[BaseException, int], int],
    inode_type: type,
    inodes: dict[int, Any],
    unlinked: set[int],
    presentation: tuple[int, int, int],
    wake_fd: int,
    stack_depth: int,
) -> None: ...
def same_libfuse(path: str) -> bool: ...
def status() -> dict[str, Any]: ...
def serve(patience: int, burst: int) -> int: ...
def finish(opcode: int, unique: int, result: object, error: BaseException | None) -> None: ...
def backing_open(fd: int) -> int: ...
def backing_close(backing_id: int) -> None: ...
def write_files(files: list[tuple[str, bytes | bytearray, int]]) -> None: ...
def stack_depth(path: str) -> int: ...
