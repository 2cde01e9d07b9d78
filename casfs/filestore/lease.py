"""Who else has a file open: asked of the kernel by taking a lease, fcntl(2), and giving it back at once.

A mapping that was made through a passthrough handle holds the file below (backing_file_mmap in
fs/backing-file.c), not the FUSE file: RELEASE comes when the descriptor is closed, while the mapping lives
and may still write. A lease is granted by the counts of the inode below (check_conflicting_open in
fs/locks.c), in which mappings are.
"""

from __future__ import annotations

import fcntl
import signal

_SETSIG = 10
"""F_SETSIG of linux/fcntl.h; Python's fcntl has it under no name before 3.12."""


def others_may_write(fd: int) -> bool:
    """May anybody still write to the file of a read-only descriptor: by another descriptor, the caller's own
    included, or a mapping? True also where no lease can be had, so that nobody knows."""
    return not _is_granted(fd, fcntl.F_RDLCK)


def others_have_open(fd: int) -> bool:
    """Has anybody the file of a read-only descriptor open or mapped, besides that descriptor and those of
    O_PATH? True also where no lease can be had."""
    return not _is_granted(fd, fcntl.F_WRLCK)


def _is_granted(fd: int, kind: int) -> bool:
    try:
        # Who breaks a lease has a signal sent: by default SIGIO, which would end the process.
        fcntl.fcntl(fd, _SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True
