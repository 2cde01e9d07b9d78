"""The package as it is installed: with its native accelerator, and without where that cannot be built."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from casfs.cli.help import TOPICS
from tests.mounted.mounts import ENVIRONMENT

CHECKOUT = Path(__file__).resolve().parents[1]
NATIVE = CHECKOUT / "casfs" / "fuse" / "native"
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]

LOOK = """
import importlib.util, casfs.fuse.session
from casfs.fuse import accelerator
print(casfs.__file__)
found = importlib.util.find_spec("casfs.fuse._native") is not None
assert found == (accelerator.native is not None), accelerator.missing
print(found)
"""


def run(*command: object, cwd: Path = CHECKOUT, **environment: str) -> str:
    """What a program prints, with its complaints."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**ENVIRONMENT, "PYTHONPATH": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build_wheel(source: Path, folder: Path, **environment: str) -> tuple[Path, list[str]]:
    """The wheel, and what the build says about the accelerator."""
    output = run(sys.executable, "-m", "pip", "wheel", "-v", *OFFLINE, "-w", folder, source, **environment)
    (wheel,) = folder.glob("*.whl")
    return wheel, [line.strip() for line in output.splitlines() if "native accelerator" in line]


def has_accelerator(wheel: Path, folder: Path) -> bool:
    """Install the wheel in a fresh virtual environment, and look there."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, wheel)
    # The dependencies are the test run's; its .pth files, with the checkout's path, do not count there.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(
        "\n".join({sysconfig.get_path(name) for name in ("purelib", "platlib")})
    )
    file, found = run(python, "-I", "-c", LOOK).splitlines()
    assert Path(file).is_relative_to(folder)
    return found == "True"


def test_a_wheel_from_the_source_distribution_has_the_accelerator_and_the_schema(tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    packed = {Path(name).name for name in names if "/casfs/fuse/native/" in name}
    assert packed == {file.name for file in NATIVE.iterdir() if file.suffix in (".c", ".h", ".py")}
    assert not [name for name in names if name.endswith(".so")]

    wheel, said = build_wheel(sdist, tmp_path / "wheels")
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name).name for name in archive.namelist() if name.startswith("casfs/help/")}
    assert packed == {f"{topic}.txt" for topic in TOPICS}
    assert said == ["casfs: built with its native accelerator"]
    assert wheel.stem.endswith(sysconfig.get_platform().replace("-", "_"))
    with zipfile.ZipFile(wheel) as archive:
        scripts = {name for name in archive.namelist() if name.endswith(".sql")}
    assert scripts == {str(file.relative_to(CHECKOUT)) for file in (CHECKOUT / "casfs").rglob("*.sql")}
    assert has_accelerator(wheel, tmp_path / "venv")


NO_COMPILER = "no C compiler, or it failed as shown above (Debian: gcc, libc6-dev, python3-dev)"
NO_LIBFUSE = "no libfuse 3.14 or newer to compile with (Debian: libfuse3-dev)"


@pytest.mark.parametrize(
    ("programs", "environment", "reason"),
    [
        (["pkg-config", "gcc"], {"CC": "/bin/false"}, NO_COMPILER),
        (["pkg-config"], {}, NO_COMPILER),
        (["gcc"], {}, "cannot run pkg-config (No such file or directory; Debian: pkg-config)"),
        (["pkg-config", "gcc"], {"PKG_CONFIG_LIBDIR": "{old}"}, NO_LIBFUSE),
        (["pkg-config", "gcc"], {"PKG_CONFIG_LIBDIR": "/nowhere"}, NO_LIBFUSE),
    ],
    ids=["failing compiler", "no compiler", "no pkg-config", "old libfuse", "no libfuse"],
)
def test_what_cannot_be_compiled_is_left_out(tmp_path, programs, environment, reason):
    path, old = tmp_path / "bin", tmp_path / "old"
    path.mkdir()
    for program in programs:
        (path / program).symlink_to(str(shutil.which(program)))
    old.mkdir()
    (old / "fuse3.pc").write_text("Name: fuse3\nDescription: FUSE\nVersion: 3.13.1\n")
    settings = {name: value.format(old=old) for name, value in environment.items()}

    wheel, said = build_wheel(CHECKOUT, tmp_path / "wheels", PATH=str(path), **settings)
    assert said == [f"casfs: built without its native accelerator: {reason}"]
    assert wheel.stem.endswith("-py3-none-any")
    assert not has_accelerator(wheel, tmp_path / "venv")


def test_an_old_accelerator_does_not_outlive_sources_that_do_not_compile(tmp_path):
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("casfs", "pyproject.toml", "README.md", ".gitignore"):
        source = CHECKOUT / name
        if source.is_dir():  # others may be compiling what they import
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel:editable", "-d", tmp_path]
    accelerator = copy / "casfs" / "fuse" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"

    run(*build, cwd=copy)
    assert accelerator.exists()
    run(*build, cwd=copy, CC="/bin/false")
    assert not accelerator.exists()
