"""What is answered before its rows are written, and cannot be written then."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.mounted.mounts import ACCELERATED, ENVIRONMENT, ROOT_OPTIONS, Mount

DAEMON_THAT_CANNOT_WRITE_A_NAME = """
import sys
import apsw
from casfs.cli.main import main
from casfs.namespace.dentries import Dentries

insert = Dentries.insert

def refuse(self, parent, cookie, name, ino, type_):
    if name == b"refused":
        raise apsw.IOError("the disk has failed")
    return insert(self, parent, cookie, name, ino, type_)

Dentries.insert = refuse
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not ACCELERATED, reason="nothing is answered early without the accelerator")
@pytest.mark.parametrize("mode", ["native"])
@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY))])
def test_a_name_that_is_answered_and_cannot_be_written_fails_its_whole_group(
    new_mount: Callable[..., Mount], make: Callable[[str], None]
) -> None:
    mount = new_mount()
    mount.expect("(mkdir|create) failed", "Traceback", "the store cannot be written")
    command = [sys.executable, "-c", DAEMON_THAT_CANNOT_WRITE_A_NAME, "mount", mount.store, mount.path]
    subprocess.run([*command, "-o", ROOT_OPTIONS], env=ENVIRONMENT, check=True)
    root = os.open(mount.path, os.O_RDONLY)
    os.mkdir(mount.path / "kept")
    os.fsync(root)
    os.mkdir(mount.path / "lost with its group")
    make(f"{mount.path}/refused")
    with pytest.raises(OSError, match="Read-only") as raised:
        os.mkdir(mount.path / "later")
    assert raised.value.errno == errno.EROFS
    assert mount.status["activity"]["failed"] == errno.EIO
    with pytest.raises(OSError, match="error"):
        os.fsync(root)
    os.close(root)
    mount.kill()
    mount.start()
    assert os.listdir(mount.path) == ["kept"]


DAEMON_THAT_CLOSES_A_DESCRIPTOR_TOO_EARLY = """
import errno
import os
import sys
from casfs.cli.main import main
from casfs.fs.content.files import Files

async def truncate(*_):
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))

Files.truncate = truncate
sys.exit(main(sys.argv[1:]))
"""


def test_a_program_is_not_told_that_its_descriptor_is_bad_when_the_daemons_is(
    new_mount: Callable[..., Mount],
) -> None:
    """EBADF is for who gave a wrong descriptor. It is a fault of the daemon, which its log has to show."""
    mount = new_mount()
    mount.expect("setattr failed", "Traceback")
    program = DAEMON_THAT_CLOSES_A_DESCRIPTOR_TOO_EARLY
    options = ROOT_OPTIONS + (",no_native" if mount.mode == "no-native" else "")
    words = ["mount", mount.store, mount.path, "-o", options]
    subprocess.run([sys.executable, "-c", program, *words], env=ENVIRONMENT, check=True)
    (mount.path / "file").touch()
    with pytest.raises(OSError, match="error") as raised:
        os.truncate(mount.path / "file", 10)
    assert raised.value.errno == errno.EIO
    assert "Bad file descriptor" in (mount.store / "run" / "mount.log").read_text()
