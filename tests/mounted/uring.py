"""io_uring(7), as much as it takes to keep a file without a descriptor, and to write to it.

By bare system calls: io_uring_setup(2), io_uring_register(2), io_uring_enter(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

_SETUP, _ENTER, _REGISTER = 425, 426, 427
_REGISTER_FILES, _REGISTER_BUFFERS = 2, 0
_OP_WRITE, _FIXED_FILE = 23, 1
_GETEVENTS = 1
_OFF_SQES = 0x10000000
_SQE = 64

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *args: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"io_uring system call {number}")
    return result


class Ring:
    """A ring of one request at a time."""

    def __init__(self) -> None:
        params = ctypes.create_string_buffer(120)
        self._fd = _call(_SETUP, 4, params)
        # struct io_uring_params: 10 words, then io_sqring_offsets and io_cqring_offsets
        self._entries, cq_entries = struct.unpack_from("II", params, 0)
        self._sq = struct.unpack_from("7I", params, 40)
        self._cq = struct.unpack_from("7I", params, 80)
        size = max(self._sq[6] + self._entries * 4, self._cq[5] + cq_entries * 16)
        self._ring = mmap.mmap(self._fd, size, mmap.MAP_SHARED)
        self._sqes = mmap.mmap(self._fd, self._entries * _SQE, mmap.MAP_SHARED, offset=_OFF_SQES)

    def register_file(self, fd: int) -> None:
        """The ring holds the file as number 0, also when the descriptor is closed."""
        _call(_REGISTER, self._fd, _REGISTER_FILES, struct.pack("i", fd), 1)

    def register_buffer(self, address: int, size: int) -> None:
        """Pin these pages for as long as the ring lives."""
        _call(_REGISTER, self._fd, _REGISTER_BUFFERS, struct.pack("QQ", address, size), 1)

    def write(self, offset: int, data: bytes) -> int:
        """Write to the registered file. Raises OSError."""
        buffer = ctypes.create_string_buffer(data, len(data))
        sqe = struct.pack(
            "BBHiQQI", _OP_WRITE, _FIXED_FILE, 0, 0, offset, ctypes.addressof(buffer), len(data)
        )
        self._sqes[:_SQE] = sqe.ljust(_SQE, b"\0")
        tail = self._word(self._sq[1])
        struct.pack_into("I", self._ring, self._sq[6] + 4 * (tail & self._word(self._sq[2])), 0)
        struct.pack_into("I", self._ring, self._sq[1], tail + 1)
        _call(_ENTER, self._fd, 1, 1, _GETEVENTS, None, 0)
        head = self._word(self._cq[0])
        place = self._cq[5] + 16 * (head & self._word(self._cq[2]))
        result: int = struct.unpack_from("i", self._ring, place + 8)[0]
        struct.pack_into("I", self._ring, self._cq[0], head + 1)
        if result < 0:
            raise OSError(-result, "io_uring write")
        return result

    def _word(self, offset: int) -> int:
        word: int = struct.unpack_from("I", self._ring, offset)[0]
        return word

    def close(self) -> None:
        self._ring.close()
        self._sqes.close()
        os.close(self._fd)
