"""Loading the native accelerator, a C extension that is there if the installation could build it.

It has to be in the process, with its symbols visible, before pyfuse3 is loaded (native/session.c says why):
the package imports this module first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType

from casfs.filestore.durable import Durable
from casfs.syscalls import AT_FDCWD


def _load() -> tuple[ModuleType | None, str]:
    if "pyfuse3" in sys.modules:
        return None, "pyfuse3 was loaded before it"
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        from casfs.fuse import _native
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        return None, "it was not built with this installation" if missing else str(error)
    finally:
        sys.setdlopenflags(flags)
    return _native, ""


native, missing = _load()
"""The extension and "", or None and the reason why there is none."""


def chosen(wanted: bool, pyfuse3_file: str) -> tuple[ModuleType | None, str]:
    """As `native` and `missing`, for a mount with pyfuse3's extension in that file: it has to call the same
    libfuse."""
    if not wanted:
        return None, "the mount option no_native"
    if native is not None and not native.same_libfuse(pyfuse3_file):
        return None, "pyfuse3 is linked with another libfuse"
    return native, missing


class NativeDurable(Durable):
    """The durable seam with the files of a commit's blobs made in one call, without the GIL."""

    def write_files(
        self, files: Sequence[tuple[str, bytes | bytearray, int]], *, dir_fd: int | None = None
    ) -> None:
        assert native is not None
        native.write_files(files, AT_FDCWD if dir_fd is None else dir_fd)


def durable() -> Durable:
    """The seam for a store that is mounted."""
    return Durable() if native is None else NativeDurable()
