"""Builds the native accelerator `casfs.fuse._native` from the C files beside it: a build hook of hatchling.

The accelerator is optional. Where it cannot be built (no compiler, no headers, no pkg-config, an old
libfuse) the package is made without it, and one line of the build's output says why.

The C compiler and its flags are those Python was built with, or $CC, $CFLAGS and $LDFLAGS.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "casfs.fuse._native"
FILE = MODULE.replace(".", "/") + str(sysconfig.get_config_var("EXT_SUFFIX"))
LIBFUSE = "3.14"
"""The oldest libfuse with fuse_session_custom_io()."""
COMPILE = ["-std=gnu11", "-Wall", "-Wextra", "-fvisibility=hidden"]
COMPILER_FAILED = "no C compiler, or it failed as shown above (Debian: gcc, libc6-dev, python3-dev)"


class CannotBuildError(Exception):
    """Why there is no accelerator; one line."""


class NativeBuildHook(BuildHookInterface[Any]):
    """Puts the extension into a wheel; for an editable installation, beside the modules of the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel of the given version, "standard" or "editable", is made."""
        self._folder = TemporaryDirectory(prefix="casfs-native-")
        in_place = Path(self.root, FILE)
        try:
            built = compile_extension(Path(self.root, "casfs/fuse/native"), Path(self._folder.name))
        except CannotBuildError as reason:
            self.app.display_warning(f"casfs: built without its native accelerator: {reason}")
            if version == "editable":
                in_place.unlink(missing_ok=True)  # what older sources made does not fit these
            return
        self.app.display_info("casfs: built with its native accelerator")
        if version == "editable":
            move(built, in_place)
        else:
            build_data["force_include"][str(built)] = FILE
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is made."""
        self._folder.cleanup()


def compile_extension(sources: Path, folder: Path) -> Path:
    """Compile and link all C files of `sources`, working in `folder`; the shared object's path.

    Raises CannotBuildError.
    """
    flags = pkg_config("--cflags"), pkg_config("--libs")
    try:
        from setuptools import Distribution, Extension
        from setuptools.errors import BaseError, CCompilerError
    except ImportError as error:
        raise CannotBuildError(f"no setuptools to compile it with ({error})") from None
    extension = Extension(
        MODULE,
        sources=[str(file) for file in sorted(sources.glob("*.c"))],
        extra_compile_args=[*COMPILE, *flags[0]],
        extra_link_args=flags[1],
    )
    command = Distribution({"name": "casfs", "ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(folder)
    try:
        command.ensure_finalized()
        command.run()
    except (BaseError, CCompilerError, OSError):
        # Which of them, and its text, differ from one setuptools to the next.
        raise CannotBuildError(COMPILER_FAILED) from None
    return folder / FILE


def pkg_config(wanted: str) -> list[str]:
    """The compiler's or the linker's options for libfuse. Raises CannotBuildError."""
    command = ["pkg-config", "--print-errors", wanted, f"fuse3 >= {LIBFUSE}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CannotBuildError(f"cannot run pkg-config ({error.strerror}; Debian: pkg-config)") from None
    if done.returncode != 0:
        raise CannotBuildError(f"no libfuse {LIBFUSE} or newer to compile with (Debian: libfuse3-dev)")
    return shlex.split(done.stdout)


def move(file: Path, target: Path) -> None:
    """In one step, so that a program that starts meanwhile finds the old one or the new one, whole."""
    beside = target.with_suffix(".new")
    beside.write_bytes(file.read_bytes())
    beside.chmod(0o755)
    os.replace(beside, target)
